"""Which Gaussians may vary: regions given as a map, a sphere or a list."""
import os
import re

import numpy as np

from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import read_map

#: files taken for maps; all others are lists
MAP_NAMES = r"(?i)\.(mrc|mrcs|map|rec|ccp4)(\.gz|\.bz2)?$"


class RegionError(ValueError):
    """A region cannot be read or selects nothing."""


def region_mask(spec, centers):
    """Gaussians inside a region.

    Parameters
    ----------
    spec : str; '' (all), 'sphere:x,y,z,radius' in Å from the box centre, a mask map (.mrc, .map, ...; above 0.5 inside), or
        any other file: a list of Gaussian numbers from 1.
    centers : array [N, 3], Å.

    Returns
    -------
    bool array [N].

    Raises
    ------
    RegionError
        when the region cannot be read or holds no Gaussian.
    """
    if not spec:
        return np.ones(len(centers), bool)
    advice = "check its position (Å from the box centre, x,y,z)"
    if spec.startswith("sphere:"):
        inside = _in_sphere(spec, centers)
    elif not os.path.exists(spec):
        raise RegionError("region '%s' is neither an existing file nor 'sphere:x,y,z,radius'" % spec)
    elif re.search(MAP_NAMES, spec):
        volume, pixel_size = read_map(spec)
        values = sample_map(volume, pixel_size, centers)
        inside = values > 0.5
        advice = "expected a mask from 0 to 1 that is above 0.5 inside, its largest value at a Gaussian is %.3g" % values.max()
    else:
        inside = _listed(spec, len(centers))
    if not inside.any():
        raise RegionError("region '%s' selects none of the %d Gaussians: %s" % (spec, len(centers), advice))
    return inside


def sample_map(volume, pixel_size, centers):
    """Value of a map (its centre at voxel L//2) at the voxel nearest to each centre [N, 3] Å; 0 outside the box."""
    index = np.round(centers[:, ::-1] / pixel_size).astype(int) + np.array(volume.shape) // 2
    valid = np.all((index >= 0) & (index < volume.shape), axis=1)
    values = np.zeros(len(centers), np.float32)
    values[valid] = volume[tuple(index[valid].T)]
    return values


def _in_sphere(spec, centers):
    try:
        x, y, z, radius = (float(v) for v in spec[len("sphere:"):].split(","))
    except ValueError:
        raise RegionError("region '%s' must be 'sphere:x,y,z,radius', four numbers in Å" % spec) from None
    return np.linalg.norm(centers - np.array([x, y, z]), axis=1) <= radius


def _listed(path, count):
    with open(path, encoding="utf-8", errors="replace") as f:
        words = " ".join(line.split("#")[0] for line in f).replace(",", " ").split()
    wrong = [word for word in words if not word.lstrip("+-").isdecimal()]
    if wrong:
        raise RegionError("region file '%s' must hold whole numbers from 1, got '%s'" % (path, wrong[0][:40]))
    numbers = np.array(words, np.int64)
    if len(numbers) and (numbers.min() < 1 or numbers.max() > count):
        raise RegionError("region file '%s' names Gaussian %d; the model has Gaussians 1 to %d" % (
            path, numbers.min() if numbers.min() < 1 else numbers.max(), count))
    inside = np.zeros(count, bool)
    inside[numbers - 1] = True
    return inside


def asymmetric_unit(centers, amplitudes, group):
    """Gaussians of one asymmetric unit of cN or dN: the one that holds the x axis, cut where the density is least.

    Parameters
    ----------
    centers : array [N, 3] Å; amplitudes : array [N]; group : str.

    Returns
    -------
    bool array [N].
    """
    copies = len(symmetry_matrices(group))
    dihedral = group.strip().lower().startswith("d")
    sector = 360.0 / (copies // 2 if dihedral else copies)
    azimuth = np.degrees(np.arctan2(centers[:, 1], centers[:, 0])) % 360.0
    bins = 24
    mass = np.bincount(((azimuth % sector) / sector * bins).astype(int) % bins, amplitudes, bins)
    smooth = sum(np.roll(mass, shift) for shift in (-1, 0, 1))
    cut = (np.argmin(smooth) + 0.5) / bins * sector
    inside = (azimuth - cut) % 360.0 >= 360.0 - sector
    return inside & (centers[:, 2] >= 0) if dihedral else inside


def symmetry_correlation(mixture, group, width_angst):
    """How alike a mixture is to itself turned by the point group: the least correlation over the group's matrices, 1 for a symmetric one.

    Both are blurred to `width_angst` (standard deviation), so that it asks for the same shape and not for the same Gaussians.
    """
    def overlap(turned):
        total = 0.0
        for i in range(0, len(turned), 1024):
            distance2 = np.sum((turned[i:i + 1024, None] - mixture.centers[None]) ** 2, axis=-1)
            total += float(mixture.amplitudes[i:i + 1024] @ np.exp(-0.25 * distance2 / width_angst**2) @ mixture.amplitudes)
        return total
    own = overlap(mixture.centers)
    return min(overlap(mixture.centers @ matrix.T) / own for matrix in symmetry_matrices(group))
