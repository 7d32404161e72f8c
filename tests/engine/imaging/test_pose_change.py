"""Small changes of poses: five numbers, differentiable and exactly."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose import random_rotations, rotation_from_vector
from gmmhet.engine.imaging.pose_change import Pose, difference_steps, small_rotation


def test_small_rotations_equal_the_exact_ones_and_have_a_finite_gradient_at_zero():
    vectors = np.random.default_rng(0).normal(0, 0.5, (20, 3)).astype(np.float32)
    np.testing.assert_allclose(small_rotation(tf.constant(vectors)), rotation_from_vector(vectors), atol=1e-5)
    zero = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(zero)
        value = small_rotation(zero)[0, 1, 0]
    np.testing.assert_allclose(small_rotation(zero)[0], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, zero), [[0, 0, 1]], atol=1e-4)


def test_a_pose_is_turned_in_the_image_s_frame_and_then_moved_in_the_graph_as_exactly():
    rng = np.random.default_rng(1)
    rotation, shift, change = random_rotations(4, rng), rng.normal(size=(4, 2)), rng.normal(0, 0.3, (4, 5))
    in_graph = Pose(*(tf.constant(v, tf.float32) for v
                      in (rotation, shift))).perturbed(tf.constant(change, tf.float32))
    exactly = Pose(rotation, shift).perturbed_exactly(change)
    for i in range(4):
        np.testing.assert_allclose(exactly.rotation[i],
                                   rotation_from_vector(change[i:i + 1, :3])[0] @ rotation[i])
        np.testing.assert_allclose(exactly.shift_angst[i], shift[i] + change[i, 3:])
    for found, expected in zip(in_graph, exactly):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_steps_of_finite_differences_are_a_tenth_of_a_degree_and_a_twentieth_of_a_pixel():
    np.testing.assert_allclose(difference_steps(4.0), [0.002] * 3 + [0.2] * 2)
