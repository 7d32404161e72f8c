"""The verdict: one sentence from everything that was run, with the grounds against where there are any."""
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.log import log_to
from gmmhet.engine.validation.verdict import FEWEST_UNSEEN, conclude, n_cross_validated, pose_blur, verdict

YES, NO = "Heterogeneity supported: ", "Heterogeneity not supported: "
SUPPORTED = dict(held_out=200, held_out_evidence=2.0, held_out_evidence_interval=[1.5, 2.5],
                 motion_rms_angst=2.0)
STILL = dict(held_out_evidence=0.0, held_out_evidence_interval=[-0.1, 0.1], motion_rms_angst=0.02,
             share_of_motion=0.01)
AGREE = dict(displacement_correlation=0.8, shuffled=[0.01, 0.05])
CROSS_VALIDATED = dict(AGREE, n_cross_validated=4000, held_out_evidence=0.04,
                       held_out_evidence_interval=[0.01, 0.07])
SLIGHT = dict(SUPPORTED, held_out_evidence=0.03, held_out_evidence_interval=[-0.05, 0.11])


def test_the_verdict_names_everything_that_was_run():
    assert verdict(SUPPORTED) == (
        "Heterogeneity supported: on particles that the networks never saw, the evidence over a single model "
        "is 2 nats a particle (95 % interval 1.5 to 2.5).")
    sentence = verdict(dict(SUPPORTED, null=STILL, half_sets=AGREE))
    assert sentence.startswith(YES) and sentence.endswith(
        "; homogeneous images treated alike move by 0.02 Å (1 % of 2 Å) and gain 0 nats (-0.1 to 0.1); "
        "networks trained on the two half sets agree on what each particle does (correlation 0.80; 0.01 "
        "between different particles).")


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
    sentence = verdict({**SUPPORTED, "null": STILL, "half_sets": AGREE, **change})
    assert sentence.startswith(NO) and sentence.endswith(because)


def test_half_sets_that_gain_on_each_other_support_what_too_few_held_out_particles_cannot():
    still = dict(STILL, held_out_evidence_interval=[0.0, 0.0])
    sentence = verdict(dict(SLIGHT, null=still, half_sets=CROSS_VALIDATED))
    assert sentence.startswith(YES) and (
        "is 0.03 nats a particle (95 % interval -0.05 to 0.11) and, of 4,000 particles by the network of the "
        "other half set, 0.04 (0.01 to 0.07); homogeneous images") in sentence
    unsure = dict(CROSS_VALIDATED, held_out_evidence_interval=[-0.01, 0.07])
    for change in (dict(half_sets=unsure), dict(half_sets=AGREE),
                   dict(half_sets=dict(CROSS_VALIDATED, displacement_correlation=0)),
                   dict(null=dict(STILL, held_out_evidence_interval=[0.0, 0.02]))):
        assert verdict({**SLIGHT, "null": still, "half_sets": CROSS_VALIDATED, **change}).startswith(NO)
    assert verdict(dict(SUPPORTED, half_sets=unsure)).startswith(YES)


@pytest.mark.parametrize("change,advised", [
    (dict(), True), (dict(held_out_evidence=0.0), False), (dict(half_sets=CROSS_VALIDATED), False),
    (dict(evidence_over="the earlier stage alone"), False)])
def test_a_gain_that_is_not_sure_is_followed_by_how_more_particles_can_judge(change, advised):
    sentence = verdict(dict(SLIGHT, **change))
    advice = "(95 % interval -0.05 to 0.11), which does not exceed 0 (with --half-sets all particles judge)."
    assert sentence.endswith(advice) == advised


