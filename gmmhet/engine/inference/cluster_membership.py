"""To which cluster each latent point belongs by its image: where the image leaves z uncertain, z alone lies
between clusters.

The clusters are K latent points. The log-likelihood of every image with the particle at each of them makes a
mixture model, whose populations are found by expectation maximisation (Dempster, Laird & Rubin 1977).
"""
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf
from scipy.stats import chi2

from gmmhet.engine.batching.batches import BatchFunction, ParticleBatch, Views, by_view, prefetched
from gmmhet.engine.batching.devices import find_devices
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.likelihood.forward import Observation
from gmmhet.engine.log import progress

#: most iterations for the populations, fewer where centers are compared, and the change of any population at
#: which they have converged
MOST_ITERATIONS, FEW_ITERATIONS, POPULATION_TOLERANCE = 1000, 20, 1e-6
#: parts of the way from a cluster's mean to its unshrunk center that are tried, and most times that all
#: clusters are gone through
CENTER_STEPS, MOST_ROUNDS = (0.0, 0.25, 0.5, 0.75, 1.0), 4
#: share of the prior that lies farther out than a center may
TAIL_OF_PRIOR = 1e-3

#: centers [C, D] to log-likelihoods [n, C]
LogLikelihood = Callable[[np.ndarray], np.ndarray]


class CenterLikelihoods(NamedTuple):
    """Log-likelihoods of each view's image with the view at each center, [B, copies, K], nats."""

    values: tf.Tensor


