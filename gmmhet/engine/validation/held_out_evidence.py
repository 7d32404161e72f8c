"""How much better particles that the networks never saw are explained with the landscape. NumPy alone."""
from typing import NamedTuple

import numpy as np

#: folds of the cross-validations
FOLDS = 5


def landscape_weight(gain: np.ndarray, steps: int = 60) -> float:
    """Share w of the particles that come from the landscape and not from the single model: it maximises ``sum
    log(1 - w + w exp(gain))``.

    0 where the maximum does not pay for the number w itself, half the logarithm of how many particles there
    are (Schwarz 1978).

    Parameters
    ----------
    gain : [n], log evidence of the landscape over the single model, nats.
    steps : of bisection; the maximum is unique.
    """
    excess = np.expm1(np.clip(gain, -30.0, 500.0))

    def slope(w: float) -> float:
        return float(np.sum(excess / (1 + w * excess)))

    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    weight = 1.0 if slope(1.0) >= 0 else low
    return weight if np.sum(weighted_gain(gain, weight)) > 0.5 * np.log(len(gain)) else 0.0


def weighted_gain(gain: np.ndarray, weight: float) -> np.ndarray:
    """``log(1 - w + w exp(gain))`` of gains [n]."""
    return gain if weight == 1 else np.log1p(weight * np.expm1(np.minimum(gain, 500.0)))


class HeldOutEvidence(NamedTuple):
    """What a landscape adds on held-out particles, nats.

    Attributes
    ----------
    gain : [n], of each particle over the single model, the landscape being taken with its weight.
    weight : mean share of the particles that come from the landscape.
    landscape_alone : mean log evidence of the landscape over the single model.
    """

    gain: np.ndarray
    weight: float
    landscape_alone: float


def held_out_evidence(evidence: np.ndarray, singles: np.ndarray, seed: int) -> HeldOutEvidence:
    """How much better held-out particles are explained with the landscape at hand than by the best single
    model.

    The landscape's plain mean log evidence over a single model is no test that 0 can pass: where all
    particles are alike, its expectation is minus the divergence of what was learned from the truth, so that
    it lies below 0, and significantly so once there are many particles. Asked here is instead what the
    landscape ADDS: every particle comes from the single model, or, with probability w, from the landscape. w
    and the better single model are chosen on the other folds, so nothing is scored on the particles that it
    was chosen with, and w has to pay for itself there. Alike particles mostly give w = 0 and a gain of
    exactly 0; whatever w, in expectation it does not exceed 0 (``E log(1 - w + w p1/p0) <= log E(1 - w + w
    p1/p0) = 0``). A real landscape has w near 1 and keeps its gain.

    Parameters
    ----------
    evidence : [n], log evidence of held-out particles under the landscape, nats.
    singles : [S, n], their log-likelihood under single models.
    seed : of the folds.
    """
    evidence, singles = np.asarray(evidence, float), np.asarray(singles, float)
    fold = np.random.default_rng([seed, 8]).permutation(len(evidence)) % FOLDS
    gain, over, weights = np.zeros(len(evidence)), np.zeros(len(evidence)), []
    for number in range(min(FOLDS, len(evidence))):
        here = fold == number
        others = ~here if len(evidence) > 1 else here
        single = singles[np.argmax(singles[:, others].mean(1))]
        over[here] = evidence[here] - single[here]
        weights.append(landscape_weight((evidence - single)[others]))
        gain[here] = weighted_gain(over[here], weights[-1])
    return HeldOutEvidence(gain, float(np.mean(weights)), float(over.mean()))


def bootstrap_interval(values: np.ndarray, seed: int, draws: int = 1000) -> tuple[float, float]:
    """95 % confidence interval of a mean, by bootstrap."""
    rng = np.random.default_rng([seed, 9])
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def axis_information(z: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """How much a particle's image tells about each axis of z on average: nats from the unit normal prior to
    its posterior [D].

    The Kullback-Leibler divergence of two normals, axis by axis. Next to 0 where an axis holds nothing, as no
    image tells of it then.

    Parameters
    ----------
    z : [n, D], posterior means as training has them; covariance : [n, D, D]. Particles whose z is not finite
        do not count.
    """
    variance = np.diagonal(np.asarray(covariance, float), axis1=1, axis2=2)
    nats = 0.5 * (variance + np.square(z, dtype=float) - 1 - np.log(variance))
    return nats[np.isfinite(nats).all(1)].mean(0)
