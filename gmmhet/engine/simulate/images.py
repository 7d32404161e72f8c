"""Noisy, CTF-multiplied images of a phantom."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import render
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.projection import place, project

CHUNK = 64


def draw_poses(n, shift_angst, rng):
    """Uniform rotations [n, 3, 3] and normally distributed shifts [n, 2] Å."""
    return random_rotations(n, rng).astype(np.float32), rng.normal(0, shift_angst, (n, 2)).astype(np.float32)


def draw_ctf(n, rng):
    """CTF parameters [n, 9] of an ordinary 300 kV session: 1 to 2.5 um underfocus, mild astigmatism."""
    defocus = rng.uniform(10000, 25000, n)
    astigmatism = rng.uniform(0, 400, n)
    constant = np.ones(n)
    return np.stack([defocus + astigmatism / 2, defocus - astigmatism / 2, rng.uniform(0, 180, n), 300 * constant, 2.7 * constant,
                     0.1 * constant, 0 * constant, 0 * constant, constant], axis=1).astype(np.float32)


def mixtures_at(phantom, coordinates):
    """Centres [B, N, 3] and amplitudes [B, N] of a phantom at coordinates [B, 2]."""
    models = [phantom.at(c) for c in coordinates]
    return np.stack([m.centers for m in models]), np.stack([m.amplitudes for m in models])


def clean_chunk(phantom, coordinates, rotation, shift_angst, ctf, grid):
    """CTF-multiplied transforms [B, 2, 2m+1, m+1] of a phantom, one coordinate a particle."""
    centers, amplitudes = mixtures_at(phantom, coordinates)
    plain = project(place(tf.constant(centers), tf.constant(rotation), tf.constant(shift_angst)), tf.constant(amplitudes),
                    tf.constant(phantom.base.widths), grid)
    return plain * ctf_values(ctf, grid.kx, grid.ky)[:, None]


def noisy_images(phantom, coordinates, rotation, shift_angst, ctf, box, pixel_size, snr, seed):
    """Generate (noise standard deviation, then image chunks [<=CHUNK, L, L]) of a phantom.

    The noise is white; its variance is the variance of the first 256 clean images over `snr`.
    """
    grid = FourierGrid.to_resolution(box, pixel_size)
    rng = np.random.default_rng([seed, 2])

    def clean(chunk):
        projected = clean_chunk(phantom, coordinates[chunk], rotation[chunk], shift_angst[chunk], ctf[chunk], grid)
        return inverse_transform(projected, grid).numpy()

    n = len(coordinates)
    first = np.concatenate([clean(slice(i, min(i + CHUNK, n))) for i in range(0, min(256, n), CHUNK)])
    sigma = float(np.sqrt(first.var() / snr))
    yield sigma
    for i in range(0, n, CHUNK):
        images = clean(slice(i, min(i + CHUNK, n)))
        yield (images + rng.normal(0, sigma, images.shape)).astype(np.float32)


def consensus_map(phantom, box, pixel_size):
    """Mean density over the family: what a perfect reconstruction with true poses would show, float32 [L, L, L]."""
    coordinates, prior = phantom.grid(9)
    return sum(p * render(phantom.at(c), box, pixel_size) for c, p in zip(coordinates, prior)).astype(np.float32)
