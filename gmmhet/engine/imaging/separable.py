"""Projection by one matrix product per image: a Gaussian's Fourier transform is separable in kx and ky.

The transform of a component is ``a exp(-2 pi^2 s^2 |k|^2) exp(-2 pi i k.x)``, a product of a function of kx
and one of ky, so an image is one matrix product. Cosine is even and sine odd: products over ky >= 0 alone
give both signs of ky, at half the arithmetic.
"""
from typing import Any, Callable, Tuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.fourier import FourierGrid


def project(xy: tf.Tensor, amplitudes: tf.Tensor, widths: tf.Tensor, grid: FourierGrid) -> tf.Tensor:
    """As `projection.project`, with differentiable TensorFlow operations on any device."""
    m = grid.m
    scale = np.float32(1.0 / (grid.pixel_size**2 * grid.box))
    along_x = _waves(xy[..., 0], widths, grid) * (amplitudes[..., None] * scale)
    along_y = _waves(xy[..., 1], widths, grid)
    products = tf.matmul(along_y, along_x, transpose_a=True)
    cc, cs = products[:, :m + 1, :m + 1], products[:, :m + 1, m + 1:]
    sc, ss = products[:, m + 1:, :m + 1], products[:, m + 1:, m + 1:]
    real = tf.concat([tf.reverse((cc + ss)[:, 1:], [1]), cc - ss], 1)
    imag = tf.concat([tf.reverse((sc - cs)[:, 1:], [1]), -(sc + cs)], 1)
    return tf.stack([real, imag], 1)


def _waves(position: tf.Tensor, widths: tf.Tensor, grid: FourierGrid) -> tf.Tensor:
    """``cos(2 pi k p) d`` then ``sin(2 pi k p) d`` for k = 0..m, with the damping
    ``d = exp(-2 pi^2 s^2 k^2)``; with its adjoint.

    Parameters
    ----------
    position : tensor [B, N], Å.
    widths : tensor [N] or [B, N], Å.

    Returns
    -------
    tensor [B, N, 2(m+1)].
    """
    k = 2.0 * np.pi * grid.step * tf.range(grid.m + 1, dtype=tf.float32)

    def waves(position: tf.Tensor, widths: tf.Tensor) -> Tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        damping = tf.exp(-0.5 * tf.square(widths[..., None] * k))
        angle = position[..., None] * k
        cosine, sine = tf.cos(angle) * damping, tf.sin(angle) * damping

        def adjoint(upstream: tf.Tensor) -> Any:
            to_cosine, to_sine = tf.split(upstream, 2, -1)
            to_position = tf.linalg.matvec(to_sine * cosine - to_cosine * sine, k)
            to_widths = -widths * tf.linalg.matvec(to_cosine * cosine + to_sine * sine, k * k)
            return to_position, to_widths if len(widths.shape) == 2 else tf.reduce_sum(to_widths, 0)
        return tf.concat([cosine, sine], -1), adjoint
    return tf.custom_gradient(waves)(position, widths)
