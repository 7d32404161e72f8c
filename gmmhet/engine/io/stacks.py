"""Image stacks read lazily: MRC and EMAN2 HDF image by image, compressed MRC whole once."""
import os
import resource
import threading
import warnings
import weakref
import zlib
from collections import OrderedDict
from typing import Any, Dict, List, Literal, Protocol, Tuple

import h5py
import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode

from gmmhet.engine.io.errors import ParticleError

_COMPRESSED_ENDINGS = (".gz", ".bz2")
_HDF_ENDINGS = (".hdf", ".hdf5", ".h5")
#: stacks kept open: half of the file descriptors that this process may have, commonly 1,024
MOST_OPEN_STACKS = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 4096)


#: number of images, and their size ny, nx
Shape = Tuple[int, int, int]
ByteOrder = Literal["<", ">"]


class Stack(Protocol):
    """An open image stack."""

    shape: Shape

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Images [B, ny, nx] of the given numbers (from 0), in the stack's own type."""
        ...


def is_hdf(path: str) -> bool:
    """Whether `path` names an EMAN2 HDF stack."""
    return path.lower().endswith(_HDF_ENDINGS)


def is_compressed(path: str) -> bool:
    """Whether `path` names a compressed stack, which is read as a whole."""
    return path.lower().endswith(_COMPRESSED_ENDINGS)


def stack_shape(path: str) -> Shape:
    """Number of images and their size, from the header alone.

    Returns
    -------
    n, ny, nx : int

    Raises
    ------
    ParticleError
        when the file is not a readable stack, or shorter than its header says.
    """
    try:
        return _open_stack(path, header_only=True).shape
    except OSError as error:
        raise ParticleError("stack '%s' cannot be opened: %s" % (path, error.strerror or error)) from None


def _open_stack(path: str, header_only: bool = False) -> Stack:
    if is_hdf(path):
        return HdfStack(path)
    if is_compressed(path):
        return CompressedStack(path, header_only)
    return PlainStack(path)


def plain_header(path: str) -> Tuple[Any, ByteOrder]:
    """Header (a NumPy record) and byte order of an uncompressed MRC file of at least 1024 bytes."""
    with open(path, "rb") as file:
        return _header(file.read(HEADER_DTYPE.itemsize))


def _header(raw: bytes) -> Tuple[Any, ByteOrder]:
    order: ByteOrder = ">" if np.frombuffer(raw, HEADER_DTYPE, 1)[0]["machst"][0] == 0x11 else "<"
    return np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order), 1)[0], order


def _mrc_layout(path: str, header: Any) -> Tuple[Shape, np.dtype, int]:
    """Shape, dtype (native byte order) and offset of the images in an MRC file."""
    try:
        dtype = dtype_from_mode(int(header["mode"]))
    except ValueError:
        dtype = None
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    if dtype is None or dtype.kind == "c" or min(shape) < 1 or header["nsymbt"] < 0:
        raise ParticleError("stack '%s' is not a readable MRC stack: expected mode 0, 1, 2, 6 or 12, got "
                            "mode %d with %d images of %d x %d px" % (
                                path, header["mode"], shape[0], shape[2], shape[1]))
    return shape, dtype, HEADER_DTYPE.itemsize + int(header["nsymbt"])


class PlainStack:
    """An uncompressed MRC stack, read image by image from the open file.

    It is read and not memory-mapped: where a file is cut short or its disk fails during a run, reading is an
    error with a sentence, and touching a memory map ends the whole program. Both go through the page cache
    and are equally fast.
    """

    def __init__(self, path: str):
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size < HEADER_DTYPE.itemsize:
            raise ParticleError("stack '%s' is not an MRC file: it has %d bytes, a header has 1024" % (
                path, size))
        header, order = _header(os.pread(self._file, HEADER_DTYPE.itemsize, 0))
        self.shape, dtype, self._offset = _mrc_layout(path, header)
        self._dtype = dtype.newbyteorder(order)
        self._image_bytes = dtype.itemsize * self.shape[1] * self.shape[2]
        whole_images = (size - self._offset) // self._image_bytes
        if whole_images < self.shape[0]:
            raise ParticleError("stack '%s' is cut short: its header says %d images, the file holds %d whole "
                                "ones" % (path, self.shape[0], max(whole_images, 0)))

    def read(self, numbers: np.ndarray) -> np.ndarray:
        images = np.empty((len(numbers), *self.shape[1:]), self._dtype)
        for image, number in zip(images, numbers):
            size = os.preadv(self._file, [image], self._offset + int(number) * self._image_bytes)
            if size < self._image_bytes:
                raise ParticleError(
                    "stack '%s' ended at image %d while it was read, after it held %d images when the run "
                    "began: has the file been changed or cut short since?" % (
                        self._path, number + 1, self.shape[0]))
        return images


