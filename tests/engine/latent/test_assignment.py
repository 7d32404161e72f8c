"""Clusters by latent point and by image, with the poses that particles are given."""
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from commands import gmmhet, simulated, training
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.inference.cluster_membership import ImageComparison, OccupiedClusters, two_level_amplitudes
from gmmhet.engine.latent.assignment import (
    Clusters,
    assign_by_latent,
    posed_particles,
    two_level_log_likelihood,
)
from gmmhet.engine.latents import Latents
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles


def test_clusters_know_their_sizes_what_is_in_none_and_how_certain_they_are():
    plain = Clusters(np.array([1, 1, 2, 0, 1]), np.zeros((2, 3)))
    assert plain.sizes.tolist() == [3, 1] and plain.unassigned == 1 and plain.certainty is None
    probability = np.array([[0.9, 0.1], [0.4, 0.6]])
    assert Clusters(np.array([1, 2]), np.zeros((2, 3)), probability,
                    np.array([0.7, 0.3])).certainty == pytest.approx(0.75)


def test_clusters_by_latent_point_are_as_many_as_asked_for_or_those_of_density():
    middles = np.repeat([[0, 0], [5, 0], [0, 5]], [150, 100, 50], axis=0)
    z = middles + np.random.default_rng(0).normal(0, 0.2, (300, 2))
    for clusters in (3, 0):
        found = assign_by_latent(AnalyzeConfig(clusters=clusters), z)
        assert found.sizes.sum() + found.unassigned == 300 and len(found.centers) == 3
        np.testing.assert_allclose(found.centers, [[0, 0], [5, 0], [0, 5]], atol=0.1)


def test_amplitudes_have_two_levels_where_held_out_particles_are_likelier_so(small):
    model, rng = untrained(parameters=("amplitude",)), np.random.default_rng(1)
    views = Views(read_particles(str(small / "set" / rundir.STAR)).select(np.arange(100)))
    z, centers = np.float32(rng.normal(size=(100, 2))), np.float32(rng.normal(size=(3, 2)))
    comparison = ImageComparison(model, views, z, np.zeros((100, 5), np.float32))
    held, population = np.arange(100) % 3 == 0, np.array([0.5, 0.3, 0.2])
    plain = model.decode(centers)[1]
    found, by_levels = (comparison.log_likelihood(centers, amplitudes=a)
                        for a in (None, two_level_amplitudes(plain, population)))
    np.testing.assert_allclose(comparison.log_likelihood(centers, amplitudes=plain), found)
    assert np.abs(by_levels - found).max() > 0.1

    def better_of(found, held=held):
        k = found.shape[1]
        return two_level_log_likelihood(comparison, held,
                                        OccupiedClusters(centers[:k], found, found, population[:k]))
    much = 1000 * held[:, None]
    # the others say nothing, however likely
    np.testing.assert_allclose(better_of(found - much), by_levels, rtol=1e-6)
    for better in (found + much, found + much - 1e6 * ~held[:, None]):
        assert better_of(better) is better
    worse = found - much
    assert better_of(worse, np.zeros(100, bool)) is worse
    two = worse[:, :2]
    assert better_of(two) is two      # of two clusters each has its own level


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A train run on noisy images of discrete states; its set's folder."""
    folder = simulated(tmp_path_factory.mktemp("states"), "assembly", 400, 0.05)
    assert gmmhet("train", "--out", folder / "train",
                  *training(folder, epochs=25, latent_dim=3, vary="amplitude", pose_errors="none")) == 0
    return folder


def read(folder, name, *flags):
    out = folder / name
    assert gmmhet("analyze", "--out", out, "--model", folder / "train", "--clusters", 4, "--points", 2,
                  *flags) == 0
    with np.load(out / rundir.EMBEDDING) as data:
        return json.loads((out / rundir.SUMMARY).read_text()), dict(data)


