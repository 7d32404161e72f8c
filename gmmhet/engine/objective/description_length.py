"""Description length of the decoder: what it takes to say it, in nats (ARD: MacKay 1992, Tipping 2001; MDL:
Rissanen 1978)."""
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine.model.deformation import (
    CONSENSUS_POSITION_UNIT_ANGST,
    CONSENSUS_WIDTH_UNIT,
    LEAST_SHARE,
    NEIGHBOURHOOD,
    Deformation,
    logistic_change,
    neighbourhood_clusters,
)
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.rigid_modes import RigidModes

#: errors that an output makes, which is a curve over latent points: of its mean, its slope and its bend
ERRORS = 3
#: variance, in errors of estimation, below which nothing is told from 0
LEAST_VARIANCE = 0.01
#: what the consensus may shift, as a share of the motion that blurred it, and Å that are added in squares to
#: that
BLUR_SHARE, LEAST_BLUR_ANGST = 0.25, 0.05


def ard_cost(squares: tf.Tensor) -> tf.Tensor:
    """Cost of automatic relevance determination (MacKay 1992; Tipping 2001) of one of many numbers whose mean
    square is x in errors of estimation: ``min_t 3 x / t + log(1 + t)`` half nats.

    t is the variance that their prior has, and 1 + t that of what is estimated of them. The cost brings to 0
    what is no larger than its error, and hardly changes what is much larger. x counts three times because
    what follows noise alone has three errors (ERRORS), not one, and is to come to nothing.

    Parameters
    ----------
    squares : x, of any shape.
    """
    squares = ERRORS * squares
    variance = 0.5 * (squares + tf.sqrt(squares * (squares + 4) + LEAST_VARIANCE**2))
    return squares / variance + tf.math.log1p(variance) - tf.math.log1p(0.5 * LEAST_VARIANCE)


def grouped_ard_cost(squares: tf.Tensor, members: Any) -> tf.Tensor:
    """`ard_cost` of all numbers where groups share a variance.

    Parameters
    ----------
    squares : [M, C], of C numbers of each of M things, in errors of estimation.
    members : [M, K], how far each thing is in each group.
    """
    size = members.sum(0)
    mean = tf.matmul(members, tf.reduce_mean(squares, 1, keepdims=True), transpose_a=True)[:, 0] / size  # [K]
    return squares.shape[1] * tf.reduce_sum(size * ard_cost(mean))


