"""A log-likelihood as a quadratic of a few numbers."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.likelihood.quadratic import expand_at_zero, linearised

RNG = np.random.default_rng(0)
JACOBIAN, DATA = RNG.normal(size=(6, 30, 3)).astype(np.float32), RNG.normal(size=(6, 30)).astype(np.float32)
STEPS = tf.constant([0.1, 0.05, 0.2])


def residual(x):
    return tf.einsum("bkq,bq->bk", JACOBIAN, x) - DATA


def test_of_a_linear_problem_slope_and_curvature_are_exact_wherever_it_is_expanded():
    curvature = np.einsum("bkq,bkp->bqp", JACOBIAN, JACOBIAN)
    slope = np.einsum("bkq,bk->bq", JACOBIAN, DATA)
    for x in (np.zeros((6, 3), np.float32), RNG.normal(size=(6, 3)).astype(np.float32)):
        at_x, at_zero = (made(tf.constant(x)) for made in (
            lambda x: linearised(residual, x, residual(x), STEPS),
            lambda x: expand_at_zero(residual, x, STEPS)))
        np.testing.assert_allclose(at_x.curvature, curvature, rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(at_x.slope, slope - np.einsum("bqp,bp->bq", curvature, x), rtol=1e-3,
                                   atol=0.02)
        np.testing.assert_allclose(at_zero.slope, slope, rtol=1e-3, atol=0.02)


def test_of_a_problem_that_is_not_linear_the_slope_is_that_of_half_the_squares():
    def bent(x):
        return tf.sin(residual(x))
    x = tf.constant(RNG.normal(0, 0.3, (6, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = -0.5 * tf.reduce_sum(bent(x) ** 2)
    found = linearised(bent, x, bent(x), tf.fill([3], 1e-3))
    np.testing.assert_allclose(found.slope, tape.gradient(value, x), atol=0.05)
    assert np.all(np.linalg.eigvalsh(found.curvature) > -1e-4)
