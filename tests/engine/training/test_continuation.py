"""Staged training: amplitudes first, then the motion of one domain in the particles that have it, on top of the first conformations."""
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from commands import QUICK, gmmhet, simulated, training

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError, TrainConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.io.star import read_star, write_star
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.deformation import Deformation
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model, save_model
from gmmhet.engine.model.settings import NETWORKS
from gmmhet.engine.training.continuation import Beginning, _check_networks, held_out_before

ARM = "sphere:17,0,41,32"


def latents(folder):
    with np.load(folder / rundir.LATENTS) as data:
        return dict(data)


def summary(folder):
    return json.load(open(folder / rundir.SUMMARY))


def neutral_mixture(count=40):
    rng = np.random.default_rng(0)
    return Mixture(rng.normal(0, 20, (count, 3)).astype(np.float32), rng.uniform(1, 2, count).astype(np.float32),
                   rng.uniform(4, 6, count).astype(np.float32))


def stage(neutral, columns, free, latent_dim, earlier=None, seed=1):
    """A model whose decoder does something."""
    likelihood = Agreement(FourierGrid.to_resolution(24, 5.0), "likelihood", 100.0, np.ones(13), 1.0)
    settings = dict(NETWORKS["default"], hidden=[16, 16], columns=list(columns), smoothness=15.0, latent_dim=latent_dim, latent_noise=0.1,
                    seed=seed, symmetry="c1", particles="p.star", likelihood=likelihood.state())
    made = HeterogeneityModel(neutral, free, settings, earlier)
    kernel = [v for v in made.decoder.trainable_variables if len(v.shape) == 2][-1]
    kernel.assign(np.random.default_rng(seed).normal(0, 0.2, kernel.shape))
    return made


@pytest.fixture
def staged():
    """Amplitudes of all in 3 dimensions, then positions of the first 15 Gaussians in 2."""
    neutral = neutral_mixture()
    first = stage(neutral, ["amplitude"], np.ones(40, bool), 3)
    return stage(neutral, ["position"], np.arange(40) < 15, 2, first, seed=2)


# ---- how stages add up

def test_displacements_of_stages_add_and_odds_of_amplitudes_and_widths_multiply():
    neutral = neutral_mixture()
    d = Deformation(neutral, np.ones(40, bool), ("amplitude", "position", "width"), 15.0)
    u, v = (tf.constant(np.random.default_rng(i).normal(0, 0.5, (3, d.outputs)).astype(np.float32)) for i in (1, 2))
    one, two, both = d.apply(u), d.apply(v), d.apply(v, d.apply(u))
    ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))

    def odds(a):
        return np.asarray(a) / (ceiling - np.asarray(a))
    np.testing.assert_allclose(both[0] - neutral.centers, one[0] + two[0] - 2 * neutral.centers, atol=1e-4)
    np.testing.assert_allclose(odds(both[1]) / odds(neutral.amplitudes), odds(one[1]) * odds(two[1]) / odds(neutral.amplitudes) ** 2,
                               rtol=1e-3)
    np.testing.assert_allclose(both[2] * neutral.widths, one[2] * two[2], rtol=1e-4)


def test_a_part_that_may_move_keeps_its_mass_and_gets_its_neutral_proportions_and_all_else_keeps_its_conformation():
    neutral, free = neutral_mixture(), np.arange(40) < 15
    before = Deformation(neutral, np.ones(40, bool), ("amplitude", "position"), 15.0)
    mixture = before.apply(tf.constant(np.random.default_rng(0).normal(0, 1, (3, before.outputs)).astype(np.float32)))
    found = Deformation(neutral, free, ("position",), 15.0).begin(mixture)
    np.testing.assert_array_equal(found[0], mixture[0])
    np.testing.assert_allclose(found[1].numpy()[:, ~free], mixture[1].numpy()[:, ~free], rtol=1e-6)
    np.testing.assert_allclose(found[1].numpy()[:, free].sum(1), mixture[1].numpy()[:, free].sum(1), rtol=1e-5)
    share = found[1].numpy()[:, free] / neutral.amplitudes[free]
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1], share.shape), rtol=1e-5)


@pytest.mark.parametrize("columns,free", [(("amplitude",), np.arange(40) < 15), (("position",), np.ones(40, bool))])
def test_where_nothing_moves_or_all_may_every_gaussian_keeps_its_own_amplitude(columns, free):
    neutral = neutral_mixture()
    before = Deformation(neutral, np.ones(40, bool), ("amplitude",), 15.0)
    mixture = before.apply(tf.ones([2, before.outputs]))
    assert Deformation(neutral, free, columns, 15.0).begin(mixture) is mixture


