import numpy as np
import pytest

from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.seeding import (
    count_for,
    density_beyond,
    find_threshold,
    large_pieces,
    near_points,
    noise_level,
    seed_centers,
    smooth_to,
    soft_edge,
    solid_region,
    weak_region,
    weighted_means,
)


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
    with pytest.raises(ValueError,
                       match=r"only 10 voxels lie above the density threshold .*, fewer than the 24 "
                             r"Gaussians asked for: lower "
                                         r"--threshold"):
        seed_centers(two_blobs, level, 4.0, 24, 0)


def test_the_threshold_keeps_both_balls_and_leaves_the_solvent(two_blobs):
    inside = two_blobs > find_threshold(two_blobs)
    assert 0.005 < inside.mean() < 0.1 and inside[20, 20, 20 - 7] and inside[20, 20, 20 + 7]
    assert not inside[0, 0, 0]


def test_the_threshold_of_a_molecule_that_fills_its_box_lies_at_its_surface():
    axis = np.arange(40) - 20
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    ball = (radius < 18.5).astype(np.float32)
    volume = smooth_to(ball, 4.0, 12.0) + np.random.default_rng(0).normal(0, 0.02, ball.shape)
    assert ball[radius < 20].mean() > 0.75 and 0.1 < find_threshold(volume) < 0.5


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


# ---- weak density

PIXEL, RESOLUTION = 4.0, 12.0


def a_map(weak_share, seed=0):
    """A ball of Gaussians about (-20, 0, 0) Å with a domain about (35, 0, 0) Å that a share of the particles
    has, [48, 48, 48]."""
    rng = np.random.default_rng(seed)
    ball = rng.uniform(-1, 1, (400, 3))
    ball = ball[np.linalg.norm(ball, axis=1) < 1]
    domain = 0.6 * ball[:len(ball) // 3] * [25, 20, 20] + [35, 0, 0]
    centers = np.concatenate([25 * ball - [10, 0, 0], domain])
    amplitudes = np.concatenate([np.ones(len(ball)), np.full(len(domain), weak_share)])
    return render(Mixture(np.float32(centers), np.float32(amplitudes), np.full(len(centers), 4, np.float32)),
                  48, PIXEL)


def found_weak(volume, level=None):
    smooth = smooth_to(volume, PIXEL, RESOLUTION)
    threshold = find_threshold(smooth)
    solid = solid_region(smooth, threshold)
    return weak_region(volume, solid, PIXEL, RESOLUTION, threshold, level), solid


def middle(region):
    return (np.argwhere(region).mean(0) - 24)[::-1] * PIXEL


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_domain_that_one_particle_in_ten_has_is_weak_density_beside_the_molecule(noise):
    volume = a_map(0.1)
    weak, solid = found_weak(volume + np.random.default_rng(1).normal(0, noise * volume.max(), volume.shape))
    assert not np.any(weak & solid) and 8000 < weak.sum() * PIXEL**3 < 25000
    np.testing.assert_allclose(middle(weak), [36, 0, 0], atol=3)


def test_a_whole_molecule_has_no_weak_density():
    for share in (0.0, 1.0):
        assert not found_weak(a_map(share))[0].any()


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_neither_molecule_nor_weak_density(seed, noise):
    volume = a_map(0.0)
    weak, solid = found_weak(volume
                             + np.random.default_rng(seed).normal(0, noise * volume.max(), volume.shape))
    assert not weak.any()
    np.testing.assert_allclose(middle(solid), [-10, 0, 0], atol=2)
    assert np.linalg.norm((np.argwhere(solid) - 24)[:, ::-1] * PIXEL + [10, 0, 0], axis=1).max() < 40


def test_weak_density_that_does_not_reach_the_molecule_is_left_out():
    assert not found_weak(a_map(0.0) + 0.1 * np.roll(a_map(0.0), 20, axis=0))[0].any()


def test_a_given_level_decides_what_is_weak():
    weak = [found_weak(a_map(0.1), level)[0].sum() for level in (1e-4, 1e-3, 1e-2, np.inf)]
    assert weak[0] > weak[1] > 0 and weak[2:] == [0, 0]


def test_the_noise_level_is_three_deviations_above_the_solvent_whatever_its_offset_and_a_molecule_in_it():
    values = np.random.default_rng(0).normal(5.0, 0.2, 60000)
    assert noise_level(values) == pytest.approx(5.6, abs=0.02)
    assert noise_level(np.append(values, np.full(3000, 100.0))) == pytest.approx(5.6, abs=0.04)


def test_density_beyond_the_molecule_knows_nothing_of_the_molecule_it_lies_beside():
    beyond = np.ones((20, 20, 20), bool)
    beyond[:, :, :8] = False
    volume = np.where(beyond, 0.5, 1000.0)
    np.testing.assert_allclose(density_beyond(volume, beyond, PIXEL, RESOLUTION), np.where(beyond, 0.5, 0),
                               rtol=1e-4)


def test_dust_is_no_molecule_and_no_room_for_gaussians():
    smooth = np.zeros((30, 30, 30))
    smooth[10:20, 10:20, 10:20], smooth[2, 2, 2] = 1, 1
    solid = solid_region(smooth, 0.5)
    assert solid.sum() == 1000 and not solid[2, 2, 2]
    assert np.array_equal(large_pieces(smooth > 0.5, PIXEL, RESOLUTION), solid)
    with pytest.raises(ValueError,
                       match=r"no density lies above the threshold 2 \(the map's largest smoothed density is "
                             r"1\): lower --threshold"):
        solid_region(smooth, 2.0)


def test_a_soft_edge_is_1_to_half_the_resolution_and_0_from_the_resolution_on():
    region = np.zeros((31, 31, 31), bool)
    region[15, 15, 15] = True
    line = soft_edge(region, PIXEL, 16.0)[15, 15, 15:]
    np.testing.assert_allclose(line[:6], [1, 1, 1, 0.5, 0, 0], atol=1e-6)


def test_voxels_near_points_lie_within_reach_and_points_outside_the_box_count_for_nothing():
    near = near_points(np.array([[8.0, 0, 0], [900, 0, 0]]), (16, 16, 16), PIXEL, 4.0)
    assert near.sum() == 7 and near[8, 8, 10] and near[8, 8, 11] and not near[8, 8, 12]
    assert not near_points(np.array([[900.0, 0, 0]]), (16, 16, 16), PIXEL, 4.0).any()


def test_weighted_means_are_the_weighted_means_of_the_nearest_points():
    rng = np.random.default_rng(2)
    points, weights = rng.normal(0, 10, (500, 3)), rng.uniform(0.1, 2, 500)
    centers, member = weighted_means(points, weights, points[:12], rounds=200)
    assert np.array_equal(member, np.linalg.norm(points[:, None] - centers[None], axis=-1).argmin(1))
    for k in range(12):
        np.testing.assert_allclose(centers[k],
                                   np.average(points[member == k], axis=0, weights=weights[member == k]))


def test_a_mean_without_points_stays_where_it_is():
    centers, _ = weighted_means(np.zeros((5, 3)), np.ones(5), np.array([[1.0, 0, 0], [50, 0, 0]]))
    assert centers.tolist() == [[0, 0, 0], [50, 0, 0]]
