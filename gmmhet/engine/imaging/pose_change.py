"""Small changes of a pose: a rotation vector in the image's frame (radians) and a shift (Å), side by side as five numbers."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose import rotation_from_vector


def small_rotation(vectors):
    """Rotation matrices of rotation vectors [B, 3] in radians, differentiable (Rodrigues' formula)."""
    x, y, z = tf.unstack(vectors, axis=1)
    zero = tf.zeros_like(x)
    cross = tf.stack([tf.stack([zero, -z, y], 1), tf.stack([z, zero, -x], 1), tf.stack([-y, x, zero], 1)], 1)
    square = tf.reduce_sum(vectors**2, 1)[:, None, None] + 1e-12
    angle = tf.sqrt(square)
    return tf.eye(3) + tf.sin(angle) / angle * cross + (1 - tf.cos(angle)) / square * tf.matmul(cross, cross)


def changed(rotation, shift_angst, change):
    """Rotations [B, 3, 3] and shifts [B, 2] Å after changes [B, 5], differentiable."""
    return tf.matmul(small_rotation(change[:, :3]), rotation), shift_angst + change[:, 3:]


def changed_exactly(rotation, shift_angst, change):
    """The same in NumPy, with rotations in double precision."""
    return rotation_from_vector(change[:, :3]) @ np.asarray(rotation, np.float64), shift_angst + change[:, 3:]


def difference_steps(pixel_size):
    """Steps [5] for forward differences by a change: radians, and Å."""
    return np.array([2e-3] * 3 + [0.05 * pixel_size] * 2, np.float32)
