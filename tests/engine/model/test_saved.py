"""Saved models: the same again to the last bit, those of format 1 too, and nothing that does not fit."""
import json
import re

import format_1
import numpy as np
import pytest
import tensorflow as tf
from untrained import last_layer, plain_likelihood, settings

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.latent_scale import KNOTS, LatentScale
from gmmhet.engine.model.saved import (
    FORMAT,
    SETTINGS,
    WEIGHTS,
    SavedModelError,
    assign,
    load_model,
    load_weights,
    save_model,
    values_of,
)
from gmmhet.engine.model.settings import PRESETS
from gmmhet.engine.rundir import MODEL

with open(format_1.__file__[:-3] + ".json", encoding="utf-8") as file:
    ANSWERS = json.load(file)
FIRST_20 = np.arange(30) < 20


def model(preset="default", parameters=("amplitude", "position", "width"), body=FIRST_20, earlier=None,
          **others):
    """A model of 30 Gaussians without training, whose last layers are filled so that all inputs matter."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 20, (30, 3)).astype(np.float32)
    neutral = Mixture(centers, rng.uniform(1, 2, 30).astype(np.float32),
                      rng.uniform(4, 6, 30).astype(np.float32))
    own = dict(dict(smoothness_angst=15.0, latent_dim=3, particles="p.star"), **others)
    made = settings(parameters, plain_likelihood(24, 5.0), preset, dict(hidden=(16, 16)), **own)
    model = HeterogeneityModel(neutral, body, made, earlier)
    for network in (model.encoder.network, model.decoder.network):
        kernel = last_layer(network)[0]
        kernel.assign(rng.normal(0, 0.2, kernel.shape))
    model.encoder.mean.assign_add(tf.ones_like(model.encoder.mean))
    return model


def points(count, dimension):
    return np.random.default_rng(1).normal(size=(count, dimension)).astype(np.float32)


def saved(model, folder):
    """What is read of a run's folder into which a model was saved."""
    save_model(model, str(folder / MODEL))
    return load_model(str(folder))


def assert_same(first, second):
    z, features = points(5, first.latent_dim), points(4, first.encoder.n_features)
    for a, b in zip([*first.decode(z), *first.encode(features)],
                    [*second.decode(z), *second.encode(features)]):
        np.testing.assert_array_equal(a, b)


# ---- the same again

@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_saved_model_decodes_and_encodes_the_same_to_the_last_bit(tmp_path, preset):
    first = model(preset)
    second = saved(first, tmp_path)
    assert_same(first, second)
    assert second.settings == first.settings and (second.box, second.pixel_size) == (24, 5.0)
    np.testing.assert_array_equal(second.free, first.free)


def test_what_training_found_out_is_saved_with_the_weights(tmp_path):
    first = model()
    first.state.set_gates(0, 0.25)
    first.state.linear_on.assign(1.0)
    first.state.consensus_shift_on.assign(0.0)
    first.state.low_signal, first.state.sharpens, first.state.removes_rigid_motion = True, False, True
    second = saved(first, tmp_path).state
    assert second.to_json() == first.state.to_json() == dict(low_signal=True, sharpens=False,
                                                             removes_rigid_motion=True)
    np.testing.assert_array_equal(second.gates, [1, 0.25, 0.25])
    assert second.linear and float(second.consensus_shift_on) == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_closed_parameter_is_saved_so(tmp_path, share):
    first, z = model(parameters=["amplitude", "position"]), points(5, 3)
    first.state.set_gates(0, share)
    second = saved(first, tmp_path)
    assert second.active_parameters == first.active_parameters == ["amplitude", "position"][:1 + int(share)]
    centers = second.decode(z).centers
    assert np.array_equal(centers, np.broadcast_to(first.neutral.centers, centers.shape)) == (share == 0)


def test_bodies_symmetry_and_scales_of_z_are_saved(tmp_path):
    first = model(parameters=["position"], body=np.repeat([0, 1, 2], 10), rigid=True, symmetry="c2")
    knots = np.tile(np.linspace(-2, 2, KNOTS), (3, 1)).astype(np.float32)
    first.latent_scale = LatentScale(knots, knots + 0.1 * knots**3)
    second = saved(first, tmp_path)
    assert_same(first, second)
    np.testing.assert_array_equal(second.body, first.body)
    assert second.deformation.sizes == (12,) and second.copies == 2
    np.testing.assert_array_equal(second.latent_scale.target, first.latent_scale.target)
    first.latent_scale = None
    assert saved(first, tmp_path).latent_scale is None      # written again without


def test_a_saved_staged_model_decodes_and_encodes_the_same_to_the_last_bit(tmp_path):
    first = model(parameters=["amplitude"], body=np.ones(30, bool))
    staged = model(parameters=["position"], body=np.arange(30) < 15, earlier=first, latent_dim=2, seed=2)
    again = saved(staged, tmp_path)
    assert_same(staged, again)
    assert_same(first, again.earlier)
    features = points(3, staged.encoder.n_features)
    np.testing.assert_array_equal(again.encoder.z_earlier(features), features[:, -3:])


