"""Scales of latent axes: how points and covariances go from one to another and back."""
import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.model.latent_scale import KNOTS, LatentScale

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(500, 2))


def bent():
    """Scales that go together like z and z + z |z| / 2 on the first axis, like z and exp(z) on the second."""
    knots = np.tile(np.linspace(-3, 3, KNOTS), (2, 1))
    targets = np.stack([knots[0] + 0.5 * knots[0] * np.abs(knots[0]), np.exp(knots[1])])
    return LatentScale(np.float32(knots), np.float32(targets))


def test_points_go_between_the_knots_as_straight_lines_do():
    scale = bent()
    expected = np.stack([np.interp(Z[:, axis], scale.source[axis], scale.target[axis]) for axis in (0, 1)], 1)
    inside = np.abs(Z) < 3
    np.testing.assert_allclose(scale.rescale(Z)[inside], expected[inside], rtol=1e-4, atol=1e-5)


def test_beyond_the_ends_the_last_piece_goes_on():
    scale = bent()
    slope = np.diff(scale.target)[:, -1] / np.diff(scale.source)[:, -1]
    found = scale.rescale(np.array([[5.0, 5.0]]))[0]
    np.testing.assert_allclose(found, scale.target[:, -1] + 2 * slope, rtol=1e-4)


def test_scales_are_read_back_and_forth_and_in_the_graph_as_in_numpy_beyond_the_ends_too():
    scale = bent()
    wide = np.concatenate([Z[:50], [[-9.0, 9.0], [12.0, -7.0]]])
    u = scale.rescale(wide)
    np.testing.assert_allclose(scale.inverse.rescale(u), wide, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scale.rescale_tensor(tf.constant(wide, tf.float32)), u, rtol=1e-4, atol=1e-4)


def test_in_the_graph_the_slope_is_that_of_the_piece():
    scale, z = bent(), tf.constant(Z[:20], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = tf.reduce_sum(scale.rescale_tensor(z))
    expected = (scale.rescale(Z[:20] + 1e-4) - scale.rescale(Z[:20] - 1e-4)) / 2e-4
    np.testing.assert_allclose(tape.gradient(value, z), expected, rtol=0.05)


def test_covariances_go_by_the_slope_where_the_mean_is_and_back():
    scale = bent()
    covariance = np.tile(np.array([[0.3, 0.1], [0.1, 0.2]], np.float32), (len(Z), 1, 1))
    found = scale.rescale_covariance(Z, covariance)
    step = (scale.rescale(Z + [1e-4, 0]) - scale.rescale(Z - [1e-4, 0]))[:, 0] / 2e-4
    assert np.mean(np.abs(found[:, 0, 0] / (0.3 * step**2) - 1) < 1e-3) > 0.97      # the others lie at knots
    correlation = found[:, 0, 1] / np.sqrt(found[:, 0, 0] * found[:, 1, 1])
    np.testing.assert_allclose(correlation, 0.1 / np.sqrt(0.06), rtol=1e-4)
    back = scale.inverse.rescale_covariance(scale.rescale(Z), found)
    assert np.mean(np.all(np.isclose(back, covariance, rtol=1e-2), (1, 2))) > 0.97


def test_the_identity_changes_nothing_and_stands_beside_another_as_its_first_axes():
    scale = LatentScale.identity(1).beside(bent())
    wide = np.concatenate([RNG.normal(0, 4, (500, 1)), Z], 1)
    np.testing.assert_allclose(scale.rescale(wide)[:, :1], wide[:, :1], atol=1e-5)
    np.testing.assert_allclose(scale.rescale(wide)[:, 1:], bent().rescale(Z), rtol=1e-6)


def test_a_scale_is_never_changed():
    with pytest.raises(AttributeError):
        bent().source = np.zeros((2, KNOTS))
