"""The waves whose matrix product is an image, and their adjoint."""
import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging import separable
from gmmhet.engine.imaging.fourier import FourierGrid

PIXEL, GRID = 3.0, FourierGrid.to_resolution(16, 3.0)


def waves(position, widths):
    """cos(2 pi k p) d, then sin(2 pi k p) d, in float64: [B, N, 2(m+1)]."""
    k = np.arange(GRID.m + 1) * GRID.step
    damping = np.exp(-2 * np.pi**2 * np.asarray(widths)[..., None] ** 2 * k**2)
    angle = 2 * np.pi * k * np.asarray(position)[..., None]
    return np.concatenate([np.cos(angle) * damping, np.sin(angle) * damping], -1)


@pytest.fixture(params=["shared", "own"])
def places(request):
    """Positions [3, 5] and widths, [5] or [3, 5], Å."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 12, (3, 5)), rng.uniform(3, 6, 5 if request.param == "shared" else (3, 5))


def test_waves_are_damped_cosines_and_sines(places):
    found = separable._waves(*(tf.constant(a, tf.float32) for a in places), GRID)
    np.testing.assert_allclose(found, waves(*places), atol=1e-5)


def test_the_adjoint_of_the_waves_equals_central_differences(places):
    upstream = np.random.default_rng(1).normal(size=(3, 5, 2 * (GRID.m + 1)))
    tensors = [tf.constant(a, tf.float32) for a in places]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = tf.reduce_sum(separable._waves(*tensors, GRID) * tf.constant(upstream, tf.float32))
    for i, gradient in enumerate(tape.gradient(value, tensors)):
        def slow(x, i=i):
            return np.sum(upstream * waves(*places[:i], x, *places[i + 1:]))
        expected = reference.central_differences(slow, places[i], 1e-5)
        assert gradient.shape == expected.shape
        np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())


def test_both_signs_of_ky_come_from_products_over_ky_from_0_on():
    def image(y):
        xy = np.float32([[[7.0, y]]])
        return np.asarray(separable.project(tf.constant(xy), tf.constant([2.0]), tf.constant([4.0]), GRID))[0]
    expected = reference.project([(7.0, -11.0)], [2.0], [4.0], 16, PIXEL, GRID.m)
    real, imaginary = image(-11.0)
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(image(11.0), image(-11.0)[:, ::-1], atol=1e-7)