# ---- the model

def test_z_is_the_earlier_stages_latent_point_and_the_own_one_side_by_side(staged):
    assert (staged.latent_dim, staged.given_dim, staged.own_dim) == (5, 3, 2)
    assert [s["latent_dimensions"] for s in staged.stages] == [[1, 3], [4, 5]]
    assert [s["vary"] for s in staged.stages] == [["amplitude"], ["position"]]
    z = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    centers, amplitudes, _ = staged.decode(z)
    np.testing.assert_allclose(amplitudes[:, 15:], staged.earlier.decode(z[:, :3])[1][:, 15:], rtol=1e-6)
    np.testing.assert_allclose(centers, staged.alone().decode(z[:, 3:])[0], atol=1e-5)
    assert np.all(np.abs(centers[:, :15] - staged.neutral.centers[:15]).max((0, 2)) > 0)


def test_the_jacobian_of_a_staged_model_has_a_column_per_dimension_of_all_stages(staged):
    jacobian = staged.jacobian(np.full(5, 0.3))
    assert jacobian.shape == (40, 3, 5) and not np.any(jacobian[..., :3]) and np.all(np.abs(jacobian[:15, :, 3:]).max((1, 2)) > 0)


def test_a_saved_staged_model_decodes_and_encodes_the_same_to_the_last_bit(staged, tmp_path):
    save_model(staged, str(tmp_path / rundir.MODEL))
    again, z = load_model(str(tmp_path)), np.random.default_rng(1).normal(size=(3, 5))
    for a, b in zip(staged.decode(z), again.decode(z)):
        np.testing.assert_array_equal(a, b)
    features = np.random.default_rng(2).normal(size=(3, staged.gradients + 3)).astype(np.float32)
    np.testing.assert_array_equal(staged.encode(features)[0], again.encode(features)[0])
    np.testing.assert_array_equal(again.given(features), features[:, -3:])


def test_training_a_further_stage_leaves_the_earlier_one_alone(staged):
    own = {id(v) for v in staged.trainable + staged.variables}
    assert not own & {id(v) for v in staged.earlier.variables}


# ---- runs

@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """900 particles, some without the arm that turns, some without another part: set/, fit/, one/ (amplitudes), ids.txt (with the arm)."""
    folder = simulated(tmp_path_factory.mktemp("mixed"), "mixed", 900, 0.3)
    assert gmmhet("train", "--out", folder / "one", *training(folder, vary="amplitude", epochs=12)) == 0
    with np.load(folder / "set" / rundir.TRUTH) as truth:
        np.savetxt(folder / "ids.txt", truth["id"][np.isfinite(truth["true_angle"])], fmt="%d")
    return folder


def second(mixed, **flags):
    """Flags of the second stage."""
    own = dict(vary="position", region=ARM, latent_dim=2, ids=mixed / "ids.txt", continue_from=mixed / "one")
    return training(mixed, **{**own, **flags})


@pytest.fixture(scope="module")
def two(mixed):
    """The second stage: the arm's motion in the particles that have it."""
    assert gmmhet("train", "--out", mixed / "two", *second(mixed, epochs=15)) == 0
    return mixed / "two"


def scores(mixed, run, out):
    assert gmmhet("score", "--out", out, "--model", run, "--truth", mixed / "set") == 0
    return summary(out)


def test_the_first_stage_finds_the_states_and_the_second_the_angle_of_those_that_have_the_arm(mixed, two, tmp_path):
    first, then = scores(mixed, mixed / "one", tmp_path / "first"), scores(mixed, two, tmp_path / "then")
    assert first["fraction_of_oracle"]["adjusted_rand_index"] > 0.6 and first["scores"]["decoded_angle_r2"] < 0.1
    assert then["fraction_of_oracle"]["decoded_angle_r2"] > 0.5


