"""Pose of each particle against its own conformation, with the networks and the latent points fixed (paper,
Fig. S1)."""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import BatchFunction, ParticleBatch, Views, by_view, prefetched
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.imaging.pose_change import POSE_NUMBERS, Pose, difference_steps
from gmmhet.engine.inference.least_squares import NormalPrior, levenberg_marquardt
from gmmhet.engine.log import progress
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel


class PosePrior(NamedTuple):
    """Expected errors of poses: standard deviations along each axis, degrees and Å."""

    angle_deg: float
    shift_angst: float

    @property
    def precision(self) -> np.ndarray:
        """Of changes of pose, float32 [5, 5]."""
        sigma = np.array([np.radians(self.angle_deg)] * 3 + [self.shift_angst] * 2, np.float32)
        return np.diag(sigma**-2.0).astype(np.float32)


class RefinedPoses(NamedTuple):
    """Poses of n particles, and what they gain over the given ones (log-likelihood, nats, [n])."""

    pose: Pose
    gain: np.ndarray


class _Step(NamedTuple):
    change: tf.Tensor
    gain: tf.Tensor


def refine_poses(model: HeterogeneityModel, views: Views, z: np.ndarray, prior: PosePrior, steps: int,
                 batch_size: int) -> RefinedPoses:
    """Posterior mode of a small rotation (in the image's frame) and a shift for every particle.

    Parameters
    ----------
    model : HeterogeneityModel.
    views : Views, with the model's symmetry.
    z : array [n_views, D], latent points.
    prior : PosePrior, about the given poses.
    steps : int, of Levenberg-Marquardt.
    batch_size : int, particles.
    """
    normal_prior = NormalPrior(tf.zeros(POSE_NUMBERS), tf.constant(prior.precision))
    differences, image_model = tf.constant(difference_steps(model.pixel_size)), model.image_model

    def solve(batch: ParticleBatch) -> _Step:
        observed = image_model.observe(batch)
        mixture = model.symmetry.assemble(model.mixture(by_view(batch.z)))

        def residual(change: tf.Tensor) -> tf.Tensor:
            return image_model.residual(mixture, observed, observed.pose.perturbed(change))

        start = tf.zeros([tf.shape(batch.images)[0], POSE_NUMBERS])
        before = 0.5 * tf.reduce_sum(residual(start) ** 2, 1)
        mode = levenberg_marquardt(residual, start, normal_prior, steps, differences)
        return _Step(mode.x, before - mode.half_squares)

    devices = Devices()
    compiled, count = BatchFunction(solve, devices), len(views.particles)
    batches = prefetched(views, np.arange(count), batch_size, devices, z=np.asarray(z, np.float32))
    results = [compiled(len(rows), batch)
               for rows, batch in progress(batches, -(-count // batch_size), "poses")]
    change, gain = (np.concatenate(values) for values in zip(*results))
    return RefinedPoses(Pose(views.particles.rotation, views.particles.shift_angst).perturbed_exactly(change),
                        gain)
