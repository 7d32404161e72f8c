"""The owner of latents.npz: what it saves it loads, it joins by id and copy, and says what is missing;
nearest points and principal axes."""
import numpy as np
import pytest

from gmmhet.engine import rundir
from gmmhet.engine.latents import Latents, LatentsError, MissingLatents, nearest_rows, principal_axes


@pytest.fixture
def latents():
    """Four particles in two symmetry copies each, their rows shuffled."""
    order = np.random.default_rng(0).permutation(8)
    return Latents(np.repeat([7, 3, 9, 5], 2)[order], np.tile([0, 1], 4)[order],
                   np.arange(16.0).reshape(8, 2)[order])


def test_what_is_saved_is_loaded_and_the_file_calls_ids_id(latents, tmp_path):
    latents.save(str(tmp_path))
    with np.load(tmp_path / rundir.LATENTS) as data:
        assert sorted(data.files) == ["copy", "id", "z"]
    found = Latents.load(str(tmp_path))
    assert np.array_equal(found.ids, latents.ids) and np.array_equal(found.z, latents.z)
    assert found.z_covariance is None
    assert len(found) == 8 and found.dimension == 2 and found.copies == 2


def test_rows_are_found_by_id_and_copy(latents):
    rows = latents.rows_of([9, 7])
    assert rows.shape == (2, 2)
    assert latents.ids[rows].tolist() == [[9, 9], [7, 7]] and latents.copy[rows].tolist() == [[0, 1], [0, 1]]
    assert latents.z[latents.rows_of([9, 7], [1, 0])].tolist() == [[10, 11], [0, 1]]
    assert latents.rows_of([]).shape == (0, 2)


def test_particles_without_a_latent_point_are_named(latents):
    with pytest.raises(MissingLatents,
                       match=r"2 of 3 particles have no latent point \(ids 4, 8\)") as refusal:
        latents.rows_of([4, 9, 8])
    assert refusal.value.missing == [4, 8]
    with pytest.raises(MissingLatents, match="ids 9"):
        latents.rows_of([9], [2])


def test_selected_rows_keep_every_array(latents):
    full = Latents(latents.ids, latents.copy, latents.z, held_out=latents.ids == 7)
    few = full.select(full.held_out)
    assert set(few.ids) == {7} and few.held_out.all() and few.evidence is None


def test_a_file_that_is_not_there_or_lacks_something_is_refused(latents, tmp_path):
    with pytest.raises(LatentsError,
                       match="holds no latents.npz: expected the folder of a finished 'train' run"):
        Latents.load(str(tmp_path))
    latents.save(str(tmp_path))
    with pytest.raises(LatentsError,
                       match="latents.npz lacks z_covariance and held_out: it is of an older version"):
        Latents.load(str(tmp_path), needed=("z", "z_covariance", "held_out"))


# ---- the nearest

Z = np.random.default_rng(0).normal(size=(500, 3)) * (3, 1, 0.3)


def test_nearest_rows_equal_sorting_every_distance_and_of_equals_the_first_comes_first():
    point = np.array([1.0, 0.5, 0])
    slow = sorted(range(500), key=lambda i: np.sum((Z[i] - point) ** 2))
    assert nearest_rows(Z, point, 20).tolist() == slow[:20]
    assert nearest_rows(Z, point, 900).tolist() == slow
    assert nearest_rows(np.array([[1.0], [0], [-1], [1], [3]]), np.zeros(1), 3).tolist() == [1, 0, 2]
    assert nearest_rows(Z, point, 0).tolist() == []


def test_points_that_are_no_numbers_are_the_farthest():
    z = np.array([[np.nan], [1.0], [0.0]])
    assert nearest_rows(z, np.zeros(1), 2).tolist() == [2, 1]
    assert nearest_rows(z, np.zeros(1), 3).tolist() == [2, 1, 0]


def test_nearest_particles_are_different_ones_each_at_its_nearest_copy():
    z = np.array([[0.0], [0.1], [0.2], [5.0], [1.0], [6.0]])
    latents = Latents(np.repeat([10, 20, 30], 2), np.tile([0, 1], 3), z)
    assert latents.nearest([0.0], 2).tolist() == [0, 2] and latents.nearest([0.0], 9).tolist() == [0, 2, 4]
    assert latents.nearest([5.4], 1).tolist() == [3]


def test_nearness_is_plain_distance_in_z():
    z = np.array([[0, 0.3], [0.02, 0], [-0.02, 1], [5, 900], [-5, -900], [0.5, 0]])
    latents = Latents(np.array([4, 9, 9, 7, 7, 2]), np.array([0, 0, 1, 0, 1, 0]), z)
    rows = latents.nearest(np.zeros(2), 2)
    assert latents.ids[rows].tolist() == [9, 4] and latents.copy[rows].tolist() == [0, 0]
    assert latents.copy[latents.nearest(z[2], 1)].tolist() == [1]


# ---- principal axes

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
    assert np.array_equal(axes.explained, np.zeros(3))
    assert np.array_equal(axes.coordinates(np.ones((2, 3))), np.zeros((2, 2)))


def test_a_one_dimensional_latent_space_is_drawn_with_a_second_coordinate_of_zero():
    z = np.arange(5.0)[:, None]
    np.testing.assert_allclose(principal_axes(z).coordinates(z), np.column_stack([z[:, 0] - 2, np.zeros(5)]))


def test_principal_axes_of_a_single_point_are_refused():
    with pytest.raises(LatentsError, match="z must hold at least 2 points for principal axes, got 1"):
        principal_axes(np.zeros((1, 3)))
