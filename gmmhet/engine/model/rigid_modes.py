"""Parts of a molecule, from the whole to ever smaller ones, and what of a motion is that of each part as one
rigid body.

Most of what a domain does is six numbers, however many Gaussians it has: described so, a small motion stands
out of the noise in which it is lost when each Gaussian, or each neighbourhood, is described by itself.
"""
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from gmmhet.engine.model.rigid_bodies import LEAST_RADIUS_ANGST

#: fewer Gaussians than this are not split any further
FEWEST_IN_PART = 12
#: part of the information's diagonal that is added to it, and of its largest value
RIDGE, TINY = 0.1, 1e-9
#: what is added to the squares of the weights in their pseudoinverse
WEIGHT_RIDGE = 1e-3
#: a motion of which less is left beside those of the larger parts is none of its own
LEAST_LEFT = 0.05


class PartTree(NamedTuple):
    """Parts of a set of points, the whole first, and parts of one depth before those of the next.

    Attributes
    ----------
    members : list of int arrays, the points of each part.
    ends : list of int, how many parts there are down to each depth.
    """

    members: list[np.ndarray]
    ends: list[int]


class RigidModes(NamedTuple):
    """Motions of parts as a whole, orthonormal in the Fisher information of the decoder's outputs.

    Attributes
    ----------
    modes : [F, K], a motion of the F outputs each.
    dual_modes : [F, K], what reads them off outputs u: ``u ~ modes (dual_modes^T u)``.
    owner : int [K], the number of each mode's part; never falls.
    """

    modes: np.ndarray
    dual_modes: np.ndarray
    owner: np.ndarray


def part_tree(points: np.ndarray, edge_angst: float) -> PartTree:
    """Points [N, 3] (Å), and each part of them split in two until it is no wider than a cube of this edge."""
    members: list[np.ndarray] = []
    ends, depth = [], [np.arange(len(points))]
    while depth:
        members += depth
        ends.append(len(members))
        depth = [half for part in depth if _wide(points[part], edge_angst)
                 for half in _halves(part, points[part])]
    return PartTree(members, ends)


def _wide(points: np.ndarray, edge_angst: float) -> bool:
    radius2 = np.mean(np.sum((points - points.mean(0)) ** 2, 1))
    return len(points) >= FEWEST_IN_PART and bool(radius2 > max(0.5 * edge_angst, LEAST_RADIUS_ANGST) ** 2)


def _halves(part: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    side = KMeans(2, n_init=1, random_state=0).fit(points).labels_
    return part[side == 0], part[side == 1]


def rigid_motions(points: np.ndarray) -> np.ndarray:
    """Shifts along the axes and small turns about them through the middle of points [P, 3], of like size: [P,
    3, 6]."""
    arm = points - points.mean(0)
    arm = arm / max(np.sqrt(np.mean(np.sum(arm**2, 1))), 1e-6)
    shifts = np.tile(np.eye(3), (len(points), 1, 1))
    return np.concatenate([shifts, np.cross(np.eye(3), arm[:, None]).transpose(0, 2, 1)], 2)


def ridged(information: np.ndarray, share: float) -> np.ndarray:
    """A matrix [F, F] with a share of its diagonal, and next to nothing of its largest value, added to the
    diagonal."""
    diagonal = np.diag(information)
    return information + np.diag(share * diagonal + TINY * diagonal.max())


def rigid_modes(information: np.ndarray, weights: np.ndarray, points: np.ndarray,
                parts: list[np.ndarray]) -> RigidModes:
    """What of a motion each part makes as a whole, beside what the larger ones make, in errors of estimation.

    Motions are numbers u [3 M] at M anchors, with weights to the points. Modes are orthonormal in their
    Fisher information F (Gram-Schmidt, the whole first, and in a part the singular vectors of what is left);
    each part has at most six.

    Parameters
    ----------
    information : F [3 M, 3 M]; weights : [N, M]; points : [N, 3] Å; parts : list of int arrays, members of
        each.
    """
    root = np.linalg.cholesky(ridged(information, RIDGE)).T                                  # F = root^T root
    size, anchors = len(root), weights.shape[1]
    to_anchors = np.linalg.solve(weights.T @ weights + WEIGHT_RIDGE * np.eye(anchors), weights.T)    # [M, N]
    basis = np.zeros((size, 6 * len(parts)))
    owner: list[int] = []
    for number, part in enumerate(parts):
        motion = np.einsum("mn,nck->mck", to_anchors[:, part], rigid_motions(points[part])).reshape(size, 6)
        moved = root @ motion
        moved /= np.maximum(np.linalg.norm(moved, axis=0), 1e-12)
        before = basis[:, :len(owner)]
        for _ in range(2):       # once more for what rounding left
            moved = moved - before @ (before.T @ moved)
        left, strength, _ = np.linalg.svd(moved, full_matrices=False)
        own = left[:, strength > LEAST_LEFT]
        basis[:, len(owner):len(owner) + own.shape[1]] = own
        owner += [number] * own.shape[1]
    basis = basis[:, :len(owner)]
    return RigidModes(np.linalg.solve(root, basis), root.T @ basis, np.array(owner))
