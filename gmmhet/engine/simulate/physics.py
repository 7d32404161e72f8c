"""Decoded physics: what the decoded Gaussians themselves say of the motion, with no regression against the
truth."""
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from sklearn.cluster import KMeans

from gmmhet.engine.gmm.mixture import MixtureDecoder
from gmmhet.engine.simulate.phantom import STATES, Phantom

#: angles at which the arm is laid out to assign Gaussians to it
SWEEP_ANGLES = 9


def rigid_rotations(before: np.ndarray, after: np.ndarray, weights: np.ndarray) -> Rotation:
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


def arm_members(neutral_centers: np.ndarray, phantom: Phantom, unit: int = 1) -> np.ndarray:
    """Gaussians of a neutral model [N, 3] that stand for a moving arm: nearer to the arm, at some angle, than
    to anything else. Bool [N]."""
    angles = np.linspace(-phantom.angle_deg, phantom.angle_deg, SWEEP_ANGLES)
    arm = phantom.domain == unit
    anywhere = np.concatenate([phantom.at_angle(angle, unit).centers[arm] for angle in angles])
    static = phantom.reference.centers[~arm]
    return np.asarray(cKDTree(anywhere).query(neutral_centers)[0] < cKDTree(static).query(neutral_centers)[0])


def decoded_angles(model: MixtureDecoder, z: np.ndarray, phantom: Phantom, unit: int = 1,
                   batch_size: int = 256) -> np.ndarray:
    """Angle (degrees, about the phantom's hinge axis) of the arm against the rest in the decoded model of
    every latent point [n, D]: [n]."""
    arm = arm_members(model.neutral.centers, phantom, unit)
    axis = Rotation.from_euler("z", 120.0 * (unit - 1), degrees=True).apply(phantom.axis)
    angles = []
    before = model.neutral.centers
    for i in range(0, len(z), batch_size):
        after, amplitudes, _ = model.decode(z[i:i + batch_size])
        of_arm, of_rest = (rigid_rotations(before[members], after[:, members], amplitudes[:, members])
                           for members in (arm, ~arm))
        angles.append(np.degrees((of_rest.inv() * of_arm).as_rotvec() @ axis))
    return np.concatenate(angles) if angles else np.zeros(0)


def decoded_states(model: MixtureDecoder, z: np.ndarray, phantom: Phantom,
                   batch_size: int = 256) -> np.ndarray:
    """State (from 0, in no order) of a mixed phantom's decoded model at every latent point [n, D]: k-means of
    the masses of its two domains. Int [n]."""
    centers, base = model.neutral.centers, phantom.reference.centers
    to_second = cKDTree(base[phantom.domain == 2]).query(centers)[0]
    second = to_second < cKDTree(base[phantom.domain != 2]).query(centers)[0]
    members = np.stack([arm_members(centers, phantom), second])                     # [2, N]
    batches = [model.decode(z[i:i + batch_size])[1] @ members.T for i in range(0, len(z), batch_size)]
    mass = np.concatenate(batches)                                                  # [n, 2]
    kmeans = KMeans(len(STATES[phantom.kind]), n_init=10, random_state=0)
    return np.asarray(kmeans.fit_predict(mass / np.maximum(mass.max(0), 1e-12)))


def plain_r2(estimate: np.ndarray, truth: np.ndarray) -> float:
    """1 - (residual sum of squares) / (total sum of squares), nothing fitted."""
    return float(1 - np.sum((truth - estimate) ** 2) / np.sum((truth - truth.mean()) ** 2))
