"""What a training leaves."""
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.training.trainer import Trainer


@dataclass
class Trained:
    """What a training leaves: the trainer with the best networks, latents (dict of arrays), prior of z, held-out gain [n_held] (nats)."""

    trainer: Trainer
    latents: dict
    prior: tuple
    gain: np.ndarray
    summary: dict

    def single_model(self):
        """The better single model of the held-out particles: neutral, or decoded at the prior's mean. A Mixture.

        In a further stage each particle keeps its conformation of the earlier ones: a function of rows [B] to centers, amplitudes and
        widths.
        """
        model, items, found = self.trainer.model, self.trainer.items, self.latents
        stays = np.mean((found["neutral_evidence"] - found["static_evidence"])[found["held_out"]]) >= 0

        def conformations(rows):
            given = found["z"][items.of(rows).ravel(), :model.given_dim]
            if stays:
                return model.assembled(model.deformation.apply(tf.zeros([len(given), model.deformation.outputs]), model.start(given)))
            return model.assembled(model.mixture(tf.concat([given, tf.repeat(self.prior[0][None], len(given), 0)], 1)))
        if model.earlier:
            return conformations
        centers, amplitudes, widths = (part.numpy() for part in conformations([0]))
        return Mixture(centers[0], amplitudes[0], np.broadcast_to(widths, amplitudes.shape)[0])