def test_a_handful_of_particles_cannot_support_anything():
    few = dict(SUPPORTED, held_out=FEWEST_UNSEEN - 1)
    assert verdict(few).startswith(NO) and verdict(few).endswith(
        ", of only 19 particles: at least 20 must be held out (with --half-sets all particles judge).")
    assert verdict(dict(few, half_sets=CROSS_VALIDATED)).startswith(YES)
    few_in_half_sets = dict(CROSS_VALIDATED, n_cross_validated=FEWEST_UNSEEN - 1)
    assert verdict(dict(few, half_sets=few_in_half_sets)).startswith(NO)
    assert verdict(dict(SUPPORTED, held_out=FEWEST_UNSEEN)).startswith(YES)


def test_how_many_particles_half_sets_judged_is_read_from_summaries_of_older_versions_too():
    assert n_cross_validated(CROSS_VALIDATED) == n_cross_validated(dict(AGREE, judged=4000)) == 4000
    assert n_cross_validated(AGREE) == 0
    older = dict(CROSS_VALIDATED, judged=4000)
    del older["n_cross_validated"]
    assert verdict(dict(SLIGHT, half_sets=older)) == verdict(dict(SLIGHT, half_sets=CROSS_VALIDATED))


def test_a_symmetry_that_the_neutral_model_does_not_have_speaks_against_whatever_was_found():
    assert verdict(dict(SUPPORTED, symmetry_correlation=0.95)).startswith(YES)
    sentence = verdict(dict(SUPPORTED, symmetry_correlation=0.66))
    assert sentence.startswith(NO + "the neutral model does not have the symmetry")
    assert "by only 0.66" in sentence


def test_where_nothing_may_move_the_null_is_judged_by_its_evidence_alone():
    sentence = verdict(dict(SUPPORTED, null=dict(STILL, share_of_motion=None)))
    assert sentence.endswith("; homogeneous images treated alike gain 0 nats (-0.1 to 0.1).")


@pytest.mark.parametrize("resolution,holds", [(24.0, False), (40.0, True)])
def test_poses_as_uncertain_as_a_quarter_of_the_resolution_speak_against_it_all(resolution, holds):
    ball = np.random.default_rng(0).normal(0, 40, (4000, 3)).astype(np.float32)
    neutral = Mixture(ball, np.ones(4000, np.float32), np.ones(4000, np.float32))
    turned = Rotation.from_rotvec(np.random.default_rng(1).normal(0, 0.05, (400, 3))).apply
    blur = pose_blur(neutral, 0.05, 9.0)
    moved = np.concatenate([(turned(np.tile(c, (400, 1))) - c)[:, :2] for c in ball[:200]])
    assert blur == pytest.approx(np.sqrt(9.0**2 + np.mean(moved**2)), rel=0.02)
    sentence = verdict(dict(SUPPORTED, pose_error_deg=2.9, pose_error_angst=9.0, pose_blur_angst=blur,
                            resolution_angst=resolution))
    assert sentence.startswith(YES) == holds and ("may be errors of the poses" in sentence) != holds


def test_what_is_concluded_stands_in_summary_and_log_and_keeps_earlier_warnings(tmp_path):
    leakage = dict(r2=0.3, chance=0.01, p=0.005)
    summary = dict(SUPPORTED, seed=3, warnings=["an earlier one"], predicts={"defocus": leakage},
                   axis_information=[0.5, 0.012])
    log_to(str(tmp_path / "log.txt"))
    conclude(summary)
    log_to(None)
    log = (tmp_path / "log.txt").read_text()
    assert summary["verdict"] == verdict(summary) and summary["verdict"] in log
    assert summary["warnings"][0] == "an earlier one" and "predict the defocus" in summary["warnings"][1]
    for text in ("held-out evidence 2 nats a particle (95 % interval 1.5 to 2.5); decoded motion 2 Å rms",
                 "each axis of z, on particles left out: 0.5, 0.012",
                 "z predicts the defocus on particles left out: R² 0.300; chance reaches 0.010",
                 "WARNING " + summary["warnings"][1]):
        assert text in log
    assert log.count("an earlier one") == 0      # it was said when it was found
