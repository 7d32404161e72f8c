"""Which Gaussians may vary: regions given as chains and residues, a map, a sphere or a list."""
import os
import re

import numpy as np
from scipy.spatial import KDTree

from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import read_map

#: files taken for maps; all others are lists
MAP_NAMES = r"(?i)\.(mrc|mrcs|map|rec|ccp4)(\.gz|\.bz2)?$"
#: one item of a chain selection: a chain name, or a chain name and residues
CHAIN_ITEM = r"\s*([^/\s]+?)\s*(?:/\s*(-?\d+)\s*(?:-\s*(-?\d+)\s*)?)?"

#: points tried for the cut between asymmetric units
CUT_DIRECTIONS = 600


class RegionError(ValueError):
    """A region cannot be read or selects nothing."""


def region_parts(spec, mixture):
    """Which of the regions that are joined each Gaussian is in.

    Parameters
    ----------
    spec : str; '' (all), or regions joined by ';' (a Gaussian in several of them counts for the first), each of them
        'chain:A,B/120-240' (whole chains, or residues of a chain, of a model fitted with --atoms),
        'sphere:x,y,z,radius' in Å from the box centre, a mask map (.mrc, .map, ...; above 0.5 inside), or
        any other file: a list of Gaussian numbers from 1.
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
    parts = [spec] if os.path.exists(spec) else [part.strip() for part in spec.split(";") if part.strip()]
    if not parts:
        raise RegionError("region '%s' names no region between its semicolons" % spec)
    inside = np.array([_one_region(part, mixture) for part in parts])
    return np.where(inside.any(0), 1 + np.argmax(inside, axis=0), 0)


def region_mask(spec, mixture):
    """Gaussians in any of the regions (see `region_parts`): bool array [N]."""
    return region_parts(spec, mixture) > 0


def _one_region(spec, mixture):
    advice = "check its position (Å from the box centre, x,y,z)"
    if spec.startswith("chain:"):
        return _in_chains(spec, mixture.labels)
    if spec.startswith("sphere:"):
        inside = _in_sphere(spec, mixture.centers)
    elif os.path.isdir(spec):
        raise RegionError("region '%s' is a folder, expected a mask map or a list of Gaussians" % spec)
    elif not os.path.exists(spec):
        raise RegionError("region '%s' is neither an existing file nor 'sphere:x,y,z,radius' nor 'chain:A,B/120-240'" % spec)
    elif re.search(MAP_NAMES, spec):
        volume, pixel_size = read_map(spec)
        values = sample_map(volume, pixel_size, mixture.centers)
        inside = values > 0.5
        advice = "expected a mask from 0 to 1 that is above 0.5 inside, its largest value at a Gaussian is %.3g" % values.max()
    else:
        inside = _listed(spec, len(mixture))
        advice = "the file names none"
    if not inside.any():
        raise RegionError("region '%s' selects none of the %d Gaussians: %s" % (spec, len(mixture), advice))
    return inside


def _in_chains(spec, labels):
    """Gaussians of 'chain:A,B/120-240'; each item must select something."""
    if labels is None or not labels.names():
        raise RegionError("region '%s' names chains, but the neutral model has none: it was not started from an atomic model "
                          "(fit --atoms)" % spec)
    return np.any([_of_chain(item, spec, labels) for item in spec[len("chain:"):].split(",")], axis=0)


def _of_chain(item, spec, labels):
    found = re.fullmatch(CHAIN_ITEM, item)
    if not found:
        raise RegionError("region '%s' must name chains, each alone or with residues, as in 'chain:A,B/120-240', got '%s'" % (
            spec, item.strip()))
    chain, first, last = found.groups()
    if chain not in labels.names():
        raise RegionError("region '%s': the neutral model has no chain '%s', its chains are %s" % (spec, chain, ", ".join(labels.names())))
    if first is None:
        return labels.chain == chain
    first, last = int(first), int(first if last is None else last)
    if last < first:
        raise RegionError("region '%s': residues %d to %d of chain %s run backwards, write '%s/%d-%d'" % (
            spec, first, last, chain, chain, last, first))
    inside = labels.within(chain, first, last)
    if not inside.any():
        raise RegionError("region '%s' selects none of the %d Gaussians of chain %s, which has residues %d to %d: a Gaussian is inside "
                          "when half of its mass is" % (spec, np.sum(labels.chain == chain), chain, *labels.residue_range(chain)))
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
        if not (np.isfinite([x, y, z, radius]).all() and radius > 0):
            raise ValueError
    except ValueError:
        raise RegionError("region '%s' must be 'sphere:x,y,z,radius', four numbers in Å, the radius above 0" % spec) from None
    return np.linalg.norm(centers - np.array([x, y, z]), axis=1) <= radius


def _listed(path, count):
    with open(path, encoding="utf-8", errors="replace") as f:
        words = " ".join(line.split("#")[0] for line in f).replace(",", " ").split()
    wrong = [word for word in words if not word.lstrip("+-").isdecimal()]
    if wrong:
        raise RegionError("region file '%s' must hold whole numbers from 1, got '%s'" % (path, ascii(wrong[0][:40])[1:-1]))
    numbers = np.array(words, np.int64)
    if len(numbers) and (numbers.min() < 1 or numbers.max() > count):
        raise RegionError("region file '%s' names Gaussian %d; the model has Gaussians 1 to %d" % (
            path, numbers.min() if numbers.min() < 1 else numbers.max(), count))
    inside = np.zeros(count, bool)
    inside[numbers - 1] = True
    return inside


def asymmetric_unit(centers, amplitudes, group):
    """Gaussians of one asymmetric unit of cN or dN, cut where the density is least; of the equivalent units the one that holds the x axis.

    A unit is what lies nearer to a point than to the copies of that point: a wedge between planes through the box centre, for whatever
    point. Of many points the one is taken whose planes meet the least density, so that a subunit stays whole where a wedge can hold it.

    Parameters
    ----------
    centers : array [N, 3] Å; amplitudes : array [N]; group : str.

    Returns
    -------
    bool array [N].
    """
    matrices = symmetry_matrices(group)
    if len(matrices) == 1:
        return np.ones(len(centers), bool)
    near_angst = max(0.05 * float(np.max(np.linalg.norm(centers, axis=1))), 1e-3)

    def cut_density(point):
        depth = _depth(centers, point, matrices)
        return np.inf if depth is None else np.sum(amplitudes * np.exp(-0.5 * (depth / near_angst) ** 2))
    points = _directions(CUT_DIRECTIONS)
    point = points[np.argmin([cut_density(p) for p in points])]
    copies = matrices @ point
    point = copies[np.lexsort((copies[:, 2], np.round(copies[:, 0], 6)))[-1]]
    return np.all(_heights(centers, point, matrices) >= 0, axis=0)


def _heights(centers, point, matrices):
    """Distance (Å, positive on the point's side) of centres [N, 3] from the plane between a point [3] and each copy of it: [n - 1, N]."""
    normals = point - matrices[1:] @ point
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True)) @ centers.T


def _depth(centers, point, matrices):
    """Distance (Å) of centres [N, 3] from the nearest plane of the wedges of a point and its copies; None for a point too near to a
    copy."""
    if np.min(np.linalg.norm(point - matrices[1:] @ point, axis=1)) < 0.1:
        return None
    closest = np.argmax(centers @ (matrices @ point).T, axis=1)
    home = np.einsum("nji,nj->ni", matrices[closest], centers)
    return np.min(_heights(home, point, matrices), axis=0)


def _directions(count):
    """Unit vectors spread evenly over the sphere (Fibonacci's lattice), [count, 3]."""
    i = np.arange(count) + 0.5
    z, azimuth = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    return np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], axis=1)


def shared_by_copies(mixture, inside, group):
    """Part of the mass of a region, bool [N], that lies where the point group turns another part of it: within the width of a Gaussian."""
    centers, mass = mixture.centers[inside], mixture.amplitudes[inside]
    near = float(np.median(mixture.widths))
    tree = KDTree(centers)
    met = [tree.query(centers @ matrix.T)[0] < near for matrix in symmetry_matrices(group)[1:]]
    return float(mass[np.any(met, axis=0)].sum() / mass.sum())


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
