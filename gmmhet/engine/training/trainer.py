"""Heterogeneity training: encoder and decoder learn together, held-out particles say when to stop (METHOD.md section 4)."""
import csv
import functools
import io
import itertools
import os
import time

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import prefetched
from gmmhet.engine.config import FIRST_ANGST
from gmmhet.engine.inference.pose_errors import SETTLE_EPOCHS, SETTLE_STEPS, joint_function
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.saved import assign
from gmmhet.engine.objective.elbo import Bound
from gmmhet.engine.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from gmmhet.engine.training.column_schedule import LEAD, WORTH
from gmmhet.engine.training.early_stopping import standard_errors, surely

CLIP_NORM = 10.0
#: latent points at which the decoder's description is measured
POINTS = 32
#: epochs over which the divergence comes to count in full, where nothing is known before training
WARM_UP_EPOCHS = 2


class TrainError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class Trainer:
    """The state of one training run.

    Loss per particle: minus a bound on its evidence (see `Bound`), so that the held-out value is one on the evidence for heterogeneity and
    not only a fit; plus, while learning, a share of what it takes to describe the decoder (`HeterogeneityModel.description`). The bound is
    by one draw of z until all columns vary, and then by several; of faint motion by several from the start. The part in which a column may
    lead is learned at no finer than 12 Å, where the networks begin with a linear answer (see `start`). What counts, for held-out particles
    (always at the target resolution) and in the end, are the weights' running averages: from step to step weights follow noise.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items; features : Rows [n_items, F]; neutral : float [n], agreement of particles before this training: neutral, or of the
        earlier stages.
    poses : PoseErrors, or None where the given poses are taken as exact.
    held_out : bool [n], particles.
    config : TrainConfig.
    run : RunDir.
    devices : Devices.
    """

    def __init__(self, model, items, features, neutral, poses, held_out, config, run, devices):
        self.model, self.items, self.features, self.neutral, self.poses = model, items, features, neutral, poses
        self.held_out, self.config, self.run, self.devices = held_out, config, run, devices
        self.agreement = model.likelihood.by(config.objective)
        self.learned = np.flatnonzero(~held_out)
        self._images = len(self.learned) * model.copies
        #: without a likelihood nothing says what the decoder's description and the base are worth
        self._described = model.settings.get("description", 0.0) if self.agreement.is_likelihood else 0.0
        self.steps_per_epoch = -(-len(self.learned) // config.batch_size)
        schedule = tf.keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs * self.steps_per_epoch, alpha=0.05)
        self.optimizer = tf.keras.optimizers.Adam(schedule, clipnorm=None, global_clipnorm=CLIP_NORM)
        self._trained = [v for v in model.trainable if v is not model.base or self.agreement.is_likelihood]
        self.optimizer.build(self._trained)
        self._averages = [tf.Variable(v, trainable=False) for v in self._trained] if model.settings.get("averaged") else []
        self.history, self.best, self.best_weights, self.peak = [], None, None, np.zeros(0)
        self.leading: int | None = None
        self.bound = Bound(model, self.agreement, config.amplitude_cost)
        self._first = Bound(model, self.agreement.coarse if model.kept else self.agreement, config.amplitude_cost)
        kinds = list(itertools.product((False, True), repeat=2))
        self._step = {(first, *kind): devices.for_all_sizes(functools.partial(self._train_step, first, *kind))
                      for first in (False, True) for kind in kinds}
        self._evaluate = {kind: devices.compiled(functools.partial(self._evaluated, *kind)) for kind in kinds}
        self._joint = devices.compiled(joint_function(self.agreement, model))

    def _points(self):
        """Latent points drawn from the prior, new ones at every step and the same on all devices."""
        seed = tf.stack([self.config.seed, tf.cast(self.optimizer.iterations, tf.int32)])
        return tf.random.stateless_normal([POINTS, self.model.own_dim], seed)

    def _train_step(self, first, several, posing, *batch):
        gradients, *found = self.devices.each(functools.partial(self._gradients, first, several, posing), batch)
        self.optimizer.apply_gradients(zip(self.devices.total(gradients), self._trained))
        self._average()
        return self.devices.whole(found)

    def _average(self):
        """Take the weights into their running averages over an epoch's length, or all steps so far when they are fewer."""
        share = 1 / tf.minimum(tf.cast(self.optimizer.iterations, tf.float32), float(self.steps_per_epoch))
        for average, value in zip(self._averages, self._trained):
            average.assign_add(share * (value - average))

    def _gradients(self, first, several, posing, images, rotation, shift, ctf, features, noise, change, response, share, warmth):
        """What one device adds to the gradient of the batch's mean loss; agreement, divergence and change of pose of its items [b], of
        share [b] each."""
        precision, particles = self.poses.precision if posing else None, (images, rotation, shift, ctf, features)
        bound = self._first if first else self.bound
        with tf.GradientTape() as tape:
            if several:
                with tape.stop_recording():
                    value, divergence, change, own = bound.of_several(precision, *particles, noise, change, response, True)
                raised, restraint = bound.learned(precision, *particles, own, change)
            else:
                value, divergence, change, restraint = bound.of_one(precision, *particles, noise, change, response, True)
                raised = value - warmth * divergence
            loss = tf.reduce_sum(share * (restraint - raised))
            penalties = self.model.encoder.losses + self.model.decoder.losses
            if self._described:
                penalties = [*penalties, warmth * self._described / self._images * self.model.description(self._points(), self._images)]
            if penalties:
                loss += tf.add_n(penalties) / self.devices.replicas
        return tape.gradient(loss, self._trained), value, divergence, change

    def _evaluated(self, several, posing, *batch):
        bound = self.bound.of_several if several else self.bound.of_one
        return bound(self.poses.precision if posing else None, *batch)[:3]

    @property
    def _several(self):
        """Whether several draws of z are taken now: in the second part of the training, where the encoder's posterior is a fair one; from
        the start on where motion shows so little that by one draw it gains nothing. Of narrow posteriors few draws find the right place."""
        return self.bound.by_several and (self.model.begins_faint or len(self.history) + 1 > self._opening[1])

    @property
    def _learns_first(self):
        """Whether what is learned now is of the coarse rings alone."""
        return self._first.agreement is not self.agreement and len(self.history) < self._opening[0]

    @property
    def _kind(self):
        return self._several, self._posing

    @property
    def _posing(self):
        """Whether poses are uncertain now."""
        return self.poses is not None and self.poses.uncertain

    def _poses_of(self, chosen):
        """This process's part of the changes of pose [b, 5] of a batch, and of their responses [b, 5, 5]; nothing where poses are exact."""
        found = (self.poses.change[chosen], self.poses.response(chosen)) if self._posing else (np.zeros((len(chosen), 0), np.float32),) * 2
        return tuple(self.devices.own(part, self.config.batch_size) for part in found)

    def _posed(self, chosen, value, change):
        """Take in the changes of pose that a batch came to; its agreement with all poses integrated out [B]."""
        if not self._posing:
            return value
        self.poses.change[chosen] = change
        return value - self.poses.volume(chosen)

    def _settle_poses(self):
        """Estimate the poses' uncertainty anew, from time to time, until they turn out to be exact."""
        every = min(max(1, round(SETTLE_STEPS / self.steps_per_epoch)), SETTLE_EPOCHS)
        if not self._posing or (len(self.history) + 1) % every:
            return
        parts = []
        for chosen, batch in prefetched(self.items, self.poses.sample, self.config.batch_size, self.features, self.devices.own):
            parts.append([part.numpy() for part in self._joint(len(chosen), *batch,
                                                               self.devices.own(self.poses.change[chosen], self.config.batch_size))])
        self.poses.settle(*(np.concatenate(part) for part in zip(*parts)))
        self.free_exact()

    def free_exact(self):
        """Where the poses are exact, nothing is to be kept at rest."""
        if self.poses is not None and not self.poses.uncertain:
            self.model.move_freely()

    def _noise(self, count, *seed):
        """This process's part of the noise of a batch of `count` (see `Bound`): the same however the batch is shared."""
        one = [self.model.settings["draws"], self.config.latent_dim + 1] if self._several else [self.config.latent_dim]
        return self.devices.own(tf.random.stateless_normal([count, self.model.copies, *one], seed).numpy(), self.config.batch_size)

    def resume(self):
        """Go on from the last checkpoint; whether there is one."""
        path = self.run(rundir.WORK, CHECKPOINT)
        goes_on = os.path.exists(path)
        if goes_on:
            state, kept = load_checkpoint(path, dict(model=self.model.variables, optimizer=self.optimizer.variables,
                                                     averages=self._averages, best=None, poses=None, peak=None))
            self.history, self.best, self.best_weights, self.leading = state["history"], state["best"], kept["best"], state.get("leading")
            self.model.settings["unblurred"] = state.get("unblurred", False)
            if self.poses:
                self.poses.change, sigma = kept["poses"]
                self.poses.assume(sigma)
                self.free_exact()
            if kept["peak"]:
                self.peak = kept["peak"][0]
            elif self.best is not None:      # of a version that did not keep it
                self.peak = self._best_gains()
            log.info("resumed after epoch %d; the learning rate is %.3g, and falls until epoch %d", len(self.history),
                     float(self.optimizer.learning_rate), self.config.epochs)
            if self.devices.is_chief:
                self.write_history()
        if len(set(self.devices.ask(len(self.history)))) > 1:
            raise TrainError("the hosts do not see the same checkpoint: --out %s must lie on a disk that all of them share" % self.run.path)
        return goes_on

    def measure_start(self):
        """Count what training starts from as its best epoch so far, number 0."""
        self._open(0)
        self.peak = self._held_out_gains()
        self.best, self.best_weights = dict(epoch=0, held_out_gain=float(np.mean(self.peak))), [v.numpy() for v in self.model.variables]
        log.info("before training: gain over %s %.4g (held out)", self._over, self.best["held_out_gain"])

    @property
    def _over(self):
        """What gains are over, for messages."""
        return "the earlier stage" if self.model.earlier else "neutral"

    def finished(self):
        """Whether the last epoch is done, or held-out particles have been worse explained for `patience` epochs."""
        done = len(self.history)
        return done >= self.config.epochs or (self.best is not None
                                              and done - max(self.best["epoch"], self._opening[1]) >= self.config.patience)

    @property
    def _opening(self):
        """The last epoch in which the leading column varies alone, and the first in which all do."""
        alone = int(LEAD[0] * self.config.epochs)
        return alone, max(alone + 1, round(LEAD[1] * self.config.epochs))

    def epoch(self):
        """One pass through the particles learned from, then the held-out ones; writes a checkpoint.

        Raises
        ------
        TrainError
            when the agreement of a batch is not finite; names its particle ids.
        """
        number, started, config = len(self.history) + 1, time.monotonic(), self.config
        order = np.random.default_rng([config.seed, 3, number]).permutation(self.learned)
        warmth = tf.constant(1.0 if self.model.linear else min(1.0, (number - 0.5) / WARM_UP_EPOCHS), tf.float32)
        gain, divergence, first = 0.0, 0.0, self._learns_first
        self._open(number)
        if self._several and number == self._opening[1] + 1 and not self.model.begins_faint:
            self._measure_best_again()
        batches = prefetched(self.items, order, config.batch_size, self.features, self.devices.own)
        for i, (chosen, batch) in enumerate(progress(batches, self.steps_per_epoch, "epoch %d" % number)):
            count = len(chosen)
            batch += (self._noise(count, config.seed, (number * 1000003 + i) % 2**31), *self._poses_of(chosen),
                      self.devices.shares(count, config.batch_size))
            step = self._step[(first, *self._kind)]
            value, kl, change = (found.numpy()[:count] for found in step(*self.devices.spread(batch), warmth))
            self._check_finite(value, chosen, number)
            gain += float(np.sum(self._posed(chosen, value, change) - self.neutral[chosen]))
            divergence += float(np.sum(kl))
        self.devices.average(self.model.variables)
        self._exchange()
        self._close_columns(number)
        gains = self._with_or_without_base()
        held = float(np.mean(gains))
        self._settle_poses()
        learned = np.nan if first else (gain - divergence) / len(order)      # over neutral at other rings it says nothing
        self.history.append(dict(epoch=number, training_gain=learned, held_out_gain=held,
                                 divergence=divergence / len(order), seconds=time.monotonic() - started,
                                 behind_best=standard_errors(self.peak - gains) if len(self.peak) else 0.0))
        log.info("epoch %d%s: gain over %s %s%.4g (held out)%s", number, ", learned at %.3g Å" % FIRST_ANGST if first else "", self._over,
                 "" if first else "%.4g (training), " % learned, held, "; poses uncertain by %s" % self.poses if self._posing else "")
        opening = self.leading is not None and self._opening[0] < number < self._opening[1]
        if not opening and self._judge(gains):
            self.best, self.best_weights = self.history[-1], [v.numpy() for v in self.model.variables]
        self._exchange()
        if self.devices.is_chief:
            save_checkpoint(self.run(rundir.WORK, CHECKPOINT),
                            dict(model=self.model.variables, optimizer=self.optimizer.variables, best=self.best_weights or [],
                                 averages=self._averages, peak=[self.peak],
                                 poses=[self.poses.change, self.poses.sigma] if self.poses else []),
                            dict(history=self.history, best=self.best, leading=self.leading,
                                 unblurred=self.model.settings.get("unblurred", False)))
            self.write_history()

    def _exchange(self):
        """Put the averages of the weights into the networks, or the weights back."""
        for average, value in zip(self._averages, self._trained):
            kept = value.numpy()
            value.assign(average)
            average.assign(kept)

    def _with_or_without_base(self):
        """Held-out gains [n_held]; the base is left out where they are not surely better with it. Many numbers that all follow noise a
        little cost held-out particles more than a weak motion gives."""
        asked = self.agreement.is_likelihood and self.model.base is not None and self.model.open_motion > 0
        if asked:
            self.model.based.assign(1.0)
        gains = self._held_out_gains()
        if asked:
            self.model.based.assign(0.0)
            plain = self._held_out_gains()
            if surely(gains - plain):
                self.model.based.assign(1.0)
            else:
                gains = plain
        return gains

    def _judge(self, gains):
        """Whether the networks that held-out particles [n_held] gain this by count from now on; notes the highest gains.

        A later epoch counts unless an earlier one was surely better: held-out particles are few, and the luckiest epoch of many that are
        alike may be one that had learned little yet. Than the start an epoch has to be surely better: from a weak signal many
        epochs learn mostly noise.
        """
        if self.best is None:
            kept = True
        elif self.best["epoch"] == 0:
            kept = surely(gains - self.peak)
        else:
            kept = not surely(self.peak - gains)
        if kept and (not len(self.peak) or np.mean(gains) > np.mean(self.peak)):
            self.peak = gains
        return kept

    def _open(self, number):
        """Let the base in, and the columns that wait for the leading one, those little by little."""
        if self.model.base is not None:
            self.model.based.assign(1.0)
        alone, all_open = self._opening
        if self.leading is not None:
            self.model.open_beside(self.leading, min(1.0, max(0, number - alone) / (all_open - alone)) ** 2)

    def _close_columns(self, number):
        """When all columns are open, close those again that add little to what held-out particles gain without them.

        Every Gaussian that may move, or change its amplitude, follows noise a little: columns have to be worth that.
        """
        if self.leading is None or number < self._opening[1]:
            return
        gains = []
        for share in (0.0, 1.0):      # in this order, as poses get better with every look
            self.model.open_beside(self.leading, share)
            gains.append(float(np.mean(self._with_or_without_base())))
        closed, gain = gains
        alone = self.best["held_out_gain"] if self.best else -np.inf      # no epoch counts as the best while the others come in
        without = max(closed, alone)
        if gain < without + WORTH * abs(without):
            log.info("from here on only %s varies: held-out particles gain no more from the others (%.4g without, %.4g with)",
                     self.model.deformation.columns[self.leading], without, gain)
            if alone > closed:
                assign(self.model.variables, self.best_weights)
                assign(self._averages, [v.numpy() for v in self._trained[:len(self._averages)]])
            self.model.open_beside(self.leading, 0.0)
        self.leading = None

    def _measure_best_again(self):
        """The held-out gain of the best networks so far by the bound that counts from now on: of the same networks it is the tighter."""
        if self.best is not None:
            self.peak = self._best_gains()
            self.best = dict(self.best, held_out_gain=float(np.mean(self.peak)))
            log.info("epoch %d, the best so far, gains %.4g by the tighter bound of what follows", self.best["epoch"],
                     self.best["held_out_gain"])

    def _best_gains(self):
        """Held-out gains [n_held] of the networks that are kept so far."""
        now = [v.numpy() for v in self.model.variables]
        assign(self.model.variables, self.best_weights)
        gains = self._held_out_gains()
        assign(self.model.variables, now)
        return gains

    def _check_finite(self, value, chosen, number):
        """Refuse to go on when the agreement [B] of the chosen items is not finite."""
        if not np.all(np.isfinite(value)):
            raise TrainError("the agreement became NaN in epoch %d at particles %s: look at these images. --resume tries again from the "
                             "last checkpoint; a smaller --learning-rate needs another --out" % (
                                 number, ", ".join(str(p) for p in self.items.particles.ids[chosen])))

    def _held_out_gains(self):
        """Bound minus neutral agreement of the held-out particles, [n_held]; with the same draws of z whenever it is asked for."""
        gains = []
        batches = prefetched(self.items, np.flatnonzero(self.held_out), self.config.batch_size, self.features, self.devices.own)
        for i, (chosen, batch) in enumerate(batches):
            value, kl, change = (found.numpy() for found in self._evaluate[self._kind](
                len(chosen), *batch, self._noise(len(chosen), self.config.seed, -i - 1), *self._poses_of(chosen)))
            self._check_finite(value, chosen, len(self.history) + 1)
            gains.append(self._posed(chosen, value, change) - kl - self.neutral[chosen])
        return np.concatenate(gains)

    def write_history(self):
        """history.csv: one row an epoch; gains per particle over the neutral model or the earlier stage (nats, or FRC), and by how many
        standard errors of the difference held-out particles are worse explained than by the best epoch before. While coarse rings alone are
        learned the gain of the particles that are learned from is nan."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(self.history[0]))
        writer.writeheader()
        writer.writerows(self.history)
        with rundir.whole_file(self.run(rundir.HISTORY)) as f:
            f.write(text.getvalue().encode("utf-8"))

    def restore_best(self):
        """Set the weights of the epoch that was kept."""
        if self.best_weights:
            assign(self.model.variables, self.best_weights)
