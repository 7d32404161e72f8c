"""Gaussians drawn on a grid, the grid transformed, and the adjoint, against the slow sum in float64."""
import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging import local, projection
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.local import LocalProjector

PIXEL = 3.0
#: largest error, relative to the largest value of the image
ERROR = 1e-5


def mixture(count=12, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 12, (batch, count, 2)).astype(np.float32),
            rng.uniform(0.5, 2, count).astype(np.float32),
            rng.uniform(3, 6, count).astype(np.float32))


def circle(grid):
    return grid.weight > 0


def as_complex(coefficients):
    return coefficients[:, 0] + 1j * coefficients[:, 1]


@pytest.mark.parametrize("widths", [(3, 6), (0.1, 0.5), (20, 40)],
                         ids=["usual", "below a grid point", "of many tiles"])
def test_images_equal_the_dense_sum_whatever_the_widths(widths):
    grid, (xy, amplitudes, _) = FourierGrid.to_resolution(40, PIXEL), mixture()
    widths = np.random.default_rng(1).uniform(*widths, 12).astype(np.float32)
    images = as_complex(LocalProjector(grid, 1).project(xy, amplitudes, widths))
    for image, places in zip(images, xy):
        expected = reference.project(places, amplitudes, widths, 40, PIXEL, grid.m)
        assert np.abs(image - expected)[circle(grid)].max() < 2 * ERROR * np.abs(expected).max()


def test_the_adjoint_obeys_the_identity_of_the_inner_product():
    """Images are linear in the amplitudes a: <u, P a> = <P^T u, a>."""
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(40, PIXEL), mixture(200, 4)
    amplitudes = np.tile(amplitudes, (4, 1)) * np.float32([[1], [-1], [2], [0.5]])
    projector = LocalProjector(grid, 1)
    upstream = np.random.default_rng(1).normal(size=(4, 2) + grid.shape).astype(np.float32)
    images = projector.project(xy, amplitudes, widths)
    _, to_amplitudes, _ = projector.adjoint(upstream, xy, amplitudes, widths)
    there, back = np.sum(upstream * images, (1, 2, 3)), np.sum(to_amplitudes * amplitudes, 1)
    np.testing.assert_allclose(there, back, atol=2e-5 * np.linalg.norm(upstream) * np.linalg.norm(images))


def test_the_adjoint_s_gradients_equal_central_differences_of_the_slow_sum():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(16, PIXEL), mixture(4, 1)
    upstream = np.random.default_rng(1).normal(size=(1, 2) + grid.shape).astype(np.float32) * circle(grid)

    def value(xy, amplitudes, widths):
        image = reference.project(xy, amplitudes, widths, 16, PIXEL, grid.m)
        return np.sum(upstream[0, 0] * image.real + upstream[0, 1] * image.imag)
    gradients = LocalProjector(grid, 1).adjoint(upstream, xy, amplitudes, widths)
    arrays = [xy[0].astype(float), amplitudes.astype(float), widths.astype(float)]
    for i, gradient in enumerate(gradients):
        expected = reference.central_differences(lambda x, i=i: value(*arrays[:i], x, *arrays[i + 1:]),
                                                 arrays[i], 1e-4)
        np.testing.assert_allclose(gradient[0], expected, atol=1e-3 * np.abs(expected).max())


def test_a_batch_in_many_pieces_equals_the_batch_at_once(monkeypatch):
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(40, PIXEL), mixture(batch=5)
    at_once = LocalProjector(grid, 1).project(xy, amplitudes, widths)
    monkeypatch.setattr(local, "CHUNK_VALUES", 1)
    np.testing.assert_array_equal(LocalProjector(grid, 1).project(xy, amplitudes, widths), at_once)


@pytest.mark.parametrize("box, resolution, count", [(64, 12.0, 600), (65, 0.0, 300)])
def test_local_agrees_with_separable_in_value_and_all_gradients_whatever_the_widths(box, resolution, count):
    grid, rng = FourierGrid.to_resolution(box, PIXEL, resolution), np.random.default_rng(5)
    xy = tf.constant(rng.normal(0, 30, (3, count, 2)), tf.float32)
    amplitudes, widths = tf.constant(rng.uniform(-1, 2, (3, count)),
                                     tf.float32), tf.constant(rng.uniform(0.1, 25, count), tf.float32)
    upstream = np.float32(rng.normal(size=(3, 2) + grid.shape) * circle(grid))
    found = {}
    for name in ("local", "separable"):
        with tf.GradientTape() as tape:
            tape.watch([xy, amplitudes, widths])
            image = projection.project(xy, amplitudes, widths, grid, name)
            value = tf.reduce_sum(upstream * image)
        found[name] = [image * circle(grid)] + tape.gradient(value, [xy, amplitudes, widths])
    for drawn, product, error in zip(found["local"], found["separable"], (1e-5, 5e-4, 5e-4, 5e-4)):
        assert drawn.shape == product.shape
        assert np.abs(drawn - product).max() < error * np.abs(product).max()


def test_threads_do_not_change_the_result():
    grid, (xy, amplitudes, widths) = FourierGrid.to_resolution(64, PIXEL), mixture(200, 7)
    alone, many = (LocalProjector(grid, threads) for threads in (1, 3))
    np.testing.assert_array_equal(alone.project(xy, amplitudes, widths), many.project(xy, amplitudes, widths))
    upstream = np.float32(np.random.default_rng(1).normal(size=(7, 2) + grid.shape))
    for one, other in zip(*(p.adjoint(upstream, xy, amplitudes, widths) for p in (alone, many))):
        np.testing.assert_array_equal(one, other)