def test_images_tell_states_better_than_latent_points_do(states):
    with np.load(states / "set" / rundir.TRUTH) as truth:
        state = truth["true_state"]
    by_image, found = read(states, "image")
    by_latent, plain = read(states, "latent", "--assign-by", "latent")
    assert by_image["assigned_by"] == "image" and by_latent["assigned_by"] == "latent"
    assert "probability" not in plain
    scores = [adjusted_rand_score(state[data["id"] - 1], data["label"]) for data in (found, plain)]
    print("adjusted Rand index by image %.3f, by z %.3f" % tuple(scores))
    assert scores[0] > scores[1]
    assert found["probability"].shape == (400, len(by_image["clusters"]))
    assert np.array_equal(found["probability"].argmax(1) + 1, found["label"])
    assert sum(by_image["populations"]) == pytest.approx(1) and sum(by_image["clusters"]) == 400
    assert by_image["certainty"] == pytest.approx(found["probability"].max(1).mean(), abs=1e-6)


def test_other_poses_of_the_particles_are_taken_where_they_are_given(states, tmp_path):
    particles = read_particles(str(states / "set" / rundir.STAR))
    particles.select(np.arange(400)[::-1]).write_star(str(tmp_path / "reversed.star"))
    _, first = read(states, "same")
    _, found = read(states, "again", "--particles", tmp_path / "reversed.star")
    assert np.array_equal(found["id"], first["id"])
    np.testing.assert_allclose(found["probability"], first["probability"], atol=1e-3)


def test_images_that_are_gone_are_named_before_anything_is_written(states, tmp_path, capsys):
    shutil.copytree(states / "train", tmp_path / "train")
    settings = tmp_path / "train" / rundir.MODEL / "model.json"
    settings.write_text(settings.read_text().replace(rundir.STAR, "gone.star"))
    flags = "--model", tmp_path / "train", "--points", 2
    assert gmmhet("analyze", "--out", tmp_path / "a", *flags) == 2
    said = capsys.readouterr().err
    assert "gone.star" in said and "--assign-by latent needs no images" in said
    assert not (tmp_path / "a").exists()
    assert gmmhet("analyze", "--out", tmp_path / "a", *flags, "--assign-by", "latent") == 0


def test_latents_of_an_older_version_are_refused_with_what_they_lack(states, tmp_path, capsys):
    shutil.copytree(states / "train", tmp_path / "train")
    path = str(tmp_path / "train")
    replace(Latents.load(path), z_covariance=None).save(path)
    assert gmmhet("analyze", "--out", tmp_path / "a", "--model", tmp_path / "train") == 2
    assert "lacks z_covariance: train again, or take --assign-by latent" in capsys.readouterr().err


def posed(states, tmp_path, *rows, turned=(), gone=False):
    """What `posed_particles` makes of a star file that holds some rows, some of them turned; with pose
    changes of 1 for all."""
    particles, model = read_particles(str(states / "set" / rundir.STAR)), load_model(str(states / "train"))
    rotation = particles.rotation.copy()
    for row in turned:
        rotation[row] = rotation[row] @ Rotation.from_rotvec([0, 0, 0.1]).as_matrix()
    path = str(tmp_path / "given.star")
    particles.with_poses(rotation, particles.shift_angst).select(np.array(rows)).write_star(path)
    latents = replace(Latents.load(str(states / "train")), pose_change=np.ones((400, 5), np.float32))
    if gone:
        model.settings = replace(model.settings, particles="gone.star")
    config = AnalyzeConfig(model=str(states / "train"), particles=path)
    return posed_particles(config, latents, model), latents.ids, particles, rotation


@pytest.mark.parametrize("rows", [np.arange(400)[::-1], [3, 8, 9]])
def test_only_poses_that_differ_from_those_of_the_training_are_taken_as_they_are(states, tmp_path, rows):
    (found, change), ids, particles, rotation = posed(states, tmp_path, *rows, turned=(3, 9))
    assert np.array_equal(found.ids, ids)
    turned = np.isin(ids, particles.ids[[3, 9]])
    assert np.all(change[turned] == 0) and np.all(change[~turned] == 1)
    np.testing.assert_allclose(found.rotation, rotation[particles.rows_of(ids)], atol=1e-5)
    np.testing.assert_array_equal(found.read(np.arange(5)), particles.read(particles.rows_of(ids[:5])))


def test_without_those_of_the_training_the_given_particles_must_be_all(states, tmp_path):
    (found, change), ids, *_ = posed(states, tmp_path, *range(400), gone=True)
    assert np.array_equal(found.ids, ids) and not change.any()
    with pytest.raises(ValueError, match=r"gone\.star"):
        posed(states, tmp_path, 3, 8, gone=True)
