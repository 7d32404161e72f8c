"""The linear start: what is signal in the gradients is told from noise, in closed form."""
import numpy as np
import pytest

from gmmhet.engine.training.subspace import LEAST_STRENGTH, MOST_COLUMNS, Subspace, find_subspace, kept_axes, streamed_covariances


def gaussian(count, covariance, seed):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, count)


@pytest.fixture(scope="module")
def noise():
    """A covariance of 12 columns, neighbours alike, as of gradients by overlapping Gaussians; columns of very different size."""
    apart = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    size = np.geomspace(1, 1e3, 12)
    return np.exp(-apart / 2.0) * np.outer(size, size)


def found_in(noise, directions, kept=6, count=4000):
    """The subspace of particles that differ by F d of each direction [D, 12], F being the noise's covariance."""
    whole = noise + sum(np.outer(noise @ d, noise @ d) for d in directions)
    halves = [streamed_covariances([gaussian(count, whole, seed)], [12])[0] for seed in (1, 2)]
    nulls = [streamed_covariances([gaussian(count, noise, seed)], [12])[0] for seed in (3, 4)]
    return find_subspace(halves, nulls, kept)


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


def test_columns_without_any_variance_do_no_harm(noise):
    padded = np.zeros((14, 14))
    padded[:12, :12] = noise
    found = find_subspace([padded, padded], [padded, padded], 5)
    assert np.all(np.isfinite(found.axes)) and np.all(np.isfinite(found.strength))


def test_evidence_counts_as_many_axes_as_there_are_latent_dimensions():
    found = Subspace(np.zeros((3, 3)), np.array([3.0, 1.0, 0.1]))
    assert found.significant == 2
    assert found.evidence(1) == pytest.approx(0.5 * (3 - np.log(4)))
    assert found.evidence(8) == pytest.approx(0.5 * (4 - np.log(4) - np.log(2)))
    assert np.all(np.diff(found.scale * np.sqrt(1 + found.strength)) < 0)


@pytest.mark.parametrize("most,sizes,expected", [(256, (100, 300), [100, 128]), (0, (100, 300), [0, 0]),
                                                 (256, (MOST_COLUMNS, 1), [128, 1]), (256, (MOST_COLUMNS + 1, 1), [0, 0])])
def test_the_encoder_is_given_axes_of_every_column_unless_one_is_too_large(most, sizes, expected):
    assert kept_axes(most, sizes) == expected
