"""Whole train runs: recovery of what was simulated, and that a run can be stopped, killed, repeated and continued."""
import csv
import json
import os
import signal
import time

import numpy as np
import pytest
from commands import QUICK, assert_best_epoch_was_kept, gmmhet, gmmhet_process, simulated, training
from scipy.stats import spearmanr

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.config import TrainConfig
from gmmhet.engine.initialization.linear_start import MODES
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.model.latent_scale import read, spread
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.inputs import GRADIENTS, hold_out
from gmmhet.engine.training.trainer import Trainer


def latents(folder):
    with np.load(folder / rundir.LATENTS) as data:
        return dict(data)


def summary(folder):
    return json.load(open(folder / rundir.SUMMARY))


def same_latents(a, b):
    """The share of the spread of z by which two runs differ, and their ids."""
    first, second = latents(a), latents(b)
    np.testing.assert_array_equal(first["id"], second["id"])
    np.testing.assert_array_equal(first["held_out"], second["held_out"])
    return np.abs(first["z"] - second["z"]).max() / first["z"].std()


@pytest.fixture(scope="module")
def hinge_score(hinge, hinge_run):
    assert gmmhet("score", "--out", hinge / "score", "--model", hinge_run, "--truth", hinge / "set") == 0
    return summary(hinge / "score")


# ---- recovery

def test_a_hinge_s_angle_is_recovered_to_most_of_the_oracle(hinge_score):
    assert hinge_score["oracle"]["r2"] > 0.5
    assert hinge_score["fraction_of_oracle"]["r2"] > 0.75 and hinge_score["fraction_of_oracle"]["rank_correlation"] > 0.85


def test_the_held_out_particles_support_the_hinge(hinge_run):
    found = summary(hinge_run)
    assert found["held_out_evidence_interval"][0] > 0 and found["verdict"].startswith("Heterogeneity supported")
    assert found["held_out"] == 100 and found["particles"] == 1000 and found["landscape_weight"] > 0.5 and found["warnings"] == []
    assert len(found["axis_information"]) == latents(hinge_run)["z"].shape[1] and max(found["axis_information"]) > 0.3
    assert set(found["predicts"]) == {"viewing direction", "defocus"} and (hinge_run / rundir.EVIDENCE).stat().st_size > 50000


def test_the_decoded_motion_is_in_the_arm(hinge, hinge_run):
    model, z = load_model(str(hinge_run)), latents(hinge_run)["z"]
    centers, _, widths = model.decode(z[:300])
    motion = np.sqrt((centers.std(0)**2).sum(1))
    with np.load(hinge / "set" / rundir.TRUTH) as truth:
        core, arm = (truth["centers"][truth["part"] == part] for part in (0, 1))
    distance = [np.linalg.norm(model.neutral.centers[:, None] - part[None], axis=-1).min(1) for part in (core, arm)]
    in_arm = distance[1] < distance[0]
    assert motion[in_arm].mean() > 2 * motion[~in_arm].mean()
    narrower = 1 - widths[0] / model.neutral.widths      # the arm was blurred in the neutral model
    print("narrower: arm %.3f, core %.3f" % (narrower[in_arm].mean(), narrower[~in_arm].mean()))
    assert narrower[in_arm].mean() > max(0.003, 2 * abs(narrower[~in_arm].mean()))


def test_a_homogeneous_set_stays_still_and_its_verdict_says_so(tmp_path_factory, hinge_run):
    folder = simulated(tmp_path_factory.mktemp("null"), "null", 1000, 0.2)
    assert gmmhet("train", "--out", folder / "train", *training(folder, epochs=15)) == 0
    still, moving = summary(folder / "train"), summary(hinge_run)
    assert still["motion_rms_angst"] < 0.2 * moving["motion_rms_angst"]
    assert still["held_out_evidence"] < 0.2 * moving["held_out_evidence"]
    low, high = still["held_out_evidence_interval"]
    assert low <= 0 <= high and still["verdict"].startswith("Heterogeneity not supported")


