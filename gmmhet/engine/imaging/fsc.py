"""Fourier shell correlation between maps, the resolution read from it, and masks for it. NumPy only."""
import numpy as np
from scipy import fft


def shell_index(box):
    """Shell of every frequency of `scipy.fft.rfftn` of a cube: rounded distance from the origin in Fourier pixels, [L, L, L//2+1]."""
    full, half = fft.fftfreq(box, 1.0 / box), fft.rfftfreq(box, 1.0 / box)
    return np.rint(np.sqrt(full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2)).astype(np.int32)


def fsc_curve(map_a, map_b):
    """Fourier shell correlation of two maps.

    ``FSC_s = Re sum(F_a conj F_b) / sqrt(sum |F_a|^2 sum |F_b|^2)``, the sums over shell s (Harauz & van Heel 1986).

    Parameters
    ----------
    map_a, map_b : array [L, L, L].

    Returns
    -------
    array float64 [L//2 + 1], shells 0 .. L//2; 0 where a map has no signal in the shell.

    Raises
    ------
    ValueError
        when the maps are not cubes of one size.
    """
    map_a, map_b = np.asarray(map_a), np.asarray(map_b)
    if map_a.shape != map_b.shape or map_a.ndim != 3 or len(set(map_a.shape)) != 1:
        raise ValueError("map_a and map_b must be cubes of one size, got %s and %s" % (list(map_a.shape), list(map_b.shape)))
    box = map_a.shape[0]
    a, b = fft.rfftn(map_a.astype(np.float32)), fft.rfftn(map_b.astype(np.float32))
    once = np.zeros(box // 2 + 1, bool)
    once[0], once[-1] = True, box % 2 == 0
    weight = np.broadcast_to(np.where(once, 1.0, 2.0), a.shape).ravel()     # a Friedel mate that rfftn leaves out counts too
    shell = shell_index(box).ravel()

    def shell_sum(values):
        return np.bincount(shell, weight * values.ravel(), box)[:box // 2 + 1]

    cross = shell_sum(a.real * b.real + a.imag * b.imag)
    power = np.sqrt(shell_sum(np.abs(a) ** 2) * shell_sum(np.abs(b) ** 2))
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)


def masked_fsc_curve(map_a, map_b, mask):
    """`fsc_curve` of the maps multiplied by `mask` [L, L, L] (0 to 1).

    A mask adds correlation of its own where it is tight or sharp; no correction for it is made here.

    Raises
    ------
    ValueError
        when the mask has another shape than the maps.
    """
    if np.shape(mask) != np.shape(map_a):
        raise ValueError("mask must have the maps' shape %s, got %s" % (list(np.shape(map_a)), list(np.shape(mask))))
    return fsc_curve(np.asarray(map_a) * mask, np.asarray(map_b) * mask)


def soft_sphere(box, radius_px=None, edge_px=5.0):
    """Soft spherical mask centred on voxel L//2: 1 inside, a cosine edge of `edge_px` outside `radius_px`.

    Parameters
    ----------
    box : int
    radius_px : float or None; None ends the edge at the face of the box.
    edge_px : float

    Returns
    -------
    float32 [L, L, L]
    """
    if radius_px is None:
        radius_px = box / 2.0 - edge_px
    axis = np.arange(box) - box // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip((radius - radius_px) / edge_px, 0.0, 1.0))).astype(np.float32)


def resolution_at(fsc, threshold, box, pixel_size):
    """Resolution in Å where the curve first falls below `threshold`, linear between shells.

    Parameters
    ----------
    fsc : array [L//2 + 1]
    threshold : float, such as 0.143 between half maps or 0.5 against a known map.
    box : int
    pixel_size : float, Å/px.

    Returns
    -------
    float, Å; the Nyquist limit where the curve never falls below, ``inf`` where shell 1 already is below.
    """
    fsc = np.asarray(fsc, np.float64)
    below = np.flatnonzero(fsc[1:] < threshold) + 1
    if not len(below):
        return float(box * pixel_size / (len(fsc) - 1))
    last = below[0] - 1
    if last == 0:
        return float("inf")
    shell = last + (fsc[last] - threshold) / (fsc[last] - fsc[last + 1])
    return float(box * pixel_size / shell)


def write_fsc_csv(path, box, pixel_size, **curves):
    """Write curves [L//2 + 1] as columns beside ``resolution_angst``, one row per shell from 1 on."""
    resolution = box * pixel_size / np.arange(1, box // 2 + 1)
    table = np.stack([resolution] + [np.asarray(curve, np.float64)[1:] for curve in curves.values()], axis=1)
    np.savetxt(path, table, "%.6g", ",", header=",".join(["resolution_angst", *curves]), comments="")
