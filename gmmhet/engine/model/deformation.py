"""From network outputs to Gaussian models: bounded, smooth over neighbours, exactly neutral where nothing may vary."""
from functools import cached_property

import numpy as np
import tensorflow as tf
from scipy import sparse
from sklearn.cluster import KMeans

from gmmhet.engine.config import COLUMNS
from gmmhet.engine.model.rigid_bodies import POSITION_UNIT_ANGST, Bodies, brought_to_rest
from gmmhet.engine.model.rigid_modes import rigid_modes, split

#: change of log-width that one unit of network output stands for
WIDTH_UNIT = 0.2
#: the same of the base, which is learned in fewer steps than the networks' weights
BASE_POSITION_UNIT_ANGST, BASE_WIDTH_UNIT = 15.0, 0.6
#: what the base changes, as a share of the motion that blurred it, and Å that are added in squares to that
BLUR_SHARE, LEAST_BLUR_ANGST = 0.25, 0.05
#: edge of a neighbourhood over the distance over which positions change together
NEIGHBOURHOOD = 2.5


def _clusters(centers, edge_angst, seed=0):
    """k-means clusters of points [N, 3], as many as cubes of this edge hold some."""
    return KMeans(len(np.unique(np.floor(centers / edge_angst), axis=0)), n_init=1, random_state=seed).fit(centers)


