"""Fourier shell correlation between maps, and the soft sphere that masks them."""
from typing import Optional

import numpy as np
from scipy import fft


def shell_index(box: int) -> np.ndarray:
    """Shell of every frequency of `scipy.fft.rfftn` of a cube: rounded distance from the origin in Fourier
    pixels, int32 [L, L, L//2+1]."""
    full, half = fft.fftfreq(box, 1.0 / box), fft.rfftfreq(box, 1.0 / box)
    square = full[:, None, None] ** 2 + full[None, :, None] ** 2 + half[None, None, :] ** 2
    return np.rint(np.sqrt(square)).astype(np.int32)


def fsc_curve(map_a: np.ndarray, map_b: np.ndarray) -> np.ndarray:
    """Fourier shell correlation of two maps.

    ``FSC_s = Re sum(F_a conj F_b) / sqrt(sum |F_a|^2 sum |F_b|^2)``, the sums over shell s (Harauz & van Heel
    1986).

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
        raise ValueError("map_a and map_b must be cubes of one size, got %s and %s" % (
            list(map_a.shape), list(map_b.shape)))
    box = map_a.shape[0]
    a, b = fft.rfftn(map_a.astype(np.float32)), fft.rfftn(map_b.astype(np.float32))
    once = np.zeros(box // 2 + 1, bool)
    once[0], once[-1] = True, box % 2 == 0
    # a Friedel mate that rfftn leaves out counts too
    weight = np.broadcast_to(np.where(once, 1.0, 2.0), a.shape).ravel()
    shell = shell_index(box).ravel()

    def shell_sum(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell, weight * values.ravel(), box)[:box // 2 + 1]

    cross = shell_sum(a.real * b.real + a.imag * b.imag)
    power = np.sqrt(shell_sum(np.abs(a) ** 2) * shell_sum(np.abs(b) ** 2))
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)


def masked_fsc_curve(map_a: np.ndarray, map_b: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`fsc_curve` of the maps multiplied by `mask` [L, L, L] (0 to 1).

    A mask adds correlation of its own where it is tight or sharp; no correction for it is made here.

    Raises
    ------
    ValueError
        when the mask has another shape than the maps.
    """
    if np.shape(mask) != np.shape(map_a):
        raise ValueError("mask must have the maps' shape %s, got %s" % (
            list(np.shape(map_a)), list(np.shape(mask))))
    return fsc_curve(np.asarray(map_a) * mask, np.asarray(map_b) * mask)


def soft_sphere(box: int, radius_px: Optional[float] = None, edge_px: float = 5.0) -> np.ndarray:
    """Soft spherical mask centred on voxel L//2: 1 inside, a cosine edge of `edge_px` voxels outside
    `radius_px`.

    Parameters
    ----------
    box : int, L (px).
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
    beyond = np.clip((radius - radius_px) / edge_px, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * beyond)).astype(np.float32)
