"""Scores of a result against the truth: always quoted as a fraction of the oracle's."""
import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from gmmhet.engine.simulate.phantom import SYMMETRIC

#: fewer values are not scored: half of them could not settle a quadratic fit
FEWEST = 50
#: random halvings of the particles that information is the mean over
HALVINGS = 8


def information(z, truth, seed=0):
    """R^2 of the truth regressed on z: the better of a quadratic fit and 50 nearest neighbours.

    Fitted on one random half of the particles and scored on the other, and the mean over HALVINGS of these, as of one alone it depends
    on which half it is. Neighbours are taken in z as it is: scaled to one variance, dimensions that hold nothing would count as much as
    those that hold everything.

    Parameters
    ----------
    z : array [n, D].
    truth : array [n].
    """
    rng, neighbours = np.random.default_rng(seed), max(1, min(50, len(z) // 8))
    models = (make_pipeline(StandardScaler(), PolynomialFeatures(2), LinearRegression()), KNeighborsRegressor(neighbours))
    found = []
    for _ in range(HALVINGS):
        order = rng.permutation(len(z))
        fitted, left = order[:len(z) // 2], order[len(z) // 2:]
        found.append([m.fit(z[fitted], truth[fitted]).score(z[left], truth[left]) for m in models])
    return float(np.mean(found, 0).max())


def rank_correlation(z, truth):
    """Absolute Spearman correlation of the first principal axis of z [n, D] with the truth [n]; 0 where all z are the same."""
    centred = z - z.mean(0)
    if not np.any(centred):
        return 0.0
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    return float(abs(spearmanr(centred @ axis, truth)[0]))


def scored(measure, truth, estimate):
    """``measure(estimate, truth)`` of an estimate [n, ...] and the truth [n]; None for fewer than `FEWEST` values, or all of them alike."""
    return float(measure(estimate, truth)) if len(truth) >= FEWEST and np.ptp(truth) > 0 else None


def fraction(figure, oracle):
    """A score as a fraction of the oracle's; None where either is not known, or the oracle itself finds nothing."""
    return figure / oracle if figure is not None and oracle is not None and oracle > 0 else None


def score_all(kind, truth, estimate):
    """Scores of an estimate (latents or labels) of a simulated set.

    Parameters
    ----------
    kind : hinge, assembly, mixed, c3, d2 or null.
    truth : dict of `oracle.truths`.
    estimate : dict with z [n, D] (hinge), z [n, units, D] (c3, d2), state [n] (assembly), or z and state (mixed).

    Returns
    -------
    dict of named figures, each None where the set is too small or too uniform for it (see `scored`).
    """
    if kind == "hinge":
        return {name: scored(measure, truth["angle"], estimate["z"]) for name, measure in OF_ANGLES.items()}
    if kind == "assembly":
        return dict(adjusted_rand_index=scored(adjusted_rand_score, truth["state"], estimate["state"]))
    if kind == "mixed":
        arm = np.isfinite(truth["angle"])
        return dict(adjusted_rand_index=scored(adjusted_rand_score, truth["state"], estimate["state"]),
                    r2=scored(information, truth["angle"][arm], estimate["z"][arm]))
    if kind in SYMMETRIC:
        z = estimate["z"].reshape(-1, estimate["z"].shape[-1])
        return {name: scored(measure, truth["unit_angles"].reshape(-1), z) for name, measure in OF_ANGLES.items()}
    return {}


OF_ANGLES = {"r2": information, "rank_correlation": rank_correlation}


def oracle_scores(kind, truth, estimate):
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


def said(figure):
    """A figure in words; unknown where there is none."""
    return "unknown" if figure is None else "%.3f" % figure
