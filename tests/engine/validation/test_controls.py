"""The controls: the null run, the half sets, and that they survive an interruption."""
import shutil

import numpy as np
import pytest
from commands import QUICK, gmmhet, latents, summary, training

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.batching.devices import find_devices
from gmmhet.engine.config import TrainConfig, from_dict
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.stages import train as stage
from gmmhet.engine.training.trainer import Trainer
from gmmhet.engine.validation.controls import other_latents
from gmmhet.engine.validation.verdict import LEAST_AGREEMENT


@pytest.fixture(scope="module")
def flags(small):
    """Of a run with both controls."""
    return [*training(small, **dict(QUICK, epochs=1), vary="position"), "--null", "--half-sets"]


@pytest.fixture(scope="module")
def controlled(flags, tmp_path_factory):
    """A run with both controls, made by one call: its folder."""
    out = tmp_path_factory.mktemp("controlled") / "out"
    assert gmmhet("train", "--out", out, *flags) == 0
    return out


def test_one_call_trains_the_controls_and_reports_them(controlled):
    found, log = summary(controlled), (controlled / rundir.LOG).read_text()
    spurious = summary(controlled / rundir.NULL)["motion_rms_angst"]
    assert found["null"]["motion_rms_angst"] == spurious
    assert found["null"]["share_of_motion"] == pytest.approx(spurious / found["motion_rms_angst"])
    assert "homogeneous images treated alike" in found["verdict"]
    halves, supported = found["half_sets"], found["verdict"].startswith("Heterogeneity supported")
    agree = halves["displacement_correlation"] > max(halves["shuffled"][1], LEAST_AGREEMENT)
    # a refusal names what speaks against heterogeneity alone
    assert ("networks trained on the two half sets" in found["verdict"]) == (supported or not agree)
    assert "half sets: correlation of the particles' displacements" in log
    assert halves["particles"] == [60, 60] and halves["compared"] == 120
    assert len(halves["canonical_correlations"]) == 2
    low, high = halves["held_out_evidence_interval"]
    assert halves["n_cross_validated"] == 120 and 0 <= halves["landscape_weight"] <= 1
    assert low <= halves["held_out_evidence"] <= high
    assert -1 <= halves["displacement_correlation"] <= 1 and abs(halves["shuffled"][0]) < 0.3
    first, second = (set(latents(controlled / name).ids.tolist()) for name in rundir.HALF_SETS)
    assert len(first) == len(second) == 60 and not first & second
    for name in ("", rundir.NULL, *rundir.HALF_SETS):
        assert (controlled / name / rundir.EVIDENCE).exists()
    assert found["verdict"] in log and "null control: spurious motion" in log
    assert not [path for path in (controlled / rundir.NULL).rglob("*.mrcs")]


def test_a_half_set_s_network_finds_of_its_own_particles_what_it_found_in_training(small, controlled):
    folder = controlled / rundir.HALF_SETS[0]
    model, kept = load_model(str(folder)).as_trained(), latents(folder)
    particles = read_particles(str(small / "set" / rundir.STAR))
    views = Views(particles.select(particles.rows_of(kept.ids)))
    config = from_dict(TrainConfig, rundir.read_json(folder / rundir.CONFIG))
    found = other_latents(model, str(folder), summary(folder), views, config, find_devices())
    for name in ("evidence", "neutral_evidence", "static_evidence"):
        expected = getattr(kept, name)
        np.testing.assert_allclose(getattr(found, name), expected, atol=0.02 * expected.std())


def test_a_control_that_is_stopped_goes_on_from_its_checkpoint_and_leaves_its_finished_run_as_it_is(
        small, small_run, tmp_path, monkeypatch):
    out, flags, epoch = shutil.copytree(small_run, tmp_path / "out"), training(small, **QUICK), Trainer.epoch
    before, weights = summary(out), (out / rundir.MODEL / "weights.npz").read_bytes()

    def stopped(self):
        if self.run.path.endswith(rundir.NULL) and len(self.history) == 1:
            raise RuntimeError("power failure")
        return epoch(self)
    monkeypatch.setattr(Trainer, "epoch", stopped)
    assert gmmhet("train", "--out", out, *flags, "--resume", "--null") == 1
    assert not (out / rundir.SUMMARY).exists()
    monkeypatch.undo()
    assert gmmhet("train", "--out", out, *flags, "--resume", "--null") == 0
    assert (out / rundir.LOG).read_text().count("resumed after epoch 1") == 1
    assert summary(out / rundir.NULL)["epochs"] == 2
    after = summary(out)
    assert after["held_out_gain"] == before["held_out_gain"]
    assert after["motion_rms_angst"] == pytest.approx(before["motion_rms_angst"], rel=1e-4)
    assert (out / rundir.MODEL / "weights.npz").read_bytes() == weights
    assert "null" in after and "null" not in before


def test_a_run_interrupted_between_its_parts_goes_on_with_the_part_that_was_missing(
        flags, controlled, tmp_path, monkeypatch):
    trained, train_set = [], stage.train_set

    def resumed(out, stop=""):
        """Exit status of a run that goes on until the power fails at a part; `trained`: what it came to."""
        def counted(plan, run, devices):
            trained.append(run.path.split("/")[-1])
            if trained[-1] == stop:
                raise RuntimeError("power failure")
            return train_set(plan, run, devices)
        trained.clear()
        monkeypatch.setattr(stage, "train_set", counted)
        return gmmhet("train", "--out", out, *flags, "--resume")

    def without(name, *parts):
        """A copy of the run with both controls, as it was before it came to some parts."""
        missing = {rundir.SUMMARY, *parts}
        return shutil.copytree(controlled, tmp_path / name / "out",
                               ignore=lambda folder, names: missing if folder == str(controlled) else ())
    out = without("alone", rundir.NULL, *rundir.HALF_SETS)
    assert resumed(out, stop=rundir.NULL) == 1 and trained == ["out", "null"]
    assert not (out / rundir.SUMMARY).exists() and not (out / rundir.HALF_SETS[0]).exists()
    out = without("half", rundir.HALF_SETS[1])
    for stop, status in ((rundir.HALF_SETS[1], 1), ("", 0)):
        assert resumed(out, stop) == status and trained == ["out", "half2"]
        assert (out / rundir.SUMMARY).exists() == (status == 0)
    first, second = summary(controlled), summary(out)
    for part, name in (("null", "motion_rms_angst"), ("half_sets", "displacement_correlation")):
        assert first[part][name] == pytest.approx(second[part][name], rel=2e-2, abs=2e-3)
