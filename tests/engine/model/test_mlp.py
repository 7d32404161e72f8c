import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.model.mlp import mlp, named_weights
from gmmhet.engine.model.settings import NetworkSettings

SMALL = NetworkSettings(hidden=(8,))


def test_the_last_layer_starts_at_zero_when_asked_and_the_same_seed_gives_the_same_network():
    x = tf.random.stateless_normal([4, 6], (1, 2))
    assert not np.any(mlp(6, 3, SMALL, 1, 0.0)(x))
    a, b, c = (mlp(6, 3, SMALL, seed, 1.0)(x).numpy() for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_the_last_layer_starts_as_small_as_it_is_asked_to():
    x = tf.random.stateless_normal([4, 6], (1, 2))
    whole, tenth = (mlp(6, 3, SMALL, 1, scale)(x).numpy() for scale in (1.0, 0.1))
    np.testing.assert_allclose(tenth, 0.1 * whole, rtol=1e-4)


def test_a_network_is_what_its_matrices_say():
    network = mlp(6, 3, NetworkSettings(hidden=(8, 5)), 1, 1.0)
    x = np.random.default_rng(0).normal(size=(4, 6))
    weights = [w.numpy().astype(float) for w in network.trainable_variables]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
        x = np.maximum(x @ kernel + bias, 0)
    found = network(tf.constant(np.random.default_rng(0).normal(size=(4, 6)), tf.float32))
    np.testing.assert_allclose(found, x @ weights[-2] + weights[-1], atol=1e-5)


def test_weight_decay_is_in_the_losses_of_the_network():
    network = mlp(6, 3, NetworkSettings(hidden=(8,), l2=0.01), 1, 1.0)
    kernels = [w for w in network.trainable_variables if len(w.shape) == 2]
    squares = sum(float(tf.reduce_sum(k**2)) for k in kernels)
    assert float(sum(network.losses)) == pytest.approx(0.01 * squares, rel=1e-5)
    assert not mlp(6, 3, SMALL, 1, 1.0).losses


def test_every_variable_of_a_network_has_a_name_of_its_own():
    network = mlp(6, 3, NetworkSettings(hidden=(8, 8), dropout=0.3, batch_norm=True), 1, 1.0)
    named = named_weights(network)
    assert [id(v) for v in named.values()] == [id(v) for v in network.variables]
    assert {"layer0.kernel", "layer1.bias", "layer3.moving_variance", "layer4.kernel"} <= set(named)
