"""Noise, scale and contrast, estimated from images whose noise, scale and contrast are known."""
import numpy as np
import pytest
import reference
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, write_mixed

from gmmhet.engine.batching.batches import Views
from gmmhet.engine.gmm.fitting import FitError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, soft_disc, transform
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.likelihood.forward import ImageModel
from gmmhet.engine.likelihood.noise import (
    ResolutionBand,
    estimate_noise,
    estimate_noise_and_scale,
    mask_diameter,
    ring_sums,
    sample,
)
from gmmhet.engine.log import log
from gmmhet.engine.particles.particle_set import read_particles

NEUTRAL = Mixture(CENTERS.astype(np.float32), AMPLITUDES.astype(np.float32), WIDTHS.astype(np.float32))
COUNTS, FACTORS, SIGMA = (100, 70, 60, 20), (1.0, 0.5, 2.0, 1.0), 3.0
SAMPLINGS = (40, 3.0), (64, 2.0), (32, 4.0), (40, 3.0)


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    path, _, _ = write_mixed(tmp_path_factory.mktemp("groups"), COUNTS, SAMPLINGS, noise=SIGMA,
                             factors=FACTORS)
    return read_particles(path)


@pytest.fixture(scope="module")
def found(particles):
    return estimate_noise_and_scale(particles, NEUTRAL, ResolutionBand(7.0), 0, 1)


def test_every_optics_group_has_its_own_density_scale(found):
    assert found.groups == (1, 2, 3, 4) and found.contrast == "white"
    np.testing.assert_allclose(found.scale[1:4], FACTORS[:3], rtol=0.05)


def test_noise_power_is_that_of_each_group_s_pixels_brought_to_the_common_area(found):
    for row, (_, pixel_size) in enumerate(SAMPLINGS[:3], 1):
        held = found.noise_power[row][2:found.grid.m + 1]
        held = held[held > 0]
        np.testing.assert_allclose(held.mean(), SIGMA**2 * (pixel_size / 3.0) ** 2, rtol=0.05)


def test_rings_beyond_a_group_s_own_nyquist_frequency_hold_nothing_and_the_others_all(found):
    frequency = np.arange(found.grid.m + 2) / 120.0
    inside = np.arange(found.grid.m + 2) * (np.arange(found.grid.m + 2) <= found.grid.m) > 0
    np.testing.assert_array_equal(found.noise_power[1] > 0, inside)
    np.testing.assert_array_equal(found.noise_power[3] > 0, inside & (frequency < 1 / 8.0))
    assert (found.noise_power[3] > 0).sum() == 14 < (found.noise_power[1] > 0).sum() == 17


def test_a_group_of_fewer_than_fifty_particles_shares_what_all_have(found):
    np.testing.assert_array_equal(found.noise_power[4], found.noise_power[0])
    assert found.scale[4] == found.scale[0] and 0.5 < found.scale[0] < 2


def test_particles_of_every_group_are_likelier_by_the_true_model_than_by_an_empty_one(found, particles):
    image_model, views = ImageModel(found), Views(particles)
    for rows in np.split(np.arange(240), 4):
        observed = image_model.observe(views.batch(rows))
        assert image_model.log_likelihood(NEUTRAL, observed).numpy().min() > 0


def test_particles_of_one_kind_have_one_row_of_noise(tmp_path):
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA)
    one = estimate_noise_and_scale(read_particles(path), NEUTRAL, ResolutionBand(9.0), 0, 1)
    assert one.groups == () and one.noise_power.shape == (1, one.grid.m + 2)
    assert one.figures().keys() == {"scale", "contrast"}
    assert one.scale[0] == pytest.approx(1, rel=0.05)


def test_black_particles_are_recognised_and_said_aloud(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA, factors=(-1.0,))
    black = estimate_noise_and_scale(read_particles(path), NEUTRAL, ResolutionBand(9.0), 0, 1)
    assert black.contrast == "black" and black.scale[0] == pytest.approx(-1, rel=0.05)
    assert "the particles' contrast is black: they agree with the inverted map (density scale" in caplog.text
    assert "They are used inverted" in caplog.text


