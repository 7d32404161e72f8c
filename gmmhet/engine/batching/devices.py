"""The devices that share every batch: one, the GPUs of this machine, or those of several machines (TF_CONFIG).

The networks are small and the projections are not, so batches are shared and not networks: each device computes the gradient of its part
of a batch, the sum comes back to every process, and each applies it once to its own variables.
"""
import json
import os
from functools import cached_property, lru_cache

import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.log import log

#: what TF_CONFIG looks like, for messages
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def this_process():
    """Number of this process among those that TF_CONFIG lists, the chief first, and how many they are; 0 and 1 without TF_CONFIG.

    Raises
    ------
    ConfigError
        when TF_CONFIG cannot be understood.
    """
    told = os.environ.get("TF_CONFIG", "")
    if not told:
        return 0, 1
    try:
        told = json.loads(told)
        processes = [(kind, i) for kind in ("chief", "worker") for i in range(len(told["cluster"].get(kind, ())))]
        return (processes.index((told["task"]["type"], int(told["task"]["index"]))), len(processes)) if len(processes) > 1 else (0, 1)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("TF_CONFIG must name the hosts and which of them this is, for example %s; got %s" % (
            EXAMPLE, os.environ["TF_CONFIG"])) from None


class Devices:
    """How batches are shared.

    Every process walks through the same batches in the same order and reads only its own rows of each, which its devices share equally.
    A short last batch is filled up with its own items, whose second results are dropped. With one device nothing of this happens.

    Parameters
    ----------
    strategy : tf.distribute.Strategy, or None for one device.
    process, processes : int, which of how many processes this is; process 0 is the chief, the only one that writes.
    """

    def __init__(self, strategy=None, process=0, processes=1):
        self._strategy, self.process, self.processes = strategy, process, processes
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self._here = self.replicas // processes

    @property
    def is_chief(self):
        return self.process == 0

    def own(self, rows, size):
        """This process's part of the rows [B, ...] of a batch, B being `size` or, for the last batch, less."""
        return self._part(np.resize(rows, (self._filled(size), *rows.shape[1:]))) if self.replicas > 1 else rows

    def shares(self, count, size):
        """What each of this process's items counts in the mean over a batch of `count`: 1/count, and 0 where the batch was filled up."""
        filled = self._filled(size) - count if self.replicas > 1 else 0
        return self._part(np.repeat(np.array([1 / count, 0], np.float32), [count, filled]))

    def _filled(self, size):
        return size + -size % self.replicas

    def _part(self, rows):
        return np.split(rows, self.processes)[self.process]

    def spread(self, batch):
        """Arrays of this process's rows [b, ...], each to a part per device."""
        if self.replicas == 1:
            return batch
        first = self.process * self._here
        parts = [np.split(np.asarray(rows), self._here) for rows in batch]
        distribute = self._strategy.experimental_distribute_values_from_function
        return tuple(distribute(lambda c, p=part: p[c.replica_id_in_sync_group - first]) for part in parts)

    def each(self, function, arguments):
        """Results of `function` on every device."""
        return function(*arguments) if self.replicas == 1 else self._strategy.run(function, arguments)

    def total(self, tensors):
        """Sums over the devices of a list of tensors, exchanged in one piece."""
        if self.replicas == 1:
            return tensors
        import tensorflow as tf
        shapes = [self._strategy.experimental_local_results(t)[0].shape for t in tensors]
        flat = self._strategy.run(lambda *parts: tf.concat([tf.reshape(p, [-1]) for p in parts], 0), tensors)
        flat = self._strategy.reduce(tf.distribute.ReduceOp.SUM, flat, axis=None)
        return [tf.reshape(part, shape) for part, shape in zip(tf.split(flat, [s.num_elements() for s in shapes]), shapes)]

    def whole(self, results):
        """A tuple of results [b, ...] per device to those of the whole batch [B, ...], on every process."""
        if self.replicas == 1:
            return results
        import tensorflow as tf
        ours = [self._strategy.experimental_local_results(r)[0] for r in results]
        empty = [0 in part.shape[1:] for part in ours]      # gathering no columns ends the process
        found = [None if nothing else self._strategy.gather(r, axis=0) for r, nothing in zip(results, empty)]
        count = tf.shape(next(whole for whole in found if whole is not None))[0]
        return tuple(tf.zeros([count, *part.shape[1:]], part.dtype) if whole is None else whole for whole, part in zip(found, ours))

    def compiled(self, function):
        """`function`, from tensors of a batch to a tuple of results per item, compiled and shared by all devices.

        Returns
        -------
        callable: size of the whole batch, arrays of this process's rows -> results of the whole batch.
        """
        shared = self.for_all_sizes(lambda *batch: self.whole(self.each(function, batch)))

        def call(count, *batch):
            results = shared(*self.spread(batch))
            return results if self.replicas == 1 else tuple(r[:count] for r in results)
        return call

    def for_all_sizes(self, function):
        """`function` of tensors [B, ...] and numbers, compiled when it is first called, once for batches of whatever size B where one
        device computes."""
        import tensorflow as tf
        if self.replicas > 1:
            return tf.function(function, reduce_retracing=True, autograph=False)
        compiled: list = []

        def call(*arrays):
            if not compiled:
                signature = [tf.TensorSpec([None, *a.shape[1:]] if len(a.shape) else [], a.dtype) for a in arrays]
                compiled.append(tf.function(function, input_signature=signature, autograph=False))
            return compiled[0](*arrays)
        return call

    @cached_property
    def _exchange(self):
        return self.compiled(lambda numbers: (numbers,))

    def ask(self, number):
        """The number that each process gives, [processes]; they wait for one another."""
        if self.processes == 1:
            return np.array([number])
        numbers, = self._exchange(self.replicas, np.full(self._here, number, np.float32))
        return numbers.numpy()[::self._here]

    def average(self, variables):
        """Give floating-point variables their mean over the processes: each has seen other particles in batch normalisation."""
        if self.processes == 1:
            return
        import tensorflow as tf
        variables = [v for v in variables if tf.as_dtype(v.dtype).is_floating]
        means = tf.function(lambda: self.total(self.each(lambda: tuple(v / self.replicas for v in variables), ())), autograph=False)()
        for variable, mean in zip(variables, means):
            variable.assign(mean)


@lru_cache(None)
def find_devices(alone=False):
    """All visible devices: of the hosts in TF_CONFIG (call it then before anything is computed) unless this one is to work `alone`, else
    this machine's GPUs, else one."""
    import tensorflow as tf
    process, processes = (0, 1) if alone else this_process()
    if processes > 1:
        log.info("host %d of %d, waiting for the others", process, processes)
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), process, processes)
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return Devices(tf.distribute.MirroredStrategy([d.name for d in found])) if len(found) > 1 else Devices()
