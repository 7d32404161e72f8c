"""Where the Gaussians of a neutral model start."""
from typing import NamedTuple, Optional, Tuple

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from scipy.spatial import cKDTree

from gmmhet.engine.gmm.labels import Labels

#: distance of neighbouring Gaussians over the target resolution, at first
SPACING = 0.8
#: a piece of weak density, or of density that no atom explains, has room for so many Gaussians at least:
#: smaller ones #: are noise
LEAST_GAUSSIANS_OF_PIECE = 4
#: density lies so many standard deviations above the solvent, and weak density above this part of the
#: threshold
NOISE_DEVIATIONS, WEAK_LEVEL = 3.0, 0.25
#: pieces below this part of the largest one are dust
DUST_SHARE = 0.01
#: solvent voxels that tell its noise
FEWEST_SOLVENT_VOXELS = 100


class Seeds(NamedTuple):
    """Where Gaussians start.

    Attributes
    ----------
    centers : float32 [N, 3], Å from the box centre.
    shares : float32 [N] or None, amplitudes over their mean; None starts all alike.
    labels : Labels or None.
    """

    centers: np.ndarray
    shares: Optional[np.ndarray] = None
    labels: Optional[Labels] = None


def smooth_to(volume: np.ndarray, pixel_size: float, resolution_angst: float) -> np.ndarray:
    """The map blurred so that details finer than `resolution_angst` fade (standard deviation resolution /
    5)."""
    return np.asarray(gaussian_filter(volume, resolution_angst / 5 / pixel_size))


def find_threshold(volume: np.ndarray) -> float:
    """Density level of the molecule's surface: Otsu's threshold between solvent and molecule, halved, or more
    where noise reaches higher.

    The histogram is taken over positive densities; see Otsu (1979).

    Raises
    ------
    ValueError
        when the map has no positive density, or is the same everywhere.
    """
    positive = volume[volume > 0]
    if not positive.size:
        raise ValueError("the map holds no positive density: is its contrast inverted (density must be "
                         "white)?")
    if positive.size == volume.size and np.ptp(positive) < 1e-5 * positive[0]:
        raise ValueError("the map is %.3g everywhere: there is nothing to fit" % positive[0])
    counts, edges = np.histogram(positive, 256)
    levels = 0.5 * (edges[1:] + edges[:-1])
    below, total = np.cumsum(counts), np.cumsum(counts * levels)
    share = below / below[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] / below[-1] * share - total / below[-1]) ** 2 / (share * (1 - share))
    middle = float(levels[np.nanargmax(between[:-1])])
    return max(0.5 * middle, min(noise_level(volume), 0.5 * float(volume.max())))


def solid_region(smooth: np.ndarray, threshold: float) -> np.ndarray:
    """Voxels above the threshold without specks of dust, pieces below a hundredth of the largest: bool
    [L, L, L].

    Raises
    ------
    ValueError
        when there are none.
    """
    pieces, count = label(smooth > threshold)
    if not count:
        raise ValueError("no density lies above the threshold %.4g (the map's largest smoothed density is "
                         "%.4g): lower --threshold" % (threshold, smooth.max()))
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.flatnonzero(sizes >= DUST_SHARE * sizes.max()))


def soft_edge(region: np.ndarray, pixel_size: float, resolution_angst: float) -> np.ndarray:
    """Soft mask float32 [L, L, L] around a region: 1 up to half the resolution beyond it, then a cosine edge
    of another half."""
    beyond = distance_transform_edt(~region) * pixel_size / (0.5 * resolution_angst) - 1
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0, 1)), np.float32)


def near_points(points: np.ndarray, shape: Tuple[int, ...], pixel_size: float,
                reach_angst: float) -> np.ndarray:
    """Voxels within `reach_angst` of points [P, 3] Å: bool [L, L, L]."""
    index = np.round(points[:, ::-1] / pixel_size).astype(int) + np.array(shape) // 2
    index = index[np.all((index >= 0) & (index < shape), axis=1)]
    far = np.ones(shape, bool)
    far[tuple(index.T)] = False
    return np.asarray(distance_transform_edt(far) * pixel_size <= reach_angst) if len(index) else ~far


def large_pieces(region: np.ndarray, pixel_size: float, resolution_angst: float) -> np.ndarray:
    """The pieces of a region that have room for at least `LEAST_GAUSSIANS_OF_PIECE` Gaussians: bool
    [L, L, L]."""
    pieces, _ = label(region)
    room = np.bincount(pieces.ravel()) * (pixel_size / (SPACING * resolution_angst)) ** 3
    return np.isin(pieces, 1 + np.flatnonzero(room[1:] >= LEAST_GAUSSIANS_OF_PIECE))


def noise_level(values: np.ndarray) -> float:
    """Density that the solvent's noise hardly reaches: the median and `NOISE_DEVIATIONS` standard deviations,
    taken from the lower half.

    A molecule among the values does little harm while it is the smaller part; even one that fills the box
    leaves the corners of the cube.
    """
    low, middle = np.percentile(values, (15.87, 50))
    return float(middle + NOISE_DEVIATIONS * (middle - low))


