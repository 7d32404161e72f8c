"""Where the Gaussians of a neutral model start."""
import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from sklearn.cluster import MiniBatchKMeans

#: distance of neighbouring Gaussians over the target resolution, at first
SPACING = 0.7


def smooth_to(volume, pixel_size, resolution_angst):
    """The map blurred so that details finer than `resolution_angst` fade (standard deviation resolution / 5)."""
    return gaussian_filter(volume, resolution_angst / 5 / pixel_size)


def find_threshold(volume):
    """Density level of the molecule's surface: Otsu's threshold between solvent and molecule, halved to keep weak density.

    The histogram is taken over positive densities; see Otsu (1979).
    """
    positive = volume[volume > 0]
    if not positive.size:
        raise ValueError("the map holds no positive density: is its contrast inverted (density must be white)?")
    counts, edges = np.histogram(positive, 256)
    levels = 0.5 * (edges[1:] + edges[:-1])
    below, total = np.cumsum(counts), np.cumsum(counts * levels)
    share = below / below[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] / below[-1] * share - total / below[-1]) ** 2 / (share * (1 - share))
    return 0.5 * float(levels[np.nanargmax(between[:-1])])


def molecule_mask(smooth, threshold, pixel_size, resolution_angst):
    """Soft mask [L, L, L] around the density above `threshold`, without specks of dust.

    1 up to half the resolution beyond the surface, a cosine edge of another half; pieces below a hundredth of the largest are dust.
    """
    pieces, count = label(smooth > threshold)
    sizes = np.bincount(pieces.ravel())[1:]
    if not count:
        raise ValueError("no density lies above the threshold %.4g (the map's largest smoothed density is %.4g): lower --threshold" % (
            threshold, smooth.max()))
    solid = np.isin(pieces, 1 + np.flatnonzero(sizes >= 0.01 * sizes.max()))
    beyond = distance_transform_edt(~solid) * pixel_size / (0.5 * resolution_angst) - 1
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0, 1))).astype(np.float32)


def count_for(volume, threshold, pixel_size, resolution_angst):
    """Number of Gaussians for a target resolution: volume of the molecule over the cube of the spacing."""
    spacing = SPACING * resolution_angst
    return int(max(8, np.ceil(np.sum(volume > threshold) * (pixel_size / spacing) ** 3)))


def seed_centers(volume, threshold, pixel_size, count, seed):
    """k-means of the voxels above `threshold`, each weighted by its density: centres [count, 3], Å, x y z.

    Raises
    ------
    ValueError
        when fewer voxels than `count` lie above the threshold.
    """
    index = np.argwhere(volume > threshold)
    if len(index) < count:
        raise ValueError("only %d voxels lie above the density threshold %.4g, fewer than the %d Gaussians asked for: "
                         "lower --threshold or --n-gaussians" % (len(index), threshold, count))
    points = (index - np.array(volume.shape) // 2)[:, ::-1] * pixel_size
    weight = volume[tuple(index.T)]
    rng = np.random.default_rng(seed)
    start = points[rng.choice(len(points), count, replace=False, p=weight / weight.sum())]
    means = MiniBatchKMeans(count, init=start, n_init=1, batch_size=max(4096, 3 * count), max_iter=30, random_state=seed)
    return means.fit(points, sample_weight=weight).cluster_centers_.astype(np.float32)
