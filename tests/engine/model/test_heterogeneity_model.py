"""Encoder, decoder and deformation in one: where mixtures start, what varies, how stages stand together."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import last_layer, plain_likelihood, settings

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.latent_scale import KNOTS, LatentScale
from gmmhet.engine.model.settings import PRESETS

ALL, FIRST_20 = ("amplitude", "position", "width"), np.arange(30) < 20


def neutral_mixture(count=30):
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 20, (count, 3)).astype(np.float32)
    return Mixture(centers, rng.uniform(1, 2, count).astype(np.float32),
                   rng.uniform(4, 6, count).astype(np.float32))


def model(preset="default", parameters=ALL, free=FIRST_20, earlier=None, pixel_size=6.0, network=None,
          **others):
    """A model of 30 Gaussians without training, the decoder's last layer filled so that z does something."""
    own = dict(dict(smoothness_angst=15.0, latent_dim=3, particles="p.star"), **others)
    made = settings(parameters, plain_likelihood(24, pixel_size), preset,
                    dict(dict(hidden=(16, 16)), **(network or {})), **own)
    model = HeterogeneityModel(neutral_mixture(), free, made, earlier)
    kernel = last_layer(model.decoder.network)[0]
    kernel.assign(np.random.default_rng(1).normal(0, 0.2, kernel.shape))
    return model


