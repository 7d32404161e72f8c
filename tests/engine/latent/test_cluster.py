import numpy as np
import pytest

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.cluster import cluster_centers, density_labels, kmeans_labels, number_by_size


def three_groups():
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 2, 3], [300, 150, 50])
    return rng.normal(0, 0.2, (500, 2)) + np.array([[0, 0], [4, 0], [0, 4]])[truth - 1], truth


def test_labels_are_renumbered_from_the_largest_cluster_and_noise_is_zero():
    assert number_by_size([7, 7, 2, 2, 2, -1, 5]).tolist() == [2, 2, 1, 1, 1, 0, 3]


def test_kmeans_finds_separate_groups_in_order_of_size_and_repeats():
    z, truth = three_groups()
    labels = kmeans_labels(z, 3, seed=5)
    assert np.array_equal(labels, truth) and np.array_equal(labels, kmeans_labels(z, 3, seed=5))


def test_density_finds_the_number_of_groups_itself_and_leaves_a_lone_point_out():
    z, truth = three_groups()
    labels = density_labels(np.append(z, [[20, 20]], axis=0))
    assert labels.max() == 3 and labels[-1] == 0
    assert np.mean(labels[:-1] == truth) > 0.95


def test_centers_are_the_means_of_the_clusters():
    z, truth = three_groups()
    np.testing.assert_allclose(cluster_centers(z, truth)[1], z[truth == 2].mean(axis=0))
    assert cluster_centers(z, np.zeros(500, int)).shape == (0, 2)


def test_more_clusters_than_particles_is_refused_with_both_numbers():
    with pytest.raises(LatentError,
                       match=r"--clusters must be at most the number of particles with different z \(3\), "
                             r"got 4"):
        kmeans_labels(np.arange(3.0)[:, None], 4, seed=1)


def test_density_with_too_few_particles_says_how_many_it_needs():
    with pytest.raises(LatentError,
                       match="--clusters 0 .* needs at least 10 particles, got 6: give the number of "
                             "clusters"):
        density_labels(np.zeros((6, 2)))
