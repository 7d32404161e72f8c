"""The evidence of held-out particles, on numbers whose answer is known."""
import numpy as np
import pytest

from gmmhet.engine.validation.held_out_evidence import (
    axis_information,
    bootstrap_interval,
    held_out_evidence,
    landscape_weight,
    weighted_gain,
)


def mixture_of(share, n, rng, distance=1.5):
    """Log evidence of two Gaussians at 0 (single) and `distance` (landscape), of points of which `share` come
    from the second."""
    x = rng.normal(size=n) + distance * (rng.random(n) < share)
    return -0.5 * (x - distance) ** 2, -0.5 * x[None] ** 2


def test_the_landscape_s_weight_is_the_share_of_the_particles_that_come_from_it():
    evidence, single = mixture_of(0.4, 20000, np.random.default_rng(0))
    assert landscape_weight(evidence - single[0]) == pytest.approx(0.4, abs=0.02)
    assert landscape_weight(np.full(5, -1.0)) == 0 and landscape_weight(np.full(5, 1.0)) == 1
    assert landscape_weight(np.array([900.0, -900.0])) == pytest.approx(0.5)


def test_a_weight_that_does_not_pay_for_itself_is_0():
    assert landscape_weight(np.full(100, 0.02)) == 0 and landscape_weight(np.full(100, 0.03)) == 1


def test_a_weighted_gain_is_that_of_a_mixture_of_landscape_and_single_model():
    gain = np.array([-3.0, 0.0, 0.7, 4.0])
    np.testing.assert_allclose(weighted_gain(gain, 0.3), np.log(0.7 + 0.3 * np.exp(gain)))
    np.testing.assert_array_equal(weighted_gain(gain, 1.0), gain)
    assert np.isfinite(weighted_gain(np.array([-1e4, 1e4]), 0.5)).all()


@pytest.mark.parametrize("distance", [0.05, 0.1, 0.5])
def test_of_alike_particles_the_interval_holds_0_although_the_landscape_alone_lies_below_it(distance):
    held, below = 0, 0
    for seed in range(200):
        evidence, singles = mixture_of(0.0, 400, np.random.default_rng(seed), distance)
        found = held_out_evidence(evidence, singles, seed)
        low, high = bootstrap_interval(found.gain, seed, draws=200)
        held, below = held + (low <= 0 <= high), below + (found.landscape_alone < 0)
    assert held >= 190 and below >= 130


def test_a_landscape_that_explains_every_particle_keeps_its_whole_gain():
    evidence = np.random.default_rng(0).normal(3, 1, 500)
    found = held_out_evidence(evidence, np.zeros((1, 500)), 1)
    assert found.weight == 1 and found.landscape_alone == pytest.approx(evidence.mean())
    assert found.gain == pytest.approx(evidence)


def test_the_single_model_compared_with_is_the_better_one():
    evidence, singles = np.full(100, 2.0), np.stack([np.zeros(100), np.full(100, 1.5)])
    assert held_out_evidence(evidence, singles, 1).gain == pytest.approx(np.full(100, 0.5))


def test_a_landscape_that_is_never_better_has_no_weight_and_a_gain_of_exactly_0():
    found = held_out_evidence(np.full(50, -1.0), np.zeros((1, 50)), 1)
    assert found.weight == 0 and found.landscape_alone == -1 and np.all(found.gain == 0)


def test_one_held_out_particle_is_enough_to_give_a_number():
    gain = held_out_evidence(np.array([1.0]), np.zeros((1, 1)), 1).gain
    assert gain.shape == (1,) and np.isfinite(gain).all()


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(1, 2, 10000)
    expected = values.mean() - 0.0392, values.mean() + 0.0392
    assert bootstrap_interval(values, 1) == pytest.approx(expected, abs=0.004)


def test_the_bootstrap_interval_holds_the_mean_and_shrinks_with_more_particles():
    values = np.random.default_rng(0).normal(1, 1, 4000)
    few, many = (bootstrap_interval(v, 1) for v in (values[:100], values))
    assert few[0] < values[:100].mean() < few[1]
    assert many[1] - many[0] == pytest.approx(4 * 1 / np.sqrt(4000), rel=0.15)
    assert few[1] - few[0] > 4 * (many[1] - many[0])


def test_an_axis_that_images_say_nothing_of_holds_no_information_others_that_of_a_channel():
    rng, noise = np.random.default_rng(0), 0.5
    true = rng.normal(size=(20000, 3))
    observed = true + np.sqrt(noise) * rng.normal(size=true.shape)
    variance = np.array([noise / (1 + noise), 1, 1])
    z = np.where([True, False, False], observed / (1 + noise), 0)
    covariance = np.tile(np.diag(variance), (len(z), 1, 1))
    z[0] = np.nan
    found = axis_information(z, covariance)
    assert found == pytest.approx([0.5 * np.log(1 + 1 / noise), 0, 0], abs=0.01)
