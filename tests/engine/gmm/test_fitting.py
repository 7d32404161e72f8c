"""Fitting a mixture to a map: packed coefficients are a Fourier transform, and what was rendered is found
again."""
import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.gmm.fitting import (
    FitError,
    FitSettings,
    fit_mixture,
    pack_map,
    pack_mixture,
    packed_fsc,
    shell_table,
)
from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.seeding import Seeds
from gmmhet.engine.imaging.fsc import fsc_curve

BOX, PIXEL, M = 24, 4.0, 7


def a_mixture(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return Mixture(np.float32(rng.uniform(-22, 22, (count, 3))), np.float32(rng.uniform(0.5, 1.5, count)),
                   np.float32(rng.uniform(5, 7, count)))


def pack(mixture, m=M):
    arrays = (tf.constant(a) for a in (mixture.centers, mixture.amplitudes, mixture.widths))
    return pack_mixture(*arrays, BOX, PIXEL, m).numpy()


def test_packed_coefficients_of_a_map_have_the_power_of_its_fourier_transform_in_every_shell():
    volume = render(a_mixture(), BOX, PIXEL)
    shell, count = shell_table(BOX, M)
    packed = np.bincount(shell.ravel(), (pack_map(volume, M) ** 2 * count).ravel(), M + 2)[1:M + 1]
    k = np.fft.fftfreq(BOX, 1 / BOX)
    radius = np.rint(np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2
                             + k[None, None, :] ** 2)).astype(int)
    power = np.bincount(radius.ravel(), (np.abs(np.fft.fftn(volume)) ** 2).ravel())[1:M + 1]
    np.testing.assert_allclose(packed, power, rtol=1e-4)


def test_packed_coefficients_of_a_mixture_are_those_of_its_map():
    mixture = a_mixture()
    expected = pack_map(render(mixture, BOX, PIXEL), M)
    np.testing.assert_allclose(pack(mixture), expected, atol=2e-4 * np.abs(expected).max())


def test_the_fsc_of_packed_coefficients_is_that_of_the_maps():
    volumes = [render(a_mixture(seed=seed), BOX, PIXEL) for seed in (0, 1)]
    shell, count = shell_table(BOX, M)
    found = packed_fsc(*(pack_map(volume, M) for volume in volumes), shell, count, M)
    np.testing.assert_allclose(found, fsc_curve(*volumes)[1:M + 1], atol=1e-4)


def test_a_mixture_that_starts_beside_the_truth_is_found_again_on_the_scale_of_the_map():
    true, rng = a_mixture(), np.random.default_rng(1)
    volume = render(true, BOX, PIXEL)
    seeds = Seeds(np.float32(true.centers + rng.normal(0, 2, true.centers.shape)))
    found = fit_mixture(volume, PIXEL, seeds, FitSettings(2.2 * PIXEL, 200))
    assert found.mean_fsc == found.fsc.mean() > 0.995 and len(found.fsc) == round(BOX / 2.2)
    assert found.mixture.amplitudes.sum() == pytest.approx(true.amplitudes.sum(), rel=0.05)
    assert np.linalg.norm(found.mixture.centers - true.centers, axis=1).mean() < 1.5


def test_gaussians_that_are_not_kept_are_dropped_with_their_labels_and_none_at_all_is_refused():
    true = a_mixture()
    volume, empty = render(true, BOX, PIXEL), (np.zeros(0, np.int32), np.zeros(0, np.int32),
                                               np.zeros(0, np.float32))
    seeds = Seeds(true.centers, np.ones(12, np.float32), Labels(np.array(list("AAAAAABBBBBB")), *empty))
    kept = np.arange(12) >= 4
    found = fit_mixture(volume, PIXEL, seeds, FitSettings(12.0, 3, lambda mixture: kept))
    assert len(found.mixture) == 8 and found.mixture.labels.chain.tolist() == list("AABBBBBB")
    with pytest.raises(FitError, match="all 12 Gaussians lie outside the mask"):
        fit_mixture(volume, PIXEL, seeds, FitSettings(12.0, 3, lambda mixture: np.zeros(12, bool)))


def test_a_map_with_nan_ends_the_fit_with_what_to_look_for():
    volume = render(a_mixture(), BOX, PIXEL)
    volume[3, 3, 3] = np.nan
    with pytest.raises(FitError, match="the fit's loss is not finite after 50 steps: does the map hold NaN"):
        fit_mixture(volume, PIXEL, Seeds(a_mixture().centers), FitSettings(12.0, 300))
