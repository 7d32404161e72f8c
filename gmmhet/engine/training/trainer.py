"""Heterogeneity training: encoder and decoder learn together, held-out particles say when to stop
(docs/method.md, training)."""
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, ParticleBatch, prefetched
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import COARSE_ANGST
from gmmhet.engine.inference.pose_errors import (
    ESTIMATE_EVERY_EPOCHS,
    ESTIMATE_EVERY_STEPS,
    JointDerivatives,
    PoseErrors,
)
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.rigid_modes import RigidModes
from gmmhet.engine.model.saved import assign, values_of
from gmmhet.engine.objective.description_length import DescriptionLength
from gmmhet.engine.objective.elbo import Elbo
from gmmhet.engine.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from gmmhet.engine.training.early_stopping import EarlyStopping, surely
from gmmhet.engine.training.history import history_row, write_history
from gmmhet.engine.training.optimizer_step import BoundTerms, Objective, OptimizerStep, StepKind
from gmmhet.engine.training.parameter_schedule import ParameterSchedule, worth_it

#: epochs over which the divergence comes to count in full, where nothing is known before training
WARM_UP_EPOCHS = 2


class TrainError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingData:
    """What a training learns from and is judged by.

    Attributes
    ----------
    inputs : FeaturedViews.
    neutral : [n], agreement of the particles before this training, of the neutral model or the earlier
        stages.
    poses : PoseErrors, or None where the given poses are taken as exact.
    held_out : bool [n], particles that the networks never see.
    """

    inputs: FeaturedViews
    neutral: np.ndarray
    poses: "PoseErrors | None"
    held_out: np.ndarray

    @property
    def training_rows(self) -> np.ndarray:
        """Rows of the particles that are learned from."""
        return np.flatnonzero(~self.held_out)


