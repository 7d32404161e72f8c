"""Directions of latent space that move one region of the molecule and leave the rest (the paper's localised
eigen-motion)."""
from dataclasses import dataclass
from typing import Iterable, Tuple

import numpy as np
import scipy.linalg

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latents import positive_largest

#: of the mean squared motion: keeps directions that move nothing at all from winning on a ratio of two zeros
MOTION_FLOOR = 0.01


@dataclass(frozen=True)
class LocalMotions:
    """Localised directions, best first.

    Attributes
    ----------
    vectors : [M, D], one direction per row, as long as one standard deviation of the particles along it.
    inside_angst, outside_angst : [M], rms displacement of the Gaussians inside and outside the region per
        standard deviation.
    """

    vectors: np.ndarray
    inside_angst: np.ndarray
    outside_angst: np.ndarray

    @classmethod
    def none(cls, dimension: int) -> "LocalMotions":
        """Those of no region."""
        return cls(np.empty((0, dimension)), np.zeros(0), np.zeros(0))

    def __len__(self) -> int:
        return len(self.vectors)


def motion_matrices(jacobians: Iterable[np.ndarray], inside: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Mean squared displacement per step in z, inside and outside a region, as quadratic forms.

    Parameters
    ----------
    jacobians : iterable of [N, 3, D], the decoder's d centers / d z at P latent points.
    inside : bool [N].

    Returns
    -------
    A_in, A_out : [D, D], so that v^T A_in v is the squared displacement (Å²) for a small step v, averaged
        over the Gaussians inside and over the latent points; A_out is zero when the region holds every
        Gaussian.
    """
    derivatives = np.asarray(list(jacobians), float)                                # [P, N, 3, D]

    def form(members: np.ndarray) -> np.ndarray:
        steps = derivatives[:, members]                                             # [P, n, 3, D]
        squared = np.einsum("pnxi,pnxj->ij", steps, steps)
        return np.asarray(squared / max(steps.shape[0] * steps.shape[1], 1))
    return form(inside), form(~inside)


def localised_motions(jacobians: Iterable[np.ndarray], inside: np.ndarray,
                      covariance: np.ndarray) -> LocalMotions:
    """Directions through the origin that maximise motion inside a region against motion outside it.

    Solves ``A_in v = ratio (A_out + eps C^-1) v`` with ``A = J^T W J`` (W takes the Gaussians inside, or
    those outside) and C the particles' covariance, so that a direction in which the particles hardly differ
    cannot win.

    Parameters
    ----------
    jacobians : iterable of [N, 3, D].
    inside : bool [N].
    covariance : [D, D], of the particles' z.

    Raises
    ------
    LatentError
        when the region selects no Gaussian, or none that moves.
    """
    inside = np.asarray(inside, bool)
    if not inside.any():
        raise LatentError("--motion-region selects none of the %d Gaussians: enlarge it, or move it (centres "
                          "are in Å from the box centre)"
                          % len(inside))
    values, axes = np.linalg.eigh(covariance)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T                       # C^(1/2)
    a_in, a_out = (root @ form @ root for form in motion_matrices(jacobians, inside))
    if np.trace(a_in) <= 0:
        raise LatentError("--motion-region: none of its %d Gaussians moves in this model: choose a region in "
                          "which positions vary (train's --vary and --region)" % inside.sum())
    floor = MOTION_FLOOR * np.trace(a_in + a_out) / len(root)
    _, vectors = scipy.linalg.eigh(a_in, a_out + floor * np.eye(len(root)))
    vectors = vectors[:, ::-1].T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)                   # one deviation each

    def rms(form: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", vectors, form, vectors), 0.0)))
    return LocalMotions(positive_largest(vectors @ root), rms(a_in), rms(a_out))
