"""The linear start: what is signal in the gradients is told from noise, in closed form."""
import numpy as np
import pytest
from scipy import sparse

from gmmhet.engine.initialization.subspace import (
    LEAST_STRENGTH,
    Covariances,
    Subspace,
    find_subspace,
    group_sums,
    streamed_covariances,
)
from gmmhet.engine.model.rigid_modes import rigid_modes, rigid_motions


def gaussian(count, covariance, seed):
    return np.random.default_rng(seed).normal(size=(count,
                                                    len(covariance))) @ np.linalg.cholesky(covariance).T


@pytest.fixture(scope="module")
def noise():
    """A covariance of 12 columns, neighbours alike, as of gradients by overlapping Gaussians; columns of very
    different size."""
    apart = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    size = np.geomspace(1, 1e3, 12)
    return np.exp(-apart / 2.0) * np.outer(size, size)


def found_in(noise, directions, kept=6, count=4000):
    """The subspace of particles that differ by F d of each direction [D, 12], F being the noise's
    covariance."""
    whole = noise + sum(np.outer(noise @ d, noise @ d) for d in directions)
    halves = [streamed_covariances([gaussian(count, whole, seed)], [12])[0] for seed in (1, 2)]
    nulls = [streamed_covariances([gaussian(count, noise, seed)], [12])[0] for seed in (3, 4)]
    return find_subspace(Covariances(halves, nulls), kept)


def test_streamed_covariances_are_those_of_all_rows():
    rows = np.random.default_rng(0).normal(3, 2, (1000, 5))
    whole = np.cov(rows, rowvar=False, bias=True)
    first, second = streamed_covariances(np.array_split(rows, 7), [2, 3])
    np.testing.assert_allclose(first, whole[:2, :2], rtol=1e-9)
    np.testing.assert_allclose(second, whole[2:, 2:], rtol=1e-9)


def test_the_direction_along_which_particles_differ_is_found_with_its_strength(noise):
    d = np.random.default_rng(5).normal(size=12) / np.sqrt(np.diag(noise))
    d *= np.sqrt(5.0 / (d @ noise @ d))      # lambda - 1 = 5
    found = found_in(noise, [d])
    assert found.strength[0] == pytest.approx(5.0, rel=0.2) and found.significant == 1
    assert np.all(found.strength[1:] < LEAST_STRENGTH)
    # the ridge turns the axis a little away from d, in the metric of the noise
    overlap = (found.axes[:, 0] @ noise @ d) ** 2 / (d @ noise @ d)
    assert overlap > 0.9
    assert found.evidence(4) == pytest.approx(0.5 * (5 - np.log(6)), rel=0.3)


def test_axes_have_unit_variance_in_noise(noise):
    found = found_in(noise, [])
    projected = gaussian(20000, noise, 9) @ found.axes
    np.testing.assert_allclose(projected.var(0), 1, rtol=0.1)


def test_homogeneous_particles_have_no_significant_axis(noise):
    found = found_in(noise, [])
    assert found.significant == 0 and found.evidence(4) == 0.0 and np.all(found.strength >= 0)


def test_strength_is_not_that_of_the_particles_that_an_axis_was_found_with(noise):
    """With about as many columns as particles the best in-sample axis always looks strong."""
    few = found_in(noise, [], count=40)
    assert few.strength[0] < 1.0


def test_fewer_particles_than_columns_give_strengths_that_rounding_does_not_change(noise):
    """A half of 6 particles has rank 5: what it says of the other axes is nothing, and not by chance."""
    halves = [streamed_covariances([gaussian(6, noise, seed)], [12])[0] for seed in (1, 2)]
    nulls = [streamed_covariances([gaussian(4000, noise, seed)], [12])[0] for seed in (3, 4)]
    found = find_subspace(Covariances(halves, nulls), 12)
    assert np.all(found.strength[5:] == 0) and np.any(found.strength[:5] > 0)
    rounded = [null * (1 + 1e-10 * np.cos(np.add.outer(np.arange(12), np.arange(12)))) for null in nulls]
    again = find_subspace(Covariances(halves, rounded), 12)
    np.testing.assert_allclose(again.strength, found.strength, atol=1e-6)


def test_columns_without_any_variance_do_no_harm(noise):
    padded = np.zeros((14, 14))
    padded[:12, :12] = noise
    found = find_subspace(Covariances([padded, padded], [padded, padded]), 5)
    assert np.all(np.isfinite(found.axes)) and np.all(np.isfinite(found.strength))


def test_evidence_counts_as_many_axes_as_there_are_latent_dimensions():
    found = Subspace(np.zeros((3, 3)), np.array([3.0, 1.0, 0.1]))
    assert found.significant == 2
    assert found.evidence(1) == pytest.approx(0.5 * (3 - np.log(4)))
    assert found.evidence(8) == pytest.approx(0.5 * (4 - np.log(4) - np.log(2)))
    assert np.all(np.diff(found.scale * np.sqrt(1 + found.strength)) < 0)


