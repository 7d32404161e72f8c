"""Particle sets: metadata in memory, images read when asked for."""
import copy
import os
from dataclasses import replace
from typing import Iterator, List, NoReturn, Optional

import numpy as np

from gmmhet.engine.imaging.pose import euler_from_rotation, rotation_from_euler
from gmmhet.engine.io.errors import ParticleError, listing
from gmmhet.engine.io.stacks import StackCache
from gmmhet.engine.latents import Numbers
from gmmhet.engine.log import log, progress
from gmmhet.engine.particles.image_places import ImagePlaces, check_places, image_places
from gmmhet.engine.particles.lst import is_lst, read_lst
from gmmhet.engine.particles.metadata import ParticleMetadata
from gmmhet.engine.particles.optics import GroupSampling, read_ctf, read_pixel_size
from gmmhet.engine.particles.star import ANGLE_LABELS, ParticleTable, as_relion31, read_star, write_star

__all__ = ["ParticleError", "ParticleSet", "read_particles"]

#: particles that a message names, and images that are looked through at a time for them
MOST_NAMED, CHUNK_IMAGES = 20, 256


class ParticleSet:
    """Particles with poses and CTF, whose images stay on disk.

    Optics groups may differ in pixel size and box; images are then brought to one sampling as they are read,
    with the values of their pixels kept, and lengths in Å stay what they are. A group sampled more coarsely
    holds nothing beyond its own Nyquist frequency.

    Attributes
    ----------
    ids : int64 [n], ``rlnImageId`` or row number from 1; the key of every join.
    rotation : float32 [n, 3, 3], A of the engine's conventions.
    shift_angst : float32 [n, 2], where the molecule's origin lies in the image (x, y), minus RELION's origin.
    ctf : float32 [n, 10], columns gmmhet.engine.imaging.ctf.CTF_COLUMNS.
    optics_group : int64 [n], its number in the star file.
    half : int8 [n], half set 1 or 2, 0 where unknown.
    sampling : GroupSampling, how each optics group is stored, and the common sampling of the images that
        `read` gives.
    path : str, the star file.
    """

    def __init__(self, table: ParticleTable, metadata: ParticleMetadata, sampling: GroupSampling,
                 places: ImagePlaces):
        self.ids = np.asarray(metadata.ids)
        self.rotation, self.shift_angst, self.ctf = metadata.rotation, metadata.shift_angst, metadata.ctf
        self.half, self.optics_group = np.asarray(metadata.half), np.asarray(metadata.optics_group)
        self.path, self.sampling = table.path, sampling
        self._table, self._places = table, places
        self._group = sampling.group_of(table.numbers("rlnOpticsGroup"))
        self._cache, self._poses_changed = StackCache(), False

    @property
    def pixel_size(self) -> float:
        """Å/px, of the images that `read` gives."""
        return self.sampling.common.pixel_size

    @property
    def box(self) -> int:
        """L (px), of the images that `read` gives."""
        return self.sampling.common.box

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images of the given rows, all at the set's pixel size and box.

        Parameters
        ----------
        indices : int array [B], rows of this set.

        Returns
        -------
        float32 [B, L, L], (y, x).

        Raises
        ------
        ParticleError
            when an image holds NaN or infinite pixels (names its id and place, and the ids of all others in
            the set that do).
        """
        images = self._read(np.atleast_1d(indices))
        if not _is_finite(images).all():
            self._refuse_not_finite()
        return images

    def _read(self, indices: np.ndarray) -> np.ndarray:
        """`read` without a look at the pixels."""
        images = np.empty((len(indices), self.box, self.box), np.float32)
        stack_of, slice_of = self._places.stack_of[indices], self._places.slice_of[indices]
        for stack in np.unique(stack_of):
            rows = np.flatnonzero(stack_of == stack)
            rows = rows[np.argsort(slice_of[rows], kind="stable")]
            stored = self._cache.read(self._places.stacks[stack], slice_of[rows])
            images[rows] = self.sampling.at_common(stored, self._group[indices[rows]])
        return images

    def _refuse_not_finite(self) -> NoReturn:
        """Raise the error that names every particle whose image holds NaN or infinite pixels."""
        starts = range(0, len(self), CHUNK_IMAGES)
        chunks = [np.arange(i, min(i + CHUNK_IMAGES, len(self))) for i in starts]
        bad = np.concatenate([rows[~_is_finite(self._read(rows))]
                              for rows in progress(chunks, len(chunks), "looking for NaN in images")])
        others = ", as do those of %s" % listing(self.ids[bad[1:]], MOST_NAMED) if len(bad) > 1 else ""
        raise ParticleError("the image of particle id %d (%s) holds NaN or infinite pixels%s: remove such "
                            "particles or extract them again" % (
                                self.ids[bad[0]], self._places.name(bad[0]), others))

    @property
    def numbered(self) -> bool:
        """Whether ids are row numbers, because the file has no ``rlnImageId``."""
        return not self._table.has("rlnImageId")

    def image_names(self, indices: Numbers) -> Iterator[str]:
        """Number and stack of images, without the stack's folder: such as '000001@stack.mrcs'."""
        return self._places.short_names(indices)

    def finest_frequency(self, indices: np.ndarray) -> Optional[np.ndarray]:
        """Largest frequency (1/Å) at which the images of the given rows hold data, [B]; None when every group
        is sampled alike."""
        if not self.sampling.differs.any():
            return None
        return self.sampling.finest_frequency[self._group[indices]]

    def at_sampling(self, box: int, pixel_size: float) -> "ParticleSet":
        """The set with its images read at another box and pixel size (Å/px)."""
        changed = copy.copy(self)
        changed.sampling = self.sampling.with_common(box, pixel_size)
        return changed

    def select(self, indices: np.ndarray) -> "ParticleSet":
        """The set with only the given rows, in the given order; open stacks are shared."""
        indices = np.atleast_1d(indices)
        subset = copy.copy(self)
        for name in ("ids", "rotation", "shift_angst", "ctf", "optics_group", "half", "_group"):
            setattr(subset, name, getattr(self, name)[indices])
        subset._table, subset._places = self._table.select(indices), self._places.select(indices)
        return subset

    def rows_of(self, ids: Numbers) -> np.ndarray:
        """Rows of the given ids, int64 [len(ids)].

        Raises
        ------
        ParticleError
            naming ids that are not in the set.
        """
        wanted = np.atleast_1d(np.asarray(ids, np.int64))
        order = np.argsort(self.ids, kind="stable")
        place = np.minimum(np.searchsorted(self.ids, wanted, sorter=order), len(self) - 1)
        rows: np.ndarray = order[place]
        missing = wanted[self.ids[rows] != wanted]
        if len(missing):
            raise ParticleError("%d ids are not in %s (ids %d to %d): %s" % (
                len(missing), self.path, self.ids.min(), self.ids.max(), listing(missing)))
        return rows

    def with_poses(self, rotation: np.ndarray, shift_angst: np.ndarray) -> "ParticleSet":
        """The set with other orientations [n, 3, 3] and shifts [n, 2] in Å.

        Raises
        ------
        ParticleError
            when the arrays do not have one row per particle.
        """
        rotation, shift_angst = np.asarray(rotation, np.float32), np.asarray(shift_angst, np.float32)
        if rotation.shape != (len(self), 3, 3) or shift_angst.shape != (len(self), 2):
            raise ParticleError("rotation and shift_angst must be [%d, 3, 3] and [%d, 2], got %s and %s" % (
                len(self), len(self), list(rotation.shape), list(shift_angst.shape)))
        changed = copy.copy(self)
        changed.rotation, changed.shift_angst, changed._poses_changed = rotation, shift_angst, True
        return changed

    def with_half(self, half: Numbers) -> "ParticleSet":
        """The set with other half sets, int array [n] of 1 and 2; `write_star` puts them into
        ``rlnRandomSubset``."""
        changed = copy.copy(self)
        changed.half = np.asarray(half, np.int8)
        particles = self._table.particles.assign(rlnRandomSubset=changed.half.astype(int))
        changed._table = replace(self._table, particles=particles)
        return changed

    def write_star(self, path: str) -> None:
        """Write a RELION 3.1 star file that keeps every column and optics group of the input.

        Only angles and shifts are rewritten, and only when `with_poses` changed them; half sets likewise by
        `with_half`. ``rlnImageId`` is written also where the input had none, so that the particles of a
        subset keep their ids. Stacks in or below the new file's folder are named relative to it, all others
        by their absolute path, so that RELION finds them from any working directory.
        """
        names = self._places.names_from(os.path.dirname(os.path.abspath(path)))
        particles = self._table.particles.assign(rlnImageName=names, rlnImageId=self.ids)
        if self._poses_changed:
            angles = euler_from_rotation(self.rotation)
            particles = particles.assign(**{label: np.round(a, 6) for label, a in zip(ANGLE_LABELS, angles)})
        origins = np.round(-self.shift_angst.astype(np.float64), 6) + 0.0
        for column, axis in ((0, "X"), (1, "Y")):
            angst, pixels = "rlnOrigin%sAngst" % axis, "rlnOrigin" + axis
            if self._poses_changed or angst not in particles:
                particles[angst] = origins[:, column]
            if self._poses_changed and pixels in particles:
                particles[pixels] = origins[:, column] / self.sampling.pixel_size[self._group]
        write_star(path, replace(self._table, path=path, particles=particles))


