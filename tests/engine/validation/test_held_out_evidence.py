"""The statistics of the evidence, each on numbers whose answer is known."""
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.latent.motion import evenly, spread_motion
from gmmhet.engine.validation.half_set_agreement import canonical_fit, field_agreement, latent_agreement
from gmmhet.engine.validation.held_out_evidence import axis_information, bootstrap_interval, held_out_evidence, landscape_weight
from gmmhet.engine.validation.leakage import PERMUTATIONS, posterior_draw, predictability, seen_warnings, view_targets
from gmmhet.engine.validation.verdict import LEAST_JUDGED, pose_blur, verdict


def mixture_of(share, n, rng, distance=1.5):
    """Log evidence of two Gaussians at 0 (single) and `distance` (landscape), of points of which `share` come from the second."""
    x = rng.normal(size=n) + distance * (rng.random(n) < share)
    return -0.5 * (x - distance) ** 2, -0.5 * x[None] ** 2


# ---- held-out evidence

def test_the_landscape_s_weight_is_the_share_of_the_particles_that_come_from_it():
    evidence, single = mixture_of(0.4, 20000, np.random.default_rng(0))
    assert landscape_weight(evidence - single[0]) == pytest.approx(0.4, abs=0.02)
    assert landscape_weight(np.full(5, -1.0)) == 0 and landscape_weight(np.full(5, 1.0)) == 1
    assert landscape_weight(np.array([900.0, -900.0])) == pytest.approx(0.5)


def test_a_weight_that_does_not_pay_for_itself_is_0():
    assert landscape_weight(np.full(100, 0.02)) == 0 and landscape_weight(np.full(100, 0.03)) == 1


@pytest.mark.parametrize("distance", [0.05, 0.1, 0.5])
def test_of_particles_that_are_all_alike_the_interval_holds_0_although_the_landscape_alone_lies_below_it(distance):
    held, below = 0, 0
    for seed in range(200):
        evidence, singles = mixture_of(0.0, 400, np.random.default_rng(seed), distance)
        gain, _, plain = held_out_evidence(evidence, singles, seed)
        low, high = bootstrap_interval(gain, seed, draws=200)
        held, below = held + (low <= 0 <= high), below + (plain < 0)
    assert held >= 190 and below >= 130


def test_a_landscape_that_explains_every_particle_keeps_its_whole_gain():
    evidence = np.random.default_rng(0).normal(3, 1, 500)
    gain, weight, plain = held_out_evidence(evidence, np.zeros((1, 500)), 1)
    assert weight == 1 and plain == pytest.approx(evidence.mean()) and gain == pytest.approx(evidence)


def test_the_single_model_compared_with_is_the_better_one():
    evidence, singles = np.full(100, 2.0), np.stack([np.zeros(100), np.full(100, 1.5)])
    assert held_out_evidence(evidence, singles, 1)[0] == pytest.approx(np.full(100, 0.5))


def test_a_landscape_that_is_never_better_has_no_weight_and_a_gain_of_exactly_0():
    gain, weight, plain = held_out_evidence(np.full(50, -1.0), np.zeros((1, 50)), 1)
    assert weight == 0 and plain == -1 and np.all(gain == 0)


def test_one_held_out_particle_is_enough_to_give_a_number():
    gain, _, _ = held_out_evidence(np.array([1.0]), np.zeros((1, 1)), 1)
    assert gain.shape == (1,) and np.isfinite(gain).all()


def test_the_bootstrap_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(1, 2, 10000)
    assert bootstrap_interval(values, 1) == pytest.approx((values.mean() - 0.0392, values.mean() + 0.0392), abs=0.004)


