"""What z tells of how a particle was imaged, on latent points whose answer is known."""
import numpy as np
import pytest

from gmmhet.engine.batching.batches import Views
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.validation.leakage import (
    PERMUTATIONS,
    TOLERATED_R2,
    imaging_leakage,
    is_harmless,
    leakage_text,
    leakage_warnings,
    posterior_draw,
    predictability,
    view_targets,
)


def test_opposite_views_differ_in_the_odd_terms_and_agree_in_the_even_ones():
    rotation = random_rotations(20, np.random.default_rng(0))
    behind = np.diag([1.0, -1.0, -1.0]) @ rotation
    np.testing.assert_allclose(view_targets(rotation)[:, :3], rotation[:, 2])
    np.testing.assert_allclose(view_targets(behind)[:, :3], -rotation[:, 2])
    np.testing.assert_allclose(view_targets(behind)[:, 3:], view_targets(rotation)[:, 3:])


def test_a_latent_point_that_is_the_defocus_is_found_out_with_its_share_of_the_variance():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(10000, 25000, (2000, 1, 1))
    first = (defocus - defocus.mean()) / defocus.std() + rng.normal(0, 1, defocus.shape)
    found = predictability(np.concatenate([first, rng.normal(size=defocus.shape)], 2), defocus, 1)
    assert found["r2"] == pytest.approx(0.5, abs=0.05) and found["chance"] < 0.02
    assert found["p"] == 1 / (1 + PERMUTATIONS)


def test_side_views_are_told_from_top_views_although_the_mean_view_axis_says_nothing():
    rotation = random_rotations(2000, np.random.default_rng(0))[:, None]
    found = predictability(np.abs(rotation[..., 2, 2:]), view_targets(rotation), 1)
    assert found["r2"] > 0.1 > found["chance"]


def test_what_has_nothing_to_do_with_the_view_stays_within_chance_about_as_often_as_it_should():
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        views = view_targets(random_rotations(600, rng).reshape(200, 3, 3, 3))
        p.append(predictability(rng.normal(size=(200, 3, 2)), views, seed)["p"])
    assert min(p) > 0.001 and np.mean(np.array(p) < 0.1) < 0.35 and 0.25 < np.mean(p) < 0.75


def test_symmetry_copies_stay_together_so_that_what_they_share_is_not_taken_for_prediction():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(60, 1, 1))
    z, targets = own + 0.01 * rng.normal(size=(60, 3, 1)), np.repeat(rng.normal(size=(60, 1, 1)), 3, 1)
    assert predictability(z, targets, 1)["p"] > 0.05


def test_targets_that_do_not_vary_cannot_be_predicted():
    z = np.random.default_rng(0).normal(size=(50, 1, 2))
    assert predictability(z, np.full((50, 1, 1), 15000.0), 1) == dict(r2=0.0, chance=0.0, p=1.0)


def posteriors(truth, information):
    """Means [n, D] and covariances [n, D, D] under a unit prior, of truth [n, D] observed with an information
    [n] per dimension."""
    observed = truth + np.random.default_rng(1).normal(size=truth.shape) / np.sqrt(information)[:, None]
    share = information / (1 + information)
    return share[:, None] * observed, np.eye(truth.shape[1]) / (1 + information)[:, None, None]


def means_and_draws(z, covariance, targets):
    """R^2 and what chance gives, of the posterior's means and of draws from it."""
    found = [predictability(p[:, None], targets[:, None], 1) for p in (z, posterior_draw(z, covariance, 1))]
    return [(leakage["r2"], leakage["chance"]) for leakage in found]


def test_means_that_shrink_with_defocus_predict_it_and_draws_of_their_posteriors_do_not():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(0.5, 3, (4000, 1))
    information = 0.2 * defocus[:, 0] ** 3
    by_mean, by_draw = means_and_draws(*posteriors(rng.normal(size=(4000, 2)), information), defocus)
    assert by_mean[0] > 0.15 and by_draw[0] < min(0.01, by_draw[1] + 0.002)


def test_a_landscape_that_truly_depends_on_the_view_is_found_in_draws_too():
    rng = np.random.default_rng(0)
    view = rng.normal(size=(4000, 1))
    first = (view + rng.normal(size=view.shape)) / np.sqrt(2)
    truth = np.concatenate([first, rng.normal(size=view.shape)], 1)
    by_mean, by_draw = means_and_draws(*posteriors(truth, np.full(4000, 3.0)), view)
    assert by_mean[0] > by_draw[0] > 0.2 > by_draw[1]


def test_draws_have_the_covariance_of_their_posterior_and_are_the_same_for_a_seed():
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    drawn = posterior_draw(np.full((20000, 2), 3.0), np.tile(covariance, (20000, 1, 1)), 1)
    np.testing.assert_allclose(drawn.mean(0), 3, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05)
    np.testing.assert_array_equal(posterior_draw(np.zeros((3, 2)), np.tile(covariance, (3, 1, 1)), 2),
                                  posterior_draw(np.zeros((3, 2)), np.tile(covariance, (3, 1, 1)), 2))
    assert np.all(posterior_draw(np.ones((3, 2)), np.zeros((3, 2, 2)), 1) == 1)


FINE = {"defocus": dict(r2=0.04, chance=0.01, p=0.01), "viewing direction": dict(r2=0.3, chance=0.4, p=0.2)}
LEAKS = dict(r2=0.3, chance=-0.01, p=0.005)


def test_a_warning_is_given_only_above_chance_and_above_what_is_tolerated():
    assert all(is_harmless(leakage) for leakage in FINE.values()) and leakage_warnings(FINE) == []
    warning, = leakage_warnings({"defocus": LEAKS})
    assert warning.startswith(
        "The latent points predict the defocus (R² 0.30 on particles left out, chance 0.00)")
    assert "preferred orientations" in warning and not is_harmless(LEAKS)
    assert not is_harmless(dict(LEAKS, r2=TOLERATED_R2 + 0.01)) and is_harmless(dict(LEAKS, r2=TOLERATED_R2))


def test_what_is_less_than_nothing_is_written_as_0():
    assert leakage_text(dict(r2=-0.2, chance=-0.01, p=0.9)) == "R² 0.000; chance reaches 0.000"
    assert leakage_text(LEAKS) == "R² 0.300; chance reaches 0.000"


@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_the_views_of_a_set_are_asked_about_their_own_direction_and_their_particle_s_defocus(small, symmetry):
    views = Views(read_particles(str(small / "set" / "particles.star")), symmetry)
    rng, count = np.random.default_rng(0), len(views)
    axis = views.rotation(np.arange(count))[:, 2]
    defocus = views.particles.ctf[views.row, 0]
    sure = np.tile(1e-6 * np.eye(2), (count, 1, 1))
    for z, name, other in ((axis[:, :2], "viewing direction", "defocus"),
                           (np.stack([defocus, defocus], 1), "defocus", "viewing direction")):
        z = (z - z.mean(0)) / z.std(0) + 0.1 * rng.normal(size=(count, 2))
        found = imaging_leakage(views, z, sure, 1)
        assert list(found) == ["viewing direction", "defocus"]
        assert found[name]["r2"] > 0.15 and not is_harmless(found[name]) and found[other]["r2"] < 0.1
