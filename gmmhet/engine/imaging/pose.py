"""Orientations: RELION's Euler angles, rotation vectors, point groups. All in NumPy; angles in degrees only
here, at the border."""
import re
from typing import Tuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation


def rotation_from_euler(rot_deg: ArrayLike, tilt_deg: ArrayLike, psi_deg: ArrayLike) -> np.ndarray:
    """Rotations A(rot, tilt, psi) of RELION's Euler angles; A takes a point of the molecule into the frame of
    the image.

    Parameters
    ----------
    rot_deg, tilt_deg, psi_deg : array_like [n], degrees.

    Returns
    -------
    array [n, 3, 3], ``(Rz(rot) Ry(tilt) Rz(psi))^T``.
    """
    angles = np.stack([np.atleast_1d(a).astype(float) for a in (rot_deg, tilt_deg, psi_deg)], axis=1)
    return Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().transpose(0, 2, 1)


def euler_from_rotation(rotation: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RELION's rot, tilt, psi (degrees, each [n]) of rotations A [n, 3, 3]; at tilt 0 or 180 rot is 0."""
    a = np.asarray(rotation, float)
    sin_tilt = np.hypot(a[:, 2, 0], a[:, 2, 1])
    tilt = np.arctan2(sin_tilt, a[:, 2, 2])
    is_tilted = sin_tilt > 1e-7
    rot = np.where(is_tilted, np.arctan2(a[:, 2, 1], a[:, 2, 0]), 0.0)
    psi = np.where(is_tilted, np.arctan2(a[:, 1, 2], -a[:, 0, 2]), np.arctan2(a[:, 0, 1], a[:, 1, 1]))
    return np.degrees(rot), np.degrees(tilt), np.degrees(psi)


def rotation_from_vector(vectors: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] of rotation vectors [n, 3] in radians."""
    return Rotation.from_rotvec(np.asarray(vectors, float)).as_matrix()


def angular_distance_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between rotations a and b [n, 3, 3], degrees [n]."""
    return np.degrees(Rotation.from_matrix(np.einsum("nji,njk->nik", a, b)).magnitude())


def random_rotations(n: int, rng: np.random.Generator) -> np.ndarray:
    """n rotations [n, 3, 3] uniform on SO(3)."""
    rotations = Rotation.random(n, random_state=np.random.RandomState(rng.integers(2**31)))
    return rotations.as_matrix()


def symmetry_matrices(group: str) -> np.ndarray:
    """Matrices S_j [n, 3, 3] of the point group cN or dN (axis z, twofold x); S_0 is the identity.

    A particle seen at A is equally seen at ``A @ S_j``: S_j moves asymmetric unit 0 onto unit j.

    Raises
    ------
    ValueError
        for any other group.
    """
    match = re.fullmatch(r"([cd])([1-9]\d*)", group.strip().lower())
    if not match:
        raise ValueError("symmetry must be cN or dN (such as c3 or d2), got '%s'" % group)
    order = int(match.group(2))
    angles = 360.0 * np.arange(order)[:, None] / order
    turns: np.ndarray = Rotation.from_euler("z", angles, degrees=True).as_matrix()
    if match.group(1) == "c":
        return turns
    return np.concatenate([turns, turns @ np.diag([1.0, -1.0, -1.0])])
