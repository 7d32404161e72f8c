"""Maps: MRC files to arrays [z, y, x] and back."""
import math
import os
import warnings
from typing import Any, Tuple

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode

from gmmhet.engine.io.errors import MapError
from gmmhet.engine.io.stacks import is_compressed, plain_header

__all__ = ["MapError", "read_map", "write_map"]


def read_map(path: str) -> Tuple[np.ndarray, float]:
    """Read a cubic map.

    The header's origin is ignored: the origin is the box centre, pixel ``L // 2``.

    Parameters
    ----------
    path : str, an MRC file, also compressed (.gz, .bz2).

    Returns
    -------
    array : [L, L, L] float32, indexed [z, y, x].
    pixel_size : float, Å/px.

    Raises
    ------
    MapError
        when the file is missing or no MRC file, the map is not cubic, has no pixel size or holds NaN.
    """
    if not os.path.isfile(path):
        raise MapError("map '%s' %s" % (
            path, "is a folder, expected an MRC file" if os.path.isdir(path) else "does not exist"))
    try:
        if not is_compressed(path):
            _check_length(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with mrcfile.open(path, permissive=True) as file:
                data, voxel = file.data, file.voxel_size.copy()
    except MapError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise MapError("map '%s' is not a readable MRC file: %s" % (path, error)) from None
    if data is None:
        raise MapError("map '%s' is not a readable MRC file: it is shorter than its header says" % path)
    _check_map(path, data, voxel)
    return np.asarray(data, np.float32), float(voxel.x)


def _check_length(path: str) -> None:
    """Refuse a plain file too short for its header, before memory is set aside for what a broken header
    claims."""
    size = os.path.getsize(path)
    if size < HEADER_DTYPE.itemsize:
        raise MapError("map '%s' is not a readable MRC file: it has %d bytes, a header has %d" % (
            path, size, HEADER_DTYPE.itemsize))
    header, _ = plain_header(path)
    sizes = [int(header[name]) for name in ("nx", "ny", "nz")]
    voxel_bytes = dtype_from_mode(int(header["mode"])).itemsize
    expected = HEADER_DTYPE.itemsize + int(header["nsymbt"]) + math.prod(sizes) * voxel_bytes
    if min(sizes) < 1 or size < expected:
        raise MapError("map '%s' is not a readable MRC file: its header says %d x %d x %d voxels, %d bytes "
                       "in all, but it has %d bytes" % (path, *sizes, expected, size))


def _check_map(path: str, data: np.ndarray, voxel: Any) -> None:
    """Refuse a map that is not cubic, complex, without one pixel size (`voxel`: x, y, z) or not finite."""
    if data.ndim != 3 or len(set(data.shape)) != 1:
        raise MapError("map '%s' must be a cube, got %s voxels: pad or crop it" % (
            path, " x ".join(str(s) for s in data.shape[::-1])))
    if np.iscomplexobj(data):
        raise MapError("map '%s' holds a Fourier transform (MRC mode 4), expected densities" % path)
    sizes = np.array([voxel.x, voxel.y, voxel.z], np.float64)
    if not (np.isfinite(sizes).all() and (sizes > 0).all() and np.ptp(sizes) < 1e-3 * sizes[0]):
        raise MapError("map '%s' must have one pixel size above zero in its header, got %g, %g, %g Å/px: set "
                       "it, for example with relion_image_handler --angpix ... --rescale_angpix ..." % (
                           path, *sizes))
    bad = int(data.size - np.count_nonzero(np.isfinite(data)))
    if bad:
        raise MapError("map '%s' holds %d voxels that are NaN or infinite" % (path, bad))


def write_map(path: str, array: np.ndarray, pixel_size: float) -> None:
    """Write a map as MRC mode 2 with origin zero; an existing file is replaced.

    Parameters
    ----------
    path : str
    array : [L, L, L], indexed [z, y, x].
    pixel_size : float, Å/px.

    Raises
    ------
    MapError
        when the array has other than three axes.
    """
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != 3:
        raise MapError("a map must have three axes [z, y, x], got %d for '%s'" % (array.ndim, path))
    with mrcfile.new(path, data=array, overwrite=True) as file:
        file.voxel_size = float(pixel_size)
        file.set_volume()
