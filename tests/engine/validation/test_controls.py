"""The controls: homogeneous images made as they are read, the null run, the half sets, and that they survive an interruption."""
import json
import re

import numpy as np
import pytest
from commands import QUICK, gmmhet, training
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, exact_image, write_mixed

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.batching.devices import find_devices
from gmmhet.engine.config import ConfigError, TrainConfig, from_dict
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.io.half_sets import half_sets
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.likelihood.noise import calibrate
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.stages import train as stage
from gmmhet.engine.validation.controls import latent_points
from gmmhet.engine.validation.verdict import LEAST_AGREEMENT

MIXTURE = Mixture(CENTERS.astype(np.float32), AMPLITUDES.astype(np.float32), WIDTHS.astype(np.float32))


def summary(folder):
    return json.load(open(folder / rundir.SUMMARY))


# ---- homogeneous images

@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    path, _, _ = write_mixed(tmp_path_factory.mktemp("groups"), (150, 150), ((40, 3.0), (40, 3.0)), noise=3.0, factors=(1.0, -2.0))
    return read_particles(path)


@pytest.fixture(scope="module")
def likelihood(particles):
    return calibrate(particles, MIXTURE, 7.0, 0, 1)


def test_homogeneous_images_have_the_noise_and_the_density_scale_of_each_optics_group(particles, likelihood):
    alike = calibrate(HomogeneousParticles(particles, MIXTURE, likelihood, 1), MIXTURE, 7.0, 0, 1)
    np.testing.assert_allclose(alike.scale[1:], likelihood.scale[1:], rtol=0.05)
    rings = slice(2, likelihood.grid.m + 1)
    for ours, theirs in zip(alike.noise_power[1:], likelihood.noise_power[1:]):
        np.testing.assert_allclose(ours[rings], theirs[rings], rtol=0.25)
        assert ours[rings].mean() == pytest.approx(theirs[rings].mean(), rel=0.04)


def test_coloured_noise_keeps_its_colour(particles, likelihood):
    colour = 1 + 20 * np.exp(-np.arange(likelihood.grid.m + 2) / 4.0)
    state = dict(likelihood.state(), noise_power=np.tile(colour, (3, 1)).tolist())
    alike = calibrate(HomogeneousParticles(particles, MIXTURE, type(likelihood).from_state(state), 1), MIXTURE, 7.0, 0, 1)
    for found in alike.noise_power[1:]:
        np.testing.assert_allclose(found[3:-1], colour[3:-1], rtol=0.2)


def test_without_noise_a_homogeneous_image_is_the_projection_at_the_particle_s_pose(particles, likelihood):
    quiet = type(likelihood).from_state(
        dict(likelihood.state(), noise_power=np.full_like(likelihood.noise_power, 1e-12).tolist(), scale=[1, 1, -2]))
    rows, factors = [3, 200], (1, -2)
    for image, row, factor in zip(HomogeneousParticles(particles, MIXTURE, quiet, 1).read(rows), rows, factors):
        expected = factor * exact_image(particles.rotation[row], particles.shift_angst[row], 40, 3.0)
        np.testing.assert_allclose(image, expected, atol=0.02 * np.abs(expected).max())


def test_a_homogeneous_image_depends_on_seed_and_id_alone(particles, likelihood):
    alike, other = (HomogeneousParticles(particles, MIXTURE, likelihood, seed) for seed in (1, 2))
    together = alike.read(np.array([5, 250, 7]))
    np.testing.assert_allclose(alike.read(np.array([250]))[0], together[1], atol=1e-5 * np.abs(together).max())
    part = HomogeneousParticles(particles.select([250, 9]), MIXTURE, likelihood, 1)
    np.testing.assert_allclose(part.read(np.array([0]))[0], together[1], atol=1e-5 * np.abs(together).max())
    assert np.abs(other.read(np.array([5]))[0] - together[0]).max() > 1 and np.abs(together[0] - together[2]).max() > 1
    assert len(alike) == 300 and alike.box == 40 and alike.ids is particles.ids


# ---- half sets

def test_half_sets_are_those_of_the_star_file_or_random_where_it_has_none(particles):
    np.testing.assert_array_equal(half_sets(particles, 1), particles.half)
    drawn = half_sets(particles.with_half(np.zeros(300)), 1)
    assert sorted(set(drawn)) == [1, 2] and np.sum(drawn == 1) == 150 and np.any(np.diff(drawn, 2))
    np.testing.assert_array_equal(drawn, half_sets(particles.with_half(np.zeros(300)), 1))


def test_half_sets_too_small_to_train_are_refused(particles):
    few = particles.select(np.arange(12)).with_half([1] * 8 + [2] * 4)
    with pytest.raises(ConfigError, match=re.escape("has half sets of 8 and 4 particles; at least 10 each are needed to train")):
        half_sets(few, 1)


# ---- whole runs

@pytest.fixture(scope="module")
def controlled(small, tmp_path_factory):
    """A run with both controls, made by one call: its folder."""
    out = tmp_path_factory.mktemp("controlled") / "out"
    assert gmmhet("train", "--out", out, *training(small, **QUICK, vary="position"), "--null", "--half-sets") == 0
    return out


