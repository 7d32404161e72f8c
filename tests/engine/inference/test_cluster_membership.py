"""Clusters by image: likelihoods at centres, populations, and what the stage does with them."""
import itertools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from commands import gmmhet, simulated, training
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.imaging.pose_change import changed
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.inference.cluster_membership import likeliest, likelihoods, memberships, sharpened, two_levels
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.latent.assignment import levelled, posed_particles
from gmmhet.engine.model.saved import load_model


@pytest.mark.parametrize("symmetry,whole_unit", [("c1", True), ("c1", False), ("c3", True), ("c3", False)])
def test_likelihoods_are_those_of_whole_particles_of_which_one_copy_is_at_a_center(small, symmetry, whole_unit):
    model, rng = untrained(symmetry, whole_unit), np.random.default_rng(1)
    particles = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(5))
    items, copies = Items(particles, symmetry), model.copies
    z, centers = np.float32(rng.normal(size=(len(items), 2))), np.float32(rng.normal(size=(3, 2)))
    change = np.float32(rng.normal(0, 0.1, (5, 5)))
    found = likelihoods(model, items, z, centers, change, batch_size=2)
    rotation, shift = changed(tf.constant(particles.rotation), tf.constant(particles.shift_angst), change)
    data, transfer = model.likelihood.observe(particles.read(np.arange(5)), particles.ctf)

    def whole(points):
        placed, amplitudes, widths = model.assembled(model.mixture(tf.constant(points)))
        return model.likelihood.value(data, transfer * project(place(placed, rotation, shift), amplitudes, widths,
                                                               model.likelihood.grid)).numpy()
    for copy in range(copies):
        at = []
        for center in centers:
            points = z.copy()
            points[copy::copies] = center
            at.append(whole(points))
        expected = np.stack(at, 1)
        of_copy = found[copy::copies]
        np.testing.assert_allclose(of_copy - of_copy[:, :1], expected - expected[:, :1], rtol=1e-3, atol=2e-2)
        assert np.abs(expected - expected[:, :1]).max() > 1


def test_populations_are_those_that_particles_were_drawn_with():
    rng, population = np.random.default_rng(0), np.array([0.7, 0.25, 0.05])
    state = rng.choice(3, 20000, p=population)
    seen = rng.normal(np.array([-2.0, 0.0, 2.0])[state])       # posteriors overlap: the shares of the most probable cluster are wrong
    probability, found = memberships(-0.5 * (seen[:, None] - [-2.0, 0.0, 2.0]) ** 2)
    np.testing.assert_allclose(found, population, atol=0.01)
    np.testing.assert_allclose(probability.sum(1), 1)
    for low in (0.5, 0.7, 0.9):      # a cluster that is 60 % probable is right in 60 % of the cases
        near = (probability.max(1) >= low) & (probability.max(1) < low + 0.1)
        assert np.mean(probability.argmax(1)[near] == state[near]) == pytest.approx(probability.max(1)[near].mean(), abs=0.03)


def test_two_levels_part_the_clusters_where_least_squares_are_least():
    amplitudes, population = np.random.default_rng(0).gamma(2.0, 1.0, (5, 200)), np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    found = two_levels(amplitudes, population)

    def parted(high):
        levels = [population[part] @ amplitudes[part] / population[part].sum() for part in (~high, high)]
        return np.where(high[:, None], levels[1], levels[0])
    every = np.array([parted(np.array(high, bool)) for high in itertools.product((0, 1), repeat=5) if 0 < sum(high) < 5])
    best = np.argmin(np.einsum("k,skn->sn", population, (every - amplitudes) ** 2), 0)
    np.testing.assert_allclose(found, every[best, :, np.arange(200)].T, rtol=1e-9)
    assert np.all([len(np.unique(column.round(9))) == 2 for column in found.T])
    np.testing.assert_allclose(population @ found, population @ amplitudes)


def test_amplitudes_have_two_levels_where_held_out_particles_are_likelier_so(small):
    model, rng = untrained(columns=["amplitude"]), np.random.default_rng(1)
    items = Items(read_particles(str(small / "set" / rundir.STAR)).select(np.arange(100)))
    z, centers, change = np.float32(rng.normal(size=(100, 2))), np.float32(rng.normal(size=(3, 2))), np.zeros((100, 5), np.float32)
    held, population = np.arange(100) % 3 == 0, np.array([0.5, 0.3, 0.2])
    plain = model.decode(centers)[1]
    found, by_levels = (likelihoods(model, items, z, centers, change, amplitudes=a) for a in (None, two_levels(plain, population)))
    np.testing.assert_allclose(likelihoods(model, items, z, centers, change, amplitudes=plain), found)
    assert np.abs(by_levels - found).max() > 0.1

    def told(found, held=held):
        return levelled(model, items, z, held, centers[:found.shape[1]], change, found, population[:found.shape[1]])
    much = 1000 * held[:, None]
    np.testing.assert_allclose(told(found - much), by_levels, rtol=1e-6)      # the others say nothing, however likely
    for better in (found + much, found + much - 1e6 * ~held[:, None]):
        assert told(better) is better
    worse = found - much
    assert told(worse, np.zeros(100, bool)) is worse
    two = worse[:, :2]
    assert told(two) is two      # of two clusters each has its own level


def test_images_that_tell_nothing_leave_the_populations_even():
    probability, population = memberships(np.tile([[-1e5], [-2e5]], (1, 4)))
    np.testing.assert_allclose(population, 0.25)
    np.testing.assert_allclose(probability, 0.25)


