import numpy as np
import pytest

from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.seeding import count_for, find_threshold, seed_centers, smooth_to


@pytest.fixture(scope="module")
def two_blobs():
    """A map of two balls of density, 60 Å apart along x; the second has a third of the first's mass."""
    rng = np.random.default_rng(0)
    centers = np.concatenate([rng.normal(0, 6, (60, 3)) - [30, 0, 0], rng.normal(0, 6, (20, 3)) + [30, 0, 0]])
    return render(Mixture(np.float32(centers), np.ones(80, np.float32), np.full(80, 5, np.float32)), 40, 4.0)


def test_seeds_lie_in_the_density_in_angstrom_x_first_and_dense_parts_get_more(two_blobs):
    seeds = seed_centers(two_blobs, find_threshold(two_blobs), 4.0, 24, 0)
    assert seeds.shape == (24, 3) and seeds.dtype == np.float32
    right = seeds[:, 0] > 0
    assert np.abs(np.abs(seeds[:, 0]) - 30).max() < 25 and np.abs(seeds[:, 1:]).max() < 25
    assert 4 <= right.sum() < 12
    assert abs(seeds[~right].mean(0) - [-30, 0, 0]).max() < 6


def test_the_same_seed_gives_the_same_centres_and_another_does_not(two_blobs):
    level = find_threshold(two_blobs)
    a, b, c = (seed_centers(two_blobs, level, 4.0, 24, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_more_gaussians_than_voxels_are_refused_with_both_numbers(two_blobs):
    level = np.sort(two_blobs.ravel())[-11]
    with pytest.raises(ValueError, match=r"only 10 voxels lie above the density threshold .*, fewer than the 24 Gaussians asked for: lower --threshold"):
        seed_centers(two_blobs, level, 4.0, 24, 0)


def test_the_threshold_keeps_both_balls_and_leaves_the_solvent(two_blobs):
    inside = two_blobs > find_threshold(two_blobs)
    assert 0.005 < inside.mean() < 0.1 and inside[20, 20, 20 - 7] and inside[20, 20, 20 + 7] and not inside[0, 0, 0]


def test_a_map_without_positive_density_is_refused():
    with pytest.raises(ValueError, match="the map holds no positive density: is its contrast inverted"):
        find_threshold(-np.ones((4, 4, 4)))


def test_the_count_grows_with_the_cube_of_the_resolution_and_has_a_floor(two_blobs):
    counts = [count_for(two_blobs > find_threshold(two_blobs), 4.0, r) for r in (8.0, 16.0)]
    assert counts[0] == pytest.approx(8 * counts[1], rel=0.1)
    assert count_for(two_blobs > find_threshold(two_blobs), 4.0, 200.0) == 8


def test_smoothing_keeps_the_mass_and_lowers_the_peak(two_blobs):
    smooth = smooth_to(two_blobs, 4.0, 20.0)
    assert smooth.sum() == pytest.approx(two_blobs.sum(), rel=1e-3) and smooth.max() < two_blobs.max()