def test_an_axis_that_images_tell_nothing_of_holds_no_information_and_the_others_that_of_a_gaussian_channel():
    rng, noise = np.random.default_rng(0), 0.5
    true = rng.normal(size=(20000, 3))
    seen, variance = true + np.sqrt(noise) * rng.normal(size=true.shape), np.array([noise / (1 + noise), 1, 1])
    z = np.where([True, False, False], seen / (1 + noise), 0)
    covariance = np.tile(np.diag(variance), (len(z), 1, 1))
    z[0] = np.nan
    found = axis_information(z, covariance)
    assert found == pytest.approx([0.5 * np.log(1 + 1 / noise), 0, 0], abs=0.01)


def test_a_sample_is_spread_evenly_and_never_larger_than_the_whole():
    assert evenly(5, 10).tolist() == [0, 1, 2, 3, 4] and evenly(101, 3).tolist() == [0, 50, 100]


# ---- motion

class Sliding:
    """Ten Gaussians; the first five may vary: they move 3 Å along y, and their amplitudes change by a tenth, per unit of z."""

    free = np.arange(10) < 5

    def decode(self, z):
        moved = np.zeros((len(z), 10, 3)) + 100
        moved[:, :5, 1] += 3 * z
        return moved, np.where(self.free, 1 + 0.1 * z, 1.0), np.ones((len(z), 10))


def test_motion_is_that_of_the_gaussians_that_may_vary_from_their_mean_over_the_particles():
    assert spread_motion(Sliding(), np.float32([[0.0], [2.0]])) == pytest.approx((3, 0.1 / np.sqrt(1.1**2 + 0.1**2)), rel=1e-4)


def test_a_shift_that_all_particles_share_is_no_motion_and_large_sets_are_sampled():
    assert spread_motion(Sliding(), np.ones((5, 1))) == pytest.approx((0, 0), abs=1e-5)
    z = np.random.default_rng(0).normal(size=(30000, 1))
    assert spread_motion(Sliding(), z)[0] == pytest.approx(3, rel=0.05)


# ---- how a particle was seen

def test_opposite_views_differ_in_the_odd_terms_and_agree_in_the_even_ones():
    rotation = random_rotations(20, np.random.default_rng(0))
    behind = np.diag([1.0, -1.0, -1.0]) @ rotation
    np.testing.assert_allclose(view_targets(rotation)[:, :3], rotation[:, 2])
    np.testing.assert_allclose(view_targets(behind)[:, :3], -rotation[:, 2])
    np.testing.assert_allclose(view_targets(behind)[:, 3:], view_targets(rotation)[:, 3:])


def test_a_latent_point_that_is_the_defocus_is_found_out_with_its_share_of_the_variance():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(10000, 25000, (2000, 1, 1))
    z = np.concatenate([(defocus - defocus.mean()) / defocus.std() + rng.normal(0, 1, defocus.shape), rng.normal(size=defocus.shape)], 2)
    told = predictability(z, defocus, 1)
    assert told["r2"] == pytest.approx(0.5, abs=0.05) and told["chance"] < 0.02 and told["p"] == 1 / (1 + PERMUTATIONS)


def test_side_views_are_told_from_top_views_although_the_mean_view_axis_says_nothing():
    rotation = random_rotations(2000, np.random.default_rng(0))[:, None]
    told = predictability(np.abs(rotation[..., 2, 2:]), view_targets(rotation), 1)
    assert told["r2"] > 0.1 > told["chance"]


def test_what_has_nothing_to_do_with_the_view_stays_within_chance_about_as_often_as_it_should():
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p.append(predictability(rng.normal(size=(200, 3, 2)), view_targets(random_rotations(600, rng).reshape(200, 3, 3, 3)), seed)["p"])
    assert min(p) > 0.001 and np.mean(np.array(p) < 0.1) < 0.35 and 0.25 < np.mean(p) < 0.75


def test_symmetry_copies_stay_together_so_that_what_a_particle_s_copies_share_is_not_taken_for_prediction():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(60, 1, 1))
    told = predictability(own + 0.01 * rng.normal(size=(60, 3, 1)), np.repeat(rng.normal(size=(60, 1, 1)), 3, 1), 1)
    assert told["p"] > 0.05


