"""Trainings that are small enough to be taken apart: 40 Gaussians and a few particles of 32 px of 6 Å."""
import os

import numpy as np
import tensorflow as tf
from untrained import settings, untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import FeaturedViews, ParticleBatch, Views
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import TrainConfig
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import inverse_transform
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import project_mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.training.inputs import hold_out
from gmmhet.engine.training.trainer import Trainer, TrainingData

#: asin(1): the CTF is 1 everywhere
FLAT_CTF = [0, 0, 0, 300, 0, 1, 0, 0, 1, 0]


def tiny_model(network=None, **others):
    """A model whose encoder sees the features as they are."""
    return untrained(network={"n_axes": 0, **(network or {})}, **others)


def tiny_staged():
    """Positions of the first 15 Gaussians in 2 dimensions, on top of amplitudes of 20 in 3."""
    first, rng = tiny_model(parameters=["amplitude"], latent_dim=3), np.random.default_rng(2)
    own = settings(["position"], first.likelihood, network=dict(hidden=(8,), n_axes=0), latent_dim=2, seed=2,
                   smoothness_angst=15.0, whole_unit=True)
    model = HeterogeneityModel(first.neutral, np.arange(40) < 15, own, first)
    for variable in model.decoder.network.variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return model


def tiny_batch(model, count, seed=0):
    """Particles [count] whose images are those of the model at random latent points, with random features,
    noise for one draw, and equal weights."""
    rng = np.random.default_rng(seed)
    grid, size = model.image_model.grid, (count, model.copies)
    pose = Pose(tf.constant(random_rotations(count, rng), tf.float32), tf.zeros([count, 2]))
    ctf, z = np.tile(np.float32(FLAT_CTF), (count, 1)), rng.normal(size=(size[0] * size[1], model.latent_dim))
    mixture = model.symmetry.assemble(model.mixture(tf.constant(z, tf.float32)))
    clean = ctf_values(ctf, grid.kx, grid.ky)[:, None] * project_mixture(mixture, pose, grid)
    features = rng.normal(size=(*size, model.encoder.n_features))
    noise, weight = rng.normal(size=(*size, model.n_stage)), np.full(count, 1 / count)
    images = inverse_transform(clean, grid).numpy()
    return ParticleBatch(images, pose.rotation.numpy(), pose.shift_angst.numpy(), ctf,
                         np.ones(count, np.float32), np.float32(features), noise=np.float32(noise),
                         weight=np.float32(weight))


def tiny_trainer(small, folder, model=None, poses=None, particles=40, **config):
    """A Trainer on some of the particles of the fixture `small`, of which a quarter is held out, with random
    features; nothing is compiled before it is used."""
    chosen = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(particles))
    model = model or tiny_model()
    views = Views(chosen, model.settings.symmetry)
    features = np.random.default_rng(0).normal(size=(len(views), model.encoder.n_features))
    asked = {**dict(epochs=10, patience=3, batch_size=16, latent_dim=model.n_stage), **config}
    run = rundir.RunDir(str(folder), resume=True)
    os.makedirs(run(rundir.WORK), exist_ok=True)
    inputs, held_out = FeaturedViews(views, np.float32(features)), hold_out(particles, 0.25, 1)
    data = TrainingData(inputs, np.zeros(particles), poses, held_out)
    return Trainer(model, data, TrainConfig(**asked), run, Devices())
