"""What the neutral model is fitted to: the molecule found in a map, and where Gaussians may start."""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm import atoms as atomic
from gmmhet.engine.gmm import seeding
from gmmhet.engine.gmm.regions import sample_map

#: Gaussians outside the main density whose amplitude ends below this part of the median one stand for nothing and are dropped
FAINT = 0.03


@dataclass(frozen=True)
class Target:
    """What is fitted, and where Gaussians may start.

    Attributes
    ----------
    volume, smooth : float32 [L, L, L], the map and the map smoothed to the resolution.
    threshold : float, density of the molecule's surface.
    solid, weak : bool [L, L, L], the molecule above the threshold, and its weak density (probes).
    mask : float32 [L, L, L], soft: outside it there is neither density nor Gaussians.
    pixel_size : float, Å/px; resolution_angst : float.
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
    atoms: Optional[atomic.Atoms]

    def first_count(self):
        """Number of Gaussians for the resolution, without probes."""
        count = seeding.count_for(self.solid, self.pixel_size, self.resolution_angst)
        return count if self.atoms is None else int(np.clip(count, len(np.unique(self.atoms.chains)), len(self.atoms)))

    def seeds(self, count, seed):
        """Where `count` Gaussians and the probes start: centres [N, 3], amplitudes over the usual one [N], Labels or None."""
        probes = self._in_density(self.weak, seeding.count_for(self.weak, self.pixel_size, self.resolution_angst, least=0), seed)
        if self.atoms is None:
            centers, masses, labels = self._in_density(self.solid, count, seed, self.threshold), np.ones(count), None
        else:
            near = seeding.near_points(self.atoms.positions, self.solid.shape, self.pixel_size, 0.5 * self.resolution_angst)
            bare = seeding.large_pieces(self.solid & ~near, self.pixel_size, self.resolution_angst)
            extra = int(round(count * bare.sum() / self.solid.sum()))
            centers, masses, labels = atomic.cluster_atoms(self.atoms, count - extra, seed)
            centers = np.concatenate([centers, self._in_density(bare, extra, seed)])
            masses, labels = np.append(masses / np.median(masses), np.ones(extra)), labels.extended(extra + len(probes))
        centers, masses = np.concatenate([centers, probes]), np.append(masses, np.ones(len(probes)))
        density = sample_map(self.smooth, self.pixel_size, centers)
        return centers, masses * np.clip(density / np.median(density), 0, 1), labels

    def _in_density(self, region, count, seed, threshold=0.0):
        if not count:
            return np.empty((0, 3), np.float32)
        return seeding.seed_centers(np.where(region, self.smooth, 0), threshold, self.pixel_size, count, seed)

    def keeps(self, mixture):
        """Gaussians inside the mask, and of those outside the main density only the ones that hold some: bool [N]."""
        inside = sample_map(self.mask, self.pixel_size, mixture.centers) > 0.1
        main = sample_map(self.solid, self.pixel_size, mixture.centers) > 0
        if not main.any():
            return inside
        return inside & (main | (mixture.amplitudes >= FAINT * np.median(mixture.amplitudes[main])))


def make_target(volume, pixel_size, resolution, threshold, weak_level, mask, atoms):
    """Find the molecule in a map.

    Parameters
    ----------
    volume : float32 [L, L, L].
    pixel_size : float, Å/px; resolution : float, Å.
    threshold : float; 0 finds it.
    weak_level : float, density of probes; None finds it, inf wants none.
    mask : float32 [L, L, L] or None; a mask limits everything, without one a soft one is made around what was found.
    atoms : Atoms in Å from the box centre, or None.

    Raises
    ------
    ConfigError
        when the level of probes is not below the density threshold.
    ValueError
        when the map holds no molecule (see `seeding`).
    """
    smooth = seeding.smooth_to(volume, pixel_size, resolution)
    allowed = smooth if mask is None else np.where(mask > 0.5, smooth, 0)
    threshold = threshold or seeding.find_threshold(allowed)
    solid = seeding.solid_region(allowed, threshold)
    known = solid
    if atoms is not None:
        known = solid | seeding.near_points(atoms.positions, solid.shape, pixel_size, 0.5 * resolution)
    if weak_level is not None and threshold <= weak_level < np.inf:
        raise ConfigError("--probes %.4g must lie below the density threshold %.4g: Gaussians are seeded above that anyway" % (
            weak_level, threshold))
    weak = seeding.weak_region(volume, known, pixel_size, resolution, threshold, weak_level)
    weak = weak if mask is None else weak & (mask > 0.5)
    if mask is None:
        mask = seeding.soft_edge(known | weak, pixel_size, resolution)
    return Target(volume * mask, smooth, threshold, solid, weak, mask, pixel_size, resolution, atoms)
