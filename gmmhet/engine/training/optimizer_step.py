"""One optimizer step: the gradient of a batch's loss on all devices, applied once, and running averages of
the weights."""
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from gmmhet.engine.batching.batches import ParticleBatch
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.inference.pose_errors import PoseErrors
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.objective.description_length import DescriptionLength
from gmmhet.engine.objective.elbo import Elbo

#: gradients are shortened to this norm
CLIP_NORM = 10.0
#: the learning rate falls along a cosine to this share of itself
LAST_RATE = 0.05
#: latent points at which the decoder's description length is measured
DESCRIPTION_POINTS = 32


class StepKind(NamedTuple):
    """How a step is made: at coarse rings alone, by several draws of z, with the pose integrated out."""

    coarse: bool
    several_draws: bool
    with_poses: bool


class BoundTerms(NamedTuple):
    """Of B particles: the bound on their evidence [B] (by the objective 'frc' the mean FRC less the
    divergence), the divergence of the latent posterior from the prior [B], both nats, and the change of pose
    [B, 5] ([B, 0] where poses are exact)."""

    bound: Any
    kl: Any
    pose_change: Any


class Objective(NamedTuple):
    """What is maximised, less what is paid.

    Attributes
    ----------
    fine, coarse : Elbo, by all rings and by the coarse ones.
    description_length : DescriptionLength; description_weight : what a nat of it costs, 0 for nothing.
    images : how many images the decoder is described for.
    """

    fine: Elbo
    coarse: Elbo
    description_length: DescriptionLength
    description_weight: float
    images: int


class OptimizerStep:
    """The weights of a training and how a batch changes them.

    Loss per particle: minus its evidence lower bound, in which the divergence counts from 0 to 1 as training
    warms up, or by several draws of z minus the wake-sleep reward (see `Elbo.elbo`, `Elbo.wake_sleep`); plus
    the penalty on amplitudes and widths, the networks' weight decay, and a share of the decoder's description
    length.

    Parameters
    ----------
    model : HeterogeneityModel.
    objective : Objective.
    poses : PoseErrors, or None where the given poses are taken as exact.
    config : TrainConfig, with its length.
    steps_per_epoch : int.
    devices : Devices.
    """

    def __init__(self, model: HeterogeneityModel, objective: Objective, poses: "PoseErrors | None",
                 config: Any, steps_per_epoch: int, devices: Devices) -> None:
        self._model, self._objective, self._poses, self._seed = model, objective, poses, config.seed
        self._steps_per_epoch, self._devices = steps_per_epoch, devices
        rate = tf.keras.optimizers.schedules.CosineDecay(config.learning_rate,
                                                         config.epochs * steps_per_epoch, alpha=LAST_RATE)
        self.optimizer = tf.keras.optimizers.Adam(rate, clipnorm=None, global_clipnorm=CLIP_NORM)
        # without a likelihood nothing says what a consensus shift is worth
        self._weights = [v for v in model.trainable if v is not model.consensus_shift
                         or objective.fine.agreement.is_likelihood]
        self.optimizer.build(self._weights)
        averaged = self._weights if model.settings.network.averages_weights else []
        self.averages = [tf.Variable(v, trainable=False) for v in averaged]
        self._names: tuple[str, ...] = ()
        self._compiled: dict[StepKind, Callable[..., Any]] = {}

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self.optimizer.learning_rate)

    def __call__(self, kind: StepKind, count: int, batch: ParticleBatch, warmth: float) -> BoundTerms:
        """Take a step; what the batch of `count` particles came to before it, as NumPy arrays.

        warmth : share of the divergence, and of the description length, that counts.
        """
        present = batch.present
        self._names = tuple(present)
        if kind not in self._compiled:
            self._compiled[kind] = self._devices.for_all_sizes(functools.partial(self._step, kind))
        arrays = self._devices.spread(tuple(present.values()))
        return BoundTerms(*(values.numpy()[:count]
                            for values in self._compiled[kind](*arrays, tf.constant(warmth, tf.float32))))

    def _step(self, kind: StepKind, *arrays: tf.Tensor) -> Any:
        gradients, *terms = self._devices.each(functools.partial(self._gradients, kind), arrays)
        self.optimizer.apply_gradients(zip(self._devices.total(gradients), self._weights))
        # running averages over an epoch's length, or all steps so far when they are fewer
        share = 1 / tf.minimum(tf.cast(self.optimizer.iterations, tf.float32), float(self._steps_per_epoch))
        for average, value in zip(self.averages, self._weights):
            average.assign_add(share * (value - average))
        return self._devices.whole(terms)

    def _gradients(self, kind: StepKind, *arrays: tf.Tensor) -> tuple[Any, ...]:
        """What one device adds to the gradient of the batch's mean loss; bound, divergence and change of pose
        of its particles."""
        batch, warmth = ParticleBatch(**dict(zip(self._names, arrays[:-1]))), arrays[-1]
        objective = self._objective
        elbo = objective.coarse if kind.coarse else objective.fine
        precision = self._poses.precision if self._poses is not None and kind.with_poses else None
        with tf.GradientTape() as tape:
            if kind.several_draws:
                with tape.stop_recording():
                    several = elbo.importance_weighted(batch, precision, True)
                reward, penalty = elbo.wake_sleep(batch, several, kind.with_poses)
                terms = BoundTerms(several.bound, several.kl, several.pose_change)
            else:
                one = elbo.elbo(batch, precision, True)
                reward, penalty = one.log_likelihood - warmth * one.kl, one.penalty
                terms = BoundTerms(one.bound, one.kl, one.pose_change)
            loss = tf.reduce_sum(batch.weight * (penalty - reward))
            costs = self._model.encoder.network.losses + self._model.decoder.network.losses
            if objective.description_weight:
                nats = objective.description_length(self._description_points(), objective.images)
                costs = [*costs, warmth * objective.description_weight / objective.images * nats]
            if costs:
                loss += tf.add_n(costs) / self._devices.replicas
        return tape.gradient(loss, self._weights), *terms

    def _description_points(self) -> tf.Tensor:
        """Latent points drawn from the prior, new ones at every step and the same on all devices."""
        seed = tf.stack([self._seed, tf.cast(self.optimizer.iterations, tf.int32)])
        return tf.random.stateless_normal([DESCRIPTION_POINTS, self._model.n_stage], seed)

    def exchange_averages(self) -> None:
        """Put the averages of the weights into the networks, or the weights back."""
        for average, value in zip(self.averages, self._weights):
            kept = value.numpy()
            value.assign(average)
            average.assign(kept)

    def restart_averages(self) -> None:
        """Let the averages begin anew at the weights."""
        for average, value in zip(self.averages, self._weights):
            average.assign(value)

    def named_weights(self) -> dict[str, Any]:
        """The optimizer's own variables, and the averages."""
        groups = dict(optimizer=self.optimizer.variables, average=self.averages)
        return {"%s.%d" % (group, i): variable for group, variables in groups.items()
                for i, variable in enumerate(variables)}