def test_a_sharpened_center_is_free_of_the_pull_of_the_prior():
    """Linear images: posterior means are drawn to the prior's mean, by very different amounts along the axes."""
    rng, labels = np.random.default_rng(0), np.repeat([1, 2, 0], [900, 600, 50])
    true = np.array([[0.0, 0.0], [2.0, -1.0], [-1.5, 0.5]])[labels]
    prior = np.array([0.3, 0.0]), np.diag([1.0, 2.0])
    precision = np.einsum("nij,nkj->nik", *[rng.normal(0, (0.9, 0.3), (len(labels), 2, 2))] * 2)
    covariance = np.linalg.inv(precision + prior[1])
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(precision), rng.normal(size=true.shape))
    z = np.einsum("nij,nj->ni", covariance, np.einsum("nij,nj->ni", precision, true) + noise + prior[1] @ prior[0])
    found = sharpened(z, covariance, labels, prior)
    pulled = np.stack([z[labels == k].mean(0) for k in (1, 2)])
    wanted = np.array([[2.0, -1.0], [-1.5, 0.5]])
    assert np.abs(pulled - wanted).max() > 0.7 and np.abs(found - wanted).max() < 0.15


def test_a_center_of_images_that_tell_nothing_stays_among_the_particles():
    z = np.random.default_rng(0).normal(0, 0.1, (300, 3))
    found = sharpened(z, np.tile(np.eye(3), (300, 1, 1)), 1 + (z[:, 0] > 0), (np.zeros(3), np.eye(3)))
    assert np.linalg.norm(found, axis=1).max() < 4.1


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A train run on noisy images of discrete states; its set's folder."""
    folder = simulated(tmp_path_factory.mktemp("states"), "assembly", 400, 0.05)
    assert gmmhet("train", "--out", folder / "train", *training(folder, epochs=25, latent_dim=3, vary="amplitude", pose_errors="none")) == 0
    return folder


def read(folder, name, *flags):
    out = folder / name
    assert gmmhet("analyze", "--out", out, "--model", folder / "train", "--clusters", 4, "--points", 2, *flags) == 0
    with np.load(out / rundir.EMBEDDING) as data:
        return json.loads((out / rundir.SUMMARY).read_text()), dict(data)


def test_images_tell_states_better_than_latent_points_do(states):
    with np.load(states / "set" / rundir.TRUTH) as truth:
        state = truth["true_state"]
    by_image, found = read(states, "image")
    by_latent, plain = read(states, "latent", "--assign-by", "latent")
    assert by_image["assigned_by"] == "image" and by_latent["assigned_by"] == "latent" and "probability" not in plain
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


def test_images_that_are_gone_are_named_before_anything_is_written_and_clusters_by_z_need_none(states, tmp_path, capsys):
    shutil.copytree(states / "train", tmp_path / "train")
    settings = tmp_path / "train" / rundir.MODEL / "model.json"
    settings.write_text(settings.read_text().replace(rundir.STAR, "gone.star"))
    flags = "--model", tmp_path / "train", "--points", 2
    assert gmmhet("analyze", "--out", tmp_path / "a", *flags) == 2
    said = capsys.readouterr().err
    assert "gone.star" in said and "--assign-by latent needs no images" in said and not (tmp_path / "a").exists()
    assert gmmhet("analyze", "--out", tmp_path / "a", *flags, "--assign-by", "latent") == 0


def test_latents_of_an_older_version_are_refused_with_what_they_lack(states, tmp_path, capsys):
    shutil.copytree(states / "train", tmp_path / "train")
    path = tmp_path / "train" / rundir.LATENTS
    with np.load(path) as data:
        kept = {name: data[name] for name in data.files if name != "z_covariance"}
    np.savez(path, **kept)
    assert gmmhet("analyze", "--out", tmp_path / "a", "--model", tmp_path / "train") == 2
    assert "lacks z_covariance: train again, or take --assign-by latent" in capsys.readouterr().err


def test_a_center_is_where_the_images_are_most_likely_between_its_mean_and_its_sharpened_place():
    rng = np.random.default_rng(4)
    true = np.array([[0.0, 0.0], [6.0, 3.0], [-5.0, 2.0]])
    x = true[rng.choice(3, 600, p=[0.2, 0.5, 0.3])] + rng.normal(size=(600, 2))
    means, sharp = np.array([[0.0, 0.0], [2.0, 1.0], [-4.0, 1.6]]), np.array([[4.0, 4.0], [6.0, 3.0], [-6.0, 2.4]])

    def compare(centers):
        return -0.5 * np.sum((x[:, None] - centers) ** 2, -1) + 1e3 * rng.normal(size=600)[:, None]      # constants of an image
    np.testing.assert_allclose(likeliest(compare, means, sharp), true, atol=1e-9)


def posed(states, tmp_path, *rows, turned=(), gone=False):
    """What `posed_particles` makes of a star file that holds some rows, some of them turned; with pose changes of 1 for all."""
    particles, model = read_particles(str(states / "set" / rundir.STAR)), load_model(str(states / "train"))
    rotation = particles.rotation.copy()
    for row in turned:
        rotation[row] = rotation[row] @ Rotation.from_rotvec([0, 0, 0.1]).as_matrix()
    path = str(tmp_path / "given.star")
    particles.with_poses(rotation, particles.shift_angst).select(np.array(rows)).write_star(path)
    latents = dict(np.load(states / "train" / rundir.LATENTS), pose_change=np.ones((400, 5), np.float32))
    if gone:
        model.settings["particles"] = "gone.star"
    return posed_particles(AnalyzeConfig(model=str(states / "train"), particles=path), latents, model), latents["id"], particles, rotation


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
