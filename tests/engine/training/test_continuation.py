"""Staged training: amplitudes first, then the motion of one domain in the particles that have it, on top of
the first conformations."""
import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from commands import QUICK, gmmhet, latents, same_latents, simulated, summary, training
from tiny_training import tiny_model, tiny_staged

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import ConfigError, TrainConfig
from gmmhet.engine.latents import Latents
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.model.settings import PRESETS, ModelSettings
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.particles.star import read_star, write_star
from gmmhet.engine.training.continuation import (
    Continuation,
    EarlierConformations,
    _check_networks,
    held_out_before,
)

ARM = "sphere:17,0,41,32"


# ---- what a stage goes on from

def test_before_a_first_stage_there_are_no_latent_points_and_one_conformation_for_all(small):
    nothing, views = Continuation(), Views(read_particles(str(small / "set" / rundir.STAR)), "c2")
    earlier = nothing.latents(views)
    assert earlier.z.shape == (240, 0) and earlier.covariance.shape == (240, 0, 0)
    mixture = tiny_model().neutral
    conformations = nothing.conformations(mixture, earlier.z)
    assert isinstance(conformations, SingleConformation) and conformations.mixture is mixture
    assert not nothing.poses_are_exact and nothing.text == nothing.folder == ""


@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_before_a_further_stage_each_particle_is_what_the_earlier_ones_found_of_all_its_copies(symmetry):
    model = tiny_model(symmetry=symmetry)
    z = np.random.default_rng(0).normal(size=(5 * model.copies, 2)).astype(np.float32)
    rows = np.array([3, 0])
    mixtures = EarlierConformations(model, z).at(rows)
    expected = model.symmetry.assemble(model.mixture(z.reshape(5, model.copies, 2)[rows].reshape(-1, 2)))
    for ours, theirs in zip(mixtures, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_earlier_latent_points_are_joined_by_id_and_copy_and_cut_to_the_stages_that_stay(small, tmp_path):
    particles, model = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(10)), tiny_model()
    views = Views(particles, "c2")
    rng, order = np.random.default_rng(0), np.random.default_rng(1).permutation(20)
    z, covariance = rng.normal(size=(20, 3)), rng.normal(size=(20, 3, 3))
    Latents(views.ids[order], views.copy[order], z[order], z_covariance=covariance[order]).save(str(tmp_path))
    earlier = Continuation(model, folder=str(tmp_path)).latents(views)
    np.testing.assert_allclose(earlier.z, z[:, :2], rtol=1e-6)
    np.testing.assert_allclose(earlier.covariance, covariance[:, :2, :2], rtol=1e-6)
    assert earlier.z.dtype == earlier.covariance.dtype == np.float32


def test_poses_are_exact_where_networks_that_are_trained_further_found_them_so():
    model = tiny_model(removes_rigid_motion=True)
    going_on = Continuation(networks=model)
    assert not going_on.poses_are_exact
    model.state.removes_rigid_motion = False
    assert going_on.poses_are_exact and not Continuation(earlier=model).poses_are_exact


# ---- runs

@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """900 particles, some without the arm that turns, some without another part: set/, fit/, one/
    (amplitudes), ids.txt (with the arm)."""
    folder = simulated(tmp_path_factory.mktemp("mixed"), "mixed", 900, 0.3)
    flags = training(folder, vary="amplitude", epochs=12, pose_errors="none")
    assert gmmhet("train", "--out", folder / "one", *flags) == 0
    with np.load(folder / "set" / rundir.TRUTH) as truth:
        np.savetxt(folder / "ids.txt", truth["id"][np.isfinite(truth["true_angle"])], fmt="%d")
    return folder


def second(mixed, **flags):
    """Flags of the second stage."""
    own = dict(vary="position", region=ARM, latent_dim=2, ids=mixed / "ids.txt", continue_from=mixed / "one",
               pose_errors="none")
    return training(mixed, **{**own, **flags})


@pytest.fixture(scope="module")
def two(mixed):
    """The second stage: the arm's motion in the particles that have it."""
    assert gmmhet("train", "--out", mixed / "two", *second(mixed, epochs=15)) == 0
    return mixed / "two"