def points(count, dimension, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


# ---- from latent points to mixtures

def test_frozen_gaussians_are_neutral_to_the_last_bit_at_any_z():
    m = model()
    for found, expected in zip(m.decode(5 * np.ones((2, 3))),
                               (m.neutral.centers, m.neutral.amplitudes, m.neutral.widths)):
        np.testing.assert_array_equal(found[:, 20:], np.broadcast_to(expected[20:], found[:, 20:].shape))


def test_the_jacobian_equals_finite_differences_and_is_not_zero():
    m, z, step = model(), np.float32([0.3, -0.2, 0.1]), 1e-2
    jacobian = m.jacobian(z)
    assert jacobian.shape == (30, 3, 3) and not np.any(jacobian[20:])
    assert np.all(np.abs(jacobian[:20]).max((1, 2)) > 0)
    for i, direction in enumerate(np.eye(3)):
        ahead, behind = (m.decode(z + sign * step * direction).centers[0] for sign in (1, -1))
        moved = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(jacobian[..., i], moved, atol=0.05 * np.abs(moved).max())


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_gradient_in_z_is_not_zero(preset):
    m, z = model(preset), tf.constant([[0.1, 0.2, -0.1]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = sum(tf.reduce_sum(part * part) for part in m.mixture(z))
    assert np.all(tape.gradient(value, z).numpy() != 0)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_an_untrained_decoder_starts_at_the_neutral_model_and_still_learns(preset):
    m = model(preset)
    kernel = last_layer(m.decoder.network)[0]
    kernel.assign(tf.zeros_like(kernel))
    z = tf.constant([[1.0, -2.0, 0.5]])
    with tf.GradientTape() as tape:
        centers = m.mixture(z).centers
        value = tf.reduce_sum(centers * centers)
    for found, expected in zip(m.decode(z.numpy()),
                               (m.neutral.centers, m.neutral.amplitudes, m.neutral.widths)):
        np.testing.assert_array_equal(found[0], expected)
    assert np.any(tape.gradient(value, kernel).numpy() != 0)


def test_mixtures_of_many_latent_points_are_those_of_each():
    m, z = model(), points(4, 3)
    together = m.decode(z)
    for i in range(4):
        for alone, of_all in zip(m.decode(z[i]), together):
            np.testing.assert_allclose(alone[0], of_all[i], rtol=1e-5, atol=1e-5)


def test_the_decoder_s_numbers_are_those_of_its_network_and_its_linear_part_as_far_as_the_gates_are_open():
    m, z = model(), points(4, 3)
    linear = points(3, m.deformation.n_outputs, 5)
    m.decoder.linear.assign(linear)
    by_network = m.decoder.network(z).numpy()
    np.testing.assert_allclose(m.decoder_outputs(z), by_network,
                               rtol=1e-6)      # it counts where training began with it
    m.state.linear_on.assign(1.0)
    m.state.set_gates(1, 0.25)
    gates = np.repeat([0.25, 1.0, 0.25], m.deformation.sizes)
    np.testing.assert_allclose(m.decoder_outputs(z), (by_network + z @ linear) * gates, rtol=1e-4, atol=1e-5)


# ---- what varies

@pytest.mark.parametrize("share,active", [(0.0, ["amplitude"]), (0.5, list(ALL)), (1.0, list(ALL))])
def test_a_parameter_that_is_closed_is_exactly_neutral(share, active):
    m, z = model(), points(5, 3)
    m.state.set_gates(0, share)
    centers, amplitudes, widths = m.decode(z)
    assert m.active_parameters == active
    assert np.array_equal(centers, np.broadcast_to(m.neutral.centers, centers.shape)) == (share == 0)
    assert np.array_equal(widths, np.broadcast_to(m.neutral.widths, widths.shape)) == (share == 0)
    assert np.abs(amplitudes - m.neutral.amplitudes).max() > 0.01


@pytest.mark.parametrize("parameters,leading,expected", [
    (["amplitude"], None, 0.0), (["position"], None, 1.0), (["amplitude", "position"], 0, 0.25),
    (["amplitude", "position"], 1, 1.0)])
def test_positions_count_as_far_as_their_gate_is_open_where_they_may_vary(parameters, leading, expected):
    m = model(parameters=parameters)
    if leading is not None:
        m.state.set_gates(leading, 0.25)
    assert float(m.position_gate) == expected


@pytest.mark.parametrize("parameters,network", [
    (["amplitude"], {}), (["amplitude", "position"], dict(consensus_shift=False, linear_decoder=False))],
    ids=["nothing moves", "the paper's"])
def test_only_where_positions_vary_are_consensus_and_linear_part_of_the_decoder_learned(parameters, network):
    m, whole = model(parameters=parameters, network=network), model(parameters=["amplitude", "position"])
    assert m.consensus_shift is None and m.decoder.linear is None and m.applied_consensus_shift is None
    assert whole.consensus_shift is not None and whole.decoder.linear is not None
    assert len(m.trainable) == len(whole.trainable) - 2
    assert not m.state.linear and not m.state.low_signal


def test_what_is_trained_and_what_is_saved_are_the_same_variables_each_by_one_name():
    m = model()
    named = m.named_weights()
    assert len({id(v) for v in named.values()}) == len(named)
    assert {id(v) for v in m.trainable} < {id(v) for v in named.values()}
    assert {"encoder.layer0.kernel", "encoder.mean", "encoder.axes", "decoder.linear", "state.gates",
            "consensus_shift"} <= set(named)


@pytest.mark.parametrize("pixel_size,network,levels", [
    (6.0, {}, 1), (4.0, {}, 2), (4.0, dict(resolution_levels=1), 1), (6.0, dict(resolution_levels=2), 2),
    (4.0, dict(n_axes=0), 1)])
def test_the_encoder_sees_two_resolutions_where_training_goes_finer_than_one(pixel_size, network, levels):
    m = model(pixel_size=pixel_size, network=network)
    assert m.resolution_levels == levels and m.encoder.n_gradients == levels * m.deformation.n_outputs


# ---- the consensus

def test_the_consensus_shift_counts_as_far_as_motion_does_and_only_where_training_left_it_in():
    m = model(network=dict(sharpens=False))
    shift = points(30, 4, 3)
    m.consensus_shift.assign(shift)
    m.state.set_gates(0, 0.25)
    np.testing.assert_allclose(m.applied_consensus_shift, 0.25 * shift, rtol=1e-6)
    m.state.consensus_shift_on.assign(0.0)
    assert not np.any(m.applied_consensus_shift)


def linear_motion(**others):
    """Positions alone, moved linearly, as training begins with a motion of low signal."""
    m = model(parameters=["position"], free=np.ones(30, bool), smoothness_angst=10.0, **others)
    kernel = last_layer(m.decoder.network)[0]
    kernel.assign(tf.zeros_like(kernel))
    m.decoder.linear.assign(0.1 * np.random.default_rng(7).normal(size=m.decoder.linear.shape))
    m.state.linear_on.assign(1.0)
    return m


def test_the_mixture_of_a_small_motion_is_narrower_by_what_the_motion_blurs():
    m, z = linear_motion(), points(20000, 3, 7)
    centers, _, widths = m.decode(z)
    blur = centers.var(0).sum(1) / 3
    assert 0.2 < blur.mean() < 3
    np.testing.assert_allclose(widths[0] ** 2 + blur, m.neutral.widths**2,
                               rtol=0.01)      # on average it looks neutral
    scale = [np.tile(np.linspace(-ends, ends, KNOTS), (3, 1)).astype(np.float32) for ends in (1, 3)]
    m.latent_scale = LatentScale(*scale)
    np.testing.assert_array_equal(m.decode(z[:5]).widths, widths[:5])      # whatever the scales of z are
    m.state.sharpens = False
    np.testing.assert_array_equal(m.decode(z[:1]).widths[0], m.neutral.widths)


@pytest.mark.parametrize("low_signal,pixel_size,small",
                         [(True, 6.0, True), (False, 6.0, False), (True, 4.0, False)])
def test_motion_of_low_signal_is_small_where_training_goes_no_finer_than_its_first_resolution(
        low_signal, pixel_size, small):
    m = linear_motion(pixel_size=pixel_size)
    m.state.low_signal = low_signal
    assert m.small_motion == small


# ---- scales of z

def stretched(dimension):
    """A scale on which everything is twice as far from 0."""
    knots = np.tile(np.linspace(-1, 1, KNOTS), (dimension, 1)).astype(np.float32)
    return LatentScale(knots, 2 * knots)


def test_on_another_scale_the_same_mixtures_have_other_latent_points_and_as_trained_they_have_the_old_ones():
    m, z = model(), points(4, 3)
    before = m.decode(z).centers
    m.latent_scale = stretched(3)
    np.testing.assert_allclose(m.decode(2 * z).centers, before, atol=1e-4)
    np.testing.assert_allclose(m.as_trained().decode(z).centers, before, atol=1e-4)
    np.testing.assert_allclose(m.latent_scales.rescale(z), 2 * z, rtol=1e-5)
    assert m.latent_scale is not None      # as_trained is another model


def test_scales_of_a_further_stage_stand_beside_those_of_the_earlier_ones():
    earlier = model(latent_dim=2)
    earlier.latent_scale = stretched(2)
    m, z = model(earlier=earlier), points(4, 5)
    np.testing.assert_allclose(m.latent_scales.rescale(z), z * [2, 2, 1, 1, 1], rtol=1e-4, atol=1e-5)
    whole = m.as_trained(throughout=True)
    np.testing.assert_allclose(whole.decode(z).centers, m.decode(z * np.float32([2, 2, 1, 1, 1])).centers,
                               atol=1e-4)
    np.testing.assert_array_equal(m.as_trained().decode(z).centers, m.decode(z).centers)


# ---- a further stage

@pytest.fixture
def staged():
    """Amplitudes of all in 3 dimensions, then positions of the first 15 Gaussians in 2."""
    first = model(parameters=["amplitude"], free=np.ones(30, bool))
    return model(parameters=["position"], free=np.arange(30) < 15, earlier=first, latent_dim=2, seed=2)


def test_z_is_the_earlier_stages_latent_point_and_that_of_this_stage_side_by_side(staged):
    assert (staged.latent_dim, staged.n_earlier, staged.n_stage) == (5, 3, 2)
    z = points(4, 5)
    centers, amplitudes, _ = staged.decode(z)
    np.testing.assert_allclose(amplitudes[:, 15:], staged.earlier.decode(z[:, :3]).amplitudes[:, 15:],
                               rtol=1e-6)
    np.testing.assert_allclose(centers, staged.alone().decode(z[:, 3:]).centers, atol=1e-5)
    assert np.all(np.abs(centers[:, :15] - staged.neutral.centers[:15]).max((0, 2)) > 0)


def test_the_jacobian_of_a_staged_model_has_a_column_per_dimension_of_all_stages(staged):
    jacobian = staged.jacobian(np.full(5, 0.3))
    assert jacobian.shape == (30, 3, 5) and not np.any(jacobian[..., :3])
    assert np.all(np.abs(jacobian[:15, :, 3:]).max((1, 2)) > 0)


def test_before_a_stage_each_particle_is_as_the_earlier_ones_left_it(staged):
    z = tf.constant(points(4, 3))
    staged.consensus_shift.assign(points(30, 4, 3))
    for found, expected in zip(staged.unchanged_mixture(z), staged.starting_mixture(z)):
        np.testing.assert_array_equal(found, expected)
    single = model()
    centers, amplitudes, _ = single.unchanged_mixture(tf.zeros([4, 0]))
    np.testing.assert_array_equal(centers, np.repeat(single.neutral.centers[None], 4, 0))
    assert amplitudes.shape == (4, 30) and single.starting_mixture(tf.zeros([4, 0])) is None


def test_training_a_further_stage_leaves_the_earlier_one_alone(staged):
    own = {id(v) for v in [*staged.trainable, *staged.named_weights().values()]}
    assert not own & {id(v) for v in staged.earlier.named_weights().values()}


def test_what_varies_in_any_stage_is_what_a_symmetric_particle_has_copies_of():
    part, other = np.arange(30) < 5, np.arange(30) >= 25
    first = model(parameters=["amplitude"], free=part, symmetry="c2")
    second = model(parameters=["position"], free=other, earlier=first, symmetry="c2")
    z = points(2, 6)
    mixture = second.mixture(tf.constant(z))
    unit, of_stage = (m.symmetry.asymmetric_unit(mixture) for m in (second, second.alone()))
    np.testing.assert_array_equal(unit.centers, second.decode(z).centers[:, part | other])
    assert second.copies == 2 and of_stage.centers.shape[1] == 5
