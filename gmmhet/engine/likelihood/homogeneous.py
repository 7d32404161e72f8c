"""Simulated particles of one conformation at the real ones' poses, CTF and noise, made as they are read: what
the null control trains on, and what tells signal from noise at the start of a training."""
import copy
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import inverse_transform
from gmmhet.engine.imaging.pose_change import POSE_NUMBERS, Pose
from gmmhet.engine.imaging.projection import MixtureBatch, project_mixture
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.conformations import Conformations


class PosePosterior(Protocol):
    """What is known of uncertain poses (see `inference.pose_errors`)."""

    def draw(self, rows: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Changes of pose [B, 5] drawn from the posterior with standard normal noise [B, 5]."""
        ...


class HomogeneousParticles:
    """A set of particles whose images are simulated from one conformation each; everything else is that of
    the set it stands for.

    Poses, shifts, CTF, optics groups and ids are the real ones; density scale and noise power per ring are
    what was estimated from the real images of each optics group. Where the given poses are uncertain, the
    images are drawn at others, of the posterior that training left. An image depends on seed and id alone, so
    it is the same whenever and wherever it is read.

    Parameters
    ----------
    particles : ParticleSet.
    conformations : Conformations, of one mixture for all, or of what an earlier stage found of each particle.
    likelihood : Agreement, with the noise, scale and grid of the real set.
    seed : int
    poses : PosePosterior of these particles, or None where the poses are exact.
    """

    def __init__(self, particles: Any, conformations: Conformations, likelihood: Agreement, seed: int,
                 poses: "PosePosterior | None" = None) -> None:
        self._real, self._conformations, self._likelihood = particles, conformations, likelihood
        self._seed, self._poses, grid = seed, poses, likelihood.grid
        radius = np.hypot(np.fft.fftfreq(grid.box)[:, None], np.fft.rfftfreq(grid.box)[None]) * grid.box
        ring = np.minimum(np.round(radius).astype(int), grid.m + 1)
        power = np.stack([_without_gaps(power) for power in likelihood.noise_power])
        self._deviation = np.sqrt(power)[:, ring].astype(np.float32)                       # [1 + G, L, L/2+1]

        @tf.function(reduce_retracing=True, autograph=False)
        def clean(mixture: MixtureBatch, pose: Pose, ctf: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
            transfer = scale[:, None, None, None] * ctf_values(ctf, grid.kx, grid.ky)[:, None]
            return inverse_transform(transfer * project_mixture(mixture, pose, grid), grid)
        self._clean = clean

    def __len__(self) -> int:
        return len(self._real)

    def with_seed(self, seed: int) -> "HomogeneousParticles":
        """The same particles with other noise, and other poses where those are uncertain."""
        other = copy.copy(self)
        other._seed = seed
        return other

    # ---------------------------------------------------------------- of the real set
    @property
    def path(self) -> str:
        return self._real.path

    @property
    def ids(self) -> np.ndarray:
        return self._real.ids

    @property
    def box(self) -> int:
        return self._real.box

    @property
    def pixel_size(self) -> float:
        return self._real.pixel_size

    @property
    def sampling(self) -> Any:
        return self._real.sampling

    @property
    def rotation(self) -> np.ndarray:
        return self._real.rotation

    @property
    def shift_angst(self) -> np.ndarray:
        return self._real.shift_angst

    @property
    def ctf(self) -> np.ndarray:
        return self._real.ctf

    @property
    def optics_group(self) -> np.ndarray:
        return self._real.optics_group

    @property
    def half(self) -> np.ndarray:
        return self._real.half

    @property
    def numbered(self) -> bool:
        return self._real.numbered

    def finest_frequency(self, rows: np.ndarray) -> "np.ndarray | None":
        return self._real.finest_frequency(rows)

    def image_names(self, rows: np.ndarray) -> Iterator[str]:
        return self._real.image_names(rows)

    # ---------------------------------------------------------------- its own images
    def read(self, rows: np.ndarray) -> np.ndarray:
        """Images of the given rows, float32 [B, L, L]."""
        rows, real, box = np.atleast_1d(rows), self._real, self._real.box
        group = np.zeros(len(rows), int)
        for number, name in enumerate(self._likelihood.groups, 1):
            group[real.optics_group[rows] == name] = number
        pose = Pose(real.rotation[rows], real.shift_angst[rows])
        if self._poses:
            noise = np.stack([np.random.default_rng([self._seed, 17, int(i)]).standard_normal(POSE_NUMBERS)
                              for i in real.ids[rows]])
            pose = Pose(*(np.float32(values)
                          for values in pose.perturbed_exactly(self._poses.draw(rows, noise))))
        images = self._clean(self._mixtures(rows),
                             Pose(*(tf.convert_to_tensor(values, tf.float32) for values in pose)),
                             tf.constant(real.ctf[rows]),
                             tf.constant(self._likelihood.scale[group], tf.float32)).numpy()
        for image, number, i in zip(images, group, real.ids[rows]):
            white = np.random.default_rng([self._seed, 11, int(i)]).standard_normal((box, box), np.float32)
            sign = np.sign(self._likelihood.scale[number])  # so that black images are the white ones inverted
            image += sign * np.fft.irfft2(np.fft.rfft2(white) * self._deviation[number], (box, box))
        return images

    def _mixtures(self, rows: np.ndarray) -> MixtureBatch:
        """Mixtures of the rows, each with arrays of its own."""
        centers, amplitudes, widths = self._conformations.at(rows)
        count, gaussians = len(rows), centers.shape[-2]
        shapes = (count, gaussians, 3), (count, gaussians), (count, gaussians)
        return MixtureBatch(*(tf.broadcast_to(tf.convert_to_tensor(values, tf.float32), shape)
                              for values, shape in zip((centers, amplitudes, widths), shapes)))


def _without_gaps(power: np.ndarray) -> np.ndarray:
    """Noise power per ring [m+2], rings without data taking that of the nearest ring with data: a mask
    carries a little of it over."""
    holds = np.flatnonzero(power > 0)
    return power[holds[np.argmin(np.abs(np.arange(len(power))[:, None] - holds), axis=1)]]
