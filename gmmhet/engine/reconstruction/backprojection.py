"""Maps from posed images: insertion in Fourier space, CTF correction, gridding correction."""
from dataclasses import dataclass
from typing import Optional

import numba
import numpy as np
from scipy import fft

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fsc import soft_sphere
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.log import progress
from gmmhet.engine.particles.particle_set import ParticleSet
from gmmhet.engine.reconstruction.insertion import insert_slices

#: weight added to the denominator, as a fraction of its mean over the shell
REGULARISATION = 0.01


@dataclass(frozen=True)
class ReconstructionSettings:
    """How a map is reconstructed.

    Attributes
    ----------
    symmetry : str, cN or dN.
    padding : int, Fourier padding.
    max_resolution_angst : float, finest detail kept; 0 goes to the last shell below Nyquist.
    batch_size : int, images in memory at once.
    """

    symmetry: str = "c1"
    padding: int = 2
    max_resolution_angst: float = 0.0
    batch_size: int = 32


#: no symmetry, a padding of 2, all shells below Nyquist
DEFAULT = ReconstructionSettings()


class Accumulator:
    """Running sums of a reconstruction, ``sum CTF F`` and ``sum CTF^2``; memory is 12 bytes * (padding *
    box)^3 / 2.

    Images are padded with zeros before their transform, so that a slice is sampled as finely as the grid that
    receives it.

    Parameters
    ----------
    box : int, px.
    pixel_size : float, Å/px.
    settings : ReconstructionSettings.
    """

    def __init__(self, box: int, pixel_size: float, settings: ReconstructionSettings = DEFAULT):
        self.box, self.pixel_size, self._padded_box = box, pixel_size, box * settings.padding
        shell = (box - 1) // 2
        if settings.max_resolution_angst > 0:
            shell = min(shell, max(1, int(box * pixel_size / settings.max_resolution_angst)))
        self.radius = min(int((shell + 0.5) * settings.padding), self._padded_box // 2 - 1)
        self._symmetry = symmetry_matrices(settings.symmetry)
        shape = (2 * self.radius + 3, 2 * self.radius + 3, self.radius + 2)
        self._numerator, self._denominator = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)

    def add(self, images: np.ndarray, rotation: np.ndarray, shift_angst: np.ndarray, ctf: np.ndarray,
            finest_frequency: Optional[np.ndarray] = None) -> None:
        """Insert images at all their symmetry-related orientations.

        Parameters
        ----------
        images : array [B, L, L]
        rotation : array [B, 3, 3], A.
        shift_angst : array [B, 2], where the molecule's origin lies in the image.
        ctf : array [B, 9 or 10], columns CTF_COLUMNS.
        finest_frequency : array [B] in 1/Å, beyond which an image holds no data and counts for nothing; None
            for no limit.
        """
        step = 1.0 / (self._padded_box * self.pixel_size)
        ky = (fft.fftfreq(self._padded_box, 1.0 / self._padded_box) * step)[:, None]
        kx = (np.arange(self._padded_box // 2 + 1) * step)[None, :]
        transfer = np.asarray(ctf_values(ctf, kx, ky))
        if finest_frequency is not None:
            transfer = transfer * (kx**2 + ky**2 <= np.square(finest_frequency)[:, None, None])
        origin = np.asarray(shift_angst, np.float64) + self.box // 2 * self.pixel_size
        ramp_x = np.exp(2j * np.pi * kx[None] * origin[:, 0, None, None]).astype(np.complex64)
        ramp_y = np.exp(2j * np.pi * ky[None] * origin[:, 1, None, None]).astype(np.complex64)
        shape = self._padded_box, self._padded_box
        values = fft.rfft2(np.asarray(images, np.float32), shape, workers=numba.get_num_threads())
        values *= ramp_x
        values *= ramp_y
        values *= transfer
        n_slabs = min(4 * numba.get_num_threads(), self._numerator.shape[0])
        for matrix in self._symmetry:
            at_copy = np.ascontiguousarray(np.asarray(rotation, np.float64) @ matrix)
            insert_slices(self._numerator, self._denominator, values, transfer**2, at_copy, self.radius,
                          n_slabs)

    def merge(self, other: "Accumulator") -> None:
        """Add the sums of another accumulator of the same settings."""
        self._numerator += other._numerator
        self._denominator += other._denominator

    def map(self) -> np.ndarray:
        """The map [L, L, L] float32, zero outside the sphere that touches the box's faces (edge of 2 px)."""
        padded, workers = self._padded_box, numba.get_num_threads()
        volume = fft.irfftn(self._transform(), (padded,) * 3, overwrite_x=True, workers=workers)
        axis = np.arange(-(self.box // 2), self.box - self.box // 2)
        volume = volume[np.ix_(axis % padded, axis % padded, axis % padded)]
        kernel = np.sinc(axis / padded) ** 2        # transform of the trilinear kernel
        volume /= (kernel[:, None, None] * kernel[None, :, None] * kernel[None, None, :]).astype(np.float32)
        return np.asarray(volume * soft_sphere(self.box, self.box / 2 - 2, 2.0))

    def _transform(self) -> np.ndarray:
        """``numerator / (denominator + regularisation)`` in rfftn's order, complex64 [P, P, P//2+1]."""
        radius, inner = self.radius, slice(1, -1)
        first = self._numerator[:, :, 0], self._denominator[:, :, 0]
        # qx = 0 holds each frequency and its Friedel mate
        planes = [plane + plane[::-1, ::-1].conj() for plane in first]
        axis = np.arange(-radius, radius + 1)
        in_plane = axis[:, None] ** 2 + np.arange(radius + 1)[None, :] ** 2
        shells = [np.rint(np.sqrt(in_plane + z * z)).astype(np.int64) for z in axis]
        weights = self._denominator[inner, inner, :-1].copy()
        weights[:, :, 0] = planes[1][inner, inner]
        total, count = np.zeros(2 * radius + 1), np.zeros(2 * radius + 1)
        for shell, weight in zip(shells, weights):
            total += np.bincount(shell.ravel(), weight.ravel(), 2 * radius + 1)
            count += np.bincount(shell.ravel(), minlength=2 * radius + 1)
        floor = (REGULARISATION * total / np.maximum(count, 1)).astype(np.float32)
        full = np.zeros((self._padded_box, self._padded_box, self._padded_box // 2 + 1), np.complex64)
        rows = axis % self._padded_box
        for i, (shell, weight) in enumerate(zip(shells, weights)):
            plane = self._numerator[i + 1, inner, :-1].copy()
            plane[:, 0] = planes[0][i + 1, inner]
            below = weight + floor[shell]
            inside = (shell <= radius) & (below > 0)
            full[rows[i], rows, :radius + 1] = np.divide(plane, below, out=np.zeros_like(plane), where=inside)
        return full


def accumulate(particles: ParticleSet, indices: np.ndarray, settings: ReconstructionSettings = DEFAULT,
               label: str = "reconstruct", factor: Optional[np.ndarray] = None) -> Accumulator:
    """Insert the particles of the given rows, batch by batch.

    Parameters
    ----------
    particles : ParticleSet
    indices : int array, rows.
    settings : ReconstructionSettings.
    label : str, for the progress.
    factor : [n], what the images of the whole set are multiplied by; None leaves them as they are.
    """
    sums, size = Accumulator(particles.box, particles.pixel_size, settings), settings.batch_size
    indices = np.asarray(indices)
    batches = [indices[i:i + size] for i in range(0, len(indices), size)]
    for rows in progress(batches, len(batches), label):
        images = particles.read(rows)
        if factor is not None:
            images = images * np.float32(factor[rows, None, None])
        sums.add(images, particles.rotation[rows], particles.shift_angst[rows], particles.ctf[rows],
                 particles.finest_frequency(rows))
    return sums


def backproject(particles: ParticleSet, indices: np.ndarray,
                settings: ReconstructionSettings = DEFAULT) -> np.ndarray:
    """Reconstruct a map from the particles of the given rows.

    ``V = F^-1[ sum CTF F / (sum CTF^2 + r) ]``, r one hundredth of the shell's mean of the first term,
    divided by the transform of the trilinear kernel. Time grows with particles * symmetry operators *
    (padding * box)^2.

    Parameters
    ----------
    particles : ParticleSet
    indices : int array, rows.
    settings : ReconstructionSettings.

    Returns
    -------
    float32 [L, L, L], indexed [z, y, x].
    """
    return accumulate(particles, indices, settings).map()


def use_threads(threads: int) -> None:
    """Let the compiled loops use so many threads; 0 takes all cores."""
    available = numba.config.NUMBA_NUM_THREADS      # type: ignore[attr-defined]
    numba.set_num_threads(min(threads, available) if threads > 0 else available)
