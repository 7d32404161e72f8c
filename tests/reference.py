"""Slow, plain NumPy in float64: what the engine's kernels must equal. Nothing here is shared with the
engine."""
from typing import Callable, Tuple

import numpy as np


def relion_matrix(rot_deg: float, tilt_deg: float, psi_deg: float) -> np.ndarray:
    """RELION's Euler matrix, entry by entry."""
    ca, sa = np.cos(np.radians(rot_deg)), np.sin(np.radians(rot_deg))
    cb, sb = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    cg, sg = np.cos(np.radians(psi_deg)), np.sin(np.radians(psi_deg))
    return np.array([[cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
                     [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
                     [sb * ca, sb * sa, cb]])


def half_plane(box: int, pixel_size: float, m: int) -> Tuple[np.ndarray, np.ndarray]:
    """kx, ky (1/Å) of the half plane ky in -m..m, kx in 0..m, both [2m+1, m+1]."""
    step = 1.0 / (box * pixel_size)
    ky, kx = np.meshgrid(np.arange(-m, m + 1) * step, np.arange(m + 1) * step, indexing="ij")
    return kx, ky


def rings(m: int) -> Tuple[np.ndarray, np.ndarray]:
    """Ring index and number of Friedel-related copies of every entry of the half plane, both [2m+1, m+1]; 0
    copies outside 1..m."""
    iy, ix = np.meshgrid(np.arange(-m, m + 1), np.arange(m + 1), indexing="ij")
    ring = np.rint(np.sqrt(iy**2 + ix**2)).astype(int)
    return ring, np.where((ring >= 1) & (ring <= m), np.where(ix == 0, 1, 2), 0)


def transform(image: np.ndarray, m: int) -> np.ndarray:
    """Centred transform of one image [L, L] as a plain sum over pixels, divided by L: complex [2m+1, m+1]."""
    box = len(image)
    x = np.arange(box) - box // 2
    out = np.zeros((2 * m + 1, m + 1), complex)
    for row, ky in enumerate(range(-m, m + 1)):
        for kx in range(m + 1):
            out[row, kx] = np.sum(image * np.exp(-2j * np.pi * (ky * x[:, None] + kx * x[None]) / box)) / box
    return out


def project(xy: np.ndarray, amplitudes: np.ndarray, widths: np.ndarray, box: int, pixel_size: float,
            m: int) -> np.ndarray:
    """Transform of one projected mixture: the paper's dense sum, one Gaussian at a time. complex [2m+1,
    m+1]."""
    kx, ky = half_plane(box, pixel_size, m)
    total = np.zeros(kx.shape, complex)
    for (x, y), a, s in zip(np.asarray(xy, float), np.asarray(amplitudes, float), np.asarray(widths, float)):
        total += a * np.exp(-2 * np.pi**2 * s**2 * (kx**2 + ky**2)) * np.exp(-2j * np.pi * (kx * x + ky * y))
    return total / (pixel_size**2 * box)


def image_of(xy: np.ndarray, amplitudes: np.ndarray, widths: np.ndarray, box: int,
             pixel_size: float) -> np.ndarray:
    """The same projection in real space, [L, L] (y, x): each Gaussian sampled at the pixel centres."""
    axis = (np.arange(box) - box // 2) * pixel_size
    total = np.zeros((box, box))
    for (x, y), a, s in zip(xy, amplitudes, widths):
        total += a / (2 * np.pi
                      * s**2) * np.exp(-((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / (2 * s**2))
    return total


def ctf(parameters: np.ndarray, kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """CTF of one particle [9 to 11] at frequencies kx, ky (1/Å), one at a time; without its sign where the
    tenth number is 1."""
    u, v, angle, kilovolt, cs_mm, contrast, phase, bfactor, scale = (float(p) for p in parameters[:9])
    flipped = len(parameters) > 9 and parameters[9] == 1
    volt = 1e3 * kilovolt
    wavelength = 12.2643247 / np.sqrt(volt * (1 + volt
                                              * 0.978466e-6))      # RELION's constants, 5e-6 from CODATA's
    out = np.empty(kx.shape)
    for place in np.ndindex(kx.shape):
        k2 = kx[place] ** 2 + ky[place] ** 2
        direction = np.arctan2(ky[place], kx[place])
        defocus = (u + v) / 2 + (u - v) / 2 * np.cos(2 * (direction - np.radians(angle)))
        gamma = np.pi * wavelength * defocus * k2 - np.pi / 2 * cs_mm * 1e7 * wavelength**3 * k2**2
        wave = np.sin(gamma + np.arcsin(contrast) + np.radians(phase))
        out[place] = scale * np.exp(-bfactor * k2 / 4) * (abs(wave) if flipped else wave)
    return out


def log_likelihood(data: np.ndarray, model: np.ndarray, noise_power: np.ndarray) -> float:
    """Gaussian log-likelihood of a transform over that of an empty model, nats: complex [2m+1, m+1] each,
    power [m+2]."""
    m = data.shape[1] - 1
    ring, copies = rings(m)
    power = np.asarray(noise_power)[np.minimum(ring, m + 1)]
    return -0.5 * np.sum(copies * (np.abs(data - model) ** 2 - np.abs(data) ** 2) / power)


def frc(data: np.ndarray, model: np.ndarray) -> float:
    """Mean over rings 1..m of the Fourier ring correlation, complex [2m+1, m+1] each."""
    m = data.shape[1] - 1
    ring, copies = rings(m)
    values = []
    for r in range(1, m + 1):
        c = copies * (ring == r)
        power = np.sum(c * np.abs(model) ** 2) * np.sum(c * np.abs(data) ** 2)
        values.append(np.sum(c * (model * data.conj()).real) / np.sqrt(power))
    return float(np.mean(values))


def central_differences(function: Callable[[np.ndarray], float], x: np.ndarray, step: float) -> np.ndarray:
    """Gradient of a scalar function at x (any shape) by central differences."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = np.zeros(x.shape)
        moved[place] = step
        gradient[place] = (function(x + moved) - function(x - moved)) / (2 * step)
    return gradient
