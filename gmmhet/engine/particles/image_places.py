"""Where each particle's image lies: from ``000001@stack.mrcs`` to a file that exists and a number in it."""
import os
from dataclasses import dataclass, replace
from typing import Iterator, List, Sequence

import numpy as np
import pandas as pd

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.stacks import stack_shape
from gmmhet.engine.latents import Numbers
from gmmhet.engine.particles.star import ParticleTable


@dataclass(frozen=True)
class ImagePlaces:
    """The stack that holds each particle's image, and its number there.

    Attributes
    ----------
    stacks : absolute paths.
    shapes : int64 [len(stacks), 3], number of images and their size (ny, nx).
    stack_of : int32 [n], row in `stacks` of each particle.
    slice_of : int64 [n], number in the stack, from 0.
    """

    stacks: List[str]
    shapes: np.ndarray
    stack_of: np.ndarray
    slice_of: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """Width of each particle's image, px, int64 [n]."""
        return self.shapes[self.stack_of, 2]

    def select(self, rows: np.ndarray) -> "ImagePlaces":
        """The places of the given particles only."""
        return replace(self, stack_of=self.stack_of[rows], slice_of=self.slice_of[rows])

    def name(self, row: int) -> str:
        """RELION's name of a particle's image, ``000001@/path/stack.mrcs``."""
        return "%06d@%s" % (self.slice_of[row] + 1, self.stacks[self.stack_of[row]])

    def short_names(self, rows: Numbers) -> Iterator[str]:
        """Names of images without their stack's folder, such as ``000001@stack.mrcs``."""
        for row in rows:
            stack = os.path.basename(self.stacks[self.stack_of[row]])
            yield "%06d@%s" % (self.slice_of[row] + 1, stack)

    def names_from(self, folder: str) -> List[str]:
        """Names of all images for a star file in `folder`: stacks in or below it relative to it, others
        absolute."""
        relative = [os.path.relpath(stack, folder) for stack in self.stacks]
        paths = [stack if path.startswith(os.pardir) else path for stack, path in zip(self.stacks, relative)]
        return ["%06d@%s" % (number + 1, paths[stack]) for number, stack in zip(self.slice_of, self.stack_of)]


def image_places(table: ParticleTable) -> ImagePlaces:
    """Where the images of a star file's particles lie.

    Raises
    ------
    ParticleError
        when an image's name is malformed, or a stack is missing or unreadable.
    """
    names = table.particles["rlnImageName"].astype(str)
    words = names.str.rpartition("@")                               # number, @, stack
    has_no_number = (words[1] == "").to_numpy()
    is_number = words[0].str.fullmatch(r"0*[1-9][0-9]{0,9}").to_numpy(bool)
    is_right = (is_number | has_no_number) & (words[2] != "").to_numpy()
    if not is_right.all():
        row = np.flatnonzero(~is_right)[0]
        raise ParticleError("%s: rlnImageName of particle row %d is '%s', expected the image's number from 1 "
                            "and its stack, for example '000001@stack.mrcs'" % (
                                table.path, row + 1, names.iloc[row]))
    stack_of, stacks = pd.factorize(words[2].to_numpy(object))
    stacks = find_stacks(table.path, stacks)
    shapes = np.array([stack_shape(path) for path in stacks])
    unnumbered = np.flatnonzero(has_no_number & (shapes[stack_of, 0] > 1))
    if len(unnumbered):
        row = unnumbered[0]
        raise ParticleError("%s: rlnImageName of particle row %d is '%s', which does not say which of the "
                            "stack's %d images is meant: expected a number and '@' before it" % (
                                table.path, row + 1, names.iloc[row], shapes[stack_of[row], 0]))
    number = words[0].where(~has_no_number, "1").astype(np.int64).to_numpy()
    return ImagePlaces(stacks, shapes, stack_of.astype(np.int32), number - 1)


def find_stacks(list_path: str, stacks: Sequence[str]) -> List[str]:
    """Absolute path of every stack that a star or lst file names: searched from its folder, then each folder
    above it, then the working directory.

    Raises
    ------
    ParticleError
        counting the stacks that are missing.
    """
    folder = os.path.dirname(os.path.abspath(list_path))
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    folders.append(os.getcwd())
    paths = [next((p for p in (os.path.join(f, stack) for f in folders) if os.path.isfile(p)), "")
             for stack in stacks]
    missing = [stack for stack, path in zip(stacks, paths) if not path]
    if missing:
        raise ParticleError("%s: %d of %d image stacks are missing, the first is '%s'; searched %s, each "
                            "folder above it and the working directory %s" % (
                                list_path, len(missing), len(stacks), missing[0], folder, folders[-1]))
    return [os.path.normpath(path) for path in paths]


def check_places(path: str, ids: np.ndarray, group: np.ndarray, places: ImagePlaces) -> None:
    """Refuse images that are not square, sizes that differ within an optics group, and images that their
    stack does not hold.

    Parameters
    ----------
    path : str, the star file.
    ids : int64 [n]; group : int64 [n], number of each particle's optics group.

    Raises
    ------
    ParticleError
        naming the stack or the particle.
    """
    stacks, shapes, stack_of = places.stacks, places.shapes, places.stack_of
    oblong = np.flatnonzero(shapes[:, 1] != shapes[:, 2])
    if len(oblong):
        _, ny, nx = shapes[oblong[0]]
        raise ParticleError("%s: images must be square, got %d x %d px in '%s'" % (
            path, nx, ny, stacks[oblong[0]]))
    _, first, row_of_group = np.unique(group, return_index=True, return_inverse=True)
    expected = stack_of[first][row_of_group.reshape(-1)]
    differs = np.flatnonzero(places.box != shapes[expected, 2])
    if len(differs):
        one, two = expected[differs[0]], stack_of[differs[0]]
        raise ParticleError("%s: all images of an optics group must have the same size: '%s' has %d x %d px, "
                            "but '%s' has %d x %d px" % (
                                path, stacks[one], shapes[one, 2], shapes[one, 1], stacks[two],
                                shapes[two, 2], shapes[two, 1]))
    beyond = np.flatnonzero(places.slice_of >= shapes[stack_of, 0])
    if len(beyond):
        row, stack = beyond[0], stack_of[beyond[0]]
        raise ParticleError("%s: particle id %d names image %d of '%s', which holds only %d images (%d "
                            "particles name images that do not exist)" % (
                                path, ids[row], places.slice_of[row] + 1, stacks[stack], shapes[stack, 0],
                                len(beyond)))
