import numpy as np
import pytest
import reference

from gmmhet.engine.imaging.pose import (
    angular_distance_deg,
    euler_from_rotation,
    random_rotations,
    rotation_from_euler,
    rotation_from_vector,
    symmetry_matrices,
)

ANGLES = [(0, 0, 0), (30, 60, 90), (-170, 10, 45), (12, 90, -33), (179.9, 179.5, -179.9), (5, 0.001, 7),
          (40, 0, 20), (40, 180, 20),
          (-90, 180, 10)]


@pytest.mark.parametrize("angles", ANGLES)
def test_rotation_equals_relions_matrix_formula(angles):
    np.testing.assert_allclose(rotation_from_euler(*angles)[0], reference.relion_matrix(*angles), atol=1e-12)


@pytest.mark.parametrize("angles", ANGLES)
def test_euler_angles_read_back_give_the_same_rotation_also_at_tilt_0_and_180(angles):
    rotation = rotation_from_euler(*angles)
    np.testing.assert_allclose(rotation_from_euler(*euler_from_rotation(rotation)), rotation, atol=1e-6)


def test_euler_angles_of_random_rotations_round_trip_and_tilt_lies_between_0_and_180():
    rotation = random_rotations(500, np.random.default_rng(0))
    rot, tilt, psi = euler_from_rotation(rotation)
    np.testing.assert_allclose(rotation_from_euler(rot, tilt, psi), rotation, atol=1e-9)
    assert tilt.min() >= 0 and tilt.max() <= 180 and np.abs(rot).max() <= 180 and np.abs(psi).max() <= 180


def test_euler_angles_are_the_given_ones_away_from_the_poles():
    rng = np.random.default_rng(1)
    angles = rng.uniform(-179, 179, 50), rng.uniform(1, 179, 50), rng.uniform(-179, 179, 50)
    np.testing.assert_allclose(euler_from_rotation(rotation_from_euler(*angles)), angles, atol=1e-7)


def test_float32_rotations_near_the_poles_come_back_within_a_hundredth_of_a_degree():
    rotation = rotation_from_euler([10, 10, -50, 77], [0.002, 179.998, 0.02, 180],
                                   [20, 30, 40, 50]).astype(np.float32)
    back = rotation_from_euler(*euler_from_rotation(rotation))
    assert angular_distance_deg(rotation.astype(float), back).max() < 0.01


def test_the_view_along_z_is_named_by_the_third_row():
    rot, tilt = 35.0, 70.0
    view = rotation_from_euler(rot, tilt, 123.0)[0, 2]
    expected = [np.sin(np.radians(tilt)) * np.cos(np.radians(rot)),
                np.sin(np.radians(tilt)) * np.sin(np.radians(rot)),
                np.cos(np.radians(tilt))]
    np.testing.assert_allclose(view, expected, atol=1e-12)


def test_rotation_vectors_turn_by_their_length_about_their_direction():
    turn = rotation_from_vector([[0, 0, np.pi / 2]])[0]
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    assert angular_distance_deg(np.eye(3)[None],
                                rotation_from_vector([[0.1, 0.2, -0.2]]))[0] == pytest.approx(np.degrees(0.3))


def test_random_rotations_are_proper_uniform_and_repeat_with_the_seed():
    a, b = (random_rotations(4000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.linalg.det(a), 1)
    # standard error 1 / sqrt(3 * 4000)
    assert np.abs(a[:, 2].mean(0)).max() < 0.04
    np.testing.assert_allclose(a[:, 2].T @ a[:, 2] / 4000, np.eye(3) / 3, atol=0.03)


@pytest.mark.parametrize("group,order", [("c1", 1), ("c3", 3), ("C7", 7), ("d1", 2), ("d2", 4), ("D5", 10),
                                         (" c4 ", 4)])
def test_symmetry_matrices_are_a_group_of_the_right_order_with_the_identity_first(group, order):
    matrices = symmetry_matrices(group)
    assert len(matrices) == order
    np.testing.assert_allclose(matrices[0], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, 3, 3)
    distance = np.abs(products[:, None] - matrices[None]).max((2, 3))
    assert np.all(distance.min(1) < 1e-12)
    assert np.all(np.abs(matrices[:, None] - matrices[None]).max((2, 3))[~np.eye(order, dtype=bool)] > 1e-3)


def test_dihedral_groups_have_a_twofold_along_x():
    assert np.abs(symmetry_matrices("d3") - np.diag([1, -1, -1])).max((1, 2)).min() < 1e-12


@pytest.mark.parametrize("group", ["c0", "o", "i2", "", "c", "3", "c3x", "d-2"])
def test_other_symmetries_are_refused_with_their_name(group):
    with pytest.raises(ValueError, match=r"symmetry must be cN or dN \(such as c3 or d2\), got '%s'" % group):
        symmetry_matrices(group)
