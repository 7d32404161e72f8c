"""The posterior of a small nonlinear problem, as the nearest normal distribution."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.inference.least_squares import corrected, posterior, refine


def start(count, size, width=1.0):
    return tf.zeros([count, size]), width * tf.eye(size, batch_shape=[count])


def test_of_a_linear_model_it_is_exact_after_one_step():
    rng = np.random.default_rng(0)
    jacobian, data = rng.normal(size=(20, 3)).astype(np.float32), rng.normal(size=(5, 20)).astype(np.float32)
    prior_mean, root = rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    precision = root @ root.T + np.eye(3, dtype=np.float32)
    mean, covariance = posterior(lambda x: tf.matmul(x, jacobian, transpose_b=True) - data, *start(5, 3, 0.3), tf.constant(prior_mean),
                                 tf.constant(precision), 4)
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
    mean, covariance = posterior(lambda x: states(x) - data[:, None], *start(9, 1), tf.zeros(1), tf.eye(1), 8)
    mode = refine(lambda x: states(x) - data[:, None], start(9, 1)[0], tf.zeros(1), tf.eye(1), 20, tf.constant([0.02]))[0]
    exact = exact_mean(data)
    far, near = (np.abs(found.numpy()[:, 0] - exact).mean() for found in (mode, mean))
    assert near < 0.15 and near < 0.7 * far
    assert np.all(covariance.numpy() > 0) and np.all(covariance.numpy() < 1.2)


def test_axes_that_data_say_nothing_of_keep_the_prior_and_others_do_not_mind():
    data = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
    mean, covariance = posterior(lambda x: 2 * x[:, :1] - data, *start(6, 3), tf.zeros(3), tf.eye(3), 3)
    np.testing.assert_allclose(mean.numpy()[:, 1:], 0, atol=1e-5)
    np.testing.assert_allclose(mean.numpy()[:, 0], 0.4 * data[:, 0], atol=1e-3)
    np.testing.assert_allclose(covariance.numpy(), np.broadcast_to(np.diag([0.2, 1, 1]), (6, 3, 3)), atol=1e-3)


def test_a_start_far_too_narrow_or_in_disparate_units_does_no_harm():
    scale = np.array([1.0, 1e-4], np.float32)
    data = np.array([[1.0, -2.0]], np.float32)
    precision = tf.constant(np.diag(scale**-2.0).astype(np.float32))
    narrow = tf.linalg.diag(tf.constant(scale[None] * np.float32([0.01, 1])))
    mean, covariance = posterior(lambda x: x / scale - data, tf.zeros([1, 2]), narrow, tf.zeros(2), precision, 4)
    np.testing.assert_allclose(mean.numpy()[0] / scale, 0.5 * data[0], rtol=1e-2)
    np.testing.assert_allclose(np.diag(covariance.numpy()[0]) / scale**2, 0.5, rtol=1e-2)


def test_a_normal_posterior_stays_as_it_is_when_it_is_corrected_along_a_line():
    rng = np.random.default_rng(0)
    jacobian, data = 3 * rng.normal(size=(20, 3)).astype(np.float32), 3 * rng.normal(size=(5, 20)).astype(np.float32)
    jacobian[:, 1] *= 0.1
    prior_mean, root = rng.normal(size=3).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    precision = root @ root.T + np.eye(3, dtype=np.float32)
    inverse = jacobian.T @ jacobian + precision
    mean = np.linalg.solve(inverse, (data @ jacobian + precision @ prior_mean).T).T.astype(np.float32)
    covariance = np.broadcast_to(np.linalg.inv(inverse), (5, 3, 3)).astype(np.float32)

    def log_density(x):
        return -0.5 * tf.reduce_sum((tf.matmul(x, jacobian, transpose_b=True) - data) ** 2, 1) - 0.5 * tf.einsum(
            "bq,qp,bp->b", x - prior_mean, precision, x - prior_mean)
    for part in (slice(0, 3), slice(1, 2)):
        found = [v.numpy() for v in corrected(log_density, tf.constant(mean), tf.constant(covariance), tf.constant(prior_mean),
                                              tf.constant(precision), part)]
        deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        assert np.all(np.abs(found[0] - mean) < 0.05 * deviation)
        np.testing.assert_allclose(found[1], covariance, atol=0.1 * np.max(deviation) ** 2)


def test_along_a_line_mean_and_variance_are_those_of_the_posterior_with_all_its_peaks():
    data, grid = np.linspace(0.2, 2, 7, dtype=np.float32), np.linspace(-6, 6, 20001)

    def log_density(x, data):      # a motion and its opposite look nearly alike
        return -0.5 * (x * x + 0.3 * x - data) ** 2 / 0.3 - 0.5 * x * x
    mean, covariance = posterior(lambda x: (x * x + 0.3 * x - data[:, None]) / np.sqrt(0.3), *start(7, 1, 0.3), tf.zeros(1), tf.eye(1), 8)
    found, spread = corrected(lambda x: log_density(x[:, 0], data), mean, covariance, tf.zeros(1), tf.eye(1), slice(0, 1))
    p = np.exp(log_density(grid, data[:, None]))
    p /= p.sum(1, keepdims=True)
    exact = p @ grid
    variance = p @ grid**2 - exact**2
    before, after = (np.sqrt(np.mean((v.numpy()[:, 0] - exact) ** 2)) for v in (mean, found))
    assert after < 0.15 and after < 0.3 * before
    np.testing.assert_allclose(spread.numpy()[:, 0, 0], variance, rtol=0.2)


def test_what_goes_along_with_the_line_is_moved_with_it_and_the_rest_stays():
    covariance = np.array([[[0.25, 0.1, 0], [0.1, 1.0, 0], [0, 0, 1.0]]], np.float32)
    found, spread = corrected(lambda x: -0.5 * (x[:, 0] - 0.4) ** 2 / 0.25, tf.zeros([1, 3]), tf.constant(covariance), tf.zeros(3),
                              tf.eye(3), slice(0, 1))
    np.testing.assert_allclose(found.numpy(), [[0.4, 0.16, 0]], atol=0.02)
    assert np.all(np.linalg.eigvalsh(spread.numpy()) > 0) and spread.numpy()[0, 2].tolist() == [0, 0, 1]
    np.testing.assert_allclose(spread.numpy()[0, :2, :2], covariance[0, :2, :2], atol=0.03)
