"""Latent axes at an even pace: how scales are found, read and moved along."""
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.inference.latent_metric import even_pace, seen_change
from gmmhet.engine.model.latent_scale import PLACES, read, read_in_graph, spread

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
    assert pace.shape == (2, 1, PLACES)
    np.testing.assert_allclose(read(np.array([[-3.0], [0.5]]), *pace), [[-3.0], [0.5]], atol=1e-5)


def test_a_switch_in_a_gap_between_two_states_counts_and_one_point_that_is_no_number_does_not():
    z = np.concatenate([RNG.normal(-1, 0.2, 3000), RNG.normal(1, 0.2, 3000), [np.nan]])[:, None]

    def place(z):
        return 0.3 * z + 2 * np.tanh(10 * z)
    u = read(np.array([[-1.0], [-0.7], [0.7], [1.0]]), *even_pace(z, lambda a, b: np.abs(place(b) - place(a))[:, 0]))[:, 0]
    seen = place(np.array([-1.0, -0.7, 0.7, 1.0]))
    assert (u[2] - u[1]) / (u[3] - u[0]) == pytest.approx((seen[2] - seen[1]) / (seen[3] - seen[0]), abs=0.02)


def test_covariances_go_by_the_slope_where_the_mean_is_and_back():
    pace = pace_of(Z, bent)
    covariance = np.tile(np.array([[0.3, 0.1], [0.1, 0.2]], np.float32), (len(Z), 1, 1))
    found = spread(Z, covariance, *pace)
    step = (read(Z + [1e-4, 0], *pace) - read(Z - [1e-4, 0], *pace))[:, 0] / 2e-4
    assert np.mean(np.abs(found[:, 0, 0] / (0.3 * step**2) - 1) < 1e-3) > 0.99
    np.testing.assert_allclose(found[:, 0, 1] / np.sqrt(found[:, 0, 0] * found[:, 1, 1]), 0.1 / np.sqrt(0.06), rtol=1e-4)
    np.testing.assert_allclose(spread(read(Z, *pace), found, *pace[::-1]), covariance, rtol=1e-2)


class Turning:
    """An arm that turns by z about the z axis, as `seen_change` sees a model."""

    own_dim, arm = 1, np.float32([[x, 0, 5] for x in range(20, 60, 4)])
    neutral = Mixture(arm, np.ones(len(arm), np.float32), np.full(len(arm), 3, np.float32))

    class likelihood:
        grid = FourierGrid.to_resolution(48, 4.0, 10.0)

    def mixture(self, z):
        x, y = (self.arm[:, 0] * f(z) for f in (tf.cos, tf.sin))
        return tf.stack([x, y, 0 * x + 5], 2), tf.ones([tf.shape(z)[0], len(self.arm)]), tf.constant(self.neutral.widths)


def test_an_arm_that_turns_evenly_is_seen_to_change_evenly():
    change, places = seen_change(Turning()), np.linspace(-1.2, 1.2, 145)[:, None]
    steps = change(places[:-1], places[1:]).reshape(6, -1).mean(1)
    assert steps.max() / steps.min() < 1.15
    angle = RNG.uniform(-1.2, 1.2, 3000)[:, None]
    np.testing.assert_allclose(read(angle, *even_pace(angle, change)), angle, atol=0.06)
