"""Is the heterogeneity real? The statistics that every train run reports (METHOD.md section 7). NumPy alone."""
import numpy as np

#: folds of the cross-validations
FOLDS = 5
#: most particles, Gaussians and permutations looked at
MOST_POINTS, MOST_PARTICLES, MOST_GAUSSIANS, PERMUTATIONS = 2000, 20000, 1000, 200
#: a null run may move this much of the real one, and half sets must agree at least so much, for heterogeneity to count as supported
MOST_SPURIOUS, LEAST_AGREEMENT = 0.2, 0.3
#: fewer particles that the networks never saw say nothing: an interval of a handful is no interval
LEAST_JUDGED = 20
#: below this correlation with itself turned, a neutral model is not taken for symmetric
SYMMETRY_DOUBT = 0.9
#: errors of the pose that move the molecule by a larger part of the resolution may be what is found
MOST_BLUR = 1 / 4
#: z may tell so much (R^2) of how a particle was seen: Laplace's posteriors are sound only nearly
TOLERATED_R2 = 0.05


def landscape_weight(gain, steps=60):
    """Share w of the particles that come from the landscape and not from the single model: it maximises ``sum log(1 - w + w exp(gain))``.

    0 where the maximum does not pay for the number w itself, half the logarithm of how many particles there are (Schwarz 1978).

    Parameters
    ----------
    gain : [n], log evidence of the landscape over the single model, nats.
    steps : int, of bisection; the maximum is unique.
    """
    excess = np.expm1(np.clip(gain, -30.0, 500.0))

    def slope(w):
        return np.sum(excess / (1 + w * excess))

    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    found = 1.0 if slope(1.0) >= 0 else low
    return found if np.sum(weighted_gain(gain, found)) > 0.5 * np.log(len(gain)) else 0.0


def weighted_gain(gain, weight):
    """``log(1 - w + w exp(gain))`` of gains [n]."""
    return gain if weight == 1 else np.log1p(weight * np.expm1(np.minimum(gain, 500.0)))


def held_out_evidence(evidence, singles, seed):
    """How much better held-out particles are explained with the landscape at hand than by the best single model.

    The landscape's plain mean log evidence over a single model is no test that 0 can pass: where all particles are alike, its expectation
    is minus the divergence of what was learned from the truth, so that it lies below 0, and significantly so once there are many particles.
    Asked here is instead what the landscape ADDS: every particle comes from the single model, or, with probability w, from the landscape.
    w and the better single model are chosen on the other folds, so nothing is scored on the particles that it was chosen with, and w has to
    pay for itself there. Alike particles mostly give w = 0 and a gain of exactly 0; whatever w, in expectation it does not exceed 0
    (``E log(1 - w + w p1/p0) <= log E(1 - w + w p1/p0) = 0``). A real landscape has w near 1 and keeps its gain.

    Parameters
    ----------
    evidence : [n], log evidence of held-out particles under the landscape, nats.
    singles : [S, n], their log-likelihood under single models.
    seed : int

    Returns
    -------
    gain : [n], nats; weight : float, mean of w; plain : float, mean log evidence over the single model.
    """
    evidence, singles = np.asarray(evidence, float), np.asarray(singles, float)
    fold = np.random.default_rng([seed, 8]).permutation(len(evidence)) % FOLDS
    gain, over, weights = np.zeros(len(evidence)), np.zeros(len(evidence)), []
    for number in range(min(FOLDS, len(evidence))):
        here, others = fold == number, (fold != number) if len(evidence) > 1 else fold == number
        single = singles[np.argmax(singles[:, others].mean(1))]
        over[here] = evidence[here] - single[here]
        weights.append(landscape_weight((evidence - single)[others]))
        gain[here] = weighted_gain(over[here], weights[-1])
    return gain, float(np.mean(weights)), float(over.mean())


def bootstrap_interval(values, seed, draws=1000):
    """95 % confidence interval of a mean, by bootstrap."""
    rng = np.random.default_rng([seed, 9])
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    return tuple(float(v) for v in np.percentile(means, (2.5, 97.5)))


