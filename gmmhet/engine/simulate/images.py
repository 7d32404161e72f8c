"""Noisy, CTF-multiplied images of a phantom."""
from dataclasses import dataclass
from functools import cached_property
from typing import Iterator, NamedTuple, Tuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import render
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch, project_mixture
from gmmhet.engine.simulate.phantom import MixtureFamily

#: images that are made at once
CHUNK = 64
#: images from whose variance that of the noise is set
SIGNAL_IMAGES = 256
#: points of each coordinate over which the consensus map is the mean
CONSENSUS_POINTS = 9


def draw_poses(n: int, shift_angst: float, rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray]:
    """Uniform rotations [n, 3, 3] and normally distributed shifts [n, 2] Å, float32."""
    rotation = random_rotations(n, rng).astype(np.float32)
    return rotation, rng.normal(0, shift_angst, (n, 2)).astype(np.float32)


def draw_ctf(n: int, rng: np.random.Generator) -> np.ndarray:
    """CTF parameters float32 [n, 9] of an ordinary 300 kV session: 1 to 2.5 µm underfocus, mild
    astigmatism."""
    defocus = rng.uniform(10000, 25000, n)
    astigmatism = rng.uniform(0, 400, n)
    angle, one = rng.uniform(0, 180, n), np.ones(n)
    columns = [defocus + astigmatism / 2, defocus - astigmatism / 2, angle, 300 * one, 2.7 * one, 0.1 * one,
               0 * one, 0 * one, one]
    return np.asarray(np.stack(columns, axis=1), np.float32)


def family_mixtures(family: MixtureFamily, coordinates: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Centres [B, N, 3] and amplitudes [B, N] of a family at coordinates [B, C]."""
    mixtures = [family.at(coordinate) for coordinate in coordinates]
    return np.stack([m.centers for m in mixtures]), np.stack([m.amplitudes for m in mixtures])


@dataclass(frozen=True)
class SimulatedSet:
    """Particles of a family of mixtures, and the conditions under which they are imaged; without noise.

    Attributes
    ----------
    family : MixtureFamily.
    coordinates : [n, C], which mixture each particle is.
    rotation : float32 [n, 3, 3].
    shift_angst : float32 [n, 2].
    ctf : float32 [n, 9 or 10], columns CTF_COLUMNS.
    box : int, px.
    pixel_size : float, Å/px.
    """

    family: MixtureFamily
    coordinates: np.ndarray
    rotation: np.ndarray
    shift_angst: np.ndarray
    ctf: np.ndarray
    box: int
    pixel_size: float

    def __len__(self) -> int:
        return len(self.coordinates)

    @cached_property
    def grid(self) -> FourierGrid:
        """The frequencies of the images: all below Nyquist."""
        return FourierGrid.to_resolution(self.box, self.pixel_size)

    def transforms(self, rows: slice) -> tf.Tensor:
        """CTF-multiplied transforms of particles, [B, 2, 2m+1, m+1]."""
        centers, amplitudes = (tf.constant(a) for a in family_mixtures(self.family, self.coordinates[rows]))
        pose = Pose(tf.constant(self.rotation[rows]), tf.constant(self.shift_angst[rows]))
        transfer = ctf_values(self.ctf[rows], self.grid.kx, self.grid.ky)[:, None]
        mixture = MixtureBatch(centers, amplitudes, tf.constant(self.family.reference.widths))
        return transfer * project_mixture(mixture, pose, self.grid)

    def images(self, rows: slice) -> np.ndarray:
        """Images of particles, [B, L, L]."""
        return np.asarray(inverse_transform(self.transforms(rows), self.grid).numpy())


class NoisyImages(NamedTuple):
    """Images with white noise: its standard deviation, and chunks of images, float32 [<= CHUNK, L, L]
    each."""

    sigma: float
    chunks: Iterator[np.ndarray]


def noisy_images(simulated: SimulatedSet, snr: float, seed: int) -> NoisyImages:
    """Images of a simulated set with white noise, made as they are asked for.

    The variance of the noise is the variance of the first 256 images without it over `snr`.
    """
    n = len(simulated)
    some = min(SIGNAL_IMAGES, n)
    first = np.concatenate([simulated.images(slice(i, min(i + CHUNK, n))) for i in range(0, some, CHUNK)])
    sigma = float(np.sqrt(first.var() / snr))
    rng = np.random.default_rng([seed, 2])

    def chunks() -> Iterator[np.ndarray]:
        for i in range(0, n, CHUNK):
            images = simulated.images(slice(i, min(i + CHUNK, n)))
            yield (images + rng.normal(0, sigma, images.shape)).astype(np.float32)
    return NoisyImages(sigma, chunks())


def consensus_map(family: MixtureFamily, box: int, pixel_size: float) -> np.ndarray:
    """Mean density over the family: what a perfect reconstruction with true poses would show, float32
    [L, L, L]."""
    total = np.zeros((box, box, box), np.float32)
    for coordinate, probability in zip(*family.grid(CONSENSUS_POINTS)):
        total = total + probability * render(family.at(coordinate), box, pixel_size)
    return total.astype(np.float32)