class DescriptionLength:
    """What it takes to describe what a model's decoder says, and its consensus shift, in nats.

    x = count F v is the mean square v of an output over latent points, in errors of estimation after `count`
    images: F is the variance of an image's gradient by it, which stands for the Fisher information. Motion is
    described by neighbourhoods, each of which has one variance for all its outputs: of where nothing moves
    hardly anything is left, and what moves together may be small in every single output (see
    `grouped_ard_cost`). Of small motion, what each part does as a whole is described before, by six numbers
    of one variance, from the whole molecule to parts of the size of a neighbourhood (`rigid_modes`): where
    motion is not small, the neutral Gaussians are of a smeared density, and what they do has to bend. Other
    outputs cost ``log(1 + x) / 2`` each (minimum description length; Rissanen 1978), and amplitudes ``D log(1
    + count F s) / 2`` more, with s their mean square distance from two levels (`two_level_scatter`): of parts
    that come and go no more has to be said, of others what they are along each of the D latent dimensions.
    The consensus shift is held by the motion (`consensus_shift_cost`).

    Parameters
    ----------
    model : HeterogeneityModel.

    Attributes
    ----------
    rigid_modes : RigidModes of parts, by which small motion is described; None without.
    """

    def __init__(self, model: HeterogeneityModel) -> None:
        self._model = model
        self.rigid_modes: RigidModes | None = None

    @property
    def _deformation(self) -> Deformation:
        return self._model.deformation

    @cached_property
    def neighbourhoods(self) -> np.ndarray:
        """Which Gaussians may move alike: membership [N, K] in neighbourhoods of 2.5 times the smoothness, or
        in rigid bodies; without either each is its own."""
        deformation = self._deformation
        if deformation.bodies:
            return deformation.bodies.members.numpy()
        if deformation.smoothness_angst > 0:
            centers = deformation.centers.numpy()[deformation.free]
            labels = neighbourhood_clusters(centers, NEIGHBOURHOOD * deformation.smoothness_angst).labels_
        else:
            labels = np.arange(deformation.free.sum())
        members = np.zeros((len(deformation.free), labels.max() + 1), np.float32)
        members[np.flatnonzero(deformation.free), labels] = 1
        return members

    @cached_property
    def anchor_membership(self) -> np.ndarray:
        """How far each anchor of the positions is in each neighbourhood, [M, K]; rows sum to 1."""
        weights = self._deformation.weights["position"].numpy()
        return weights.T @ self.neighbourhoods / weights.sum(0)[:, None]

    @cached_property
    def _neutral_share(self) -> np.ndarray:
        """Neutral amplitude over its ceiling, a mean over the Gaussians of each anchor of the amplitudes,
        [M]."""
        deformation = self._deformation
        weights = deformation.weights["amplitude"].numpy()
        share = deformation.amplitudes.numpy() / deformation.ceiling.numpy()
        share = np.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
        return (weights.T @ share / np.maximum(weights.sum(0), 1e-12)).astype(np.float32)

    def __call__(self, z_stage: tf.Tensor, count: int) -> tf.Tensor:
        """The description length at latent points [P, n_stage] drawn from the prior, after `count` images."""
        model, deformation = self._model, self._deformation
        outputs = model.decoder_outputs(z_stage, training=True)                               # [P, n_outputs]
        information = count * model.encoder.deviation[:deformation.n_outputs] ** 2
        cost = 0.0
        for name, known, values in zip(deformation.parameters, tf.split(information, deformation.sizes),
                                       tf.split(outputs, deformation.sizes, axis=1)):
            if name == "position":
                cost += self._position_cost(known, values, count)
            else:
                cost += tf.reduce_sum(tf.math.log1p(known * tf.reduce_mean(values**2, 0)))
            if name == "amplitude":
                cost += model.n_stage * tf.reduce_sum(tf.math.log1p(known * self.two_level_scatter(values)))
        if model.consensus_shift is not None:
            cost += self.consensus_shift_cost(model.learned_consensus_shift, tf.stop_gradient(outputs))
        return 0.5 * cost

    def _position_cost(self, known: tf.Tensor, values: tf.Tensor, count: int) -> tf.Tensor:
        """Twice what motion costs: information [F] of all images, outputs [P, F]."""
        cost = 0.0
        if self.rigid_modes is not None:
            modes, dual_modes, owner = self.rigid_modes
            of_parts = tf.matmul(values, dual_modes)                                                 # [P, K]
            values -= tf.matmul(of_parts, modes, transpose_b=True)
            members = np.float32(owner[:, None] == np.unique(owner))
            cost += grouped_ard_cost(count * tf.reduce_mean(of_parts**2, 0)[:, None], members)
        squares = known * tf.reduce_mean(values**2, 0)
        return cost + grouped_ard_cost(tf.reshape(squares, [len(self.anchor_membership), -1]),
                                       self.anchor_membership)

    def two_level_scatter(self, values: tf.Tensor) -> tf.Tensor:
        """How far amplitudes are from having but two values, as where a part is either there or not.

        Parameters
        ----------
        values : [P, M], what the decoder says of amplitudes at P latent points.

        Returns
        -------
        [M], of each anchor the mean square distance from its level, which is the mean of those of the P
        values that lie on the same side of the middle between the least and the largest; in units of the
        outputs at neutral.
        """
        share = self._neutral_share
        amplitude = logistic_change(share, values) / (share * (1 - share))
        is_high = tf.cast(amplitude > 0.5 * (tf.reduce_max(amplitude, 0) + tf.reduce_min(amplitude, 0)),
                          tf.float32)

        def within(side: tf.Tensor) -> tf.Tensor:
            level = tf.reduce_sum(side * amplitude, 0) / tf.maximum(tf.reduce_sum(side, 0), 1.0)
            return tf.reduce_mean(side * (amplitude - level) ** 2, 0)
        return within(is_high) + within(1 - is_high)

    def consensus_shift_cost(self, consensus_shift: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """How unlikely a consensus shift [N, 4] is for the motion of outputs [P, n_outputs], as twice a
        negative logarithm.

        A consensus is blurred by as much as it moves. So shifts, along each axis, and changes of width, all
        in Å, are taken to be normal with a standard deviation of a share (BLUR_SHARE) of the root mean square
        motion there: what stands still keeps its neutral shape, and what moves far is hardly held.
        """
        deformation, removes = self._deformation, self._model.state.removes_rigid_motion
        centers = deformation.apply(outputs, removes_rigid_motion=removes).centers
        motion = tf.reduce_mean(tf.reduce_sum((centers - deformation.centers) ** 2, 2), 0)           # [N] Å^2
        change = tf.concat([CONSENSUS_POSITION_UNIT_ANGST * consensus_shift[:, :3],
                            CONSENSUS_WIDTH_UNIT * deformation.widths[:, None] * consensus_shift[:, 3:]], 1)
        return tf.reduce_sum(change**2 / (BLUR_SHARE**2 * motion + LEAST_BLUR_ANGST**2)[:, None])