def evenly(count, most):
    """At most `most` of `count` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def spread_motion(model, z, batch_size=100):
    """How far the particles' models lie from their mean: of the Gaussians that may vary, over a sample of latent points.

    From their mean and not from the neutral model, because a shift that all particles share is no heterogeneity.

    Parameters
    ----------
    model : HeterogeneityModel.
    z : [n, D]

    Returns
    -------
    motion_rms_angst : float.
    amplitude_rms : float, relative to the root mean square amplitude.
    """
    chosen = np.asarray(z, np.float32)[evenly(len(z), MOST_POINTS)]
    total, square = [0.0, 0.0], [0.0, 0.0]
    for i in range(0, len(chosen), batch_size):
        decoded = model.decode(chosen[i:i + batch_size])[:2]
        for k, part in enumerate(decoded):
            part = np.asarray(part, float)[:, model.free]
            total[k], square[k] = total[k] + part.sum(0), square[k] + (part**2).sum(0)
    moved, changed = (np.maximum(s / len(chosen) - (t / len(chosen)) ** 2, 0) for t, s in zip(total, square))
    scale = np.mean(square[1]) / len(chosen)
    return float(np.sqrt(np.mean(moved.sum(-1)))), float(np.sqrt(np.mean(changed) / scale)) if scale > 0 else 0.0


def axis_information(z, covariance):
    """How much a particle's image tells about each axis of z on average: nats from the unit normal prior to its posterior [D].

    The Kullback-Leibler divergence of two normals, axis by axis. Next to 0 where an axis holds nothing, as no image tells of it then.

    Parameters
    ----------
    z : [n, D], posterior means as training has them; covariance : [n, D, D]. Particles whose z is not finite do not count.
    """
    variance = np.diagonal(np.asarray(covariance, float), axis1=1, axis2=2)
    nats = 0.5 * (variance + np.square(z, dtype=float) - 1 - np.log(variance))
    return nats[np.isfinite(nats).all(1)].mean(0)


# ---- does z tell how a particle was seen?

def view_targets(rotation):
    """What a viewing direction is predicted by: the view axis in the molecule's frame (odd) and its quadratic terms (even), [..., 8].

    The even terms see what the odd ones cannot: a landscape that splits side views from top views, seen from either end.
    """
    x, y, z = np.moveaxis(np.asarray(rotation, float)[..., 2, :], -1, 0)
    return np.stack([x, y, z, x * y, y * z, z * x, x**2 - y**2, 3 * z**2 - 1], axis=-1)


def _quadratic(z):
    """Constant, linear and quadratic terms (squares alone for more than ten dimensions) of standardised z [n, D]."""
    z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)
    pairs = np.stack(np.triu_indices(z.shape[1])) if z.shape[1] <= 10 else np.tile(np.arange(z.shape[1]), (2, 1))
    return np.concatenate([np.ones((len(z), 1)), z, z[:, pairs[0]] * z[:, pairs[1]]], axis=1)


def posterior_draw(z, covariance, seed):
    """One random draw of each posterior, [n, D] of means [n, D] and covariances [n, D, D].

    Means shrink towards the prior's where an image tells little, so that their spread alone betrays defocus and view. Draws of sound
    posteriors are distributed like the prior, however much each image tells: what they still tell of the view is no shrinkage.
    """
    variance, axes = np.linalg.eigh(np.asarray(covariance, float))
    noise = np.random.default_rng([seed, 16]).normal(size=np.shape(z)) * np.sqrt(np.maximum(variance, 0))
    return np.asarray(z, float) + np.einsum("nij,nj->ni", axes, noise)


def predictability(z, targets, seed):
    """R^2 with which z predicts how a particle was seen, on particles left out of the regression, and what chance gives.

    Ridge regression on quadratic terms, five folds, targets standardised; chance: the same after the particles' targets were permuted.

    Parameters
    ----------
    z : [P, C, D], of P particles with C symmetry copies.
    targets : [P, C, T]
    seed : int

    Returns
    -------
    dict: r2, chance (99th percentile of permutations), p (share of permutations that reach r2).
    """
    rng = np.random.default_rng([seed, 10])
    if len(z) > MOST_PARTICLES:
        chosen = np.sort(rng.permutation(len(z))[:MOST_PARTICLES])
        z, targets = z[chosen], targets[chosen]
    (particles, copies), width = z.shape[:2], targets.shape[-1]
    flat = targets.reshape(-1, width)
    deviation = flat.std(0)
    varies = deviation > 1e-9 * (1 + np.abs(flat.mean(0)))
    if particles < 2 * FOLDS or not varies.any():
        return dict(r2=0.0, chance=0.0, p=1.0)
    targets = ((targets - flat.mean(0)) / np.where(varies, deviation, 1))[..., varies]
    x = _quadratic(z.reshape(-1, z.shape[-1])).reshape(particles, copies, -1)
    fold = rng.permutation(particles) % FOLDS
    solved = []
    for number in range(FOLDS):
        learned, scored = (x[chosen].reshape(-1, x.shape[-1]) for chosen in (fold != number, fold == number))
        solved.append((np.linalg.solve(learned.T @ learned + np.eye(x.shape[-1]), learned.T), scored))

    def score(y):
        lost = 0.0
        for number, (solution, scored) in enumerate(solved):
            learned, wanted = (y[chosen].reshape(-1, y.shape[-1]) for chosen in (fold != number, fold == number))
            lost += np.sum((wanted - scored @ (solution @ learned)) ** 2)
        return 1 - lost / np.sum(y**2)

    r2 = float(score(targets))
    by_chance = np.array([score(targets[rng.permutation(particles)]) for _ in range(PERMUTATIONS)])
    return dict(r2=r2, chance=float(np.quantile(by_chance, 0.99)), p=float((1 + np.sum(by_chance >= r2)) / (1 + PERMUTATIONS)))


def seen_words(told):
    """What z tells of how particles were seen, and what chance does (see `predictability`), in words."""
    return "R² %.3f; chance reaches %.3f" % (max(told["r2"], 0), max(told["chance"], 0))


def seen_warnings(seen):
    """Sentences about what z tells of how particles were seen; `seen` : dict of words to `predictability`."""
    found = []
    for words, told in seen.items():
        if told["r2"] > max(told["chance"], TOLERATED_R2):
            found.append("The latent points predict the %s (R² %.2f on particles left out, chance %.2f): part of what looks like "
                         "heterogeneity may be how the particles were seen. With preferred orientations a conformation that favours the "
                         "ice on one side does the same." % (
                             words, told["r2"], max(told["chance"], 0)))
    return found


# ---- do two networks agree?

def canonical_fit(a, b):
    """Affine maps of a [n, D] and b [n, E] to their canonical variates: two pairs (mean, matrix), the most correlated first."""
    def whitening(values):
        centred = values - values.mean(0)
        size, axes = np.linalg.eigh(np.atleast_2d(np.cov(centred, rowvar=False)))
        kept = size > 1e-10 * size.max()
        return axes[:, kept] / np.sqrt(size[kept]), centred

    (wa, ca), (wb, cb) = whitening(np.asarray(a, float)), whitening(np.asarray(b, float))
    u, _, vt = np.linalg.svd((ca @ wa).T @ (cb @ wb))
    return (np.mean(a, 0), wa @ u), (np.mean(b, 0), wb @ vt.T)


def latent_agreement(a, b, seed):
    """Agreement of the latent points of the same particles under two networks, whose axes may differ.

    Maps are fitted on one half of the particles and scored on the other.

    Parameters
    ----------
    a, b : [n, D]

    Returns
    -------
    figures : dict: canonical_correlations, list of D, with 0 for dimensions in which a network says nothing; affine_r2, of one network's
        points predicted from the other's, mean of both ways.
    variates : [m, 2], first canonical variate of either network, of the particles scored.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    order = np.random.default_rng([seed, 12]).permutation(len(a))
    fitted, scored = order[:len(a) // 2], order[len(a) // 2:]
    (mean_a, to_a), (mean_b, to_b) = canonical_fit(a[fitted], b[fitted])
    first, second = (a[scored] - mean_a) @ to_a, (b[scored] - mean_b) @ to_b
    correlations = [correlation(first[:, i], second[:, i]) for i in range(min(first.shape[1], second.shape[1]))]
    correlations += [0.0] * (a.shape[1] - len(correlations))
    r2 = [affine_r2(x, y, fitted, scored) for x, y in ((a, b), (b, a))]
    return dict(canonical_correlations=correlations, affine_r2=float(np.mean(r2))), np.stack([first[:, 0], second[:, 0]], axis=1)


def correlation(x, y):
    """Pearson's correlation; 0 where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / size) if size > 0 else 0.0


def affine_r2(x, y, fitted, scored):
    """R^2 over all columns of y [n, E] from an affine map of x [n, D], fitted and scored on the given rows."""
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    solution = np.linalg.lstsq(design[fitted], y[fitted], rcond=None)[0]
    lost = np.sum((y[scored] - design[scored] @ solution) ** 2)
    total = np.sum((y[scored] - y[scored].mean(0)) ** 2)
    return float(1 - lost / total) if total > 0 else 0.0


def field(model, z, moves, batch_size=100):
    """What is decoded of a sample of the Gaussians that may vary, [n, K]: their positions (Å) where something `moves`, else amplitudes."""
    free = np.flatnonzero(model.free)
    free = free[evenly(len(free), MOST_GAUSSIANS)]
    found = [np.asarray(model.decode(z[i:i + batch_size])[0 if moves else 1])[:, free] for i in range(0, len(z), batch_size)]
    return np.concatenate(found).reshape(len(z), -1).astype(np.float32)


def field_agreement(a, b, seed):
    """Correlation of the displacement fields that two networks decode for the same particles.

    Each network's field is taken from its own mean over the particles: what they share is no heterogeneity.

    Parameters
    ----------
    a, b : [n, K]

    Returns
    -------
    figures : dict: displacement_correlation, mean over particles; shuffled, the same between different particles: mean and 99th percentile.
    each : [2, n], correlation of every particle with itself, and with another one.
    """
    a, b = (part - part.mean(0) for part in (a, b))
    a, b = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-20) for part in (a, b))
    rng = np.random.default_rng([seed, 13])
    same = np.sum(a * b, axis=1)
    others = [np.sum(a * b[rng.permutation(len(b))], axis=1) for _ in range(50)]
    means = np.mean(others, axis=1)
    figures = dict(displacement_correlation=float(same.mean()), shuffled=[float(means.mean()), float(np.quantile(means, 0.99))])
    return figures, np.stack([same, others[0]])


# ---- the sentence

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
