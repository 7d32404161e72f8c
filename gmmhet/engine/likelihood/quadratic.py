"""The log-likelihood as a quadratic of a few numbers: its slope and curvature, by forward differences of the
residuals."""
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

#: x [B, Q] to residuals [B, K] of unit variance
Residual = Callable[[tf.Tensor], tf.Tensor]
#: x [B, Q] to the log of a density [B], but for a constant
LogDensity = Callable[[tf.Tensor], tf.Tensor]


class Quadratic(NamedTuple):
    """``slope^T x - x^T curvature x / 2``: what the log-likelihood is like about x = 0, but for a constant.

    Attributes
    ----------
    slope : [B, Q]; curvature : [B, Q, Q], that of least squares (Gauss-Newton), never negative.
    """

    slope: tf.Tensor
    curvature: tf.Tensor


def linearised(residual: Residual, x: tf.Tensor, residual_at_x: tf.Tensor, steps: tf.Tensor) -> Quadratic:
    """Slope ``-J^T r`` and curvature ``J^T J`` of minus half the squared sum of the residuals r at x.

    Parameters
    ----------
    residual : callable; x : [B, Q]; residual_at_x : [B, K].
    steps : [Q], sizes of the forward differences.
    """
    rows = tf.map_fn(lambda step: (residual(x + step) - residual_at_x) / tf.reduce_sum(step),
                     tf.linalg.diag(steps))
    jacobian = tf.transpose(rows, (1, 0, 2))                                                       # [B, Q, K]
    return Quadratic(-tf.linalg.matvec(jacobian, residual_at_x),
                     tf.matmul(jacobian, jacobian, transpose_b=True))


def expand_at_zero(residual: Residual, x: tf.Tensor, steps: tf.Tensor) -> Quadratic:
    """The quadratic that the log-likelihood is like about x [B, Q], with its slope at 0."""
    slope, curvature = linearised(residual, x, residual(x), steps)
    return Quadratic(slope + tf.linalg.matvec(curvature, x), curvature)
