"""Directions of latent space that move one region of the molecule and leave the rest (the paper's localised eigen-motion)."""
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.reduce import positive_largest

FLOOR = 0.01    # of the mean squared motion: keeps directions that move nothing at all from winning on a ratio of two zeros


@dataclass(frozen=True)
class LocalMotions:
    """Localised directions, best first.

    Parameters
    ----------
    vectors : [D, D], one direction per row, as long as one standard deviation of the particles along it.
    inside_angst, outside_angst : [D], rms displacement of the Gaussians inside and outside the region per standard deviation.
    """

    vectors: np.ndarray
    inside_angst: np.ndarray
    outside_angst: np.ndarray


def motion_matrices(jacobians, inside):
    """Mean squared displacement per step in z, inside and outside a region, as quadratic forms.

    Parameters
    ----------
    jacobians : iterable of [N, 3, D], the decoder's d centers / d z at some latent points.
    inside : [N] bool

    Returns
    -------
    A_in, A_out : [D, D], so that v^T A_in v is the squared displacement (Å²) for a small step v, averaged over the Gaussians
        inside and over the latent points; A_out is zero when the region holds every Gaussian.
    """
    jacobians = np.asarray(list(jacobians), float)

    def form(rows):
        moved = jacobians[:, rows]                          # [P, n, 3, D]
        return np.einsum("pnxi,pnxj->ij", moved, moved) / max(moved.shape[0] * moved.shape[1], 1)
    return form(inside), form(~inside)


def localised_motions(jacobians, inside, spread):
    """Directions through the origin that maximise motion inside a region against motion outside it.

    Solves ``A_in v = ratio (A_out + eps C^-1) v`` with ``A = J^T W J`` (W takes the Gaussians inside, or those outside) and C the
    particles' covariance, so that a direction in which the particles hardly differ cannot win.

    Parameters
    ----------
    jacobians : iterable of [N, 3, D]
    inside : [N] bool
    spread : [D, D], covariance of the particles' z.

    Returns
    -------
    LocalMotions

    Raises
    ------
    LatentError
        when the region selects no Gaussian, or none that moves.
    """
    inside = np.asarray(inside, bool)
    if not inside.any():
        raise LatentError("--motion-region selects none of the %d Gaussians: enlarge it, or move it (centres are in Å from the box centre)"
                          % len(inside))
    values, axes = np.linalg.eigh(spread)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    a_in, a_out = (root @ form @ root for form in motion_matrices(jacobians, inside))
    if np.trace(a_in) <= 0:
        raise LatentError("--motion-region: none of its %d Gaussians moves in this model: choose a region in which positions vary (train's "
                          "--vary and --region)" % inside.sum())
    floor = FLOOR * np.trace(a_in + a_out) / len(root)
    _, found = scipy.linalg.eigh(a_in, a_out + floor * np.eye(len(root)))
    found = found[:, ::-1].T
    found /= np.linalg.norm(found, axis=1, keepdims=True)   # [D, D]: one standard deviation each
    return LocalMotions(positive_largest(found @ root), *(np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", found, form, found), 0.0))
                                                          for form in (a_in, a_out)))