def test_a_group_of_opposite_contrast_keeps_its_own_and_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    path, _, _ = write_mixed(tmp_path, (120, 60), ((40, 3.0), (40, 3.0)), noise=SIGMA, factors=(1.0, -1.0))
    both = estimate_noise_and_scale(read_particles(path), NEUTRAL, ResolutionBand(9.0), 0, 1)
    np.testing.assert_allclose(both.scale[1:], [1, -1], rtol=0.05)
    assert "the contrast of optics group 2 is opposite to the others'" in caplog.text


def test_particles_unrelated_to_the_model_are_refused_with_scale_and_error(tmp_path):
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA, factors=(0.0,))
    says = (r"do not agree with the neutral model, neither as they are nor inverted \(density scale .*, "
            r"error .*\): is it the model")
    with pytest.raises(FitError, match=says):
        estimate_noise_and_scale(read_particles(path), NEUTRAL, ResolutionBand(9.0), 0, 1)


def test_rings_coarser_than_the_lowest_resolution_count_for_nothing(particles):
    limited = estimate_noise_and_scale(particles, NEUTRAL, ResolutionBand(8.0, 30.0), 0, 1)
    assert limited.first_ring == 4 and not limited.noise_power[:, :4].any()
    assert (limited.noise_power[:, 4] > 0).all()


def test_a_lowest_resolution_finer_than_the_target_is_refused(particles):
    says = "--min-resolution 8.2 Å leaves no Fourier ring of optics group 3: the target resolution is 8 Å"
    with pytest.raises(FitError, match=says):
        estimate_noise_and_scale(particles, NEUTRAL, ResolutionBand(8.0, 8.2), 0, 1)


def test_the_mask_stays_inside_the_smallest_field_of_view(particles):
    assert mask_diameter(particles, NEUTRAL, 0.01) == pytest.approx(120 - 12 * 3.0)


def test_a_sample_holds_enough_of_every_group_and_no_more_than_is_needed():
    group = np.repeat([1, 2, 5], [20000, 300, 40])
    rows, numbers = sample(group, 1)
    assert [int(np.sum(numbers == g)) for g in (1, 2, 5)] == [341, 300, 40] and np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(group[rows], numbers)
    assert len(sample(np.ones(5000), 1)[0]) == 1024
    assert 1024 <= len(sample(np.arange(100000) % 500, 1)[0]) <= 8192


def test_conformations_of_the_particles_stand_for_the_neutral_model_where_they_are_given(particles):
    """By conformations that are another molecule of half the density the scale is twice as large."""
    half = SingleConformation(Mixture(NEUTRAL.centers, NEUTRAL.amplitudes / 2, NEUTRAL.widths))
    whole = estimate_noise_and_scale(particles, NEUTRAL, ResolutionBand(7.0), 0, 1)
    by_half = estimate_noise_and_scale(particles, NEUTRAL, ResolutionBand(7.0), 0, 1, half)
    np.testing.assert_allclose(by_half.scale, 2 * whole.scale, rtol=1e-4)
    np.testing.assert_allclose(by_half.noise_power, whole.noise_power, rtol=1e-4)


class WithOneStrongImage:
    """A set of particles whose image number 5 is ten thousand times as strong as it was."""

    def __init__(self, particles):
        self._particles = particles

    def __getattr__(self, name):
        return getattr(self._particles, name)

    def read(self, rows):
        return self._particles.read(rows) * np.where(np.asarray(rows) == 5, 1e4, 1)[:, None,
                                                                                    None].astype(np.float32)


def test_a_single_image_far_stronger_than_the_others_is_refused_by_its_id(particles):
    with pytest.raises(ParticleError,
                       match="the image of particle %d is more than 1000 times" % particles.ids[5]):
        estimate_noise_and_scale(WithOneStrongImage(particles), NEUTRAL, ResolutionBand(7.0), 0, 1)


# ---- from sums over rings

BOX, PIXEL = 24, 3.0
CTF = np.array([[15000, 14000, 20, 300, 2.7, 0.1, 0, 0, 1]], np.float32)


