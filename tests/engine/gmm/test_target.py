"""The target of a fit: the molecule in a map, where Gaussians start, and which are kept."""
import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm.atoms import Atoms
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.target import Target, TargetSettings, find_target

BOX, PIXEL = 32, 5.0
SETTINGS = TargetSettings(resolution_angst=12.0)


def ball(middle, radius_px):
    """Voxels [z, y, x] within a radius of a middle (x, y, z), both in pixels from the box centre."""
    axes = np.meshgrid(*[np.arange(BOX) - BOX // 2] * 3, indexing="ij")
    return sum((axis - off) ** 2 for axis, off in zip(axes, middle[::-1])) < radius_px**2


@pytest.fixture(scope="module")
def volume():
    """A molecule in the middle, and beside it a domain that one particle in ten has."""
    return gaussian_filter(np.float32(ball((0, 0, 0), 7)) + np.float32(0.1 * ball((11, 0, 0), 4)), 0.7)


def test_gaussians_are_kept_in_the_mask_and_beside_the_molecule_where_they_hold_something():
    solid, mask = ball((0, 0, 0), 5), ball((0, 0, 0), 12)
    target = Target(solid, solid, 0.5, solid, ~solid & ball((8, 0, 0), 3), np.float32(mask), PIXEL, 12.0,
                    None)
    centers = np.float32([[0, 0, 0], [10, 5, 0], [40, 0, 0], [40, 5, 0], [70, 0, 0]])
    # in the molecule; weak there; weak beside it; not weak beside it; outside the mask
    amplitudes = np.float32([1, 0.01, 0.01, 0.1, 1])
    mixture = Mixture(centers, amplitudes, np.full(5, 5, np.float32))
    assert target.keeps(mixture).tolist() == [True, True, False, True, False]


def test_the_molecule_and_its_weak_density_are_told_apart_and_the_mask_holds_both(volume):
    target = find_target(volume, PIXEL, SETTINGS)
    assert target.solid[ball((0, 0, 0), 5)].all() and not target.solid[ball((11, 0, 0), 3)].any()
    assert target.weak[ball((11, 0, 0), 2)].all() and not (target.weak & target.solid).any()
    assert (target.mask[target.solid | target.weak] == 1).all() and target.mask[0, 0, 0] == 0
    np.testing.assert_allclose(target.volume, volume * target.mask)


def test_probes_start_in_weak_density_and_a_level_of_infinity_wants_none(volume):
    target, none = (find_target(volume, PIXEL, dataclasses.replace(SETTINGS, probe_level=level))
                    for level in (None, np.inf))
    count = target.first_count()
    seeds = target.seeds(count, 1)
    assert len(seeds.centers) > count and not none.weak.any() and len(none.seeds(count, 1).centers) == count
    assert np.linalg.norm(seeds.centers[count:] - [11 * PIXEL, 0, 0], axis=1).max() < 5 * PIXEL
    assert seeds.labels is None
    assert 0 < seeds.shares[count:].max() < 0.5 < np.median(seeds.shares[:count]) <= 1


def test_a_mask_limits_the_molecule_its_weak_density_and_its_map(volume):
    mask = np.float32(ball((0, 0, 0), 6))
    target = find_target(volume, PIXEL, SETTINGS, mask)
    assert target.mask is mask and not target.weak.any() and not target.solid[mask < 0.5].any()
    assert not target.volume[mask == 0].any()


def test_a_level_of_probes_that_is_not_below_the_threshold_is_refused_with_both(volume):
    with pytest.raises(ConfigError, match="--probes 0.5 must lie below the density threshold 0.4"):
        find_target(volume, PIXEL, TargetSettings(12.0, 0.4, 0.5))


def test_seeds_of_atoms_have_their_chains_and_density_without_atoms_gets_gaussians_of_no_chain(volume):
    rng = np.random.default_rng(0)
    points = rng.uniform(-7, 7, (3000, 3)) * PIXEL
    # one half of the molecule
    points = points[(np.linalg.norm(points, axis=1) < 7 * PIXEL) & (points[:, 1] < 0)]
    atoms = Atoms(points, np.ones(len(points)), np.full(len(points), "A"), np.arange(len(points)))
    target = find_target(volume, PIXEL, dataclasses.replace(SETTINGS, probe_level=np.inf), None, atoms)
    seeds = target.seeds(40, 1)
    bare = seeds.labels.chain == ""
    assert len(seeds.centers) == 40 and 10 < bare.sum() < 30 and seeds.labels.names() == ["A"]
    assert seeds.centers[~bare, 1].max() < 5 and seeds.centers[bare, 1].min() > -5


def test_the_number_of_gaussians_lies_between_the_chains_and_the_atoms(volume):
    few = Atoms(np.zeros((3, 3)), np.ones(3), np.array(["A", "A", "B"]), np.arange(3))
    target = find_target(volume, PIXEL, SETTINGS)
    assert target.first_count() > 3 and dataclasses.replace(target, atoms=few).first_count() == 3
