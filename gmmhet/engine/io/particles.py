"""Particle sets: metadata in memory, images read when asked for."""
import copy
import itertools
import os
from dataclasses import replace

import mrcfile
import numpy as np
import pandas as pd

from gmmhet.engine.imaging.pose import euler_from_rotation, rotation_from_euler
from gmmhet.engine.io.errors import ParticleError, listing
from gmmhet.engine.io.lst import is_lst, read_lst
from gmmhet.engine.io.optics import CTF_LABELS, Sampling, read_ctf, read_pixel_size
from gmmhet.engine.io.places import image_places
from gmmhet.engine.io.stacks import StackCache
from gmmhet.engine.io.star import ParticleTable, as_relion31, optics_table, read_star, write_star
from gmmhet.engine.log import log, progress

__all__ = ["ParticleError", "ParticleSet", "read_particles", "write_particles"]

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


class ParticleSet:
    """Posed particles with CTF, whose images stay on disk.

    Optics groups may differ in pixel size and box; images are then brought to one sampling as they are read, with the values of their
    pixels kept, and lengths in Å stay what they are. A group sampled more coarsely holds nothing beyond its own Nyquist frequency.

    Attributes
    ----------
    ids : int64 [n], ``rlnImageId`` or row number from 1; the key of every join.
    rotation : float32 [n, 3, 3], A of the engine's conventions.
    shift_angst : float32 [n, 2], where the molecule's origin lies in the image (x, y), minus RELION's origin.
    ctf : float32 [n, 11], columns gmmhet.engine.imaging.ctf.CTF_COLUMNS.
    half : int8 [n], half set 1 or 2, 0 where unknown.
    pixel_size : float, Å/px; box : int, px. Of the images that `read` gives.
    sampling : Sampling, how each optics group is stored.
    path : str, the star file.
    """

    def __init__(self, table, ids, rotation, shift_angst, ctf, half, sampling, group, stacks, stack_of, slice_of):
        self._table, self._stacks, self._stack_of, self._slice_of, self._group = table, stacks, stack_of, slice_of, group
        self._cache, self._poses_changed = StackCache(), False
        self.ids, self.rotation, self.shift_angst, self.ctf, self.half = ids, rotation, shift_angst, ctf, half
        self.path, self.sampling = table.path, sampling

    @property
    def pixel_size(self):
        return self.sampling.pixel_size

    @property
    def box(self):
        return self.sampling.box

    def __len__(self):
        return len(self.ids)

    def read(self, indices):
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
            when an image holds NaN or infinite pixels (names its id and place, and the ids of all others in the set that do).
        """
        images = self._read(np.atleast_1d(indices))
        if not _finite(images).all():
            self._refuse_not_finite()
        return images

    def _read(self, indices):
        """`read` without a look at the pixels."""
        images = np.empty((len(indices), self.box, self.box), np.float32)
        stack_of, slice_of = self._stack_of[indices], self._slice_of[indices]
        for number in np.unique(stack_of):
            places = np.flatnonzero(stack_of == number)
            places = places[np.argsort(slice_of[places], kind="stable")]
            stored = self._cache.read(self._stacks[number], slice_of[places])
            images[places] = self.sampling.at_common(stored, self._group[indices[places]])
        return images

    def _refuse_not_finite(self, chunk=256):
        """The error that names every particle whose image holds NaN or infinite pixels."""
        chunks = [np.arange(i, min(i + chunk, len(self))) for i in range(0, len(self), chunk)]
        bad = np.concatenate([rows[~_finite(self._read(rows))] for rows in progress(chunks, len(chunks), "looking for NaN in images")])
        others = ", as do those of %s" % listing(self.ids[bad[1:]], 20) if len(bad) > 1 else ""
        raise ParticleError("the image of particle id %d (%s) holds NaN or infinite pixels%s: remove such particles or extract them "
                            "again" % (self.ids[bad[0]], self._place(bad[0]), others))

    @property
    def numbered(self):
        """Whether ids are row numbers, because the file has no ``rlnImageId``."""
        return not self._table.has("rlnImageId")

    def image_names(self, indices):
        """Number and stack of images, without the stack's folder: an iterator of str, such as '000001@stack.mrcs'."""
        return ("%06d@%s" % (self._slice_of[row] + 1, os.path.basename(self._stacks[self._stack_of[row]])) for row in indices)

    def _place(self, row):
        return "%06d@%s" % (self._slice_of[row] + 1, self._stacks[self._stack_of[row]])

    def finest_frequency(self, indices):
        """Largest frequency (1/Å) at which the images of the given rows hold data, [B]; None when every group is sampled alike."""
        return self.sampling.finest_frequency[self._group[indices]] if self.sampling.differs.any() else None

    def at_sampling(self, box, pixel_size):
        """The set with its images read at another box and pixel size (Å/px)."""
        changed = copy.copy(self)
        changed.sampling = replace(self.sampling, box=int(box), pixel_size=float(pixel_size))
        return changed

    def select(self, indices):
        """The set with only the given rows, in the given order; open stacks are shared."""
        indices = np.atleast_1d(indices)
        subset = copy.copy(self)
        for name in ("ids", "rotation", "shift_angst", "ctf", "half", "_group", "_stack_of", "_slice_of"):
            setattr(subset, name, getattr(self, name)[indices])
        subset._table = self._table.select(indices)
        return subset

    def rows_of(self, ids):
        """Rows of the given ids, int64 [len(ids)].

        Raises
        ------
        ParticleError
            naming ids that are not in the set.
        """
        ids = np.atleast_1d(np.asarray(ids, np.int64))
        order = np.argsort(self.ids, kind="stable")
        place = np.minimum(np.searchsorted(self.ids, ids, sorter=order), len(self) - 1)
        rows = order[place]
        missing = ids[self.ids[rows] != ids]
        if len(missing):
            raise ParticleError("%d ids are not in %s (ids %d to %d): %s" % (
                len(missing), self.path, self.ids.min(), self.ids.max(), listing(missing)))
        return rows

    def with_poses(self, rotation, shift_angst):
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
        moved = copy.copy(self)
        moved.rotation, moved.shift_angst, moved._poses_changed = rotation, shift_angst, True
        return moved

    def with_half(self, half):
        """The set with other half sets, int array [n] of 1 and 2; `write_star` puts them into ``rlnRandomSubset``."""
        changed = copy.copy(self)
        changed.half = np.asarray(half, np.int8)
        particles = self._table.particles.assign(rlnRandomSubset=changed.half.astype(int))
        changed._table = replace(self._table, particles=particles)
        return changed

    def write_star(self, path):
        """Write a RELION 3.1 star file that keeps every column and optics group of the input.

        Only angles and shifts are rewritten, and only when `with_poses` changed them; half sets likewise by `with_half`. ``rlnImageId`` is
        written also where the input had none, so that the particles of a subset keep their ids. Stacks in or below the new file's folder
        are named relative to it, all others by their absolute path, so that RELION finds them from any working directory.
        """
        particles = self._table.particles.assign(rlnImageName=self._image_names(os.path.dirname(os.path.abspath(path))),
                                                 rlnImageId=self.ids)
        if self._poses_changed:
            particles = particles.assign(**dict(zip(ANGLES, (np.round(a, 6) for a in euler_from_rotation(self.rotation)))))
        origins = np.round(-self.shift_angst.astype(np.float64), 6) + 0.0
        for column, axis in ((0, "X"), (1, "Y")):
            angst, pixels = "rlnOrigin%sAngst" % axis, "rlnOrigin" + axis
            if self._poses_changed or angst not in particles:
                particles[angst] = origins[:, column]
            if self._poses_changed and pixels in particles:
                particles[pixels] = origins[:, column] / self.sampling.group_pixel_size[self._group]
        write_star(path, replace(self._table, path=path, particles=particles))

    def _image_names(self, folder):
        names = []
        for stack in self._stacks:
            relative = os.path.relpath(stack, folder)
            names.append(stack if relative.startswith(os.pardir) else relative)
        return ["%06d@%s" % (number + 1, names[stack]) for number, stack in zip(self._slice_of, self._stack_of)]