def test_targets_that_do_not_vary_cannot_be_predicted():
    z = np.random.default_rng(0).normal(size=(50, 1, 2))
    assert predictability(z, np.full((50, 1, 1), 15000.0), 1) == dict(r2=0.0, chance=0.0, p=1.0)


def posteriors(truth, information):
    """Means [n, D] and covariances [n, D, D] under a unit prior, of truth [n, D] observed with an information [n] per dimension."""
    observed = truth + np.random.default_rng(1).normal(size=truth.shape) / np.sqrt(information)[:, None]
    share = information / (1 + information)
    return share[:, None] * observed, np.eye(truth.shape[1]) / (1 + information)[:, None, None]


def seen_in(z, covariance, targets):
    """R^2 and what chance gives, of the posterior's means and of draws from it."""
    points = z, posterior_draw(z, covariance, 1)
    return [(told["r2"], told["chance"]) for told in (predictability(p[:, None], targets[:, None], 1) for p in points)]


def test_means_that_shrink_with_defocus_predict_it_and_draws_of_their_posteriors_do_not():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(0.5, 3, (4000, 1))
    by_mean, by_draw = seen_in(*posteriors(rng.normal(size=(4000, 2)), 0.2 * defocus[:, 0] ** 3), defocus)
    assert by_mean[0] > 0.15 and by_draw[0] < min(0.01, by_draw[1] + 0.002)


def test_a_landscape_that_truly_depends_on_the_view_is_found_in_draws_too():
    rng = np.random.default_rng(0)
    view = rng.normal(size=(4000, 1))
    truth = np.concatenate([(view + rng.normal(size=view.shape)) / np.sqrt(2), rng.normal(size=view.shape)], 1)
    by_mean, by_draw = seen_in(*posteriors(truth, np.full(4000, 3.0)), view)
    assert by_mean[0] > by_draw[0] > 0.2 > by_draw[1]


def test_draws_have_the_covariance_of_their_posterior_and_are_the_same_for_a_seed():
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    drawn = posterior_draw(np.full((20000, 2), 3.0), np.tile(covariance, (20000, 1, 1)), 1)
    np.testing.assert_allclose(drawn.mean(0), 3, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05)
    np.testing.assert_array_equal(posterior_draw(np.zeros((3, 2)), np.tile(covariance, (3, 1, 1)), 2),
                                  posterior_draw(np.zeros((3, 2)), np.tile(covariance, (3, 1, 1)), 2))
    assert np.all(posterior_draw(np.ones((3, 2)), np.zeros((3, 2, 2)), 1) == 1)


def test_a_warning_is_given_only_above_chance_and_above_what_is_tolerated():
    fine = {"defocus": dict(r2=0.04, chance=0.01, p=0.01), "viewing direction": dict(r2=0.3, chance=0.4, p=0.2)}
    assert seen_warnings(fine) == []
    told, = seen_warnings({"defocus": dict(r2=0.3, chance=-0.01, p=0.005)})
    assert told.startswith("The latent points predict the defocus (R² 0.30 on particles left out, chance 0.00)")
    assert "preferred orientations" in told


# ---- two networks

def test_canonical_variates_are_uncorrelated_and_of_unit_variance_and_those_of_turned_and_stretched_points_the_same():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, 3)) * (1, 2, 5)
    b = a @ rng.normal(size=(3, 3)) + 5
    (mean_a, to_a), (mean_b, to_b) = canonical_fit(a, b)
    first, second = (a - mean_a) @ to_a, (b - mean_b) @ to_b
    np.testing.assert_allclose(np.cov(first.T), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(first, second, atol=1e-8)


def test_latents_that_differ_by_an_affine_map_agree_and_shuffled_ones_do_not():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(1000, 2)) * (3, 1)
    b = a @ np.array([[0.2, -1.0, 0.3], [1.0, 0.5, 0.0]]) + 7
    figures, variates = latent_agreement(a, b, 1)
    assert figures["canonical_correlations"] == pytest.approx([1, 1]) and figures["affine_r2"] == pytest.approx(1)
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
    figures, variates = latent_agreement(truth + 0.5 * rng.normal(size=truth.shape), truth + 0.5 * rng.normal(size=truth.shape), 1)
    assert figures["canonical_correlations"][0] == pytest.approx(0.8, abs=0.03) and figures["affine_r2"] == pytest.approx(0.64, abs=0.04)
    assert np.corrcoef(variates.T)[0, 1] == pytest.approx(0.8, abs=0.03)


