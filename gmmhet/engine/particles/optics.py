"""Optics groups of a particle set: CTF parameters, and the sampling (pixel size and box) of each group."""
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Dict, List, Optional

import numpy as np

from gmmhet.engine.imaging.resample import last_wave, resample
from gmmhet.engine.io.errors import ParticleError, listing
from gmmhet.engine.log import log
from gmmhet.engine.particles.star import ParticleTable
from gmmhet.engine.sampling import Sampling

#: RELION's columns in the order of imaging.ctf.CTF_COLUMNS, with the default of those that may be missing
CTF_LABELS: Dict[str, Optional[float]] = {
    "rlnDefocusU": None, "rlnDefocusV": None, "rlnDefocusAngle": 0.0, "rlnVoltage": None,
    "rlnSphericalAberration": None, "rlnAmplitudeContrast": None, "rlnPhaseShift": 0.0, "rlnCtfBfactor": 0.0,
    "rlnCtfScalefactor": 1.0, "rlnCtfDataArePhaseFlipped": 0}
#: RELION's columns of image formation that the engine does not model
NOT_MODELLED = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00",
                "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
#: pixel sizes of optics groups that differ by less than this fraction are one
SAME_GROUP_PIXEL_SIZE = 1e-4


def read_ctf(table: ParticleTable) -> np.ndarray:
    """CTF parameters of a star file's particles, float32 [n, 10], columns CTF_COLUMNS.

    Raises
    ------
    ParticleError
        when a column is missing, or the images are multiplied by their CTF.
    """
    required = [label for label, default in CTF_LABELS.items() if default is None and label != "rlnDefocusV"]
    missing = [label for label in required if not table.has(label)]
    if missing:
        raise ParticleError("%s: particles without CTF (missing columns: %s). Estimate the CTF before "
                            "extracting the particles" % (table.path, ", ".join(missing)))
    if np.any(table.numbers("rlnCtfDataAreCtfPremultiplied", 0)):
        raise ParticleError("%s: the particles are already multiplied by their CTF "
                            "(rlnCtfDataAreCtfPremultiplied is 1), so their noise is no longer alike at all "
                            "frequencies of a ring and the CTF would be applied twice: extract them again "
                            "without it" % table.path)
    ignored = [label for label in NOT_MODELLED if table.has(label)]
    if ignored:
        log.warning("%s: beam tilt, higher aberrations and anisotropic magnification are not modelled; "
                    "ignored: %s.", table.path, ", ".join(ignored))
    columns = [table.numbers(label if table.has(label) or default is not None else "rlnDefocusU", default)
               for label, default in CTF_LABELS.items()]
    return np.stack(columns, axis=1).astype(np.float32)


def read_pixel_size(table: ParticleTable) -> np.ndarray:
    """Pixel size of every particle of a star file, Å/px, float64 [n].

    Raises
    ------
    ParticleError
        when it is unknown or not above zero.
    """
    if table.has("rlnImagePixelSize"):
        sizes = table.numbers("rlnImagePixelSize")
    elif table.has("rlnDetectorPixelSize") and table.has("rlnMagnification"):
        sizes = 1e4 * table.numbers("rlnDetectorPixelSize") / table.numbers("rlnMagnification")
    elif table.has("rlnPixelSize"):
        sizes = table.numbers("rlnPixelSize")
    else:
        raise ParticleError("%s: the pixel size is unknown; expected rlnImagePixelSize in the optics table, "
                            "or rlnDetectorPixelSize and rlnMagnification" % table.path)
    if not np.all((sizes > 0) & np.isfinite(sizes)):
        raise ParticleError("%s: the pixel size must be above zero, got %g Å/px" % (table.path, sizes.min()))
    return sizes