def read_particles(path):
    """Read a star file of posed particles, RELION 3.0, 3.1 or later, or an EMAN2 list (.lst); images stay on disk.

    Everything that can be wrong is looked for here, before long work, except NaN pixels, which `ParticleSet.read` finds.
    Relative stack paths are searched from the star file's folder, then each folder above it, then the working directory.

    Parameters
    ----------
    path : str

    Returns
    -------
    ParticleSet

    Raises
    ------
    ParticleError
        when the file, its columns or its stacks cannot be used; the message says what to do.
    """
    table = read_lst(path) if is_lst(path) else read_star(path)
    rotation, pixel_size = _rotation(table), read_pixel_size(table)
    stacks, stack_of, slice_of, shapes = image_places(table)
    table = as_relion31(table, pixel_size, shapes[stack_of, 2])
    ids, number, ctf = _ids(table), table.numbers("rlnOpticsGroup").astype(np.int64), read_ctf(table)
    _check_images(table.path, ids, number, stacks, stack_of, slice_of, shapes)
    sampling = Sampling.of(path, number, pixel_size, shapes[stack_of, 2])
    return ParticleSet(table, ids, rotation, _shift(table, pixel_size), ctf, _half(table), sampling, sampling.group_of(number), stacks,
                       stack_of, slice_of)


