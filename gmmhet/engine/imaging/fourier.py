"""The part of Fourier space that the engine works on: a half plane cropped to the resolution asked for."""
from dataclasses import dataclass
from typing import Tuple

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class FourierGrid:
    """Half plane of a real image's transform: ky in -m..m, kx in 0..m (units of 1/(L*pixel_size)).

    Attributes
    ----------
    box : int, L (px).
    pixel_size : float, Å/px.
    m : int, largest index kept; below the Nyquist index, whose sign is not defined.
    """

    box: int
    pixel_size: float
    m: int

    @classmethod
    def to_resolution(cls, box: int, pixel_size: float, resolution_angst: float = 0.0) -> "FourierGrid":
        """Grid that reaches `resolution_angst` (0: all below Nyquist)."""
        limit = (box - 1) // 2
        m = limit if resolution_angst <= 0 else min(limit, int(round(box * pixel_size / resolution_angst)))
        return cls(box, float(pixel_size), max(m, 1))

    @property
    def shape(self) -> Tuple[int, int]:
        """2m+1 and m+1, of arrays [ky, kx]."""
        return 2 * self.m + 1, self.m + 1

    @property
    def step(self) -> float:
        """Distance of neighbouring frequencies, 1/Å."""
        return 1.0 / (self.box * self.pixel_size)

    @property
    def ky(self) -> np.ndarray:
        """[2m+1, 1], 1/Å."""
        return (np.arange(-self.m, self.m + 1, dtype=np.float32) * np.float32(self.step))[:, None]

    @property
    def kx(self) -> np.ndarray:
        """[1, m+1], 1/Å."""
        return (np.arange(self.m + 1, dtype=np.float32) * np.float32(self.step))[None, :]

    @property
    def shell(self) -> np.ndarray:
        """Ring index of every frequency, int32 [2m+1, m+1]; those past m hold m+1."""
        radius = np.hypot(self.ky, self.kx) / self.step
        return np.minimum(np.round(radius), self.m + 1).astype(np.int32)

    @property
    def weight(self) -> np.ndarray:
        """How many Fourier components each entry stands for, with its Friedel mate, float32 [2m+1, m+1]; 0 at
        the origin and past ring m."""
        weight = np.where(np.arange(self.m + 1)[None, :] == 0, 1.0, 2.0) * np.ones((2 * self.m + 1, 1))
        return (weight * ((self.shell > 0) & (self.shell <= self.m))).astype(np.float32)


def transform(images: tf.Tensor, grid: FourierGrid) -> tf.Tensor:
    """Centred discrete Fourier transform of images on a grid.

    Parameters
    ----------
    images : tensor [B, L, L] (y, x), origin at pixel L//2.
    grid : FourierGrid.

    Returns
    -------
    tensor [B, 2, 2m+1, m+1], real and imaginary parts; scaled by 1/L, so that white noise keeps its variance.
    """
    half = grid.box // 2
    full = tf.signal.rfft2d(tf.roll(images, (-half, -half), (1, 2)))[:, :, :grid.m + 1]
    rows = tf.concat([full[:, grid.box - grid.m:], full[:, :grid.m + 1]], axis=1)
    return tf.stack([tf.math.real(rows), tf.math.imag(rows)], axis=1) / grid.box


def soft_disc(box: int, pixel_size: float, diameter_angst: float, edge_px: float = 5.0) -> np.ndarray:
    """Soft circular mask [L, L], float32: 1 inside the diameter, a cosine edge of `edge_px` pixels outside
    it."""
    y, x = np.meshgrid(*[np.arange(box) - box // 2] * 2, indexing="ij")
    beyond = (np.hypot(x, y) - diameter_angst / (2 * pixel_size)) / edge_px
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0, 1))).astype(np.float32)


def inverse_transform(coefficients: tf.Tensor, grid: FourierGrid) -> tf.Tensor:
    """Images [B, L, L] whose `transform` is `coefficients` [B, 2, 2m+1, m+1], zero beyond the grid."""
    box, m, half = grid.box, grid.m, grid.box // 2
    rows = tf.complex(coefficients[:, 0], coefficients[:, 1]) * box
    gap = tf.zeros([tf.shape(rows)[0], box - 2 * m - 1, m + 1], rows.dtype)
    full = tf.concat([rows[:, m:], gap, rows[:, :m]], axis=1)
    full = tf.pad(full, [[0, 0], [0, 0], [0, box // 2 - m]])
    return tf.roll(tf.signal.irfft2d(full, [box, box]), (half, half), (1, 2))
