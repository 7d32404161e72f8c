"""Clusters by image: likelihoods at centers, the centers themselves, and populations."""
import itertools

import numpy as np
import pytest
import tensorflow as tf
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.inference.cluster_membership import (
    ImageComparison,
    memberships,
    mixture_log_likelihood,
    occupied,
    optimise_centers,
    two_level_amplitudes,
    unshrunk_centers,
)
from gmmhet.engine.particles.particle_set import read_particles


@pytest.mark.parametrize("symmetry,whole_unit", [("c1", True), ("c1", False), ("c3", True), ("c3", False)])
def test_likelihoods_are_of_whole_particles_with_one_copy_at_a_center(small, symmetry, whole_unit):
    model, rng = untrained(symmetry, whole_unit=whole_unit), np.random.default_rng(1)
    particles = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(5))
    views, copies = Views(particles, symmetry), model.copies
    z, centers = np.float32(rng.normal(size=(len(views), 2))), np.float32(rng.normal(size=(3, 2)))
    change = np.float32(rng.normal(0, 0.1, (5, 5)))
    found = ImageComparison(model, views, z, change, batch_size=2).log_likelihood(centers)
    observed = model.image_model.observe(views.batch(np.arange(5)))
    pose = Pose(*map(tf.constant, observed.pose)).perturbed(tf.constant(change))

    def whole(points):
        mixture = model.symmetry.assemble(model.mixture(tf.constant(points)))
        return model.image_model.log_likelihood(mixture, observed, pose).numpy()
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
    # posteriors overlap: the shares of the most probable cluster are wrong
    seen = rng.normal(np.array([-2.0, 0.0, 2.0])[state])
    probability, found = memberships(-0.5 * (seen[:, None] - [-2.0, 0.0, 2.0]) ** 2)
    np.testing.assert_allclose(found, population, atol=0.01)
    np.testing.assert_allclose(probability.sum(1), 1)
    for low in (0.5, 0.7, 0.9):      # a cluster that is 60 % probable is right in 60 % of the cases
        near = (probability.max(1) >= low) & (probability.max(1) < low + 0.1)
        right = np.mean(probability.argmax(1)[near] == state[near])
        assert right == pytest.approx(probability.max(1)[near].mean(), abs=0.03)


def test_two_levels_part_the_clusters_where_least_squares_are_least():
    amplitudes = np.random.default_rng(0).gamma(2.0, 1.0, (5, 200))
    population = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
    found = two_level_amplitudes(amplitudes, population)

    def parted(high):
        levels = [population[part] @ amplitudes[part] / population[part].sum() for part in (~high, high)]
        return np.where(high[:, None], levels[1], levels[0])
    every = np.array([parted(np.array(high, bool)) for high in itertools.product((0, 1), repeat=5)
                      if 0 < sum(high) < 5])
    best = np.argmin(np.einsum("k,skn->sn", population, (every - amplitudes) ** 2), 0)
    np.testing.assert_allclose(found, every[best, :, np.arange(200)].T, rtol=1e-9)
    assert np.all([len(np.unique(column.round(9))) == 2 for column in found.T])
    np.testing.assert_allclose(population @ found, population @ amplitudes)


def test_images_that_tell_nothing_leave_the_populations_even():
    probability, population = memberships(np.tile([[-1e5], [-2e5]], (1, 4)))
    np.testing.assert_allclose(population, 0.25)
    np.testing.assert_allclose(probability, 0.25)