def test_a_second_stage_keeps_each_particle_s_first_latent_point_by_its_id_and_adds_its_own(mixed, two):
    one, then = latents(mixed / "one"), latents(two)
    assert then["id"].tolist() == np.loadtxt(mixed / "ids.txt", dtype=int).tolist()
    assert then["z"].shape == then["z_std"].shape == (len(then["id"]), 6)
    rows = np.searchsorted(one["id"], then["id"])
    np.testing.assert_array_equal(then["z"][:, :4], one["z"][rows])
    np.testing.assert_allclose(then["z_std"][:, :4], one["z_std"][rows], rtol=1e-6)
    np.testing.assert_array_equal(then["z_covariance"][:, :4, :4], one["z_covariance"][rows])
    assert not np.any(then["z_covariance"][:, :4, 4:]) and np.all(then["z_std"] > 0)


def test_the_summary_says_which_dimensions_belong_to_which_stage_and_what_the_evidence_is_over(mixed, two):
    found = summary(two)
    assert [(s["vary"], s["latent_dimensions"]) for s in found["stages"]] == [(["amplitude"], [1, 4]), (["position"], [5, 6])]
    assert found["verdict"].startswith("Heterogeneity supported: ")
    assert "the evidence over the conformations of the earlier stage with the moving part at rest is" in found["verdict"]
    assert "stages" not in summary(mixed / "one") and "the evidence over a single model" in summary(mixed / "one")["verdict"]
    assert "other --vary and --region and --latent-dim" in (two / rundir.LOG).read_text()


def test_all_that_reads_a_trained_model_reads_a_staged_one(mixed, two, tmp_path):
    assert gmmhet("analyze", "--out", tmp_path / "a", "--model", two, "--clusters", 2, "--points", 2, "--motion-region", ARM,
                  "--line", "motion1") == 0
    (tmp_path / "z.txt").write_text("0 0 0 0 1 0\n")
    assert gmmhet("decode", "--out", tmp_path / "d", "--model", two, "--z", tmp_path / "z.txt") == 0
    assert gmmhet("reconstruct", "--out", tmp_path / "r", "--model", two, "--near", "0,0,0,0,1,0", "--k", 100) == 0
    assert gmmhet("refine", "--out", tmp_path / "p", "--model", two, "--steps", 1) == 0
    assert gmmhet("reconstruct", "--out", tmp_path / "all", "--model", two) == 0
    chosen = len(np.loadtxt(mixed / "ids.txt"))
    assert [summary(tmp_path / name)["particles"] for name in ("r", "p", "all")] == [100, chosen, chosen]


def test_with_the_same_columns_region_and_dimensions_a_staged_run_is_trained_further(mixed, two, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "more", *second(mixed, continue_from=two, epochs=1, latent_steps=1, learning_rate=1e-7)) == 0
    assert len(summary(tmp_path / "more")["stages"]) == 2 and "further stage" not in (tmp_path / "more" / rundir.LOG).read_text()
    z = np.random.default_rng(0).normal(size=(3, 6))
    for a, b in zip(*(load_model(str(run)).as_trained().decode(z) for run in (two, tmp_path / "more"))):
        np.testing.assert_allclose(a, b, atol=1e-2)


@pytest.mark.parametrize("flags", [dict(), dict(vary="amplitude", region="", latent_dim=4)])      # a further stage; trained further
def test_what_an_earlier_run_learned_from_is_never_held_out(mixed, tmp_path, flags):
    own = dict(dict(QUICK, epochs=1, seed=2, held_out=0.3), **flags)
    assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, **own)) == 0
    one, then = latents(mixed / "one"), latents(tmp_path / "out")
    np.testing.assert_array_equal(then["held_out"], one["held_out"][np.searchsorted(one["id"], then["id"])])
    assert 0 < then["held_out"].sum() < len(then["held_out"])


def without_ids(star, rows, path):
    """A star file's particles of these rows, without their numbers."""
    table = read_star(str(star))
    write_star(str(path), dataclasses.replace(table, particles=table.particles.iloc[rows].drop(columns="rlnImageId")))


def test_particles_known_by_their_rows_alone_must_be_the_images_that_had_these_rows(mixed, tmp_path, capsys):
    (tmp_path / rundir.STACK).symlink_to(mixed / "set" / rundir.STACK)
    for name, first in (("others.star", 100), ("first.star", 0)):
        without_ids(mixed / "set" / rundir.STAR, np.arange(first, 200), tmp_path / name)
    flags = second(mixed, **dict(QUICK, epochs=1, ids=""))
    flags[flags.index("--particles") + 1] = tmp_path / "others.star"
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 2 and not (tmp_path / "out").exists()
    told = capsys.readouterr().err
    assert "in which particle 1 is image 000001@" in told and "which has no rlnImageId" in told and "it is 000101@" in told
    flags[flags.index("--particles") + 1] = tmp_path / "first.star"
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 0


