"""Decoded physics: what the decoded Gaussians themselves say of the motion, with no regression against the truth."""
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from sklearn.cluster import KMeans

from gmmhet.engine.simulate.phantom import STATES

#: angles at which the arm is laid out to find which Gaussians stand for it
SWEEP = 9


def rigid_rotations(before, after, weights):
    """Best rigid rotation of points, weighted (Kabsch 1976).

    Parameters
    ----------
    before : array [P, 3].
    after : array [n, P, 3].
    weights : array [n, P], not negative.

    Returns
    -------
    scipy Rotation of length n, before to after.
    """
    share = weights / weights.sum(1, keepdims=True)
    left = before[None] - np.einsum("np,pi->ni", share, before)[:, None]
    right = after - np.einsum("np,npi->ni", share, after)[:, None]
    u, _, vt = np.linalg.svd(np.einsum("np,npi,npj->nij", share, right, left))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return Rotation.from_matrix(u @ vt)


def arm_members(neutral_centers, phantom, unit=1):
    """Gaussians of a neutral model that stand for a moving arm: nearer to the arm, at some angle, than to anything else. Bool [N]."""
    angles = np.linspace(-phantom.angle_deg, phantom.angle_deg, SWEEP)
    swept = np.concatenate([phantom.turned(a, unit).centers[phantom.part == unit] for a in angles])
    rest = phantom.base.centers[phantom.part != unit]
    return cKDTree(swept).query(neutral_centers)[0] < cKDTree(rest).query(neutral_centers)[0]


def decoded_angles(model, z, phantom, unit=1, batch_size=256):
    """Angle (degrees, about the phantom's hinge axis) of the arm against the rest in the decoded model of every latent point [n, D]."""
    arm = arm_members(model.neutral.centers, phantom, unit)
    axis = Rotation.from_euler("z", 120.0 * (unit - 1), degrees=True).apply(phantom.axis)
    angles = []
    for i in range(0, len(z), batch_size):
        centers, amplitudes, _ = model.decode(z[i:i + batch_size])
        turn = [rigid_rotations(model.neutral.centers[part], centers[:, part], amplitudes[:, part]) for part in (arm, ~arm)]
        angles.append(np.degrees((turn[1].inv() * turn[0]).as_rotvec() @ axis))
    return np.concatenate(angles) if angles else np.zeros(0)


def decoded_states(model, z, phantom, batch_size=256):
    """State (from 0, in no order) of a mixed phantom's decoded model at every latent point [n, D]: k-means of its two parts' masses."""
    centers, base = model.neutral.centers, phantom.base.centers
    other = cKDTree(base[phantom.part == 2]).query(centers)[0] < cKDTree(base[phantom.part != 2]).query(centers)[0]
    near = np.stack([arm_members(centers, phantom), other])
    mass = np.concatenate([model.decode(z[i:i + batch_size])[1] @ near.T for i in range(0, len(z), batch_size)])
    return KMeans(len(STATES[phantom.kind]), n_init=10, random_state=0).fit_predict(mass / np.maximum(mass.max(0), 1e-12))


def plain_r2(estimate, truth):
    """1 - (residual sum of squares) / (total sum of squares), nothing fitted."""
    return float(1 - np.sum((truth - estimate) ** 2) / np.sum((truth - truth.mean()) ** 2))
