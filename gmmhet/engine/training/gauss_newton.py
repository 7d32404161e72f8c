"""Small least-squares problems, one per particle, solved together: used for latent points and for poses."""
import tensorflow as tf


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
