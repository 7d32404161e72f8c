"""Small least-squares problems, one per particle, solved together: used for latent points and for poses."""
import numpy as np
import tensorflow as tf

#: outer points of a normal distribution along each of its axes, in standard deviations, and their weight (Gauss-Hermite, three points)
REACH, WEIGHT = float(np.sqrt(3)), 1 / 6
#: points on the line along which a normal distribution is corrected, and how much wider than it half of them are spread
ON_LINE, WIDER = 11, 1.5


def linearised(residual, x, r, delta):
    """Slope ``-J^T r`` [B, Q] and curvature ``J^T J`` [B, Q, Q] of minus half the squared sum of the residuals r [B, K] at x [B, Q].

    Derivatives are forward differences of `delta` [Q].
    """
    rows = tf.map_fn(lambda step: (residual(x + step) - r) / tf.reduce_sum(step), tf.linalg.diag(delta))
    jacobian = tf.transpose(rows, (1, 0, 2))
    return -tf.linalg.matvec(jacobian, r), tf.matmul(jacobian, jacobian, transpose_b=True)


def refine(residual, start, mean, precision, steps, delta):
    """Levenberg-Marquardt on ``|r(x)|^2 / 2 + (x - mean)^T P (x - mean) / 2`` for every particle of a batch.

    A step that does not lower a particle's cost is not taken and its damping grows.

    Parameters
    ----------
    residual : callable, x [B, Q] to residuals [B, K], unit noise variance.
    start : tensor [B, Q].
    mean : tensor [Q]; precision : tensor [Q, Q]. The Gaussian prior.
    steps : int.
    delta : tensor [Q], size of the differences.

    Returns
    -------
    x [B, Q], cost at x [B], cost of the residual alone at x [B], curvature ``J^T J`` at the last linearisation [B, Q, Q].
    """
    def cost(x, r):
        return 0.5 * tf.reduce_sum(r**2, 1) + 0.5 * tf.einsum("bq,qp,bp->b", x - mean, precision, x - mean)

    def step(x, r, damping, _):
        slope, curvature = linearised(residual, x, r, delta)
        normal = curvature + precision
        normal += damping[:, None, None] * tf.linalg.diag(tf.linalg.diag_part(normal))
        trial = x + tf.linalg.solve(normal, (slope - tf.einsum("qp,bp->bq", precision, x - mean))[..., None])[..., 0]
        trial_r = residual(trial)
        better = cost(trial, trial_r) < cost(x, r)
        x, r = tf.where(better[:, None], trial, x), tf.where(better[:, None], trial_r, r)
        return x, r, tf.where(better, damping * 0.3, damping * 10.0), curvature

    batch, size = tf.shape(start)[0], start.shape[1]
    begin = start, residual(start), tf.fill([batch], 1e-3), tf.zeros([batch, size, size])
    x, r, _, curvature = tf.while_loop(lambda *_: True, step, begin, maximum_iterations=steps)
    return x, cost(x, r), 0.5 * tf.reduce_sum(r**2, 1), curvature


