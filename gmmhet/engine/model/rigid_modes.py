"""Parts of a molecule, from the whole to ever smaller ones, and what of a motion is that of each part as one rigid body.

Most of what a domain does is six numbers, however many Gaussians it has: told so, a small motion stands out of the noise in which it is
lost when each Gaussian, or each neighbourhood, is told by itself.
"""
import numpy as np
from sklearn.cluster import KMeans

#: fewer Gaussians than this are not split any further, nor those that are nearer together (rms from their middle, Å)
FEWEST, LEAST_RADIUS_ANGST = 12, 1.0
#: part of the diagonal that is added to the information, and of its largest value; and of the squares of the weights in their pseudoinverse
RIDGE, TINY, BLUNT = 0.1, 1e-9, 1e-3
#: a motion of which less is left beside those of the larger parts is none of its own
LEAST_LEFT = 0.05


def split(points, edge_angst, seed=0):
    """A tree of parts of points [N, 3] (Å), each split in two until it is no wider than a cube of this edge.

    Returns
    -------
    list of int arrays, the members of each part; the whole first, and parts of one depth before those of the next.
    int list, how many parts there are down to each depth.
    """
    found, ends, depth = [], [], [np.arange(len(points))]
    while depth:
        found += depth
        ends.append(len(found))
        depth = [half for part in depth if _wide(points[part], edge_angst) for half in _halves(part, points[part], seed)]
    return found, ends


def _wide(points, edge_angst):
    return len(points) >= FEWEST and np.mean(np.sum((points - points.mean(0)) ** 2, 1)) > max(0.5 * edge_angst, LEAST_RADIUS_ANGST) ** 2


def _halves(part, points, seed):
    side = KMeans(2, n_init=1, random_state=seed).fit(points).labels_
    return part[side == 0], part[side == 1]


def rigid_motions(points):
    """Shifts along the axes and small turns about them through the middle of points [P, 3], of like size: [P, 3, 6]."""
    arm = points - points.mean(0)
    arm = arm / max(np.sqrt(np.mean(np.sum(arm**2, 1))), 1e-6)
    return np.concatenate([np.tile(np.eye(3), (len(points), 1, 1)), np.cross(np.eye(3), arm[:, None]).transpose(0, 2, 1)], 2)


def ridged(information, share):
    """A matrix [F, F] with a share of its diagonal, and next to nothing of its largest value, added to the diagonal."""
    diagonal = np.diag(information)
    return information + np.diag(share * diagonal + TINY * diagonal.max())


def rigid_modes(information, weights, points, parts):
    """What of a motion each part makes as a whole, beside what the larger ones make, in errors of estimation.

    Motions are numbers u [3 M] at M anchors, with weights [N, M] to the points [N, 3] of which the parts have members. With F their Fisher
    information [3 M, 3 M], modes are orthonormal in F (Gram-Schmidt, the whole first, and in a part the singular vectors of what is left).

    Returns
    -------
    modes [3 M, K], at most six of each part; what reads them off, [3 M, K], so that ``u ~ modes (reader^T u)``; and the number of each
    mode's part, int [K], which never falls.
    """
    root = np.linalg.cholesky(ridged(information, RIDGE)).T
    size, anchors = len(root), weights.shape[1]
    back = np.linalg.solve(weights.T @ weights + BLUNT * np.eye(anchors), weights.T)
    found = np.zeros((size, 6 * len(parts)))
    owner: list[int] = []
    for number, part in enumerate(parts):
        moved = root @ np.einsum("mn,nck->mck", back[:, part], rigid_motions(points[part])).reshape(size, 6)
        moved /= np.maximum(np.linalg.norm(moved, axis=0), 1e-12)
        before = found[:, :len(owner)]
        for _ in range(2):       # once more for what rounding left
            moved = moved - before @ (before.T @ moved)
        left, strength, _ = np.linalg.svd(moved, full_matrices=False)
        own = left[:, strength > LEAST_LEFT]
        found[:, len(owner):len(owner) + own.shape[1]] = own
        owner += [number] * own.shape[1]
    found = found[:, :len(owner)]
    return np.linalg.solve(root, found), root.T @ found, np.array(owner)