def _finite(images):
    """Which images [B, L, L] hold finite pixels alone, bool [B]."""
    return np.isfinite(images).all(axis=(1, 2))


def _rotation(table):
    missing = [label for label in ANGLES if not table.has(label)]
    if missing:
        raise ParticleError("%s: particles without projection alignment (missing columns: %s). Give particles from a 3D refinement "
                            "or classification" % (table.path, ", ".join(missing)))
    angles = [table.numbers(label) for label in ANGLES]
    if len(table.particles) > 1 and not np.any(angles):
        log.warning("%s: all orientations are zero; were these particles aligned?", table.path)
    return rotation_from_euler(*angles).astype(np.float32)


def _shift(table, pixel_size):
    columns = []
    for axis in "XY":
        if table.has("rlnOrigin%sAngst" % axis):
            columns.append(-table.numbers("rlnOrigin%sAngst" % axis))
        else:
            columns.append(-table.numbers("rlnOrigin" + axis, 0.0) * pixel_size)
    return np.stack(columns, axis=1).astype(np.float32) + np.float32(0)


def _ids(table):
    if not table.has("rlnImageId"):
        return np.arange(1, len(table.particles) + 1, dtype=np.int64)
    ids = table.numbers("rlnImageId").astype(np.int64)
    unique, count = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise ParticleError("%s: rlnImageId must be different for every particle, but these occur more than once: %s" % (
            table.path, listing(unique[count > 1])))
    return ids


def _half(table):
    half = table.numbers("rlnRandomSubset", 0)
    return np.where((half == 1) | (half == 2), half, 0).astype(np.int8)


def _check_images(path, ids, number, stacks, stack_of, slice_of, shapes):
    """Refuse images that are not square, sizes that differ within an optics group [n], and images that their stack does not hold."""
    odd = np.flatnonzero(shapes[:, 1] != shapes[:, 2])
    if len(odd):
        raise ParticleError("%s: images must be square, got %d x %d px in '%s'" % (
            path, shapes[odd[0], 2], shapes[odd[0], 1], stacks[odd[0]]))
    _, first, group = np.unique(number, return_index=True, return_inverse=True)
    model = stack_of[first][group.reshape(-1)]
    other = np.flatnonzero(shapes[stack_of, 2] != shapes[model, 2])
    if len(other):
        one, two = model[other[0]], stack_of[other[0]]
        raise ParticleError("%s: all images of an optics group must have the same size: '%s' has %d x %d px, but '%s' has %d x %d px" % (
            path, stacks[one], shapes[one, 2], shapes[one, 1], stacks[two], shapes[two, 2], shapes[two, 1]))
    beyond = np.flatnonzero(slice_of >= shapes[stack_of, 0])
    if len(beyond):
        row, stack = beyond[0], stack_of[beyond[0]]
        raise ParticleError("%s: particle id %d names image %d of '%s', which holds only %d images (%d particles name images that do "
                            "not exist)" % (path, ids[row], slice_of[row] + 1, stacks[stack], shapes[stack, 0], len(beyond)))