@pytest.fixture(scope="module")
def controlled(mixed, tmp_path_factory):
    """A second stage of two epochs with both controls."""
    out = tmp_path_factory.mktemp("controlled") / "out"
    assert gmmhet("train", "--out", out, *second(mixed, **QUICK), "--null", "--half-sets") == 0
    return out


def scores(mixed, run, out):
    assert gmmhet("score", "--out", out, "--model", run, "--truth", mixed / "set") == 0
    return summary(out)


def test_the_first_stage_finds_the_states_and_the_second_the_angle_of_those_that_have_the_arm(
        mixed, two, tmp_path):
    first, then = (scores(mixed, run, tmp_path / run.name) for run in (mixed / "one", two))
    assert first["fraction_of_oracle"]["adjusted_rand_index"] > 0.6
    assert first["scores"]["decoded_angle_r2"] < 0.1
    assert then["fraction_of_oracle"]["decoded_angle_r2"] > 0.5


def test_a_second_stage_keeps_each_particle_s_first_latent_point_by_its_id_and_adds_its_own(mixed, two):
    one, then = latents(mixed / "one"), latents(two)
    assert then.ids.tolist() == np.loadtxt(mixed / "ids.txt", dtype=int).tolist()
    assert then.z.shape == then.z_std.shape == (len(then), 6)
    rows = np.searchsorted(one.ids, then.ids)
    np.testing.assert_array_equal(then.z[:, :4], one.z[rows])
    np.testing.assert_allclose(then.z_std[:, :4], one.z_std[rows], rtol=1e-6)
    np.testing.assert_array_equal(then.z_covariance[:, :4, :4], one.z_covariance[rows])
    assert not np.any(then.z_covariance[:, :4, 4:]) and np.all(then.z_std > 0)


def test_the_summary_says_which_dimensions_belong_to_which_stage_and_what_the_evidence_is_over(mixed, two):
    found, first = summary(two), summary(mixed / "one")
    assert [(stage["vary"], stage["latent_dimensions"]) for stage in found["stages"]] == [
        (["amplitude"], [1, 4]), (["position"], [5, 6])]
    assert found["verdict"].startswith("Heterogeneity supported: ")
    over = "the evidence over the conformations of the earlier stage with the moving part at rest is"
    assert over in found["verdict"]
    assert "stages" not in first and "the evidence over a single model" in first["verdict"]
    assert "other --vary and --region and --latent-dim" in (two / rundir.LOG).read_text()


def test_all_that_reads_a_trained_model_reads_a_staged_one(mixed, two, tmp_path):
    assert gmmhet("analyze", "--out", tmp_path / "a", "--model", two, "--clusters", 2, "--points", 2,
                  "--motion-region", ARM, "--line", "motion1") == 0
    (tmp_path / "z.txt").write_text("0 0 0 0 1 0\n")
    assert gmmhet("decode", "--out", tmp_path / "d", "--model", two, "--z", tmp_path / "z.txt") == 0
    near = "--near", "0,0,0,0,1,0", "--k", 100
    assert gmmhet("reconstruct", "--out", tmp_path / "r", "--model", two, *near) == 0
    assert gmmhet("refine", "--out", tmp_path / "p", "--model", two, "--steps", 1) == 0
    assert gmmhet("reconstruct", "--out", tmp_path / "all", "--model", two) == 0
    chosen = len(np.loadtxt(mixed / "ids.txt"))
    assert [summary(tmp_path / name)["particles"] for name in ("r", "p", "all")] == [100, chosen, chosen]


def test_with_the_same_parameters_region_and_dimensions_a_stage_is_trained_further(mixed, two, tmp_path):
    flags = second(mixed, continue_from=two, epochs=1, latent_steps=1, learning_rate=1e-7)
    assert gmmhet("train", "--out", tmp_path / "more", *flags) == 0
    assert len(summary(tmp_path / "more")["stages"]) == 2
    assert "further stage" not in (tmp_path / "more" / rundir.LOG).read_text()
    z = np.random.default_rng(0).normal(size=(3, 6))
    for a, b in zip(*(load_model(str(run)).as_trained().decode(z) for run in (two, tmp_path / "more"))):
        np.testing.assert_allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("flags", [
    dict(), dict(vary="amplitude", region="", latent_dim=4)], ids=["a further stage", "trained further"])