class Trainer:
    """The state of one training run.

    The bound (see `Elbo`) is by one draw of z until all parameters vary, and then by several; where the
    signal is low by several from the start. While a parameter may lead, no finer rings than COARSE_ANGST are
    learned from, where the networks begin with a linear answer. What counts, for held-out particles (always
    at the target resolution) and in the end, are the weights' running averages: from step to step weights
    follow noise.

    Parameters
    ----------
    model : HeterogeneityModel.
    data : TrainingData.
    config : TrainConfig, with its length.
    run : RunDir.
    devices : Devices.

    Attributes
    ----------
    history : rows of history.csv so far.
    stopping : EarlyStopping; best_weights : values by name of the epoch that is kept, None before.
    leading : number of the parameter that leads; None where none does any more.
    description_length : DescriptionLength of the decoder.
    """

    def __init__(self, model: HeterogeneityModel, data: TrainingData, config: Any, run: Any,
                 devices: Devices) -> None:
        self.model, self.data, self.config, self.run, self.devices = model, data, config, run, devices
        self.agreement = model.likelihood.by(config.objective)
        self.steps_per_epoch = -(-len(data.training_rows) // config.batch_size)
        self.schedule = ParameterSchedule(config.epochs)
        self.stopping = EarlyStopping(config.patience)
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, np.ndarray] | None = None
        self.leading: int | None = None
        self.description_length = DescriptionLength(model)
        coarse = self.agreement.coarse if model.encoder.n_axes else self.agreement
        # without a likelihood nothing says what the decoder's description is worth
        weight = model.settings.network.description_weight if self.agreement.is_likelihood else 0.0
        self._objective = Objective(Elbo(model, self.agreement, config.amplitude_cost),
                                    Elbo(model, coarse, config.amplitude_cost), self.description_length,
                                    weight, len(data.training_rows) * model.copies)
        self._step = OptimizerStep(model, self._objective, data.poses, config, self.steps_per_epoch, devices)
        self._evaluations: dict[StepKind, BatchFunction] = {}
        self._joint = BatchFunction(JointDerivatives(model, self.agreement), devices)

    def begin(self, leading: "int | None", rigid_modes: "RigidModes | None") -> None:
        """Take what the linear start found (see `initialization.linear_start`)."""
        self.leading, self.description_length.rigid_modes = leading, rigid_modes

    # ---------------------------------------------------------------- where the training stands
    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or held-out particles have been worse explained for `patience`
        epochs."""
        done = len(self.history)
        return done >= self.config.epochs or self.stopping.out_of_patience(done, self.schedule.all_open)

    @property
    def _uncertain(self) -> bool:
        """Whether poses are uncertain now."""
        return self.data.poses is not None and self.data.poses.uncertain

    @property
    def _kind(self) -> StepKind:
        """Several draws of z are taken in the last part of the training, where the encoder's posterior is a
        fair one; from the start on where the signal is so low that by one draw it gains nothing. Of narrow
        posteriors few draws find the right place."""
        late = self.model.state.low_signal or len(self.history) + 1 > self.schedule.all_open
        has_coarse = self._objective.coarse.agreement is not self.agreement
        return StepKind(has_coarse and len(self.history) < self.schedule.alone,
                        self._objective.fine.takes_several_draws and late, self._uncertain)

    @property
    def _reference(self) -> str:
        """What gains are over, for messages."""
        return "the earlier stage" if self.model.earlier else "neutral"

    # ---------------------------------------------------------------- an epoch
    def epoch(self) -> None:
        """One pass through the particles learned from, then the held-out ones; writes a checkpoint.

        Raises
        ------
        TrainError
            when the agreement of a batch is not finite; names its particle ids.
        """
        number, started, kind = len(self.history) + 1, time.monotonic(), self._kind
        self._open(number)
        if kind.several_draws and number == self.schedule.all_open + 1 and not self.model.state.low_signal:
            self._measure_best_again()
        gain, kl = self._learn(number)
        self.devices.average(list(self.model.named_weights().values()))
        self._step.exchange_averages()
        self._decide_parameters(number)
        gains = self._with_or_without_consensus_shift()
        held = float(np.mean(gains))
        self._estimate_pose_errors()
        learned = np.nan if kind.coarse else gain / len(self.data.training_rows)
        row = history_row(number, learned, held, kl / len(self.data.training_rows),
                          time.monotonic() - started, self.stopping.behind(gains))
        self.history.append(row)
        log.info("epoch %d%s: gain over %s %s%.4g (held out)%s", number, ", learned at %.3g Å" % COARSE_ANGST
                 if kind.coarse else "", self._reference,
                 "" if kind.coarse else "%.4g (training), " % learned, held,
                 "; poses uncertain by %s" % self.data.poses if self._uncertain else "")
        opening = self.leading is not None and self.schedule.is_opening(number)
        if not opening and self.stopping.judge(row, gains):
            self.best_weights = values_of(self.model.named_weights())
        self._step.exchange_averages()
        if self.devices.is_chief:
            self._save_checkpoint()
            self.write_history()

    def _learn(self, number: int) -> tuple[float, float]:
        """A step for every batch of the particles learned from; sums of their gains and divergences."""
        config, kind = self.config, self._kind
        order = np.random.default_rng([config.seed, 3, number]).permutation(self.data.training_rows)
        warmth = 1.0 if self.model.state.linear else min(1.0, (number - 0.5) / WARM_UP_EPOCHS)
        gain = kl = 0.0
        batches = progress(self._batches(order), self.steps_per_epoch, "epoch %d" % number)
        for i, (rows, batch) in enumerate(batches):
            count = len(rows)
            batch = self._completed(batch, rows, (config.seed, (number * 1000003 + i) % 2**31))
            batch = batch._replace(weight=self.devices.shares(count, config.batch_size))
            terms = self._step(kind, count, batch, warmth)
            self._check_finite(terms.bound, rows, number)
            gain += float(np.sum(self._marginal(rows, terms) - self.data.neutral[rows]))
            kl += float(np.sum(terms.kl))
        return gain, kl

    def _batches(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, ParticleBatch]]:
        views, features = self.data.inputs
        return prefetched(views, order, self.config.batch_size, self.devices, features=features)

    def _completed(self, batch: ParticleBatch, rows: np.ndarray, seed: tuple[int, int]) -> ParticleBatch:
        """This process's part of a batch with noise, the same however the batch is shared (see `Elbo`), and
        where poses are uncertain their changes and responses."""
        own, size = self.devices.local_rows, self.config.batch_size
        numbers = [self.config.latent_dim]
        if self._kind.several_draws:
            numbers = [self.model.settings.network.draws, self.config.latent_dim + 1]
        noise = tf.random.stateless_normal([len(rows), self.model.copies, *numbers], seed).numpy()
        batch = batch._replace(noise=own(noise, size))
        poses = self.data.poses
        if poses is None or not self._uncertain:
            return batch
        return batch._replace(pose_change=own(poses.change[rows], size),
                              pose_response=own(poses.response(rows), size))

    def _marginal(self, rows: np.ndarray, terms: BoundTerms) -> np.ndarray:
        """Take in the changes of pose that a batch came to; its bounds with all poses integrated out [B]."""
        poses = self.data.poses
        if poses is None or not self._uncertain:
            return terms.bound
        poses.change[rows] = terms.pose_change
        return terms.bound - poses.log_volume(rows)

    def _check_finite(self, values: np.ndarray, rows: np.ndarray, number: int) -> None:
        """Refuse to go on when the agreement [B] of the particles of these rows is not finite."""
        if not np.all(np.isfinite(values)):
            ids = ", ".join(str(i) for i in self.data.inputs.views.particles.ids[rows])
            raise TrainError("the agreement became NaN in epoch %d at particles %s: look at these images. "
                             "--resume tries again from the last checkpoint; a smaller --learning-rate "
                             "needs another --out" % (number, ids))

    # ---------------------------------------------------------------- judging by held-out particles
    def _held_out_gains(self) -> np.ndarray:
        """Bound minus neutral agreement of the held-out particles, [n_held]; with the same draws of z
        whenever it is asked for."""
        kind = self._kind._replace(coarse=False)
        if kind not in self._evaluations:
            self._evaluations[kind] = BatchFunction(lambda batch: self._evaluated(kind, batch), self.devices)
        gains = []
        for i, (rows, batch) in enumerate(self._batches(np.flatnonzero(self.data.held_out))):
            terms = self._evaluations[kind](len(rows),
                                            self._completed(batch, rows, (self.config.seed, -i - 1)))
            self._check_finite(terms.bound, rows, len(self.history) + 1)
            gains.append(self._marginal(rows, terms) - self.data.neutral[rows])
        return np.concatenate(gains)

    def _evaluated(self, kind: StepKind, batch: ParticleBatch) -> BoundTerms:
        poses, elbo = self.data.poses, self._objective.fine
        precision = poses.precision if poses is not None and kind.with_poses else None
        terms: Any = elbo.importance_weighted(batch,
                                              precision) if kind.several_draws else elbo.elbo(batch,
                                                                                              precision)
        return BoundTerms(terms.bound, terms.kl, terms.pose_change)

    def _with_or_without_consensus_shift(self) -> np.ndarray:
        """Held-out gains [n_held]; the learned consensus is left out where they are not surely better with
        it. Many numbers that all follow noise a little cost held-out particles more than a weak motion
        gives."""
        state = self.model.state
        has_shift = self.model.consensus_shift is not None and self.model.position_gate > 0
        judged = self.agreement.is_likelihood and has_shift
        if judged:
            state.consensus_shift_on.assign(1.0)
        gains = self._held_out_gains()
        if judged:
            state.consensus_shift_on.assign(0.0)
            without = self._held_out_gains()
            if surely(gains - without):
                state.consensus_shift_on.assign(1.0)
            else:
                gains = without
        return gains

    def measure_start(self) -> None:
        """Count what training starts from as its best epoch so far, number 0."""
        self._open(0)
        self.stopping.start(self._held_out_gains())
        self.best_weights = values_of(self.model.named_weights())
        log.info("before training: gain over %s %.4g (held out)", self._reference, self.stopping.best_gain)

    def _measure_best_again(self) -> None:
        """The held-out gain of the best networks so far by the bound that counts from now on: of the same
        networks it is the tighter."""
        if self.stopping.best is None or self.best_weights is None:
            return
        variables = self.model.named_weights()
        now = values_of(variables)
        assign(variables, self.best_weights)
        self.stopping.measured_again(self._held_out_gains())
        assign(variables, now)
        log.info("epoch %d, the best so far, gains %.4g by the tighter bound of what follows",
                 self.stopping.best["epoch"], self.stopping.best_gain)

    # ---------------------------------------------------------------- which parameters vary
    def _open(self, number: int) -> None:
        """Let the consensus shift in, and the parameters that wait for the leading one, those little by
        little."""
        self.model.state.consensus_shift_on.assign(1.0)
        if self.leading is not None:
            self.model.state.set_gates(self.leading, self.schedule.share(number))

    def _decide_parameters(self, number: int) -> None:
        """When all parameters vary, close those again that add little to what held-out particles gain without
        them.

        Every Gaussian that may move, or change its amplitude, follows noise a little: parameters have to be
        worth that.
        """
        if self.leading is None or not self.schedule.decides(number):
            return
        state, gains = self.model.state, []
        for share in (0.0, 1.0):      # in this order, as poses get better with every look
            state.set_gates(self.leading, share)
            gains.append(float(np.mean(self._with_or_without_consensus_shift())))
        closed, gain = gains
        alone = self.stopping.best_gain      # no epoch counts as the best while the others come in
        without = max(closed, alone)
        if not worth_it(gain, without):
            log.info("from here on only %s varies: held-out particles gain no more from the others (%.4g "
                     "without, %.4g with)",
                     self.model.deformation.parameters[self.leading], without, gain)
            if alone > closed and self.best_weights is not None:
                assign(self.model.named_weights(), self.best_weights)
                self._step.restart_averages()
            state.set_gates(self.leading, 0.0)
        self.leading = None

    # ---------------------------------------------------------------- poses
    def _estimate_pose_errors(self) -> None:
        """Estimate the poses' uncertainty anew, from time to time, until they turn out to be exact."""
        poses, size = self.data.poses, self.config.batch_size
        every = min(max(1, round(ESTIMATE_EVERY_STEPS / self.steps_per_epoch)), ESTIMATE_EVERY_EPOCHS)
        if poses is None or not self._uncertain or (len(self.history) + 1) % every:
            return
        local_rows = self.devices.local_rows
        derivatives = [self._joint(len(rows),
                                   batch._replace(pose_change=local_rows(poses.change[rows], size)))
                       for rows, batch in self._batches(poses.sample)]
        poses.re_estimate(Quadratic(*(np.concatenate(values) for values in zip(*derivatives))))
        self.keep_rigid_motion_of_exact_poses()

    def keep_rigid_motion_of_exact_poses(self) -> None:
        """Where the poses are exact, the overall rigid motion is motion."""
        if self.data.poses is not None and not self.data.poses.uncertain:
            self.model.state.removes_rigid_motion = False

    # ---------------------------------------------------------------- what is kept
    def _save_checkpoint(self) -> None:
        poses = self.data.poses
        groups = dict(model=values_of(self.model.named_weights()), step=values_of(self._step.named_weights()),
                      best=self.best_weights or {}, stopping=dict(peak=self.stopping.peak),
                      poses=dict(change=poses.change, sigma=poses.sigma) if poses is not None else {})
        state = dict(history=self.history, best=self.stopping.best, leading=self.leading,
                     model_state=self.model.state.to_json())
        save_checkpoint(self.run(rundir.WORK, CHECKPOINT), groups, state)

    def resume(self) -> bool:
        """Go on from the last checkpoint; whether there is one.

        Raises
        ------
        TrainError
            when several hosts do not see the same one, or an older version wrote it.
        """
        path = self.run(rundir.WORK, CHECKPOINT)
        goes_on = os.path.exists(path)
        if goes_on:
            groups, state = load_checkpoint(path)
            if "model" not in groups:
                raise TrainError("%s is a checkpoint of an older version of gmmhet, which this one does not "
                                 "read: train again into another --out" % path)
            assign(self.model.named_weights(), groups["model"])
            assign(self._step.named_weights(), groups["step"])
            self.model.state.load_json(state["model_state"])
            self.history, self.leading = state["history"], state["leading"]
            self.stopping.best, self.stopping.peak = state["best"], groups["stopping"]["peak"]
            self.best_weights = groups.get("best")
            if self.data.poses is not None:
                self.data.poses.change = groups["poses"]["change"]
                self.data.poses.set_sigma(groups["poses"]["sigma"])
                self.keep_rigid_motion_of_exact_poses()
            log.info("resumed after epoch %d; the learning rate is %.3g, and falls until epoch %d",
                     len(self.history), self._step.learning_rate, self.config.epochs)
            if self.devices.is_chief:
                self.write_history()
        if len(set(self.devices.ask(len(self.history)))) > 1:
            raise TrainError("the hosts do not see the same checkpoint: --out %s must lie on a disk that "
                             "all of them share" % self.run.path)
        return goes_on

    def write_history(self) -> None:
        """Write history.csv."""
        write_history(self.run(rundir.HISTORY), self.history)

    def restore_best(self) -> None:
        """Set the weights of the epoch that was kept."""
        if self.best_weights:
            assign(self.model.named_weights(), self.best_weights)
