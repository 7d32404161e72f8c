"""What a training leaves: the best networks, and what they say of every particle."""
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import Views
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.inference.latent_metric import image_distance, uniform_scale
from gmmhet.engine.inference.latent_posterior import (
    LatentPosteriors,
    gaussian_prior,
    infer_latents,
    unit_prior,
)
from gmmhet.engine.inference.least_squares import NormalPrior
from gmmhet.engine.latents import Latents
from gmmhet.engine.likelihood.conformations import Conformations, SingleConformation
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.training.continuation import EarlierLatents
from gmmhet.engine.training.trainer import Trainer

#: views that are encoded at once
CHUNK = 1024


@dataclass(frozen=True)
class Trained:
    """What a training leaves, its networks restored to those that were kept.

    Attributes
    ----------
    trainer : Trainer.
    latents : Latents of all views, z_stage on the scale of the model.
    as_trained : LatentPosteriors, the same with z_stage on the scale that is trained.
    prior : NormalPrior of z_stage, on the scale that is trained.
    """

    trainer: Trainer
    latents: Latents
    as_trained: LatentPosteriors
    prior: NormalPrior

    @property
    def model(self) -> HeterogeneityModel:
        return self.trainer.model

    @property
    def views(self) -> Views:
        return self.trainer.data.inputs.views

    def single_model(self) -> Conformations:
        """The better single model of the held-out particles: neutral, or decoded at the prior's mean; in a
        further stage each particle keeps its conformation of the earlier ones."""
        held = np.asarray(self.latents.held_out)
        stays = np.mean((self.as_trained.neutral_evidence - self.as_trained.static_evidence)[held]) >= 0
        conformations = SingleOfStage(self, bool(stays))
        if self.model.earlier:
            return conformations
        centers, amplitudes, widths = (np.asarray(values) for values in conformations.at(np.array([0])))
        return SingleConformation(Mixture(centers[0], amplitudes[0],
                                          np.broadcast_to(widths, amplitudes.shape)[0]))


@dataclass(frozen=True)
class SingleOfStage:
    """One conformation of this stage for all particles, on top of what the earlier stages found of each, as
    `Conformations`.

    Attributes
    ----------
    trained : Trained.
    stays : whether it is that before this stage; else what is decoded at the prior's mean.
    """

    trained: Trained
    stays: bool

    def at(self, rows: np.ndarray) -> MixtureBatch:
        """Whole particles of the rows [B]."""
        model, views = self.trained.model, self.trained.views
        z_earlier = self.trained.latents.z[views.of(rows).ravel(), :model.n_earlier]
        if self.stays:
            return model.symmetry.assemble(model.unchanged_mixture(tf.constant(z_earlier)))
        model = model.as_trained()
        at_mean = tf.repeat(self.trained.prior.mean[None], len(z_earlier), 0)
        return model.symmetry.assemble(model.mixture(tf.concat([z_earlier, at_mean], 1)))


def infer_result(trainer: Trainer, earlier: EarlierLatents, latent_steps: int) -> Trained:
    """Latent points of all views by the networks that were kept, and the scale on which positions change
    images uniformly.

    Parameters
    ----------
    trainer : Trainer, which has restored the best weights; its model gets the scale.
    earlier : EarlierLatents of the views.
    latent_steps : steps to the posterior; 0 keeps the encoder's mean.
    """
    model, data = trainer.model, trainer.data
    views, features = data.inputs
    held = data.held_out[views.row]
    chunks = np.split(np.arange(len(views)), range(CHUNK, len(views), CHUNK))
    encoded = np.concatenate([model.encode(features[rows]).mean.numpy() for rows in chunks])
    prior = unit_prior(model.n_stage) if model.is_variational else gaussian_prior(encoded[~held])
    posteriors = infer_latents(model, data.inputs, prior, latent_steps, trainer.devices, data.poses)
    z_stage, covariance = posteriors.z[:, model.n_earlier:], posteriors.z_covariance
    if model.is_variational and model.active_parameters == ["position"]:
        scale = uniform_scale(z_stage, image_distance(model.alone()))
        covariance, z_stage = scale.rescale_covariance(z_stage,
                                                       covariance), scale.rescale(z_stage).astype(np.float32)
        encoded, model.latent_scale = scale.rescale(encoded).astype(np.float32), scale
    z = np.concatenate([posteriors.z[:, :model.n_earlier], z_stage], 1)
    padded = np.pad(covariance, ((0, 0), *[(model.n_earlier, 0)] * 2))
    whole = padded + np.pad(earlier.covariance, ((0, 0), *[(0, model.n_stage)] * 2))
    others: dict[str, Any] = {name: getattr(posteriors, name) for name in LatentPosteriors._fields[2:]}
    latents = Latents(views.ids, views.copy, z, z_covariance=whole,
                      z_std=np.sqrt(np.diagonal(whole, axis1=1, axis2=2)), encoded=encoded, held_out=held,
                      **others)
    return Trained(trainer, latents, posteriors, prior)
