"""The verdict: one sentence from everything that was run, and the grounds for it."""
from typing import Any, NamedTuple

import numpy as np

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.log import log
from gmmhet.engine.training.inputs import SYMMETRY_DOUBT
from gmmhet.engine.validation.leakage import leakage_text, leakage_warnings

#: a null run may move this much of the real one, for heterogeneity to count as supported
MOST_SPURIOUS = 0.2
#: and half sets must agree at least so much
LEAST_AGREEMENT = 0.3
#: fewer particles that the networks never saw say nothing: an interval of a handful is no interval
FEWEST_UNSEEN = 20
#: errors of the pose that move the molecule by a larger part of the resolution may pass for motion
MOST_BLUR = 1 / 4


class Ground(NamedTuple):
    """Something that speaks for heterogeneity or against it, and the text of either case."""

    holds: bool
    support: str
    doubt: str


def verdict(summary: dict[str, Any]) -> str:
    """A plain sentence from everything that was run, and the grounds for it.

    Parameters
    ----------
    summary : of a train run: held_out (how many), held_out_evidence and its interval, motion_rms_angst, of
        symmetric particles symmetry_correlation, where poses are uncertain pose_blur_angst, and, where they
        were run, null and half_sets.
    """
    grounds = [_gain_ground(summary)]
    if "null" in summary:
        grounds.append(_null_ground(summary))
    if "half_sets" in summary:
        grounds.append(_half_set_ground(summary["half_sets"]))
    if "pose_blur_angst" in summary and summary["pose_blur_angst"] > MOST_BLUR * summary["resolution_angst"]:
        grounds.append(Ground(False, "", (
            "the poses are uncertain by %.3g° and %.3g Å along each axis, which moves the molecule by %.2g "
            "Å, more than a quarter of the resolution (%.3g Å): what is found may be errors of the poses; "
            "refine the orientations first, or train to a coarser "
            "--resolution") % tuple(summary[name] for name in (
                "pose_error_deg", "pose_error_angst", "pose_blur_angst", "resolution_angst"))))
    if summary.get("symmetry_correlation", 1.0) < SYMMETRY_DOUBT:
        grounds.append(Ground(False, "", (
            "the neutral model does not have the symmetry that is asked for (turned by it, it correlates "
            "with itself by only %.2f), so "
            "that copies of a particle say different things") % summary["symmetry_correlation"]))
    doubts = [ground.doubt for ground in grounds if not ground.holds]
    if doubts:
        return "Heterogeneity not supported: %s." % "; ".join(doubts)
    return "Heterogeneity supported: %s." % "; ".join(ground.support for ground in grounds)


def pose_blur(neutral: Mixture, sigma_angle: float, sigma_shift: float) -> float:
    """How far errors of the pose move the molecule in images (Å, root mean square along an axis): standard
    deviations of the angle about each axis (radians) and of the shift along each (Å)."""
    radius2 = np.average(np.sum(neutral.centers**2, 1), weights=neutral.amplitudes)
    return float(np.sqrt(sigma_shift**2 + sigma_angle**2 * radius2 * 2 / 3))


def n_cross_validated(half_sets: dict[str, Any]) -> int:
    """Particles that the network of the other half set judged; 0 where none did. Runs of older versions
    called it `judged`."""
    return int(half_sets.get("n_cross_validated", half_sets.get("judged", 0)))


def _lowest_gain(summary: dict[str, Any]) -> float:
    """The lower end of what is gained on unseen particles: of the training, and of its half sets where they
    judged each other; -inf of too few."""
    half = summary.get("half_sets", {})
    judging = [(summary["held_out"], summary), (n_cross_validated(half), half)]
    return max((figures["held_out_evidence_interval"][0]
                for count, figures in judging if count >= FEWEST_UNSEEN), default=-np.inf)


def _gain_ground(summary: dict[str, Any]) -> Ground:
    """Whether unseen particles are better explained, by the training or by its half sets."""
    gain = ("on particles that the networks never saw, the evidence over %s is %.3g nats a particle (95 %% "
            "interval %.3g to %.3g)") % (
        summary.get("evidence_over", "a single model"), summary["held_out_evidence"],
        *summary["held_out_evidence_interval"])
    half = summary.get("half_sets", {})
    if n_cross_validated(half):
        gain += " and, of %s particles by the network of the other half set, %.3g (%.3g to %.3g)" % (
            "{:,}".format(n_cross_validated(half)), half["held_out_evidence"],
            *half["held_out_evidence_interval"])
    doubt = ", which does not exceed 0"
    if np.isneginf(_lowest_gain(summary)):
        doubt = ", of only %d particles: at least %d must be held out" % (summary["held_out"], FEWEST_UNSEEN)
    if summary["held_out_evidence"] > 0 and not {"half_sets", "evidence_over"} & set(summary):
        doubt += " (with --half-sets all particles judge)"
    return Ground(_lowest_gain(summary) > 0, gain, gain + doubt)


def _null_ground(summary: dict[str, Any]) -> Ground:
    """Whether the null run moves and gains little enough."""
    null = summary["null"]
    still = null["share_of_motion"] is None or null["share_of_motion"] <= MOST_SPURIOUS
    apart = _lowest_gain(summary) > null["held_out_evidence_interval"][1]
    motion = "" if null["share_of_motion"] is None else "move by %.2g Å (%.2g %% of %.3g Å) and " % (
        null["motion_rms_angst"], 100 * null["share_of_motion"], summary["motion_rms_angst"])
    text = "homogeneous images treated alike %sgain %.2g nats (%.2g to %.2g)" % (
        motion, null["held_out_evidence"], *null["held_out_evidence_interval"])
    return Ground(still and apart, text, text + ", which is too close to what the particles give")


def _half_set_ground(half: dict[str, Any]) -> Ground:
    """Whether the networks of the two half sets agree."""
    agreement, (shuffled, chance) = half["displacement_correlation"], half["shuffled"]
    text = ("networks trained on the two half sets %s on what each particle does (correlation %.2f; %.2f "
            "between different particles)")
    return Ground(agreement > max(chance, LEAST_AGREEMENT), text % ("agree", agreement, shuffled),
                  text % ("do not agree", agreement, shuffled))


def conclude(summary: dict[str, Any]) -> None:
    """Add verdict and warnings to the summary of a train run, and say its figures in the log."""
    doubts = leakage_warnings(summary["predicts"])
    summary["verdict"], summary["warnings"] = verdict(summary), summary["warnings"] + doubts
    log.info("held-out evidence %.4g nats a particle (95 %% interval %.4g to %.4g); decoded motion %.3g Å "
             "rms; seed %d",
             summary["held_out_evidence"], *summary["held_out_evidence_interval"],
             summary["motion_rms_angst"], summary["seed"])
    if summary["axis_information"]:
        log.info("nats that an image tells about each axis of z, on particles left out: %s",
                 ", ".join("%.2g" % nats for nats in summary["axis_information"]))
    for name, leakage in summary["predicts"].items():
        log.info("z predicts the %s on particles left out: %s", name, leakage_text(leakage))
    for sentence in doubts:
        log.warning(sentence)
    log.info(summary["verdict"])