def test_displacements_agree_by_their_direction_and_not_by_a_shift_that_all_particles_share():
    rng = np.random.default_rng(0)
    mode, amount = rng.normal(size=30), rng.normal(size=(600, 1))
    figures, each = field_agreement(amount * mode + 4, 2 * amount * mode - 1, 1)
    assert figures["displacement_correlation"] == pytest.approx(1, abs=0.02)
    assert abs(figures["shuffled"][0]) < 0.03 < figures["shuffled"][1] < 0.2
    assert each.shape == (2, 600)
    figures, _ = field_agreement(amount * mode, rng.normal(size=(600, 1)) * mode, 1)
    assert abs(figures["displacement_correlation"]) < 0.1


# ---- the sentence

SUPPORTED = dict(held_out=200, held_out_evidence=2.0, held_out_evidence_interval=[1.5, 2.5], motion_rms_angst=2.0)
STILL = dict(held_out_evidence=0.0, held_out_evidence_interval=[-0.1, 0.1], motion_rms_angst=0.02, share_of_motion=0.01)
AGREE = dict(displacement_correlation=0.8, shuffled=[0.01, 0.05])


def test_the_verdict_names_everything_that_was_run():
    assert verdict(SUPPORTED) == ("Heterogeneity supported: on particles that the networks never saw, the evidence over a single model is "
                                  "2 nats a particle (95 % interval 1.5 to 2.5).")
    told = verdict(dict(SUPPORTED, null=STILL, half_sets=AGREE))
    assert told.startswith("Heterogeneity supported: ") and told.endswith(
        "; homogeneous images treated alike move by 0.02 Å (1 % of 2 Å) and gain 0 nats (-0.1 to 0.1); networks trained on the two half "
        "sets agree on what each particle does (correlation 0.80; 0.01 between different particles).")


@pytest.mark.parametrize("change, because", [
    (dict(held_out_evidence_interval=[-0.1, 2.5], null=dict(STILL, held_out_evidence_interval=[-0.3, -0.2])),
     "(95 % interval -0.1 to 2.5), which does not exceed 0."),
    (dict(null=dict(STILL, share_of_motion=0.5)), "which is too close to what the particles give."),
    (dict(null=dict(STILL, held_out_evidence_interval=[1.0, 1.6])),
     "gain 0 nats (1 to 1.6), which is too close to what the particles give."),
    (dict(half_sets=dict(AGREE, displacement_correlation=0.2)),
     "do not agree on what each particle does (correlation 0.20; 0.01 between different particles)."),
])
def test_one_ground_against_is_enough_and_is_the_reason_given(change, because):
    told = verdict({**SUPPORTED, "null": STILL, "half_sets": AGREE, **change})
    assert told.startswith("Heterogeneity not supported: ") and told.endswith(because)


JUDGED = dict(AGREE, judged=4000, held_out_evidence=0.04, held_out_evidence_interval=[0.01, 0.07])
FAINT = dict(SUPPORTED, held_out_evidence=0.03, held_out_evidence_interval=[-0.05, 0.11])


