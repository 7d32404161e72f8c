import numpy as np
import pytest
import reference

from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.imaging.resample import last_wave, resample, resampling_matrix

#: Gaussians that every sampling below resolves and every box below holds
XY, AMPLITUDES, WIDTHS = [(9, -6), (-14, 5), (3, 12)], [900, 700, 400], [7, 6, 8]


def image(box, pixel_size):
    return np.float32(reference.image_of(XY, AMPLITUDES, WIDTHS, box, pixel_size))[None]


@pytest.mark.parametrize("box, pixel_size",
                         [(64, 2.0), (63, 2.0), (48, 3.0), (45, 3.1), (96, 1.5), (40, 4.0), (128, 1.37)])
@pytest.mark.parametrize("new_box, new_pixel_size", [(64, 2.0), (49, 3.0), (40, 3.7)])
def test_a_density_that_both_samplings_resolve_keeps_its_values(box, pixel_size, new_box, new_pixel_size):
    found, exact = resample(image(box, pixel_size), pixel_size, new_box,
                            new_pixel_size), image(new_box, new_pixel_size)
    assert found.shape == exact.shape and found.dtype == np.float32
    assert np.abs(found - exact).max() < 2e-4 * exact.max()


def test_weights_are_the_plain_sum_over_waves():
    old, new = np.arange(11) - 5, (np.arange(8) - 4) * (2.9 / 2.0)
    waves = range(-last_wave(11, 2.0, 2.9), last_wave(11, 2.0, 2.9) + 1)
    plain = sum(np.exp(2j * np.pi * k * (new[:, None] - old[None]) / 11) for k in waves) / 11
    inside = (new >= -5.5) & (new <= 5.5)
    np.testing.assert_allclose(resampling_matrix(11, 2.0, 8, 2.9), plain.real * inside[:, None], atol=1e-6)
    assert inside.sum() == 7


def test_the_same_sampling_leaves_all_but_the_nyquist_frequency():
    np.testing.assert_allclose(resampling_matrix(9, 2.0, 9, 2.0), np.eye(9), atol=1e-6)
    alternating = (-1.0) ** np.arange(8)
    np.testing.assert_allclose(resampling_matrix(8, 2.0, 8, 2.0),
                               np.eye(8) - np.outer(alternating, alternating) / 8, atol=1e-6)


@pytest.mark.parametrize("box, pixel_size, new_pixel_size, expected", [
    (64, 2.0, 2.0, 31), (63, 2.0, 2.0, 31), (64, 2.0, 4.0, 15), (64, 2.0, 1.0, 31), (64, 2.0, 3.0, 21)])
def test_waves_end_below_the_lower_nyquist_frequency(box, pixel_size, new_pixel_size, expected):
    assert last_wave(box, pixel_size, new_pixel_size) == expected
    assert expected / (box * pixel_size) < 0.5 / max(pixel_size, new_pixel_size)


@pytest.mark.parametrize("box, pixel_size, new_box, new_pixel_size",
                         [(96, 1.5, 48, 3.0), (60, 2.0, 40, 2.9), (100, 1.5, 40, 3.1), (32, 4.0, 64, 2.0)])
def test_white_noise_keeps_its_density_per_area_in_every_ring_below_both_nyquist_frequencies_and_none_beyond(
        box, pixel_size, new_box, new_pixel_size):
    noise = np.random.default_rng(0).normal(size=(500, box, box))
    grid = FourierGrid.to_resolution(new_box, new_pixel_size)
    power = np.sum(np.asarray(transform(resample(noise, pixel_size, new_box, new_pixel_size), grid)) ** 2,
                   1).mean(0) / 2
    last = int(0.5 / max(pixel_size, new_pixel_size) / grid.step)
    expected = 0.5 * (pixel_size / new_pixel_size) ** 2
    for ring in range(3, last - 1):
        assert power[grid.shell == ring].mean() == pytest.approx(expected, rel=0.06)
    end = 0.5 / pixel_size + 2 * grid.step
    beyond = (np.abs(grid.kx) > end) | (np.abs(grid.ky) > end)
    assert not beyond.any() or power[beyond].max() < 1e-6


def test_a_larger_extent_is_padded_with_the_mean_of_the_rim():
    found = resample(image(40, 2.0) + 5, 2.0, 40, 4.0)
    assert np.abs(found[0, :8] - 5).max() < 0.02 and np.abs(found[0, :, -8:] - 5).max() < 0.02


def test_images_of_a_batch_do_not_touch_each_other():
    images = np.random.default_rng(1).normal(size=(3, 24, 24)).astype(np.float32)
    together = resample(images, 2.0, 20, 2.3)
    for i in range(3):
        np.testing.assert_allclose(resample(images[i:i + 1], 2.0, 20, 2.3)[0], together[i], atol=1e-5)
