"""The devices that share every batch: one, the GPUs of this machine, or those of several machines
(TF_CONFIG).

The networks are small and the projections are not, so batches are shared and not networks: each device
computes the gradient of its share of a batch, the sum comes back to every process, and each applies it once
to its own variables.
"""
import json
import os
from functools import cached_property, lru_cache
from typing import Any, Callable, Optional, Sequence, Tuple

import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.log import log

#: what TF_CONFIG looks like, for messages
TF_CONFIG_EXAMPLE = ('{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                     '"task": {"type": "worker", "index": 0}}')


def this_process() -> Tuple[int, int]:
    """Number of this process among those that TF_CONFIG lists, the chief first, and how many they are; 0 and
    1 without TF_CONFIG.

    Raises
    ------
    ConfigError
        when TF_CONFIG cannot be understood.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0, 1
    try:
        setting = json.loads(text)
        hosts, task = setting["cluster"], setting.get("task", {})
        processes = [(kind, i) for kind in ("chief", "worker") for i in range(len(hosts.get(kind, ())))]
        if len(processes) < 2:
            return 0, 1
        return processes.index((task["type"], int(task["index"]))), len(processes)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("TF_CONFIG must name the hosts and which of them this is, for example %s; got %s"
                          % (TF_CONFIG_EXAMPLE, text)) from None


class Devices:
    """How batches are shared between devices.

    Every process walks through the same batches in the same order and reads only its own rows of each, which
    its devices share equally. A short last batch is filled up with rows of its own, whose second results are
    dropped. With one device nothing of this happens.

    Parameters
    ----------
    strategy : tf.distribute.Strategy, or None for one device.
    process, processes : int, which of how many processes this is; process 0 is the chief, the only one that
        writes.

    Attributes
    ----------
    replicas : int, devices of all processes.
    """

    def __init__(self, strategy: Any = None, process: int = 0, processes: int = 1):
        self._strategy, self.process, self.processes = strategy, process, processes
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        self._local_replicas = self.replicas // processes

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.process == 0

    def local_rows(self, rows: np.ndarray, size: int) -> np.ndarray:
        """This process's rows of the rows [B, ...] of a batch, B being `size` or, for the last batch,
        less."""
        if self.replicas == 1:
            return rows
        return self._local_split(np.resize(rows, (self._padded_size(size), *rows.shape[1:])))

    def shares(self, count: int, size: int) -> np.ndarray:
        """What each of this process's rows counts in the mean over a batch of `count`: 1/count, and 0 where
        the batch was filled up."""
        n_padding = self._padded_size(size) - count if self.replicas > 1 else 0
        return self._local_split(np.repeat(np.array([1 / count, 0], np.float32), [count, n_padding]))

    def _padded_size(self, size: int) -> int:
        """Rows of a batch that all devices share equally."""
        return size + -size % self.replicas

    def _local_split(self, rows: np.ndarray) -> np.ndarray:
        return np.split(rows, self.processes)[self.process]

    def spread(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Arrays of this process's rows [b, ...], each divided among its devices."""
        if self.replicas == 1:
            return batch
        first = self.process * self._local_replicas

        def distribute(rows: Any) -> Any:
            of_devices = np.split(np.asarray(rows), self._local_replicas)
            return self._strategy.experimental_distribute_values_from_function(
                lambda context: of_devices[context.replica_id_in_sync_group - first])
        return tuple(distribute(rows) for rows in batch)

    def each(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """Results of `function` on every device."""
        return function(*arguments) if self.replicas == 1 else self._strategy.run(function, arguments)

    def total(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Sums over the devices of a list of tensors, exchanged in one piece."""
        if self.replicas == 1:
            return tensors
        import tensorflow as tf
        shapes = [self._strategy.experimental_local_results(t)[0].shape for t in tensors]
        flat = self._strategy.run(lambda *own: tf.concat([tf.reshape(t, [-1]) for t in own], 0), tensors)
        flat = self._strategy.reduce(tf.distribute.ReduceOp.SUM, flat, axis=None)
        sums = tf.split(flat, [shape.num_elements() for shape in shapes])
        return [tf.reshape(total, shape) for total, shape in zip(sums, shapes)]

    def whole(self, results: Sequence[Any]) -> Sequence[Any]:
        """A tuple of results [b, ...] per device to those of the whole batch [B, ...], on every process."""
        if self.replicas == 1:
            return results
        import tensorflow as tf
        local = [self._strategy.experimental_local_results(r)[0] for r in results]
        # gathering no columns ends the process
        gathered = [None if 0 in own.shape[1:] else self._strategy.gather(r, axis=0)
                    for r, own in zip(results, local)]
        count = tf.shape(next(rows for rows in gathered if rows is not None))[0]
        return tuple(tf.zeros([count, *own.shape[1:]], own.dtype) if rows is None else rows
                     for rows, own in zip(gathered, local))

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, from tensors of a batch to a tuple of results [B, ...], compiled and shared by all
        devices.

        Returns
        -------
        callable: size of the whole batch, arrays of this process's rows -> results of the whole batch.
        """
        shared = self.for_all_sizes(lambda *batch: self.whole(self.each(function, batch)))

        def call(count: int, *batch: Any) -> Any:
            results = shared(*self.spread(batch))
            return results if self.replicas == 1 else tuple(r[:count] for r in results)
        return call

    def for_all_sizes(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` of tensors [B, ...] and numbers, compiled when it is first called, once for batches of
        whatever size B where one device computes."""
        import tensorflow as tf
        if self.replicas > 1:
            shared: Callable[..., Any] = tf.function(function, reduce_retracing=True, autograph=False)
            return shared
        compiled: Optional[Callable[..., Any]] = None

        def call(*arrays: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                signature = [tf.TensorSpec([None, *a.shape[1:]] if len(a.shape) else [], a.dtype)
                             for a in arrays]
                compiled = tf.function(function, input_signature=signature, autograph=False)
            return compiled(*arrays)
        return call

    @cached_property
    def _exchange(self) -> Callable[..., Any]:
        return self.compiled(lambda numbers: (numbers,))

    def ask(self, number: float) -> np.ndarray:
        """The number that each process gives, [processes]; they wait for one another."""
        if self.processes == 1:
            return np.array([number])
        numbers, = self._exchange(self.replicas, np.full(self._local_replicas, number, np.float32))
        return numbers.numpy()[::self._local_replicas]

    def average(self, variables: Sequence[Any]) -> None:
        """Give floating-point variables their mean over the processes: each has seen other particles in batch
        normalisation."""
        if self.processes == 1:
            return
        import tensorflow as tf
        variables = [v for v in variables if tf.as_dtype(v.dtype).is_floating]

        def mean() -> Any:
            return self.total(self.each(lambda: tuple(v / self.replicas for v in variables), ()))
        for variable, value in zip(variables, tf.function(mean, autograph=False)()):
            variable.assign(value)


@lru_cache(None)
def find_devices(alone: bool = False) -> Devices:
    """All visible devices: of the hosts in TF_CONFIG (call it then before anything is computed) unless this
    one is to work `alone`, else this machine's GPUs, else one."""
    import tensorflow as tf
    process, processes = (0, 1) if alone else this_process()
    if processes > 1:
        log.info("host %d of %d, waiting for the others", process, processes)
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(), process, processes)
    names = [d.name for d in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    return Devices(tf.distribute.MirroredStrategy(names)) if len(names) > 1 else Devices()