def test_an_unshrunk_center_is_free_of_the_pull_of_the_prior():
    """Linear images: posterior means are drawn to the prior's mean, by very different amounts along the
    axes."""
    rng, labels = np.random.default_rng(0), np.repeat([1, 2, 0], [900, 600, 50])
    true = np.array([[0.0, 0.0], [2.0, -1.0], [-1.5, 0.5]])[labels]
    prior = np.array([0.3, 0.0]), np.diag([1.0, 2.0])
    precision = np.einsum("nij,nkj->nik", *[rng.normal(0, (0.9, 0.3), (len(labels), 2, 2))] * 2)
    covariance = np.linalg.inv(precision + prior[1])
    noise = np.einsum("nij,nj->ni", np.linalg.cholesky(precision), rng.normal(size=true.shape))
    z = np.einsum("nij,nj->ni", covariance,
                  np.einsum("nij,nj->ni", precision, true) + noise + prior[1] @ prior[0])
    found = unshrunk_centers(z, covariance, labels, prior)
    pulled = np.stack([z[labels == k].mean(0) for k in (1, 2)])
    wanted = np.array([[2.0, -1.0], [-1.5, 0.5]])
    assert np.abs(pulled - wanted).max() > 0.7 and np.abs(found - wanted).max() < 0.15


def test_a_center_of_images_that_tell_nothing_stays_among_the_particles():
    z = np.random.default_rng(0).normal(0, 0.1, (300, 3))
    found = unshrunk_centers(z, np.tile(np.eye(3), (300, 1, 1)), 1 + (z[:, 0] > 0), (np.zeros(3), np.eye(3)))
    assert np.linalg.norm(found, axis=1).max() < 4.1


def test_a_center_is_where_the_images_are_most_likely_between_its_mean_and_its_unshrunk_place():
    rng = np.random.default_rng(4)
    true = np.array([[0.0, 0.0], [6.0, 3.0], [-5.0, 2.0]])
    x = true[rng.choice(3, 600, p=[0.2, 0.5, 0.3])] + rng.normal(size=(600, 2))
    means = np.array([[0.0, 0.0], [2.0, 1.0], [-4.0, 1.6]])
    unshrunk = np.array([[4.0, 4.0], [6.0, 3.0], [-6.0, 2.4]])

    def compare(centers):
        # constants of an image
        return -0.5 * np.sum((x[:, None] - centers) ** 2, -1) + 1e3 * rng.normal(size=600)[:, None]
    np.testing.assert_allclose(optimise_centers(compare, means, unshrunk), true, atol=1e-9)


def test_images_of_some_particles_are_compared_as_among_all(small):
    model, rng = untrained("c3", whole_unit=False), np.random.default_rng(1)
    views = Views(read_particles(str(small / "set" / rundir.STAR)).select(np.arange(6)), "c3")
    z, centers = np.float32(rng.normal(size=(18, 2))), np.float32(rng.normal(size=(2, 2)))
    comparison = ImageComparison(model, views, z, np.float32(rng.normal(0, 0.1, (6, 5))))
    some, rows = comparison.of_particles(np.array([4, 1])), views.of(np.array([4, 1])).ravel()
    np.testing.assert_allclose(some.log_likelihood(centers), comparison.log_likelihood(centers)[rows],
                               atol=1e-3)


def test_the_log_likelihood_of_a_mixture_is_the_log_of_the_weighted_sum():
    values, population = np.array([[0.3, -1.0], [-900.0, -901.0]]), np.array([0.2, 0.8])
    found = mixture_log_likelihood(values, population)
    assert found[0] == pytest.approx(np.log(0.2 * np.exp(0.3) + 0.8 * np.exp(-1.0)))
    assert found[1] == pytest.approx(-900 + np.log(0.2 + 0.8 * np.exp(-1.0)))


def test_a_cluster_that_no_image_fits_best_vanishes_with_its_center():
    likelihood = np.zeros((30, 3)) - 50.0
    likelihood[:20, 0], likelihood[20:, 2] = 0, 0
    found = occupied(np.arange(3.0)[:, None], likelihood)
    assert found.centers.ravel().tolist() == [0, 2]
    assert found.log_likelihood.shape == found.probability.shape == (30, 2)
    np.testing.assert_allclose(found.population, [2 / 3, 1 / 3], atol=1e-6)
