"""Small least-squares problems, one per particle, solved together: used for latent points and for poses."""
import tensorflow as tf


def refine(residual, start, mean, precision, steps, delta):
    """Levenberg-Marquardt on ``|r(x)|^2 / 2 + (x - mean)^T P (x - mean) / 2`` for every particle of a batch.

    Derivatives are forward differences of `delta`. A step that does not lower a particle's cost is not taken and its damping grows.

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
    size = start.shape[1]

    def prior_cost(x):
        return 0.5 * tf.einsum("bq,qp,bp->b", x - mean, precision, x - mean)

    def step(x, r, damping, _):
        columns = [(residual(x + delta * tf.one_hot(i, size)) - r) / delta[i] for i in range(size)]
        jacobian = tf.stack(columns, axis=2)
        curvature = tf.matmul(jacobian, jacobian, transpose_a=True)
        gradient = tf.einsum("bkq,bk->bq", jacobian, r) + tf.einsum("qp,bp->bq", precision, x - mean)
        normal = curvature + precision
        normal += damping[:, None, None] * tf.linalg.diag(tf.linalg.diag_part(normal))
        trial = x - tf.linalg.solve(normal, gradient[..., None])[..., 0]
        trial_r = residual(trial)
        better = 0.5 * tf.reduce_sum(trial_r**2, 1) + prior_cost(trial) < 0.5 * tf.reduce_sum(r**2, 1) + prior_cost(x)
        x, r = tf.where(better[:, None], trial, x), tf.where(better[:, None], trial_r, r)
        return x, r, tf.where(better, damping * 0.3, damping * 10.0), curvature

    batch = tf.shape(start)[0]
    begin = start, residual(start), tf.fill([batch], 1e-3), tf.zeros([batch, size, size])
    x, r, _, curvature = tf.while_loop(lambda *_: True, step, begin, maximum_iterations=steps)
    alone = 0.5 * tf.reduce_sum(r**2, 1)
    return x, alone + prior_cost(x), alone, curvature
