"""Groups of particles in latent space. Labels count from 1 in order of size; 0 is "in no cluster"."""
import numpy as np

from gmmhet.engine.latent import LatentError

SMALLEST_FRACTION = 0.01    # of the particles that make a cluster by density
DENSITY_NEIGHBOURS = 15     # which measure the density; a constant keeps memory linear in the number of particles


def largest_first(labels):
    """The different `labels` [B] that are not negative, from the most frequent to the least."""
    found, sizes = np.unique(labels[labels >= 0], return_counts=True)
    return found[np.argsort(-sizes, kind="stable")]


def by_size(labels):
    """Renumber `labels` [B] (negative: in no cluster) to 1, 2, ... from the largest cluster to the smallest, 0 for none."""
    labels = np.asarray(labels)
    new = np.zeros(len(labels), np.int32)
    for number, old in enumerate(largest_first(labels), 1):
        new[labels == old] = number
    return new


def kmeans_labels(z, clusters, seed):
    """Cluster of each latent point by k-means.

    Parameters
    ----------
    z : [B, D]
    clusters : int, at most the number of different points.
    seed : int

    Returns
    -------
    labels : [B] int32, from 1 in order of size.

    Raises
    ------
    LatentError
        when there are fewer different points than clusters.
    """
    from sklearn.cluster import KMeans
    different = len(np.unique(z, axis=0)) if clusters > 1 else 1
    if clusters > different:
        raise LatentError("--clusters must be at most the number of particles with different z (%d), got %d: ask for fewer clusters"
                          % (different, clusters))
    return by_size(KMeans(clusters, n_init=10, random_state=seed).fit_predict(np.asarray(z, float)))


def density_labels(z):
    """Cluster of each latent point by density (HDBSCAN); clusters hold at least 1 % of the particles.

    Parameters
    ----------
    z : [B, D]

    Returns
    -------
    labels : [B] int32, from 1 in order of size; 0 where the point lies between clusters.

    Raises
    ------
    LatentError
        when there are fewer particles than two of the smallest clusters hold.
    """
    from sklearn.cluster import HDBSCAN
    smallest = max(5, int(SMALLEST_FRACTION * len(z)))
    if len(z) < 2 * smallest:
        raise LatentError("--clusters 0 (by density) needs at least %d particles, got %d: give the number of clusters"
                          % (2 * smallest, len(z)))
    found = HDBSCAN(min_cluster_size=smallest, min_samples=min(DENSITY_NEIGHBOURS, smallest), copy=True).fit_predict(np.asarray(z, float))
    return by_size(found)


def cluster_centers(z, labels):
    """Mean latent point of each cluster: [C, D], row 0 for label 1."""
    z = np.asarray(z, float)
    count = int(labels.max()) if len(labels) else 0
    return np.array([z[labels == number].mean(axis=0) for number in range(1, count + 1)]).reshape(count, z.shape[1])
