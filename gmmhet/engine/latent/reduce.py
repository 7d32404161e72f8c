"""Views of the latent points in few dimensions: principal axes and UMAP."""
from dataclasses import dataclass

import numpy as np

from gmmhet.engine.latent import LatentError


@dataclass(frozen=True)
class PrincipalAxes:
    """Principal axes of latent points.

    Parameters
    ----------
    mean : [D], the middle of the points.
    vectors : [K, D], unit vectors, most variance first; the largest component of each is positive.
    explained : [K], fraction of the variance along each; zeros when all points coincide.
    """

    mean: np.ndarray
    vectors: np.ndarray
    explained: np.ndarray

    def coordinates(self, z, axes=2):
        """Coordinates of `z` [B, D] on the first `axes` axes: [B, axes], zeros where there are fewer axes."""
        found = (np.asarray(z, float) - self.mean) @ self.vectors[:axes].T
        return np.pad(found, ((0, 0), (0, axes - found.shape[1])))


def positive_largest(vectors):
    """`vectors` [K, D], each with the sign that makes its largest component positive."""
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return vectors * np.where(signs == 0, 1.0, signs)[:, None]


def principal_axes(z):
    """Principal component analysis of latent points.

    Parameters
    ----------
    z : [B, D], at least two points.

    Returns
    -------
    PrincipalAxes

    Raises
    ------
    LatentError
        for fewer points.
    """
    from sklearn.decomposition import PCA
    z = np.asarray(z, float)
    if len(z) < 2:
        raise LatentError("z must hold at least 2 points for principal axes, got %d" % len(z))
    if not np.ptp(z, axis=0).any():
        return PrincipalAxes(z.mean(axis=0), np.eye(z.shape[1]), np.zeros(z.shape[1]))
    pca = PCA(svd_solver="full").fit(z)
    return PrincipalAxes(pca.mean_, positive_largest(pca.components_), pca.explained_variance_ratio_)


def umap_plane(z, neighbours, seed):
    """UMAP of latent points in two dimensions. Slow: a fixed seed makes it single-threaded.

    Parameters
    ----------
    z : [B, D]
    neighbours : int, neighbours per particle, less than B.
    seed : int

    Returns
    -------
    xy : [B, 2] float32

    Raises
    ------
    LatentError
        when there are too few points for so many neighbours.
    """
    if len(z) <= neighbours:
        raise LatentError("--umap-neighbours must be less than the number of particles (%d), got %d: lower it, or use --embedding pca"
                          % (len(z), neighbours))
    import umap
    return umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(np.asarray(z, np.float32))
