import json

import numpy as np
import pytest
from commands import QUICK, gmmhet, simulated, training

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import render
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.simulate.images import consensus_map, noisy_images
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, make_phantom
from gmmhet.engine.simulate.scores import fraction, information, rank_correlation, score_all

KINDS = ("hinge", "assembly", "mixed", "c3", "d2", "null")


def phantom(kind, angle=20.0):
    return make_phantom(kind, 60.0, 6.0, angle, 1)


def test_a_hinge_turns_its_arm_by_the_angle_about_its_axis_and_nothing_else():
    p = phantom("hinge")
    moved, arm = p.at((1, 15.0)), p.part == 1
    np.testing.assert_array_equal(moved.centers[~arm], p.base.centers[~arm])
    from gmmhet.engine.imaging.pose import rotation_from_vector
    turned = (p.base.centers[arm] - p.pivot) @ rotation_from_vector([np.radians(15) * p.axis])[0].T + p.pivot
    np.testing.assert_allclose(moved.centers[arm], turned, atol=1e-3)
    assert 0.03 < arm.mean() < 0.3


def test_an_assembly_state_lacks_its_parts_and_populations_sum_to_one():
    p = phantom("assembly")
    assert sum(share for share, _ in ASSEMBLY_STATES) == pytest.approx(1)
    for state, (_, absent) in enumerate(ASSEMBLY_STATES):
        gone = p.at((state, 0)).amplitudes == 0
        np.testing.assert_array_equal(gone, np.isin(p.part, absent))
        np.testing.assert_array_equal(p.at((state, 0)).centers, p.base.centers)


