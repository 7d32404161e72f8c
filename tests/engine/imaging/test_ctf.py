import numpy as np
import pytest
import reference

from gmmhet.engine.imaging.ctf import CTF_COLUMNS, ctf_values, wavelength_angst
from gmmhet.engine.imaging.fourier import FourierGrid

PLAIN = dict(defocus_u_angst=15000, defocus_v_angst=15000, defocus_angle_deg=0, voltage_kv=300, cs_mm=2.7,
             amplitude_contrast=0.1,
             phase_shift_deg=0, bfactor_angst2=0, scale=1, phase_flipped=0)
GRID = FourierGrid.to_resolution(64, 1.5)


def parameters(**changes):
    assert not set(changes) - set(CTF_COLUMNS)
    return np.array([[{**PLAIN, **changes}[name] for name in CTF_COLUMNS]])


def values(**changes):
    return ctf_values(parameters(**changes), GRID.kx, GRID.ky).numpy()[0]


@pytest.mark.parametrize("changes", [
    {}, dict(defocus_u_angst=22000, defocus_v_angst=14000, defocus_angle_deg=33),
    dict(defocus_angle_deg=-70, defocus_u_angst=9000),
    dict(voltage_kv=200, cs_mm=1.4), dict(voltage_kv=120, cs_mm=0.01), dict(amplitude_contrast=0),
    dict(amplitude_contrast=1),
    dict(phase_shift_deg=90), dict(phase_shift_deg=47, amplitude_contrast=0.07), dict(bfactor_angst2=80),
    dict(scale=0.6),
    dict(defocus_u_angst=22000, defocus_v_angst=14000, defocus_angle_deg=33, phase_shift_deg=60,
         bfactor_angst2=80, scale=0.6),
    dict(defocus_u_angst=22000, defocus_v_angst=14000, defocus_angle_deg=33, phase_shift_deg=60,
         phase_flipped=1),
    dict(defocus_u_angst=-5000, defocus_v_angst=-5000)], ids=str)
def test_values_equal_the_slow_formula(changes):
    kx, ky = reference.half_plane(64, 1.5, GRID.m)
    np.testing.assert_allclose(values(**changes), reference.ctf(parameters(**changes)[0], kx, ky), atol=2e-4)


def test_the_error_of_single_precision_at_high_defocus_and_1_angstrom_stays_below_a_thousandth():
    fine = FourierGrid(48, 0.5, 23)
    kx, ky = reference.half_plane(48, 0.5, 23)
    ctf = parameters(defocus_u_angst=40000, defocus_v_angst=38000)
    assert np.abs(ctf_values(ctf, fine.kx, fine.ky).numpy()[0] - reference.ctf(ctf[0], kx, ky)).max() < 1e-3


def test_the_error_of_single_precision_at_3_um_and_1_angstrom_per_pixel_is_what_the_docstring_says():
    grid = FourierGrid.to_resolution(128, 1.0)
    kx, ky = reference.half_plane(128, 1.0, grid.m)
    changes = dict(defocus_u_angst=30150, defocus_v_angst=29850, defocus_angle_deg=25)
    ours = ctf_values(parameters(**changes), grid.kx, grid.ky).numpy()[0]
    error = (ours - reference.ctf(parameters(**changes)[0], kx, ky))[grid.weight > 0]
    assert np.abs(error).max() < 1.2e-4 and np.sqrt(np.mean(error**2)) < 3e-5


def test_without_the_last_column_no_image_is_phase_flipped():
    plain = parameters()
    np.testing.assert_array_equal(ctf_values(plain[:, :9], GRID.kx, GRID.ky)[0], values())


def test_phase_flipped_images_have_the_ctf_without_its_sign_particle_by_particle():
    both = np.concatenate([parameters(), parameters(phase_flipped=1)])
    plain, flipped = ctf_values(both, GRID.kx, GRID.ky).numpy()
    assert plain.min() < -0.9
    np.testing.assert_array_equal(flipped, np.abs(plain))


def test_particles_of_a_batch_do_not_touch_each_other():
    both = np.concatenate([parameters(), parameters(defocus_u_angst=8000, voltage_kv=200, scale=0.5)])
    together = ctf_values(both, GRID.kx, GRID.ky).numpy()
    for i in range(2):
        np.testing.assert_allclose(together[i], ctf_values(both[i:i + 1], GRID.kx, GRID.ky).numpy()[0],
                                   atol=1e-5)


def test_the_value_at_the_origin_is_the_amplitude_contrast_and_a_phase_plate_of_90_degrees_lifts_it():
    origin = GRID.m, 0
    assert values(amplitude_contrast=0.1)[origin] == pytest.approx(0.1, abs=1e-6)
    assert values(amplitude_contrast=0.1,
                  phase_shift_deg=90)[origin] == pytest.approx(np.sqrt(1 - 0.01), abs=1e-6)


def test_underfocus_makes_low_frequencies_positive():
    low = (GRID.shell > 0) & (GRID.shell <= 4)
    assert np.all(values()[low] > 0)


def test_defocus_u_acts_along_the_astigmatism_angle():
    kx = ky = np.array([1 / 20.0])
    for angle, (x, y) in ((0, (kx, 0 * ky)), (90, (0 * kx, ky)), (45, (kx / np.sqrt(2), ky / np.sqrt(2)))):
        ctf = parameters(defocus_u_angst=20000, defocus_v_angst=10000, defocus_angle_deg=angle)
        astigmatic = ctf_values(ctf, x, y).numpy()
        round_u = ctf_values(parameters(defocus_u_angst=20000, defocus_v_angst=20000), x, y).numpy()
        np.testing.assert_allclose(astigmatic, round_u, atol=1e-5)


def test_turning_the_astigmatism_by_180_degrees_or_swapping_u_and_v_with_90_degrees_changes_nothing():
    base = dict(defocus_u_angst=20000, defocus_v_angst=12000)
    first = values(defocus_angle_deg=30, **base)
    np.testing.assert_allclose(values(defocus_angle_deg=210, **base), first, atol=1e-4)
    np.testing.assert_allclose(values(defocus_angle_deg=120, defocus_u_angst=12000, defocus_v_angst=20000),
                               first, atol=1e-4)


def test_a_b_factor_is_an_envelope_of_exp_minus_b_k2_over_4():
    envelope = np.exp(-100 * (GRID.kx**2 + GRID.ky**2) / 4)
    np.testing.assert_allclose(values(bfactor_angst2=100), values() * envelope, atol=1e-6)


@pytest.mark.parametrize("kilovolt", [300, 200, 120])
def test_the_wavelength_is_the_relativistic_one(kilovolt):
    planck, mass, charge, light = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    energy = charge * 1e3 * kilovolt
    angst = 1e10 * planck / np.sqrt(2 * mass * energy * (1 + energy / (2 * mass * light**2)))
    assert wavelength_angst(float(kilovolt)) == pytest.approx(angst, rel=1e-5)
