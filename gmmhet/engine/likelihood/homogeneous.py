"""Particles that are all alike, made as they are read: the null control of a training needs no images on disk."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import inverse_transform
from gmmhet.engine.imaging.pose_change import changed_exactly
from gmmhet.engine.imaging.projection import place, project


class HomogeneousParticles:
    """A ParticleSet whose images are simulated from one mixture; everything else is that of the set it stands for.

    Poses, shifts, CTF, optics groups and ids are the real ones; density scale and noise power per ring are what was estimated from the real
    images of each optics group. Where the given poses are uncertain, the images are drawn at others, of the posterior that training left.
    An image depends on seed and id alone, so it is the same whenever and wherever it is read.

    Parameters
    ----------
    particles : ParticleSet.
    mixture : Mixture, or, where each particle keeps a conformation of an earlier stage, a callable: rows [B] to centers [B, N, 3],
        amplitudes [B, N] and widths [B, N] or [N].
    likelihood : Agreement, with the noise, scale and grid of the real set.
    seed : int
    poses : PoseErrors, or None where the poses are exact.
    """

    def __init__(self, particles, mixture, likelihood, seed, poses=None):
        self._real, self._likelihood, self._seed, self._poses = particles, likelihood, seed, poses
        grid = likelihood.grid
        radius = np.hypot(np.fft.fftfreq(grid.box)[:, None], np.fft.rfftfreq(grid.box)[None]) * grid.box
        ring = np.minimum(np.round(radius).astype(int), grid.m + 1)
        self._deviation = np.sqrt(np.stack([_filled(power) for power in likelihood.noise_power]))[:, ring].astype(np.float32)
        self._mixtures = mixture if callable(mixture) else lambda rows: [
            np.broadcast_to(np.float32(part), (len(rows), *part.shape)) for part in (mixture.centers, mixture.amplitudes, mixture.widths)]
        sizes = ([None, None, 3], [None, None], [None, None], [None, 3, 3], [None, 2], [None, particles.ctf.shape[1]], [None])

        @tf.function(input_signature=[tf.TensorSpec(size, tf.float32) for size in sizes], autograph=False)
        def clean(centers, amplitudes, widths, rotation, shift, ctf, scale):
            image = project(place(centers, rotation, shift), amplitudes, widths, grid)
            return inverse_transform(scale[:, None, None, None] * ctf_values(ctf, grid.kx, grid.ky)[:, None] * image, grid)
        self._clean = clean

    def __getattr__(self, name):
        return getattr(self._real, name)

    def __len__(self):
        return len(self._real)

    def read(self, indices):
        """Images of the given rows, float32 [B, L, L]."""
        indices, real, box = np.atleast_1d(indices), self._real, self._real.box
        group = np.zeros(len(indices), int)
        for number, name in enumerate(self._likelihood.groups, 1):
            group[real.ctf[indices, 10] == name] = number
        rotation, shift = real.rotation[indices], real.shift_angst[indices]
        if self._poses:
            draws = np.stack([np.random.default_rng([self._seed, 17, int(i)]).standard_normal(5) for i in real.ids[indices]])
            rotation, shift = (np.float32(part) for part in changed_exactly(rotation, shift, self._poses.drawn(indices, draws)))
        centers, amplitudes, widths = self._mixtures(indices)
        widths = np.broadcast_to(widths, amplitudes.shape)
        images = self._clean(*(tf.convert_to_tensor(a, tf.float32) for a in (
            centers, amplitudes, widths, rotation, shift, real.ctf[indices], self._likelihood.scale[group]))).numpy()
        for image, number, i in zip(images, group, real.ids[indices]):
            noise = np.random.default_rng([self._seed, 11, int(i)]).standard_normal((box, box), np.float32)
            sign = np.sign(self._likelihood.scale[number])      # so that black images are the white ones inverted
            image += sign * np.fft.irfft2(np.fft.rfft2(noise) * self._deviation[number], (box, box))
        return images


def _filled(power):
    """Noise power per ring [m+2], rings without data taking that of the nearest ring with data: a mask carries a little of it over."""
    holds = np.flatnonzero(power > 0)
    return power[holds[np.argmin(np.abs(np.arange(len(power))[:, None] - holds), axis=1)]]
