"""Which Gaussians may vary: regions given as chains and residues, a map, a sphere or a list."""
import os
import re
from typing import Optional

import numpy as np
from scipy.spatial import KDTree

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import read_map

#: files taken for maps; all others are lists
MAP_NAMES = r"(?i)\.(mrc|mrcs|map|rec|ccp4)(\.gz|\.bz2)?$"
#: one item of a chain selection: a chain name, or a chain name and residues
CHAIN_ITEM = r"\s*([^/\s]+?)\s*(?:/\s*(-?\d+)\s*(?:-\s*(-?\d+)\s*)?)?"
#: points tried for the cut between asymmetric units
CUT_DIRECTIONS = 600
#: rows of a table of distances that are in memory at once
CHUNK_ROWS = 1024


class RegionError(ValueError):
    """A region cannot be read or selects nothing."""


def region_parts(spec: str, mixture: Mixture) -> np.ndarray:
    """Which of the regions that are joined each Gaussian is in.

    Parameters
    ----------
    spec : str; '' (all), or regions joined by ';' (a Gaussian in several of them counts for the first), each
        of them 'chain:A,B/120-240' (whole chains, or residues of a chain, of a model fitted with --atoms),
        'sphere:x,y,z,radius' in Å from the box centre, a mask map (.mrc, .map, ...; above 0.5 inside), or any
        other file: a list of Gaussian numbers from 1.
    mixture : Mixture of N Gaussians.

    Returns
    -------
    int array [N], from 1; 0 outside.

    Raises
    ------
    RegionError
        when the region, or one of the regions joined, cannot be read or holds no Gaussian.
    """
    if not spec.strip():
        return np.ones(len(mixture), int)
    regions = [spec] if os.path.exists(spec) else [word.strip() for word in spec.split(";") if word.strip()]
    if not regions:
        raise RegionError("region '%s' names no region between its semicolons" % spec)
    inside = np.array([_one_region(region, mixture) for region in regions])         # [regions, N]
    return np.where(inside.any(0), 1 + np.argmax(inside, axis=0), 0)


def region_mask(spec: str, mixture: Mixture) -> np.ndarray:
    """Gaussians in any of the regions (see `region_parts`): bool array [N]."""
    return np.asarray(region_parts(spec, mixture) > 0)


def _one_region(spec: str, mixture: Mixture) -> np.ndarray:
    advice = "check its position (Å from the box centre, x,y,z)"
    if spec.startswith("chain:"):
        return _in_chains(spec, mixture.labels)
    if spec.startswith("sphere:"):
        inside = _in_sphere(spec, mixture.centers)
    elif os.path.isdir(spec):
        raise RegionError("region '%s' is a folder, expected a mask map or a list of Gaussians" % spec)
    elif not os.path.exists(spec):
        raise RegionError("region '%s' is neither an existing file nor 'sphere:x,y,z,radius' nor "
                          "'chain:A,B/120-240'" % spec)
    elif re.search(MAP_NAMES, spec):
        volume, pixel_size = read_map(spec)
        values = sample_map(volume, pixel_size, mixture.centers)
        inside = values > 0.5
        advice = ("expected a mask from 0 to 1 that is above 0.5 inside, its largest value at a Gaussian is "
                  "%.3g" % values.max())
    else:
        inside = _in_list(spec, len(mixture))
        advice = "the file names none"
    if not inside.any():
        raise RegionError("region '%s' selects none of the %d Gaussians: %s" % (spec, len(mixture), advice))
    return inside


def _in_chains(spec: str, labels: Optional[Labels]) -> np.ndarray:
    """Gaussians of 'chain:A,B/120-240'; each item must select something."""
    if labels is None or not labels.names():
        raise RegionError("region '%s' names chains, but the neutral model has none: it was not started from "
                          "an atomic model (fit --atoms)" % spec)
    items = spec[len("chain:"):].split(",")
    return np.asarray(np.any([_in_chain(item, spec, labels) for item in items], axis=0))


def _in_chain(item: str, spec: str, labels: Labels) -> np.ndarray:
    """Gaussians of one chain, or of residues of it, such as 'B/120-240'; the whole `spec` is for messages."""
    match = re.fullmatch(CHAIN_ITEM, item)
    if not match:
        raise RegionError("region '%s' must name chains, each alone or with residues, as in "
                          "'chain:A,B/120-240', got '%s'" % (spec, item.strip()))
    chain, *residues = match.groups()
    if chain not in labels.names():
        raise RegionError("region '%s': the neutral model has no chain '%s', its chains are %s" % (
            spec, chain, ", ".join(labels.names())))
    if residues[0] is None:
        return np.asarray(labels.chain == chain)
    first, last = int(residues[0]), int(residues[0] if residues[1] is None else residues[1])
    if last < first:
        raise RegionError("region '%s': residues %d to %d of chain %s run backwards, write '%s/%d-%d'" % (
            spec, first, last, chain, chain, last, first))
    inside = labels.within(chain, first, last)
    if not inside.any():
        raise RegionError("region '%s' selects none of the %d Gaussians of chain %s, which has residues %d "
                          "to %d: a Gaussian is inside when half of its mass is" % (
                              spec, np.sum(labels.chain == chain), chain, *labels.residue_range(chain)))
    return inside


def sample_map(volume: np.ndarray, pixel_size: float, centers: np.ndarray) -> np.ndarray:
    """Value of a map (its centre at voxel L//2) at the voxel nearest to each centre [N, 3] Å, float32 [N]; 0
    outside the box."""
    index = np.round(centers[:, ::-1] / pixel_size).astype(int) + np.array(volume.shape) // 2
    valid = np.all((index >= 0) & (index < volume.shape), axis=1)
    values = np.zeros(len(centers), np.float32)
    values[valid] = volume[tuple(index[valid].T)]
    return values


