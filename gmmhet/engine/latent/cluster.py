"""Groups of particles in latent space. Labels count from 1 in order of size; 0 is "in no cluster"."""
import numpy as np

from gmmhet.engine.latent import LatentError

#: share of the particles that a cluster by density holds at least, and their least number
LEAST_CLUSTER_SHARE, LEAST_CLUSTER_SIZE = 0.01, 5
#: neighbours that measure the density; a constant keeps memory linear in the number of particles
DENSITY_NEIGHBOURS = 15
#: starts of k-means, of which the best counts
KMEANS_STARTS = 10


def largest_first(labels: np.ndarray) -> np.ndarray:
    """The different `labels` [n] that are not negative, from the most frequent to the least."""
    different, sizes = np.unique(labels[labels >= 0], return_counts=True)
    return np.asarray(different[np.argsort(-sizes, kind="stable")])


def number_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber `labels` [n] (negative: in no cluster) to 1, 2, ... from the largest cluster to the smallest,
    0 for none: int32 [n]."""
    labels = np.asarray(labels)
    numbers = np.zeros(len(labels), np.int32)
    for number, label in enumerate(largest_first(labels), 1):
        numbers[labels == label] = number
    return numbers


def kmeans_labels(z: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster of each latent point by k-means.

    Parameters
    ----------
    z : [n, D].
    clusters : int, at most the number of different points.
    seed : int.

    Returns
    -------
    int32 [n], from 1 in order of size.

    Raises
    ------
    LatentError
        when there are fewer different points than clusters.
    """
    from sklearn.cluster import KMeans
    different = len(np.unique(z, axis=0)) if clusters > 1 else 1
    if clusters > different:
        raise LatentError("--clusters must be at most the number of particles with different z (%d), got %d: "
                          "ask for fewer clusters"
                          % (different, clusters))
    kmeans = KMeans(clusters, n_init=KMEANS_STARTS, random_state=seed)
    return number_by_size(kmeans.fit_predict(np.asarray(z, float)))


def density_labels(z: np.ndarray) -> np.ndarray:
    """Cluster of each latent point by density (HDBSCAN; Campello et al. 2013); clusters hold at least 1 % of
    the particles.

    Parameters
    ----------
    z : [n, D].

    Returns
    -------
    int32 [n], from 1 in order of size; 0 where the point lies between clusters.

    Raises
    ------
    LatentError
        when there are fewer particles than two of the smallest clusters hold.
    """
    from sklearn.cluster import HDBSCAN
    smallest = max(LEAST_CLUSTER_SIZE, int(LEAST_CLUSTER_SHARE * len(z)))
    if len(z) < 2 * smallest:
        raise LatentError("--clusters 0 (by density) needs at least %d particles, got %d: give the number of "
                          "clusters"
                          % (2 * smallest, len(z)))
    hdbscan = HDBSCAN(min_cluster_size=smallest, min_samples=min(DENSITY_NEIGHBOURS, smallest), copy=True)
    return number_by_size(hdbscan.fit_predict(np.asarray(z, float)))


def cluster_centers(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean latent point of each cluster: [K, D], row 0 for label 1."""
    z = np.asarray(z, float)
    count = int(labels.max()) if len(labels) else 0
    means = [z[labels == number].mean(axis=0) for number in range(1, count + 1)]
    return np.array(means).reshape(count, z.shape[1])
