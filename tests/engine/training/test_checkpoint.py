import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import assign, load_model, save_model
from gmmhet.engine.model.settings import NETWORKS
from gmmhet.engine.training.checkpoint import load_checkpoint, save_checkpoint


def test_a_checkpoint_brings_back_variables_arrays_and_state(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64), np.array([1, 2], np.uint32)]
    save_checkpoint(path, dict(model=values, best=values[:1]), dict(epoch=3, name="Å", gain=0.1))
    variables = [tf.Variable(tf.zeros([2, 3])), tf.Variable(0, dtype=tf.int64), tf.Variable([0, 0], dtype=tf.uint32)]
    state, kept = load_checkpoint(path, dict(model=variables, best=None))
    assert state == dict(epoch=3, name="Å", gain=0.1) and list(kept) == ["best"]
    for variable, value in zip(variables, values):
        np.testing.assert_array_equal(variable.numpy(), value)
    np.testing.assert_array_equal(kept["best"][0], values[0])


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    save_checkpoint(path, dict(many=[np.array(i) for i in range(123)]), {})
    assert [int(v) for v in load_checkpoint(path, dict(many=None))[1]["many"]] == list(range(123))


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_no_other_file(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    for epoch in (1, 2):
        save_checkpoint(path, dict(a=[np.zeros(3)]), dict(epoch=epoch))
    assert load_checkpoint(path, dict(a=None))[0] == dict(epoch=2) and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("values,message", [
    ([np.zeros(3)], r"the saved model has 1 arrays, expected 2: it was made with other settings"),
    ([np.zeros(3), np.zeros(5)], r"the saved model holds an array of shape \(5,\), expected \(4,\): it was made with other settings")])
def test_arrays_of_another_model_are_refused_with_both_shapes(values, message):
    with pytest.raises(ValueError, match=message):
        assign([tf.Variable(tf.zeros(3)), tf.Variable(tf.zeros(4))], values)


def last_kernel(made):
    """The matrix of the decoder's last layer."""
    return [v for v in made.decoder.trainable_variables if len(v.shape) == 2][-1]


def model(preset="default", columns=("amplitude", "position", "width"), **settings):
    """An untrained model of 30 Gaussians, its last layer filled so that z does something."""
    rng = np.random.default_rng(0)
    neutral = Mixture(rng.normal(0, 20, (30, 3)).astype(np.float32), rng.uniform(1, 2, 30).astype(np.float32),
                      rng.uniform(4, 6, 30).astype(np.float32))
    likelihood = Agreement(FourierGrid.to_resolution(24, 5.0), "likelihood", 100.0, np.ones(13), 1.0)
    made = HeterogeneityModel(neutral, np.arange(30) < 20, dict(
        dict(NETWORKS[preset], hidden=[16, 16]), columns=list(columns), smoothness=15.0, latent_dim=3, latent_noise=0.1, seed=1,
        symmetry="c1", particles="p.star", likelihood=likelihood.state(), **settings))
    kernel = last_kernel(made)
    kernel.assign(rng.normal(0, 0.2, kernel.shape))
    return made


@pytest.mark.parametrize("preset", list(NETWORKS))
def test_a_saved_model_decodes_and_encodes_the_same_to_the_last_bit(tmp_path, preset):
    first = model(preset)
    first.feature_mean.assign_add(tf.ones_like(first.feature_mean))
    save_model(first, str(tmp_path / "model"))
    second, z = load_model(str(tmp_path)), np.random.default_rng(1).normal(size=(5, 3))
    for a, b in zip(first.decode(z), second.decode(z)):
        np.testing.assert_array_equal(a, b)
    features = np.random.default_rng(2).normal(size=(4, first.gradients)).astype(np.float32)
    for a, b in zip(first.encode(features), second.encode(features)):
        np.testing.assert_array_equal(a, b)
    assert (second.latent_dim, second.box, second.pixel_size, second.symmetry, second.particles_path) == (3, 24, 5.0, "c1", "p.star")
    np.testing.assert_array_equal(second.free, first.free)


def test_frozen_gaussians_are_neutral_to_the_last_bit_at_any_z():
    m = model()
    for found, expected in zip(m.decode(5 * np.ones((2, 3))), (m.neutral.centers, m.neutral.amplitudes, m.neutral.widths)):
        np.testing.assert_array_equal(found[:, 20:], np.broadcast_to(expected[20:], found[:, 20:].shape))


def test_the_jacobian_equals_finite_differences_and_is_not_zero():
    m, z, step = model(), np.float32([0.3, -0.2, 0.1]), 1e-2
    jacobian = m.jacobian(z)
    assert jacobian.shape == (30, 3, 3) and np.all(np.abs(jacobian[:20]).max((1, 2)) > 0) and not np.any(jacobian[20:])
    for i, direction in enumerate(np.eye(3)):
        moved = (m.decode(z + step * direction)[0] - m.decode(z - step * direction)[0])[0] / (2 * step)
        np.testing.assert_allclose(jacobian[..., i], moved, atol=0.05 * np.abs(moved).max())


@pytest.mark.parametrize("preset", list(NETWORKS))
def test_the_gradient_in_z_is_not_zero(preset):
    m, z = model(preset), tf.constant([[0.1, 0.2, -0.1]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = sum(tf.reduce_sum(part * part) for part in m.mixture(z))
    assert np.all(tape.gradient(value, z).numpy() != 0)


def test_an_untrained_decoder_starts_at_the_neutral_model_and_still_learns():
    m = model()
    kernel = last_kernel(m)
    kernel.assign(tf.zeros_like(kernel))
    z = tf.constant([[1.0, -2.0, 0.5]])
    with tf.GradientTape() as tape:
        centers = m.mixture(z)[0]
        value = tf.reduce_sum(centers * centers)
    np.testing.assert_array_equal(centers[0], m.neutral.centers)
    assert np.any(tape.gradient(value, kernel).numpy() != 0)
