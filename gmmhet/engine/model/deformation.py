"""From the decoder's numbers to Gaussian models: bounded, smooth over neighbours, exactly neutral where
nothing may vary."""
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import sparse
from sklearn.cluster import KMeans

from gmmhet.engine.config import VARIABLE_PARAMETERS
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.model.rigid_bodies import POSITION_UNIT_ANGST, RigidBodies, without_rigid_motion
from gmmhet.engine.model.rigid_modes import PartTree, part_tree
from gmmhet.engine.model.settings import ModelSettings

#: change of log-width that one unit of network output stands for
WIDTH_UNIT = 0.2
#: the same of the consensus shift, which is learned in fewer steps than the networks' weights: Å, and
#: log-width
CONSENSUS_POSITION_UNIT_ANGST, CONSENSUS_WIDTH_UNIT = 15.0, 0.6
#: edge of a neighbourhood over the distance over which positions change together
NEIGHBOURHOOD = 2.5
#: amplitudes over their ceiling stay this far from 0 and from 1
LEAST_SHARE = 1e-4


def neighbourhood_clusters(centers: np.ndarray, edge_angst: float) -> KMeans:
    """k-means clusters of points [N, 3], as many as cubes of this edge hold some."""
    cubes = np.unique(np.floor(centers / edge_angst), axis=0)
    return KMeans(len(cubes), n_init=1, random_state=0).fit(centers)


