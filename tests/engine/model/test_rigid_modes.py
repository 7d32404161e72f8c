"""What of a motion is that of the whole, and of ever smaller parts, each as one rigid body."""
import numpy as np
import pytest

from gmmhet.engine.model.deformation import anchor_weights
from gmmhet.engine.model.rigid_modes import (
    FEWEST_IN_PART,
    LEAST_LEFT,
    RIDGE,
    TINY,
    part_tree,
    ridged,
    rigid_modes,
    rigid_motions,
)

EDGE = 25.0


@pytest.fixture(scope="module")
def molecule():
    """Points of two domains of unlike size, weights of their anchors, information alike of neighbours."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-20, 20, (120, 3)), rng.uniform(-12, 12, (60, 3)) + [50, 0, 0]])
    weights = anchor_weights(points, 10.0).astype(float)
    alike = np.exp(-np.sum((points[:, None] - points) ** 2, 2) / (2 * 8.0**2)) + 0.01 * np.eye(len(points))
    information = np.kron(weights.T @ alike @ weights, np.diag([1.0, 2.0, 0.5]))
    return points, weights, information


def metric(information):
    """What modes are orthonormal in."""
    diagonal = np.diag(information)
    return information + np.diag(RIDGE * diagonal + TINY * diagonal.max())


def test_each_depth_splits_the_parts_of_the_one_before_until_they_are_small(molecule):
    points = molecule[0]
    parts, ends = part_tree(points, EDGE)
    assert np.array_equal(parts[0], np.arange(len(points)))
    assert ends[0] == 1 and ends[-1] == len(parts) and len(ends) > 2
    depths = np.split(np.arange(len(parts)), ends[:-1])
    for before, after in zip(depths, depths[1:]):
        members = np.concatenate([parts[number] for number in after])
        assert len(set(members)) == len(members) > 0
        for number in after:
            assert sum(set(parts[number]) <= set(parts[parent]) for parent in before) == 1
    holds = [sum(set(part) > set(other) for other in parts) for part in parts]
    leaves = [part for part, inside in zip(parts, holds) if not inside]      # which make up the whole
    for part in leaves:
        size = np.sqrt(np.mean(np.sum((points[part] - points[part].mean(0)) ** 2, 1)))
        assert size <= 0.5 * EDGE or len(part) < FEWEST_IN_PART
    assert sorted(np.concatenate(leaves)) == list(range(len(points)))


@pytest.mark.parametrize("count", [1, 2, FEWEST_IN_PART - 1])
def test_few_points_are_one_part(count):
    parts, ends = part_tree(np.random.default_rng(1).normal(0, 50, (count, 3)), EDGE)
    assert [len(part) for part in parts] == [count] and ends == [1]


def test_rigid_motions_keep_all_distances_and_are_alike_in_size(molecule):
    points = molecule[0]
    motions = rigid_motions(points)
    apart, moves = points[:, None] - points, motions[:, None] - motions
    np.testing.assert_allclose(np.einsum("ijc,ijck->ijk", apart, moves), 0, atol=1e-9)
    np.testing.assert_allclose(np.mean(np.sum(motions**2, 1), 0)[:3], 1, rtol=1e-9)
    assert np.mean(np.sum(motions**2, 1), 0)[3:].sum() == pytest.approx(2)
    assert np.linalg.matrix_rank(motions.reshape(-1, 6)) == 6


def test_modes_are_orthonormal_in_the_information_and_dual_modes_read_them_off(molecule):
    points, weights, information = molecule
    parts, _ = part_tree(points, EDGE)
    modes, dual_modes, owner = rigid_modes(information, weights, points, parts)
    assert modes.shape == dual_modes.shape == (len(information), len(owner)) and np.any(modes, 0).all()
    assert np.array_equal(owner[:6], [0] * 6) and len(owner) > 18
    assert np.all(np.diff(owner) >= 0) and np.bincount(owner).max() == 6 and owner[-1] < len(parts)
    np.testing.assert_allclose(dual_modes.T @ modes, np.eye(len(owner)), atol=1e-8)
    np.testing.assert_allclose(modes.T @ metric(information) @ modes, np.eye(len(owner)), atol=1e-8)


def test_a_motion_of_the_whole_and_of_a_domain_take_few_numbers(molecule):
    points, weights, information = molecule
    parts, _ = part_tree(points, EDGE)
    _, dual_modes, owner = rigid_modes(information, weights, points, parts)
    known = metric(information)
    rng, domain = np.random.default_rng(2), np.arange(len(points)) >= 120
    domains = {tuple(np.flatnonzero(domain)), tuple(np.flatnonzero(~domain))}
    assert {tuple(part) for part in parts[1:3]} == domains
    back = np.linalg.pinv(weights, rcond=0.03)
    for moves, numbers in ((np.ones(len(points), bool), 6), (domain, np.sum(owner < 3))):
        field = rigid_motions(points[moves]) @ rng.normal(size=6)
        u = (back[:, moves] @ field).ravel()
        read = dual_modes.T @ u
        energy = u @ known @ u
        assert np.sum(read[:numbers] ** 2) > 0.9 * energy
        assert np.sum(read**2) <= energy * (1 + 1e-9)
        if numbers > 6:
            assert np.sum(read[:6] ** 2) < 0.7 * energy
    # one error of estimation in every direction
    noise = np.linalg.solve(np.linalg.cholesky(known).T, rng.normal(size=(len(known), 4000)))
    np.testing.assert_allclose(np.mean((dual_modes.T @ noise) ** 2, 1), 1, atol=0.15)


def test_a_part_without_motions_of_its_own_has_none(molecule):
    points, weights, information = molecule
    everything = np.arange(len(points))
    parts = [everything, everything, everything[:2], everything[:1]]
    *_, owner = rigid_modes(information, weights, points, parts)
    own = np.bincount(owner, minlength=4)
    assert LEAST_LEFT > 0 and own[0] == 6 and own[1] == 0 and own[2] + own[3] <= 9


def test_anchors_that_no_image_shows_are_no_trouble(molecule):
    points, weights, information = molecule
    hidden = np.repeat(np.arange(weights.shape[1]) < 5, 3)
    information = np.where(hidden[:, None] | hidden, 0, information)
    parts, _ = part_tree(points, EDGE)
    modes, dual_modes, owner = rigid_modes(information, weights, points, parts)
    assert np.all(np.isfinite(modes)) and np.array_equal(owner[:6], [0] * 6)
    np.testing.assert_allclose(dual_modes.T @ modes, np.eye(len(owner)), atol=1e-5)
    shown = rigid_modes(molecule[2], weights, points, parts)[0]
    assert np.abs(modes).max() < 10 * np.abs(shown).max()


def test_what_is_added_to_an_information_is_a_share_of_its_diagonal():
    matrix = np.array([[4.0, 1.0], [1.0, 0.0]])
    found = ridged(matrix, 0.3)
    np.testing.assert_allclose(found, [[5.2, 1.0], [1.0, 4.0 * TINY]], rtol=1e-6)
    np.testing.assert_array_equal(matrix[1], [1, 0])      # and the matrix itself stays
