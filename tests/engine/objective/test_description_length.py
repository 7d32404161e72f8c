"""What it takes to describe a decoder: noise comes to nothing, and what moves together takes little."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import ALL, bodies, last_layer, mixture, outputs, plain_likelihood, settings

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.initialization.subspace import LARGEST_SUBSPACE
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.rigid_modes import RigidModes, rigid_modes
from gmmhet.engine.objective.description_length import (
    LEAST_VARIANCE,
    DescriptionLength,
    ard_cost,
    grouped_ard_cost,
)


def description(parameters, smoothness_angst, body=None, neutral=None, **others):
    """DescriptionLength of a model of a random mixture, or of this one."""
    neutral = mixture() if neutral is None else neutral
    body = np.ones(len(neutral), bool) if body is None else body
    own = dict(dict(smoothness_angst=smoothness_angst, latent_dim=3), **others)
    made = settings(parameters, plain_likelihood(24, 6.0), network=dict(hidden=(16, 16), amplitude_share=1.0),
                    **own)
    model = HeterogeneityModel(neutral, body, made)
    return DescriptionLength(model), model


def thirty():
    rng = np.random.default_rng(0)
    return Mixture(rng.normal(0, 20, (30, 3)).astype(np.float32), np.ones(30, np.float32),
                   np.full(30, 5, np.float32))


# ---- the cost of one number, and of groups

def shared(squares, members):
    """What outputs take whose variance groups share, by a search for it: squares [M, C], members [M, K]."""
    variance = np.geomspace(1e-6, 1e6, 100001)
    means = members.T @ squares.mean(1) / members.sum(0)
    least = [np.min(3 * x / variance + np.log1p(variance)) - np.log1p(0.5 * LEAST_VARIANCE) for x in means]
    return squares.shape[1] * sum(size * cost for size, cost in zip(members.sum(0), least))


def test_the_cost_is_the_least_over_all_variances_of_the_prior():
    x = np.array([0.3, 1.0, 7.0, 300.0])
    expected = [shared(np.array([[value]]), np.ones((1, 1))) for value in x]
    np.testing.assert_allclose(ard_cost(tf.constant(x, tf.float32)), expected, rtol=1e-3)


def test_noise_costs_more_than_it_is_worth_and_what_is_surely_there_hardly_more_when_it_grows():
    x = tf.constant([0.01, 0.2, 0.9, 2.5])
    assert np.all(ard_cost(x).numpy() > x.numpy())       # half of x is what a fit to noise gains
    with tf.GradientTape() as tape:
        x = tf.Variable(100.0)
        cost = ard_cost(x)
    assert 0 < float(tape.gradient(cost, x)) < 0.011
    assert abs(float(ard_cost(tf.zeros([])))) < 1e-6


def test_what_moves_together_takes_less_than_the_same_here_and_there():
    members = np.repeat(np.eye(2), 5, 0).astype(np.float32)
    together, spread = np.repeat([[4.0], [0.0]], 5, 0), np.tile([[4.0], [0.0]], (5, 1))
    squares = [np.repeat(x, 3, 1) for x in (together, spread)]
    cost = [float(grouped_ard_cost(tf.constant(x, tf.float32), members)) for x in squares]
    assert cost[0] < 0.8 * cost[1]
    np.testing.assert_allclose(cost, [shared(x, members) for x in squares], rtol=2e-3)


# ---- what counts as one

@pytest.mark.parametrize("smoothness,rigid", [(0.0, False), (6.0, False), (6.0, True)])
def test_each_gaussian_that_may_move_is_in_one_neighbourhood_and_so_are_its_anchors(smoothness, rigid):
    of_bodies = np.repeat([0, 1, 2], 20)
    made, model = description(ALL, smoothness, of_bodies, rigid=rigid)
    members, anchors = made.neighbourhoods, made.anchor_membership
    assert np.array_equal(members.sum(1), of_bodies > 0) and set(np.unique(members)) == {0.0, 1.0}
    assert len(anchors) == model.deformation.weights["position"].shape[1]
    np.testing.assert_allclose(anchors.sum(1), 1, rtol=1e-5)
    if rigid:
        assert np.array_equal(anchors, np.eye(2)) and np.array_equal(members.sum(0), [20, 20])
    elif smoothness:
        assert 1 < members.shape[1] < anchors.shape[0] < 60


# ---- parts that are there or not

def test_amplitudes_of_two_values_do_not_scatter_and_others_do_by_their_distance_from_the_nearer_level():
    made, model = description(("amplitude", "position"), 15.0)
    count, share = model.deformation.sizes[0], made._neutral_share
    values = np.array([0.0, 0.0, 1.0, 1.0])[:, None] * np.ones((1, count))
    values[:, 1] = 0.3                             # one value
    values[:, 2] = [-1.0, -0.6, 0.5, 0.9]          # two and 0.2 about each
    # outputs whose amplitudes lie so far from neutral, in the outputs' units there
    amplitude = share + values * share * (1 - share) * 0.4
    u = np.log(amplitude / (1 - amplitude)) - np.log(share / (1 - share))
    found = made.two_level_scatter(tf.constant(u, tf.float32)).numpy()
    assert found.shape == (count,) and found[2] == pytest.approx((0.2 * 0.4) ** 2, rel=1e-3)
    assert np.all(np.delete(found, 2) < 1e-9)


def test_scatter_counts_what_is_seen_and_not_how_far_beyond_nothing_an_output_goes():
    made, model = description(("amplitude",), 15.0)
    u = np.zeros((4, model.deformation.n_outputs), np.float32)
    u[:2] = [[-20.0], [-40.0]]                     # both are no amplitude at all
    assert np.all(made.two_level_scatter(tf.constant(u)).numpy() < 1e-9)


# ---- the consensus shift

def test_a_consensus_shift_is_held_where_nothing_moves_and_hardly_where_much_does():
    neutral, far = mixture(), np.arange(60) < 20
    made, model = description(("position",), 0.0, far)
    d = model.deformation
    u = outputs(d, size=2.0)
    motion = np.mean(np.sum((d.apply(u).centers.numpy() - neutral.centers) ** 2, 2), 0)
    shift = np.random.default_rng(3).normal(0, 0.1, (60, 4)).astype(np.float32)
    angst = shift * np.stack([*np.full((3, 60), 15.0), 0.6 * neutral.widths], 1)
    expected = np.sum(angst**2, 1) / (0.25**2 * motion + 0.05**2)

    def cost(shift, u=u):
        return float(made.consensus_shift_cost(tf.constant(shift, tf.float32), u))
    assert cost(shift) == pytest.approx(expected.sum(), rel=1e-4)
    one = np.eye(60, dtype=np.float32)[:, :, None] * np.float32([0.01, 0, 0, 0])
    held = np.array([cost(part) for part in one])
    assert held[far].max() < 0.01 * held[~far].min()
    np.testing.assert_allclose(held[~far], 0.15**2 / 0.05**2, rtol=1e-4)
    # and changes of width in Å, so that a broad Gaussian counts for what it does
    wider = np.float32([0, 0, 0, 1]) * np.ones((60, 1), np.float32)
    assert cost(wider,
                tf.zeros([1, d.n_outputs])) == pytest.approx(np.sum((0.6 * neutral.widths / 0.05) ** 2),
                                                             rel=1e-4)


def test_a_motion_of_everything_does_not_loosen_the_consensus_where_rigid_motion_is_taken_out():
    made, model = description(("position",), 0.0)
    everything = tf.fill([3, model.deformation.n_outputs], 0.5)
    shift = tf.constant(np.random.default_rng(3).normal(0, 0.1, (60, 4)), tf.float32)
    loose = float(made.consensus_shift_cost(shift, everything))
    model.state.removes_rigid_motion = True
    still = float(made.consensus_shift_cost(shift, tf.zeros_like(everything)))
    assert loose < 0.1 * still
    assert float(made.consensus_shift_cost(shift, everything)) == pytest.approx(still, rel=1e-3)


# ---- all together

def test_what_the_outputs_take_to_describe_grows_with_what_they_say_and_with_what_is_known_of_them():
    made, model = description(("amplitude", "position"), 15.0, neutral=thirty())
    points = tf.constant(np.random.default_rng(6).normal(size=(50, 3)), tf.float32)
    assert float(made(points, 1000)) == 0.0
    kernel = last_layer(model.decoder.network)[0]
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))
    model.encoder.deviation.assign(2 * tf.ones_like(model.encoder.deviation))
    said, first = model.decoder_outputs(points).numpy(), model.deformation.sizes[0]
    square = np.mean(said**2, 0)
    between = 3 * np.sum(np.log1p(1000 * 4 * made.two_level_scatter(said[:, :first]).numpy()))
    assert between > 0
    amplitudes = 0.5 * (np.sum(np.log1p(4000 * square[:first])) + between)
    positions = 0.5 * shared(4000 * square[first:].reshape(-1, 3), made.anchor_membership)
    assert float(made(points, 1000)) == pytest.approx(amplitudes + positions, rel=1e-5)
    model.state.set_gates(0, 0.0)      # what is closed says nothing
    assert float(made(points, 1000)) == pytest.approx(amplitudes, rel=1e-5)
    model.state.set_gates(1, 0.0)
    assert float(made(points, 1000)) == pytest.approx(positions, rel=1e-5)
    model.consensus_shift.assign(np.random.default_rng(4).normal(size=(30, 4)))
    held = 0.5 * float(made.consensus_shift_cost(model.consensus_shift, model.decoder_outputs(points)))
    assert held > 0 and float(made(points, 1000)) == pytest.approx(positions + held, rel=1e-5)


def test_what_parts_do_as_a_whole_is_described_before_what_is_left():
    """A turn of the whole takes six numbers, whatever it is of; without the parts, three of every anchor."""
    made, model = description(["position"], 10.0, neutral=thirty())
    deformation, points = model.deformation, tf.constant(np.random.default_rng(6).normal(size=(400, 3)),
                                                         tf.float32)
    model.encoder.deviation.assign(tf.ones_like(model.encoder.deviation))
    (grouping,) = deformation.anchor_groups(LARGEST_SUBSPACE)
    np.testing.assert_array_equal(grouping.toarray(), np.eye(deformation.n_outputs))
    weights = deformation.weights["position"].numpy().astype(float)
    found = rigid_modes(np.eye(deformation.n_outputs), weights, model.neutral.centers,
                        deformation.rigid_parts.members)
    modes = RigidModes(found.modes.astype(np.float32), found.dual_modes.astype(np.float32), found.owner)
    model.state.linear_on.assign(1.0)
    cost = []
    for rigid in (True, False):
        u = modes.modes[:, 2] if rigid else np.random.default_rng(1).normal(size=deformation.n_outputs)
        model.decoder.linear.assign(np.pad(0.3 * u[None] / np.linalg.norm(u), ((0, 2), (0, 0))))
        made.rigid_modes = None
        cost.append([float(made(points, 1000))])
        made.rigid_modes = modes
        cost[-1].append(float(made(points, 1000)))
    square = float(np.mean((np.sqrt(1.1) * 0.3 * points.numpy()[:, 0]) ** 2))
    assert cost[0][1] == pytest.approx(3 * float(ard_cost(tf.constant(1000 * square / 6))), rel=0.02)
    assert cost[0][1] < 0.4 * cost[0][0] and cost[1][1] == pytest.approx(cost[1][0], rel=0.3)


def test_bodies_are_described_by_their_six_numbers_each():
    neutral, number, _ = bodies()
    made, model = description(["position"], 15.0, number, neutral, rigid=True)
    kernel = last_layer(model.decoder.network)[0]
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))
    points = tf.constant(np.random.default_rng(6).normal(size=(50, 3)), tf.float32)
    square = np.mean(model.decoder_outputs(points).numpy() ** 2, 0).reshape(2, 6)
    assert float(made(points, 1000)) == pytest.approx(0.5 * shared(1000 * square, np.eye(2)), rel=1e-3)
