"""Noise, scale and contrast, estimated from images whose noise, scale and contrast are known."""
import numpy as np
import pytest
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, write_mixed

from gmmhet.engine.gmm.fitting import FitError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.likelihood.noise import calibrate, mask_diameter, sample
from gmmhet.engine.log import log

NEUTRAL = Mixture(CENTERS.astype(np.float32), AMPLITUDES.astype(np.float32), WIDTHS.astype(np.float32))
COUNTS, SAMPLINGS, FACTORS, SIGMA = (100, 70, 60, 20), ((40, 3.0), (64, 2.0), (32, 4.0), (40, 3.0)), (1.0, 0.5, 2.0, 1.0), 3.0


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    path, _, _ = write_mixed(tmp_path_factory.mktemp("groups"), COUNTS, SAMPLINGS, noise=SIGMA, factors=FACTORS)
    return read_particles(path)


@pytest.fixture(scope="module")
def found(particles):
    return calibrate(particles, NEUTRAL, 7.0, 0, 1)


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


def test_the_agreement_of_every_group_s_particles_with_the_true_model_is_finite_and_above_an_empty_one(found, particles):
    import tensorflow as tf

    from gmmhet.engine.imaging.projection import place, project
    for rows in np.split(np.arange(240), 4):
        data, transfer = found.observe(particles.read(rows), particles.ctf[rows])
        model = project(place(tf.constant(NEUTRAL.centers), particles.rotation[rows], particles.shift_angst[rows]),
                        tf.constant(NEUTRAL.amplitudes), tf.constant(NEUTRAL.widths), found.grid)
        assert found.value(data, transfer * model).numpy().min() > 0


def test_particles_of_one_kind_have_one_row_of_noise(tmp_path):
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA)
    one = calibrate(read_particles(path), NEUTRAL, 9.0, 0, 1)
    assert one.groups == () and one.noise_power.shape == (1, one.grid.m + 2) and one.figures().keys() == {"scale", "contrast"}
    assert one.scale[0] == pytest.approx(1, rel=0.05)


def test_black_particles_are_recognised_and_said_aloud(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA, factors=(-1.0,))
    black = calibrate(read_particles(path), NEUTRAL, 9.0, 0, 1)
    assert black.contrast == "black" and black.scale[0] == pytest.approx(-1, rel=0.05)
    assert "the particles' contrast is black: they agree with the inverted map (density scale -" in caplog.text
    assert "They are used inverted" in caplog.text


def test_a_group_of_opposite_contrast_keeps_its_own_and_is_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    path, _, _ = write_mixed(tmp_path, (120, 60), ((40, 3.0), (40, 3.0)), noise=SIGMA, factors=(1.0, -1.0))
    both = calibrate(read_particles(path), NEUTRAL, 9.0, 0, 1)
    np.testing.assert_allclose(both.scale[1:], [1, -1], rtol=0.05)
    assert "the contrast of optics group 2 is opposite to the others'" in caplog.text


def test_particles_unrelated_to_the_model_are_refused_with_scale_and_error(tmp_path):
    path, _, _ = write_mixed(tmp_path, (60,), ((40, 3.0),), noise=SIGMA, factors=(0.0,))
    with pytest.raises(FitError, match=r"do not agree with the neutral model, neither as they are nor inverted \(density scale .*, error "
                                       r".*\): is it the model"):
        calibrate(read_particles(path), NEUTRAL, 9.0, 0, 1)


def test_rings_coarser_than_the_lowest_resolution_count_for_nothing(particles):
    limited = calibrate(particles, NEUTRAL, 8.0, 0, 1, coarsest_angst=30.0)
    assert limited.first_ring == 4 and not limited.noise_power[:, :4].any() and (limited.noise_power[:, 4] > 0).all()


def test_a_lowest_resolution_finer_than_the_target_is_refused(particles):
    with pytest.raises(FitError, match="--min-resolution 8.2 Å leaves no Fourier ring of optics group 3: the target resolution is 8 Å"):
        calibrate(particles, NEUTRAL, 8.0, 0, 1, coarsest_angst=8.2)


def test_the_mask_stays_inside_the_smallest_field_of_view(particles):
    assert mask_diameter(particles, NEUTRAL, 0.01) == pytest.approx(120 - 12 * 3.0)


def test_a_sample_holds_enough_of_every_group_and_no_more_than_is_needed():
    group = np.repeat([1, 2, 5], [20000, 300, 40])
    rows, numbers = sample(group, 1)
    assert [int(np.sum(numbers == g)) for g in (1, 2, 5)] == [341, 300, 40] and np.all(np.diff(rows) > 0)
    np.testing.assert_array_equal(group[rows], numbers)
    assert len(sample(np.ones(5000), 1)[0]) == 1024
    assert 1024 <= len(sample(np.arange(100000) % 500, 1)[0]) <= 8192
