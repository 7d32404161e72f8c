"""Scales of latent axes: piecewise linear maps between the scale that was trained and another one.

The other scale is one on which a step along an axis changes images alike wherever it is taken;
`inference.latent_metric` measures it.
"""
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

#: pieces of a scale, steps in which each is measured, and the knots that a scale is given by
PIECES, STEPS_PER_PIECE = 24, 6
KNOTS = PIECES * STEPS_PER_PIECE + 1


@dataclass(frozen=True)
class LatentScale:
    """Two scales of D latent axes. Between their knots, and beyond, both are linear.

    Attributes
    ----------
    source : float32 [D, KNOTS], rising values of z.
    target : float32 [D, KNOTS], rising values of the same points on the other scale.
    """

    source: np.ndarray
    target: np.ndarray

    @classmethod
    def identity(cls, dimension: int) -> "LatentScale":
        """Both scales the same."""
        knots = np.tile(np.linspace(-1, 1, KNOTS, dtype=np.float32), (dimension, 1))
        return cls(knots, knots)

    @property
    def inverse(self) -> "LatentScale":
        """The way back."""
        return LatentScale(self.target, self.source)

    def beside(self, other: "LatentScale") -> "LatentScale":
        """These axes, and then those of another one."""
        return LatentScale(np.concatenate([self.source, other.source]),
                           np.concatenate([self.target, other.target]))

    def rescale(self, z: np.ndarray) -> np.ndarray:
        """z [n, D] on the target scale."""
        low, to_low, slope = self._pieces(z)
        return to_low + (z - low) * slope

    def rescale_covariance(self, z: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Covariance [n, D, D] about z [n, D] on the target scale, by the slopes at z."""
        slope = self._pieces(z)[2].astype(np.float32)
        return covariance * slope[:, :, None] * slope[:, None, :]

    def rescale_tensor(self, z: tf.Tensor) -> tf.Tensor:
        """As `rescale`, differentiable."""
        source, target = self.source, self.target
        piece = tf.reduce_sum(tf.cast(z[:, :, None] >= source, tf.int32), 2) - 1          # [n, D]
        piece = tf.clip_by_value(piece, 0, source.shape[1] - 2)

        def at(scale: np.ndarray, step: int) -> tf.Tensor:
            return tf.transpose(tf.gather(scale, tf.transpose(piece) + step, batch_dims=1))
        low, to_low = at(source, 0), at(target, 0)
        return to_low + (z - low) * (at(target, 1) - to_low) / (at(source, 1) - low)

    def _pieces(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the pieces in which z [n, D] lies: where they begin on either scale, and the slope there; each
        [n, D]."""
        piece = np.stack([np.clip(np.searchsorted(scale, values, "right") - 1, 0, len(scale) - 2)
                          for values, scale in zip(z.T, self.source)])
        (low, high), (to_low, to_high) = (
            [np.take_along_axis(scale, piece + step, 1).T for step in (0, 1)]
            for scale in (self.source, self.target))
        return low, to_low, (to_high - to_low) / (high - low)
