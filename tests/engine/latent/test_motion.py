import dataclasses

import numpy as np
import pytest
from analytic import AMPLITUDE_STEP, SlidingDomains

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.latent.motion import (
    decode_mixtures,
    displacement_field,
    evenly_spaced_rows,
    motion_rms,
    relative_amplitude_change,
    rms_displacement,
    write_bild,
)

MODEL = SlidingDomains()


def test_motion_and_amplitude_change_equal_the_known_steps():
    start, moved, brighter = decode_mixtures(MODEL, [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    assert rms_displacement(start, moved) == pytest.approx(3 / np.sqrt(2), rel=1e-5)
    assert relative_amplitude_change(start, brighter) == pytest.approx(AMPLITUDE_STEP / np.sqrt(2), rel=1e-5)
    assert rms_displacement(start, brighter) == 0 and relative_amplitude_change(start, moved) == 0


def test_decoded_models_keep_the_chains_of_the_neutral_one(monkeypatch):
    labels = Labels(np.repeat(["A", "B"], 20), np.arange(40), np.arange(40), np.ones(40))
    monkeypatch.setattr(MODEL, "neutral", dataclasses.replace(MODEL.neutral, labels=labels))
    assert all(mixture.labels is labels for mixture in decode_mixtures(MODEL, [[0, 0, 0], [1, 0, 0]]))


def test_bild_has_one_arrow_per_gaussian_that_moves_enough(tmp_path):
    start = np.zeros((4, 3))
    end = np.array([[10.0, 0, 0], [0, 2.0, 0], [0, 0, 0.5], [0, 0, 0]])
    assert write_bild(tmp_path / "m.bild", start, end, "pc1") == 2
    lines = (tmp_path / "m.bild").read_text().splitlines()
    assert lines[:2] == [".comment pc1", ".comment 2 of 4 Gaussians; longest displacement 10.00 angstrom"]
    assert lines[2] == ".color 0.850 0.150 0.100"
    assert lines[3].startswith(".arrow 0.000 0.000 0.000 10.000 0.000 0.000 ")


def test_bild_of_a_model_that_does_not_move_holds_no_arrow(tmp_path):
    assert write_bild(tmp_path / "m.bild", np.ones((3, 3)), np.ones((3, 3))) == 0


def test_a_sample_is_spread_evenly_and_never_larger_than_the_whole():
    assert evenly_spaced_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced_rows(101, 3).tolist() == [0, 50, 100]


class Sliding:
    """Ten Gaussians; the first five may vary: they move 3 Å along y, and their amplitudes change by a tenth,
    per unit of z."""

    free = np.arange(10) < 5

    def decode(self, z):
        centers = np.zeros((len(z), 10, 3)) + 100
        centers[:, :5, 1] += 3 * z
        return centers, np.where(self.free, 1 + 0.1 * z, 1.0), np.ones((len(z), 10))


def test_motion_is_that_of_the_gaussians_that_may_vary_from_their_mean_over_the_particles():
    found = motion_rms(Sliding(), np.float32([[0.0], [2.0]]))
    assert found == pytest.approx((3, 0.1 / np.sqrt(1.1**2 + 0.1**2)), rel=1e-4)


def test_a_shift_that_all_particles_share_is_no_motion_and_large_sets_are_sampled():
    assert motion_rms(Sliding(), np.ones((5, 1))) == pytest.approx((0, 0), abs=1e-5)
    z = np.random.default_rng(0).normal(size=(30000, 1))
    assert motion_rms(Sliding(), z)[0] == pytest.approx(3, rel=0.05)


def test_a_displacement_field_holds_what_is_decoded_of_the_gaussians_that_may_vary():
    z = np.linspace(-1, 1, 7)[:, None]
    moving, fading = (displacement_field(Sliding(), z, moves, batch_size=3) for moves in (True, False))
    assert moving.shape == (7, 15) and fading.shape == (7, 5) and moving.dtype == np.float32
    np.testing.assert_allclose(moving.reshape(7, 5, 3)[:, :, 1] - 100, np.tile(3 * z, 5), atol=1e-4)
    np.testing.assert_allclose(fading, np.tile(1 + 0.1 * z, 5), rtol=1e-6)