def test_one_call_trains_the_controls_and_reports_them(controlled):
    out = controlled
    found = summary(out)
    assert found["null"]["motion_rms_angst"] == summary(out / rundir.NULL)["motion_rms_angst"]
    assert found["null"]["share_of_motion"] == pytest.approx(found["null"]["motion_rms_angst"] / found["motion_rms_angst"])
    assert "homogeneous images treated alike" in found["verdict"]
    halves, supported = found["half_sets"], found["verdict"].startswith("Heterogeneity supported")
    agree = halves["displacement_correlation"] > max(halves["shuffled"][1], LEAST_AGREEMENT)
    # a refusal names what speaks against heterogeneity alone
    assert ("networks trained on the two half sets" in found["verdict"]) == (supported or not agree)
    assert "half sets: correlation of the particles' displacements" in (out / rundir.LOG).read_text()
    assert halves["particles"] == [60, 60] and halves["compared"] == 120 and len(halves["canonical_correlations"]) == 2
    low, high = halves["held_out_evidence_interval"]
    assert halves["judged"] == 120 and low <= halves["held_out_evidence"] <= high and 0 <= halves["landscape_weight"] <= 1
    assert -1 <= halves["displacement_correlation"] <= 1 and abs(halves["shuffled"][0]) < 0.3
    ids = [set(np.load(out / name / rundir.LATENTS)["id"].tolist()) for name in rundir.HALF_SETS]
    assert len(ids[0]) == len(ids[1]) == 60 and not ids[0] & ids[1]
    assert all((out / name / rundir.EVIDENCE).exists() for name in ("", rundir.NULL, *rundir.HALF_SETS))
    assert found["verdict"] in (out / rundir.LOG).read_text() and "null control: spurious motion" in (out / rundir.LOG).read_text()
    assert not [path for path in (out / rundir.NULL).rglob("*.mrcs")]


def test_a_half_set_s_network_finds_of_its_own_particles_what_it_found_in_training(small, controlled):
    folder = controlled / rundir.HALF_SETS[0]
    model, kept = load_model(str(folder)).as_trained(), np.load(folder / rundir.LATENTS)
    particles = read_particles(str(small / "set" / "particles.star"))
    items = Items(particles.select(particles.rows_of(kept["id"])))
    config = from_dict(TrainConfig, rundir.read_json(folder / rundir.CONFIG))
    found = latent_points(model, str(folder), summary(folder), items, config, find_devices())
    for name in ("evidence", "neutral_evidence", "static_evidence"):
        np.testing.assert_allclose(found[name], kept[name], atol=0.02 * kept[name].std())


def test_controls_are_added_to_a_finished_run_which_itself_stays_as_it_is(small, tmp_path):
    out, flags = tmp_path / "out", training(small, **QUICK)
    assert gmmhet("train", "--out", out, *flags) == 0
    before, weights = summary(out), (out / rundir.MODEL / "weights.npz").read_bytes()
    assert gmmhet("train", "--out", out, *flags, "--resume", "--null") == 0
    after = summary(out)
    assert after["held_out_gain"] == before["held_out_gain"]
    assert after["motion_rms_angst"] == pytest.approx(before["motion_rms_angst"], rel=1e-4)
    assert (out / rundir.MODEL / "weights.npz").read_bytes() == weights and "null" in after and "null" not in before


def test_a_run_interrupted_between_its_parts_goes_on_with_the_part_that_was_missing(small, controlled, tmp_path, monkeypatch):
    out, flags = tmp_path / "out", [*training(small, **QUICK, vary="position"), "--null", "--half-sets"]
    trained, train_set = [], stage.train_set

    def counted(config, run, *others, stop=""):
        trained.append(run.path.split("/")[-1])
        if trained[-1] == stop:
            raise RuntimeError("power failure")
        return train_set(config, run, *others)
    for stop in (rundir.NULL, rundir.HALF_SETS[1]):
        monkeypatch.setattr(stage, "train_set", lambda *a, stop=stop: counted(*a, stop=stop))
        assert gmmhet("train", "--out", out, *flags, "--resume") == 1 and not (out / rundir.SUMMARY).exists()
    monkeypatch.setattr(stage, "train_set", counted)
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert trained == ["out", "null", "out", "null", "half1", "half2", "out", "half2"]
    first, second = summary(controlled), summary(out)
    for part, name in (("null", "motion_rms_angst"), ("half_sets", "displacement_correlation")):
        assert first[part][name] == pytest.approx(second[part][name], rel=2e-2, abs=2e-3)


def test_a_control_that_is_half_trained_goes_on_from_its_checkpoint(small, tmp_path, monkeypatch):
    from gmmhet.engine.training.trainer import Trainer
    out, flags, epoch = tmp_path / "out", [*training(small, **QUICK), "--null"], Trainer.epoch

    def stopped(self):
        if self.run.path.endswith(rundir.NULL) and len(self.history) == 1:
            raise RuntimeError("power failure")
        return epoch(self)
    monkeypatch.setattr(Trainer, "epoch", stopped)
    assert gmmhet("train", "--out", out, *flags) == 1
    monkeypatch.undo()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert (out / rundir.LOG).read_text().count("resumed after epoch 1") == 1 and summary(out / rundir.NULL)["epochs"] == 2
