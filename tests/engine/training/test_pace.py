"""Latent axes at an even pace: how scales are found, read and moved along."""
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from gmmhet.engine.training.pace import PIECES, even_pace, read, read_in_graph, spread

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(5000, 2))


def pace_of(z, place):
    """The scales where what is seen at z is at place(z) on the first axis and 2 z on the second, which has one pace everywhere."""
    return even_pace(z, lambda a, b: np.hypot(place(b[:, 0]) - place(a[:, 0]), 2 * (b[:, 1] - a[:, 1])))


def bent(z):
    """A place whose slope is 1 + |z|."""
    return z + 0.5 * z * np.abs(z)


def test_a_step_is_as_long_as_what_is_seen_to_change_and_as_before_on_average():
    pace = pace_of(Z, bent)
    u, ends = read(Z, *pace), np.array([[-2.0, 0], [-1.0, 0], [0.0, 0], [1.0, 0], [2.0, 0]])
    steps = np.diff(read(ends, *pace)[:, 0])
    assert steps[0] / steps[1] == pytest.approx(2.5 / 1.5, rel=0.06) and steps[3] / steps[2] == pytest.approx(2.5 / 1.5, rel=0.06)
    assert steps[2] == pytest.approx(1.5 / (1 + np.sqrt(2 / np.pi)), rel=0.06)
    np.testing.assert_allclose(u[:, 1], Z[:, 1], atol=1e-5)
    np.testing.assert_allclose(read(np.zeros((1, 2)), *pace), 0, atol=1e-6)


def test_an_evenly_spread_state_is_spread_evenly_again():
    angle = RNG.uniform(-1, 1, 20000)
    z = np.sqrt(2) * np.asarray(tf.math.erfinv(angle))[:, None]      # the latent point whose prior is normal
    u = read(z, *even_pace(z, lambda a, b: (norm.cdf(b) - norm.cdf(a))[:, 0]))[:, 0]
    inner = np.abs(angle) < 0.95
    assert np.corrcoef(u[inner], angle[inner])[0, 1] > 0.9995 > np.corrcoef(z[inner, 0], angle[inner])[0, 1]


def test_scales_are_read_back_and_forth_and_in_the_graph_as_in_numpy_beyond_the_ends_too():
    pace = pace_of(Z, np.exp)
    wide = np.concatenate([Z[:50], [[-9.0, 9.0], [12.0, -7.0]]])
    u = read(wide, *pace)
    np.testing.assert_allclose(read(u, *pace[::-1]), wide, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(read_in_graph(tf.constant(wide, tf.float32), *pace), u, rtol=1e-5, atol=1e-5)
    assert np.all(np.diff(pace, axis=2) > 0)


@pytest.mark.parametrize("z,change", [(np.zeros((300, 1)), 1.0), (Z[:, :1], 0.0), (Z[:1, :1], 1.0)],
                         ids=["all the same", "nothing changes", "one"])
def test_where_there_is_nothing_to_go_by_the_scale_stays(z, change):
    pace = even_pace(z, lambda a, b: np.full(len(a), change))
    assert pace.shape == (2, 1, PIECES + 1)
    np.testing.assert_allclose(read(np.array([[-3.0], [0.5]]), *pace), [[-3.0], [0.5]], atol=1e-5)


def test_covariances_are_those_of_draws_and_correlations_stay():
    pace = pace_of(Z, bent)
    mean, covariance = np.array([[0.7, -0.2]]), np.array([[[0.3, 0.1], [0.1, 0.2]]])
    draws, found = read(RNG.multivariate_normal(mean[0], covariance[0], 200000), *pace), spread(mean, covariance, *pace)[0]
    np.testing.assert_allclose(np.diagonal(found), draws.var(0), rtol=0.02)
    assert found[0, 1] / np.sqrt(found[0, 0] * found[1, 1]) == pytest.approx(0.1 / np.sqrt(0.06), rel=1e-4)