def _in_sphere(spec: str, centers: np.ndarray) -> np.ndarray:
    try:
        x, y, z, radius = (float(v) for v in spec[len("sphere:"):].split(","))
        if not (np.isfinite([x, y, z, radius]).all() and radius > 0):
            raise ValueError
    except ValueError:
        raise RegionError("region '%s' must be 'sphere:x,y,z,radius', four numbers in Å, the radius "
                          "above 0" % spec) from None
    return np.asarray(np.linalg.norm(centers - np.array([x, y, z]), axis=1) <= radius)


def _in_list(path: str, count: int) -> np.ndarray:
    """Gaussians (of `count`) that a text file names by their numbers from 1, bool [count]."""
    with open(path, encoding="utf-8", errors="replace") as f:
        words = " ".join(line.split("#")[0] for line in f).replace(",", " ").split()
    wrong = [word for word in words if not word.lstrip("+-").isdecimal()]
    if wrong:
        raise RegionError("region file '%s' must hold whole numbers from 1, got '%s'" % (
            path, ascii(wrong[0][:40])[1:-1]))
    numbers = np.array(words, np.int64)
    if len(numbers) and (numbers.min() < 1 or numbers.max() > count):
        raise RegionError("region file '%s' names Gaussian %d; the model has Gaussians 1 to %d" % (
            path, numbers.min() if numbers.min() < 1 else numbers.max(), count))
    inside = np.zeros(count, bool)
    inside[numbers - 1] = True
    return inside


def asymmetric_unit(centers: np.ndarray, amplitudes: np.ndarray, group: str) -> np.ndarray:
    """Gaussians of one asymmetric unit of cN or dN, cut where the density is least; of the equivalent units
    the one that holds the x axis.

    A unit is what lies nearer to a point than to the copies of that point: a wedge between planes through the
    box centre, for whatever point. Of many points the one is taken whose planes meet the least density, so
    that a subunit stays whole where a wedge can hold it.

    Parameters
    ----------
    centers : array [N, 3], Å.
    amplitudes : array [N].
    group : str, cN or dN.

    Returns
    -------
    bool array [N].
    """
    matrices = symmetry_matrices(group)
    if len(matrices) == 1:
        return np.ones(len(centers), bool)
    near_angst = max(0.05 * float(np.max(np.linalg.norm(centers, axis=1))), 1e-3)

    def cut_density(point: np.ndarray) -> float:
        depth = _depth(centers, point, matrices)
        if depth is None:
            return np.inf
        return float(np.sum(amplitudes * np.exp(-0.5 * (depth / near_angst) ** 2)))
    points = _directions(CUT_DIRECTIONS)
    point = points[np.argmin([cut_density(p) for p in points])]
    copies = matrices @ point
    point = copies[np.lexsort((copies[:, 2], np.round(copies[:, 0], 6)))[-1]]
    return np.asarray(np.all(_heights(centers, point, matrices) >= 0, axis=0))


def _heights(centers: np.ndarray, point: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Distance (Å, positive on the point's side) of centres [N, 3] from the plane between a point [3] and
    each copy of it: [n - 1, N]."""
    normals = point - matrices[1:] @ point
    return np.asarray((normals / np.linalg.norm(normals, axis=1, keepdims=True)) @ centers.T)


def _depth(centers: np.ndarray, point: np.ndarray, matrices: np.ndarray) -> Optional[np.ndarray]:
    """Distance [N] (Å) of centres [N, 3] from the nearest plane of the wedges of a point and its copies; None
    for a point too near to a copy."""
    if np.min(np.linalg.norm(point - matrices[1:] @ point, axis=1)) < 0.1:
        return None
    closest = np.argmax(centers @ (matrices @ point).T, axis=1)
    in_first_wedge = np.einsum("nji,nj->ni", matrices[closest], centers)
    return np.asarray(np.min(_heights(in_first_wedge, point, matrices), axis=0))


def _directions(count: int) -> np.ndarray:
    """Unit vectors spread evenly over the sphere (Fibonacci's lattice), [count, 3]."""
    i = np.arange(count) + 0.5
    z, azimuth = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    return np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], axis=1)


def shared_by_copies(mixture: Mixture, inside: np.ndarray, group: str) -> float:
    """Share of the mass of a region, bool [N], that lies where the point group turns another part of it:
    within the width of a Gaussian."""
    centers, mass = mixture.centers[inside], mixture.amplitudes[inside]
    near = float(np.median(mixture.widths))
    tree = KDTree(centers)
    overlaps = [tree.query(centers @ matrix.T)[0] < near for matrix in symmetry_matrices(group)[1:]]
    return float(mass[np.any(overlaps, axis=0)].sum() / mass.sum())


def symmetry_correlation(mixture: Mixture, group: str, width_angst: float) -> float:
    """How alike a mixture is to itself turned by the point group: the least correlation over the group's
    matrices, 1 for a symmetric one.

    Both are blurred to `width_angst` (standard deviation), so that it asks for the same shape and not for the
    same Gaussians.
    """
    def overlap(rotated: np.ndarray) -> float:
        total = 0.0
        for i in range(0, len(rotated), CHUNK_ROWS):
            distance2 = np.sum((rotated[i:i + CHUNK_ROWS, None] - mixture.centers[None]) ** 2, axis=-1)
            kernel = np.exp(-0.25 * distance2 / width_angst**2)
            total += float(mixture.amplitudes[i:i + CHUNK_ROWS] @ kernel @ mixture.amplitudes)
        return total
    with_itself = overlap(mixture.centers)
    return min(overlap(mixture.centers @ matrix.T) / with_itself for matrix in symmetry_matrices(group))
