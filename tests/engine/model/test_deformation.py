import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.model.deformation import Deformation, anchor_weights
from gmmhet.engine.model.mlp import mlp
from gmmhet.engine.model.rigid_bodies import brought_to_rest

ALL = ("amplitude", "position", "width")


def mixture(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return Mixture(rng.normal(0, 20, (count, 3)).astype(np.float32), rng.uniform(0.5, 2, count).astype(np.float32),
                   rng.uniform(3, 6, count).astype(np.float32))


def outputs(deformation, batch=5, size=1.0, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(0, size, (batch, deformation.outputs)).astype(np.float32))


def rows(parts, neutral):
    """centers, amplitudes, widths with a row per particle in all three."""
    centers, amplitudes, widths = (part.numpy() for part in parts)
    return centers, amplitudes, np.broadcast_to(widths, amplitudes.shape)


@pytest.mark.parametrize("columns", [ALL, ("amplitude",), ("position",), ("width",), ("position", "width")], ids="+".join)
@pytest.mark.parametrize("smoothness", [0.0, 15.0])
def test_output_zero_is_exactly_neutral(columns, smoothness):
    neutral = mixture()
    d = Deformation(neutral, np.ones(60, bool), columns, smoothness)
    for found, expected in zip(rows(d.apply(tf.zeros([3, d.outputs])), neutral), (neutral.centers, neutral.amplitudes, neutral.widths)):
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


@pytest.mark.parametrize("smoothness", [0.0, 15.0])
def test_frozen_gaussians_are_neutral_to_the_last_bit_whatever_the_output(smoothness):
    neutral, free = mixture(), np.arange(60) % 3 == 0
    d = Deformation(neutral, free, ALL, smoothness)
    for found, expected in zip(rows(d.apply(outputs(d, size=3)), neutral), (neutral.centers, neutral.amplitudes, neutral.widths)):
        np.testing.assert_array_equal(found[:, ~free], np.broadcast_to(expected[~free], found[:, ~free].shape))
        assert np.all(found[:, free] != expected[free])


@pytest.mark.parametrize("column", ALL)
def test_columns_that_may_not_vary_are_neutral_to_the_last_bit(column):
    neutral = mixture()
    d = Deformation(neutral, np.ones(60, bool), (column,), 15.0)
    for name, found, expected in zip(("position", "amplitude", "width"), rows(d.apply(outputs(d)), neutral),
                                     (neutral.centers, neutral.amplitudes, neutral.widths)):
        assert np.array_equal(found, np.broadcast_to(expected, found.shape)) == (name != column)


def test_huge_outputs_stay_within_the_bounds_and_finite():
    neutral = mixture()
    d = Deformation(neutral, np.ones(60, bool), ALL, 15.0)
    for size in (10.0, 1e4):
        centers, amplitudes, widths = rows(d.apply(outputs(d, 20, size)), neutral)
        assert np.abs(centers - neutral.centers).max() <= d.reach_angst * 1.0001
        ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))
        assert amplitudes.min() >= -1e-6 and np.all(amplitudes <= ceiling * 1.0001)
        ratio = widths / neutral.widths
        assert ratio.min() >= np.exp(-0.5) * 0.9999 and ratio.max() <= np.exp(0.5) * 1.0001


def test_gradients_are_finite_at_zero_and_at_huge_outputs_and_not_zero_at_zero():
    d = Deformation(mixture(), np.ones(60, bool), ALL, 15.0)
    for u in (tf.zeros([2, d.outputs]), outputs(d, 2, 1e4)):
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = sum(tf.reduce_sum(part * part) for part in d.apply(u))
        assert np.all(np.isfinite(tape.gradient(value, u)))
    with tf.GradientTape() as tape:
        u = tf.zeros([1, d.outputs])
        tape.watch(u)
        value = sum(tf.reduce_sum(part * part) for part in d.apply(u))
    gradient = tape.gradient(value, u).numpy()[0]
    assert len(gradient) == 5 * d.anchors and np.all(gradient != 0)