def test_weights_are_taken_into_another_model_of_the_same_shape(tmp_path):
    first, second = model(), model(seed=5)
    second.decoder.network.layers[0].bias.assign(np.ones(16))
    save_model(first, str(tmp_path))
    load_weights(second, str(tmp_path))
    assert_same(first, second)


# ---- models of format 1

@pytest.mark.parametrize("name", list(format_1.CASES))
def test_a_model_of_format_1_gives_what_it_gave_to_the_version_that_wrote_it(tmp_path, name):
    """Of both presets, two resolutions, stages, bodies, other scales of z, and of the first versions."""
    format_1.write(str(tmp_path), name)
    found, (z, features) = load_model(str(tmp_path)), format_1.asked(name)
    decoded, encoded = found.decode(z), found.encode(features)
    for part, expected in ANSWERS[name].items():
        values = getattr(decoded if part in decoded._fields else encoded, part)
        np.testing.assert_allclose(values, expected, atol=1e-3, err_msg=part)


def test_a_model_of_format_1_keeps_what_training_had_found_out(tmp_path):
    format_1.write(str(tmp_path), "default")
    found = load_model(str(tmp_path))
    assert found.settings.network == PRESETS["default"].network
    assert found.state.to_json() == dict(low_signal=True, sharpens=True, removes_rigid_motion=True)
    assert found.state.linear and found.small_motion
    np.testing.assert_array_equal(found.state.gates, [0.25, 1.0])
    format_1.write(str(tmp_path / "paper"), "paper")
    paper = load_model(str(tmp_path / "paper"))
    assert paper.settings.network == PRESETS["paper"].network and not paper.state.linear
    format_1.write(str(tmp_path / "first"), "first")
    assert not load_model(str(tmp_path / "first")).settings.network.averages_weights


def test_a_model_of_format_1_is_written_in_the_present_one(tmp_path):
    format_1.write(str(tmp_path / "old"), "staged")
    format_1.write(str(tmp_path / "paced"), "paced")
    for name in ("old", "paced"):
        found = load_model(str(tmp_path / name))
        again = saved(found, tmp_path / (name + "_again"))
        assert_same(found, again)
        with open(tmp_path / (name + "_again") / MODEL / SETTINGS, encoding="utf-8") as file:
            assert json.load(file)["format"] == FORMAT


def test_weights_of_format_1_that_do_not_fit_are_refused(tmp_path):
    format_1.write(str(tmp_path), "default")
    path = tmp_path / MODEL / WEIGHTS
    with np.load(path) as data:
        arrays = list(data.values())
    np.savez(path, *arrays[:-1])
    with pytest.raises(SavedModelError,
                       match="the saved model has 21 arrays, expected 22: it was made with other settings"):
        load_model(str(tmp_path))
    np.savez(path, arrays[0][:-1], *arrays[1:])
    with pytest.raises(SavedModelError,
                       match=r"holds array 0 of shape \(31, 256\), expected \(32, 256\): it was made with"):
        load_model(str(tmp_path))


# ---- what does not fit

def test_a_model_of_a_newer_format_is_refused_with_what_to_do(tmp_path):
    save_model(model(), str(tmp_path / MODEL))
    path = tmp_path / MODEL / SETTINGS
    values = json.loads(path.read_text())
    path.write_text(json.dumps(dict(values, format=FORMAT + 1)))
    says = "is of format %d, of a newer version of gmmhet than this one (which reads up to %d): open it"
    with pytest.raises(SavedModelError, match=re.escape(says % (FORMAT + 1, FORMAT))):
        load_model(str(tmp_path))


def test_weights_of_another_name_are_refused(tmp_path):
    save_model(model(), str(tmp_path / MODEL))
    path = tmp_path / MODEL / WEIGHTS
    with np.load(path) as data:
        arrays = dict(data)
    arrays["decoder.straight"] = arrays.pop("decoder.linear")
    np.savez(path, **arrays)
    with pytest.raises(SavedModelError,
                       match=r"lacks the array decoder\.linear: it was made with other settings"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("values,message", [
    (dict(a=np.zeros(3)), "the saved model has 1 arrays, expected 2: it was made with other settings"),
    (dict(a=np.zeros(3), c=np.zeros(4)),
     "the saved model lacks the array b: it was made with other settings"),
    (dict(a=np.zeros(3), b=np.zeros(5)),
     r"holds b of shape \(5,\), expected \(4,\): it was made with other settings")])
def test_arrays_of_another_model_are_refused_with_both_names_or_shapes(values, message):
    with pytest.raises(SavedModelError, match=message):
        assign(dict(a=tf.Variable(tf.zeros(3)), b=tf.Variable(tf.zeros(4))), values)


def test_variables_take_the_values_of_their_names_and_give_them_back():
    variables = dict(a=tf.Variable([1.0, 2.0]), b=tf.Variable(3, dtype=tf.int64))
    assign(variables, dict(b=np.array(7), a=np.array([5.0, 6.0])))
    found = values_of(variables)
    np.testing.assert_array_equal(found["a"], [5, 6])
    assert found["b"] == 7 and list(found) == ["a", "b"]