def simulated(n, diameter, power_of, scale, seed=0):
    """Masked images of a blob in coloured noise, as transforms; and the blob's CTF-multiplied transforms."""
    grid, rng = FourierGrid.to_resolution(BOX, PIXEL), np.random.default_rng(seed)
    index = np.fft.fftfreq(BOX, 1 / BOX)
    ring = np.hypot(index[:, None], index[None])
    blob = np.float32(reference.image_of([(5, -4), (-8, 3)], [900, 700], [5, 4], BOX, PIXEL))
    ctf = np.repeat(CTF, n, 0)
    model = np.asarray(transform(np.repeat(blob[None], n, 0), grid)) * ctf_values(ctf, grid.kx,
                                                                                  grid.ky).numpy()[:, None]
    white = rng.normal(size=(n, BOX, BOX))
    images = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power_of(ring))).real
    images = (images + scale * inverse_transform(model, grid).numpy()).astype(np.float32)
    disc = soft_disc(BOX, PIXEL, diameter)
    return np.asarray(transform(images * disc, grid)), model, grid, float(np.mean(disc**2))


def estimate(data, model, grid, share):
    """Noise and scale of transforms of masked images and of projections."""
    used = (np.arange(grid.m + 2) > 0) & (np.arange(grid.m + 2) <= grid.m)
    count = len(data) * np.bincount(grid.shell.ravel(), grid.weight.ravel(), grid.m + 2)
    return estimate_noise(ring_sums(data, model, grid).sum(0), count, share, used)


def test_ring_sums_are_the_plain_sums_over_each_ring_and_its_friedel_mates():
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    data, model = (np.random.default_rng(i).normal(size=(2, 2, *grid.shape)) for i in (0, 1))
    found, (ring, copies) = ring_sums(data, model, grid), reference.rings(grid.m)
    for i in range(2):
        d, m = (values[i, 0] + 1j * values[i, 1] for values in (data, model))
        for r in range(1, grid.m + 1):
            at = copies * (ring == r)
            expected = [np.sum(at * product) for product
                        in (np.abs(d) ** 2, (d * m.conj()).real, np.abs(m) ** 2)]
            np.testing.assert_allclose(found[i, :, r], expected, rtol=1e-5, atol=1e-5)
    assert not found[:, :, 0].any() and not found[:, :, -1].any()


def test_noise_and_scale_are_recovered_from_images_and_their_projections():
    power, scale, error = estimate(*simulated(400, 1e4, lambda r: 4.0 - 0.2 * r, 1.7))
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    assert scale == pytest.approx(1.7, rel=0.02) and abs(scale - 1.7) < 4 * error
    np.testing.assert_allclose(power[2:grid.m + 1], 4.0 - 0.2 * np.arange(2, grid.m + 1), rtol=0.06)
    assert power[0] == power[-1] == 0 and len(power) == grid.m + 2


def test_the_error_of_the_scale_is_its_spread_over_repeated_noise():
    found = [estimate(*simulated(4, 1e4, lambda r: 40.0 + 0 * r, 1.0, seed)) for seed in range(40)]
    assert np.std([scale for _, scale, _ in found]) == pytest.approx(found[0][2], rel=0.3)


def test_a_mask_does_not_bias_the_noise_of_the_unmasked_image():
    power = estimate(*simulated(400, 54.0, lambda r: 4.0 + 0 * r, 0.0))[0]
    np.testing.assert_allclose(power[2:-1], 4.0, rtol=0.05)


def test_inverted_contrast_shows_as_a_negative_scale():
    data, model, grid, share = simulated(100, 1e4, lambda r: 1.0 + 0 * r, 1.0)
    assert estimate(-data, model, grid, share)[1] == pytest.approx(-1, rel=0.05)


def test_rings_that_hold_no_data_are_left_out_of_noise_and_scale():
    data, model, grid, share = simulated(100, 1e4, lambda r: 1.0 + 0 * r, 1.0)
    used = (np.arange(grid.m + 2) >= 3) & (np.arange(grid.m + 2) <= 8)
    outside = ~used[grid.shell]
    sums = ring_sums(np.where(outside, 0, data), model, grid).sum(0)
    count = 100 * np.bincount(grid.shell.ravel(), grid.weight.ravel(), grid.m + 2)
    power, scale, _ = estimate_noise(sums, count, share, used)
    np.testing.assert_array_equal(power > 0, used)
    assert scale == pytest.approx(1, rel=0.05)


def test_images_without_noise_and_signal_are_refused():
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    empty = np.zeros((3, 2, *grid.shape), np.float32)
    with pytest.raises(ValueError,
                       match="no signal and no noise in some Fourier ring: are the images constant"):
        estimate(empty, empty + 1, grid, 1.0)
