"""Small least-squares problems, one per particle, solved together: used for latent points and for poses."""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.likelihood.quadratic import LogDensity, Residual, linearised

#: outer points of a normal distribution along each of its axes, in standard deviations, and their weight
#: (Gauss-Hermite, three points)
OUTER, OUTER_WEIGHT = float(np.sqrt(3)), 1 / 6
#: points on the line along which a normal distribution is corrected, and how much wider than it half of them
#: are spread
POINTS_ON_LINE, WIDER = 11, 1.5
#: steps of bisection by which their places are found
BISECTIONS = 24


class NormalPrior(NamedTuple):
    """A normal distribution of Q numbers: mean [Q] and precision [Q, Q]."""

    mean: tf.Tensor
    precision: tf.Tensor

    def cost(self, x: tf.Tensor) -> tf.Tensor:
        """Minus its log density at x [B, Q], but for a constant."""
        off = x - self.mean
        return 0.5 * tf.einsum("bq,qp,bp->b", off, self.precision, off)


class Mode(NamedTuple):
    """Most probable values: x [B, Q], the squared sum of its residuals over two [B], and the curvature ``J^T
    J`` [B, Q, Q] at the last linearisation, one step before."""

    x: tf.Tensor
    half_squares: tf.Tensor
    curvature: tf.Tensor


class Normal(NamedTuple):
    """Normal distributions: mean [B, Q], covariance [B, Q, Q]."""

    mean: tf.Tensor
    covariance: tf.Tensor