def anchor_weights(centers, smoothness_angst, seed=0):
    """Weights [N, M] that spread the values at M anchors over the Gaussians.

    Anchors are k-means centres, as many as cubes of edge `smoothness_angst` hold Gaussians; the weight falls off as a Gaussian of that
    standard deviation and each row sums to 1. Smoothness 0 gives every Gaussian its own anchor.
    """
    count = len(centers)
    if smoothness_angst <= 0 or count < 4:
        return np.eye(count, dtype=np.float32)
    points = _clusters(centers, smoothness_angst, seed).cluster_centers_
    distance2 = np.sum((centers[:, None] - points[None]) ** 2, axis=-1)
    weights = np.exp(-0.5 * (distance2 - distance2.min(1, keepdims=True)) / smoothness_angst**2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


class Deformation:
    """Network outputs to changes of a neutral mixture, or of each particle's own (a further stage of training).

    Amplitudes stay between 0 and a ceiling by a logistic curve, positions within `reach` of neutral by a hyperbolic tangent, widths
    within a factor e^(+-0.5). Output 0 is neutral, and a Gaussian outside `free` is neutral whatever the output. With v the outputs spread
    over the Gaussians by `anchor_weights`, r the reach and A the ceiling, a mixture (c, a, s) becomes

        c + r tanh(5 Å v / r),    A sigmoid(logit(a / A) + v),    s exp(tanh(0.4 v) / 2)

    so that of several stages the displacements add, the odds a / (A - a) of the amplitudes multiply, and so do the widths. Rigid bodies
    have six outputs each, whatever their size: with a shift t and a rotation vector w of them, and p and g the body's centre of mass and
    radius of gyration, its Gaussians go from c to

        p + R(pi/2 tanh(5 Å w / g / (pi/2))) (c - p) + r tanh(5 Å t / r),

    where tanh of a vector keeps its direction.

    The mixture that they change may itself be a learned one, the base: with b of each Gaussian, free of its neighbours, it is
    c + r tanh(15 Å b / r) and s exp(tanh(1.2 b) / 2). A neutral mixture is blurred where anything moves; the base is what it is once the
    motion is known (see `unlike`).

    Parameters
    ----------
    neutral : Mixture.
    free : array [N], 0 or False for Gaussians that stay neutral; of rigid bodies, each Gaussian's body from 1.
    columns : tuple of COLUMNS that may vary.
    smoothness_angst : float, see `anchor_weights`.
    amplitude_share : float, part of that distance over which amplitudes change together: what comes and goes has sharper borders than what
        moves.
    at_rest : bool, whether the rigid motion of most of the mass is taken out of every displacement (`brought_to_rest`): where poses are
        found along with conformations, the two would else share it in any proportion.
    rigid : bool, whether bodies move as a whole instead of each Gaussian with its neighbours.
    """

    def __init__(self, neutral, free, columns, smoothness_angst, at_rest=False, amplitude_share=1.0, rigid=False):
        self.columns = tuple(c for c in COLUMNS if c in columns)
        self.free, self.at_rest = np.asarray(free, bool), at_rest
        self._may = tf.constant(self.free[:, None], tf.float32)
        self.reach_angst = 0.5 * neutral.radius_angst
        self._bodies = Bodies(neutral, free, self.reach_angst) if rigid and "position" in self.columns else None
        bend = [c for c in self.columns if not (c == "position" and self._bodies)]
        reach = {c: smoothness_angst * (amplitude_share if c == "amplitude" else 1.0) for c in bend}
        spread = {distance: self._spread(neutral.centers, distance) for distance in set(reach.values())}
        self.weights = {c: spread[reach[c]] for c in bend}
        if self._bodies:
            self.weights["position"] = self._bodies.members
        self._smoothness_angst = smoothness_angst
        by_anchor = {"amplitude": 1, "position": 6 if self._bodies else 3, "width": 1}
        self.sizes = tuple(by_anchor[c] * self.weights[c].shape[1] for c in self.columns)
        self._centers, self._amplitudes, self._widths = (tf.constant(np.float32(a)) for a in (
            neutral.centers, neutral.amplitudes, neutral.widths))
        ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))
        self._ceiling = tf.constant(np.float32(ceiling))

    def _spread(self, centers, smoothness_angst):
        """Weights [N, M] of all Gaussians; 0 for those that may not vary."""
        inner = anchor_weights(centers[self.free], smoothness_angst)
        weights = np.zeros((len(centers), inner.shape[1]), np.float32)
        weights[self.free] = inner
        return tf.constant(weights)

    @cached_property
    def neighbourhoods(self):
        """Which Gaussians may move alike: membership [N, K] in neighbourhoods of 2.5 times the smoothness, or in rigid bodies; without
        either each is its own."""
        if self._bodies:
            return self._bodies.members.numpy()
        if self._smoothness_angst > 0:
            labels = _clusters(self._centers.numpy()[self.free], NEIGHBOURHOOD * self._smoothness_angst).labels_
        else:
            labels = np.arange(self.free.sum())
        members = np.zeros((len(self.free), labels.max() + 1), np.float32)
        members[np.flatnonzero(self.free), labels] = 1
        return members

    @cached_property
    def parts(self):
        """The tree of parts that may each move as a whole, down to the size of a neighbourhood (see `networks.parts.split`); nothing of
        bodies, nor where positions do not vary."""
        if self._bodies or "position" not in self.columns:
            return [], []
        return split(self._centers.numpy()[self.free].astype(float), NEIGHBOURHOOD * self._smoothness_angst)

    def merged(self, most):
        """Which outputs say the same where neighbouring anchors are taken together, until no column has more than `most` numbers: for each
        column a sparse matrix of 0 and 1, [outputs, numbers]. Bodies stay by themselves."""
        found = []
        for name, size in zip(self.columns, self.sizes):
            weights = self.weights[name].numpy()
            numbers, groups = size // weights.shape[1], np.arange(weights.shape[1])
            if size > most and not (name == "position" and self._bodies):
                places = (weights.T @ self._centers.numpy()) / weights.sum(0)[:, None]
                groups = np.unique(KMeans(most // numbers, n_init=1, random_state=0).fit(places).labels_, return_inverse=True)[1]
            member = sparse.csr_array((np.ones(len(groups)), (np.arange(len(groups)), groups)))
            found.append(sparse.csr_array(sparse.kron(member, sparse.identity(numbers))))
        return found

    def rigid_modes(self, information, merged):
        """Modes of these parts, their readers and whose they are (see `networks.parts.rigid_modes`), of motions whose Fisher information is
        [P, P]; `merged` [positions, P] says which outputs each number is of (see `Deformation.merged`)."""
        free = self.free
        weights = self.weights["position"].numpy()[free].astype(float) @ merged[::3, ::3]
        return rigid_modes(information, weights, self._centers.numpy()[free].astype(float), self.parts[0])

    @cached_property
    def motions(self):
        """How far each anchor of the positions is in each neighbourhood, [M, K]; rows sum to 1."""
        weights = self.weights["position"].numpy()
        return weights.T @ self.neighbourhoods / weights.sum(0)[:, None]

    @property
    def anchors(self):
        """Number of anchors; where columns have different ones, the most."""
        return max(weights.shape[1] for weights in self.weights.values())

    @property
    def moves_part(self):
        """Whether a part of the molecule may move, and not all of it."""
        return "position" in self.columns and not self.free.all()

    def begin(self, mixture):
        """What this stage changes of mixtures (centers, amplitudes, widths as from `apply`) of an earlier one.

        Where a part of the molecule may move, its neutral amplitudes are brought back, times one factor that keeps the mass which the part
        had: an earlier stage that could only change amplitudes follows a motion by fading the part here and there, and moving it again on
        top of that would count the motion twice. How much of the part there is stays. All else stays as it was.
        """
        centers, amplitudes, widths = mixture
        if not self.moves_part:
            return mixture
        inside, neutral = self._may[:, 0], self._amplitudes
        share = tf.reduce_sum(amplitudes * inside, 1, keepdims=True) / tf.reduce_sum(neutral * inside)
        return centers, amplitudes + inside * (share * neutral - amplitudes), widths

    @property
    def outputs(self):
        """Number of network outputs."""
        return sum(self.sizes)

    def apply(self, u, start=None, at_rest=None, base=None):
        """Mixtures of network outputs u [B, outputs]: centers [B, N, 3], amplitudes [B, N], widths [B, N] ([N] when widths do not vary).

        start : what `u` changes, as this function returns it; None for the neutral mixture. at_rest : bool, in place of the deformation's
        own. base : [N, 4] or [B, N, 4], what is learned of the mixture that `u` changes: of positions and, last, of widths; None for
        nothing.
        """
        batch = tf.shape(u)[0]
        parts = dict(zip(self.columns, tf.split(u, self.sizes, axis=1)))
        ones = tf.ones([batch, 1])
        centers, amplitudes, widths = start or (self._centers[None] * ones[..., None], self._amplitudes * ones, self._widths)
        shift = None
        if base is not None:
            shift = self.reach_angst * tf.tanh(base[..., :3] * self._may * (BASE_POSITION_UNIT_ANGST / self.reach_angst))
            centers += shift
            widths *= tf.exp(0.5 * tf.tanh(2.0 * BASE_WIDTH_UNIT * base[..., 3] * self._may[:, 0]))
        if "position" in parts:
            moved = self._bodies.moved(parts["position"], shift) if self._bodies else self._moved(parts["position"])
            centers += brought_to_rest(self._centers, moved, self._amplitudes) if (self.at_rest if at_rest is None else at_rest) else moved
        if "amplitude" in parts:
            change = tf.matmul(parts["amplitude"], self.weights["amplitude"], transpose_b=True)
            share = tf.clip_by_value(amplitudes / self._ceiling, 1e-4, 1 - 1e-4)
            amplitudes += self._ceiling * _logistic_change(share, change)
        if "width" in parts:
            change = WIDTH_UNIT * tf.matmul(parts["width"], self.weights["width"], transpose_b=True)
            widths *= ones * tf.exp(0.5 * tf.tanh(2.0 * change))
        return centers, amplitudes, widths

    def unlike(self, base, u):
        """How unlikely a base [N, 4] is for the motion that network outputs u [P, outputs] tell, as twice a negative logarithm.

        A neutral mixture is blurred by as much as it moves. So shifts, along each axis, and changes of width, all in Å, are taken to be
        normal with a standard deviation of a share (BLUR_SHARE) of the root mean square motion there: what stands still keeps its neutral
        shape, and what moves far is hardly held.
        """
        motion = tf.reduce_mean(tf.reduce_sum((self.apply(u)[0] - self._centers) ** 2, 2), 0)
        change = tf.concat([BASE_POSITION_UNIT_ANGST * base[:, :3], BASE_WIDTH_UNIT * self._widths[:, None] * base[:, 3:]], 1)
        return tf.reduce_sum(change**2 / (BLUR_SHARE**2 * motion + LEAST_BLUR_ANGST**2)[:, None])

    @cached_property
    def _neutral_share(self):
        """Neutral amplitude over its ceiling, a mean over the Gaussians of each anchor of the amplitudes, [M]."""
        weights = self.weights["amplitude"].numpy()
        share = np.clip(self._amplitudes.numpy() / self._ceiling.numpy(), 1e-4, 1 - 1e-4)
        return (weights.T @ share / np.maximum(weights.sum(0), 1e-12)).astype(np.float32)

    def scatter(self, u):
        """How far amplitudes are from having but two values, as where a part is either there or not.

        Parameters
        ----------
        u : [P, outputs], what the decoder says at P latent points.

        Returns
        -------
        [M], of each anchor of the amplitudes the mean square distance from its level, which is the mean of those of the P values that lie
        on the same side of the middle between the least and the largest; in units of the outputs at neutral. Amplitudes must be among the
        columns.
        """
        share, number = self._neutral_share, self.columns.index("amplitude")
        value = _logistic_change(share, tf.split(u, self.sizes, axis=1)[number]) / (share * (1 - share))
        high = tf.cast(value > 0.5 * (tf.reduce_max(value, 0) + tf.reduce_min(value, 0)), tf.float32)

        def within(side):
            level = tf.reduce_sum(side * value, 0) / tf.maximum(tf.reduce_sum(side, 0), 1.0)
            return tf.reduce_mean(side * (value - level) ** 2, 0)
        return within(high) + within(1 - high)

    def _moved(self, outputs):
        """Displacements [B, N, 3] of Gaussians that move with their neighbours, by outputs [B, 3 M]."""
        moved = tf.einsum("nm,bmc->bnc", self.weights["position"], tf.reshape(outputs, [tf.shape(outputs)[0], -1, 3]))
        return self.reach_angst * tf.tanh(moved * (POSITION_UNIT_ANGST / self.reach_angst))


def _logistic_change(share, change):
    """``sigmoid(logit(share) + change) - share``, in a form that is 0 to the last bit where `change` is 0."""
    growth = tf.math.expm1(tf.clip_by_value(change, -30.0, 30.0))
    return share * (1 - share) * growth / (1 + share * growth)
