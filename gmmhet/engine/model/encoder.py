"""The encoder: from a view's gradients to the posterior of its latent point."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.model.mlp import mlp, named_weights
from gmmhet.engine.model.settings import ModelSettings

#: log standard deviation of the latent posterior stays in this range
LOG_STD_RANGE = -5.0, 1.0
#: and is the network's output less this
LOG_STD_OFFSET = 1.0


class LatentNormal(NamedTuple):
    """Normal posteriors of z with independent axes: mean and log standard deviation, [B, D] each."""

    mean: tf.Tensor
    log_std: tf.Tensor

    def draw(self, noise: tf.Tensor) -> tf.Tensor:
        """z [B, D] of standard normal noise [B, D]."""
        return self.mean + tf.exp(self.log_std) * noise


def kept_axes(most: int, sizes: Sequence[int]) -> list[int]:
    """Axes that the encoder is given of the subspace of each parameter's gradients, whose sizes are these;
    none where `most` is 0."""
    return [min(most // len(sizes), size) for size in sizes]


class Encoder:
    """Features to the latent posterior of this stage.

    Features [B, F] are a view's gradients [B, n_gradients] at every resolution level, and the latent point of
    the earlier stages [B, n_earlier], side by side. They are standardised by column; where settings ask for
    axes, the gradients are then taken along those (see `initialization.subspace`), and a linear map of them
    stands beside the network.

    Parameters
    ----------
    settings : ModelSettings.
    sizes : numbers of each parameter of the deformation.
    levels : int, resolution levels.
    n_earlier : int, latent dimensions of the earlier stages.

    Attributes
    ----------
    mean, deviation : tf.Variable [F], by which features are standardised.
    axes : tf.Variable [n_gradients, n_axes], or None.
    linear : tf.Variable [n_axes, n_stage], or None.
    """

    def __init__(self, settings: ModelSettings, sizes: Sequence[int], levels: int, n_earlier: int) -> None:
        network = settings.network
        self._variational = network.variational
        self._fixed_log_std = np.float32(np.log(max(settings.latent_noise, 1e-6)))
        self.n_gradients = levels * sum(sizes)
        self.n_features = self.n_gradients + n_earlier
        self.n_axes = sum(kept_axes(network.n_axes, [*sizes] * levels))
        outputs = settings.latent_dim * (2 if network.variational else 1)
        self.network: Any = mlp(self.n_axes + n_earlier if self.n_axes else self.n_features, outputs, network,
                                settings.seed, network.encoder_scale)
        self.mean = tf.Variable(tf.zeros(self.n_features), trainable=False)
        self.deviation = tf.Variable(tf.ones(self.n_features), trainable=False)
        self.axes = self.linear = None
        if self.n_axes:
            self.axes = tf.Variable(tf.zeros([self.n_gradients, self.n_axes]), trainable=False)
            self.linear = tf.Variable(tf.zeros([self.n_axes, settings.latent_dim]))

    def __call__(self, features: tf.Tensor, training: bool = False) -> LatentNormal:
        """The posterior of this stage's part of z, on the scale that is trained, of features [B, F]."""
        inputs, linear = (features - self.mean) / self.deviation, 0.0
        if self.axes is not None:
            along = tf.matmul(inputs[:, :self.n_gradients], self.axes)                       # [B, n_axes]
            inputs = tf.concat([along, inputs[:, self.n_gradients:]], 1)
            linear = tf.matmul(along, self.linear)
        outputs = self.network(inputs, training=training)
        if not self._variational:
            return LatentNormal(outputs, tf.fill(tf.shape(outputs), self._fixed_log_std))
        mean, log_std = tf.split(outputs, 2, axis=1)
        return LatentNormal(mean + linear, tf.clip_by_value(log_std - LOG_STD_OFFSET, *LOG_STD_RANGE))

    def z_earlier(self, features: tf.Tensor) -> tf.Tensor:
        """The latent points [B, n_earlier] of the earlier stages that features [B, F] bring along."""
        return features[:, self.n_gradients:]

    def named_weights(self) -> dict[str, Any]:
        """Every variable by name."""
        others = dict(mean=self.mean, deviation=self.deviation, axes=self.axes, linear=self.linear)
        return {**named_weights(self.network), **{name: v for name, v in others.items() if v is not None}}
