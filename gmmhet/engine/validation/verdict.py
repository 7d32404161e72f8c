"""The verdict: one sentence from everything that was run, and the grounds for it."""
import numpy as np

#: a null run may move this much of the real one, and half sets must agree at least so much, for heterogeneity to count as supported
MOST_SPURIOUS, LEAST_AGREEMENT = 0.2, 0.3
#: fewer particles that the networks never saw say nothing: an interval of a handful is no interval
LEAST_JUDGED = 20
#: below this correlation with itself turned, a neutral model is not taken for symmetric
SYMMETRY_DOUBT = 0.9
#: errors of the pose that move the molecule by a larger part of the resolution may be what is found
MOST_BLUR = 1 / 4


def verdict(found):
    """A plain sentence from everything that was run, and the grounds for it.

    Parameters
    ----------
    found : summary of a train run: held_out (how many), held_out_evidence and its interval, motion_rms_angst, of symmetric particles
        symmetry_correlation, where poses are uncertain pose_blur_angst, and, where they were run, null and half_sets.

    Returns
    -------
    str
    """
    grounds = [_gain_ground(found)]
    if "null" in found:
        grounds.append(_null_ground(found))
    if "half_sets" in found:
        own, chance = found["half_sets"]["displacement_correlation"], found["half_sets"]["shuffled"][1]
        words = "networks trained on the two half sets %s on what each particle does (correlation %.2f; %.2f between different particles)"
        shuffled = found["half_sets"]["shuffled"][0]
        grounds.append((own > max(chance, LEAST_AGREEMENT), words % ("agree", own, shuffled), words % ("do not agree", own, shuffled)))
    if "pose_blur_angst" in found and found["pose_blur_angst"] > MOST_BLUR * found["resolution_angst"]:
        grounds.append((False, "", (
            "the poses are uncertain by %.3g° and %.3g Å along each axis, which moves the molecule by %.2g Å, more than a quarter of the "
            "resolution (%.3g Å): what is found may be errors of the poses; refine the orientations first, or train to a coarser "
            "--resolution") % tuple(found[name] for name in ("pose_error_deg", "pose_error_angst", "pose_blur_angst", "resolution_angst"))))
    if found.get("symmetry_correlation", 1.0) < SYMMETRY_DOUBT:
        grounds.append((False, "", "the neutral model does not have the symmetry that is asked for (turned by it, it correlates with "
                        "itself by only %.2f), so that copies of a particle say different things" % found["symmetry_correlation"]))
    against = [words for holds, _, words in grounds if not holds]
    if against:
        return "Heterogeneity not supported: %s." % "; ".join(against)
    return "Heterogeneity supported: %s." % "; ".join(words for _, words, _ in grounds)


def pose_blur(neutral, sigma_angle, sigma_shift):
    """How far errors of the pose move the molecule in images (Å, root mean square along an axis): standard deviations of the angle about
    each axis (radians) and of the shift along each (Å)."""
    radius = np.average(np.sum(neutral.centers**2, 1), weights=neutral.amplitudes)
    return float(np.sqrt(sigma_shift**2 + sigma_angle**2 * radius * 2 / 3))


def _lowest(found):
    """The lower end of what is gained on unseen particles: of the training, and of its half sets where they judged each other."""
    half = found.get("half_sets", {})
    judging = [(found["held_out"], found), *([(half["judged"], half)] if "judged" in half else [])]
    return max((part["held_out_evidence_interval"][0] for count, part in judging if count >= LEAST_JUDGED), default=-np.inf)


def _gain_ground(found):
    """Whether unseen particles are better explained, by the training or by its half sets, and the words for either case."""
    gain = "on particles that the networks never saw, the evidence over %s is %.3g nats a particle (95 %% interval %.3g to %.3g)" % (
        found.get("evidence_over", "a single model"), found["held_out_evidence"], *found["held_out_evidence_interval"])
    half = found.get("half_sets", {})
    if "judged" in half:
        gain += " and, of %s particles by the network of the other half set, %.3g (%.3g to %.3g)" % (
            "{:,}".format(half["judged"]), half["held_out_evidence"], *half["held_out_evidence_interval"])
    doubt = ", which does not exceed 0"
    if np.isneginf(_lowest(found)):
        doubt = ", of only %d particles: at least %d must be held out" % (found["held_out"], LEAST_JUDGED)
    alone = found["held_out_evidence"] > 0 and not {"half_sets", "evidence_over"} & set(found)
    return _lowest(found) > 0, gain, gain + doubt + alone * " (with --half-sets all particles judge)"


def _null_ground(found):
    """Whether the null run moves and gains little enough, and the words for either case."""
    null = found["null"]
    still = null["share_of_motion"] is None or null["share_of_motion"] <= MOST_SPURIOUS
    apart = _lowest(found) > null["held_out_evidence_interval"][1]
    moved = "" if null["share_of_motion"] is None else "move by %.2g Å (%.2g %% of %.3g Å) and " % (
        null["motion_rms_angst"], 100 * null["share_of_motion"], found["motion_rms_angst"])
    words = "homogeneous images treated alike %sgain %.2g nats (%.2g to %.2g)" % (
        moved, null["held_out_evidence"], *null["held_out_evidence_interval"])
    return still and apart, words, words + ", which is too close to what the particles give"