def anchor_weights(centers: np.ndarray, smoothness_angst: float) -> np.ndarray:
    """Weights that spread the values at M anchors over N Gaussians.

    Anchors are k-means centres, as many as cubes of edge `smoothness_angst` hold Gaussians; the weight falls
    off as a Gaussian of that standard deviation and each row sums to 1. Smoothness 0 gives every Gaussian its
    own anchor.

    Parameters
    ----------
    centers : [N, 3] Å.

    Returns
    -------
    float32 [N, M]
    """
    count = len(centers)
    if smoothness_angst <= 0 or count < 4:
        return np.eye(count, dtype=np.float32)
    anchors = neighbourhood_clusters(centers, smoothness_angst).cluster_centers_
    distance2 = np.sum((centers[:, None] - anchors[None]) ** 2, axis=-1)                             # [N, M]
    weights = np.exp(-0.5 * (distance2 - distance2.min(1, keepdims=True)) / smoothness_angst**2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


class Deformation:
    """The decoder's numbers to changes of a mixture: of the neutral one, or of each particle's own (a further
    stage of training).

    Amplitudes stay between 0 and a ceiling by a logistic curve, each coordinate within `reach` of neutral by
    a hyperbolic tangent, widths within a factor e^(+-0.5). Output 0 changes nothing, nor does any output
    change a Gaussian that is not free. With v the outputs spread over the Gaussians by `anchor_weights`, r
    the reach and A the ceiling, a mixture (c, a, s) becomes

        c + r tanh(5 Å v / r),    A sigmoid(logit(a / A) + v),    s exp(tanh(0.4 v) / 2)

    so that of several stages the displacements add, the odds a / (A - a) of the amplitudes multiply, and so
    do the widths. Rigid bodies have six outputs each, whatever their size: with a shift t and a rotation
    vector w of them, and p and g the body's centre of mass and radius of gyration, its Gaussians go from c to

        p + R(pi/2 tanh(5 Å w / g / (pi/2))) (c - p) + r tanh(5 Å t / r),

    where tanh of a vector keeps its direction.

    The mixture that is changed may itself be a learned one, the shifted consensus: with b of each Gaussian,
    free of its neighbours, it is c + r tanh(15 Å b / r) and s exp(tanh(1.2 b) / 2). A consensus map is
    blurred where anything moves; the shifted one is what it is once the motion is known (see
    `objective.description_length`).

    Parameters
    ----------
    neutral : Mixture of N Gaussians.
    body : array [N], 0 or False for Gaussians that stay neutral; of rigid bodies, each Gaussian's body from
        1.
    settings : ModelSettings: parameters, smoothness, amplitude share, whether bodies are rigid.

    Attributes
    ----------
    parameters : of each Gaussian, that may vary.
    free : bool [N].
    sizes : how many outputs each parameter has; n_outputs : how many in all.
    weights : dict of parameter to tensor [N, M], from its anchors (or bodies) to the Gaussians.
    reach_angst : largest displacement along an axis, Å.
    """

    def __init__(self, neutral: Mixture, body: np.ndarray, settings: ModelSettings) -> None:
        self.parameters = tuple(name for name in VARIABLE_PARAMETERS if name in settings.parameters)
        self.free = np.asarray(body, bool)
        self.centers, self.amplitudes, self.widths = (tf.constant(np.float32(values)) for values in (
            neutral.centers, neutral.amplitudes, neutral.widths))
        self.reach_angst = 0.5 * neutral.radius_angst
        ceiling = np.maximum(2 * neutral.amplitudes, 1.5 * np.percentile(neutral.amplitudes, 95))
        self.ceiling = tf.constant(np.float32(ceiling))
        self.smoothness_angst = settings.smoothness_angst
        self._free = tf.constant(self.free[:, None], tf.float32)
        rigid = settings.rigid and "position" in self.parameters
        self.bodies = RigidBodies(neutral, body, self.reach_angst) if rigid else None
        self.weights = self._spread_weights(neutral.centers, settings.network.amplitude_share)
        numbers = {"amplitude": 1, "position": 6 if self.bodies else 3, "width": 1}
        self.sizes = tuple(numbers[name] * self.weights[name].shape[1] for name in self.parameters)

    def _spread_weights(self, centers: np.ndarray, amplitude_share: float) -> dict[str, tf.Tensor]:
        """Weights [N, M] of all Gaussians for each parameter; 0 for Gaussians that may not vary."""
        by_distance: dict[float, tf.Tensor] = {}
        weights = {}
        for name in self.parameters:
            if name == "position" and self.bodies:
                weights[name] = self.bodies.members
                continue
            distance = self.smoothness_angst * (amplitude_share if name == "amplitude" else 1.0)
            if distance not in by_distance:
                inner = anchor_weights(centers[self.free], distance)
                everywhere = np.zeros((len(centers), inner.shape[1]), np.float32)
                everywhere[self.free] = inner
                by_distance[distance] = tf.constant(everywhere)
            weights[name] = by_distance[distance]
        return weights

    @property
    def n_outputs(self) -> int:
        """Numbers that the decoder gives."""
        return sum(self.sizes)

    @property
    def n_anchors(self) -> int:
        """Anchors; where parameters have different ones, the most."""
        return max(weights.shape[1] for weights in self.weights.values())

    @property
    def moves_part(self) -> bool:
        """Whether a part of the molecule may move, and not all of it."""
        return "position" in self.parameters and not self.free.all()

    @cached_property
    def rigid_parts(self) -> PartTree:
        """The tree of parts that may each move as a whole, down to the size of a neighbourhood; empty of
        bodies, and where positions do not vary."""
        if self.bodies or "position" not in self.parameters:
            return PartTree([], [])
        return part_tree(self.centers.numpy()[self.free].astype(float), NEIGHBOURHOOD * self.smoothness_angst)

    def anchor_groups(self, most: int) -> list[sparse.csr_array]:
        """Which outputs count as one where neighbouring anchors are taken together, until no parameter has
        more than `most` numbers.

        Returns
        -------
        for each parameter a sparse matrix of 0 and 1, [outputs, numbers]. Bodies stay by themselves.
        """
        groupings = []
        for name, size in zip(self.parameters, self.sizes):
            weights = self.weights[name].numpy()
            numbers, group = size // weights.shape[1], np.arange(weights.shape[1])
            if size > most and not (name == "position" and self.bodies):
                anchors = (weights.T @ self.centers.numpy()) / weights.sum(0)[:, None]
                labels = KMeans(most // numbers, n_init=1, random_state=0).fit(anchors).labels_
                group = np.unique(labels, return_inverse=True)[1]
            member = sparse.csr_array((np.ones(len(group)), (np.arange(len(group)), group)))
            groupings.append(sparse.csr_array(sparse.kron(member, sparse.identity(numbers))))
        return groupings

    def apply(self, outputs: tf.Tensor, start: "MixtureBatch | None" = None, consensus_shift: Any = None,
              removes_rigid_motion: bool = False) -> MixtureBatch:
        """Mixtures of the decoder's numbers.

        Parameters
        ----------
        outputs : [B, n_outputs].
        start : MixtureBatch, what is changed; None for the neutral mixture.
        consensus_shift : [N, 4] or [B, N, 4], what is learned of the mixture that is changed: of positions
            and, last, of log-widths; None for nothing.
        removes_rigid_motion : whether the overall rigid motion is taken out of the displacements.

        Returns
        -------
        MixtureBatch: centers [B, N, 3], amplitudes [B, N], widths [B, N] ([N] where they are the same for
        all).
        """
        batch = tf.shape(outputs)[0]
        by_parameter = dict(zip(self.parameters, tf.split(outputs, self.sizes, axis=1)))
        ones = tf.ones([batch, 1])
        centers, amplitudes, widths = start or (
            self.centers[None] * ones[..., None], self.amplitudes * ones, self.widths)
        shift = None
        if consensus_shift is not None:
            unit = CONSENSUS_POSITION_UNIT_ANGST / self.reach_angst
            shift = self.reach_angst * tf.tanh(consensus_shift[..., :3] * self._free * unit)
            centers += shift
            widths *= tf.exp(0.5
                             * tf.tanh(2.0 * CONSENSUS_WIDTH_UNIT * consensus_shift[..., 3]
                                       * self._free[:, 0]))
        if "position" in by_parameter:
            displacements = self._displacements(by_parameter["position"], shift)
            if removes_rigid_motion:
                displacements = without_rigid_motion(self.centers, displacements, self.amplitudes)
            centers += displacements
        if "amplitude" in by_parameter:
            change = tf.matmul(by_parameter["amplitude"], self.weights["amplitude"], transpose_b=True)
            share = tf.clip_by_value(amplitudes / self.ceiling, LEAST_SHARE, 1 - LEAST_SHARE)
            amplitudes += self.ceiling * logistic_change(share, change)
        if "width" in by_parameter:
            change = WIDTH_UNIT * tf.matmul(by_parameter["width"], self.weights["width"], transpose_b=True)
            widths *= ones * tf.exp(0.5 * tf.tanh(2.0 * change))
        return MixtureBatch(centers, amplitudes, widths)

    def _displacements(self, outputs: tf.Tensor, shift: Any) -> tf.Tensor:
        """Displacements [B, N, 3] by outputs [B, 3 M] of anchors, or [B, 6 M] of bodies whose Gaussians have
        the consensus shift [N, 3]."""
        if self.bodies:
            return self.bodies.displacements(outputs, shift)
        by_anchor = tf.reshape(outputs, [tf.shape(outputs)[0], -1, 3])
        spread = tf.einsum("nm,bmc->bnc", self.weights["position"], by_anchor)
        return self.reach_angst * tf.tanh(spread * (POSITION_UNIT_ANGST / self.reach_angst))

    def with_neutral_region(self, mixture: MixtureBatch) -> MixtureBatch:
        """What this stage changes of the mixtures of an earlier one.

        Where a part of the molecule may move, its neutral amplitudes are brought back, times one factor that
        keeps the mass which the part had: an earlier stage that could only change amplitudes follows a motion
        by fading the part here and there, and moving it again on top of that would count the motion twice.
        How much of the part there is stays. All else stays as it was.
        """
        if not self.moves_part:
            return mixture
        centers, amplitudes, widths = mixture
        inside, neutral = self._free[:, 0], self.amplitudes
        share = tf.reduce_sum(amplitudes * inside, 1, keepdims=True) / tf.reduce_sum(neutral * inside)
        return MixtureBatch(centers, amplitudes + inside * (share * neutral - amplitudes), widths)


def logistic_change(share: Any, change: tf.Tensor) -> tf.Tensor:
    """``sigmoid(logit(share) + change) - share``, in a form that is 0 to the last bit where `change` is 0."""
    growth = tf.math.expm1(tf.clip_by_value(change, -30.0, 30.0))
    return share * (1 - share) * growth / (1 + share * growth)