def test_latent_points_say_how_sure_they_are(hinge_run):
    found = latents(hinge_run)
    assert found["z_covariance"].shape == (1000, 4, 4) and np.all(np.linalg.eigvalsh(found["z_covariance"]) > 0)
    np.testing.assert_allclose(np.sqrt(np.einsum("ndd->nd", found["z_covariance"])), found["z_std"], rtol=1e-5)
    assert found["z"].shape == found["z_std"].shape == (1000, 4) and np.all(found["z_std"] > 0)
    trained = spread(found["z"], found["z_covariance"], *load_model(str(hinge_run)).paces[::-1])      # there the prior is 1 wide
    assert np.all(np.einsum("ndd->nd", trained) < 1.5**2)
    assert found["agreement"].mean() > found["neutral_agreement"].mean()
    assert abs(spearmanr(found["z"][:, 0], np.arange(1000))[0]) < 0.1


def test_the_history_has_a_row_per_epoch_and_the_best_one_is_kept(hinge_run):
    rows, found = list(csv.DictReader(open(hinge_run / rundir.HISTORY))), summary(hinge_run)
    assert [int(r["epoch"]) for r in rows] == list(range(1, found["epochs"] + 1))
    assert_best_epoch_was_kept(hinge_run, 15)


# ---- the same again

def test_the_same_seed_gives_the_same_latent_points_and_another_seed_others(small, small_run, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "again", *training(small, **QUICK)) == 0
    assert same_latents(small_run, tmp_path / "again") < 1e-3
    assert gmmhet("train", "--out", tmp_path / "other", *training(small, **QUICK, seed=2)) == 0
    assert not np.array_equal(latents(small_run)["held_out"], latents(tmp_path / "other")["held_out"])


def test_a_run_paused_after_preparation_and_each_epoch_and_resumed_ends_like_an_uninterrupted_one(small, tmp_path):
    flags, whole, out = training(small, **QUICK, preset="paper"), tmp_path / "whole", tmp_path / "parts"
    assert gmmhet("train", "--out", whole, *flags) == 0
    for pause in (0, 1):
        assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", pause, "--resume") == 0
        assert not (out / rundir.SUMMARY).exists()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert same_latents(whole, out) < 1e-3
    assert summary(whole)["held_out_gain"] == pytest.approx(summary(out)["held_out_gain"], rel=1e-3, abs=1e-4)


def test_a_run_paused_by_a_version_that_did_not_keep_the_best_gains_goes_on_too(small, small_run, tmp_path):
    flags = training(small, **QUICK)
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--pause-after-epoch", 1) == 0
    checkpoint = tmp_path / "out" / rundir.WORK / "checkpoint.npz"
    with np.load(checkpoint) as data:
        older = {name: data[name] for name in data.files if not name.startswith("peak_")}
        assert len(older) == len(data.files) - 1
    np.savez(checkpoint, **older)
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--resume") == 0
    assert same_latents(small_run, tmp_path / "out") < 1e-3


@pytest.mark.parametrize("lost", [False, True])
def test_a_faint_motion_goes_on_with_the_parts_that_it_is_described_by(small, tmp_path, monkeypatch, lost):
    monkeypatch.setattr("gmmhet.engine.model.heterogeneity_model.FAINT", np.inf)
    flags, whole, out = training(small, **dict(QUICK, vary="position")), tmp_path / "whole", tmp_path / "out"
    assert gmmhet("train", "--out", whole, *flags) == 0
    assert load_model(whole).begins_faint and load_model(whole).settings["unblurred"]
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    modes = out / rundir.WORK / MODES
    with np.load(modes) as data:
        of_parts = data["modes"] @ data["reader"].T
    if lost:      # by a version that did not write them
        modes.unlink()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    with np.load(modes) as data:      # of singular vectors the sign is open
        np.testing.assert_allclose(data["modes"] @ data["reader"].T, of_parts, atol=0.02 * np.abs(of_parts).max())
    assert np.trace(of_parts) > 6 and same_latents(whole, out) < 1e-3
    assert gmmhet("train", "--out", tmp_path / "more", *flags, "--continue-from", out) == 0
    assert (tmp_path / "more" / rundir.WORK / MODES).exists() and load_model(tmp_path / "more").settings["unblurred"]


def test_amplitudes_alone_go_on_without_parts(small, tmp_path):
    flags, out = training(small, **dict(QUICK, vary="amplitude")), tmp_path / "out"
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert not (out / rundir.WORK / MODES).exists()


