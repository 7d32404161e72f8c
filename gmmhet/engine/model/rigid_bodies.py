"""Rigid bodies, and the rigid motion that most of a molecule makes."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose_change import small_rotation

#: displacement (Å) that one unit of network output stands for
POSITION_UNIT_ANGST = 5.0
#: a rigid body turns by less than this (radians), and counts as at least so large (radius of gyration, Å)
MOST_TURN, LEAST_RADIUS_ANGST = np.pi / 2, 1.0
#: a rigid motion is fitted in so many steps, to what follows it within this distance (Å); Å^2 added to the moments of inertia
RIGID_STEPS, RIGID_ANGST, LEAST_INERTIA = 3, 0.5, 1e-3


class Bodies:
    """Rigid bodies, which turn and shift as a whole (see `Deformation`).

    Parameters
    ----------
    neutral : Mixture; number : int [N], each Gaussian's body from 1, 0 for none; reach_angst : float, of shifts.

    Attributes
    ----------
    members : [N, M], 1 where a Gaussian belongs to a body.
    """

    def __init__(self, neutral, number, reach_angst):
        members = np.asarray(number).astype(int)[:, None] == np.arange(1, 1 + np.max(number))
        share = members * np.asarray(neutral.amplitudes, float)[:, None]
        share /= np.maximum(share.sum(0), 1e-12)
        pivots = share.T @ neutral.centers
        radius = np.sqrt(np.einsum("nm,nmi->m", share, (neutral.centers[:, None] - pivots) ** 2))
        arm = neutral.centers - members @ pivots
        self.members, self._arm = (tf.constant(np.float32(part)) for part in (members, arm))
        self._turn = tf.constant(POSITION_UNIT_ANGST / np.maximum(radius, LEAST_RADIUS_ANGST)[:, None], tf.float32)
        self._reach = reach_angst

    def moved(self, outputs, inner=None):
        """Displacements [B, N, 3] by outputs [B, 6 M]: of each body its shift and then its rotation vector. inner : [N, 3] or [B, N, 3] Å,
        how far each Gaussian is from its neutral place within the body, or None."""
        batch, bodies = tf.shape(outputs)[0], self.members.shape[1]
        shift, turn = tf.split(tf.reshape(outputs, [batch, bodies, 6]), 2, axis=2)
        turn = tf.reshape(_bounded(turn * self._turn, MOST_TURN), [-1, 3])
        change = tf.reshape(small_rotation(turn) - tf.eye(3), [batch, bodies, 3, 3])
        turned = tf.linalg.matvec(tf.einsum("nm,bmij->bnij", self.members, change), self._arm if inner is None else self._arm + inner)
        return turned + tf.einsum("nm,bmi->bni", self.members, _bounded(shift * POSITION_UNIT_ANGST, self._reach))


def _bounded(vectors, most):
    """Vectors [..., 3], shortened to less than `most` by a hyperbolic tangent; differentiable at 0."""
    length = tf.sqrt(tf.reduce_sum(vectors**2, -1, keepdims=True) + 1e-12)
    return vectors * (most / length * tf.tanh(length / most))


@tf.function(reduce_retracing=True, autograph=False)
def brought_to_rest(centers, moved, mass):
    """Displacements [B, N, 3] without the rigid motion that most of the mass makes.

    Shift and rotation are fitted by iteratively reweighted least squares with the weights of a Cauchy distribution, from rest: a domain
    that moves by itself leaves the rest where it is, and a motion of everything is found whole. Differentiable, the weights being held
    fixed.

    Parameters
    ----------
    centers : [N, 3] Å; moved : [B, N, 3], their displacements, Å; mass : [N].
    """
    rest = moved
    for _ in range(RIGID_STEPS):
        weight = tf.stop_gradient(mass / (tf.reduce_sum(rest**2, 2) + RIGID_ANGST**2))
        weight /= tf.reduce_sum(weight, 1, keepdims=True)
        middle, shift = tf.matmul(weight, centers), tf.linalg.matvec(rest, weight, transpose_a=True)
        arm = centers - middle[:, None]
        spread = tf.matmul(arm * weight[..., None], arm, transpose_a=True)
        inertia = tf.linalg.trace(spread)[:, None, None] * tf.eye(3) - spread
        torque = tf.reduce_sum(weight[..., None] * tf.linalg.cross(arm, rest - shift[:, None]), 1)
        turn = _solved(inertia + LEAST_INERTIA * tf.eye(3), torque)
        rest = tf.matmul(arm + rest - shift[:, None], small_rotation(turn)) - arm     # rows times R: turned back
    return rest


def _solved(matrices, vectors):
    """x [B, 3] of matrices [B, 3, 3] x = vectors [B, 3], by cross products of the rows: GPUs wait for their general solver."""
    a, b, c = tf.unstack(matrices, axis=1)
    columns = tf.linalg.cross(b, c), tf.linalg.cross(c, a), tf.linalg.cross(a, b)
    determinant = tf.reduce_sum(a * columns[0], 1, keepdims=True)
    return tf.add_n([column * part for column, part in zip(columns, tf.split(vectors, 3, axis=1))]) / determinant