@pytest.mark.parametrize("kind", ["c3", "d2"])
def test_a_symmetric_phantom_at_rest_is_symmetric_and_moving_a_unit_is_moving_another_seen_from_elsewhere(kind):
    p = phantom(kind)
    for unit, turn in enumerate(symmetry_matrices(kind), 1):
        turned = p.base.centers @ turn.T
        nearest = np.linalg.norm(turned[:, None] - p.base.centers[None], axis=-1)
        assert nearest.min(1).max() < 1e-3
        np.testing.assert_allclose(p.base.amplitudes[nearest.argmin(1)], p.base.amplitudes, rtol=1e-6)
        first, moved = p.at((1, 12.0)).centers @ turn.T, p.at((unit, 12.0)).centers
        assert np.linalg.norm(first[:, None] - moved[None], axis=-1).min(1).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_coordinates_repeat_with_the_seed_and_follow_the_prior(kind):
    p = phantom(kind)
    a, b = (p.draw(4000, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    coordinates, prior = p.grid()
    assert prior.sum() == pytest.approx(1) and len(coordinates) == len(prior)
    np.testing.assert_allclose(a.mean(0), prior @ coordinates, atol=0.7)
    assert np.abs(a[:, 1]).max() <= 20


def test_the_consensus_map_is_the_mean_of_the_states():
    p = phantom("assembly")
    expected = sum(share * render(p.at((s, 0)), 24, 8.0) for s, (share, _) in enumerate(ASSEMBLY_STATES))
    np.testing.assert_allclose(consensus_map(p, 24, 8.0), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("snr", [0.1, 4.0])
def test_the_noise_has_the_variance_that_the_signal_to_noise_ratio_asks_for(snr):
    p, n, rng = phantom("null"), 100, np.random.default_rng(0)
    from gmmhet.engine.simulate.images import draw_ctf, draw_poses
    rotation, shift = draw_poses(n, 4.0, rng)
    arguments = (p, p.draw(n, rng), rotation, shift, draw_ctf(n, rng), 32, 6.0)
    noisy, clean = noisy_images(*arguments, snr, 1), noisy_images(*arguments, 1e12, 1)
    sigma, _ = next(noisy), next(clean)
    images, signal = np.concatenate(list(noisy)), np.concatenate(list(clean))
    assert len(images) == n
    assert (images - signal).std() == pytest.approx(sigma, rel=0.01)
    assert signal.var() / sigma**2 == pytest.approx(snr, rel=0.01)
    assert (images - signal).std(axis=(1, 2)).std() < 0.1 * sigma


@pytest.mark.parametrize("kind,score", [("hinge", "r2"), ("assembly", "adjusted_rand_index"), ("c3", "r2"), ("d2", "r2"), ("null", None)])
def test_a_set_is_written_with_its_truth_by_id_and_an_oracle_that_beats_noise(tmp_path, kind, score):
    assert gmmhet("simulate", "--out", tmp_path / "set", "--kind", kind, "--n", 200, "--box", 33, "--pixel-size", 6, "--snr", 0.3,
                  "--seed", 5) == 0
    assert rundir.missing_run(str(tmp_path / "set"), "simulate") == ""
    particles, (volume, pixel_size) = read_particles(str(tmp_path / "set" / rundir.STAR)), read_map(str(tmp_path / "set" / rundir.MAP))
    oracle = json.load(open(tmp_path / "set" / rundir.ORACLE))
    with np.load(tmp_path / "set" / rundir.TRUTH) as truth:
        np.testing.assert_array_equal(truth["id"], particles.ids)
        np.testing.assert_allclose(truth["rotation"], particles.rotation, atol=1e-5)
        np.testing.assert_allclose(truth["shift_angst"], particles.shift_angst, atol=1e-4)
        names = {name[5:] for name in truth.files if name.startswith("true_")}
    assert (len(particles), particles.box, volume.shape, pixel_size) == (200, 33, (33, 33, 33), 6.0)
    assert np.bincount(particles.half).tolist() == [0, 100, 100]
    assert names == {"hinge": {"angle"}, "assembly": {"state"}, "c3": {"unit_angles", "unit"}, "d2": {"unit_angles", "unit"},
                     "null": set()}[kind]
    assert oracle["kind"] == kind and (score is None or oracle[score] > 0.3)


def test_information_is_one_for_the_truth_itself_half_for_half_and_nothing_for_noise():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    assert information(truth[:, None], truth) == pytest.approx(1, abs=1e-6)
    assert information((truth + rng.normal(size=4000))[:, None], truth) == pytest.approx(0.5, abs=0.05)
    assert abs(information(rng.normal(size=(4000, 3)), truth)) < 0.02
    assert information(np.stack([np.cos(truth), np.sin(truth)], 1), truth) > 0.9


def test_rank_correlation_ignores_sign_scale_and_monotone_stretching():
    truth = np.random.default_rng(0).normal(size=500)
    z = np.stack([-3 * np.sinh(truth), 0.01 * np.ones(500)], 1)
    assert rank_correlation(z, truth) == pytest.approx(1)


def test_too_few_particles_or_a_truth_that_does_not_vary_are_not_scored_and_latents_that_do_not_vary_rank_nothing():
    rng = np.random.default_rng(0)
    z, angle = rng.normal(size=(60, 2)), rng.normal(size=60)
    unknown = dict(r2=None, rank_correlation=None)
    assert score_all("hinge", dict(angle=angle[:49]), dict(z=z[:49])) == unknown
    assert score_all("hinge", dict(angle=np.zeros(60)), dict(z=z)) == unknown
    assert score_all("hinge", dict(angle=angle), dict(z=np.ones((60, 2))))["rank_correlation"] == 0
    few_arms = dict(state=np.arange(60) % 2, angle=np.where(np.arange(60) < 2, 1.0, np.nan))
    assert score_all("mixed", few_arms, dict(state=few_arms["state"], z=z)) == dict(adjusted_rand_index=1.0, r2=None)
    assert score_all("assembly", dict(state=np.ones(60)), dict(state=np.ones(60))) == dict(adjusted_rand_index=None)


def test_a_fraction_of_an_oracle_that_finds_nothing_is_not_known():
    assert fraction(0.4, 0.8) == 0.5 and fraction(-0.4, 0.8) == -0.5
    assert fraction(0.4, 0.0) is None and fraction(None, 0.8) is None and fraction(0.4, None) is None


def test_a_set_too_small_to_score_is_simulated_trained_and_scored_with_a_sentence_for_each_figure(tmp_path, capsys):
    folder = simulated(tmp_path, "hinge", 20, 1.0)
    assert "20 particles of kind hinge; the oracle's scores: r2 unknown, rank correlation unknown" in capsys.readouterr().err
    assert gmmhet("train", "--out", folder / "train", *training(folder, **QUICK)) == 0
    assert gmmhet("score", "--out", folder / "score", "--model", folder / "train", "--truth", folder / "set") == 0
    said, found = capsys.readouterr().err, json.load(open(folder / "score" / rundir.SUMMARY))
    for name in ("r2", "rank correlation", "decoded angle r2"):
        assert name + " is not scored: fewer than 50 of the 20 particles have a true value, or all have the same" in said
    assert set(found["scores"].values()) == set(found["oracle"].values()) == set(found["fraction_of_oracle"].values()) == {None}


def test_scores_join_latents_and_truth_by_id_and_not_by_order(hinge, hinge_run, tmp_path):
    """Shuffling the rows of latents.npz changes no score by more than the split into halves does."""
    import shutil
    shutil.copytree(hinge_run, tmp_path / "train")
    with np.load(hinge_run / rundir.LATENTS) as data:
        order = np.random.default_rng(0).permutation(len(data["id"]))
        np.savez(tmp_path / "train" / rundir.LATENTS, **{k: v[order] for k, v in data.items()})
    found = []
    for name, model in (("a", hinge_run), ("b", tmp_path / "train")):
        assert gmmhet("score", "--out", tmp_path / name, "--model", model, "--truth", hinge / "set") == 0
        found.append(json.load(open(tmp_path / name / rundir.SUMMARY)))
    assert found[0]["scores"]["rank_correlation"] == pytest.approx(found[1]["scores"]["rank_correlation"], abs=1e-4)
    assert found[0]["fraction_of_oracle"]["r2"] == pytest.approx(found[0]["scores"]["r2"] / found[0]["oracle"]["r2"])


@pytest.mark.parametrize("kind, copies", [("c3", 3), ("d2", 4)])
def test_a_symmetric_set_trained_with_its_symmetry_tells_which_unit_moved(tmp_path_factory, kind, copies):
    folder = simulated(tmp_path_factory.mktemp(kind), kind, 400, 4.0, angle=35)
    assert gmmhet("train", "--out", folder / "train", *training(folder, symmetry=kind, vary="position", epochs=12, latent_dim=2)) == 0
    assert gmmhet("score", "--out", folder / "score", "--model", folder / "train", "--truth", folder / "set") == 0
    found = json.load(open(folder / "score" / rundir.SUMMARY))
    with np.load(folder / "train" / rundir.LATENTS) as data:
        assert len(data["id"]) == 400 * copies and data["copy"].tolist() == list(range(copies)) * 400
    assert found["fraction_of_oracle"]["r2"] > 0.4
    assert gmmhet("refine", "--out", folder / "refine", "--model", folder / "train") == 0