def posterior(residual, mean, factor, prior_mean, precision, steps):
    """The normal distribution nearest to the posterior ``exp(-|r(x)|^2 / 2) N(x; prior_mean, precision^-1)``, of every particle of a batch.

    Nearest in Kullback-Leibler divergence: the bound on the evidence, ``E[-|r(x)|^2 / 2]`` over the distribution less its divergence from
    the prior, is raised by natural-gradient steps (Khan & Lin 2017) with the curvature of least squares. Expectations are taken from points
    along its axes, so that slopes are those over the width in which x is uncertain: at that width models are not linear, and the mode is
    not where most of the posterior is. A step that does not raise a particle's bound is not taken and its damping grows.

    Parameters
    ----------
    residual : callable, x [B, Q] to residuals [B, K], unit noise variance.
    mean : [B, Q]; factor : [B, Q, Q]. The distribution to start from; its covariance is ``factor factor^T``.
    prior_mean : tensor [Q]; precision : tensor [Q, Q]. The Gaussian prior.
    steps : int.

    Returns
    -------
    mean [B, Q] and covariance [B, Q, Q].
    """
    def looked(x, factor, log_volume):
        """The bound, but for a constant; by the axes of the distribution its slope [B, Q] and minus its curvature [B, Q, Q]."""
        def ends(axis):
            up, down = residual(x + REACH * factor[:, :, axis]), residual(x - REACH * factor[:, :, axis])
            return (up - down) / (2 * REACH), 0.5 * tf.reduce_sum(up**2, 1), 0.5 * tf.reduce_sum(down**2, 1)
        rows, up, down = tf.map_fn(ends, tf.range(x.shape[1]), fn_output_signature=(tf.float32,) * 3)
        middle, rows = 0.5 * tf.reduce_sum(residual(x) ** 2, 1), tf.transpose(rows, (1, 0, 2))
        expected = middle + WEIGHT * tf.reduce_sum(up + down - 2 * middle, 0)
        off, pulled = x - prior_mean, tf.einsum("qp,bpa->bqa", precision, factor)
        divergence = 0.5 * (tf.reduce_sum(factor * pulled, (1, 2)) + tf.einsum("bq,qp,bp->b", off, precision, off)) - log_volume
        slope = tf.transpose(down - up) / (2 * REACH) - tf.einsum("bqa,bq->ba", pulled, off)
        return -expected - divergence, slope, tf.matmul(rows, rows, transpose_b=True) + tf.matmul(factor, pulled, transpose_a=True)

    def step(damping, *state):
        x, factor, log_volume, bound, slope, curvature = state
        root = tf.linalg.cholesky(curvature)
        damped = curvature + damping[:, None, None] * tf.linalg.diag(tf.linalg.diag_part(curvature))
        trial = [x + tf.linalg.matvec(factor, tf.linalg.solve(damped, slope[..., None])[..., 0]),
                 tf.linalg.matrix_transpose(tf.linalg.triangular_solve(root, tf.linalg.matrix_transpose(factor))),
                 log_volume - tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)), 1)]
        trial += looked(*trial)
        better = trial[3] > bound
        kept = [tf.where(tf.reshape(better, [-1] + [1] * (len(old.shape) - 1)), new, old) for new, old in zip(trial, state)]
        return tf.where(better, damping * 0.3, damping * 10.0), *kept

    begin = mean, factor, tf.linalg.logdet(tf.matmul(factor, factor, transpose_b=True)) / 2
    _, x, factor, *_ = tf.while_loop(lambda *_: True, step, (tf.fill(tf.shape(mean)[:1], 1e-2), *begin, *looked(*begin)),
                                     maximum_iterations=steps)
    return x, tf.matmul(factor, factor, transpose_b=True)


def corrected(log_density, mean, covariance, prior_mean, precision, part):
    """A normal distribution (see `posterior`) with the posterior's own mean and variance along one line.

    The line is that in which the particle tells most: the direction of least variance over the prior's, through the mean; the other
    coordinates follow as the distribution has them go along. On it the posterior need not be normal, and may have further peaks. Its
    moments are sums over points, the quantiles of prior and distribution in equal parts, so that neither a wide nor a narrow posterior
    is missed.

    Parameters
    ----------
    log_density : callable, x [B, Q] to the log of the posterior [B], but for a constant.
    mean : [B, Q]; covariance : [B, Q, Q].
    prior_mean : tensor [Q]; precision : tensor [Q, Q]. The Gaussian prior.
    part : slice of the coordinates in which the direction is sought.

    Returns
    -------
    mean [B, Q] and covariance [B, Q, Q].
    """
    root = tf.linalg.cholesky(precision[part, part])
    variances, directions = tf.linalg.eigh(tf.matmul(root, tf.matmul(covariance[:, part, part], root), transpose_a=True))
    across, variance = tf.linalg.matvec(root, directions[:, :, 0]), variances[:, 0]
    here, width = tf.reduce_sum(across * (mean - prior_mean)[:, part], 1), WIDER * tf.sqrt(variance)
    along = tf.linalg.matvec(covariance[:, :, part], across) / variance[:, None]
    places = _quantiles(here, width)
    density = tf.exp(-0.5 * places**2) + tf.exp(-0.5 * ((places - here) / width) ** 2) / width
    height = tf.map_fn(lambda place: log_density(mean + (place - here)[:, None] * along), places)
    weight = tf.nn.softmax(height - tf.math.log(density), axis=0)
    middle = tf.reduce_sum(weight * places, 0)
    spread = tf.reduce_sum(weight * (places - middle) ** 2, 0)
    mean += (middle - here)[:, None] * along
    return mean, covariance + (spread - variance)[:, None, None] * along[:, :, None] * along[:, None, :]


def _quantiles(mean, width):
    """ON_LINE quantiles [ON_LINE, B] of the unit normal and one of this mean and width [B], in equal parts."""
    levels = (tf.range(ON_LINE, dtype=tf.float32)[:, None] + 0.5) / ON_LINE

    def below(x):
        return 0.5 * (_normal_below(x) + _normal_below((x - mean) / width))
    low, high = tf.minimum(-6.0, mean - 6 * width) + 0 * levels, tf.maximum(6.0, mean + 6 * width) + 0 * levels
    for _ in range(24):
        middle = 0.5 * (low + high)
        under = below(middle) < levels
        low, high = tf.where(under, middle, low), tf.where(under, high, middle)
    return 0.5 * (low + high)


def _normal_below(x):
    """How much of a unit normal lies below x."""
    return 0.5 * tf.math.erfc(-x / np.sqrt(2).astype(np.float32))