class CompressedStack:
    """A gzip or bzip2 MRC stack, uncompressed into memory when opened."""

    def __init__(self, path: str, header_only: bool = False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                with mrcfile.open(path, permissive=True, header_only=header_only) as file:
                    self.shape, _, _ = _mrc_layout(path, file.header)
                    data = file.data
        except (OSError, EOFError, zlib.error, MemoryError) as error:
            raise ParticleError("stack '%s' cannot be uncompressed: %s" % (path, error)) from None
        if not header_only:
            if data is None:
                raise ParticleError("stack '%s' is cut short: its header says %d images" % (
                    path, self.shape[0]))
            self._data: np.ndarray = data.reshape(self.shape)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        return self._data[numbers]


class HdfStack:
    """An EMAN2 HDF stack: image i is the data set ``/MDF/images/i/image``; integers are scaled back to the
    range that EMAN2 noted when it compressed them."""

    def __init__(self, path: str):
        try:
            self._images = h5py.File(path, "r")["MDF/images"]
            names = [name for name in self._images if name.isdigit()]
            first = self._images[min(names, key=int)]["image"]
        except (OSError, KeyError, ValueError) as error:
            raise ParticleError("stack '%s' is not an EMAN2 HDF stack with images under /MDF/images: %s" % (
                path, error)) from None
        ny, nx = first.shape[-2:]
        self.shape = max(int(name) for name in names) + 1, ny, nx

    def read(self, numbers: np.ndarray) -> np.ndarray:
        images = np.empty((len(numbers), *self.shape[1:]), np.float32)
        for image, number in zip(images, numbers):
            image[...] = _hdf_image(self.group(number))
        return images

    def group(self, number: int) -> Any:
        """HDF group of an image: its data set and its header."""
        if "%d" % number not in self._images:
            raise ParticleError("stack '%s' has no image %d under /MDF/images" % (
                self._images.file.filename, number))
        return self._images["%d" % number]


def hdf_attributes(path: str, numbers: List[int]) -> List[Dict[str, Any]]:
    """Header of each of the given images (from 0) of an EMAN2 HDF stack: dicts of EMAN2's names with
    ``EMAN.`` before them.

    Raises
    ------
    ParticleError
        when the stack is none or lacks an image.
    """
    stack = HdfStack(path)
    return [dict(stack.group(number).attrs) for number in numbers]


def _hdf_image(group: Any) -> np.ndarray:
    """The image [ny, nx] of an HDF group."""
    values, attributes = group["image"][()], group.attrs
    values = values.reshape(values.shape[-2:])
    bits = int(np.ravel(attributes.get("EMAN.stored_renderbits", 0))[0])
    if values.dtype.kind not in "iu" or bits <= 0:
        return values
    low, high = (float(np.ravel(attributes["EMAN.stored_render" + end])[0]) for end in ("min", "max"))
    return low + values.astype(np.float32) * ((high - low) / (2.0 ** bits - 1.0))


class StackCache:
    """The stacks opened last, shared by all the subsets of a particle set; several threads may read at once.

    Parameters
    ----------
    most_open, most_whole : int, how many stacks that are read image by image (one file descriptor each), and
        how many that are held in memory as a whole, stay open.
    """

    def __init__(self, most_open: int = MOST_OPEN_STACKS, most_whole: int = 2):
        self._most = {False: most_open, True: most_whole}
        self._open: Dict[bool, OrderedDict[str, Stack]] = {False: OrderedDict(), True: OrderedDict()}
        self._lock = threading.Lock()

    def read(self, path: str, numbers: np.ndarray) -> np.ndarray:
        """Images of the stack at `path` by 0-based number, [len(numbers), ny, nx] of the stack's own type.

        Raises
        ------
        ParticleError
            when the stack, or one of the images, cannot be read (any more).
        """
        try:
            return self.get(path).read(numbers)
        except ParticleError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise ParticleError("stack '%s' cannot be read: %s; it could be read when the run began: "
                                "has it been moved, or has the disk failed?" % (
                                    path, getattr(error, "strerror", None) or error)) from None

    def get(self, path: str) -> Stack:
        """The stack at `path`, opened when it is not open yet."""
        whole = is_compressed(path)
        stacks = self._open[whole]
        with self._lock:
            if path not in stacks:
                stacks[path] = _open_stack(path)
                if len(stacks) > self._most[whole]:
                    stacks.popitem(last=False)
            stacks.move_to_end(path)
            return stacks[path]
