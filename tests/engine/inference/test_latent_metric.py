"""The uniform scale of latent axes: found from how much images change along them."""
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm
from untrained import untrained

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.inference.latent_metric import image_distance, uniform_scale
from gmmhet.engine.model.latent_scale import KNOTS

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(5000, 2))


def scale_of(z, place):
    """The scale where images at z are at place(z) on the first axis and at 2 z on the second, evenly."""
    return uniform_scale(z, lambda a, b: np.hypot(place(b[:, 0]) - place(a[:, 0]), 2 * (b[:, 1] - a[:, 1])))


def bent(z):
    """A place whose slope is 1 + |z|."""
    return z + 0.5 * z * np.abs(z)


def test_a_step_is_as_long_as_images_change_and_as_before_on_average():
    scale = scale_of(Z, bent)
    u, ends = scale.rescale(Z), np.array([[-2.0, 0], [-1.0, 0], [0.0, 0], [1.0, 0], [2.0, 0]])
    steps = np.diff(scale.rescale(ends)[:, 0])
    assert steps[0] / steps[1] == pytest.approx(2.5 / 1.5, rel=0.06)
    assert steps[3] / steps[2] == pytest.approx(2.5 / 1.5, rel=0.06)
    assert steps[2] == pytest.approx(1.5 / (1 + np.sqrt(2 / np.pi)), rel=0.06)
    np.testing.assert_allclose(u[:, 1], Z[:, 1], atol=1e-5)
    np.testing.assert_allclose(scale.rescale(np.zeros((1, 2))), 0, atol=1e-6)


def test_an_evenly_spread_state_is_spread_evenly_again():
    angle = RNG.uniform(-1, 1, 20000)
    z = np.sqrt(2) * np.asarray(tf.math.erfinv(angle))[:, None]      # the latent point whose prior is normal
    u = uniform_scale(z, lambda a, b: (norm.cdf(b) - norm.cdf(a))[:, 0]).rescale(z)[:, 0]
    inner = np.abs(angle) < 0.95
    before, after = (np.corrcoef(values[inner], angle[inner])[0, 1] for values in (z[:, 0], u))
    assert after > 0.9995 > before


def test_a_scale_that_is_found_goes_back_and_forth_and_in_the_graph_as_in_numpy_beyond_the_ends_too():
    scale = scale_of(Z, np.exp)
    wide = np.concatenate([Z[:50], [[-9.0, 9.0], [12.0, -7.0]]])
    u = scale.rescale(wide)
    np.testing.assert_allclose(scale.inverse.rescale(u), wide, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scale.rescale_tensor(tf.constant(wide, tf.float32)), u, rtol=1e-5, atol=1e-5)
    assert np.all(np.diff(scale.source, axis=1) > 0) and np.all(np.diff(scale.target, axis=1) > 0)


def test_covariances_go_by_the_slope_of_a_scale_that_is_found_where_the_mean_is_and_back():
    scale = scale_of(Z, bent)
    covariance = np.tile(np.array([[0.3, 0.1], [0.1, 0.2]], np.float32), (len(Z), 1, 1))
    found = scale.rescale_covariance(Z, covariance)
    step = (scale.rescale(Z + [1e-4, 0]) - scale.rescale(Z - [1e-4, 0]))[:, 0] / 2e-4
    assert np.mean(np.abs(found[:, 0, 0] / (0.3 * step**2) - 1) < 1e-3) > 0.99
    correlation = found[:, 0, 1] / np.sqrt(found[:, 0, 0] * found[:, 1, 1])
    np.testing.assert_allclose(correlation, 0.1 / np.sqrt(0.06), rtol=1e-4)
    np.testing.assert_allclose(scale.inverse.rescale_covariance(scale.rescale(Z), found), covariance,
                               rtol=1e-2)


@pytest.mark.parametrize("z,change", [(np.zeros((300, 1)), 1.0), (Z[:, :1], 0.0), (Z[:1, :1], 1.0)],
                         ids=["all the same", "nothing changes", "one"])
def test_where_there_is_nothing_to_go_by_the_scale_stays(z, change):
    scale = uniform_scale(z, lambda a, b: np.full(len(a), change))
    assert scale.source.shape == scale.target.shape == (1, KNOTS)
    np.testing.assert_allclose(scale.rescale(np.array([[-3.0], [0.5]])), [[-3.0], [0.5]], atol=1e-5)


def test_a_switch_in_a_gap_between_two_states_counts_and_one_point_that_is_no_number_does_not():
    z = np.concatenate([RNG.normal(-1, 0.2, 3000), RNG.normal(1, 0.2, 3000), [np.nan]])[:, None]

    def place(z):
        return 0.3 * z + 2 * np.tanh(10 * z)
    at = np.array([[-1.0], [-0.7], [0.7], [1.0]])
    u = uniform_scale(z, lambda a, b: np.abs(place(b) - place(a))[:, 0]).rescale(at)[:, 0]
    expected = place(at[:, 0])
    shares = [(values[2] - values[1]) / (values[3] - values[0]) for values in (u, expected)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


class Turning:
    """An arm that turns by z about the z axis, as `image_distance` takes a model."""

    arm = np.float32([[x, 0, 5] for x in range(20, 60, 4)])
    neutral = Mixture(arm, np.ones(len(arm), np.float32), np.full(len(arm), 3, np.float32))

    class likelihood:
        grid = FourierGrid.to_resolution(48, 4.0, 10.0)

    def mixture(self, z):
        x, y = (self.arm[:, 0] * f(z) for f in (tf.cos, tf.sin))
        return MixtureBatch(tf.stack([x, y, 0 * x + 5], 2), tf.ones([tf.shape(z)[0], len(self.arm)]),
                            tf.constant(self.neutral.widths))


def test_images_of_an_arm_that_turns_evenly_change_evenly():
    distance, places = image_distance(Turning()), np.linspace(-1.2, 1.2, 145)[:, None]
    steps = distance(places[:-1], places[1:]).reshape(6, -1).mean(1)
    assert steps.max() / steps.min() < 1.15
    angle = RNG.uniform(-1.2, 1.2, 3000)[:, None]
    np.testing.assert_allclose(uniform_scale(angle, distance).rescale(angle), angle, atol=0.06)


def test_images_are_no_distance_from_themselves_and_a_whole_one_from_nothing_at_all():
    model = untrained(parameters=["amplitude"])
    distance, z = image_distance(model), RNG.normal(size=(3, 2))
    np.testing.assert_allclose(distance(z, z), 0, atol=1e-6)
    apart = distance(z, z[::-1])
    np.testing.assert_allclose(apart[0], apart[2], rtol=0.2)      # from either end, by other views
    assert apart[0] > 0 and apart[1] == 0


def test_distances_of_many_points_do_not_depend_on_how_they_are_shared_into_batches():
    model = untrained()
    a, b = RNG.normal(size=(2, 3, 2))
    np.testing.assert_allclose(image_distance(model, 2)(a, b), image_distance(model)(a, b), rtol=1e-4)