@dataclass(frozen=True)
class ImageComparison:
    """Views (a particle at one of its symmetry copies) whose images are compared with the model at latent
    points.

    Attributes
    ----------
    model : HeterogeneityModel.
    views : Views, with the model's symmetry.
    z : [V, D], latent points of the views.
    pose_change : float32 [n, 5], of the particles' poses (see `imaging.pose_change`).
    batch_size : int, particles.
    """

    model: Any
    views: Views
    z: np.ndarray
    pose_change: np.ndarray
    batch_size: int = 64

    def of_particles(self, rows: np.ndarray) -> "ImageComparison":
        """The same of the views of some particles, by their rows."""
        z = self.z[self.views.of(rows).ravel()]
        views = Views(self.views.particles.select(rows), self.model.settings.symmetry)
        return ImageComparison(self.model, views, z, self.pose_change[rows], self.batch_size)

    def log_likelihood(self, centers: np.ndarray, label: str = "clusters",
                       amplitudes: Optional[np.ndarray] = None) -> np.ndarray:
        """Log-likelihood of each view's image with the view at each center.

        The other symmetry copies of a particle, where there are any, are at their own latent points.

        Parameters
        ----------
        centers : [K, D], latent points.
        label : str, for the progress.
        amplitudes : [K, N], in place of those at the centers.

        Returns
        -------
        float64 [V, K], nats, up to a constant of the view.
        """
        model, image_model, copies = self.model, self.model.image_model, self.model.copies
        units = self._units(centers, amplitudes)

        def compare(batch: ParticleBatch) -> CenterLikelihoods:
            observed = image_model.observe(batch)
            pose = observed.pose.perturbed(batch.pose_change)
            rotation = by_view(tf.einsum("bij,cjk->bcik", pose.rotation,
                                         model.symmetry.rotations))  # [V, 3, 3]
            views = Observation(tf.repeat(observed.data, copies, 0), tf.repeat(observed.transfer, copies, 0),
                                Pose(rotation, tf.repeat(pose.shift_angst, copies, 0)))
            if copies > 1:      # less the other copies: the whole without the view's own unit
                mixture = model.mixture(by_view(batch.z))
                whole = image_model.predict(model.symmetry.assemble(mixture), observed, pose)
                own = image_model.predict(model.symmetry.asymmetric_unit(mixture), views)
                views = views._replace(data=views.data + (own - tf.repeat(whole, copies, 0)))
            nothing = tf.zeros_like(views.pose.shift_angst[:, :1])                                   # [V, 1]

            def of_center(unit: Tuple[tf.Tensor, ...]) -> tf.Tensor:
                return image_model.log_likelihood(MixtureBatch(unit[0], unit[1][None] + nothing, unit[2]),
                                                  views)
            values = tf.map_fn(of_center, tuple(units), fn_output_signature=tf.float32)              # [K, V]
            return CenterLikelihoods(tf.reshape(tf.transpose(values), [-1, copies, len(centers)]))

        devices, size, count = find_devices(alone=True), self.batch_size, len(self.views.particles)
        compiled, change = BatchFunction(compare, devices), np.asarray(self.pose_change, np.float32)
        batches = prefetched(self.views, np.arange(count), size, devices, z=np.asarray(self.z, np.float32))
        values = [compiled(len(rows),
                           batch._replace(pose_change=devices.local_rows(change[rows], size))).values
                  for rows, batch in progress(batches, -(-count // size), label)]
        return np.asarray(np.concatenate(values).reshape(len(self.views), -1), np.float64)

    def _units(self, centers: np.ndarray, amplitudes: Optional[np.ndarray]) -> MixtureBatch:
        """The asymmetric units of the mixtures at the centers: centres [K, N, 3], amplitudes and widths
        [K, N]."""
        decoded = self.model.decode(centers)
        if amplitudes is not None:
            decoded = decoded._replace(amplitudes=np.float32(amplitudes))
        mixtures = MixtureBatch(*(tf.constant(array) for array in decoded))
        return MixtureBatch(*self.model.symmetry.asymmetric_unit(mixtures))


# ---------------------------------------------------------------- centers
def unshrunk_centers(z: np.ndarray, covariance: np.ndarray, labels: np.ndarray,
                     prior: Tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The most probable latent point of each cluster, if all its particles had the same.

    Each particle's z is its posterior's mean, shrunk towards the prior's, and so is the mean over a cluster.
    Here the prior counts once for the cluster and not once for every particle: posteriors N(z_i, C_i) under
    the prior N(m, P^-1) come from likelihoods of precision ``L_i = C_i^-1 - P``, so that

        center = m + (P + sum_i L_i)^-1 sum_i (L_i + P) (z_i - m)

    Where images tell next to nothing, the sum of small errors in C_i would lie anywhere: no center goes
    farther out than the mean over its cluster or all but TAIL_OF_PRIOR of the prior.

    Parameters
    ----------
    z : [n, D].
    covariance : [n, D, D].
    labels : int [n], clusters from 1, 0 for none.
    prior : mean m [D], precision P [D, D].

    Returns
    -------
    [K, D], row 0 for label 1.
    """
    mean, precision = (np.asarray(array, float) for array in prior)

    def length(offset: np.ndarray) -> float:
        return float(np.sqrt(offset @ precision @ offset))
    centers, farthest = [], float(np.sqrt(chi2.ppf(1 - TAIL_OF_PRIOR, len(mean))))
    for members in (labels == k for k in range(1, labels.max() + 1)):
        offsets = z[members] - mean                                                             # [n_k, D]
        values, axes = np.linalg.eigh(np.linalg.inv(np.asarray(covariance[members], float)) - precision)
        information = np.einsum("nij,nj,nkj->nik", axes, np.maximum(values, 0), axes)           # L_i, >= 0
        moment = np.einsum("nij,nj->i", information + precision, offsets)
        offset = np.linalg.solve(precision + information.sum(0), moment)
        limit = max(farthest, length(offsets.mean(0)))
        centers.append(mean + offset * min(1.0, limit / max(length(offset), 1e-12)))
    return np.stack(centers)


def optimise_centers(log_likelihood: LogLikelihood, means: np.ndarray, unshrunk: np.ndarray) -> np.ndarray:
    """Centers between the clusters' means and their unshrunk centers, where the images are most likely.

    `unshrunk_centers` goes too far where a latent dimension says little and not evenly. Clusters are gone
    through in turn: each takes that of the CENTER_STEPS with which, at the populations that then fit best,
    all images are most likely.

    Parameters
    ----------
    log_likelihood : callable, centers [C, D] to log-likelihoods [n, C].
    means, unshrunk : [K, D].

    Returns
    -------
    [K, D].
    """
    number, steps = np.arange(len(means)), np.array(CENTER_STEPS)[:, None, None]
    places = means + steps * (unshrunk - means)                                                 # [S, K, D]
    values = log_likelihood(places.reshape(-1, means.shape[1])).reshape(-1, *places.shape[:2])  # [n, S, K]

    def evidence(choice: np.ndarray) -> float:
        of_choice = values[:, choice, number]
        population = memberships(of_choice, FEW_ITERATIONS).population
        return float(np.mean(mixture_log_likelihood(of_choice, population)))
    choice = np.full(len(means), len(CENTER_STEPS) - 1)
    for _ in range(MOST_ROUNDS):
        before = choice.copy()
        for k in number:
            choice[k] = np.argmax([evidence(np.where(number == k, step, choice))
                                   for step in range(len(CENTER_STEPS))])
        if np.array_equal(choice, before):
            break
    return np.asarray(places[choice, number])


def two_level_amplitudes(amplitudes: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Amplitudes [K, N] of K clusters that hold these shares [K] of the particles, each Gaussian's set to two
    values: [K, N].

    A domain is either there or not; what lies between is where the landscape has been smoothed, or has
    followed noise. Of each Gaussian the clusters are parted where the two means describe its amplitudes best,
    by least squares.
    """
    rows = np.argsort(amplitudes, axis=0)
    value, weight = np.take_along_axis(amplitudes, rows, 0), np.asarray(population)[rows]
    total, mass = np.cumsum(weight * value, 0), np.cumsum(weight, 0)
    low, high = total[:-1] / mass[:-1], (total[-1] - total[:-1]) / (mass[-1] - mass[:-1])       # [K-1, N]
    split = np.argmax(mass[:-1] * low**2 + (mass[-1] - mass[:-1]) * high**2, axis=0)[None]
    below = np.arange(len(rows))[:, None] <= split
    levels = np.where(below, np.take_along_axis(low, split, 0), np.take_along_axis(high, split, 0))
    unsorted = np.empty_like(levels)
    np.put_along_axis(unsorted, rows, levels, 0)
    return unsorted


# ---------------------------------------------------------------- populations
def mixture_log_likelihood(log_likelihood: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Log-likelihood of each view's image with the clusters [n, K] mixed at their populations [K]: [n]."""
    most = log_likelihood.max(1)
    return np.asarray(most + np.log(np.exp(log_likelihood - most[:, None]) @ population))


class Membership(NamedTuple):
    """How probable each cluster is for each view, [n, K], and the clusters' populations, [K]; each row sums
    to 1."""

    probability: np.ndarray
    population: np.ndarray


def memberships(log_likelihood: np.ndarray, iterations: int = MOST_ITERATIONS) -> Membership:
    """Most likely populations, found by expectation maximisation, and the probabilities that follow from
    them.

    ``p_ik = pi_k L_ik / sum_j pi_j L_ij``, ``pi_k = mean_i p_ik``.

    Parameters
    ----------
    log_likelihood : [n, K], nats.
    iterations : int, at most.
    """
    share = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    population = np.full(share.shape[1], 1 / share.shape[1])
    for _ in range(iterations):
        joint = share * population
        probability = joint / joint.sum(1, keepdims=True)
        before, population = population, probability.mean(0)
        if np.abs(population - before).max() < POPULATION_TOLERANCE:
            break
    return Membership(probability, population)


class OccupiedClusters(NamedTuple):
    """Clusters that some views belong to: centers [K, D], log-likelihoods and probabilities [n, K],
    populations [K]."""

    centers: np.ndarray
    log_likelihood: np.ndarray
    probability: np.ndarray
    population: np.ndarray


def occupied(centers: np.ndarray, log_likelihood: np.ndarray) -> OccupiedClusters:
    """The clusters that are the most probable one of some view: what no image fits best takes no share
    either."""
    probability, population = memberships(log_likelihood)
    while len(present := np.unique(probability.argmax(1))) < len(population):
        centers, log_likelihood = centers[present], log_likelihood[:, present]
        probability, population = memberships(log_likelihood)
    return OccupiedClusters(centers, log_likelihood, probability, population)