def test_a_gaussian_of_no_amplitude_can_grow():
    neutral = mixture()
    neutral.amplitudes[0] = 0
    d = Deformation(neutral, np.ones(60, bool), ("amplitude",), 0.0)
    assert d.apply(20 * tf.ones([1, d.outputs]))[1].numpy()[0, 0] > 0.9 * np.percentile(neutral.amplitudes, 95)


def test_neighbours_move_together_and_distant_gaussians_do_not():
    neutral = mixture(300)
    d = Deformation(neutral, np.ones(300, bool), ("position",), 12.0)
    moves = rows(d.apply(outputs(d, 200)), neutral)[0] - neutral.centers
    flat = moves.transpose(1, 0, 2).reshape(300, -1)
    correlation = np.corrcoef(flat)
    distance = np.linalg.norm(neutral.centers[:, None] - neutral.centers[None], axis=-1)
    near, far = correlation[(distance > 0) & (distance < 4)], correlation[distance > 50]
    assert near.mean() > 0.9 and abs(far.mean()) < 0.1


def test_smoothness_zero_moves_every_gaussian_by_itself():
    d = Deformation(mixture(), np.ones(60, bool), ("position",), 0.0)
    u = np.zeros((1, d.outputs), np.float32)
    u[0, :3] = 0.1
    moved = np.abs(d.apply(tf.constant(u))[0].numpy()[0] - mixture().centers).max(1) > 0
    assert d.anchors == 60 and moved.sum() == 1


def test_amplitudes_have_anchors_of_their_own():
    d = Deformation(mixture(300), np.ones(300, bool), ("amplitude", "position"), 30.0, amplitude_share=0.5)
    finer, coarser = (weights.shape[1] for weights in (d.weights["amplitude"], d.weights["position"]))
    assert finer > 2 * coarser and d.sizes == (finer, 3 * coarser) and d.anchors == finer
    u = np.zeros((1, d.outputs), np.float32)
    u[0, :finer] = 1.0
    centers, amplitudes, _ = d.apply(tf.constant(u))
    assert np.all(amplitudes.numpy()[0] > mixture(300).amplitudes) and np.all(centers.numpy()[0] == mixture(300).centers)


def test_anchor_weights_sum_to_one_and_are_fewer_for_a_longer_range():
    centers = mixture(200).centers
    counts = []
    for smoothness in (8.0, 16.0, 40.0):
        weights = anchor_weights(centers, smoothness)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
        assert weights.min() >= 0
        counts.append(weights.shape[1])
    assert 200 >= counts[0] > counts[1] > counts[2] >= 1


@pytest.mark.parametrize("smoothness,rigid", [(0.0, False), (6.0, False), (6.0, True)])
def test_each_gaussian_that_may_move_is_in_one_neighbourhood_and_so_are_its_anchors(smoothness, rigid):
    bodies = np.repeat([0, 1, 2], 20)
    d = Deformation(mixture(), bodies, ALL, smoothness, rigid=rigid)
    members, motions = d.neighbourhoods, d.motions
    assert np.array_equal(members.sum(1), bodies > 0) and set(np.unique(members)) == {0.0, 1.0}
    assert len(motions) == d.weights["position"].shape[1]
    np.testing.assert_allclose(motions.sum(1), 1, rtol=1e-5)
    if rigid:
        assert np.array_equal(motions, np.eye(2)) and np.array_equal(members.sum(0), [20, 20])
    elif smoothness:
        assert 1 < members.shape[1] < motions.shape[0] < 60


def test_outputs_of_neighbouring_anchors_are_taken_together_where_there_are_more_than_are_wanted():
    neutral = mixture(200)
    deformation = Deformation(neutral, np.ones(200, bool), ("amplitude", "position"), 0.0)
    amplitudes, positions = (matrix.toarray() for matrix in deformation.merged(90))
    assert amplitudes.shape == (200, 90) and positions.shape == (600, 90)
    for matrix in (amplitudes, positions):
        np.testing.assert_array_equal(matrix.sum(1), 1)
        assert matrix.sum(0).min() >= 1
    np.testing.assert_array_equal(positions, np.kron(positions[::3, ::3], np.eye(3)))
    member = positions[::3, ::3]
    middle = member.T @ neutral.centers / member.sum(0)[:, None]
    nearest = np.argmin(np.linalg.norm(neutral.centers[:, None] - middle, axis=-1), axis=1)
    assert np.mean(nearest == member.argmax(1)) > 0.95
    for matrix, size in zip(deformation.merged(600), (200, 600)):
        np.testing.assert_array_equal(matrix.toarray(), np.eye(size))
    bodies = Deformation(neutral, 1 + np.arange(200) % 20, ("position",), 0.0, rigid=True)
    np.testing.assert_array_equal(bodies.merged(60)[0].toarray(), np.eye(120))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_free_gaussians_are_no_trouble(count):
    neutral, free = mixture(), np.arange(60) < count
    d = Deformation(neutral, free, ALL, 30.0)
    assert np.all(d.apply(outputs(d))[0].numpy()[:, free] != neutral.centers[free])