def read_particles(path: str) -> ParticleSet:
    """Read a star file of particles with poses, RELION 3.0, 3.1 or later, or an EMAN2 list (.lst); images
    stay on disk.

    Everything that can be wrong is looked for here, before long work, except NaN pixels, which
    `ParticleSet.read` finds. Relative stack paths are searched from the star file's folder, then each folder
    above it, then the working directory.

    Raises
    ------
    ParticleError
        when the file, its columns or its stacks cannot be used; the message says what to do.
    """
    table = read_lst(path) if is_lst(path) else read_star(path)
    rotation, pixel_size = _read_rotation(table), read_pixel_size(table)
    places = image_places(table)
    table = as_relion31(table, pixel_size, places.box)
    ids, group, ctf = _read_ids(table), table.numbers("rlnOpticsGroup").astype(np.int64), read_ctf(table)
    check_places(table.path, ids, group, places)
    sampling = GroupSampling.of(path, group, pixel_size, places.box)
    metadata = ParticleMetadata(rotation, _read_shift(table, pixel_size), ctf, _read_half(table), ids, group)
    return ParticleSet(table, metadata, sampling, places)


def _is_finite(images: np.ndarray) -> np.ndarray:
    """Which images [B, L, L] hold finite pixels alone, bool [B]."""
    return np.isfinite(images).all(axis=(1, 2))


