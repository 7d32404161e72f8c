"""What z knows of how a particle was imaged: viewing direction and defocus."""
import numpy as np

from gmmhet.engine.batching.batches import Views
from gmmhet.engine.validation.held_out_evidence import FOLDS

#: most particles from which leakage is measured
LARGEST_SAMPLE = 20000
#: permutations that say what chance reaches
PERMUTATIONS = 200
#: z may tell so much (R^2) of how a particle was seen: Laplace's posteriors are sound only nearly
TOLERATED_R2 = 0.05


def view_targets(rotation: np.ndarray) -> np.ndarray:
    """What a viewing direction is predicted by: the view axis in the molecule's frame (odd) and its quadratic
    terms (even), [..., 8].

    The even terms see what the odd ones cannot: a landscape that splits side views from top views, seen from
    either end.
    """
    x, y, z = np.moveaxis(np.asarray(rotation, float)[..., 2, :], -1, 0)
    return np.stack([x, y, z, x * y, y * z, z * x, x**2 - y**2, 3 * z**2 - 1], axis=-1)


def _quadratic(z: np.ndarray) -> np.ndarray:
    """Constant, linear and quadratic terms (squares alone for more than ten dimensions) of standardised z [n,
    D]."""
    z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)
    pairs = np.stack(np.triu_indices(z.shape[1])) if z.shape[1] <= 10 else np.tile(np.arange(z.shape[1]),
                                                                                   (2, 1))
    return np.concatenate([np.ones((len(z), 1)), z, z[:, pairs[0]] * z[:, pairs[1]]], axis=1)


def posterior_draw(z: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """One random draw of each posterior, [n, D] of means [n, D] and covariances [n, D, D].

    Means shrink towards the prior's where an image tells little, so that their spread alone betrays defocus
    and view. Draws of sound posteriors are distributed like the prior, however much each image tells: what
    they still tell of the view is no shrinkage.
    """
    variance, axes = np.linalg.eigh(np.asarray(covariance, float))
    noise = np.random.default_rng([seed, 16]).normal(size=np.shape(z)) * np.sqrt(np.maximum(variance, 0))
    return np.asarray(z, float) + np.einsum("nij,nj->ni", axes, noise)


def predictability(z: np.ndarray, targets: np.ndarray, seed: int) -> dict[str, float]:
    """R^2 with which z predicts how a particle was seen, on particles left out of the regression, and what
    chance gives.

    Ridge regression on quadratic terms, five folds, targets standardised; chance: the same after the
    particles' targets were permuted.

    Parameters
    ----------
    z : [P, C, D], of P particles with C symmetry copies.
    targets : [P, C, T]
    seed : of folds and permutations.

    Returns
    -------
    dict: r2, chance (99th percentile of permutations), p (share of permutations that reach r2).
    """
    rng = np.random.default_rng([seed, 10])
    if len(z) > LARGEST_SAMPLE:
        chosen = np.sort(rng.permutation(len(z))[:LARGEST_SAMPLE])
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

    def score(y: np.ndarray) -> float:
        lost = 0.0
        for number, (solution, scored) in enumerate(solved):
            learned, wanted = (y[chosen].reshape(-1, y.shape[-1])
                               for chosen in (fold != number, fold == number))
            lost += np.sum((wanted - scored @ (solution @ learned)) ** 2)
        return 1 - lost / np.sum(y**2)

    r2 = float(score(targets))
    by_chance = np.array([score(targets[rng.permutation(particles)]) for _ in range(PERMUTATIONS)])
    return dict(r2=r2, chance=float(np.quantile(by_chance, 0.99)),
                p=float((1 + np.sum(by_chance >= r2)) / (1 + PERMUTATIONS)))


def leakage_text(leakage: dict[str, float]) -> str:
    """How well z predicts something, and what chance does (see `predictability`), in words."""
    return "R² %.3f; chance reaches %.3f" % (max(leakage["r2"], 0), max(leakage["chance"], 0))


def is_harmless(leakage: dict[str, float]) -> bool:
    """Whether z predicts something no better than chance, or so little that nothing follows."""
    return leakage["r2"] <= max(leakage["chance"], TOLERATED_R2)


def leakage_warnings(leakages: dict[str, dict[str, float]]) -> list[str]:
    """Sentences about what z says of how particles were imaged; of each thing by name its
    `predictability`."""
    return ["The latent points predict the %s (R² %.2f on particles left out, chance %.2f): part of what "
            "looks like heterogeneity may be how the particles were seen. With preferred orientations a "
            "conformation that favours the ice on one side does the "
            "same." % (name, leakage["r2"], max(leakage["chance"], 0))
            for name, leakage in leakages.items() if not is_harmless(leakage)]


def imaging_leakage(views: Views, z: np.ndarray, covariance: np.ndarray,
                    seed: int) -> dict[str, dict[str, float]]:
    """`predictability` of viewing direction and defocus, by name, from draws of the posteriors of z.

    A symmetry copy is a view of its own, seen from its own direction; the copies of a particle stay together
    in all folds and permutations.

    Parameters
    ----------
    views : Views; z : [n_views, D]; covariance : [n_views, D, D]; seed : of draws, folds and permutations.
    """
    particles = views.particles
    shape = len(particles), len(views) // len(particles)
    draws = posterior_draw(z, covariance, seed).reshape(*shape, -1)
    rotation = views.rotation(np.arange(len(views))).reshape(*shape, 3, 3)
    defocus = np.repeat(particles.ctf[:, :2].astype(float).mean(1)[:, None, None], shape[1], 1)
    return {"viewing direction": predictability(draws, view_targets(rotation), seed),
            "defocus": predictability(draws, defocus, seed)}
