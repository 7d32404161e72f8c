"""Small least-squares problems: their most probable values, and the normal distributions nearest to them."""
import numpy as np
import tensorflow as tf
from scipy.stats import multivariate_normal

from gmmhet.engine.inference.least_squares import (
    Normal,
    NormalPrior,
    levenberg_marquardt,
    moment_corrected,
    variational_gaussian,
)


def unit(size):
    """The unit normal prior of so many numbers."""
    return NormalPrior(tf.zeros(size), tf.eye(size))


def start(count, size, width=1.0):
    return tf.zeros([count, size]), width * tf.eye(size, batch_shape=[count])


# ---- most probable values

def test_the_cost_of_a_normal_prior_is_minus_its_log_density():
    rng = np.random.default_rng(1)
    root, mean, x = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=(4, 3))
    precision = root @ root.T + np.eye(3)
    density = multivariate_normal(mean, np.linalg.inv(precision))
    found = NormalPrior(np.float32(mean), np.float32(precision)).cost(tf.constant(x, tf.float32))
    np.testing.assert_allclose(found, density.logpdf(mean) - density.logpdf(x), rtol=1e-4)


def test_levenberg_marquardt_ends_at_the_closed_form_of_a_linear_problem_with_a_prior():
    rng = np.random.default_rng(0)
    design, data = rng.normal(size=(6, 30, 3)).astype(np.float32), rng.normal(size=(6, 30)).astype(np.float32)
    mean, precision = np.float32([0.5, -1, 0]), np.diag([1.0, 4.0, 9.0]).astype(np.float32)
    prior = NormalPrior(tf.constant(mean), tf.constant(precision))
    mode = levenberg_marquardt(lambda x: tf.einsum("bkq,bq->bk", design, x) - data, tf.zeros([6, 3]), prior,
                               6,
                               tf.constant([0.1, 0.1, 0.1]))
    normal = np.einsum("bkq,bkp->bqp", design, design)
    pulled = np.einsum("bkq,bk->bq", design, data) + precision @ mean
    expected = np.linalg.solve(normal + precision, pulled[..., None])[..., 0]
    np.testing.assert_allclose(mode.x, expected, atol=2e-3)
    np.testing.assert_allclose(mode.curvature, normal, rtol=1e-2, atol=0.1)
    residual = np.einsum("bkq,bq->bk", design, expected) - data
    np.testing.assert_allclose(mode.half_squares, 0.5 * np.sum(residual**2, 1), rtol=1e-3)
    assert np.all(prior.cost(mode.x) >= 0)


def test_levenberg_marquardt_never_ends_worse_than_it_starts():
    start = tf.constant(np.random.default_rng(0).normal(0, 3, (50, 2)).astype(np.float32))

    def residual(x):
        return tf.stack([1 - x[:, 0], 10 * (x[:, 1] - x[:, 0] ** 2)], 1)    # Rosenbrock's valley
    prior = NormalPrior(tf.zeros(2), 1e-9 * tf.eye(2))
    after = levenberg_marquardt(residual, start, prior, 10, tf.constant([1e-3, 1e-3])).half_squares
    before = 0.5 * np.sum(residual(start).numpy() ** 2, 1)
    assert np.all(after <= before + 1e-4) and np.median(after) < 0.01 * np.median(before)


def test_problems_that_are_solved_together_end_where_they_end_alone():
    data = np.linspace(2, 4, 5, dtype=np.float32)
    mode, normal = (solve(data) for solve in (mode_of, normal_of))
    for i in range(5):
        np.testing.assert_allclose(mode_of(data[i:i + 1]).x[0], mode.x[i], atol=1e-4)
        np.testing.assert_allclose(normal_of(data[i:i + 1]).mean[0], normal.mean[i], atol=1e-4)


def mode_of(data):
    return levenberg_marquardt(lambda x: states(x) - data[:, None], tf.zeros([len(data), 1]), unit(1), 8,
                               tf.constant([0.02]))


def normal_of(data):
    normal = variational_gaussian(lambda x: states(x) - data[:, None], *start(len(data), 1), unit(1), 8)
    return moment_corrected(lambda x: -0.5 * (states(x[:, 0]) - data) ** 2 - 0.5 * x[:, 0] ** 2, normal,
                            unit(1),
                            slice(0, 1))


# ---- the nearest normal distribution

def test_of_a_linear_model_it_is_exact_after_one_step():
    rng = np.random.default_rng(0)
    jacobian, data = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(5, 20)).astype(np.float32)
    prior_mean, root = rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    precision = root @ root.T + np.eye(3, dtype=np.float32)
    prior = NormalPrior(tf.constant(prior_mean), tf.constant(precision))
    mean, covariance = variational_gaussian(
        lambda x: tf.matmul(x, jacobian, transpose_b=True) - data, *start(5, 3, 0.3), prior, 4)
    inverse = jacobian.T @ jacobian + precision
    expected = np.linalg.solve(inverse, (data @ jacobian + precision @ prior_mean).T).T
    np.testing.assert_allclose(mean, expected, atol=1e-3)
    np.testing.assert_allclose(covariance, np.broadcast_to(np.linalg.inv(inverse), (5, 3, 3)), atol=1e-4)


def states(x):
    """A decoder that runs into plateaus."""
    return 3 * tf.tanh(x)


def exact_mean(data):
    grid = np.linspace(-5, 5, 4001)
    log_p = -0.5 * (3 * np.tanh(grid) - data[:, None]) ** 2 - 0.5 * grid**2
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return (p @ grid) / p.sum(1)


