import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.projection import place, project

PIXEL = 3.0


def mixture(count=12, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 12, (batch, count, 2)).astype(np.float32), rng.uniform(0.5, 2, count).astype(np.float32),
            rng.uniform(3, 6, count).astype(np.float32))


def as_complex(coefficients):
    coefficients = np.asarray(coefficients)
    return coefficients[:, 0] + 1j * coefficients[:, 1]


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("resolution", [0.0, 12.0])
def test_projection_equals_the_dense_sum_one_gaussian_at_a_time(box, resolution):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(box, PIXEL, resolution), mixture()
    found = as_complex(project(xy, amplitudes, widths, grid))
    for image, places in zip(found, xy):
        expected = reference.project(places, amplitudes, widths, box, PIXEL, grid.m)
        assert np.abs(image - expected).max() < 2e-6 * np.abs(expected).max()


def test_single_precision_stays_within_a_hundred_thousandth_of_float64_at_128_px_and_500_gaussians():
    rng, grid = np.random.default_rng(0), FourierGrid.to_resolution(128, 1.0)
    xy, amplitudes, widths = rng.normal(0, 25, (1, 500, 2)).astype(np.float32), rng.uniform(0.5, 2, 500), rng.uniform(1, 3, 500)
    found = as_complex(project(xy, tf.constant(np.float32(amplitudes)), tf.constant(np.float32(widths)), grid))[0]
    expected = reference.project(xy[0], np.float32(amplitudes), np.float32(widths), 128, 1.0, grid.m)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("box", [32, 33])
def test_projection_is_the_transform_of_the_image_of_sampled_gaussians(box):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(box, PIXEL), mixture()
    xy, widths = xy / 2, widths + 2                                         # nothing leaves the box, and sampling does not alias
    images = np.stack([reference.image_of(places, amplitudes, widths, box, PIXEL) for places in xy]).astype(np.float32)
    np.testing.assert_allclose(project(xy, amplitudes, widths, grid), transform(images, grid), atol=2e-6 * box)
    np.testing.assert_allclose(inverse_transform(project(xy, amplitudes, widths, grid), grid), images, atol=2e-4 * images.max())


def test_the_origin_of_an_image_holds_the_sum_of_the_amplitudes():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    origin = as_complex(project(xy, amplitudes, widths, grid))[:, grid.m, 0]
    np.testing.assert_allclose(origin * PIXEL**2 * 24, amplitudes.sum(), rtol=1e-5)


def test_friedel_mates_are_conjugate():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    column = as_complex(project(xy, amplitudes, widths, grid))[:, :, 0]
    np.testing.assert_allclose(column, column[:, ::-1].conj(), atol=1e-7)


def test_a_shift_is_a_phase_ramp():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    shift = np.float32([5.0, -7.5])
    ramp = np.exp(-2j * np.pi * (grid.kx * shift[0] + grid.ky * shift[1]))
    still, moved = as_complex(project(xy, amplitudes, widths, grid)), as_complex(project(xy + shift, amplitudes, widths, grid))
    np.testing.assert_allclose(moved, still * ramp, atol=2e-6 * np.abs(still).max())


def test_projection_is_linear_in_the_amplitudes_and_additive_over_gaussians():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    whole = project(xy, 2 * amplitudes, widths, grid).numpy()
    parts = [project(xy[:, part], amplitudes[part], widths[part], grid).numpy() for part in (slice(0, 5), slice(5, None))]
    np.testing.assert_allclose(whole, 2 * (parts[0] + parts[1]), atol=1e-6)


def test_a_batch_equals_its_images_one_by_one():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture(batch=5)
    together = project(xy, amplitudes, widths, grid).numpy()
    for i in range(5):
        np.testing.assert_allclose(together[i], project(xy[i:i + 1], amplitudes, widths, grid).numpy()[0], atol=1e-7)


@pytest.mark.parametrize("own", ["amplitudes", "widths", "both"])
def test_amplitudes_and_widths_may_be_shared_or_one_set_per_particle(own):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(24, PIXEL), mixture()
    rng = np.random.default_rng(3)
    many_a = (amplitudes * rng.uniform(0.5, 1.5, (3, 1))).astype(np.float32) if own != "widths" else amplitudes
    many_w = (widths * rng.uniform(0.8, 1.2, (3, 1))).astype(np.float32) if own != "amplitudes" else widths
    together = as_complex(project(xy, many_a, many_w, grid))
    for i in range(3):
        expected = reference.project(xy[i], many_a[i] if many_a.ndim == 2 else many_a, many_w[i] if many_w.ndim == 2 else many_w, 24, PIXEL, grid.m)
        assert np.abs(together[i] - expected).max() < 2e-6 * np.abs(expected).max()


def test_place_applies_rotation_then_shift_for_shared_and_own_centres():
    rng = np.random.default_rng(0)
    centers, rotation = rng.normal(0, 20, (7, 3)).astype(np.float32), random_rotations(4, rng).astype(np.float32)
    shift = rng.normal(0, 5, (4, 2)).astype(np.float32)
    expected = np.stack([(a @ centers.T).T[:, :2] + t for a, t in zip(rotation, shift)])
    np.testing.assert_allclose(place(tf.constant(centers), tf.constant(rotation), tf.constant(shift)), expected, atol=2e-5)
    own = np.tile(centers, (4, 1, 1))
    np.testing.assert_allclose(place(tf.constant(own), tf.constant(rotation), tf.constant(shift)), expected, atol=2e-5)


def test_gradients_equal_float64_central_differences_of_the_slow_formula():
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
        expected = reference.central_differences(lambda x, i=i: slow(*arrays[:i], x, *arrays[i + 1:]), arrays[i], 1e-5)
        np.testing.assert_allclose(gradient, expected, atol=2e-4 * np.abs(expected).max())
