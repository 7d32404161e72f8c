"""What a finished train run was of: its particles, and their latent points."""
from typing import Any

import numpy as np

from gmmhet.engine.config import ConfigError
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.latents import Latents, MissingLatents
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.reconstruction.selection import of_training
from gmmhet.engine.sampling import Sampling

#: angle (degrees) and shift (Å) by which a pose may be written differently
SAME_POSE = 0.01, 0.01


def particles_of(folder: str, model: HeterogeneityModel, path: str = "") -> Any:
    """The particles of a train run, read at the model's box and pixel size. ParticleSet.

    Parameters
    ----------
    folder : of the run; model : HeterogeneityModel, its own.
    path : another star file or list of (some of) the particles.

    Raises
    ------
    ConfigError, ParticleError
        when they cannot be read, or have another box or pixel size.
    """
    particles = read_particles(path) if path else of_training(read_particles(model.settings.particles),
                                                              folder)
    trained = Sampling(model.box, model.pixel_size)
    of_groups = set(particles.sampling.number.tolist()) <= set(model.likelihood.groups)
    if particles.sampling.has(trained) or of_groups:
        particles = particles.at_sampling(model.box, model.pixel_size)
    if not particles.sampling.common.agrees(trained):
        raise ConfigError("%s: give the particles that the model was trained on" % (
            particles.sampling.common.difference(particles.path, trained, "the model")))
    return particles


def have_other_poses(given: Any, trained: Any) -> np.ndarray:
    """Which particles have another pose in `given` than in `trained`, bool [n]; sets of the same particles in
    the same order."""
    angle = angular_distance_deg(given.rotation.astype(float), trained.rotation.astype(float))
    return (angle > SAME_POSE[0]) | (np.linalg.norm(given.shift_angst - trained.shift_angst,
                                                    axis=1) > SAME_POSE[1])


def latents_of(folder: str, particles: Any) -> np.ndarray:
    """Latent points of all copies of every particle [n * copies, D], joined by id.

    Raises
    ------
    ConfigError
        for particles that the run has none for.
    """
    latents = Latents.load(folder)
    try:
        rows = latents.rows_of(particles.ids)
    except MissingLatents as error:
        raise ConfigError("%d of %d particles have no latent point in %s, the first is id %d: give the "
                          "particles it was trained on, or "
                          "fewer" % (len(error.missing), len(particles), folder, error.missing[0])) from None
    return latents.z[rows.ravel()]