def write_particles(folder_star_path, stack_path, images, n, rotation, shift_angst, ctf, pixel_size, half=None, ids=None):
    """Write an MRC stack (float32, streamed) and its RELION 3.1 star file with poses, CTF and half sets.

    Parameters
    ----------
    folder_star_path, stack_path : str, the star file and the stack; the star names the stack relative to its own folder.
    images : iterable of arrays [B, L, L], n images in all.
    n : int
    rotation : array [n, 3, 3], A of the engine's conventions.
    shift_angst : array [n, 2], Å (x, y).
    ctf : array [n, 9 to 11], columns gmmhet.engine.imaging.ctf.CTF_COLUMNS; particles that differ in voltage, aberration, contrast, phase
        flipping or optics group get optics groups of their own, numbered from 1.
    pixel_size : float, Å/px.
    half : array [n] of 1 and 2, or None.
    ids : int array [n], or None for 1 .. n.

    Raises
    ------
    ParticleError
        when `images` does not give n images of one square size.
    """
    box = _write_stack(stack_path, images, n, pixel_size)
    ctf = np.asarray(ctf, np.float64)
    ctf = np.concatenate([ctf, np.broadcast_to([0.0, 1.0], (n, 2))[:, ctf.shape[1] - 9:]], axis=1)
    groups, group_of = np.unique(ctf[:, [10, 3, 4, 5, 9]], axis=0, return_inverse=True)
    folder = os.path.dirname(os.path.abspath(folder_star_path))
    name = os.path.relpath(os.path.abspath(stack_path), folder)
    columns = {"rlnImageId": np.arange(1, n + 1) if ids is None else np.asarray(ids, np.int64),
               "rlnImageName": ["%06d@%s" % (i, name) for i in range(1, n + 1)], "rlnOpticsGroup": group_of.reshape(-1) + 1}
    columns.update({label: np.round(ctf[:, i], 6) for i, label in enumerate(CTF_LABELS) if i < 3 or 5 < i < 9})
    columns.update(zip(ANGLES, (np.round(a, 6) for a in euler_from_rotation(rotation))))
    origin = np.round(-np.asarray(shift_angst, np.float64), 6) + 0.0
    columns.update(rlnOriginXAngst=origin[:, 0], rlnOriginYAngst=origin[:, 1])
    if half is not None:
        columns["rlnRandomSubset"] = np.asarray(half, int)
    optics = optics_table(np.round(groups[:, 1:4], 6), pixel_size, box)
    if groups[:, 4].any():
        optics["rlnCtfDataArePhaseFlipped"] = groups[:, 4].astype(int)
    write_star(folder_star_path, ParticleTable(folder_star_path, pd.DataFrame(columns), optics, {}))


def _write_stack(path, images, n, pixel_size):
    """Stream images into an MRC stack; returns the box."""
    batches = iter(images)
    first = np.asarray(next(batches, np.empty((0, 0, 0))))
    if first.ndim != 3 or first.shape[1] != first.shape[2] or not first.size:
        raise ParticleError("images must come as arrays [B, L, L], got %s" % list(first.shape))
    box, done = first.shape[1], 0
    with mrcfile.new_mmap(path, (n, box, box), mrc_mode=2, overwrite=True) as file:
        file.set_image_stack()
        for batch in itertools.chain([first], batches):
            if batch.shape[1:] != (box, box) or done + len(batch) > n:
                raise ParticleError("images must be %d arrays of %d x %d px in all, got %s after %d" % (
                    n, box, box, list(batch.shape), done))
            file.data[done:done + len(batch)] = batch
            done += len(batch)
        file.voxel_size = float(pixel_size)
    if done < n:
        raise ParticleError("images must be %d in all, got %d" % (n, done))
    return box
