"""Scores of a result against the truth: always quoted as a fraction of the oracle's."""
from typing import Callable, Dict, Mapping, Optional

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from gmmhet.engine.simulate.phantom import STATES, SYMMETRIC

#: fewer values are not scored: half of them could not settle a quadratic fit
FEWEST_VALUES = 50
#: random halvings of the particles that information is the mean over, and neighbours that it is regressed on
HALVINGS, NEIGHBOURS = 8, 50

Scores = Dict[str, Optional[float]]


def information(z: np.ndarray, truth: np.ndarray, seed: int = 0) -> float:
    """R^2 of the truth [n] regressed on z [n, D]: the better of a quadratic fit and 50 nearest neighbours.

    Fitted on one random half of the particles and scored on the other, and the mean over HALVINGS of these,
    as of one alone it depends on which half it is. Neighbours are taken in z as it is: scaled to one
    variance, dimensions that hold nothing would count as much as those that hold everything.
    """
    rng, neighbours = np.random.default_rng(seed), max(1, min(NEIGHBOURS, len(z) // 8))
    quadratic = make_pipeline(StandardScaler(), PolynomialFeatures(2), LinearRegression())
    models = (quadratic, KNeighborsRegressor(neighbours))
    r2 = []
    for _ in range(HALVINGS):
        order = rng.permutation(len(z))
        fit, test = order[:len(z) // 2], order[len(z) // 2:]
        r2.append([m.fit(z[fit], truth[fit]).score(z[test], truth[test]) for m in models])
    return float(np.mean(r2, 0).max())


def rank_correlation(z: np.ndarray, truth: np.ndarray) -> float:
    """Absolute Spearman correlation of the first principal axis of z [n, D] with the truth [n]; 0 where all z
    are the same."""
    offset = z - z.mean(0)
    if not np.any(offset):
        return 0.0
    axis = np.linalg.svd(offset, full_matrices=False)[2][0]
    return float(abs(spearmanr(offset @ axis, truth)[0]))


def score_or_none(measure: Callable[[np.ndarray, np.ndarray], float], truth: np.ndarray,
                  estimate: np.ndarray) -> Optional[float]:
    """``measure(estimate, truth)`` of an estimate [n, ...] and the truth [n]; None for fewer than
    `FEWEST_VALUES` values, or all of them alike."""
    return float(measure(estimate, truth)) if len(truth) >= FEWEST_VALUES and np.ptp(truth) > 0 else None


def fraction_of_oracle(figure: Optional[float], oracle: Optional[float]) -> Optional[float]:
    """A score as a fraction of the oracle's; None where either is not known, or the oracle itself finds
    nothing."""
    return figure / oracle if figure is not None and oracle is not None and oracle > 0 else None


def score_all(kind: str, truth: Mapping[str, np.ndarray], estimate: Mapping[str, np.ndarray]) -> Scores:
    """Scores of an estimate (latents or labels) of a simulated set.

    Parameters
    ----------
    kind : hinge, assembly, mixed, c3, d2 or null.
    truth : arrays of `oracle.truths`.
    estimate : z [n, D] (hinge), z [n, units, D] (c3, d2), state [n] (assembly), or z and state (mixed).

    Returns
    -------
    Named figures, each None where the set is too small or too uniform for it (see `score_or_none`).
    """
    if kind == "hinge":
        return _angle_scores(truth["angle"], estimate["z"])
    if kind in SYMMETRIC:
        z = estimate["z"].reshape(-1, estimate["z"].shape[-1])
        return _angle_scores(truth["unit_angles"].reshape(-1), z)
    scores: Scores = {}
    if kind in STATES:
        index = score_or_none(adjusted_rand_score, truth["state"], estimate["state"])
        scores["adjusted_rand_index"] = index
    if kind == "mixed":
        arm = np.isfinite(truth["angle"])
        scores["r2"] = score_or_none(information, truth["angle"][arm], estimate["z"][arm])
    return scores


def _angle_scores(angle: np.ndarray, z: np.ndarray) -> Scores:
    """How well z [n, D] tells an angle [n]."""
    return dict(r2=score_or_none(information, angle, z),
                rank_correlation=score_or_none(rank_correlation, angle, z))


def oracle_scores(kind: str, truth: Mapping[str, np.ndarray], estimate: Mapping[str, np.ndarray]) -> Scores:
    """The oracle's figures under the same names as `score_all`."""
    if kind == "hinge":
        return score_all(kind, truth, dict(z=estimate["angle"][:, None]))
    if kind == "mixed":
        return score_all(kind, truth, dict(state=estimate["state"], z=estimate["angle"][:, None]))
    if kind in SYMMETRIC:
        figures = score_all(kind, truth, dict(z=estimate["unit_angles"][..., None]))
        figures["unit_identified"] = float(np.mean(estimate["unit"] == truth["unit"]))
        return figures
    return score_all(kind, truth, estimate)


def figure_text(figure: Optional[float]) -> str:
    """A figure as text; unknown where there is none."""
    return "unknown" if figure is None else "%.3f" % figure