def test_axes_of_outputs_taken_together_see_the_same_in_the_gradients_of_the_single_ones():
    rng = np.random.default_rng(3)
    merged = [sparse.csr_array(np.eye(4)[rng.permutation(12) % 4]),
              sparse.csr_array(np.eye(3)[np.arange(9) % 3])]
    gradients = rng.normal(size=(5, 21))
    together = group_sums(gradients, merged)
    assert together.shape == (5, 7)
    np.testing.assert_allclose(together.sum(1), gradients.sum(1))
    for matrix, part, single in zip(merged, np.split(together, [4], axis=1),
                                    np.split(gradients, [12], axis=1)):
        found = Subspace(rng.normal(size=(matrix.shape[1], 2)), np.ones(2))
        np.testing.assert_allclose(single @ found.expanded(matrix).axes, part @ found.axes)


@pytest.fixture(scope="module")
def parts():
    """20 points in two halves that move along three axes, the noise of their 60 columns, and the rigid modes
    of whole and halves."""
    rng = np.random.default_rng(11)
    points = np.concatenate([rng.normal(0, 8, (10, 3)), rng.normal(0, 8, (10, 3)) + [40, 0, 0]])
    noise = np.eye(60) + 0.3 * np.kron(np.exp(-np.sum((points[:, None] - points) ** 2, 2) / 200), np.eye(3))
    return points, noise, rigid_modes(noise, np.eye(20), points,
                                      [np.arange(20), np.arange(10), np.arange(10, 20)])


def with_and_without(parts, d, strength, count, kept, seed=0):
    """The subspace of particles that differ along d, sought without and with modes of parts, how alike their
    first axes are to d, and what homogeneous images are."""
    _, noise, modes = parts
    d = d * np.sqrt(strength / (d @ noise @ d))
    whole = noise + np.outer(noise @ d, noise @ d)
    halves, nulls = ([streamed_covariances([gaussian(count, covariance, 10 * seed + i)], [60])[0]
                      for i in numbers]
                     for covariance, numbers in ((whole, (1, 2)), (noise, (3, 4))))
    found = [find_subspace(Covariances(halves, nulls), kept, 2),
             find_subspace(Covariances(halves, nulls), kept, 2, modes, [1, 3])]
    return found, [(f.axes[:, 0] @ noise @ d) ** 2 / (d @ noise @ d) for f in found], nulls


def test_a_faint_motion_of_a_part_is_found_among_the_motions_of_parts(parts):
    points, alike = parts[0], []
    for seed in range(8):
        d = np.zeros((20, 3))
        d[10:] = rigid_motions(points[10:]) @ np.random.default_rng(seed).normal(size=6)
        (alone, found), overlap, nulls = with_and_without(parts, d.ravel(), 0.6, 600, 60, seed)
        alike.append(overlap)
        assert found.evidence(2) >= alone.evidence(2)
        assert found.axes.shape == (60, 60) and found.significant == 1
        assert np.linalg.matrix_rank(found.axes) == 60       # what is left beside the parts is seen too
        np.testing.assert_allclose(np.sum(found.axes * (0.5 * (nulls[0] + nulls[1]) @ found.axes), 0), 1,
                                   rtol=1e-9)
    alone, found = np.mean(alike, 0)
    assert found > 0.9 and 1 - found < 0.6 * (1 - alone)


def test_fewer_axes_are_the_first_of_many(parts):
    d = np.zeros((20, 3))
    d[10:] = rigid_motions(parts[0][10:])[..., 4]
    many, few = (with_and_without(parts, d.ravel(), 0.6, 600, kept)[0][1] for kept in (60, 4))
    assert few.axes.shape == (60, 4)
    first, same = few.axes[:, 0], many.axes[:, 0]
    np.testing.assert_allclose(first * np.sign(first @ same), same, rtol=1e-6, atol=1e-9)


def test_a_motion_that_is_none_of_parts_is_found_as_without_them(parts):
    modes, dual, _ = parts[2]
    d = np.random.default_rng(4).normal(size=60)
    (alone, found), overlap, _ = with_and_without(parts, d - modes @ (dual.T @ d), 3.0, 2000, 30)
    assert np.array_equal(alone.axes, found.axes) and np.array_equal(alone.strength, found.strength)
    assert overlap[1] > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_a_motion_mostly_of_a_part_is_one_axis_and_the_luckiest_axes_of_few_particles_do_not_count(parts,
                                                                                                   seed):
    points, bent = parts[0], np.random.default_rng(5).normal(size=(10, 3))
    d = np.zeros((20, 3))
    d[10:] = rigid_motions(points[10:])[..., 0] + 0.2 * bent
    (_, found), *_ = with_and_without(parts, d.ravel(), 3.0, 600, 60, seed)
    assert found.significant == 1
    (_, found), *_ = with_and_without(parts, d.ravel(), 1.0, 100, 60, seed)
    assert found.significant <= 4


def test_one_anchor_is_no_trouble():
    """Its three numbers are all that its rigid motions are: nothing is left to look for beside them."""
    noise, d = np.eye(3), np.array([1.0, 0, 0])
    modes = rigid_modes(noise, np.ones((5, 1)), np.random.default_rng(0).normal(0, 5, (5, 3)), [np.arange(5)])
    for seed in range(10):
        halves = [streamed_covariances([gaussian(600, noise + np.outer(d, d), 10 * seed + i)], [3])[0]
                  for i in (1, 2)]
        nulls = [streamed_covariances([gaussian(600, noise, 10 * seed + i)], [3])[0] for i in (3, 4)]
        found = find_subspace(Covariances(halves, nulls), 3, 2, modes, [1])
        # from 600 images it is known to 0.13
        assert found.axes.shape == (3, 3) and found.strength[0] == pytest.approx(1, abs=0.5)
