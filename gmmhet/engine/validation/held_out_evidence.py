"""Is the heterogeneity real? The statistics that every train run reports (METHOD.md section 7). NumPy alone."""
import numpy as np

#: folds of the cross-validations
FOLDS = 5


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


# ---- do two networks agree?


# ---- the sentence
