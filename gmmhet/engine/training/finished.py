"""What a finished train run was of: its particles, and their latent points."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.reconstruction.selection import of_training

SAME_POSE = 0.01, 0.01    # angle (degrees) and shift (Å) by which a pose may be written differently


def particles_of(folder, model, path=""):
    """The particles of a train run, read at the model's box and pixel size.

    Parameters
    ----------
    folder : str, of the run; model : HeterogeneityModel, its own; path : str, another star file or list of (some of) the particles.

    Returns
    -------
    ParticleSet

    Raises
    ------
    ConfigError, ParticleError
        when they cannot be read, or have another box or pixel size.
    """
    particles = read_particles(path) if path else of_training(read_particles(model.particles_path), folder)
    if particles.sampling.has(model.box, model.pixel_size) or set(particles.sampling.number.tolist()) <= set(model.likelihood.groups):
        particles = particles.at_sampling(model.box, model.pixel_size)
    if particles.box != model.box or abs(particles.pixel_size - model.pixel_size) > 1e-3 * model.pixel_size:
        raise ConfigError("%s has %d px of %.4f Å, the model was trained on %d px of %.4f Å: give the particles it was trained on" % (
            particles.path, particles.box, particles.pixel_size, model.box, model.pixel_size))
    return particles


def posed_otherwise(given, trained):
    """Which particles have another pose in `given` than in `trained`, bool [n]; sets of the same particles in the same order."""
    return (angular_distance_deg(given.rotation.astype(float), trained.rotation.astype(float)) > SAME_POSE[0]) | (
        np.linalg.norm(given.shift_angst - trained.shift_angst, axis=1) > SAME_POSE[1])


def latents_of(folder, particles, model):
    """Latent points of all copies of every particle [n * copies, D], joined by id.

    Raises
    ------
    ConfigError
        for particles that the run has none for.
    """
    with np.load(os.path.join(folder, rundir.LATENTS)) as data:
        order = np.lexsort((data["copy"], data["id"]))
        known = dict(zip(data["id"][order][::model.copies].tolist(), data["z"][order].reshape(-1, model.copies, data["z"].shape[1])))
    missing = [i for i in particles.ids.tolist() if i not in known]
    if missing:
        raise ConfigError("%d of %d particles have no latent point in %s, the first is id %d: give the particles it was trained on, or "
                          "fewer" % (len(missing), len(particles), folder, missing[0]))
    return np.concatenate([known[i] for i in particles.ids.tolist()])
