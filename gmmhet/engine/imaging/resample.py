"""Images at another sampling: pixel size and box, about the same origin."""
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def resampling_matrix(box: int, pixel_size: float, new_box: int, new_pixel_size: float) -> np.ndarray:
    """Weights of a band-limited interpolation along one axis.

    The line is taken for one period of a sum of waves (its discrete Fourier series), of which those below the
    Nyquist frequencies of both samplings are evaluated at the new pixels. Row by row the weights sum to 1, so
    pixel values, and with them densities, are kept. What both samplings resolve comes out exactly; nothing
    beyond either Nyquist frequency does. New pixels outside the old box get weights of 0.

    Parameters
    ----------
    box, new_box : int, px; the origin is at pixel ``box // 2``.
    pixel_size, new_pixel_size : float, Å/px.

    Returns
    -------
    float32 [new_box, box].
    """
    old = np.arange(box) - box // 2
    new = (np.arange(new_box) - new_box // 2) * (new_pixel_size / pixel_size)      # in old pixels
    terms = 2 * last_wave(box, pixel_size, new_pixel_size) + 1
    angle = np.pi / box * (new[:, None] - old[None, :])
    sine = np.sin(angle)
    coincides = np.abs(sine) < 1e-9
    weights = np.where(coincides, terms, np.sin(terms * angle) / np.where(coincides, 1, sine)) / box
    weights[(new < old[0] - 0.5) | (new > old[-1] + 0.5)] = 0
    return weights.astype(np.float32)


def last_wave(box: int, pixel_size: float, new_pixel_size: float) -> int:
    """Largest index, in units of ``1 / (box * pixel_size)``, of a frequency below the Nyquist frequencies of
    both pixel sizes."""
    return min((box - 1) // 2, int(np.ceil(0.5 * box * pixel_size / new_pixel_size - 1e-6)) - 1)


def resample(images: np.ndarray, pixel_size: float, new_box: int, new_pixel_size: float) -> np.ndarray:
    """Images [B, L, L] at another box and pixel size, float32 [B, L', L'], with the values of their pixels
    kept.

    A smaller extent crops the image; a larger one is padded with the mean of the image's rim.
    White noise of variance v becomes noise of power ``v (pixel_size / new_pixel_size)^2`` in every ring of
    `fourier.transform` below both Nyquist frequencies, and none beyond.
    """
    images = np.asarray(images, np.float32)
    pixels = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1)
    rim = pixels.mean(1)[:, None, None]
    matrix = resampling_matrix(images.shape[-1], float(pixel_size), int(new_box), float(new_pixel_size))
    return np.matmul(matrix, images - rim) @ matrix.T + rim
