"""Bodies that shift and turn as a whole, and the overall rigid motion that is taken out of displacements."""
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.transform import Rotation
from untrained import bodies, mixture, outputs

from gmmhet.engine.model.rigid_bodies import RigidBodies, without_rigid_motion


def distances(centers):
    """Of all pairs, [..., N, N]."""
    return np.linalg.norm(centers[..., :, None, :] - centers[..., None, :, :], axis=-1)


def test_a_rigid_body_keeps_its_shape_and_what_belongs_to_none_stays():
    neutral, number, d = bodies()
    assert d.sizes[1] == 12
    u = np.random.default_rng(1).normal(0, 3, (6, d.n_outputs)).astype(np.float32)
    centers = d.apply(u).centers.numpy()
    assert np.array_equal(centers[:, number == 0], np.repeat(neutral.centers[None, number == 0], 6, 0))
    for body in (1, 2):
        before, after = distances(neutral.centers[number == body]), distances(centers[:, number == body])
        np.testing.assert_allclose(after, np.repeat(before[None], 6, 0), atol=2e-4)
    assert np.abs(centers - neutral.centers).max() > 3


def test_the_outputs_of_a_body_are_its_shift_and_its_turn_about_its_centre_of_mass():
    neutral, number, d = bodies()
    u = np.zeros((2, d.n_outputs), np.float32)
    first = d.sizes[0]
    u[0, first:first + 3], u[1, first + 9:first + 12] = (0.02, 0, -0.01), (0, 0, 0.3)
    centers = d.apply(u).centers.numpy()
    shift = centers[0, number == 1] - neutral.centers[number == 1]
    np.testing.assert_allclose(shift, np.tile([0.1, 0, -0.05], (20, 1)), atol=1e-4)
    np.testing.assert_array_equal(centers[0, number == 2], neutral.centers[number == 2])
    mine, mass = neutral.centers[number == 2], neutral.amplitudes[number == 2]
    middle = mass @ mine / mass.sum()
    radius = np.sqrt(mass @ np.sum((mine - middle) ** 2, 1) / mass.sum())
    limit = np.pi / 2
    turn = Rotation.from_rotvec([0, 0, limit * np.tanh(0.3 * 5 / radius / limit)])
    np.testing.assert_allclose(centers[1, number == 2], turn.apply(mine - middle) + middle, atol=1e-4)


def test_output_nought_is_neutral_for_rigid_bodies_and_has_a_gradient_there():
    neutral, _, d = bodies()
    u = tf.zeros([1, d.n_outputs])
    with tf.GradientTape() as tape:
        tape.watch(u)
        centers = d.apply(u).centers
        value = tf.reduce_sum(centers * tf.constant(np.random.default_rng(2).normal(size=(60, 3)),
                                                    tf.float32))
    assert np.array_equal(centers[0].numpy(), neutral.centers)
    gradient = tape.gradient(value, u).numpy()[0, d.sizes[0]:]
    assert np.all(np.isfinite(gradient)) and np.all(gradient != 0)


def test_large_outputs_turn_a_body_by_less_than_a_right_angle_and_shift_it_less_than_the_reach():
    neutral, number, d = bodies()
    u = np.zeros((2, d.n_outputs), np.float32)
    u[0, d.sizes[0] + 1], u[1, d.sizes[0] + 4] = 1e4, 1e4
    centers = d.apply(u).centers.numpy()
    shift = (centers[0] - neutral.centers)[number == 1]
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), d.reach_angst, rtol=1e-3)
    before, after = (c[number == 1] - c[number == 1].mean(0) for c in (neutral.centers, centers[1]))
    turn = Rotation.align_vectors(after, before)[0]
    assert np.degrees(turn.magnitude()) == pytest.approx(90, abs=0.1)


def test_a_consensus_shift_is_turned_along_with_its_body():
    _, number, d = bodies()
    shift = tf.constant(np.random.default_rng(3).normal(0, 0.2, (60, 4)), tf.float32)
    still = d.apply(tf.zeros([1, d.n_outputs]), consensus_shift=shift).centers.numpy()[0]
    centers = d.apply(outputs(d, size=0.5), consensus_shift=shift).centers.numpy()
    for body in (1, 2):
        before, after = distances(still[number == body]), distances(centers[:, number == body])
        np.testing.assert_allclose(after, np.repeat(before[None], len(after), 0), atol=2e-4)


def test_bodies_of_a_batch_move_as_they_do_one_by_one():
    neutral, number = mixture(), np.repeat([0, 1, 2], 20)
    made = RigidBodies(neutral, number, 20.0)
    u = tf.constant(np.random.default_rng(4).normal(0, 1, (4, 12)), tf.float32)
    inner = tf.constant(np.random.default_rng(5).normal(0, 1, (4, 60, 3)), tf.float32)
    together = made.displacements(u, inner)
    for i in range(4):
        alone = made.displacements(u[i:i + 1], inner[i])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


# ---- the overall rigid motion

def test_a_rigid_motion_of_everything_is_taken_out_and_a_domain_s_own_motion_is_kept():
    rng = np.random.default_rng(0)
    centers, mass = rng.normal(0, 40, (500, 3)), np.ones(500, np.float32)
    domain = centers[:, 0] > 20
    moved = np.zeros((500, 3))
    turn = Rotation.from_rotvec([0, 0.4, 0])
    moved[domain] = turn.apply(centers[domain] - [20, 0, 0]) + [20, 0, 0] - centers[domain]
    whole = Rotation.from_rotvec([0.05, -0.03, 0.04])
    everything, both = (whole.apply(c) + [2, -1, 3] - centers for c in (centers, centers + moved))
    cases = tf.constant(np.stack([everything, moved, both]), tf.float32)
    left = without_rigid_motion(tf.constant(centers, tf.float32), cases, mass).numpy()
    np.testing.assert_allclose(left[0], 0, atol=1e-3)
    for kept in left[1:]:
        np.testing.assert_allclose(kept, moved, atol=0.1)


def test_without_its_rigid_motion_a_displacement_has_a_finite_gradient():
    centers = tf.constant(np.random.default_rng(0).normal(0, 20, (50, 3)), tf.float32)
    for size in (0.0, 3.0):
        moved = tf.constant(np.random.default_rng(1).normal(0, 1, (2, 50, 3)) * size, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(moved)
            value = tf.reduce_sum(without_rigid_motion(centers, moved, tf.ones(50))[:, 0])
        assert np.all(np.isfinite(tape.gradient(value, moved)))