def test_a_run_does_not_go_on_with_other_particles_than_it_began_with(small, tmp_path, capfd):
    ids, out = tmp_path / "ids.txt", tmp_path / "out"
    ids.write_text("\n".join(str(i) for i in range(1, 41)))
    flags = training(small, **QUICK, ids=ids)
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 0) == 0
    before = (out / rundir.WORK / GRADIENTS).read_bytes()
    for first, last in ((1, 51), (2, 42)):
        ids.write_text("\n".join(str(i) for i in range(first, last)))
        assert gmmhet("train", "--out", out, *flags, "--resume") == 2
        assert "began with 40 particles, and %s holds others now (%d)" % (ids, last - first) in capfd.readouterr().err
    assert (out / rundir.WORK / GRADIENTS).read_bytes() == before


def test_a_killed_run_resumes_and_ends_like_an_uninterrupted_one(small, tmp_path):
    flags = training(small, epochs=6, patience=6, latent_steps=1, latent_dim=2)
    process = gmmhet_process("train", "--out", tmp_path / "killed", *flags)
    checkpoint, deadline = tmp_path / "killed" / rundir.WORK / "checkpoint.npz", time.monotonic() + 240
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    told = process.communicate()[0]
    assert checkpoint.exists(), told
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "killed" / rundir.SUMMARY).exists()
    assert gmmhet("train", "--out", tmp_path / "killed", *flags, "--resume") == 0
    assert "resumed after epoch" in (tmp_path / "killed" / rundir.LOG).read_text()
    assert gmmhet("train", "--out", tmp_path / "whole", *flags) == 0
    assert same_latents(tmp_path / "whole", tmp_path / "killed") < 1e-3


def test_a_run_continues_from_the_networks_of_an_earlier_one(small, small_run, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "out",
                  *training(small, epochs=1, latent_steps=1, latent_dim=2, learning_rate=1e-7, continue_from=small_run)) == 0
    z = np.random.default_rng(0).normal(size=(3, 2))
    for a, b in zip(load_model(str(small_run)).decode(z), load_model(str(tmp_path / "out")).decode(z)):
        np.testing.assert_allclose(a, b, atol=1e-2)


# ---- what may vary

@pytest.mark.parametrize("vary", ["amplitude", "position,width"])
def test_only_the_columns_asked_for_vary(small, tmp_path, monkeypatch, vary):
    monkeypatch.setattr(Trainer, "_close_columns", lambda self, number: None)   # whatever they are worth
    monkeypatch.setattr(Trainer, "measure_start", lambda self: None)            # and the start is
    assert gmmhet("train", "--out", tmp_path / "out",
                  *training(small, epochs=1, latent_steps=1, latent_dim=2, vary=vary, learning_rate=0.01)) == 0
    model = load_model(str(tmp_path / "out"))
    found = model.decode(np.random.default_rng(0).normal(size=(5, 2)))
    for name, part, expected in zip(("position", "amplitude", "width"), found,
                                    (model.neutral.centers, model.neutral.amplitudes, model.neutral.widths)):
        assert np.array_equal(part, np.broadcast_to(expected, part.shape)) == (name not in vary)
    assert summary(tmp_path / "out")["varies"] == model.varying


def test_only_the_region_asked_for_varies_and_the_ring_correlation_trains_too(small, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "out", *training(small, epochs=1, latent_steps=1, latent_dim=2, region="sphere:17,0,41,25",
                                                                objective="frc", learning_rate=0.01, vary="position")) == 0
    model = load_model(str(tmp_path / "out"))
    inside = np.linalg.norm(model.neutral.centers - [17, 0, 41], axis=1) <= 25
    np.testing.assert_array_equal(model.free, inside)
    moved = np.abs(model.decode(np.ones((1, 2)))[0][0] - model.neutral.centers).max(1) > 0
    np.testing.assert_array_equal(moved, inside)
    assert not np.any(model.base.numpy())      # only a likelihood says what it is worth
    assert "the mixture that moves" not in (tmp_path / "out" / rundir.LOG).read_text()


# ---- what goes wrong

@pytest.mark.parametrize("where", ["learned from", "held out"])
def test_an_image_that_spoils_the_agreement_stops_training_and_is_named(small, tmp_path, capsys, monkeypatch, where):
    out, flags = tmp_path / "out", training(small, **QUICK)
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    particles, batch = read_particles(str(small / "set" / rundir.STAR)), Items.batch
    row = np.flatnonzero(hold_out(len(particles), 0.1, 1) == (where == "held out"))[3]

    def spoiled(self, chosen):
        images, *rest = batch(self, chosen)
        images[chosen == row] = np.inf
        return images, *rest
    monkeypatch.setattr(Items, "batch", spoiled)
    capsys.readouterr()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 1
    told = capsys.readouterr().err
    named = told.split("the agreement became NaN in epoch 2 at particles ")[1].split(":")[0].split(", ")
    assert str(particles.ids[row]) in named and not (out / rundir.SUMMARY).exists()
    if where == "held out":
        monkeypatch.undo()
        assert gmmhet("train", "--out", out, *flags, "--resume") == 0