def test_what_an_earlier_run_learned_from_is_never_held_out(mixed, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(mixed)
    own = {**QUICK, **dict(epochs=1, seed=2, held_out=0.3, continue_from="one"), **flags}
    assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, **own)) == 0
    one, then = latents(mixed / "one"), latents(tmp_path / "out")
    np.testing.assert_array_equal(then.held_out, one.held_out[np.searchsorted(one.ids, then.ids)])
    assert 0 < then.held_out.sum() < len(then) < len(one)
    # and it is known of all that the first one had, from whatever folder the second one is gone on with
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(held_out_before("out", one.ids, np.ones(len(one), bool)), one.held_out)


def without_ids(star, rows, path):
    """A star file's particles of these rows, without their numbers."""
    table = read_star(str(star))
    chosen = table.particles.iloc[rows].drop(columns="rlnImageId")
    write_star(str(path), dataclasses.replace(table, particles=chosen))


def test_particles_known_by_their_rows_alone_must_be_the_images_that_had_these_rows(mixed, tmp_path, capsys):
    (tmp_path / rundir.STACK).symlink_to(mixed / "set" / rundir.STACK)
    for name, first in (("others.star", 100), ("first.star", 0)):
        without_ids(mixed / "set" / rundir.STAR, np.arange(first, 200), tmp_path / name)
    flags = second(mixed, **dict(QUICK, epochs=1, ids=""))
    flags[flags.index("--particles") + 1] = tmp_path / "others.star"
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 2 and not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    for text in ("in which particle 1 is image 000001@", "which has no rlnImageId", "it is 000101@"):
        assert text in error
    flags[flags.index("--particles") + 1] = tmp_path / "first.star"
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0


def test_particles_of_which_an_earlier_run_held_out_none_cannot_be_gone_on_with(mixed, tmp_path, capsys):
    one = latents(mixed / "one")
    np.savetxt(tmp_path / "ids.txt", one.ids[~one.held_out][:100], fmt="%d")
    assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, ids=tmp_path / "ids.txt")) == 2
    assert "held out none of 100 particles that this run would train on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_controls_of_a_second_stage_start_from_the_first_stage_s_conformations(mixed, controlled):
    found, one = summary(controlled), latents(mixed / "one")
    null, halves = latents(controlled / rundir.NULL), found["half_sets"]
    assert found["null"]["held_out_evidence"] < 0.2 * found["held_out_evidence"]
    assert len(halves["canonical_correlations"]) == 2
    unseen = np.isin(null.ids, one.ids[one.held_out]).sum()
    assert halves["n_cross_validated"] == unseen < halves["compared"]
    np.testing.assert_array_equal(null.z[:, :4], one.z[np.searchsorted(one.ids, null.ids)])
    assert null.agreement.std() > 0 and null.neutral_agreement.mean() > 0


