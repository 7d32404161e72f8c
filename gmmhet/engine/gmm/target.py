"""What the neutral model is fitted to: the molecule found in a map, and where Gaussians may start."""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm import seeding
from gmmhet.engine.gmm.atoms import Atoms, cluster_atoms
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.seeding import Seeds

#: Gaussians outside the main density whose amplitude ends below this part of the median one stand for nothing
#: and are #: dropped
LEAST_AMPLITUDE_OUTSIDE = 0.03
#: a Gaussian is inside a soft mask where this has at least this value
LEAST_MASK = 0.1


@dataclass(frozen=True)
class TargetSettings:
    """How the molecule is sought in a map.

    Attributes
    ----------
    resolution_angst : float.
    threshold : float, density of the molecule's surface; 0 finds it.
    probe_level : float or None, density above which probes start; None finds it, inf wants none.
    """

    resolution_angst: float
    threshold: float = 0.0
    probe_level: Optional[float] = None


@dataclass(frozen=True)
class Target:
    """What is fitted, and where Gaussians may start.

    Attributes
    ----------
    volume, smooth : float32 [L, L, L], the map and the map smoothed to the resolution.
    threshold : float, density of the molecule's surface.
    solid, weak : bool [L, L, L], the molecule above the threshold, and its weak density (probes).
    mask : float32 [L, L, L], soft: outside it there is neither density nor Gaussians.
    pixel_size : float, Å/px.
    resolution_angst : float.
    atoms : Atoms in Å from the box centre, or None.
    """

    volume: np.ndarray
    smooth: np.ndarray
    threshold: float
    solid: np.ndarray
    weak: np.ndarray
    mask: np.ndarray
    pixel_size: float
    resolution_angst: float
    atoms: Optional[Atoms]

    def first_count(self) -> int:
        """Number of Gaussians for the resolution, without probes."""
        count = seeding.count_for(self.solid, self.pixel_size, self.resolution_angst)
        if self.atoms is None:
            return count
        return int(np.clip(count, len(np.unique(self.atoms.chains)), len(self.atoms)))

    def seeds(self, count: int, seed: int) -> Seeds:
        """Where `count` Gaussians and the probes start."""
        n_probes = seeding.count_for(self.weak, self.pixel_size, self.resolution_angst, least=0)
        probes = self._in_density(self.weak, n_probes, seed)
        if self.atoms is None:
            main = Seeds(self._in_density(self.solid, count, seed, self.threshold), np.ones(count))
        else:
            main = self._from_atoms(self.atoms, count, seed)
        assert main.shares is not None
        centers, shares = np.concatenate([main.centers, probes]), np.append(main.shares, np.ones(len(probes)))
        density = sample_map(self.smooth, self.pixel_size, centers)
        labels = main.labels.extend(len(probes)) if main.labels else None
        return Seeds(centers, shares * np.clip(density / np.median(density), 0, 1), labels)

    def _from_atoms(self, atoms: Atoms, count: int, seed: int) -> Seeds:
        """Clusters of the atoms, and Gaussians in density that no atom explains, by its share of the
        volume."""
        reach_angst = 0.5 * self.resolution_angst
        near = seeding.near_points(atoms.positions, self.solid.shape, self.pixel_size, reach_angst)
        bare = seeding.large_pieces(self.solid & ~near, self.pixel_size, self.resolution_angst)
        extra = int(round(count * bare.sum() / self.solid.sum()))
        centers, masses, labels = cluster_atoms(atoms, count - extra, seed)
        centers = np.concatenate([centers, self._in_density(bare, extra, seed)])
        return Seeds(centers, np.append(masses / np.median(masses), np.ones(extra)), labels.extend(extra))

    def _in_density(self, region: np.ndarray, count: int, seed: int, threshold: float = 0.0) -> np.ndarray:
        """`count` centres in a region's density, float32 [count, 3] Å."""
        if not count:
            return np.empty((0, 3), np.float32)
        density = np.where(region, self.smooth, 0)
        return seeding.seed_centers(density, threshold, self.pixel_size, count, seed)

    def keeps(self, mixture: Mixture) -> np.ndarray:
        """Gaussians inside the mask, and of those outside the main density only the ones that hold some: bool
        [N]."""
        inside = sample_map(self.mask, self.pixel_size, mixture.centers) > LEAST_MASK
        main = sample_map(self.solid, self.pixel_size, mixture.centers) > 0
        if not main.any():
            return np.asarray(inside)
        holds_mass = mixture.amplitudes >= LEAST_AMPLITUDE_OUTSIDE * np.median(mixture.amplitudes[main])
        return np.asarray(inside & (main | holds_mass))


def find_target(volume: np.ndarray, pixel_size: float, settings: TargetSettings,
                mask: Optional[np.ndarray] = None, atoms: Optional[Atoms] = None) -> Target:
    """Find the molecule in a map.

    Parameters
    ----------
    volume : float32 [L, L, L].
    pixel_size : float, Å/px.
    settings : TargetSettings.
    mask : float32 [L, L, L] or None; a mask limits everything, without one a soft one is made around what was
        found.
    atoms : Atoms in Å from the box centre, or None.

    Raises
    ------
    ConfigError
        when the level of probes is not below the density threshold.
    ValueError
        when the map holds no molecule (see `seeding`).
    """
    resolution, level = settings.resolution_angst, settings.probe_level
    smooth = seeding.smooth_to(volume, pixel_size, resolution)
    allowed = smooth if mask is None else np.where(mask > 0.5, smooth, 0)
    threshold = settings.threshold or seeding.find_threshold(allowed)
    solid = seeding.solid_region(allowed, threshold)
    molecule = solid
    if atoms is not None:
        molecule = solid | seeding.near_points(atoms.positions, solid.shape, pixel_size, 0.5 * resolution)
    if level is not None and threshold <= level < np.inf:
        raise ConfigError("--probes %.4g must lie below the density threshold %.4g: Gaussians are seeded "
                          "above that anyway" % (level, threshold))
    weak = seeding.weak_region(volume, molecule, pixel_size, resolution, threshold, level)
    if mask is None:
        mask = seeding.soft_edge(molecule | weak, pixel_size, resolution)
    else:
        weak = weak & (mask > 0.5)
    return Target(volume * mask, smooth, threshold, solid, weak, mask, pixel_size, resolution, atoms)