def _read_rotation(table: ParticleTable) -> np.ndarray:
    """Rotations float32 [n, 3, 3] of RELION's angles."""
    missing = [label for label in ANGLE_LABELS if not table.has(label)]
    if missing:
        raise ParticleError("%s: particles without projection alignment (missing columns: %s). Give "
                            "particles from a 3D refinement or classification" % (
                                table.path, ", ".join(missing)))
    angles = [table.numbers(label) for label in ANGLE_LABELS]
    if len(table.particles) > 1 and not np.any(angles):
        log.warning("%s: all orientations are zero; were these particles aligned?", table.path)
    return rotation_from_euler(*angles).astype(np.float32)


def _read_shift(table: ParticleTable, pixel_size: np.ndarray) -> np.ndarray:
    """Shifts float32 [n, 2] in Å, minus RELION's origins, which RELION 3.0 writes in pixels."""
    columns: List[np.ndarray] = []
    for axis in "XY":
        if table.has("rlnOrigin%sAngst" % axis):
            columns.append(-table.numbers("rlnOrigin%sAngst" % axis))
        else:
            columns.append(-table.numbers("rlnOrigin" + axis, 0.0) * pixel_size)
    return np.stack(columns, axis=1).astype(np.float32) + np.float32(0)     # no negative zero


def _read_ids(table: ParticleTable) -> np.ndarray:
    """Ids int64 [n], each once."""
    if not table.has("rlnImageId"):
        return np.arange(1, len(table.particles) + 1, dtype=np.int64)
    ids = table.numbers("rlnImageId").astype(np.int64)
    unique, count = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise ParticleError("%s: rlnImageId must be different for every particle, but these occur more than "
                            "once: %s" % (table.path, listing(unique[count > 1])))
    return ids


def _read_half(table: ParticleTable) -> np.ndarray:
    """Half sets int8 [n]: 1, 2, or 0 where unknown."""
    half = table.numbers("rlnRandomSubset", 0)
    return np.where((half == 1) | (half == 2), half, 0).astype(np.int8)
