"""What training maximises: bounds on the evidence of particles, in which z (and where poses are uncertain,
the pose) is integrated out."""
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import ParticleBatch, by_view
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.forward import ImageModel, Observation
from gmmhet.engine.model.encoder import LatentNormal
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel


class ElboTerms(NamedTuple):
    """Of B particles, by one draw of z.

    Attributes
    ----------
    log_likelihood : [B], nats, at the best pose and less the cost of moving there (by the objective 'frc' the
        mean FRC).
    kl : [B], Kullback-Leibler divergence of the latent posterior from the prior; 0 where nothing is
        integrated out.
    penalty : [B], what is paid for amplitudes that change beside positions, and for widths that differ.
    pose_change : [B, 5], the best change of pose.
    """

    log_likelihood: tf.Tensor
    kl: tf.Tensor
    penalty: tf.Tensor
    pose_change: tf.Tensor

    @property
    def bound(self) -> tf.Tensor:
        """Evidence lower bound [B]."""
        return self.log_likelihood - self.kl


class ImportanceWeightedTerms(NamedTuple):
    """Of B particles, by several draws of z.

    Attributes
    ----------
    bound : [B], ``log mean_s p(image | z_s) p(z_s) / q(z_s)``, nats.
    kl : [B], as for one draw.
    z_stage : [B * copies, D], the draw that was chosen.
    pose_change : [B, 5], the best change of pose for that one.
    """

    bound: tf.Tensor
    kl: tf.Tensor
    z_stage: tf.Tensor
    pose_change: tf.Tensor


class WakeSleepTerms(NamedTuple):
    """What to raise after several draws, and what is paid, of B particles.

    Attributes
    ----------
    reward : [B], the log-likelihood of the chosen draw, and the logarithm of the encoder's posterior there.
    penalty : [B], as in `ElboTerms`.
    """

    reward: tf.Tensor
    penalty: tf.Tensor