def test_a_symmetry_that_the_neutral_model_lacks_is_doubted_in_log_and_summary(hinge, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "c2", *training(hinge, **dict(QUICK, symmetry="c2", epochs=1))) == 0
    doubt, = (w for w in summary(tmp_path / "c2")["warnings"] if "does not look c2" in w)
    assert (tmp_path / "c2" / rundir.LOG).read_text().count(doubt) == 1
    assert summary(tmp_path / "c2")["verdict"].startswith("Heterogeneity not supported: ")
    assert "does not have the symmetry that is asked for" in summary(tmp_path / "c2")["verdict"]


def test_a_region_of_a_symmetric_particle_that_holds_its_own_copies_is_refused(hinge, tmp_path, capsys):
    flags = training(hinge, **dict(QUICK, symmetry="c2", region="sphere:0,0,0,999"))
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 2 and not (tmp_path / "out").exists()
    assert "lie where c2 turns another part of it" in capsys.readouterr().err


def test_a_rigid_body_of_fewer_gaussians_than_can_be_turned_is_refused(hinge, tmp_path, capsys):
    (tmp_path / "arm.txt").write_text("1 2 3 4 5")
    (tmp_path / "two.txt").write_text("7 9")
    region = "%s;%s" % (tmp_path / "arm.txt", tmp_path / "two.txt")
    assert gmmhet("train", "--out", tmp_path / "out", *training(hinge, **dict(QUICK, region=region)), "--rigid") == 2
    assert "--rigid: body 2 of --region" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_the_paper_s_preset_sets_is_said(small, tmp_path):
    flags = training(small, **dict(QUICK, preset="paper", batch_size=32, epochs=1))
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0
    told, = (line for line in (tmp_path / "out" / rundir.LOG).read_text().splitlines() if "--preset paper: " in line)
    assert "--objective frc" in told and "--learning-rate 0.0001" in told and "--batch-size" not in told
    model = load_model(str(tmp_path / "out"))
    for network in (model.encoder, model.decoder):
        kernels = [v for v in network.trainable_variables if len(v.shape) == 2]
        assert [kernel.shape[1] for kernel in kernels[:4]] == [512] * 4 and len(kernels) == 5
        decay = sum(float(np.sum(np.square(kernel))) for kernel in kernels)
        assert float(sum(network.losses)) == pytest.approx(1e-3 * decay, rel=1e-4)
        kinds = [type(layer).__name__ for layer in network.layers]
        assert kinds.count("Dropout") == kinds.count("BatchNormalization") == 1


def test_training_stops_when_held_out_particles_are_worse_explained_for_as_long_as_patience():
    trainer = object.__new__(Trainer)
    trainer.config, trainer.history, trainer.best = TrainConfig(epochs=100, patience=10), [], None
    for done, best, finished in ((60, 55, False), (64, 55, False), (65, 55, True), (59, 3, False), (60, 3, True), (100, 99, True)):
        trainer.history, trainer.best = [{}] * done, dict(epoch=best)      # patience counts from epoch 50 on, when all columns are open
        assert trainer.finished() == finished


def test_z_is_at_an_even_pace_and_names_the_same_conformations_as_what_was_trained(hinge_run):
    model = load_model(str(hinge_run))
    with np.load(hinge_run / rundir.LATENTS) as data:
        z = data["z"]
    trained = read(z, *model.paces[::-1])
    for a, b in zip(model.decode(z[:50]), model.as_trained().decode(trained[:50])):
        np.testing.assert_allclose(a, b, atol=1e-3)

    def unevenness(model, z):
        """Largest over smallest rms step of the decoded centers, between equal steps along the axis that varies most."""
        axis = z.std(0).argmax()
        line = np.zeros((9, z.shape[1]))
        line[:, axis] = np.linspace(*np.quantile(z[:, axis], [0.02, 0.98]), 9)
        steps = np.sqrt((np.diff(model.decode(line)[0], axis=0) ** 2).sum(2).mean(1))
        return steps.max() / steps.min()
    assert unevenness(model, z) < unevenness(model.as_trained(), trained)