def test_what_was_held_out_is_known_wherever_a_run_that_went_on_is_gone_on_with_from(mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(mixed)
    (tmp_path / "some.txt").write_text("\n".join(map(str, range(1, 151))))
    flags = dict(QUICK, epochs=1, continue_from="one", ids=tmp_path / "some.txt")
    assert gmmhet("train", "--out", tmp_path / "two", *second(mixed, **flags)) == 0
    monkeypatch.chdir(tmp_path)
    ids = latents(mixed / "one")["id"]
    before = held_out_before("two", ids, np.ones(len(ids), bool))
    np.testing.assert_array_equal(before, latents(mixed / "one")["held_out"])


def test_particles_that_an_earlier_run_learned_from_one_and_all_cannot_be_gone_on_with(mixed, tmp_path, capsys):
    one = latents(mixed / "one")
    np.savetxt(tmp_path / "ids.txt", one["id"][~one["held_out"]][:100], fmt="%d")
    assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, ids=tmp_path / "ids.txt")) == 2
    assert "held out none of 100 particles that this run would train on" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_controls_of_a_second_stage_start_from_the_first_stage_s_conformations(mixed, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, **dict(QUICK, epochs=3)), "--null", "--half-sets") == 0
    found = summary(tmp_path / "out")
    assert found["null"]["held_out_evidence"] < 0.2 * found["held_out_evidence"] and len(found["half_sets"]["canonical_correlations"]) == 2
    one, null = latents(mixed / "one"), latents(tmp_path / "out" / rundir.NULL)
    assert found["half_sets"]["judged"] == np.isin(null["id"], one["id"][one["held_out"]]).sum() < found["half_sets"]["compared"]
    np.testing.assert_array_equal(null["z"][:, :4], one["z"][np.searchsorted(one["id"], null["id"])])
    assert null["agreement"].std() > 0 and null["neutral_agreement"].mean() > 0


def test_a_rigid_arm_is_found_as_well_and_keeps_its_shape_and_is_trained_further(mixed, two, tmp_path):
    assert gmmhet("train", "--out", tmp_path / "rigid", *second(mixed, epochs=15), "--rigid") == 0
    found, bending = (scores(mixed, run, tmp_path / name)["fraction_of_oracle"]["decoded_angle_r2"]
                      for run, name in ((tmp_path / "rigid", "r"), (two, "b")))
    print("decoded angle, of the oracle's: rigid %.3f, bending %.3f" % (found, bending))
    assert found > max(0.5, bending - 0.1)
    model = load_model(str(tmp_path / "rigid"))
    assert model.deformation.sizes == (6,) and model.alone().varying == ["position"]
    points = np.random.default_rng(1).normal(size=(4, 2))
    centers = model.alone().decode(np.concatenate([np.zeros((4, 4)), points], 1)[:, 4:])[0][:, model.free]
    shape = np.linalg.norm(centers[..., :, None, :] - centers[..., None, :, :], axis=-1)
    np.testing.assert_allclose(shape, np.repeat(shape[:1], 4, 0), atol=1e-3)      # its own shape is learned, the same for all particles
    assert np.abs(centers[1:] - centers[0]).max() > 1
    assert gmmhet("train", "--out", tmp_path / "more", *second(mixed, **QUICK, continue_from=tmp_path / "rigid"), "--rigid") == 0
    assert "are trained further" in (tmp_path / "more" / rundir.LOG).read_text()
    assert gmmhet("train", "--out", tmp_path / "bends", *second(mixed, **QUICK, continue_from=tmp_path / "rigid")) == 0
    assert "a further stage on top of" in (tmp_path / "bends" / rundir.LOG).read_text()
    assert len(summary(tmp_path / "bends")["stages"]) == 3


def test_a_second_stage_paused_and_resumed_ends_like_an_uninterrupted_one(mixed, tmp_path):
    flags = second(mixed, epochs=2, latent_steps=1)
    assert gmmhet("train", "--out", tmp_path / "whole", *flags) == 0
    assert gmmhet("train", "--out", tmp_path / "parts", *flags, "--pause-after-epoch", 1) == 0
    assert gmmhet("train", "--out", tmp_path / "parts", *flags, "--resume") == 0
    a, b = latents(tmp_path / "whole")["z"], latents(tmp_path / "parts")["z"]
    np.testing.assert_allclose(a, b, atol=1e-3 * a.std())


