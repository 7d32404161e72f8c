import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, soft_disc, transform

BOXES = [16, 17, 32, 33]


def noise(count, box, seed=0):
    return np.random.default_rng(seed).normal(size=(count, box, box)).astype(np.float32)


def as_complex(coefficients):
    coefficients = np.asarray(coefficients)
    return coefficients[:, 0] + 1j * coefficients[:, 1]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("resolution", [0.0, 9.0])
def test_transform_equals_numpys_fft_about_the_centre_pixel(box, resolution):
    grid, images = FourierGrid.to_resolution(box, 2.0, resolution), noise(2, box)
    full = np.fft.fft2(np.fft.ifftshift(images.astype(float), axes=(1, 2))) / box
    index = np.arange(-grid.m, grid.m + 1)
    np.testing.assert_allclose(as_complex(transform(images, grid)), full[:, index][:, :, :grid.m + 1],
                               atol=2e-6)


@pytest.mark.parametrize("box", [8, 9])
def test_transform_equals_the_plain_sum_over_pixels(box):
    grid, images = FourierGrid.to_resolution(box, 3.0), noise(1, box)
    np.testing.assert_allclose(as_complex(transform(images, grid))[0], reference.transform(images[0], grid.m),
                               atol=1e-6)


@pytest.mark.parametrize("box", BOXES)
def test_inverse_undoes_the_transform_of_band_limited_images(box):
    grid = FourierGrid.to_resolution(box, 2.0, 9.0)
    once = inverse_transform(transform(noise(2, box), grid), grid)
    np.testing.assert_allclose(inverse_transform(transform(once, grid), grid), once, atol=2e-6)


@pytest.mark.parametrize("box", BOXES)
def test_transform_undoes_the_inverse_of_the_transform_of_an_image(box):
    grid = FourierGrid.to_resolution(box, 2.0)
    coefficients = transform(noise(2, box), grid)
    np.testing.assert_allclose(transform(inverse_transform(coefficients, grid), grid), coefficients,
                               atol=2e-6)


def test_the_inverse_holds_every_frequency_of_an_odd_box():
    grid, images = FourierGrid.to_resolution(17, 2.0), noise(2, 17)
    np.testing.assert_allclose(inverse_transform(transform(images, grid), grid), images, atol=5e-6)


@pytest.mark.parametrize("box", BOXES)
def test_weights_count_every_frequency_of_the_full_plane_once(box):
    grid = FourierGrid.to_resolution(box, 1.0)
    full = np.abs(np.fft.fft2(noise(1, box)[0].astype(float)) / box) ** 2
    index = np.fft.fftfreq(box, 1 / box)
    radius = np.rint(np.hypot(index[:, None], index[None]))
    expected = np.sum(full[(radius > 0) & (radius <= grid.m)])
    found = np.sum(grid.weight * np.asarray(transform(noise(1, box), grid)) ** 2)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("box", BOXES)
def test_rings_and_weights_equal_the_plain_count(box):
    grid = FourierGrid.to_resolution(box, 1.7)
    ring, copies = reference.rings(grid.m)
    np.testing.assert_array_equal(grid.shell, np.minimum(ring, grid.m + 1))
    np.testing.assert_array_equal(grid.weight, copies)


def test_white_noise_keeps_its_variance():
    grid = FourierGrid.to_resolution(32, 2.0)
    power = np.sum(grid.weight * np.asarray(transform(3 * noise(100, 32), grid)) ** 2)
    power /= 100 * grid.weight.sum()
    assert power == pytest.approx(9, rel=0.01)


@pytest.mark.parametrize("box", BOXES)
def test_a_point_at_the_centre_pixel_has_a_flat_real_transform(box):
    image = np.zeros((1, box, box), np.float32)
    image[0, box // 2, box // 2] = box
    values = as_complex(transform(image, FourierGrid.to_resolution(box, 1.0)))
    np.testing.assert_allclose(values, 1, atol=1e-5)


def test_moving_an_image_is_a_phase_ramp():
    grid, images = FourierGrid.to_resolution(16, 2.0), noise(1, 16)
    moved = np.roll(images, (3, -2), (1, 2))                                # 6 Å along y, -4 Å along x
    ramp = np.exp(-2j * np.pi * (grid.ky * 6 + grid.kx * -4))
    np.testing.assert_allclose(as_complex(transform(moved, grid)), as_complex(transform(images, grid)) * ramp,
                               atol=5e-6)


@pytest.mark.parametrize("box,resolution,m",
                         [(64, 0, 31), (65, 0, 32), (64, 12, 21), (64, 1, 31), (64, 1e6, 1), (64, 8, 31)])
def test_the_grid_reaches_the_resolution_but_never_nyquist(box, resolution, m):
    grid = FourierGrid.to_resolution(box, 4.0, resolution)
    assert grid.m == m and grid.shape == grid.shell.shape == (2 * m + 1, m + 1)
    assert np.max(grid.kx) == pytest.approx(m / (box * 4.0)) and np.min(grid.ky) == -np.max(grid.kx)


def test_the_soft_disc_is_one_inside_its_diameter_and_zero_past_its_edge():
    disc = soft_disc(64, 2.0, 60.0, edge_px=5.0)
    line = disc[32, 32:]
    assert np.all(line[:16] == 1) and np.all(line[20:] == 0) and np.all(np.diff(line) <= 0)
    np.testing.assert_array_equal(disc, disc.T)


def test_the_transform_can_be_differentiated_and_its_gradient_is_the_adjoint():
    grid = FourierGrid.to_resolution(16, 2.0, 8.0)
    images = tf.constant(noise(1, 16))
    other = tf.random.stateless_normal([1, 2, 2 * grid.m + 1, grid.m + 1], (1, 2))
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(transform(images, grid) * other)
    gradient = tape.gradient(value, images)
    assert float(tf.reduce_sum(images * gradient)) == pytest.approx(float(value), rel=1e-4)
