"""The forward model: from a posed mixture to what an image should be, and how well it agrees with what the
image is."""
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import ParticleBatch
from gmmhet.engine.imaging.pose_change import POSE_NUMBERS, Pose, difference_steps
from gmmhet.engine.imaging.projection import project_mixture
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.quadratic import Quadratic, expand_at_zero


class Observation(NamedTuple):
    """Images as they are compared with projections.

    Attributes
    ----------
    data : [B, 2, 2m+1, m+1], transforms of the masked images, whitened (or phase-flipped, by FRC).
    transfer : [B, 1, 2m+1, m+1], what projections are multiplied by: density scale and CTF over the noise (or
        1).
    pose : Pose, as given.
    """

    data: tf.Tensor
    transfer: tf.Tensor
    pose: Pose

    def repeated(self, copies: int) -> "Observation":
        """Each image `copies` times in a row."""
        return Observation(tf.repeat(self.data, copies, 0), tf.repeat(self.transfer, copies, 0),
                           Pose(*(tf.repeat(values, copies, 0) for values in self.pose)))


class ImageModel:
    """Image formation and agreement in one: ``D = T P(mixture, pose) + noise``, with P the projection and T
    the transfer.

    Parameters
    ----------
    agreement : Agreement, which knows noise, density scale, mask and objective.
    """

    def __init__(self, agreement: Agreement) -> None:
        self.agreement, self.grid = agreement, agreement.grid
        self._root_weight = np.sqrt(self.grid.weight)

    def observe(self, batch: ParticleBatch) -> Observation:
        """The images of a batch."""
        data, transfer = self.agreement.observe(batch.images, batch.ctf, batch.optics_group)
        return Observation(data, transfer, batch.pose)

    def predict(self, mixture: Any, observed: Observation, pose: "Pose | None" = None) -> tf.Tensor:
        """What the images' data would be of mixtures (see `project_mixture`) without noise, [B, 2, 2m+1,
        m+1].

        Parameters
        ----------
        mixture : MixtureBatch, or a Mixture that is the same for all.
        observed : Observation.
        pose : Pose in place of the given one.
        """
        return observed.transfer * project_mixture(mixture, pose or observed.pose, self.grid)

    def residual(self, mixture: Any, observed: Observation, pose: "Pose | None" = None) -> tf.Tensor:
        """Prediction less data, whitened, [B, K]: minus half the squared sum is the log-likelihood."""
        difference = self.predict(mixture, observed, pose) - observed.data
        return tf.reshape(self._root_weight * difference,
                          [tf.shape(difference)[0], 2 * self.grid.shape[0] * self.grid.shape[1]])

    def log_likelihood(self, mixture: Any, observed: Observation, pose: "Pose | None" = None) -> tf.Tensor:
        """Log-likelihood [B] (nats) over that of an empty mixture; by the objective 'frc' the mean Fourier
        ring correlation."""
        return self.agreement.value(observed.data, self.predict(mixture, observed, pose))

    def pose_derivatives(self, mixture: Any, observed: Observation) -> Quadratic:
        """Slope [B, 5] and curvature [B, 5, 5] of the log-likelihood by a change of the given pose."""
        def residual(change: tf.Tensor) -> tf.Tensor:
            return self.residual(mixture, observed, observed.pose.perturbed(change))
        steps = tf.constant(difference_steps(self.grid.pixel_size))
        return expand_at_zero(residual, tf.zeros([tf.shape(observed.data)[0], POSE_NUMBERS]), steps)
