"""Scores against the truth, as fractions of the oracle's."""
import numpy as np
import pytest

from gmmhet.engine.simulate.scores import (
    figure_text,
    fraction_of_oracle,
    information,
    oracle_scores,
    rank_correlation,
    score_all,
)


def test_information_is_one_for_the_truth_itself_half_for_half_and_nothing_for_noise():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    assert information(truth[:, None], truth) == pytest.approx(1, abs=1e-6)
    assert information((truth + rng.normal(size=4000))[:, None], truth) == pytest.approx(0.5, abs=0.05)
    assert abs(information(rng.normal(size=(4000, 3)), truth)) < 0.02
    assert information(np.stack([np.cos(truth), np.sin(truth)], 1), truth) > 0.9


def test_rank_correlation_ignores_sign_scale_and_monotone_stretching():
    truth = np.random.default_rng(0).normal(size=500)
    z = np.stack([-3 * np.sinh(truth), 0.01 * np.ones(500)], 1)
    assert rank_correlation(z, truth) == pytest.approx(1)


def test_few_particles_and_a_truth_that_does_not_vary_are_not_scored_and_equal_latents_rank_nothing():
    rng = np.random.default_rng(0)
    z, angle = rng.normal(size=(60, 2)), rng.normal(size=60)
    unknown = dict(r2=None, rank_correlation=None)
    assert score_all("hinge", dict(angle=angle[:49]), dict(z=z[:49])) == unknown
    assert score_all("hinge", dict(angle=np.zeros(60)), dict(z=z)) == unknown
    assert score_all("hinge", dict(angle=angle), dict(z=np.ones((60, 2))))["rank_correlation"] == 0
    few_arms = dict(state=np.arange(60) % 2, angle=np.where(np.arange(60) < 2, 1.0, np.nan))
    found = score_all("mixed", few_arms, dict(state=few_arms["state"], z=z))
    assert found == dict(adjusted_rand_index=1.0, r2=None)
    assert score_all("assembly", dict(state=np.ones(60)),
                     dict(state=np.ones(60))) == dict(adjusted_rand_index=None)


def test_a_fraction_of_an_oracle_that_finds_nothing_is_not_known():
    assert fraction_of_oracle(0.4, 0.8) == 0.5 and fraction_of_oracle(-0.4, 0.8) == -0.5
    assert fraction_of_oracle(0.4, 0.0) is None and fraction_of_oracle(None, 0.8) is None
    assert fraction_of_oracle(0.4, None) is None


def test_the_oracles_figures_have_the_names_of_ours_and_it_is_said_how_often_it_names_the_unit():
    rng, unit = np.random.default_rng(0), np.repeat([1, 2, 3], 30)
    angles = np.where(unit[:, None] == [1, 2, 3], rng.normal(size=(90, 1)), 0.0)
    truth = dict(unit_angles=angles, unit=unit)
    found = oracle_scores("c3", truth, dict(truth, unit=np.where(np.arange(90) < 9, 3, unit)))
    assert set(found) == set(score_all("c3", truth, dict(z=angles[..., None]))) | {"unit_identified"}
    assert found["r2"] > 0.99 and found["unit_identified"] == pytest.approx(0.9)
    assert oracle_scores("null", {}, {}) == {}


def test_a_figure_is_written_with_three_digits_and_none_is_unknown():
    assert figure_text(0.12345) == "0.123" and figure_text(None) == "unknown"
