"""Insertion of image transforms into a three-dimensional transform: the one loop that is worth compiling."""
import math
from typing import Tuple

import numba
import numpy as np


@numba.njit(cache=True)
def _clip_line(base: float, slope: float, low: float, high: float, start: float,
               stop: float) -> Tuple[float, float]:
    """The part of [start, stop] where low <= base + slope * x <= high."""
    if abs(slope) < 1e-12:
        return (start, stop) if low <= base <= high else (1.0, 0.0)
    one, other = (low - base) / slope, (high - base) / slope
    return max(start, min(one, other)), min(stop, max(one, other))


@numba.njit(parallel=True, cache=True)
def insert_slices(numerator: np.ndarray, denominator: np.ndarray, values: np.ndarray, weights: np.ndarray,
                  rotation: np.ndarray, radius: int, n_slabs: int) -> None:
    """Add central slices to a transform, each value shared among its eight neighbours (trilinear weights).

    A frequency k of an image belongs at ``q = A^T k`` of the molecule. Only qx >= 0 is kept; values at qx < 0
    go to -q, conjugated. Each slab of z planes is written by one thread alone, so the sum has no races and
    does not depend on the number of threads.

    Parameters
    ----------
    numerator : complex64 [M, M, radius+2], indexed [qz, qy, qx] with the origin at [radius+1, radius+1, 0]
        and M = 2 radius + 3.
    denominator : float32, same shape.
    values : complex64 [B, H, H//2+1], transforms in rfft2's order, centred on the molecule's origin.
    weights : float32, same shape as values.
    rotation : float64 [B, 3, 3], A.
    radius : int, largest frequency inserted, in units of the transforms' spacing; below H/2.
    n_slabs : int
    """
    size, height, origin = numerator.shape[0], values.shape[1], radius + 1
    for slab in numba.prange(n_slabs):
        z_first, z_last = slab * size // n_slabs, (slab + 1) * size // n_slabs - 1
        for b in range(values.shape[0]):
            a = rotation[b]
            for ky in range(-radius, radius + 1):
                row = ky if ky >= 0 else height + ky
                reach = math.floor(math.sqrt(radius * radius - ky * ky))
                for sign in (1, -1):
                    start, stop = _clip_line(sign * ky * a[1, 0], sign * a[0, 0],
                                             0.0, 4.0 * radius, 0.0, reach)
                    start, stop = _clip_line(sign * ky * a[1, 2] + origin, sign * a[0, 2],
                                             z_first - 1.0, z_last + 1.0, start, stop)
                    if stop < start:
                        continue
                    # of the column kx = 0 only ky >= 0: the rest are its Friedel mates
                    first = 0 if ky >= 0 else 1
                    for kx in range(max(first, math.floor(start)), min(reach, math.ceil(stop)) + 1):
                        x = sign * (kx * a[0, 0] + ky * a[1, 0])
                        if x < 0 or (sign < 0 and x == 0):
                            continue
                        y = sign * (kx * a[0, 1] + ky * a[1, 1]) + origin
                        z = sign * (kx * a[0, 2] + ky * a[1, 2]) + origin
                        ix, iy, iz = math.floor(x), math.floor(y), math.floor(z)
                        fx, fy, fz = x - ix, y - iy, z - iz
                        value, weight = values[b, row, kx], weights[b, row, kx]
                        if sign < 0:
                            value = value.conjugate()
                        for dz in range(2):
                            if iz + dz < z_first or iz + dz > z_last:
                                continue
                            wz = fz if dz else 1.0 - fz
                            for dy in range(2):
                                wy = wz * (fy if dy else 1.0 - fy)
                                for dx in range(2):
                                    w = np.float32(wy * (fx if dx else 1.0 - fx))
                                    numerator[iz + dz, iy + dy, ix + dx] += w * value
                                    denominator[iz + dz, iy + dy, ix + dx] += w * weight
