"""Each particle's latent point after training: its posterior with the decoder fixed, and the evidence."""
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, ParticleBatch, by_view, prefetched
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.imaging.pose_change import POSE_NUMBERS, Pose, difference_steps
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.inference.least_squares import (
    Normal,
    NormalPrior,
    levenberg_marquardt,
    moment_corrected,
    variational_gaussian,
)
from gmmhet.engine.inference.pose_errors import ANGLES_AND_SHIFTS, Z_STEP, PoseErrors
from gmmhet.engine.likelihood.forward import Observation
from gmmhet.engine.log import progress
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel

#: Levenberg-Marquardt steps on the pose of a single model, from that of the particle's own conformation
POSE_STEPS = 2
#: least standard deviations of the prior of a pose, where one kind of error is 0: radians and Å
LEAST_SIGMA = 1e-5, 1e-4
BATCH_SIZE = 64


def gaussian_prior(z: np.ndarray) -> NormalPrior:
    """The normal distribution that describes the particles' latent points z [n, D], as a prior for each of
    them."""
    covariance = np.atleast_2d(np.cov(z, rowvar=False)) + 1e-4 * np.eye(z.shape[1])
    return NormalPrior(z.mean(0).astype(np.float32), np.linalg.inv(covariance).astype(np.float32))


def unit_prior(dimension: int) -> NormalPrior:
    """The unit normal, the prior of variational training."""
    return NormalPrior(np.zeros(dimension, np.float32), np.eye(dimension, dtype=np.float32))


def _pose_precision(sigma: np.ndarray) -> np.ndarray:
    """Precision [5, 5] of changes of pose of standard deviations sigma [2], radians and Å."""
    return np.diag(np.maximum(np.repeat(sigma, ANGLES_AND_SHIFTS),
                              np.repeat(LEAST_SIGMA, ANGLES_AND_SHIFTS)) ** -2.0)


class LatentPosteriors(NamedTuple):
    """What is inferred of n views; what is of the particle is the same for all its copies. In nats.

    Attributes
    ----------
    z : [n, D], the posterior's mean, z_earlier unchanged.
    z_covariance : [n, n_stage, n_stage], its covariance, of this stage alone, the pose integrated out.
    pose_change : [n, 5] (see `imaging.pose_change`).
    agreement : [n], log-likelihood; neutral_agreement : before this stage; static_agreement : at the prior's
        mean; each at its own best pose.
    evidence : [n], log marginal likelihood, z and pose integrated out; neutral_evidence, static_evidence :
        the pose alone, as uncertain as it is for a single model.
    """

    z: Any
    z_covariance: Any
    pose_change: Any
    agreement: Any
    evidence: Any
    neutral_agreement: Any
    neutral_evidence: Any
    static_agreement: Any
    static_evidence: Any