# ---- what goes wrong

@pytest.mark.parametrize("lines,flags,says", [
    ("1\n2\n99999\n", {}, "1 ids are not in "),
    ("1 0\n2 1\n3 2\n", {},
     "names symmetry copies ('2 1'), but training takes every particle at all of its orientations: leave the second column out"),
    ("one\n", {}, "must hold one whole number per line"), ("1\n1e30\n", {}, "got for example '1e30'"),
    ("1\n\x00\ufffd\n", {}, "must hold one whole number per line (or two: id and symmetry copy), got for example '\\x00\\ufffd'"),
    ("", {}, "holds no ids: expected one particle id"),
    ("1\n2\n3\n", {}, "3 particles; at least 10 are needed to train")])
def test_a_list_of_ids_that_cannot_be_used_is_refused(mixed, tmp_path, capsys, lines, flags, says):
    (tmp_path / "ids.txt").write_text(lines)
    assert gmmhet("train", "--out", tmp_path / "out", *training(mixed, ids=tmp_path / "ids.txt", **flags)) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_particles_that_the_first_stage_did_not_see_are_refused_with_their_ids(mixed, two, tmp_path, capsys):
    assert gmmhet("train", "--out", tmp_path / "out", *training(mixed, vary="width", continue_from=two)) == 2
    absent = sorted(set(range(1, 901)) - set(latents(two)["id"].tolist()))
    assert "has no latent point for %d of the 900 particles (ids %d, %d, " % (len(absent), *absent[:2]) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_stage_whose_earlier_run_was_trained_further_meanwhile_does_not_go_on_with_other_conformations(mixed, tmp_path, capsys):
    one = shutil.copytree(mixed / "one", tmp_path / "one")
    flags = second(mixed, **dict(QUICK, epochs=1), continue_from=one)
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--pause-after-epoch", 0) == 0
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--resume") == 0      # of the same conformations it does
    (tmp_path / "out" / rundir.SUMMARY).unlink()
    found = latents(one)
    np.savez(one / rundir.LATENTS, **dict(found, z=found["z"] + 0.01))
    capsys.readouterr()
    assert gmmhet("train", "--out", tmp_path / "out", *flags, "--resume") == 2
    assert "--resume: %s has been trained further since this run began on top of it" % one in capsys.readouterr().err


def test_an_earlier_run_of_a_version_that_kept_no_covariances_is_refused_with_how_to_repeat_it(staged, tmp_path):
    np.savez(tmp_path / rundir.LATENTS, id=[1], copy=[0], z=np.zeros((1, 2)))
    with pytest.raises(ConfigError, match=re.escape("(gmmhet train --config %s --out NEW)" % (tmp_path / rundir.CONFIG))) as refusal:
        Beginning(staged.earlier, folder=str(tmp_path)).given([])
    assert "(its latents.npz lacks z_covariance)" in str(refusal.value)


@pytest.mark.parametrize("lacks", ["base", "ahead", "averaged"])
def test_an_earlier_run_of_a_version_whose_networks_lacked_a_part_is_refused(lacks):
    config = TrainConfig(continue_from="before")
    settings = dict(NETWORKS["default"], smoothness=config.smoothness)
    _check_networks(config, settings)
    del settings[lacks]
    with pytest.raises(ConfigError, match=r"before was trained with --preset \([a-z ]+\) False, this run has True: give the same"):
        _check_networks(config, settings)


def test_another_neutral_model_symmetry_or_network_is_refused(mixed, tmp_path, capsys):
    assert gmmhet("fit", "--out", tmp_path / "fit", "--map", mixed / "set" / "map.mrc", "--n-gaussians", 60, "--steps", 20) == 0
    for flags, says in ((dict(gmm=tmp_path / "fit"), "stands on another neutral model than --gmm"),
                        (dict(symmetry="c2"), "was trained with --symmetry c1, this run has c2: give the same"),
                        (dict(vary="amplitude", region="", latent_dim=4, smoothness=20),
                         "was trained with --smoothness 12.0, this run has 20.0: give the same"),
                        (dict(vary="amplitude", region="", latent_dim=4, preset="paper", smoothness=12.0),
                         "was trained with --preset (hidden layers)")):
        assert gmmhet("train", "--out", tmp_path / "out", *second(mixed, **flags)) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "out").exists()