def test_a_second_stage_paused_and_resumed_ends_like_an_uninterrupted_one(mixed, controlled, tmp_path):
    flags = second(mixed, **QUICK)
    assert gmmhet("train", "--out", tmp_path / "parts", *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", tmp_path / "parts", *flags, "--resume") == 0
    assert same_latents(controlled, tmp_path / "parts") < 1e-3


def test_a_rigid_arm_is_found_as_well_and_keeps_its_shape_and_is_trained_further(mixed, two, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "rigid", *second(mixed, epochs=15), "--rigid") == 0
    found, bending = (scores(mixed, run, tmp_path / name)["fraction_of_oracle"]["decoded_angle_r2"]
                      for run, name in ((tmp_path / "rigid", "r"), (two, "b")))
    print("decoded angle, of the oracle's: rigid %.3f, bending %.3f" % (found, bending))
    assert found > max(0.5, bending - 0.1)
    model = load_model(str(tmp_path / "rigid"))
    assert model.deformation.sizes == (6,) and model.alone().active_parameters == ["position"]
    z = np.random.default_rng(1).normal(size=(4, 2))
    centers = model.alone().decode(z).centers[:, model.free]
    shape = np.linalg.norm(centers[..., :, None, :] - centers[..., None, :, :], axis=-1)
    # its own shape is learned, the same for all particles
    np.testing.assert_allclose(shape, np.repeat(shape[:1], 4, 0), atol=1e-3)
    assert np.abs(centers[1:] - centers[0]).max() > 1
    flags = second(mixed, **dict(QUICK, epochs=1), continue_from=tmp_path / "rigid")
    assert gmmhet("train", "--out", tmp_path / "more", *flags, "--rigid") == 0
    assert "are trained further" in (tmp_path / "more" / rundir.LOG).read_text()
    assert gmmhet("train", "--out", tmp_path / "bends", *flags) == 0
    assert "a further stage on top of" in (tmp_path / "bends" / rundir.LOG).read_text()
    assert len(summary(tmp_path / "bends")["stages"]) == 3


# ---- what goes wrong

def test_particles_that_the_first_stage_did_not_have_are_refused_with_their_ids(mixed, two, tmp_path, capsys):
    flags = training(mixed, vary="width", continue_from=two)
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 2
    absent = sorted(set(range(1, 901)) - set(latents(two).ids.tolist()))
    expected = "has no latent point for %d of the 900 particles (ids %d, %d, " % (len(absent), *absent[:2])
    assert expected in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_stage_whose_earlier_run_was_trained_further_meanwhile_does_not_go_on_with_other_conformations(
        mixed, tmp_path, capsys):
    one = shutil.copytree(mixed / "one", tmp_path / "one")
    flags = second(mixed, **dict(QUICK, epochs=1), continue_from=one)
    for _ in range(2):      # of the same conformations it does
        assert gmmhet("train", "--out", tmp_path / "out", *flags, "--pause-after-epoch", 0, "--resume") == 0
    found = latents(one)
    dataclasses.replace(found, z=found.z + np.float32(0.01)).save(str(one))
    capsys.readouterr()
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--resume") == 2
    expected = "--resume: %s has been trained further since this run began on top of it" % one
    assert expected in capsys.readouterr().err


def test_an_earlier_run_of_a_version_that_kept_no_covariances_is_refused_with_how_to_repeat_it(tmp_path):
    Latents(np.array([1]), np.array([0]), np.zeros((1, 2))).save(str(tmp_path))
    repeat = re.escape("(gmmhet train --config %s --out NEW)" % (tmp_path / rundir.CONFIG))
    with pytest.raises(ConfigError, match=repeat) as refusal:
        Continuation(tiny_staged().earlier, folder=str(tmp_path)).latents([])
    assert "(its latents.npz lacks z_covariance)" in str(refusal.value)


@pytest.mark.parametrize("change,words", [
    (dict(consensus_shift=False), "consensus learned"),
    (dict(averages_weights=False), "averages of the weights"),
    (dict(linear_decoder=False), "linear part of the decoder")])
def test_an_earlier_run_of_a_version_whose_networks_lacked_a_part_is_refused(change, words):
    config = TrainConfig(continue_from="before")
    settings = ModelSettings(("position",), {}, smoothness_angst=config.smoothness)
    _check_networks(config, SimpleNamespace(settings=settings))
    lacking = dataclasses.replace(settings, network=dataclasses.replace(PRESETS["default"].network, **change))
    message = r"before was trained with --preset \(%s\) False, this run has True: give the same" % words
    with pytest.raises(ConfigError, match=message):
        _check_networks(config, SimpleNamespace(settings=lacking))


def test_another_neutral_model_symmetry_or_network_is_refused(mixed, tmp_path, capsys):
    assert gmmhet("fit", "--out", tmp_path / "fit", "--map", mixed / "set" / "map.mrc", "--n-gaussians", 60,
                  "--steps", 20) == 0
    further = dict(vary="amplitude", region="", latent_dim=4)
    for flags, says in (
            (dict(gmm=tmp_path / "fit"), "stands on another neutral model than --gmm"),
            (dict(symmetry="c2"), "was trained with --symmetry c1, this run has c2: give the same"),
            (dict(further, smoothness=20), "with --smoothness 12.0, this run has 20.0: give the same"),
            (dict(further, preset="paper", smoothness=12.0), "was trained with --preset (hidden layers)")):
        assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, **flags)) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "out").exists()