def levenberg_marquardt(residual: Residual, start: tf.Tensor, prior: NormalPrior, steps: int,
                        differences: tf.Tensor) -> Mode:
    """Minimum of ``|r(x)|^2 / 2 + (x - mean)^T P (x - mean) / 2`` for every particle of a batch (Levenberg
    1944; Marquardt 1963).

    A step that does not lower a particle's cost is not taken and its damping grows.

    Parameters
    ----------
    residual : callable, x [B, Q] to residuals r [B, K], unit noise variance.
    start : tensor [B, Q].
    prior : NormalPrior, of precision P.
    steps : int.
    differences : tensor [Q], sizes of the forward differences.
    """
    def cost(x: tf.Tensor, r: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.reduce_sum(r**2, 1) + prior.cost(x)

    def step(x: tf.Tensor, r: tf.Tensor, damping: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        slope, curvature = linearised(residual, x, r, differences)
        normal = curvature + prior.precision
        normal += damping[:, None, None] * tf.linalg.diag(tf.linalg.diag_part(normal))
        pulled = slope - tf.einsum("qp,bp->bq", prior.precision, x - prior.mean)
        trial = x + tf.linalg.solve(normal, pulled[..., None])[..., 0]
        trial_r = residual(trial)
        better = cost(trial, trial_r) < cost(x, r)
        x, r = tf.where(better[:, None], trial, x), tf.where(better[:, None], trial_r, r)
        return x, r, tf.where(better, damping * 0.3, damping * 10.0), curvature

    batch, size = tf.shape(start)[0], start.shape[1]
    state = start, residual(start), tf.fill([batch], 1e-3), tf.zeros([batch, size, size])
    x, r, _, curvature = tf.while_loop(lambda *_: True, step, state, maximum_iterations=steps)
    return Mode(x, 0.5 * tf.reduce_sum(r**2, 1), curvature)


def variational_gaussian(
        residual: Residual, start: tf.Tensor, factor: tf.Tensor, prior: NormalPrior, steps: int) -> Normal:
    """The normal distribution nearest to the posterior ``exp(-|r(x)|^2 / 2)`` times the prior, of every
    particle of a batch.

    Nearest in Kullback-Leibler divergence: the bound on the evidence, ``E[-|r(x)|^2 / 2]`` over the
    distribution less its divergence from the prior, is raised by natural-gradient steps (Khan & Lin 2017)
    with the curvature of least squares. Expectations are taken from points along its axes, so that slopes are
    those over the width in which x is uncertain: at that width models are not linear, and the mode is not
    where most of the posterior is. A step that does not raise a particle's bound is not taken and its damping
    grows.

    Parameters
    ----------
    residual : callable, x [B, Q] to residuals r [B, K], unit noise variance.
    start : [B, Q], the first mean; factor : [B, Q, Q], with the first covariance ``factor factor^T``.
    prior : NormalPrior.
    steps : int.
    """
    def look(x: tf.Tensor, factor: tf.Tensor, log_volume: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The bound, but for a constant [B]; by the axes of the distribution its slope [B, Q] and minus its
        curvature [B, Q, Q]."""
        def ends(axis: tf.Tensor) -> tuple[tf.Tensor, ...]:
            up, down = residual(x + OUTER * factor[:, :, axis]), residual(x - OUTER * factor[:, :, axis])
            return (up - down) / (2 * OUTER), 0.5 * tf.reduce_sum(up**2, 1), 0.5 * tf.reduce_sum(down**2, 1)
        rows, up, down = tf.map_fn(ends, tf.range(x.shape[1]), fn_output_signature=(tf.float32,) * 3)
        middle, rows = 0.5 * tf.reduce_sum(residual(x) ** 2,
                                           1), tf.transpose(rows, (1, 0, 2))       # rows [B, Q, K]
        expected = middle + OUTER_WEIGHT * tf.reduce_sum(up + down - 2 * middle, 0)
        off, pulled = x - prior.mean, tf.einsum("qp,bpa->bqa", prior.precision, factor)
        kl = 0.5 * (tf.reduce_sum(factor * pulled, (1, 2))
                    + tf.einsum("bq,qp,bp->b", off, prior.precision, off)) - log_volume
        slope = tf.transpose(down - up) / (2 * OUTER) - tf.einsum("bqa,bq->ba", pulled, off)
        curvature = tf.matmul(rows, rows, transpose_b=True) + tf.matmul(factor, pulled, transpose_a=True)
        return -expected - kl, slope, curvature

    def step(damping: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        x, factor, log_volume, bound, slope, curvature = state
        root = tf.linalg.cholesky(curvature)
        damped = curvature + damping[:, None, None] * tf.linalg.diag(tf.linalg.diag_part(curvature))
        trial = [x + tf.linalg.matvec(factor, tf.linalg.solve(damped, slope[..., None])[..., 0]),
                 tf.linalg.matrix_transpose(tf.linalg.triangular_solve(root,
                                                                       tf.linalg.matrix_transpose(factor))),
                 log_volume - tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)), 1)]
        trial += look(*trial)
        better = trial[3] > bound
        kept = [tf.where(tf.reshape(better, [-1] + [1] * (len(old.shape) - 1)), new, old)
                for new, old in zip(trial, state)]
        return tf.where(better, damping * 0.3, damping * 10.0), *kept

    first = start, factor, tf.linalg.logdet(tf.matmul(factor, factor, transpose_b=True)) / 2
    state = tf.fill(tf.shape(start)[:1], 1e-2), *first, *look(*first)
    _, x, factor, *_ = tf.while_loop(lambda *_: True, step, state, maximum_iterations=steps)
    return Normal(x, tf.matmul(factor, factor, transpose_b=True))


def moment_corrected(log_density: LogDensity, normal: Normal, prior: NormalPrior, part: slice) -> Normal:
    """A normal distribution (see `variational_gaussian`) with the posterior's own mean and variance along one
    line.

    The line is that in which the particle says most: the direction of least variance over the prior's,
    through the mean; the other coordinates follow as the distribution has them go along. On it the posterior
    need not be normal, and may have further peaks. Its moments are sums over points, the quantiles of prior
    and distribution in equal parts, so that neither a wide nor a narrow posterior is missed.

    Parameters
    ----------
    log_density : callable, x [B, Q] to the log of the posterior [B], but for a constant.
    normal : Normal to correct.
    prior : NormalPrior.
    part : slice of the coordinates in which the direction is sought.
    """
    mean, covariance = normal
    root = tf.linalg.cholesky(prior.precision[part, part])
    over_prior = tf.matmul(root, tf.matmul(covariance[:, part, part], root), transpose_a=True)
    variances, directions = tf.linalg.eigh(over_prior)
    across, variance = tf.linalg.matvec(root, directions[:, :, 0]), variances[:, 0]
    here, width = tf.reduce_sum(across * (mean - prior.mean)[:, part], 1), WIDER * tf.sqrt(variance)     # [B]
    along = tf.linalg.matvec(covariance[:, :, part], across) / variance[:, None]                      # [B, Q]
    places = _quantiles(here, width)                                                                  # [P, B]
    density = tf.exp(-0.5 * places**2) + tf.exp(-0.5 * ((places - here) / width) ** 2) / width
    height = tf.map_fn(lambda place: log_density(mean + (place - here)[:, None] * along), places)
    weight = tf.nn.softmax(height - tf.math.log(density), axis=0)
    middle = tf.reduce_sum(weight * places, 0)
    own_variance = tf.reduce_sum(weight * (places - middle) ** 2, 0)
    mean += (middle - here)[:, None] * along
    return Normal(mean,
                  covariance
                  + (own_variance - variance)[:, None, None] * along[:, :, None] * along[:, None, :])


def _quantiles(mean: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """POINTS_ON_LINE quantiles [P, B] of the unit normal and one of this mean and width [B], in equal
    parts."""
    levels = (tf.range(POINTS_ON_LINE, dtype=tf.float32)[:, None] + 0.5) / POINTS_ON_LINE

    def below(x: tf.Tensor) -> tf.Tensor:
        return 0.5 * (_normal_below(x) + _normal_below((x - mean) / width))
    low, high = tf.minimum(-6.0,
                           mean - 6 * width) + 0 * levels, tf.maximum(6.0, mean + 6 * width) + 0 * levels
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        under = below(middle) < levels
        low, high = tf.where(under, middle, low), tf.where(under, high, middle)
    return 0.5 * (low + high)


def _normal_below(x: tf.Tensor) -> tf.Tensor:
    """How much of a unit normal lies below x."""
    return 0.5 * tf.math.erfc(-x / np.sqrt(2).astype(np.float32))
