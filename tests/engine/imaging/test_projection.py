import functools

import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging import projection
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.projection import place

PIXEL = 3.0
#: largest error of each method, relative to the largest value of the image
ERROR = {"separable": 2e-6, "local": 1e-5}


@pytest.fixture(params=["separable", "local"])
def method(request):
    return request.param


@pytest.fixture
def project(method):
    """`projection.project` with each of its methods."""
    return functools.partial(projection.project, method=method)


def mixture(count=12, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 12, (batch, count, 2)).astype(np.float32),
            rng.uniform(0.5, 2, count).astype(np.float32),
            rng.uniform(3, 6, count).astype(np.float32))


def as_complex(coefficients):
    coefficients = np.asarray(coefficients)
    return coefficients[:, 0] + 1j * coefficients[:, 1]


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("resolution", [0.0, 12.0])
def test_projection_equals_the_dense_sum_one_gaussian_at_a_time(box, resolution, method, project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(box, PIXEL, resolution), mixture()
    found = as_complex(project(xy, amplitudes, widths, grid))
    for image, places in zip(found, xy):
        expected = reference.project(places, amplitudes, widths, box, PIXEL, grid.m)
        assert np.abs(image - expected).max() < ERROR[method] * np.abs(expected).max()


def test_single_precision_stays_within_a_hundred_thousandth_of_float64_at_128_px_and_500_gaussians(project):
    rng, grid = np.random.default_rng(0), FourierGrid.to_resolution(128, 1.0)
    xy = rng.normal(0, 25, (1, 500, 2)).astype(np.float32)
    amplitudes, widths = rng.uniform(0.5, 2, 500), rng.uniform(1, 3, 500)
    found = as_complex(project(xy, tf.constant(np.float32(amplitudes)), tf.constant(np.float32(widths)),
                               grid))[0]
    expected = reference.project(xy[0], np.float32(amplitudes), np.float32(widths), 128, 1.0, grid.m)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("box", [32, 33])
def test_projection_is_the_transform_of_the_image_of_sampled_gaussians(box, project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(box, PIXEL), mixture()
    # nothing leaves the box, and sampling does not alias
    xy, widths = xy / 2, widths + 2
    images = np.stack([reference.image_of(places, amplitudes, widths, box, PIXEL) for places in xy])
    images = images.astype(np.float32)
    np.testing.assert_allclose(project(xy, amplitudes, widths, grid), transform(images, grid),
                               atol=2e-6 * box)
    np.testing.assert_allclose(inverse_transform(project(xy, amplitudes, widths, grid), grid), images,
                               atol=2e-4 * images.max())


def test_the_origin_of_an_image_holds_the_sum_of_the_amplitudes(project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    origin = as_complex(project(xy, amplitudes, widths, grid))[:, grid.m, 0]
    np.testing.assert_allclose(origin * PIXEL**2 * 24, amplitudes.sum(), rtol=1e-5)


def test_friedel_mates_are_conjugate(project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    column = as_complex(project(xy, amplitudes, widths, grid))[:, :, 0]
    np.testing.assert_allclose(column, column[:, ::-1].conj(), atol=1e-6)


def test_a_shift_is_a_phase_ramp(project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    shift = np.float32([5.0, -7.5])
    ramp = np.exp(-2j * np.pi * (grid.kx * shift[0] + grid.ky * shift[1]))
    still, moved = (as_complex(project(places, amplitudes, widths, grid)) for places in (xy, xy + shift))
    np.testing.assert_allclose(moved, still * ramp, atol=1e-5 * np.abs(still).max())


def test_projection_is_linear_in_the_amplitudes_and_additive_over_gaussians(project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    whole = project(xy, 2 * amplitudes, widths, grid).numpy()
    parts = [project(xy[:, part], amplitudes[part], widths[part],
                     grid).numpy() for part in (slice(0, 5), slice(5, None))]
    np.testing.assert_allclose(whole, 2 * (parts[0] + parts[1]), atol=1e-6)


def test_a_batch_equals_its_images_one_by_one(project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture(batch=5)
    together = project(xy, amplitudes, widths, grid).numpy()
    for i in range(5):
        np.testing.assert_allclose(together[i], project(xy[i:i + 1], amplitudes, widths, grid).numpy()[0],
                                   atol=1e-7)


@pytest.mark.parametrize("own", ["amplitudes", "widths", "both"])
def test_amplitudes_and_widths_may_be_shared_or_one_set_per_particle(own, method, project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    rng = np.random.default_rng(3)
    many_a, many_w = amplitudes, widths
    if own != "widths":
        many_a = (amplitudes * rng.uniform(0.5, 1.5, (3, 1))).astype(np.float32)
    if own != "amplitudes":
        many_w = (widths * rng.uniform(0.8, 1.2, (3, 1))).astype(np.float32)
    together = as_complex(project(xy, many_a, many_w, grid))
    for i in range(3):
        expected = reference.project(xy[i], many_a[i] if many_a.ndim == 2 else many_a,
                                     many_w[i] if many_w.ndim == 2 else many_w, 24, PIXEL,
                                     grid.m)
        assert np.abs(together[i] - expected).max() < ERROR[method] * np.abs(expected).max()


def test_place_applies_rotation_then_shift_for_shared_and_own_centres():
    rng = np.random.default_rng(0)
    centers, rotation = rng.normal(0, 20,
                                   (7, 3)).astype(np.float32), random_rotations(4, rng).astype(np.float32)
    shift = rng.normal(0, 5, (4, 2)).astype(np.float32)
    expected = np.stack([(a @ centers.T).T[:, :2] + t for a, t in zip(rotation, shift)])
    np.testing.assert_allclose(place(tf.constant(centers), tf.constant(rotation), tf.constant(shift)),
                               expected, atol=2e-5)
    own = np.tile(centers, (4, 1, 1))
    np.testing.assert_allclose(place(tf.constant(own), tf.constant(rotation), tf.constant(shift)), expected,
                               atol=2e-5)


def test_gradients_equal_float64_central_differences_of_the_slow_formula(project):
    box, grid = 16, FourierGrid.to_resolution(16, PIXEL)
    rng = np.random.default_rng(2)
    centers, amplitudes, widths = rng.normal(0, 8, (3, 3)), rng.uniform(0.5, 2, 3), rng.uniform(3, 6, 3)
    rotation, shift = random_rotations(1, rng), rng.normal(0, 3, (1, 2))
    kernel = rng.normal(size=(1, 2) + grid.shape)

    def slow(c, a, s, r, t):
        image = reference.project((c @ r[0].T)[:, :2] + t, a, s, box, PIXEL, grid.m)
        return np.sum(kernel[0, 0] * image.real + kernel[0, 1] * image.imag)

    arrays = [centers, amplitudes, widths, rotation, shift]
    variables = [tf.constant(np.float32(a)) for a in arrays]
    with tf.GradientTape() as tape:
        tape.watch(variables)
        c, a, s, r, t = variables
        value = tf.reduce_sum(np.float32(kernel) * project(place(c, r, t), a, s, grid))
    assert float(value) == pytest.approx(slow(*arrays), rel=1e-4)
    for i, gradient in enumerate(tape.gradient(value, variables)):
        expected = reference.central_differences(lambda x, i=i: slow(*arrays[:i], x, *arrays[i + 1:]),
                                                 arrays[i], 1e-5)
        np.testing.assert_allclose(gradient, expected, atol=2e-4 * np.abs(expected).max())


def test_gaussians_across_the_edge_and_far_outside_the_box_come_back_on_the_other_side(project):
    grid = FourierGrid.to_resolution(32, PIXEL)
    xy = np.float32([[[47.9, -48.1], [500.0, -1000.0], [-48.0, 48.0], [0.0, 47.0]]])
    amplitudes, widths = np.ones(4, np.float32), np.float32([3, 4, 5, 12])
    found = as_complex(project(xy, amplitudes, widths, grid))[0]
    expected = reference.project(xy[0], amplitudes, widths, 32, PIXEL, grid.m)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("place", ["xy", "amplitudes", "widths"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_spoils_its_own_image_and_no_memory(place, value, project):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    arrays = dict(xy=xy.copy(), amplitudes=np.tile(amplitudes, (3, 1)), widths=np.tile(widths, (3, 1)))
    arrays[place][1, 4] = value
    found = project(arrays["xy"], arrays["amplitudes"], arrays["widths"], grid).numpy()
    if place != "widths" or np.isnan(value):
        assert not np.all(np.isfinite(found[1]))
    assert np.all(np.isfinite(found[[0, 2]])) or (place == "widths" and np.isnan(value))


def test_auto_takes_the_local_method_for_many_gaussians_and_the_product_for_few(monkeypatch):
    called = []
    monkeypatch.setattr(projection, "_project_locally", lambda *a: called.append("local"))
    monkeypatch.setattr(projection.separable, "project", lambda *a: called.append("separable"))
    grid = FourierGrid.to_resolution(24, PIXEL)
    for count in (12, 500):
        xy, amplitudes, widths = mixture(count)
        projection.project(xy, amplitudes, widths, grid)
    assert called == ["separable", "local"]
