"""Pose, CTF, half set and id of particles, and the writing of a new set: image stack and star file."""
import itertools
import os
from dataclasses import dataclass
from typing import Dict, Iterable, Optional

import mrcfile
import numpy as np
import pandas as pd

from gmmhet.engine.imaging.pose import euler_from_rotation
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.particles.optics import CTF_LABELS
from gmmhet.engine.particles.star import ANGLE_LABELS, ParticleTable, optics_table, write_star

#: CTF parameters that a star file notes once for an optics group
_OF_GROUPS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnCtfDataArePhaseFlipped")


@dataclass(frozen=True)
class ParticleMetadata:
    """Pose, CTF, half set and id of n particles.

    Attributes
    ----------
    rotation : [n, 3, 3], A of the engine's conventions.
    shift_angst : [n, 2], where the molecule's origin lies in the image (x, y), Å; minus RELION's origin.
    ctf : [n, 9 or 10], columns gmmhet.engine.imaging.ctf.CTF_COLUMNS.
    half : int [n], half set 1 or 2, or None.
    ids : int [n], or None for 1 .. n.
    optics_group : int [n], or None for one group.
    """

    rotation: np.ndarray
    shift_angst: np.ndarray
    ctf: np.ndarray
    half: Optional[np.ndarray] = None
    ids: Optional[np.ndarray] = None
    optics_group: Optional[np.ndarray] = None

    def __len__(self) -> int:
        return len(self.rotation)


def write_particles(star_path: str, stack_path: str, images: Iterable[np.ndarray], metadata: ParticleMetadata,
                    pixel_size: float) -> None:
    """Write an MRC stack (float32, streamed) and its RELION 3.1 star file with poses, CTF and half sets.

    Particles that differ in voltage, aberration, contrast, phase flipping or optics group get optics groups
    of their own, numbered from 1.

    Parameters
    ----------
    star_path, stack_path : str, the star file and the stack; the star file names the stack relative to its
        own folder.
    images : iterable of arrays [B, L, L], of all particles in order.
    metadata : ParticleMetadata, of the n particles.
    pixel_size : float, Å/px.

    Raises
    ------
    ParticleError
        when `images` does not give n images of one square size.
    """
    n = len(metadata)
    box = _write_stack(stack_path, images, n, pixel_size)
    ctf = np.asarray(metadata.ctf, np.float64)
    ctf = np.concatenate([ctf, np.zeros((n, 10 - ctf.shape[1]))], axis=1)
    optics_group = np.ones(n) if metadata.optics_group is None else np.asarray(metadata.optics_group, float)
    of_groups = np.concatenate([optics_group[:, None], ctf[:, [3, 4, 5, 9]]], axis=1)
    groups, group_of = np.unique(of_groups, axis=0, return_inverse=True)
    name = os.path.relpath(os.path.abspath(stack_path), os.path.dirname(os.path.abspath(star_path)))
    columns: Dict[str, object] = {
        "rlnImageId": np.arange(1, n + 1) if metadata.ids is None else np.asarray(metadata.ids, np.int64),
        "rlnImageName": ["%06d@%s" % (i, name) for i in range(1, n + 1)],
        "rlnOpticsGroup": group_of.reshape(-1) + 1}
    columns.update({label: np.round(values, 6) for label, values in zip(CTF_LABELS, ctf.T)
                    if label not in _OF_GROUPS})
    columns.update(zip(ANGLE_LABELS, (np.round(a, 6) for a in euler_from_rotation(metadata.rotation))))
    origin = np.round(-np.asarray(metadata.shift_angst, np.float64), 6) + 0.0
    columns.update(rlnOriginXAngst=origin[:, 0], rlnOriginYAngst=origin[:, 1])
    if metadata.half is not None:
        columns["rlnRandomSubset"] = np.asarray(metadata.half, int)
    optics = optics_table(np.round(groups[:, 1:4], 6), pixel_size, box)
    if groups[:, 4].any():
        optics["rlnCtfDataArePhaseFlipped"] = groups[:, 4].astype(int)
    write_star(star_path, ParticleTable(star_path, pd.DataFrame(columns), optics, {}))


def _write_stack(path: str, images: Iterable[np.ndarray], n: int, pixel_size: float) -> int:
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