class _PosteriorOfBatch:
    """The function of a batch (features, and pose_change where poses are uncertain) that gives
    `LatentPosteriors`.

    Numbers that are solved for are z_stage of all copies, then the change of pose where poses are uncertain:
    Q in all.
    """

    def __init__(self, model: HeterogeneityModel, prior: NormalPrior, steps: int,
                 poses: "PoseErrors | None") -> None:
        self._model, self._steps = model, steps
        self._latent = model.copies * model.n_stage
        uncertain = poses is not None and bool(np.any(poses.sigma > 0))
        self._n_pose = POSE_NUMBERS * uncertain
        of_pose = _pose_precision(poses.sigma) if poses is not None and uncertain else np.zeros((0, 0))
        self._pose_prior: NormalPrior | None = None
        if poses is not None and np.any(poses.first_sigma > 0):
            self._pose_prior = NormalPrior(tf.zeros(POSE_NUMBERS),
                                           tf.constant(_pose_precision(poses.first_sigma), tf.float32))
        mean, precision = np.tile(prior.mean, model.copies), np.kron(np.eye(model.copies), prior.precision)
        latent, pose = self._latent, self._n_pose
        self._prior = NormalPrior(
            tf.constant(np.pad(mean, (0, pose)), tf.float32),
            tf.constant(np.block([[precision, np.zeros((latent, pose))],
                                  [np.zeros((pose, latent)), of_pose]]), tf.float32))
        self._pose_differences = difference_steps(model.pixel_size)
        z_differences = Z_STEP / np.sqrt(np.diag(precision))
        self._differences = tf.constant(np.concatenate([z_differences, self._pose_differences[:pose]]),
                                        tf.float32)

    def __call__(self, batch: ParticleBatch) -> LatentPosteriors:
        model, prior, latent = self._model, self._prior, self._latent
        observed, features = model.image_model.observe(batch), by_view(batch.features)
        count, z_earlier = tf.shape(batch.images)[0], model.encoder.z_earlier(features)
        start, change = model.starting_mixture(z_earlier), self._given_change(batch, count)

        def decoded(z_stage: tf.Tensor) -> MixtureBatch:
            outputs = model.decoder_outputs(tf.reshape(z_stage, [-1, model.n_stage]))
            return model.symmetry.assemble(model.deform(outputs, start))

        def pose_at(q: tf.Tensor) -> "Pose | None":
            return observed.pose.perturbed(q[:, latent:]) if self._n_pose else None

        def residual(q: tf.Tensor) -> tf.Tensor:
            return model.image_model.residual(decoded(q[:, :latent]), observed, pose_at(q))

        def log_likelihood(q: tf.Tensor) -> tf.Tensor:
            return model.image_model.log_likelihood(decoded(q[:, :latent]), observed, pose_at(q))

        def log_posterior(q: tf.Tensor) -> tf.Tensor:
            return log_likelihood(q) - prior.cost(q)

        encoded = model.encode(features)
        first = tf.concat([tf.reshape(encoded.mean, [-1, latent]), change[:, :self._n_pose]], 1)
        mode = levenberg_marquardt(residual, first, prior, max(self._steps, 1), self._differences)
        at = mode.x if self._steps else first
        laplace = mode.curvature + prior.precision
        evidence = log_posterior(at) + 0.5 * (tf.linalg.logdet(prior.precision) - tf.linalg.logdet(laplace))
        normal = Normal(first, tf.linalg.inv(laplace))
        if self._steps:
            width = tf.concat([tf.exp(tf.reshape(encoded.log_std, [-1, latent])),
                               tf.sqrt(tf.linalg.diag_part(normal.covariance)[:, latent:])], 1)
            normal = self._nearest_normal(residual, log_posterior, first, tf.linalg.diag(width))
        unchanged = model.symmetry.assemble(model.deform(tf.zeros([count * model.copies,
                                                                   model.deformation.n_outputs]), start,
                                                         with_shift=False))
        at_mean = decoded(tf.zeros([count, latent]) + prior.mean[:latent])
        return LatentPosteriors(
            *self._by_copy(normal, z_earlier), normal.mean[:, latent:] if self._n_pose
            else tf.zeros([count, POSE_NUMBERS]), log_likelihood(normal.mean), evidence,
            *self._single_model(unchanged, observed, change), *self._single_model(at_mean, observed, change))

    def _given_change(self, batch: ParticleBatch, count: tf.Tensor) -> tf.Tensor:
        return batch.pose_change if self._n_pose else tf.zeros([count, POSE_NUMBERS])

    def _nearest_normal(self, residual: Callable[[tf.Tensor], tf.Tensor],
                        log_posterior: Callable[[tf.Tensor], tf.Tensor], first: tf.Tensor,
                        factor: tf.Tensor) -> Normal:
        """The normal distribution nearest to the posterior, with its own moments along one line of each
        copy."""
        normal = variational_gaussian(residual, first, factor, self._prior, self._steps)
        for copy in range(self._model.copies):
            of_copy = slice(copy * self._model.n_stage, (copy + 1) * self._model.n_stage)
            normal = moment_corrected(log_posterior, normal, self._prior, of_copy)
        return normal

    def _single_model(self, mixture: MixtureBatch, observed: Observation,
                      change: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-likelihood and evidence [B] of one mixture for each particle, at its own best pose from
        `change` [B, 5] on."""
        image_model, prior = self._model.image_model, self._pose_prior
        if prior is None:
            value = image_model.log_likelihood(mixture, observed)
            return value, value

        def residual(x: tf.Tensor) -> tf.Tensor:
            return image_model.residual(mixture, observed, observed.pose.perturbed(x))
        mode = levenberg_marquardt(residual, change, prior, POSE_STEPS, tf.constant(self._pose_differences))
        value = image_model.log_likelihood(mixture, observed, observed.pose.perturbed(mode.x))
        log_volume = 0.5 * (tf.linalg.logdet(prior.precision)
                            - tf.linalg.logdet(mode.curvature + prior.precision))
        return value, value - prior.cost(mode.x) + log_volume

    def _by_copy(self, normal: Normal, z_earlier: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z [B, copies, D] and covariances [B, copies, n_stage, n_stage]."""
        model = self._model
        copies, dimension, latent = model.copies, model.n_stage, self._latent
        z_stage = tf.reshape(normal.mean[:, :latent], [-1, copies, dimension])
        z = tf.concat([tf.reshape(z_earlier, [-1, copies, model.n_earlier]), z_stage], 2)
        covariance = tf.reshape(normal.covariance[:, :latent, :latent],
                                [-1, copies, dimension, copies, dimension])
        return z, tf.stack([covariance[:, j, :, j] for j in range(copies)], 1)


def infer_latents(model: HeterogeneityModel, inputs: FeaturedViews, prior: NormalPrior, steps: int,
                  devices: Devices, poses: "PoseErrors | None" = None) -> LatentPosteriors:
    """Posterior of every view's z under a normal prior, together with its change of pose where poses are
    uncertain, as the nearest normal distribution (see `variational_gaussian`) with the posterior's own mean
    and variance along the line in which each copy says most (see `moment_corrected`); and the evidence, by
    Laplace's approximation about the mode.

    The mode itself is no good place for z: where discrete states make the decoder steep and flat by turns it
    is at the edge of a plateau.

    In a further stage z_earlier stays, and all figures are of this stage, on the scales that it is trained
    on.

    Parameters
    ----------
    model : HeterogeneityModel, as trained.
    inputs : FeaturedViews.
    prior : NormalPrior of z_stage of each copy.
    steps : int; 0 keeps the encoder's mean, with Laplace's covariance.
    devices : Devices.
    poses : PoseErrors of these particles, or None where the given poses are exact.
    """
    views, features = inputs
    compiled, count = BatchFunction(_PosteriorOfBatch(model, prior, steps, poses),
                                    devices), len(views.particles)
    uncertain = poses is not None and bool(np.any(poses.sigma > 0))
    results = []
    batches = prefetched(views, np.arange(count), BATCH_SIZE, devices, features=features)
    for rows, batch in progress(batches, -(-count // BATCH_SIZE), "latents"):
        if poses is not None and uncertain:
            batch = batch._replace(pose_change=devices.local_rows(poses.change[rows], BATCH_SIZE))
        results.append(compiled(len(rows), batch))
    whole = [np.concatenate(values) for values in zip(*results)]
    of_views = [values.reshape(-1, *values.shape[2:]) for values in whole[:2]]
    return LatentPosteriors(*of_views, *(np.repeat(values, model.copies, 0) for values in whole[2:]))
