"""The plane in which latent points are drawn."""
import numpy as np
import pytest

from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.reduce import Plane, embed, umap_plane
from gmmhet.engine.latents import principal_axes

Z = np.random.default_rng(0).normal(size=(300, 4)) * (3, 1, 0.5, 0.1)


def test_the_plane_of_principal_axes_names_their_variance_and_places_other_points_exactly():
    axes = principal_axes(Z)
    plane = embed(AnalyzeConfig(), Z, axes)
    np.testing.assert_allclose(plane.xy, axes.coordinates(Z))
    np.testing.assert_allclose(plane.place(Z[:3]), plane.xy[:3])
    assert plane.axis_labels[0] == "Principal axis 1 of z  (%.1f %%)" % (100 * axes.explained[0])


def test_one_dimension_has_a_second_axis_of_nothing():
    plane = embed(AnalyzeConfig(), Z[:, :1], principal_axes(Z[:, :1]))
    assert plane.axis_labels[1].endswith("(0.0 %)") and not plane.xy[:, 1].any()


def test_in_another_plane_a_point_lies_in_the_middle_of_its_50_nearest():
    xy = np.random.default_rng(1).normal(size=(300, 2))
    near = np.argsort(np.linalg.norm(Z - Z[7], axis=1))[:50]
    np.testing.assert_allclose(Plane(xy, ("", ""), None, Z).place(Z[7:8]), [xy[near].mean(0)])


@pytest.mark.filterwarnings("ignore")   # umap-learn imports TensorFlow and numba, which warn about each other
def test_umap_keeps_two_states_apart_and_repeats_with_its_seed():
    z = np.random.default_rng(2).normal(size=(60, 3))
    z[:30] += 20
    xy = umap_plane(z, 10, seed=3)
    assert np.array_equal(xy, umap_plane(z, 10, seed=3))
    within = np.linalg.norm(xy[:30] - xy[:30].mean(0), axis=1).max()
    assert np.linalg.norm(xy[:30].mean(0) - xy[30:].mean(0)) > within


def test_umap_with_more_neighbours_than_particles_says_what_to_do():
    z = np.zeros((8, 2))
    with pytest.raises(LatentError,
                       match=r"--umap-neighbours must be less than the number of particles \(8\), got 15: "
                             r"lower it"):
        embed(AnalyzeConfig(embedding="umap"), z, principal_axes(z))