@dataclass(frozen=True)
class GroupSampling:
    """Sampling (box and pixel size) of each optics group of a set, and the common one that its images are
    read at.

    Attributes
    ----------
    number : int64 [G], ``rlnOpticsGroup``, rising.
    stored : sampling of each group's images as stored.
    common : the sampling that all images are read at.
    """

    number: np.ndarray
    stored: List[Sampling]
    common: Sampling

    @classmethod
    def of(cls, path: str, number: np.ndarray, pixel_size: np.ndarray, box: np.ndarray) -> "GroupSampling":
        """The sampling of particles, given each one's optics group, pixel size and box [n]: the common one is
        that of most particles.

        Raises
        ------
        ParticleError
            when a group's particles do not have one pixel size.
        """
        groups, first, row = np.unique(number, return_index=True, return_inverse=True)
        odd = np.abs(pixel_size - pixel_size[first][row]) > SAME_GROUP_PIXEL_SIZE * pixel_size
        if odd.any():
            sizes = np.unique(pixel_size[number == number[odd][0]])
            raise ParticleError("%s: particles of one optics group must have one pixel size, got %s Å/px: "
                                "give each pixel size an optics group of its own" % (
                                    path, listing("%g" % s for s in sizes)))
        count = np.bincount(row.reshape(-1))
        stored = [Sampling(int(b), float(s)) for b, s in zip(box[first], pixel_size[first])]
        votes = {s: int(np.sum(count[_alike(stored, s)])) for s in dict.fromkeys(stored)}
        sampling = cls(groups.astype(np.int64), stored, max(votes, key=lambda s: votes[s]))
        if sampling.differs.any():
            each = listing("group %d: %d px of %g Å/px" % (g, *s) for g, s in zip(groups, stored))
            log.info("%s: optics groups of several samplings (%s); all images are brought to %d px of %g "
                     "Å/px, that of most particles.", path, each, *sampling.common)
        return sampling

    def with_common(self, box: int, pixel_size: float) -> "GroupSampling":
        """The same groups, read at another sampling."""
        return replace(self, common=Sampling(int(box), float(pixel_size)))

    @cached_property
    def differs(self) -> np.ndarray:
        """Whether each group's images are stored at another sampling than the common one, bool [G]."""
        return ~_alike(self.stored, self.common)

    @property
    def pixel_size(self) -> np.ndarray:
        """Pixel size of each group's images as stored, Å/px, float64 [G]."""
        return np.array([s.pixel_size for s in self.stored])

    @property
    def extent_angst(self) -> float:
        """Side of the smallest field of view among the groups, the common one included, Å."""
        return min(s.extent_angst for s in (self.common, *self.stored))

    @property
    def finest_frequency(self) -> np.ndarray:
        """Largest frequency (1/Å) at which each group's images hold data once they are read, [G]; infinite at
        the common sampling."""
        last = [last_wave(*s, self.common.pixel_size) / s.extent_angst for s in self.stored]
        return np.where(self.differs, last, np.inf)

    def has(self, sampling: Sampling) -> bool:
        """Whether one of the groups is stored with this box and pixel size."""
        return bool(_alike(self.stored, sampling).any())

    def group_of(self, number: np.ndarray) -> np.ndarray:
        """Row of each optics group number, int [n]."""
        return np.searchsorted(self.number, np.asarray(number, np.int64))

    def at_common(self, images: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Stored images [B, L, L] of one box, of the given groups [B] (rows), at the common sampling,
        float32."""
        differs = self.differs[group]
        if not differs.any():
            return images
        resampled = np.empty((len(images), self.common.box, self.common.box), np.float32)
        for g in np.unique(group):
            rows, stored = group == g, self.stored[g]
            of_group = images[rows]
            if self.differs[g]:
                of_group = resample(of_group, stored.pixel_size, *self.common)
            resampled[rows] = of_group
        return resampled


def _alike(samplings: List[Sampling], sampling: Sampling) -> np.ndarray:
    """Which samplings are `sampling`, bool [G]."""
    return np.array([s.agrees(sampling, SAME_GROUP_PIXEL_SIZE) for s in samplings])
