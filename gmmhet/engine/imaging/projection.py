"""Projection of Gaussian mixtures into Fourier space: image formation without CTF (docs/method.md, image
formation)."""
import functools
import os
from typing import Any, NamedTuple

import tensorflow as tf

from gmmhet.engine.imaging import separable
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.local import LocalProjector
from gmmhet.engine.imaging.pose_change import Pose

#: with fewer Gaussians than this, drawing and transforming grids costs more than a matrix product
FEWEST_LOCAL = 128


class MixtureBatch(NamedTuple):
    """Gaussian mixtures of a batch, as tensors; whatever has these three attributes will do where one is
    projected.

    Attributes
    ----------
    centers : [B, N, 3] (or [N, 3], the same for all), Å from the box centre.
    amplitudes : [B, N] or [N], integral of each Gaussian.
    widths : [B, N] or [N], standard deviations, Å.
    """

    centers: tf.Tensor
    amplitudes: tf.Tensor
    widths: tf.Tensor


def project_mixture(mixture: Any, pose: Pose, grid: FourierGrid) -> tf.Tensor:
    """Fourier transforms of mixtures seen at poses, without CTF: the one place where image formation begins.

    ``sum_n a_n exp(-2 pi^2 s_n^2 |k|^2) exp(-2 pi i k (A c_n + t))`` for every k of the grid.

    Parameters
    ----------
    mixture : MixtureBatch, or a Mixture that is the same for all.
    pose : Pose of B particles.
    grid : FourierGrid.

    Returns
    -------
    tensor [B, 2, 2m+1, m+1], real and imaginary parts, scaled as `fourier.transform` scales images.
    """
    return project(place(mixture.centers, pose.rotation, pose.shift_angst), mixture.amplitudes,
                   mixture.widths, grid)


def place(centers: tf.Tensor, rotation: tf.Tensor, shift_angst: tf.Tensor) -> tf.Tensor:
    """Centres in the image plane: ``(A c + t)``'s x and y.

    Parameters
    ----------
    centers : tensor [N, 3] or [B, N, 3], Å.
    rotation : tensor [B, 3, 3].
    shift_angst : tensor [B, 2], Å.

    Returns
    -------
    tensor [B, N, 2], Å.
    """
    plane = tf.linalg.matrix_transpose(rotation[:, :2, :])
    if len(centers.shape) == 2:
        placed = tf.tensordot(rotation[:, :2, :], centers, [[2], [1]])
        return tf.linalg.matrix_transpose(placed) + shift_angst[:, None, :]
    return tf.matmul(centers, plane) + shift_angst[:, None, :]


def project(
        xy: tf.Tensor, amplitudes: tf.Tensor, widths: tf.Tensor, grid: FourierGrid,
        method: str = "auto") -> tf.Tensor:
    """Fourier transforms of the projections of mixtures, without CTF.

    Parameters
    ----------
    xy : tensor [B, N, 2], centres in the image plane, Å.
    amplitudes : tensor [N] or [B, N], integrals of the Gaussians.
    widths : tensor [N] or [B, N], standard deviations, Å.
    grid : FourierGrid.
    method : 'local' draws every Gaussian on a grid and transforms the grid (CPU; errors below 1e-5 of the
        largest value); 'separable' is a matrix product (any device; float32's precision); 'auto' takes what
        is faster: separable on GPUs and for few Gaussians.

    Returns
    -------
    tensor [B, 2, 2m+1, m+1], real and imaginary parts, scaled as `fourier.transform` scales images.
    """
    if method == "auto":
        few = xy.shape[1] is not None and xy.shape[1] < FEWEST_LOCAL
        method = "separable" if few or tf.config.list_logical_devices("GPU") else "local"
    if method == "separable":
        return separable.project(xy, amplitudes, widths, grid)
    return _project_locally(grid, *(tf.convert_to_tensor(a, tf.float32) for a in (xy, amplitudes, widths)))


def _project_locally(grid: FourierGrid, xy: tf.Tensor, amplitudes: tf.Tensor, widths: tf.Tensor) -> tf.Tensor:
    """`LocalProjector` as a differentiable operation."""
    threads = tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
    projector = _local_projector(grid, threads)
    shape = (xy.shape[0], 2) + grid.shape

    @tf.custom_gradient
    def project_(xy: tf.Tensor, amplitudes: tf.Tensor, widths: tf.Tensor) -> Any:
        def adjoint(upstream: tf.Tensor) -> Any:
            slopes = tf.numpy_function(projector.adjoint, [upstream, xy, amplitudes, widths],
                                       [tf.float32] * 3, stateful=False)
            return tuple(tf.ensure_shape(tf.reduce_sum(slope, 0) if len(like.shape) < 2 else slope,
                                         like.shape)
                         for slope, like in zip(slopes, (xy, amplitudes, widths)))
        image = tf.numpy_function(projector.project, [xy, amplitudes, widths], tf.float32, stateful=False)
        return tf.ensure_shape(image, shape), adjoint
    return project_(xy, amplitudes, widths)


@functools.lru_cache(maxsize=16)
def _local_projector(grid: FourierGrid, threads: int) -> LocalProjector:
    return LocalProjector(grid, threads)
