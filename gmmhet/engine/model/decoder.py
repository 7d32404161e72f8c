"""The decoder: from latent points to what the deformation makes of the mixture."""
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gmmhet.engine.model.mlp import mlp, named_weights
from gmmhet.engine.model.settings import ModelSettings
from gmmhet.engine.model.state import ModelState


class Decoder:
    """Latent points of this stage to the numbers by which a `Deformation` changes a mixture; zero before
    training.

    Parameters
    ----------
    settings : ModelSettings.
    sizes : numbers of each parameter of the deformation.
    state : ModelState, whose gates close parameters.
    has_linear : whether a linear map stands beside the network; it counts where the state says so.

    Attributes
    ----------
    linear : tf.Variable [n_stage, sum of sizes], or None.
    """

    def __init__(self, settings: ModelSettings, sizes: Sequence[int], state: ModelState,
                 has_linear: bool) -> None:
        self._sizes, self._state = tuple(sizes), state
        self.network: Any = mlp(settings.latent_dim, sum(sizes), settings.network, settings.seed + 1000, 0.0)
        self.linear = tf.Variable(tf.zeros([settings.latent_dim, sum(sizes)])) if has_linear else None

    def __call__(self, z_stage: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Numbers [B, sum of sizes] at latent points [B, n_stage] on the scale that is trained."""
        outputs = self.network(z_stage, training=training)
        if self.linear is not None:
            outputs += self._state.linear_on * tf.matmul(z_stage, self.linear)
        return outputs * tf.repeat(self._state.gates, self._sizes)

    def named_weights(self) -> dict[str, Any]:
        """Every variable by name."""
        return {**named_weights(self.network), **({} if self.linear is None else dict(linear=self.linear))}
