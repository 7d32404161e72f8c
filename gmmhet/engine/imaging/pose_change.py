"""Poses of a batch, and small changes of them: a rotation vector in the image's frame (radians) and a shift
(Å), as five numbers."""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose import rotation_from_vector

#: how many numbers a change of a pose has
POSE_NUMBERS = 5


class Pose(NamedTuple):
    """Where particles lie in their images.

    Attributes
    ----------
    rotation : [B, 3, 3], from the molecule's frame into the image's.
    shift_angst : [B, 2], where the molecule's origin lies in the image, Å.
    """

    rotation: tf.Tensor
    shift_angst: tf.Tensor

    def perturbed(self, change: tf.Tensor) -> "Pose":
        """The poses after changes [B, 5]: a turn in the image's frame, then a shift; differentiable."""
        return Pose(tf.matmul(small_rotation(change[:, :3]), self.rotation), self.shift_angst + change[:, 3:])

    def perturbed_exactly(self, change: np.ndarray) -> "Pose":
        """The same in NumPy, with rotations in double precision."""
        return Pose(rotation_from_vector(change[:, :3]) @ np.asarray(self.rotation, np.float64),
                    self.shift_angst + change[:, 3:])


def small_rotation(vectors: tf.Tensor) -> tf.Tensor:
    """Rotation matrices [B, 3, 3] of rotation vectors [B, 3] in radians, differentiable (Rodrigues'
    formula)."""
    x, y, z = tf.unstack(vectors, axis=1)
    zero = tf.zeros_like(x)
    cross = tf.stack([tf.stack([zero, -z, y], 1), tf.stack([z, zero, -x], 1), tf.stack([-y, x, zero], 1)], 1)
    square = tf.reduce_sum(vectors**2, 1)[:, None, None] + 1e-12
    angle = tf.sqrt(square)
    return tf.eye(3) + tf.sin(angle) / angle * cross + (1 - tf.cos(angle)) / square * tf.matmul(cross, cross)


def difference_steps(pixel_size: float) -> np.ndarray:
    """Steps [5] for forward differences by a change of pose: radians, and Å."""
    return np.array([2e-3] * 3 + [0.05 * pixel_size] * 2, np.float32)