class Elbo:
    """Two lower bounds on the log-likelihood of a particle's image under the decoder and the prior of z, the
    unit normal.

    By one draw z from the encoder's posterior q: the log-likelihood less the divergence of q from the prior
    (ELBO; Kingma & Welling 2014), whose gradient teaches encoder and decoder together. It is loose where q is
    not the true posterior: between states, or where a motion and its opposite explain an image alike. By
    several draws: ``log mean_s p(image | z_s) p(z_s) / q(z_s)`` (IWAE; Burda, Grosse & Salakhutdinov 2016),
    which is tighter with every draw. The decoder learns from one of the draws, chosen with the probability
    that its weight gives it, which on average is that bound's gradient; the encoder learns to expect it
    (reweighted wake-sleep; Bornschein & Bengio 2015), and so becomes as wide as the true posterior.

    With a precision [5] of the changes of pose, each pose is moved to its most probable place for the mixture
    that was drawn, by a Gauss-Newton step from the batch's pose_change, and the log-likelihood is less by
    what the move costs: together with `PoseErrors.log_volume`, the marginal likelihood over all poses
    (Laplace).

    Batches bring features and noise, standard normal: [B, copies, D] for one draw; for several [B, copies, S,
    D + 1], where the last number of a particle's first copy and draw chooses between draws; with a precision
    also pose_change and pose_response.

    Parameters
    ----------
    model : HeterogeneityModel.
    agreement : Agreement.
    amplitude_cost : what it costs to change the whole mass, nats.
    """

    def __init__(self, model: HeterogeneityModel, agreement: Agreement, amplitude_cost: float) -> None:
        self._model, self._amplitude_cost = model, amplitude_cost
        self.agreement, self._image_model = agreement, ImageModel(agreement)

    @property
    def integrates_z(self) -> bool:
        """Whether z is integrated out: of a likelihood, with a posterior that the encoder learns."""
        return self.agreement.is_likelihood and self._model.is_variational

    @property
    def takes_several_draws(self) -> bool:
        """Whether several draws make a bound."""
        return self.integrates_z and self._model.settings.network.draws > 1

    def elbo(self, batch: ParticleBatch, precision: Any = None, training: bool = False) -> ElboTerms:
        """The bound by one draw."""
        q = self._model.encode(by_view(batch.features), training)
        z_stage = q.draw(by_view(batch.noise))
        mixture, penalty = self._mixture(batch, z_stage, training)
        value, change = self._at_best_pose(mixture, self._image_model.observe(batch), batch, precision)
        kl = self._kl(q)
        return ElboTerms(value, kl if self.integrates_z else tf.zeros_like(kl), penalty, change)

    def importance_weighted(
            self, batch: ParticleBatch, precision: Any = None,
            training: bool = False) -> ImportanceWeightedTerms:
        """The bound by several draws. Has no gradient: see `wake_sleep`."""
        q, observed = self._model.encode(by_view(batch.features), training), self._image_model.observe(batch)
        draws = batch.noise.shape[2]
        points, weights, changes = [], [], []
        for draw in range(draws):
            noise = by_view(batch.noise[:, :, draw, :-1])                                    # [B * copies, D]
            z_stage = q.draw(noise)
            value, change = self._at_best_pose(self._mixture(batch, z_stage, training)[0], observed, batch,
                                               precision)
            prior_over_q = tf.reduce_sum(0.5 * (noise**2 - z_stage**2) + q.log_std, 1)
            points.append(z_stage)
            weights.append(value + self._by_particle(prior_over_q))
            changes.append(change)
        log_weights = tf.stack(weights, 1)                                                           # [B, S]
        uniform = 0.5 * tf.math.erfc(-batch.noise[:, 0, 0, -1:] / np.sqrt(2.0))
        passed = tf.cumsum(tf.nn.softmax(log_weights), 1)[:, :-1] < uniform
        chosen = tf.reduce_sum(tf.cast(passed, tf.int32), 1)                                         # [B]
        change = tf.gather(tf.stack(changes, 1), chosen, batch_dims=1)
        z_chosen = tf.gather(tf.stack(points, 1), tf.repeat(chosen, self._model.copies), batch_dims=1)
        return ImportanceWeightedTerms(tf.reduce_logsumexp(log_weights, 1) - np.log(draws), self._kl(q),
                                       z_chosen, change)

    def wake_sleep(self, batch: ParticleBatch, terms: ImportanceWeightedTerms,
                   has_poses: bool) -> WakeSleepTerms:
        """What encoder and decoder learn from the draw that `importance_weighted` chose (reweighted
        wake-sleep)."""
        q = self._model.encode(by_view(batch.features), True)
        mixture, penalty = self._mixture(batch, terms.z_stage, True)
        observed = self._image_model.observe(batch)
        pose = observed.pose.perturbed(terms.pose_change) if has_poses else None
        value = self._image_model.log_likelihood(mixture, observed, pose)
        surprise = tf.reduce_sum(0.5 * ((terms.z_stage - q.mean) * tf.exp(-q.log_std)) ** 2 + q.log_std, 1)
        return WakeSleepTerms(value - self._by_particle(surprise), penalty)

    def _mixture(self, batch: ParticleBatch, z_stage: tf.Tensor,
                 training: bool) -> tuple[MixtureBatch, tf.Tensor]:
        """Whole particles at latent points [B * copies, D] of this stage, and their penalty [B]."""
        model = self._model
        z_earlier = model.encoder.z_earlier(by_view(batch.features))
        mixture = model.mixture(tf.concat([z_earlier, z_stage], 1), training)
        return model.symmetry.assemble(mixture), self._by_particle(self._penalty(z_earlier, mixture))

    def _at_best_pose(self, mixture: MixtureBatch, observed: Observation, batch: ParticleBatch,
                      precision: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-likelihood [B] at the best pose, less the cost of moving there, and the change of pose [B,
        5]."""
        def value_at(pose: "Pose | None") -> tf.Tensor:
            return self._image_model.log_likelihood(mixture, observed, pose)
        if precision is None:
            nothing = batch.pose_change
            return value_at(None), tf.zeros([tf.shape(batch.images)[0], 0]) if nothing is None else nothing
        change = batch.pose_change
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(change)
            value = value_at(observed.pose.perturbed(change))
        slope = tape.gradient(value, change) - precision * change
        change = tf.stop_gradient(change + tf.linalg.matvec(batch.pose_response, slope))
        cost = 0.5 * tf.reduce_sum(precision * change**2, 1)
        return value_at(observed.pose.perturbed(change)) - cost, change

    def _kl(self, q: LatentNormal) -> tf.Tensor:
        """Kullback-Leibler divergence of the latent posterior from the unit normal, [B]."""
        return self._by_particle(0.5 * tf.reduce_sum(q.mean**2 + tf.exp(2 * q.log_std) - 2 * q.log_std - 1,
                                                     1))

    def _by_particle(self, values: tf.Tensor) -> tf.Tensor:
        """Sums over the copies of each particle, [B * copies] to [B]."""
        return tf.reduce_sum(tf.reshape(values, [-1, self._model.copies]), 1)

    def _penalty(self, z_earlier: tf.Tensor, mixture: MixtureBatch) -> tf.Tensor:
        """What a model pays for changing amplitudes beside positions (nats) and, as in the paper, for widths
        that differ; [B * copies]."""
        model, amplitudes, widths = self._model, mixture.amplitudes, mixture.widths
        cost = tf.zeros_like(amplitudes[:, 0])
        if "amplitude" in model.settings.parameters and self.agreement.is_likelihood:
            neutral, start = model.neutral.amplitudes, model.starting_mixture(z_earlier)
            change = tf.reduce_sum(tf.abs(amplitudes - (neutral if start is None else start.amplitudes)), 1)
            cost += model.position_gate * self._amplitude_cost / np.sum(neutral) * change
        if "width" in model.settings.parameters:
            cost += tf.math.reduce_std(widths, -1) / tf.reduce_mean(widths)
        return cost
