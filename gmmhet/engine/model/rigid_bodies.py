"""Rigid bodies that the user names (`--rigid`), and the overall rigid motion that most of a molecule makes;
parts that small motions are described by are in `rigid_modes`."""
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose_change import small_rotation

#: displacement (Å) that one unit of network output stands for
POSITION_UNIT_ANGST = 5.0
#: a rigid body turns by less than this (radians)
LARGEST_TURN = np.pi / 2
#: a rigid body counts as at least so large (radius of gyration, Å)
LEAST_RADIUS_ANGST = 1.0
#: steps in which an overall rigid motion is fitted, and the distance (Å) within which what follows it counts
RIGID_STEPS, RIGID_ANGST = 3, 0.5
#: Å^2 added to the moments of inertia
LEAST_INERTIA = 1e-3


class RigidBodies:
    """Bodies that turn and shift as a whole (see `Deformation`): six numbers each, whatever their size.

    Parameters
    ----------
    neutral : Mixture of N Gaussians.
    body : int [N], each Gaussian's body from 1, 0 for none.
    reach_angst : largest shift, Å.

    Attributes
    ----------
    members : [N, M], 1 where a Gaussian belongs to a body.
    """

    def __init__(self, neutral: Mixture, body: np.ndarray, reach_angst: float) -> None:
        members = np.asarray(body).astype(int)[:, None] == np.arange(1, 1 + np.max(body))
        share = members * np.asarray(neutral.amplitudes, float)[:, None]
        share /= np.maximum(share.sum(0), 1e-12)
        pivots = share.T @ neutral.centers                                                          # [M, 3]
        radius = np.sqrt(np.einsum("nm,nmi->m", share, (neutral.centers[:, None] - pivots) ** 2))
        arm = neutral.centers - members @ pivots                                                    # [N, 3]
        self.members, self._arm = (tf.constant(np.float32(values)) for values in (members, arm))
        turn_unit = POSITION_UNIT_ANGST / np.maximum(radius, LEAST_RADIUS_ANGST)[:, None]
        self._turn_unit = tf.constant(turn_unit, tf.float32)
        self._reach_angst = reach_angst

    def displacements(self, outputs: tf.Tensor, inner: Any = None) -> tf.Tensor:
        """Displacements [B, N, 3] (Å) by network outputs.

        Parameters
        ----------
        outputs : [B, 6 M], of each body its shift and then its rotation vector.
        inner : [N, 3] or [B, N, 3] Å, how far each Gaussian is from its neutral place within the body; or
            None.
        """
        batch, bodies = tf.shape(outputs)[0], self.members.shape[1]
        shift, turn = tf.split(tf.reshape(outputs, [batch, bodies, 6]), 2, axis=2)
        turn = tf.reshape(_bounded(turn * self._turn_unit, LARGEST_TURN), [-1, 3])
        change = tf.reshape(small_rotation(turn) - tf.eye(3), [batch, bodies, 3, 3])
        arm = self._arm if inner is None else self._arm + inner
        turned = tf.linalg.matvec(tf.einsum("nm,bmij->bnij", self.members, change), arm)           # [B, N, 3]
        shifted = _bounded(shift * POSITION_UNIT_ANGST, self._reach_angst)                         # [B, M, 3]
        return turned + tf.einsum("nm,bmi->bni", self.members, shifted)


def _bounded(vectors: tf.Tensor, most: float) -> tf.Tensor:
    """Vectors [..., 3], shortened to less than `most` by a hyperbolic tangent; differentiable at 0."""
    length = tf.sqrt(tf.reduce_sum(vectors**2, -1, keepdims=True) + 1e-12)
    return vectors * (most / length * tf.tanh(length / most))


@tf.function(reduce_retracing=True, autograph=False)
def without_rigid_motion(centers: tf.Tensor, displacements: tf.Tensor, mass: tf.Tensor) -> tf.Tensor:
    """Displacements without the overall rigid motion, the one that most of the mass makes.

    Shift and rotation are fitted by iteratively reweighted least squares with the weights of a Cauchy
    distribution (Holland & Welsch 1977), from no motion: a domain that moves by itself leaves the rest where
    it is, and a motion of everything is found whole. Differentiable, the weights being held fixed.

    Parameters
    ----------
    centers : [N, 3] Å; displacements : [B, N, 3] Å; mass : [N].

    Returns
    -------
    [B, N, 3] Å
    """
    residual = displacements
    for _ in range(RIGID_STEPS):
        weight = tf.stop_gradient(mass / (tf.reduce_sum(residual**2, 2) + RIGID_ANGST**2))           # [B, N]
        weight /= tf.reduce_sum(weight, 1, keepdims=True)
        middle, shift = tf.matmul(weight, centers), tf.linalg.matvec(residual, weight, transpose_a=True)
        arm = centers - middle[:, None]                                                            # [B, N, 3]
        second_moment = tf.matmul(arm * weight[..., None], arm, transpose_a=True)                  # [B, 3, 3]
        inertia = tf.linalg.trace(second_moment)[:, None, None] * tf.eye(3) - second_moment
        torque = tf.reduce_sum(weight[..., None] * tf.linalg.cross(arm, residual - shift[:, None]), 1)
        turn = _solve_3x3(inertia + LEAST_INERTIA * tf.eye(3), torque)
        # rows times R: turned back
        residual = tf.matmul(arm + residual - shift[:, None], small_rotation(turn)) - arm
    return residual


def _solve_3x3(matrices: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """x [B, 3] of matrices [B, 3, 3] x = vectors [B, 3], by cross products of the rows: GPUs wait for their
    general solver."""
    a, b, c = tf.unstack(matrices, axis=1)
    columns = tf.linalg.cross(b, c), tf.linalg.cross(c, a), tf.linalg.cross(a, b)
    determinant = tf.reduce_sum(a * columns[0], 1, keepdims=True)
    return tf.add_n([column * value
                     for column, value in zip(columns, tf.split(vectors, 3, axis=1))]) / determinant
