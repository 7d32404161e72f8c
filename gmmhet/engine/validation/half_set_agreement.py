"""Do two networks, trained on the two half sets, agree?"""
from typing import Any, NamedTuple

import numpy as np


class AffineMap(NamedTuple):
    """``x -> (x - mean) matrix``."""

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) @ self.matrix


def canonical_fit(a: np.ndarray, b: np.ndarray) -> tuple[AffineMap, AffineMap]:
    """Affine maps of a [n, D] and b [n, E] to their canonical variates, the most correlated first (Hotelling
    1936)."""
    def whitening(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred = values - values.mean(0)
        size, axes = np.linalg.eigh(np.atleast_2d(np.cov(centred, rowvar=False)))
        kept = size > 1e-10 * size.max()
        return axes[:, kept] / np.sqrt(size[kept]), centred

    (wa, ca), (wb, cb) = whitening(np.asarray(a, float)), whitening(np.asarray(b, float))
    u, _, vt = np.linalg.svd((ca @ wa).T @ (cb @ wb))
    return AffineMap(np.mean(a, 0), wa @ u), AffineMap(np.mean(b, 0), wb @ vt.T)


def latent_agreement(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Agreement of the latent points of the same particles under two networks, whose axes may differ.

    Maps are fitted on one half of the particles and scored on the other.

    Parameters
    ----------
    a, b : [n, D]

    Returns
    -------
    figures : dict: canonical_correlations, list of D, with 0 for dimensions in which a network says nothing;
        affine_r2, of one network's points predicted from the other's, mean of both ways.
    variates : [m, 2], first canonical variate of either network, of the particles scored.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    order = np.random.default_rng([seed, 12]).permutation(len(a))
    fitted, scored = order[:len(a) // 2], order[len(a) // 2:]
    map_a, map_b = canonical_fit(a[fitted], b[fitted])
    first, second = map_a(a[scored]), map_b(b[scored])
    correlations = [correlation(first[:, i], second[:, i])
                    for i in range(min(first.shape[1], second.shape[1]))]
    correlations += [0.0] * (a.shape[1] - len(correlations))
    r2 = [affine_r2(x, y, fitted, scored) for x, y in ((a, b), (b, a))]
    return dict(canonical_correlations=correlations,
                affine_r2=float(np.mean(r2))), np.stack([first[:, 0], second[:, 0]], axis=1)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; 0 where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / size) if size > 0 else 0.0


def affine_r2(x: np.ndarray, y: np.ndarray, fitted: np.ndarray, scored: np.ndarray) -> float:
    """R^2 over all columns of y [n, E] from an affine map of x [n, D], fitted and scored on the given
    rows."""
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    solution = np.linalg.lstsq(design[fitted], y[fitted], rcond=None)[0]
    lost = np.sum((y[scored] - design[scored] @ solution) ** 2)
    total = np.sum((y[scored] - y[scored].mean(0)) ** 2)
    return float(1 - lost / total) if total > 0 else 0.0


def displacement_agreement(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """Correlation of the displacement fields that two networks decode for the same particles.

    Each network's field is taken from its own mean over the particles: what they share is no heterogeneity.

    Parameters
    ----------
    a, b : [n, K]

    Returns
    -------
    figures : dict: displacement_correlation, mean over particles; shuffled, the same between different
        particles: mean and 99th percentile.
    each : [2, n], correlation of every particle with itself, and with another one.
    """
    a, b = (field - field.mean(0) for field in (a, b))
    a, b = (field / np.maximum(np.linalg.norm(field, axis=1, keepdims=True), 1e-20) for field in (a, b))
    rng = np.random.default_rng([seed, 13])
    same = np.sum(a * b, axis=1)
    others = [np.sum(a * b[rng.permutation(len(b))], axis=1) for _ in range(50)]
    means = np.mean(others, axis=1)
    figures = dict(displacement_correlation=float(same.mean()),
                   shuffled=[float(means.mean()), float(np.quantile(means, 0.99))])
    return figures, np.stack([same, others[0]])
