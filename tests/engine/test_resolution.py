import numpy as np
import pytest

from gmmhet.engine.resolution import crossing, read_fsc_csv, resolution_at, write_fsc_csv


def test_a_curve_crosses_a_threshold_linearly_between_the_points_around_it():
    assert crossing(np.array([0.1, 0.2, 0.4]), np.array([1, 0.9, 0.1]),
                    0.3) == pytest.approx(0.2 + 0.2 * 0.75)


def test_only_the_first_crossing_counts():
    assert crossing(np.arange(5), np.array([1, 0.4, 0.6, 0.9, 0]), 0.5) == pytest.approx(5 / 6)


def test_a_curve_that_never_falls_below_or_begins_below_has_no_crossing():
    assert crossing(np.arange(3), np.ones(3),
                    0.5) is None and crossing(np.arange(3), np.zeros(3), 0.5) is None


def test_resolution_is_read_between_the_shells_around_the_threshold():
    fsc = np.array([1, 1, 0.9, 0.4, 0.0])
    assert resolution_at(fsc, 0.65, 8, 3.0) == pytest.approx(8 * 3.0 / 2.5)
    assert resolution_at(fsc, 0.4, 8, 3.0) == pytest.approx(8 * 3.0 / 3)


def test_resolution_is_nyquist_when_the_curve_never_falls_and_infinite_when_it_never_rises():
    assert resolution_at(np.ones(5), 0.143, 8, 3.0) == 6.0
    assert resolution_at(np.zeros(5), 0.143, 8, 3.0) == float("inf")


def test_the_csv_has_a_row_per_shell_with_its_resolution(tmp_path):
    path = str(tmp_path / "fsc.csv")
    write_fsc_csv(path, 8, 3.0, fsc_unmasked=np.linspace(1, 0, 5), fsc_masked=np.ones(5))
    assert open(path).readline() == "resolution_angst,fsc_unmasked,fsc_masked\n"
    table = np.genfromtxt(path, delimiter=",", names=True)
    np.testing.assert_allclose(table["resolution_angst"], [24, 12, 8, 6])
    np.testing.assert_allclose(table["fsc_unmasked"], [0.75, 0.5, 0.25, 0])


def test_the_curves_of_a_csv_come_back_over_spatial_frequency(tmp_path):
    path = str(tmp_path / "fsc.csv")
    write_fsc_csv(path, 8, 3.0, fsc=np.array([1, 0.9, 0.5, 0.25, 0]))
    frequency, curves = read_fsc_csv(path)
    np.testing.assert_allclose(frequency, np.arange(1, 5) / 24)
    assert list(curves) == ["fsc"]
    np.testing.assert_allclose(curves["fsc"], [0.9, 0.5, 0.25, 0])
