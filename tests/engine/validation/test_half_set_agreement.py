"""How far two networks agree on the same particles, on numbers whose answer is known."""
import numpy as np
import pytest

from gmmhet.engine.validation.half_set_agreement import (
    affine_r2,
    canonical_fit,
    correlation,
    displacement_agreement,
    latent_agreement,
)


def test_canonical_variates_have_unit_covariance_and_those_of_turned_and_stretched_points_are_the_same():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 3)) * (1, 2, 5)
    b = a @ rng.normal(size=(3, 3)) + 5
    map_a, map_b = canonical_fit(a, b)
    first, second = map_a(a), map_b(b)
    np.testing.assert_allclose(first, (a - map_a.mean) @ map_a.matrix)
    np.testing.assert_allclose(np.cov(first.T), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(first, second, atol=1e-8)


def test_latents_that_differ_by_an_affine_map_agree_and_shuffled_ones_do_not():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1000, 2)) * (3, 1)
    b = a @ np.array([[0.2, -1.0, 0.3], [1.0, 0.5, 0.0]]) + 7
    figures, variates = latent_agreement(a, b, 1)
    assert figures["canonical_correlations"] == pytest.approx([1, 1])
    assert figures["affine_r2"] == pytest.approx(1)
    assert variates.shape == (500, 2)
    figures, _ = latent_agreement(a, b[rng.permutation(1000)], 1)
    assert max(np.abs(figures["canonical_correlations"])) < 0.15 and figures["affine_r2"] < 0.02


def test_a_dimension_in_which_a_network_says_nothing_correlates_with_nothing():
    z = np.random.default_rng(0).normal(size=(1000, 2))
    figures, _ = latent_agreement(z, z * [1, 0], 1)
    assert figures["canonical_correlations"] == pytest.approx([1, 0])


def test_latents_with_noise_agree_as_far_as_the_noise_allows():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 1))
    figures, variates = latent_agreement(*(truth + 0.5 * rng.normal(size=truth.shape) for _ in range(2)), 1)
    assert figures["canonical_correlations"][0] == pytest.approx(0.8, abs=0.03)
    assert figures["affine_r2"] == pytest.approx(0.64, abs=0.04)
    assert np.corrcoef(variates.T)[0, 1] == pytest.approx(0.8, abs=0.03)


def test_displacements_agree_by_their_direction_and_not_by_a_shift_that_all_particles_share():
    rng = np.random.default_rng(0)
    mode, amount = rng.normal(size=30), rng.normal(size=(600, 1))
    figures, each = displacement_agreement(amount * mode + 4, 2 * amount * mode - 1, 1)
    assert figures["displacement_correlation"] == pytest.approx(1, abs=0.02)
    assert abs(figures["shuffled"][0]) < 0.03 < figures["shuffled"][1] < 0.2
    assert each.shape == (2, 600)
    figures, _ = displacement_agreement(amount * mode, rng.normal(size=(600, 1)) * mode, 1)
    assert abs(figures["displacement_correlation"]) < 0.1


def test_the_correlation_with_what_does_not_vary_is_0():
    x = np.random.default_rng(0).normal(size=100)
    assert correlation(x, np.ones(100)) == correlation(np.zeros(100), x) == 0
    assert correlation(x, -2 * x + 1) == pytest.approx(-1)
    assert correlation(x, x**2) == pytest.approx(np.corrcoef(x, x**2)[0, 1])


def test_an_affine_map_is_scored_on_the_rows_that_it_was_not_fitted_on():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 1))
    y = x @ np.array([[1.0], [-1.0]]) + noise      # two thirds of the variance are no noise
    fitted, scored = np.arange(1000), np.arange(1000, 2000)
    assert affine_r2(x, y, fitted, scored) == pytest.approx(2 / 3, abs=0.05)
    assert affine_r2(rng.normal(size=(2000, 300)), noise, fitted, scored) < 0      # fitted to noise
    assert affine_r2(x, np.ones((2000, 1)), fitted, scored) == 0
