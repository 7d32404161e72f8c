"""From features to the posterior of a latent point."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import settings

from gmmhet.engine.initialization.subspace import LARGEST_SUBSPACE
from gmmhet.engine.model.encoder import LOG_STD_OFFSET, LOG_STD_RANGE, Encoder, LatentNormal, kept_axes

SIZES, EARLIER = (4, 9), 3


def encoder(network=None, levels=2, n_earlier=EARLIER, **others):
    """An encoder whose variables are all random."""
    networks = dict(dict(hidden=(8,), n_axes=20), **(network or {}))
    made = settings(["amplitude", "position"], None, network=networks, latent_dim=2, **others)
    encoder, rng = Encoder(made, SIZES, levels, n_earlier), np.random.default_rng(0)
    for variable in encoder.named_weights().values():
        variable.assign(rng.uniform(0.2, 1, variable.shape) * rng.choice([-1, 1], variable.shape))
    encoder.deviation.assign(rng.uniform(0.5, 2, encoder.deviation.shape))
    return encoder


def features(encoder, count=5):
    values = np.random.default_rng(1).normal(size=(count, encoder.n_features))
    return tf.constant(values, tf.float32)


def slow(encoder, features):
    """Outputs of the network, and the linear part, in NumPy."""
    weights = {name: variable.numpy().astype(float) for name, variable in encoder.named_weights().items()}
    inputs, linear = (features.numpy() - weights["mean"]) / weights["deviation"], 0.0
    if encoder.n_axes:
        along = inputs[:, :encoder.n_gradients] @ weights["axes"]
        inputs, linear = np.concatenate([along, inputs[:, encoder.n_gradients:]],
                                        1), along @ weights["linear"]
    hidden = np.maximum(inputs @ weights["layer0.kernel"] + weights["layer0.bias"], 0)
    return hidden @ weights["layer1.kernel"] + weights["layer1.bias"], linear


@pytest.mark.parametrize("n_axes", [20, 0])
def test_the_posterior_equals_the_slow_formula(n_axes):
    made = encoder(dict(n_axes=n_axes))
    outputs, linear = slow(made, features(made))
    found = made(features(made))
    np.testing.assert_allclose(found.mean, outputs[:, :2] + linear, rtol=1e-4, atol=1e-4)
    log_std = np.clip(outputs[:, 2:] - LOG_STD_OFFSET, *LOG_STD_RANGE)
    np.testing.assert_allclose(found.log_std, log_std, rtol=1e-4, atol=1e-4)


def test_networks_that_are_not_variational_give_a_point_and_the_noise_that_was_asked_for():
    made = encoder(dict(variational=False, n_axes=0), latent_noise=0.01)
    found = made(features(made))
    np.testing.assert_allclose(found.mean, slow(made, features(made))[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.log_std, np.full((5, 2), np.log(0.01)), rtol=1e-6)


@pytest.mark.parametrize("offset,end", [(-1e3, 0), (1e3, 1)])
def test_a_posterior_is_never_wider_or_narrower_than_its_range(offset, end):
    made = encoder()
    made.network.layers[-1].bias.assign([0, 0, offset, offset])
    np.testing.assert_array_equal(made(features(made)).log_std, np.full((5, 2), LOG_STD_RANGE[end]))


def test_a_batch_equals_its_rows_one_by_one():
    made = encoder()
    together = made(features(made))
    for i in range(5):
        alone = made(features(made)[i:i + 1])
        np.testing.assert_allclose(alone.mean[0], together.mean[i], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.log_std[0], together.log_std[i], rtol=1e-4, atol=1e-5)


def test_the_latent_point_of_earlier_stages_comes_last_in_the_features_and_is_given_back():
    made = encoder()
    assert (made.n_gradients, made.n_features, made.n_axes) == (26, 29, 4 * (4 + 5) // 2)
    np.testing.assert_array_equal(made.z_earlier(features(made)), features(made)[:, 26:])
    moved = features(made).numpy()
    moved[:, 26:] += 1
    assert np.all(made(tf.constant(moved)).mean != made(features(made)).mean)      # and the network sees it


def test_a_draw_has_the_posterior_s_mean_and_width():
    q = LatentNormal(tf.constant([[1.0, -2.0]]), tf.math.log(tf.constant([[0.5, 3.0]])))
    np.testing.assert_allclose(q.draw(tf.constant([[2.0, -1.0]])), [[2.0, -5.0]], rtol=1e-6)


@pytest.mark.parametrize("most,sizes,expected", [
    (256, (100, 300), [100, 128]), (0, (100, 300), [0, 0]), (256, (LARGEST_SUBSPACE + 1, 1), [128, 1])])
def test_the_encoder_is_given_axes_of_every_parameter(most, sizes, expected):
    assert kept_axes(most, sizes) == expected


def test_the_paper_s_networks_see_the_standardised_gradients():
    made = Encoder(settings(["amplitude", "position"], None, "paper"), SIZES, 1, 0)
    assert made.axes is None and made.linear is None and made.network.input_shape[1] == sum(SIZES)
    with_axes = Encoder(settings(["amplitude", "position"], None), SIZES, 1, EARLIER)
    assert with_axes.network.input_shape[1] == sum(SIZES) + EARLIER and with_axes.axes.shape == (13, 13)
