"""Whole train runs: recovery of what was simulated; a run can be stopped, killed, repeated and continued."""
import copy
import dataclasses
import shutil

import numpy as np
import pytest
from commands import (
    QUICK,
    assert_best_epoch_was_kept,
    gmmhet,
    history,
    latents,
    same_latents,
    simulated,
    summary,
    training,
)

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import TrainConfig, with_length
from gmmhet.engine.initialization import linear_start
from gmmhet.engine.initialization.linear_start import MODES
from gmmhet.engine.model.saved import load_model, values_of
from gmmhet.engine.model.settings import with_preset
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.stages import train as stage
from gmmhet.engine.training.inputs import GRADIENTS, hold_out
from gmmhet.engine.training.trainer import Trainer

SMALL_STEPS = dict(QUICK, epochs=1)


@pytest.fixture(scope="module")
def hinge_score(hinge, hinge_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("score") / "out"
    assert gmmhet("score", "--out", out, "--model", hinge_run, "--truth", hinge / "set") == 0
    return summary(out)


# ---- recovery

def test_a_hinge_s_angle_is_recovered_to_most_of_the_oracle(hinge_score):
    assert hinge_score["oracle"]["r2"] > 0.5
    share = hinge_score["fraction_of_oracle"]
    assert share["r2"] > 0.75 and share["rank_correlation"] > 0.85


def test_the_held_out_particles_support_the_hinge(hinge_run):
    found = summary(hinge_run)
    assert found["held_out_evidence_interval"][0] > 0 and found["landscape_weight"] > 0.5
    assert found["verdict"].startswith("Heterogeneity supported") and found["warnings"] == []
    assert found["held_out"] == 100 and found["particles"] == 1000
    assert len(found["axis_information"]) == latents(hinge_run).dimension
    assert max(found["axis_information"]) > 0.3
    assert set(found["predicts"]) == {"viewing direction", "defocus"}
    assert (hinge_run / rundir.EVIDENCE).stat().st_size > 50000


def test_the_decoded_motion_is_in_the_arm(hinge, hinge_run):
    model = load_model(str(hinge_run))
    decoded = model.decode(latents(hinge_run).z[:300])
    motion = np.sqrt((decoded.centers.std(0)**2).sum(1))
    with np.load(hinge / "set" / rundir.TRUTH) as truth:
        core, arm = (truth["centers"][truth["part"] == part] for part in (0, 1))
    from_core, from_arm = (np.linalg.norm(model.neutral.centers[:, None] - part[None], axis=-1).min(1)
                           for part in (core, arm))
    in_arm = from_arm < from_core
    assert motion[in_arm].mean() > 2 * motion[~in_arm].mean()
    narrower = 1 - decoded.widths[0] / model.neutral.widths      # the arm was blurred in the neutral model
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


def test_the_history_has_a_row_per_epoch_and_the_best_one_is_kept(hinge_run):
    rows = history(hinge_run)
    assert [int(row["epoch"]) for row in rows] == list(range(1, summary(hinge_run)["epochs"] + 1))
    assert_best_epoch_was_kept(hinge_run, 15)


# ---- the plan

def asked(folder, out, **values):
    """The parameters of a train run on a simulated folder."""
    files = dict(particles=str(folder / "set" / rundir.STAR), gmm=str(folder / "fit"), out=str(out))
    return TrainConfig(**{**files, **values})


def test_a_plan_holds_what_was_read_and_nothing_is_written_before_it_is_executed(small, tmp_path):
    config = asked(small, tmp_path / "out", latent_dim=2, half_sets=True)
    plan = stage.prepare(config)
    assert not (tmp_path / "out").exists()
    assert plan.config == config and plan.whole.config == with_length(config, 120)
    assert plan.whole.parameters == ("amplitude", "position") and len(plan.whole.views) == 120
    assert plan.whole.body.shape == (80,) and len(plan.whole.neutral.mixture) == 80
    np.testing.assert_array_equal(plan.whole.held_out, hold_out(120, 0.1, 1))
    assert sorted(set(plan.half)) == [1, 2] and plan.whole.continuation.folder == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.whole.config = config


def test_another_seed_holds_out_other_particles(small, small_run, tmp_path):
    plans = [stage.prepare(asked(small, tmp_path / "out", seed=seed)) for seed in (1, 2)]
    first, other = (plan.whole.held_out for plan in plans)
    np.testing.assert_array_equal(latents(small_run).held_out, first)
    assert not np.array_equal(first, other)


def values(anything):
    """What a plan holds, as numbers and text that can be compared later."""
    if dataclasses.is_dataclass(anything):
        return {f.name: values(getattr(anything, f.name)) for f in dataclasses.fields(anything)}
    if isinstance(anything, tuple) and hasattr(anything, "_asdict"):
        return {name: values(value) for name, value in anything._asdict().items()}
    if hasattr(anything, "named_weights"):
        return dict(settings=anything.settings.to_json(), state=anything.state.to_json(),
                    weights=values_of(anything.named_weights()), neutral=values(anything.neutral))
    if isinstance(anything, Views):
        of = anything.particles
        return [array.copy() for array in (of.ids, of.rotation, of.shift_angst, of.ctf)]
    return copy.deepcopy(anything)


def test_a_run_goes_on_from_the_networks_of_an_earlier_one_and_changes_nothing_that_it_was_given(
        small, small_run, tmp_path, monkeypatch):
    execute, plans = stage.execute, []

    def watched(plan, run):
        plans.append((plan, values(plan)))
        return execute(plan, run)
    monkeypatch.setattr(stage, "execute", watched)
    flags = training(small, **dict(SMALL_STEPS, learning_rate=1e-7, continue_from=small_run))
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0
    z = np.random.default_rng(0).normal(size=(3, 2))
    for a, b in zip(load_model(str(small_run)).decode(z), load_model(str(tmp_path / "out")).decode(z)):
        np.testing.assert_allclose(a, b, atol=1e-2)
    (plan, before), = plans
    assert before["whole"]["continuation"]["networks"]["weights"]
    np.testing.assert_equal(values(plan), before)


def test_a_training_has_the_settings_that_were_asked_for_whatever_it_found(small, small_run, hinge_run):
    quick = asked(small, "", latent_dim=2, pose_errors="none")
    for run, folder_config in ((small_run, quick), (hinge_run, asked(small, ""))):
        settings, wanted = load_model(str(run)).settings, with_preset(folder_config)
        assert settings.parameters == ("amplitude", "position")
        assert settings.removes_rigid_motion == (wanted.pose_errors == "auto")
        assert (settings.latent_dim, settings.smoothness_angst) == (wanted.latent_dim, wanted.smoothness)
    # what was found differs: the poses turned out to be exact
    assert not load_model(str(hinge_run)).state.removes_rigid_motion


# ---- the same again

def test_the_same_seed_gives_the_same_latent_points(small, small_run, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "again", *training(small, **QUICK)) == 0
    assert same_latents(small_run, tmp_path / "again") < 1e-3


@pytest.fixture(scope="module")
def paper(small, tmp_path_factory):
    """Flags of a training by the paper's preset, but for its batches, and its run."""
    out = tmp_path_factory.mktemp("paper") / "out"
    flags = training(small, **QUICK, preset="paper", batch_size=32)
    assert gmmhet("train", "--out", out, *flags) == 0
    return flags, out


def test_what_the_paper_s_preset_sets_is_said_and_done(paper):
    _, out = paper
    said, = (line for line in (out / rundir.LOG).read_text().splitlines() if "--preset paper: " in line)
    assert "--objective frc" in said and "--learning-rate 0.0001" in said and "--batch-size" not in said
    model = load_model(str(out))
    for network in (model.encoder.network, model.decoder.network):
        kernels = [v for v in network.trainable_variables if len(v.shape) == 2]
        assert [kernel.shape[1] for kernel in kernels[:4]] == [512] * 4 and len(kernels) == 5
        decay = sum(float(np.sum(np.square(kernel))) for kernel in kernels)
        assert float(sum(network.losses)) == pytest.approx(1e-3 * decay, rel=1e-4)
        kinds = [type(layer).__name__ for layer in network.layers]
        assert kinds.count("Dropout") == kinds.count("BatchNormalization") == 1


def test_a_run_paused_after_preparation_and_each_epoch_ends_like_an_uninterrupted_one(paper, tmp_path):
    (flags, whole), out = paper, tmp_path / "parts"
    for pause in (0, 1):
        assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", pause, "--resume") == 0
        assert not (out / rundir.SUMMARY).exists()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert same_latents(whole, out) < 1e-3
    assert summary(whole)["held_out_gain"] == pytest.approx(summary(out)["held_out_gain"], rel=1e-3, abs=1e-4)


@pytest.fixture(scope="module")
def low_signal(small, tmp_path_factory):
    """Flags of a training whose motion counts as one of low signal, a whole run, and one that is paused."""
    folder, flags = tmp_path_factory.mktemp("low"), training(small, **dict(QUICK, vary="position"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear_start, "LOW_SIGNAL", np.inf)
        assert gmmhet("train", "--out", folder / "whole", *flags) == 0
        assert gmmhet("train", "--out", folder / "paused", *flags, "--pause-after-epoch", 1) == 0
    return flags, folder / "whole", folder / "paused"


def rigid_modes(run):
    """The parts' motion by which a run describes its own [K, K]: of singular vectors the sign is open."""
    with np.load(run / rundir.WORK / MODES) as data:
        return data["modes"] @ data["reader"].T


@pytest.mark.parametrize("lost", [False, True])
def test_a_motion_of_low_signal_goes_on_with_the_rigid_modes_it_is_described_by(low_signal, tmp_path, lost):
    flags, whole, paused = low_signal
    state = load_model(str(whole)).state
    assert state.low_signal and state.sharpens
    out, modes = shutil.copytree(paused, tmp_path / "out"), rigid_modes(paused)
    if lost:      # by a version that did not write them
        (out / rundir.WORK / MODES).unlink()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    np.testing.assert_allclose(rigid_modes(out), modes, atol=0.02 * np.abs(modes).max())
    assert np.trace(modes) > 6 and same_latents(whole, out) < 1e-3


def test_a_motion_of_low_signal_is_one_when_it_is_trained_further(low_signal, tmp_path):
    flags, whole, _ = low_signal
    further = [*flags, "--epochs", 1, "--continue-from", whole]
    assert gmmhet("train", "--out", tmp_path / "more", *further) == 0
    state = load_model(str(tmp_path / "more")).state
    assert (tmp_path / "more" / rundir.WORK / MODES).exists() and state.low_signal and state.sharpens


def test_amplitudes_alone_go_on_without_rigid_modes(small, tmp_path):
    flags, out = training(small, **dict(QUICK, vary="amplitude")), tmp_path / "out"
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert not (out / rundir.WORK / MODES).exists()
    assert load_model(str(out)).active_parameters == ["amplitude"]


def test_a_run_does_not_go_on_with_other_particles_than_it_began_with(small, tmp_path, capfd):
    ids, out = tmp_path / "ids.txt", tmp_path / "out"
    ids.write_text("\n".join(str(i) for i in range(1, 41)))
    flags = training(small, **QUICK, ids=ids)
    assert gmmhet("train", "--out", out, *flags, "--pause-after-epoch", 0) == 0
    before = (out / rundir.WORK / GRADIENTS).read_bytes()
    for first, last in ((1, 51), (2, 42)):
        ids.write_text("\n".join(str(i) for i in range(first, last)))
        assert gmmhet("train", "--out", out, *flags, "--resume") == 2
        expected = "began with 40 particles, and %s holds others now (%d)" % (ids, last - first)
        assert expected in capfd.readouterr().err
    assert (out / rundir.WORK / GRADIENTS).read_bytes() == before


# ---- what may vary

@pytest.mark.parametrize("vary", ["amplitude", "position,width"])
def test_only_the_parameters_asked_for_vary(small, tmp_path, monkeypatch, vary):
    monkeypatch.setattr(Trainer, "_decide_parameters", lambda self, number: None)   # whatever they are worth
    monkeypatch.setattr(Trainer, "measure_start", lambda self: None)                # and the start is
    flags = training(small, **dict(SMALL_STEPS, vary=vary, learning_rate=0.01))
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0
    model = load_model(str(tmp_path / "out"))
    decoded, neutral = model.decode(np.random.default_rng(0).normal(size=(5, 2))), model.neutral
    for name, part, expected in (("position", decoded.centers, neutral.centers),
                                 ("amplitude", decoded.amplitudes, neutral.amplitudes),
                                 ("width", decoded.widths, neutral.widths)):
        assert np.array_equal(part, np.broadcast_to(expected, part.shape)) == (name not in vary)
    assert summary(tmp_path / "out")["varies"] == model.active_parameters


def test_only_the_region_asked_for_varies_and_the_ring_correlation_trains_too(small, tmp_path):
    flags = training(small, **SMALL_STEPS, region="sphere:17,0,41,25", objective="frc", learning_rate=0.01,
                     vary="position")
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0
    model = load_model(str(tmp_path / "out"))
    inside = np.linalg.norm(model.neutral.centers - [17, 0, 41], axis=1) <= 25
    np.testing.assert_array_equal(model.free, inside)
    moved = np.abs(model.decode(np.ones((1, 2))).centers[0] - model.neutral.centers).max(1) > 0
    np.testing.assert_array_equal(moved, inside)
    assert not np.any(model.consensus_shift.numpy())      # only a likelihood says what it is worth
    assert "the mixture that moves" not in (tmp_path / "out" / rundir.LOG).read_text()


# ---- what goes wrong

@pytest.mark.parametrize("where", ["learned from", "held out"])
def test_an_image_that_spoils_the_agreement_stops_training_and_is_named(
        small, paused_run, tmp_path, capsys, monkeypatch, where):
    out, flags = shutil.copytree(paused_run, tmp_path / "out"), training(small, **QUICK)
    particles, batch = read_particles(str(small / "set" / rundir.STAR)), Views.batch
    row = np.flatnonzero(hold_out(len(particles), 0.1, 1) == (where == "held out"))[3]

    def spoiled(self, rows):
        images = batch(self, rows).images
        images[rows == row] = np.inf
        return batch(self, rows)._replace(images=images)
    monkeypatch.setattr(Views, "batch", spoiled)
    capsys.readouterr()
    assert gmmhet("train", "--out", out, *flags, "--resume") == 1
    error = capsys.readouterr().err
    named = error.split("the agreement became NaN in epoch 2 at particles ")[1].split(":")[0].split(", ")
    assert str(particles.ids[row]) in named and not (out / rundir.SUMMARY).exists()
    if where == "held out":
        monkeypatch.undo()
        assert gmmhet("train", "--out", out, *flags, "--resume") == 0


def test_a_symmetry_that_the_neutral_model_lacks_is_doubted_in_log_and_summary(small, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "c2", *training(small, **SMALL_STEPS, symmetry="c2")) == 0
    found = summary(tmp_path / "c2")
    doubt, = (warning for warning in found["warnings"] if "does not look c2" in warning)
    assert (tmp_path / "c2" / rundir.LOG).read_text().count(doubt) == 1
    assert found["verdict"].startswith("Heterogeneity not supported: ")
    assert "does not have the symmetry that is asked for" in found["verdict"]
