"""Optics groups of a particle set: CTF parameters, and the sampling (pixel size and box) of each group."""
from dataclasses import dataclass

import numpy as np

from gmmhet.engine.imaging.resample import last_wave, resample
from gmmhet.engine.io.errors import ParticleError, listing
from gmmhet.engine.log import log

#: RELION's columns in the order of gmmhet.engine.imaging.ctf.CTF_COLUMNS, with the default of those that may be missing
CTF_LABELS = {"rlnDefocusU": None, "rlnDefocusV": None, "rlnDefocusAngle": 0.0, "rlnVoltage": None, "rlnSphericalAberration": None,
              "rlnAmplitudeContrast": None, "rlnPhaseShift": 0.0, "rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0,
              "rlnCtfDataArePhaseFlipped": 0, "rlnOpticsGroup": 1}
#: RELION's columns of image formation that the engine does not model
IGNORED = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
#: pixel sizes that differ by less than this fraction are one
SAME_PIXEL = 1e-4


def read_ctf(table):
    """CTF parameters of a ParticleTable, float32 [n, 11], columns CTF_COLUMNS.

    Raises
    ------
    ParticleError
        when a column is missing, or the images are multiplied by their CTF.
    """
    required = [label for label, default in CTF_LABELS.items() if default is None and label != "rlnDefocusV"]
    missing = [label for label in required if not table.has(label)]
    if missing:
        raise ParticleError("%s: particles without CTF (missing columns: %s). Estimate the CTF before extracting the particles" % (
            table.path, ", ".join(missing)))
    if np.any(table.numbers("rlnCtfDataAreCtfPremultiplied", 0)):
        raise ParticleError("%s: the particles are already multiplied by their CTF (rlnCtfDataAreCtfPremultiplied is 1), so their noise is "
                            "no longer alike at all frequencies of a ring and the CTF would be applied twice: extract them again without "
                            "it" % table.path)
    ignored = [label for label in IGNORED if table.has(label)]
    if ignored:
        log.warning("%s: beam tilt, higher aberrations and anisotropic magnification are not modelled; ignored: %s.", table.path,
                    ", ".join(ignored))
    columns = [table.numbers(label, default) if table.has(label) or default is not None else table.numbers("rlnDefocusU")
               for label, default in CTF_LABELS.items()]
    return np.stack(columns, axis=1).astype(np.float32)


def read_pixel_size(table):
    """Pixel size of every particle of a ParticleTable, Å/px, float64 [n].

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
        raise ParticleError("%s: the pixel size is unknown; expected rlnImagePixelSize in the optics table, or rlnDetectorPixelSize and "
                            "rlnMagnification" % table.path)
    if not np.all((sizes > 0) & np.isfinite(sizes)):
        raise ParticleError("%s: the pixel size must be above zero, got %g Å/px" % (table.path, sizes.min()))
    return sizes


@dataclass(frozen=True)
class Sampling:
    """Pixel size and box of each optics group of a set, and the one sampling that its images are read at.

    Attributes
    ----------
    number : int64 [G], ``rlnOpticsGroup``, rising.
    group_pixel_size : float64 [G], Å/px; group_box : int64 [G], px. As stored.
    pixel_size, box : the common sampling.
    """

    number: np.ndarray
    group_pixel_size: np.ndarray
    group_box: np.ndarray
    pixel_size: float
    box: int

    @classmethod
    def of(cls, path, number, pixel_size, box):
        """The sampling of particles, given each one's optics group, pixel size and box [n]: the common one is that of most particles.

        Raises
        ------
        ParticleError
            when a group's particles do not have one pixel size.
        """
        groups, first, row = np.unique(number, return_index=True, return_inverse=True)
        odd = np.abs(pixel_size - pixel_size[first][row]) > SAME_PIXEL * pixel_size
        if odd.any():
            raise ParticleError("%s: particles of one optics group must have one pixel size, got %s Å/px: give each pixel size an optics "
                                "group of its own" % (path, listing("%g" % s for s in np.unique(pixel_size[number == number[odd][0]]))))
        count, sizes, boxes = np.bincount(row.reshape(-1)), pixel_size[first], box[first]
        votes = [np.sum(count[_alike(sizes, boxes, s, b)]) for s, b in zip(sizes, boxes)]
        most = int(np.argmax(votes))
        found = cls(groups.astype(np.int64), sizes, boxes.astype(np.int64), float(sizes[most]), int(boxes[most]))
        if found.differs.any():
            log.info("%s: optics groups of several samplings (%s); all images are brought to %d px of %g Å/px, that of most particles.",
                     path, listing("group %d: %d px of %g Å/px" % g for g in zip(groups, boxes, sizes)), found.box, found.pixel_size)
        return found

    @property
    def differs(self):
        """Whether each group's images are stored at another sampling than the common one, bool [G]."""
        return ~_alike(self.group_pixel_size, self.group_box, self.pixel_size, self.box)

    @property
    def extent_angst(self):
        """Side of the smallest field of view among the groups, the common one included, Å."""
        return float(min(self.box * self.pixel_size, np.min(self.group_box * self.group_pixel_size)))

    @property
    def finest_frequency(self):
        """Largest frequency (1/Å) at which each group's images hold data once they are read, [G]; infinite at the common sampling."""
        last = [last_wave(b, s, self.pixel_size) / (b * s) for b, s in zip(self.group_box.tolist(), self.group_pixel_size.tolist())]
        return np.where(self.differs, last, np.inf)

    def has(self, box, pixel_size):
        """Whether one of the groups is stored with this box and pixel size."""
        return bool(_alike(self.group_pixel_size, self.group_box, pixel_size, box).any())

    def group_of(self, number):
        """Row of each optics group number, int [n]."""
        return np.searchsorted(self.number, np.asarray(number, np.int64))

    def at_common(self, images, group):
        """Stored images [B, L, L] of one box, of the given groups [B], at the common sampling, float32."""
        differs = self.differs[group]
        if not differs.any():
            return images
        found = np.empty((len(images), self.box, self.box), np.float32)
        for g in np.unique(group):
            part = group == g
            found[part] = resample(images[part], self.group_pixel_size[g], self.box, self.pixel_size) if self.differs[g] else images[part]
        return found


def _alike(pixel_sizes, boxes, pixel_size, box):
    return (boxes == box) & (np.abs(pixel_sizes - pixel_size) <= SAME_PIXEL * pixel_size)
