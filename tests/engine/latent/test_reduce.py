import numpy as np
import pytest

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.reduce import principal_axes, umap_plane


def test_axes_and_explained_variance_equal_the_eigenvectors_of_the_covariance():
    z = np.random.default_rng(0).normal(size=(300, 4)) * (3, 1, 0.5, 0.1)
    axes = principal_axes(z)
    values, vectors = np.linalg.eigh(np.cov(z, rowvar=False))
    np.testing.assert_allclose(axes.explained, values[::-1] / values.sum(), rtol=1e-10)
    np.testing.assert_allclose(np.abs(axes.vectors @ vectors[:, ::-1]), np.eye(4), atol=1e-8)


def test_sign_of_an_axis_does_not_depend_on_the_sign_of_the_data():
    z = np.random.default_rng(1).normal(size=(50, 3)) * (3, 2, 1)
    np.testing.assert_allclose(principal_axes(z).vectors, principal_axes(-z).vectors, atol=1e-10)


def test_particles_that_all_coincide_explain_nothing_and_give_no_nan():
    axes = principal_axes(np.ones((10, 3)))
    assert np.array_equal(axes.explained, np.zeros(3)) and np.array_equal(axes.coordinates(np.ones((2, 3))), np.zeros((2, 2)))


def test_a_one_dimensional_latent_space_is_drawn_with_a_second_coordinate_of_zero():
    z = np.arange(5.0)[:, None]
    np.testing.assert_allclose(principal_axes(z).coordinates(z), np.column_stack([z[:, 0] - 2, np.zeros(5)]))


@pytest.mark.filterwarnings("ignore")   # umap-learn imports TensorFlow and numba, which warn about each other
def test_umap_keeps_two_states_apart_and_repeats_with_its_seed():
    z = np.random.default_rng(2).normal(size=(60, 3))
    z[:30] += 20
    xy = umap_plane(z, 10, seed=3)
    assert np.array_equal(xy, umap_plane(z, 10, seed=3))
    within = np.linalg.norm(xy[:30] - xy[:30].mean(0), axis=1).max()
    assert np.linalg.norm(xy[:30].mean(0) - xy[30:].mean(0)) > within


def test_umap_with_more_neighbours_than_particles_says_what_to_do():
    with pytest.raises(LatentError, match=r"--umap-neighbours must be less than the number of particles \(8\), got 15: lower it"):
        umap_plane(np.zeros((8, 2)), 15, seed=1)
