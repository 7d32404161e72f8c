import dataclasses

import numpy as np
import pytest
from analytic import AMPLITUDE_STEP, SlidingDomains

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.latent.motion import decoded, relative_amplitude_change, rms_motion, write_bild

MODEL = SlidingDomains()


def test_motion_and_amplitude_change_equal_the_known_steps():
    start, moved, brighter = decoded(MODEL, [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    assert rms_motion(start, moved) == pytest.approx(3 / np.sqrt(2), rel=1e-5)
    assert relative_amplitude_change(start, brighter) == pytest.approx(AMPLITUDE_STEP / np.sqrt(2), rel=1e-5)
    assert rms_motion(start, brighter) == 0 and relative_amplitude_change(start, moved) == 0


def test_decoded_models_keep_the_chains_of_the_neutral_one(monkeypatch):
    labels = Labels(np.repeat(["A", "B"], 20), np.arange(40), np.arange(40), np.ones(40))
    monkeypatch.setattr(MODEL, "neutral", dataclasses.replace(MODEL.neutral, labels=labels))
    assert all(mixture.labels is labels for mixture in decoded(MODEL, [[0, 0, 0], [1, 0, 0]]))


def test_bild_has_one_arrow_per_gaussian_that_moves_enough(tmp_path):
    start = np.zeros((4, 3))
    end = np.array([[10.0, 0, 0], [0, 2.0, 0], [0, 0, 0.5], [0, 0, 0]])
    assert write_bild(tmp_path / "m.bild", start, end, "pc1") == 2
    lines = (tmp_path / "m.bild").read_text().splitlines()
    assert lines[:2] == [".comment pc1", ".comment 2 of 4 Gaussians; longest displacement 10.00 angstrom"]
    assert lines[2] == ".color 0.850 0.150 0.100" and lines[3].startswith(".arrow 0.000 0.000 0.000 10.000 0.000 0.000 ")


def test_bild_of_a_model_that_does_not_move_holds_no_arrow(tmp_path):
    assert write_bild(tmp_path / "m.bild", np.ones((3, 3)), np.ones((3, 3))) == 0
