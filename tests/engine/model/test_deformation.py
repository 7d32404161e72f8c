"""What the decoder's numbers do to a mixture: bounded, smooth, and exactly nothing where nothing may vary."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import ALL, deformation, mixture, outputs, rows

from gmmhet.engine.model.deformation import anchor_weights, logistic_change, neighbourhood_clusters


def arrays(neutral):
    return neutral.centers, neutral.amplitudes, neutral.widths


@pytest.mark.parametrize("parameters", [ALL, ("amplitude",), ("position",), ("width",),
                                        ("position", "width")], ids="+".join)
@pytest.mark.parametrize("smoothness", [0.0, 15.0])
def test_output_zero_is_exactly_neutral(parameters, smoothness):
    neutral = mixture()
    d = deformation(neutral, None, parameters, smoothness)
    for found, expected in zip(rows(d.apply(tf.zeros([3, d.n_outputs]))), arrays(neutral)):
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


@pytest.mark.parametrize("smoothness", [0.0, 15.0])
def test_frozen_gaussians_are_neutral_to_the_last_bit_whatever_the_output(smoothness):
    neutral, free = mixture(), np.arange(60) % 3 == 0
    d = deformation(neutral, free, ALL, smoothness)
    for found, expected in zip(rows(d.apply(outputs(d, size=3))), arrays(neutral)):
        np.testing.assert_array_equal(found[:, ~free],
                                      np.broadcast_to(expected[~free], found[:, ~free].shape))
        assert np.all(found[:, free] != expected[free])


@pytest.mark.parametrize("parameter", ALL)
def test_parameters_that_may_not_vary_are_neutral_to_the_last_bit(parameter):
    neutral = mixture()
    d = deformation(neutral, None, (parameter,), 15.0)
    for name, found, expected in zip(("position", "amplitude", "width"), rows(d.apply(outputs(d))),
                                     arrays(neutral)):
        assert np.array_equal(found, np.broadcast_to(expected, found.shape)) == (name != parameter)


def test_parameters_come_in_one_order_whatever_the_order_in_which_they_are_asked_for():
    one, other = (deformation(mixture(), None, asked, 15.0) for asked
                  in (ALL, ("width", "amplitude", "position")))
    assert one.parameters == other.parameters == ALL and one.sizes == other.sizes


def test_a_mixture_becomes_what_the_formula_says():
    """c + r tanh(5 v / r), A sigmoid(logit(a / A) + v), s exp(tanh(0.4 v) / 2), weights spreading v."""
    neutral = mixture()
    d, u = deformation(neutral, None, ALL, 15.0), outputs(deformation(neutral, None, ALL, 15.0), 2)
    amplitude, position, width = np.split(u.numpy().astype(float), np.cumsum(d.sizes)[:-1], axis=1)
    weights = {name: values.numpy().astype(float) for name, values in d.weights.items()}
    reach, ceiling = 0.5 * neutral.radius_angst, np.maximum(2 * neutral.amplitudes,
                                                            1.5 * np.percentile(neutral.amplitudes, 95))
    moved = np.einsum("nm,bmc->bnc", weights["position"], position.reshape(2, -1, 3))
    odds = neutral.amplitudes / (ceiling - neutral.amplitudes) * np.exp(amplitude @ weights["amplitude"].T)
    centers, amplitudes, widths = rows(d.apply(u))
    np.testing.assert_allclose(centers, neutral.centers + reach * np.tanh(5 * moved / reach), atol=1e-4)
    np.testing.assert_allclose(amplitudes, ceiling * odds / (1 + odds), rtol=1e-4)
    np.testing.assert_allclose(widths,
                               neutral.widths * np.exp(0.5 * np.tanh(0.4 * width @ weights["width"].T)),
                               rtol=1e-5)


def test_a_batch_is_its_rows_one_by_one():
    d = deformation(mixture(), None, ALL, 15.0)
    u = outputs(d)
    together = rows(d.apply(u, removes_rigid_motion=True))
    for i in range(5):
        for found, expected in zip(rows(d.apply(u[i:i + 1], removes_rigid_motion=True)), together):
            np.testing.assert_allclose(found[0], expected[i], rtol=1e-5, atol=1e-4)


def test_huge_outputs_stay_within_the_bounds_and_finite():
    neutral = mixture()
    d = deformation(neutral, None, ALL, 15.0)
    for size in (10.0, 1e4):
        centers, amplitudes, widths = rows(d.apply(outputs(d, 20, size)))
        assert np.abs(centers - neutral.centers).max() <= d.reach_angst * 1.0001
        ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))
        assert amplitudes.min() >= -1e-6 and np.all(amplitudes <= ceiling * 1.0001)
        ratio = widths / neutral.widths
        assert ratio.min() >= np.exp(-0.5) * 0.9999 and ratio.max() <= np.exp(0.5) * 1.0001


def test_gradients_are_finite_at_zero_and_at_huge_outputs_and_not_zero_at_zero():
    d = deformation(mixture(), None, ALL, 15.0)
    for u in (tf.zeros([2, d.n_outputs]), outputs(d, 2, 1e4)):
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = sum(tf.reduce_sum(part * part) for part in d.apply(u))
        assert np.all(np.isfinite(tape.gradient(value, u)))
    with tf.GradientTape() as tape:
        u = tf.zeros([1, d.n_outputs])
        tape.watch(u)
        value = sum(tf.reduce_sum(part * part) for part in d.apply(u))
    gradient = tape.gradient(value, u).numpy()[0]
    assert len(gradient) == 5 * d.n_anchors and np.all(gradient != 0)


def test_a_gaussian_of_no_amplitude_can_grow():
    neutral = mixture()
    neutral.amplitudes[0] = 0
    d = deformation(neutral, None, ("amplitude",), 0.0)
    grown = d.apply(20 * tf.ones([1, d.n_outputs])).amplitudes.numpy()
    assert grown[0, 0] > 0.9 * np.percentile(neutral.amplitudes, 95)


@pytest.mark.parametrize("share", [1e-4, 0.3, 0.999])
def test_a_logistic_change_is_that_of_the_odds_and_exactly_nought_for_nought(share):
    change = np.array([-8.0, -0.5, 0.0, 1e-3, 2.0])
    odds = share / (1 - share) * np.exp(change)
    np.testing.assert_allclose(logistic_change(share, tf.constant(change)), odds / (1 + odds) - share,
                               rtol=1e-9)
    assert logistic_change(share, tf.constant(change))[2] == 0


# ---- neighbours

def test_neighbours_move_together_and_distant_gaussians_do_not():
    neutral = mixture(300)
    d = deformation(neutral, None, ("position",), 12.0)
    moves = rows(d.apply(outputs(d, 200)))[0] - neutral.centers
    flat = moves.transpose(1, 0, 2).reshape(300, -1)
    correlation = np.corrcoef(flat)
    distance = np.linalg.norm(neutral.centers[:, None] - neutral.centers[None], axis=-1)
    near, far = correlation[(distance > 0) & (distance < 4)], correlation[distance > 50]
    assert near.mean() > 0.9 and abs(far.mean()) < 0.1


def test_smoothness_zero_moves_every_gaussian_by_itself():
    d = deformation(mixture(), None, ("position",), 0.0)
    u = np.zeros((1, d.n_outputs), np.float32)
    u[0, :3] = 0.1
    moved = np.abs(d.apply(tf.constant(u)).centers.numpy()[0] - mixture().centers).max(1) > 0
    assert d.n_anchors == 60 and moved.sum() == 1


def test_amplitudes_have_anchors_of_their_own():
    d = deformation(mixture(300), None, ("amplitude", "position"), 30.0, amplitude_share=0.5)
    finer, coarser = (weights.shape[1] for weights in (d.weights["amplitude"], d.weights["position"]))
    assert finer > 2 * coarser and d.sizes == (finer, 3 * coarser) and d.n_anchors == finer
    u = np.zeros((1, d.n_outputs), np.float32)
    u[0, :finer] = 1.0
    centers, amplitudes, _ = d.apply(tf.constant(u))
    assert np.all(amplitudes.numpy()[0] > mixture(300).amplitudes)
    assert np.all(centers.numpy()[0] == mixture(300).centers)


def test_anchor_weights_sum_to_one_and_are_fewer_for_a_longer_range():
    centers = mixture(200).centers
    counts = []
    for smoothness in (8.0, 16.0, 40.0):
        weights = anchor_weights(centers, smoothness)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
        assert weights.min() >= 0
        counts.append(weights.shape[1])
    assert 200 >= counts[0] > counts[1] > counts[2] >= 1


def test_weights_fall_off_with_the_distance_from_the_anchor_as_a_gaussian():
    centers = mixture(200).centers
    anchors = neighbourhood_clusters(centers, 20.0).cluster_centers_
    expected = np.array([[np.exp(-0.5 * np.sum((c - a) ** 2) / 20.0**2) for a in anchors] for c in centers])
    np.testing.assert_allclose(anchor_weights(centers, 20.0), expected / expected.sum(1, keepdims=True),
                               rtol=1e-4)
    assert len(anchors) == len({tuple(np.floor(c / 20.0)) for c in centers})


def test_outputs_of_neighbouring_anchors_are_taken_together_where_there_are_more_than_are_wanted():
    neutral = mixture(200)
    made = deformation(neutral, None, ("amplitude", "position"), 0.0)
    amplitudes, positions = (matrix.toarray() for matrix in made.anchor_groups(90))
    assert amplitudes.shape == (200, 90) and positions.shape == (600, 90)
    for matrix in (amplitudes, positions):
        np.testing.assert_array_equal(matrix.sum(1), 1)
        assert matrix.sum(0).min() >= 1
    np.testing.assert_array_equal(positions, np.kron(positions[::3, ::3], np.eye(3)))
    member = positions[::3, ::3]
    middle = member.T @ neutral.centers / member.sum(0)[:, None]
    nearest = np.argmin(np.linalg.norm(neutral.centers[:, None] - middle, axis=-1), axis=1)
    assert np.mean(nearest == member.argmax(1)) > 0.95
    for matrix, size in zip(made.anchor_groups(600), (200, 600)):
        np.testing.assert_array_equal(matrix.toarray(), np.eye(size))
    twenty = deformation(neutral, 1 + np.arange(200) % 20, ("position",), 0.0, rigid=True)
    np.testing.assert_array_equal(twenty.anchor_groups(60)[0].toarray(), np.eye(120))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_free_gaussians_are_no_trouble(count):
    neutral, free = mixture(), np.arange(60) < count
    d = deformation(neutral, free, ALL, 30.0)
    assert np.all(d.apply(outputs(d)).centers.numpy()[:, free] != neutral.centers[free])


@pytest.mark.parametrize("parameters,rigid,parts",
                         [(("position",), False, True), (("amplitude",), False, False),
                                                    (("position",), True, False)])
def test_parts_that_may_move_as_a_whole_are_of_positions_that_are_not_of_bodies(parameters, rigid, parts):
    free = np.arange(60) < 40
    tree = deformation(mixture(), free, parameters, 6.0, rigid=rigid).rigid_parts
    assert bool(tree.members) == bool(tree.ends) == parts
    if parts:
        np.testing.assert_array_equal(tree.members[0], np.arange(40))      # of the free ones alone


# ---- overall rigid motion

def test_without_overall_rigid_motion_nothing_moves_everything_and_output_zero_stays_exactly_neutral():
    neutral = mixture()
    made = deformation(neutral, None, ("position",), 15.0)
    still = made.apply(tf.zeros([1, made.n_outputs]), removes_rigid_motion=True).centers
    np.testing.assert_array_equal(still[0], neutral.centers)
    shifted = made.apply(tf.fill([1, made.n_outputs], 0.5), removes_rigid_motion=True).centers
    np.testing.assert_allclose(shifted[0], neutral.centers, atol=1e-3)


# ---- the consensus shift

def test_a_consensus_shift_of_noughts_is_the_neutral_mixture_and_another_moves_only_what_is_free():
    neutral, free = mixture(), np.arange(60) % 3 == 0
    d = deformation(neutral, free, ALL, 15.0)
    u = tf.zeros([2, d.n_outputs])
    for found, wanted in zip(rows(d.apply(u, consensus_shift=tf.zeros([60, 4]))), arrays(neutral)):
        np.testing.assert_array_equal(found, np.broadcast_to(wanted, found.shape))
    shift = np.random.default_rng(3).normal(0, 0.1, (60, 4)).astype(np.float32)
    centers, amplitudes, widths = rows(d.apply(u, consensus_shift=tf.constant(shift)))
    reach = d.reach_angst
    moved = neutral.centers[free] + reach * np.tanh(15 * shift[free, :3] / reach)
    np.testing.assert_allclose(centers[0, free], moved, atol=1e-4)
    np.testing.assert_allclose(widths[0, free],
                               neutral.widths[free] * np.exp(0.5 * np.tanh(1.2 * shift[free, 3])), rtol=1e-5)
    np.testing.assert_array_equal(amplitudes, np.repeat(neutral.amplitudes[None], 2, 0))
    for found, wanted in zip((centers, widths), (neutral.centers, neutral.widths)):
        np.testing.assert_array_equal(found[:, ~free], np.repeat(wanted[None, ~free], 2, 0))


def test_changes_add_to_the_consensus_shift():
    neutral, free = mixture(), np.arange(60) >= 20
    bending = deformation(neutral, free, ("position",), 15.0)
    u = outputs(bending, size=0.5)
    shift = tf.constant(np.random.default_rng(3).normal(0, 0.2, (60, 4)).astype(np.float32))
    still = bending.apply(tf.zeros([1, bending.n_outputs]), consensus_shift=shift).centers.numpy()[0]
    moved = bending.apply(u, consensus_shift=shift).centers.numpy() - still
    np.testing.assert_allclose(moved, bending.apply(u).centers.numpy() - neutral.centers, atol=1e-4)
    assert np.abs(still - neutral.centers).max() > 1


# ---- on top of an earlier stage

def test_displacements_of_stages_add_and_odds_of_amplitudes_and_widths_multiply():
    neutral = mixture(40)
    d = deformation(neutral, None, ALL, 15.0)
    u, v = (outputs(d, 3, 0.5, seed) for seed in (1, 2))
    one, two, both = d.apply(u), d.apply(v), d.apply(v, d.apply(u))
    ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))

    def odds(a):
        return np.asarray(a) / (ceiling - np.asarray(a))
    np.testing.assert_allclose(both.centers - neutral.centers,
                               one.centers + two.centers - 2 * neutral.centers, atol=1e-4)
    np.testing.assert_allclose(odds(both.amplitudes) * odds(neutral.amplitudes),
                               odds(one.amplitudes) * odds(two.amplitudes),
                               rtol=1e-3)
    np.testing.assert_allclose(both.widths * neutral.widths, one.widths * two.widths, rtol=1e-4)


def test_a_part_that_may_move_keeps_its_mass_in_its_neutral_proportions_and_all_else_its_conformation():
    neutral, free = mixture(40), np.arange(40) < 15
    before = deformation(neutral, None, ("amplitude", "position"), 15.0)
    earlier = before.apply(outputs(before, 3))
    found = deformation(neutral, free, ("position",), 15.0).with_neutral_region(earlier)
    np.testing.assert_array_equal(found.centers, earlier.centers)
    of_start, of_found = earlier.amplitudes.numpy(), found.amplitudes.numpy()
    np.testing.assert_allclose(of_found[:, ~free], of_start[:, ~free], rtol=1e-6)
    np.testing.assert_allclose(of_found[:, free].sum(1), of_start[:, free].sum(1), rtol=1e-5)
    share = of_found[:, free] / neutral.amplitudes[free]
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1], share.shape), rtol=1e-5)


@pytest.mark.parametrize("parameters,free",
                         [(("amplitude",), np.arange(40) < 15), (("position",), np.ones(40, bool))])
def test_where_nothing_moves_or_all_may_every_gaussian_keeps_its_own_amplitude(parameters, free):
    neutral = mixture(40)
    before = deformation(neutral, None, ("amplitude",), 15.0)
    earlier = before.apply(tf.ones([2, before.n_outputs]))
    made = deformation(neutral, free, parameters, 15.0)
    assert made.with_neutral_region(earlier) is earlier and not made.moves_part