def in_sphere(box: int) -> np.ndarray:
    """Voxels within the sphere that fits the box: bool [L, L, L]."""
    square = (np.arange(box) - box // 2) ** 2
    return np.asarray(square[:, None, None] + square[None, :, None] + square[None, None, :] < (box // 2) ** 2)


def density_beyond(volume: np.ndarray, beyond: np.ndarray, pixel_size: float,
                   resolution_angst: float) -> np.ndarray:
    """The map blurred to twice the resolution within the voxels `beyond` the molecule alone, so that its
    density does not leak in; 0 elsewhere. [L, L, L]."""
    width = 2 * resolution_angst / 5 / pixel_size
    share = gaussian_filter(beyond.astype(np.float32), width)
    blurred = gaussian_filter(np.where(beyond, volume, 0), width)
    return np.where(beyond, blurred / np.maximum(share, 1e-3), 0)


def weak_region(volume: np.ndarray, region: np.ndarray, pixel_size: float, resolution_angst: float,
                threshold: float, level: Optional[float] = None) -> np.ndarray:
    """Weak density of the molecule, as of a domain that few particles have or that turns far: bool [L, L, L].

    Pieces of `density_beyond` further than half the resolution from `region` (nearer is its own blurred
    surface) that reach within the resolution of it and have room for several Gaussians.

    Parameters
    ----------
    volume : [L, L, L].
    region : bool [L, L, L], the molecule above the threshold.
    pixel_size, resolution_angst : float, Å/px and Å.
    threshold : float, density of the molecule's surface.
    level : float or None, least density; None takes `WEAK_LEVEL` of the threshold, or more where the
        solvent's noise reaches higher (the solvent is further than twice the resolution from the region and
        within the sphere that fits the box).
    """
    distance = distance_transform_edt(~region) * pixel_size
    weak = density_beyond(volume, distance > 0.5 * resolution_angst, pixel_size, resolution_angst)
    sphere = in_sphere(len(volume))
    if level is None:
        solvent = weak[sphere & (distance > 2 * resolution_angst)]
        enough = solvent.size > FEWEST_SOLVENT_VOXELS
        level = max(WEAK_LEVEL * threshold, noise_level(solvent) if enough else np.inf)
    pieces, _ = label(large_pieces(sphere & (weak > level), pixel_size, resolution_angst))
    attached = np.unique(pieces[distance <= resolution_angst])
    return np.isin(pieces, attached[attached > 0])


def count_for(region: np.ndarray, pixel_size: float, resolution_angst: float, least: int = 8) -> int:
    """Number of Gaussians for a target resolution: volume of a region (bool [L, L, L]) over the cube of the
    spacing, and at least `least`."""
    return int(max(least, np.ceil(np.sum(region) * (pixel_size / (SPACING * resolution_angst)) ** 3)))


def weighted_means(points: np.ndarray, weights: np.ndarray, centers: np.ndarray,
                   rounds: int = 20) -> Tuple[np.ndarray, np.ndarray]:
    """Lloyd's k-means with a search tree, which stays quick for thousands of clusters.

    Parameters
    ----------
    points : array [P, 3].
    weights : array [P], above 0.
    centers : array [K, 3], where the means start; one that loses all its points stays where it is.
    rounds : int, iterations, at least 1.

    Returns
    -------
    centers : float64 [K, 3].
    member : int [P], the cluster of each point, by its nearest centre of the round before the last mean.
    """
    centers = np.array(centers, float)
    for _ in range(rounds):
        member = cKDTree(centers).query(points)[1]
        total = np.bincount(member, weights, len(centers))
        occupied = total > 0
        sums = np.stack([np.bincount(member, weights * axis, len(centers)) for axis in points.T], 1)
        centers[occupied] = sums[occupied] / total[occupied, None]
    return centers, member


def seed_centers(volume: np.ndarray, threshold: float, pixel_size: float, count: int,
                 seed: int) -> np.ndarray:
    """k-means of the voxels above `threshold`, each weighted by its density: centres float32 [count, 3], x,
    y, z in Å.

    Raises
    ------
    ValueError
        when fewer voxels than `count` lie above the threshold.
    """
    index = np.argwhere(volume > threshold)
    if len(index) < count:
        raise ValueError("only %d voxels lie above the density threshold %.4g, fewer than the %d Gaussians "
                         "asked for: lower --threshold or --n-gaussians" % (len(index), threshold, count))
    points = (index - np.array(volume.shape) // 2)[:, ::-1] * pixel_size
    weight = volume[tuple(index.T)]
    rng = np.random.default_rng(seed)
    start = points[rng.choice(len(points), count, replace=False, p=weight / weight.sum())]
    return weighted_means(points, weight, start)[0].astype(np.float32)
