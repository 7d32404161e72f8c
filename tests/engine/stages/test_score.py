"""The score stage: against the truth by id, beside the oracle."""
import json
import shutil

import numpy as np
import pytest
from commands import QUICK, gmmhet, simulated, training

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError, ScoreConfig
from gmmhet.engine.latents import Latents
from gmmhet.engine.stages.score import prepare


def test_a_set_too_small_to_score_gets_a_sentence_for_each_figure(tmp_path, capsys):
    folder = simulated(tmp_path, "hinge", 20, 1.0)
    assert "the oracle's scores: r2 unknown, rank correlation unknown" in capsys.readouterr().err
    assert gmmhet("train", "--out", folder / "train", *training(folder, **QUICK)) == 0
    assert gmmhet("score", "--out", folder / "score", "--model", folder / "train", "--truth",
                  folder / "set") == 0
    said, found = capsys.readouterr().err, json.load(open(folder / "score" / rundir.SUMMARY))
    for name in ("r2", "rank correlation", "decoded angle r2"):
        assert name + " is not scored: fewer than 50 of the 20 particles have a true value, or all" in said
    for key in ("scores", "oracle", "fraction_of_oracle"):
        assert set(found[key].values()) == {None}


def test_scores_join_latents_and_truth_by_id_and_not_by_order(hinge, hinge_run, tmp_path):
    """Shuffling the rows of latents.npz changes no score by more than the split into halves does."""
    shutil.copytree(hinge_run, tmp_path / "train")
    latents = Latents.load(str(hinge_run))
    latents.select(np.random.default_rng(0).permutation(len(latents))).save(str(tmp_path / "train"))
    found = []
    for name, model in (("a", hinge_run), ("b", tmp_path / "train")):
        assert gmmhet("score", "--out", tmp_path / name, "--model", model, "--truth", hinge / "set") == 0
        found.append(json.load(open(tmp_path / name / rundir.SUMMARY)))
    first, second = (one["scores"]["rank_correlation"] for one in found)
    assert first == pytest.approx(second, abs=1e-4)
    scores, oracle = found[0]["scores"], found[0]["oracle"]
    assert found[0]["fraction_of_oracle"]["r2"] == pytest.approx(scores["r2"] / oracle["r2"])


@pytest.mark.parametrize("kind, copies", [("c3", 3), ("d2", 4)])
def test_a_symmetric_set_trained_with_its_symmetry_tells_which_unit_moved(tmp_path_factory, kind, copies):
    folder = simulated(tmp_path_factory.mktemp(kind), kind, 400, 4.0, angle=35)
    flags = training(folder, symmetry=kind, vary="position", epochs=12, latent_dim=2, pose_errors="none")
    assert gmmhet("train", "--out", folder / "train", *flags) == 0
    assert gmmhet("score", "--out", folder / "score", "--model", folder / "train", "--truth",
                  folder / "set") == 0
    found = json.load(open(folder / "score" / rundir.SUMMARY))
    assert Latents.load(str(folder / "train")).copy.tolist() == list(range(copies)) * 400
    assert found["fraction_of_oracle"]["r2"] > 0.4
    assert gmmhet("refine", "--out", folder / "refine", "--model", folder / "train") == 0


def test_runs_of_other_particles_or_copies_are_refused(small, small_run, hinge, hinge_run, tmp_path):
    with pytest.raises(ConfigError,
                       match="880 particles of --model .* are not in --truth .*, the first is id 121: give "
                             "the 'simulate'"):
        prepare(ScoreConfig(model=str(hinge_run), truth=str(small / "set")))
    shutil.copytree(small_run, tmp_path / "train")
    once = Latents.load(str(small_run))
    both = once.select(np.repeat(np.arange(len(once)), 2))
    Latents(both.ids, np.tile([0, 1], len(once)), both.z).save(str(tmp_path / "train"))
    with pytest.raises(ConfigError,
                       match="is of kind hinge, so the model must be trained with --symmetry c1; .* has 2 "
                             "latent points"):
        prepare(ScoreConfig(model=str(tmp_path / "train"), truth=str(small / "set")))
    with pytest.raises(ConfigError, match="--truth: .* is not a finished 'simulate' run"):
        prepare(ScoreConfig(model=str(hinge_run), truth=str(hinge / "fit")))