def test_the_last_layer_starts_at_zero_when_asked_and_the_same_seed_gives_the_same_network():
    x = tf.random.stateless_normal([4, 6], (1, 2))
    assert not np.any(mlp(6, [8], 3, seed=1, zero_last=True)(x))
    a, b, c = (mlp(6, [8], 3, seed=s)(x).numpy() for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_weight_decay_is_in_the_losses_of_the_network():
    network = mlp(6, [8], 3, seed=1, l2=0.01)
    kernels = [w for w in network.trainable_variables if len(w.shape) == 2]
    assert float(sum(network.losses)) == pytest.approx(0.01 * sum(float(tf.reduce_sum(k**2)) for k in kernels), rel=1e-5)
    assert not mlp(6, [8], 3, seed=1).losses


# ---- what moves as a whole is brought to rest

def test_a_rigid_motion_of_everything_is_taken_out_and_a_domain_s_own_motion_is_kept():
    rng = np.random.default_rng(0)
    centers, mass = rng.normal(0, 40, (500, 3)), np.ones(500, np.float32)
    domain = centers[:, 0] > 20
    moved = np.zeros((500, 3))
    moved[domain] = Rotation.from_rotvec([0, 0.4, 0]).apply(centers[domain] - [20, 0, 0]) + [20, 0, 0] - centers[domain]
    whole = Rotation.from_rotvec([0.05, -0.03, 0.04])
    cases = np.stack([whole.apply(centers) + [2, -1, 3] - centers, moved, whole.apply(centers + moved) + [2, -1, 3] - centers])
    left = brought_to_rest(tf.constant(centers, tf.float32), tf.constant(cases, tf.float32), mass).numpy()
    np.testing.assert_allclose(left[0], 0, atol=1e-3)
    for kept in left[1:]:
        np.testing.assert_allclose(kept, moved, atol=0.1)


def test_a_deformation_at_rest_cannot_move_everything_and_stays_exactly_neutral_at_output_zero():
    neutral = mixture()
    deformation = Deformation(neutral, np.ones(60, bool), ("position",), 15.0, at_rest=True)
    np.testing.assert_array_equal(rows(deformation.apply(tf.zeros([1, deformation.outputs])), neutral)[0][0], neutral.centers)
    shifted = rows(deformation.apply(tf.fill([1, deformation.outputs], 0.5)), neutral)[0][0]
    np.testing.assert_allclose(shifted, neutral.centers, atol=1e-3)


# ---- parts that are there or not

def test_amplitudes_that_have_two_values_do_not_scatter_and_others_do_by_their_distance_from_the_nearer_level():
    d = Deformation(mixture(), np.ones(60, bool), ("amplitude", "position"), 15.0)
    count, share = d.sizes[0], d._neutral_share
    values = np.array([0.0, 0.0, 1.0, 1.0])[:, None] * np.ones((1, count))
    values[:, 1] = 0.3                             # one value
    values[:, 2] = [-1.0, -0.6, 0.5, 0.9]          # two and 0.2 about each
    # outputs whose amplitudes lie so far from neutral, in the outputs' units there
    amplitude = share + values * share * (1 - share) * 0.4
    u = np.log(amplitude / (1 - amplitude)) - np.log(share / (1 - share))
    found = d.scatter(tf.constant(np.concatenate([u, np.zeros((4, d.sizes[1]))], 1), tf.float32)).numpy()
    assert found.shape == (count,) and found[2] == pytest.approx((0.2 * 0.4) ** 2, rel=1e-3)
    assert np.all(np.delete(found, 2) < 1e-9)


def test_scatter_counts_what_is_seen_and_not_how_far_beyond_nothing_an_output_goes():
    d = Deformation(mixture(), np.ones(60, bool), ("amplitude",), 15.0)
    u = np.zeros((4, d.outputs), np.float32)
    u[:2] = [[-20.0], [-40.0]]                     # both are no amplitude at all
    assert np.all(d.scatter(tf.constant(u)).numpy() < 1e-9)


# ---- rigid bodies

def bodies(seed=0):
    """Two bodies of 20 Gaussians beside 20 that stay: mixture, each Gaussian's body, deformation."""
    neutral, number = mixture(seed=seed), np.repeat([0, 1, 2], 20)
    return neutral, number, Deformation(neutral, number, ("amplitude", "position"), 15.0, rigid=True)


def test_a_rigid_body_keeps_its_shape_and_what_belongs_to_none_stays():
    neutral, number, d = bodies()
    assert d.sizes[1] == 12
    centers = d.apply(np.random.default_rng(1).normal(0, 3, (6, d.outputs)).astype(np.float32))[0].numpy()
    assert np.array_equal(centers[:, number == 0], np.repeat(neutral.centers[None, number == 0], 6, 0))
    for body in (1, 2):
        before, after = (np.linalg.norm(c[..., :, None, :] - c[..., None, :, :], axis=-1)
                         for c in (neutral.centers[number == body], centers[:, number == body]))
        np.testing.assert_allclose(after, np.repeat(before[None], 6, 0), atol=2e-4)
    assert np.abs(centers - neutral.centers).max() > 3


def test_the_outputs_of_a_body_are_its_shift_and_its_turn_about_its_centre_of_mass():
    neutral, number, d = bodies()
    u = np.zeros((2, d.outputs), np.float32)
    first = d.sizes[0]
    u[0, first:first + 3], u[1, first + 9:first + 12] = (0.02, 0, -0.01), (0, 0, 0.3)
    centers = d.apply(u)[0].numpy()
    np.testing.assert_allclose(centers[0, number == 1] - neutral.centers[number == 1], np.tile([0.1, 0, -0.05], (20, 1)), atol=1e-4)
    np.testing.assert_array_equal(centers[0, number == 2], neutral.centers[number == 2])
    mine, mass = neutral.centers[number == 2], neutral.amplitudes[number == 2]
    middle = mass @ mine / mass.sum()
    radius = np.sqrt(mass @ np.sum((mine - middle) ** 2, 1) / mass.sum())
    limit = np.pi / 2
    expected = Rotation.from_rotvec([0, 0, limit * np.tanh(0.3 * 5 / radius / limit)]).apply(mine - middle) + middle
    np.testing.assert_allclose(centers[1, number == 2], expected, atol=1e-4)


def test_output_nought_is_neutral_for_rigid_bodies_and_has_a_gradient_there():
    neutral, _, d = bodies()
    u = tf.zeros([1, d.outputs])
    with tf.GradientTape() as tape:
        tape.watch(u)
        centers = d.apply(u)[0]
        value = tf.reduce_sum(centers * tf.constant(np.random.default_rng(2).normal(size=(60, 3)), tf.float32))
    assert np.array_equal(centers[0].numpy(), neutral.centers)
    gradient = tape.gradient(value, u).numpy()[0, d.sizes[0]:]
    assert np.all(np.isfinite(gradient)) and np.all(gradient != 0)


def test_large_outputs_turn_a_body_by_less_than_a_right_angle_and_shift_it_less_than_the_reach():
    neutral, number, d = bodies()
    u = np.zeros((2, d.outputs), np.float32)
    u[0, d.sizes[0] + 1], u[1, d.sizes[0] + 4] = 1e4, 1e4
    centers = d.apply(u)[0].numpy()
    shift = (centers[0] - neutral.centers)[number == 1]
    np.testing.assert_allclose(np.linalg.norm(shift, axis=1), d.reach_angst, rtol=1e-3)
    turn = Rotation.align_vectors(centers[1, number == 1] - centers[1, number == 1].mean(0),
                                  neutral.centers[number == 1] - neutral.centers[number == 1].mean(0))[0]
    assert np.degrees(turn.magnitude()) == pytest.approx(90, abs=0.1)


# ---- the base

def test_a_base_of_noughts_is_the_neutral_mixture_and_the_rest_moves_only_what_is_free():
    neutral, free = mixture(), np.arange(60) % 3 == 0
    d = Deformation(neutral, free, ALL, 15.0)
    u = tf.zeros([2, d.outputs])
    expected = neutral.centers, neutral.amplitudes, neutral.widths
    for found, wanted in zip(rows(d.apply(u, base=tf.zeros([60, 4])), neutral), expected):
        np.testing.assert_array_equal(found, np.broadcast_to(wanted, found.shape))
    base = np.random.default_rng(3).normal(0, 0.1, (60, 4)).astype(np.float32)
    centers, amplitudes, widths = rows(d.apply(u, base=tf.constant(base)), neutral)
    reach = d.reach_angst
    np.testing.assert_allclose(centers[0, free], neutral.centers[free] + reach * np.tanh(15 * base[free, :3] / reach), atol=1e-4)
    np.testing.assert_allclose(widths[0, free], neutral.widths[free] * np.exp(0.5 * np.tanh(1.2 * base[free, 3])), rtol=1e-5)
    np.testing.assert_array_equal(amplitudes, np.repeat(neutral.amplitudes[None], 2, 0))
    for found, wanted in zip((centers, widths), (neutral.centers, neutral.widths)):
        np.testing.assert_array_equal(found[:, ~free], np.repeat(wanted[None, ~free], 2, 0))


def test_changes_add_to_the_base_and_a_rigid_body_turns_it_along():
    neutral, number, d = bodies()
    u, base = outputs(d, size=0.5), tf.constant(np.random.default_rng(3).normal(0, 0.2, (60, 4)).astype(np.float32))
    still = d.apply(tf.zeros([1, d.outputs]), base=base)[0].numpy()[0]
    centers = d.apply(u, base=base)[0].numpy()
    for body in (1, 2):
        before, after = (np.linalg.norm(c[..., :, None, :] - c[..., None, :, :], axis=-1)
                         for c in (still[number == body], centers[:, number == body]))
        np.testing.assert_allclose(after, np.repeat(before[None], len(after), 0), atol=2e-4)
    bending = Deformation(neutral, number, ("position",), 15.0)
    u = outputs(bending, size=0.5)
    np.testing.assert_allclose(bending.apply(u, base=base)[0].numpy() - still, bending.apply(u)[0].numpy() - neutral.centers, atol=1e-4)


def test_a_base_is_held_where_nothing_moves_and_hardly_where_much_does():
    neutral, far = mixture(), np.arange(60) < 20
    d = Deformation(neutral, far, ("position",), 0.0)
    u = outputs(d, size=2.0)
    motion = np.mean(np.sum((d.apply(u)[0].numpy() - neutral.centers) ** 2, 2), 0)
    base = np.random.default_rng(3).normal(0, 0.1, (60, 4)).astype(np.float32)
    angst = base * np.stack([*np.full((3, 60), 15.0), 0.6 * neutral.widths], 1)
    expected = np.sum(angst**2, 1) / (0.25**2 * motion + 0.05**2)
    assert float(d.unlike(tf.constant(base), u)) == pytest.approx(expected.sum(), rel=1e-4)
    one = np.eye(60, dtype=np.float32)[:, :, None] * np.float32([0.01, 0, 0, 0])
    held = np.array([float(d.unlike(tf.constant(part), u)) for part in one])
    assert held[far].max() < 0.01 * held[~far].min()
    np.testing.assert_allclose(held[~far], 0.15**2 / 0.05**2, rtol=1e-4)
    # and changes of width in Å, so that a broad Gaussian counts for what it does
    assert float(d.unlike(tf.constant(np.float32([0, 0, 0, 1]) * np.ones((60, 1), np.float32)), tf.zeros([1, d.outputs]))) == pytest.approx(
        np.sum((0.6 * neutral.widths / 0.05) ** 2), rel=1e-4)