def test_half_sets_that_gain_on_each_other_support_what_too_few_held_out_particles_cannot():
    still = dict(STILL, held_out_evidence_interval=[0.0, 0.0])
    told = verdict(dict(FAINT, null=still, half_sets=JUDGED))
    assert told.startswith("Heterogeneity supported: ") and (
        "is 0.03 nats a particle (95 % interval -0.05 to 0.11) and, of 4,000 particles by the network of the other half set, 0.04 (0.01 to "
        "0.07); homogeneous images") in told
    unsure = dict(JUDGED, held_out_evidence_interval=[-0.01, 0.07])
    for change in (dict(half_sets=unsure), dict(half_sets=AGREE), dict(half_sets=dict(JUDGED, displacement_correlation=0)),
                   dict(null=dict(STILL, held_out_evidence_interval=[0.0, 0.02]))):
        assert verdict({**FAINT, "null": still, "half_sets": JUDGED, **change}).startswith("Heterogeneity not supported: ")
    assert verdict(dict(SUPPORTED, half_sets=unsure)).startswith("Heterogeneity supported")


@pytest.mark.parametrize("change,advised", [(dict(), True), (dict(held_out_evidence=0.0), False), (dict(half_sets=JUDGED), False),
                                            (dict(evidence_over="the earlier stage alone"), False)])
def test_a_gain_of_which_held_out_particles_are_not_sure_is_told_how_more_of_them_judge(change, advised):
    told = verdict(dict(FAINT, **change))
    assert told.endswith("(95 % interval -0.05 to 0.11), which does not exceed 0 (with --half-sets all particles judge).") == advised


def test_a_handful_of_particles_cannot_support_anything():
    few = dict(SUPPORTED, held_out=LEAST_JUDGED - 1)
    assert verdict(few).startswith("Heterogeneity not supported: ")
    assert verdict(few).endswith(", of only 19 particles: at least 20 must be held out (with --half-sets all particles judge).")
    assert verdict(dict(few, half_sets=JUDGED)).startswith("Heterogeneity supported")
    assert verdict(dict(few, half_sets=dict(JUDGED, judged=LEAST_JUDGED - 1))).startswith("Heterogeneity not supported")
    assert verdict(dict(SUPPORTED, held_out=LEAST_JUDGED)).startswith("Heterogeneity supported")


def test_a_symmetry_that_the_neutral_model_does_not_have_speaks_against_whatever_was_found():
    assert verdict(dict(SUPPORTED, symmetry_correlation=0.95)).startswith("Heterogeneity supported")
    told = verdict(dict(SUPPORTED, symmetry_correlation=0.66))
    assert told.startswith("Heterogeneity not supported: the neutral model does not have the symmetry") and "by only 0.66" in told


def test_where_nothing_may_move_the_null_is_judged_by_its_evidence_alone():
    told = verdict(dict(SUPPORTED, null=dict(STILL, share_of_motion=None)))
    assert told.endswith("; homogeneous images treated alike gain 0 nats (-0.1 to 0.1).")


@pytest.mark.parametrize("resolution,holds", [(24.0, False), (40.0, True)])
def test_poses_as_uncertain_as_a_quarter_of_the_resolution_speak_against_whatever_was_found(resolution, holds):
    ball = np.random.default_rng(0).normal(0, 40, (4000, 3)).astype(np.float32)
    neutral = Mixture(ball, np.ones(4000, np.float32), np.ones(4000, np.float32))
    turned = Rotation.from_rotvec(np.random.default_rng(1).normal(0, 0.05, (400, 3))).apply
    blur = pose_blur(neutral, 0.05, 9.0)
    moved = np.concatenate([(turned(np.tile(c, (400, 1))) - c)[:, :2] for c in ball[:200]])
    assert blur == pytest.approx(np.sqrt(9.0**2 + np.mean(moved**2)), rel=0.02)
    told = verdict(dict(SUPPORTED, pose_error_deg=2.9, pose_error_angst=9.0, pose_blur_angst=blur, resolution_angst=resolution))
    assert told.startswith("Heterogeneity supported") == holds and ("may be errors of the poses" in told) != holds
