"""Small models without training, their settings, and deformations of random mixtures."""
import dataclasses

import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate
from gmmhet.engine.model.deformation import Deformation
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.settings import PRESETS, ModelSettings

ALL = ("amplitude", "position", "width")


def plain_likelihood(box, pixel_size, mask_diameter_angst=100.0):
    """The likelihood of white noise of variance 1 and density scale 1, up to the finest ring."""
    grid = FourierGrid.to_resolution(box, pixel_size)
    return Agreement(grid, "likelihood", mask_diameter_angst, NoiseEstimate(np.ones(grid.m + 2), 1.0))


def settings(parameters, likelihood, preset="default", network=None, **others):
    """ModelSettings with the networks of a preset, some of whose values are others."""
    networks = dataclasses.replace(PRESETS[preset].network, **(network or {}))
    state = likelihood.state() if likelihood else {}
    return ModelSettings(tuple(parameters), state, network=networks, **others)


def last_layer(network):
    """Matrix and bias of a network's last layer."""
    return network.layers[-1].kernel, network.layers[-1].bias


def untrained(symmetry="c1", amplitude=300.0, parameters=("amplitude", "position"), network=None, **others):
    """A model of 40 Gaussians whose decoder has random weights, for particles of 32 px of 6 Å.

    Half of the Gaussians may vary; the amplitude of each says how much an image tells.
    """
    rng = np.random.default_rng(0)
    centers = np.float32(rng.normal(0, 25, (40, 3)))
    neutral = Mixture(centers, np.full(40, amplitude, np.float32), np.full(40, 8, np.float32))
    made = settings(parameters, plain_likelihood(32, 6.0, 150.0),
                    network=dict(dict(hidden=(8,)), **(network or {})),
                    symmetry=symmetry, particles="p.star",
                    **dict(dict(smoothness_angst=15.0, latent_dim=2, whole_unit=True), **others))
    model = HeterogeneityModel(neutral, np.arange(40) < 20, made)
    for variable in model.decoder.network.variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return model


def mixture(count=60, seed=0):
    """Gaussians at random."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 20, (count, 3)).astype(np.float32)
    return Mixture(centers, rng.uniform(0.5, 2, count).astype(np.float32),
                   rng.uniform(3, 6, count).astype(np.float32))


def deformation(neutral, body, parameters, smoothness_angst, amplitude_share=1.0, rigid=False):
    """A Deformation; body : [N], or None where all may vary."""
    own = settings(parameters, None, network=dict(amplitude_share=amplitude_share),
                   smoothness_angst=smoothness_angst,
                   rigid=rigid)
    return Deformation(neutral, np.ones(len(neutral), bool) if body is None else body, own)


def outputs(made, batch=5, size=1.0, seed=0):
    """Random numbers for a deformation [batch, n_outputs]."""
    values = np.random.default_rng(seed).normal(0, size, (batch, made.n_outputs))
    return tf.constant(values, tf.float32)


def rows(parts):
    """centers, amplitudes, widths of a MixtureBatch, with a row per particle in all three."""
    centers, amplitudes, widths = (part.numpy() for part in parts)
    return centers, amplitudes, np.broadcast_to(widths, amplitudes.shape)


def bodies(seed=0):
    """Two bodies of 20 Gaussians beside 20 that stay: mixture, each Gaussian's body, deformation."""
    neutral, number = mixture(seed=seed), np.repeat([0, 1, 2], 20)
    return neutral, number, deformation(neutral, number, ("amplitude", "position"), 15.0, rigid=True)
