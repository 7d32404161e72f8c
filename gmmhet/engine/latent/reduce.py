"""The latent points in the plane that is drawn: principal axes or UMAP."""
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latents import PrincipalAxes, nearest_rows
from gmmhet.engine.log import log

#: latent points whose mean place in the UMAP plane stands for another latent point
PLACING_NEIGHBOURS = 50


@dataclass(frozen=True)
class Plane:
    """The plane that is drawn.

    Attributes
    ----------
    xy : [n, 2], the latent points in it.
    axis_labels : names of its two axes.
    axes : PrincipalAxes, where it is that of the first two; None for UMAP.
    z : [n, D], the latent points.
    """

    xy: np.ndarray
    axis_labels: Tuple[str, str]
    axes: Optional[PrincipalAxes]
    z: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Places [P, 2] of other latent points [P, D]: exact for principal axes, for UMAP the mean place of
        the nearest latent points."""
        if self.axes is not None:
            return self.axes.coordinates(points)
        rows = [nearest_rows(self.z, point, PLACING_NEIGHBOURS) for point in points]
        return np.array([self.xy[near].mean(axis=0) for near in rows])


def check_neighbours(config: AnalyzeConfig, count: int) -> None:
    """Refuse UMAP of `count` latent points with too many neighbours.

    Raises
    ------
    LatentError
    """
    if config.embedding == "umap" and count <= config.umap_neighbours:
        raise LatentError("--umap-neighbours must be less than the number of particles (%d), got %d: lower "
                          "it, or use --embedding pca"
                          % (count, config.umap_neighbours))


def embed(config: AnalyzeConfig, z: np.ndarray, axes: PrincipalAxes) -> Plane:
    """The plane of ``--embedding`` for latent points [n, D]. UMAP is slow: a fixed seed makes it
    single-threaded.

    Raises
    ------
    LatentError
        when there are too few points for so many neighbours.
    """
    if config.embedding == "pca":
        explained = [*axes.explained[:2], 0.0]
        first, second = ("Principal axis %d of z  (%.1f %%)" % (i + 1, 100 * explained[i]) for i in range(2))
        return Plane(axes.coordinates(z), (first, second), axes, z)
    check_neighbours(config, len(z))
    log.info("UMAP of %d points with seed %d: a fixed seed makes it single-threaded.", len(z), config.seed)
    return Plane(umap_plane(z, config.umap_neighbours, config.seed), ("UMAP 1", "UMAP 2"), None, z)


def umap_plane(z: np.ndarray, neighbours: int, seed: int) -> np.ndarray:
    """UMAP (McInnes et al. 2018) of latent points [n, D] in two dimensions, float32 [n, 2].

    Parameters
    ----------
    z : [n, D].
    neighbours : int, neighbours per particle, less than n.
    seed : int.
    """
    import umap
    reducer = umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(np.asarray(z, np.float32)))