def test_of_a_decoder_that_is_not_linear_it_finds_the_mean_of_the_posterior_and_not_the_mode():
    data = np.linspace(2, 4, 9, dtype=np.float32)
    mean, covariance = variational_gaussian(lambda x: states(x) - data[:, None], *start(9, 1), unit(1), 8)
    mode = levenberg_marquardt(lambda x: states(x) - data[:, None], start(9, 1)[0], unit(1), 20,
                               tf.constant([0.02])).x
    exact = exact_mean(data)
    far, near = (np.abs(found.numpy()[:, 0] - exact).mean() for found in (mode, mean))
    assert near < 0.15 and near < 0.7 * far
    assert np.all(covariance.numpy() > 0) and np.all(covariance.numpy() < 1.2)


def test_axes_that_data_say_nothing_of_keep_the_prior_and_others_do_not_mind():
    data = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    mean, covariance = variational_gaussian(lambda x: 2 * x[:, :1] - data, *start(6, 3), unit(3), 3)
    np.testing.assert_allclose(mean.numpy()[:, 1:], 0, atol=1e-5)
    np.testing.assert_allclose(mean.numpy()[:, 0], 0.4 * data[:, 0], atol=1e-3)
    np.testing.assert_allclose(covariance.numpy(), np.broadcast_to(np.diag([0.2, 1, 1]), (6, 3, 3)),
                               atol=1e-3)


def test_a_start_far_too_narrow_or_in_disparate_units_does_no_harm():
    scale = np.array([1.0, 1e-4], np.float32)
    data = np.array([[1.0, -2.0]], np.float32)
    prior = NormalPrior(tf.zeros(2), tf.constant(np.diag(scale**-2.0), tf.float32))
    narrow = tf.linalg.diag(tf.constant(scale[None] * np.float32([0.01, 1])))
    mean, covariance = variational_gaussian(lambda x: x / scale - data, tf.zeros([1, 2]), narrow, prior, 4)
    np.testing.assert_allclose(mean.numpy()[0] / scale, 0.5 * data[0], rtol=1e-2)
    np.testing.assert_allclose(np.diag(covariance.numpy()[0]) / scale**2, 0.5, rtol=1e-2)


# ---- its own moments along a line

def test_a_normal_posterior_stays_as_it_is_when_it_is_corrected_along_a_line():
    rng = np.random.default_rng(0)
    jacobian, data = (3 * rng.normal(size=shape).astype(np.float32) for shape in ((20, 3), (5, 20)))
    jacobian[:, 1] *= 0.1
    prior_mean, root = rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    precision = root @ root.T + np.eye(3, dtype=np.float32)
    inverse = jacobian.T @ jacobian + precision
    mean = np.linalg.solve(inverse, (data @ jacobian + precision @ prior_mean).T).T.astype(np.float32)
    covariance = np.broadcast_to(np.linalg.inv(inverse), (5, 3, 3)).astype(np.float32)

    def log_density(x):
        off = tf.matmul(x, jacobian, transpose_b=True) - data
        cost = 0.5 * tf.einsum("bq,qp,bp->b", x - prior_mean, precision, x - prior_mean)
        return -0.5 * tf.reduce_sum(off**2, 1) - cost
    normal, prior = Normal(tf.constant(mean), tf.constant(covariance)), NormalPrior(prior_mean, precision)
    for part in (slice(0, 3), slice(1, 2)):
        found = moment_corrected(log_density, normal, prior, part)
        deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        assert np.all(np.abs(found.mean - mean) < 0.05 * deviation)
        np.testing.assert_allclose(found.covariance, covariance, atol=0.1 * np.max(deviation) ** 2)


def test_along_a_line_mean_and_variance_are_those_of_the_posterior_with_all_its_peaks():
    data, grid = np.linspace(0.2, 2, 7, dtype=np.float32), np.linspace(-6, 6, 20001)

    def log_density(x, data):      # a motion and its opposite look nearly alike
        return -0.5 * (x * x + 0.3 * x - data) ** 2 / 0.3 - 0.5 * x * x

    def residual(x):
        return (x * x + 0.3 * x - data[:, None]) / np.sqrt(0.3)
    normal = variational_gaussian(residual, *start(7, 1, 0.3), unit(1), 8)
    found, spread = moment_corrected(lambda x: log_density(x[:, 0], data), normal, unit(1), slice(0, 1))
    p = np.exp(log_density(grid, data[:, None]))
    p /= p.sum(1, keepdims=True)
    exact = p @ grid
    variance = p @ grid**2 - exact**2
    before, after = (np.sqrt(np.mean((v.numpy()[:, 0] - exact) ** 2)) for v in (normal.mean, found))
    assert after < 0.15 and after < 0.3 * before
    np.testing.assert_allclose(spread.numpy()[:, 0, 0], variance, rtol=0.2)


def test_what_goes_along_with_the_line_is_moved_with_it_and_the_rest_stays():
    covariance = np.array([[[0.25, 0.1, 0], [0.1, 1.0, 0], [0, 0, 1.0]]], np.float32)
    normal = Normal(tf.zeros([1, 3]), tf.constant(covariance))
    found, spread = moment_corrected(lambda x: -0.5 * (x[:, 0] - 0.4) ** 2 / 0.25, normal, unit(3),
                                     slice(0, 1))
    np.testing.assert_allclose(found.numpy(), [[0.4, 0.16, 0]], atol=0.02)
    assert np.all(np.linalg.eigvalsh(spread.numpy()) > 0) and spread.numpy()[0, 2].tolist() == [0, 0, 1]
    np.testing.assert_allclose(spread.numpy()[0, :2, :2], covariance[0, :2, :2], atol=0.03)
