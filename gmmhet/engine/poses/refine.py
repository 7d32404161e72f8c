"""The refine stage: a rotation vector and a shift per particle, with the networks and the latent points fixed (paper, Fig. S1)."""
import os

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError, required
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.imaging.pose_change import changed, changed_exactly, difference_steps
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.log import log, progress
from gmmhet.engine.reconstruction.selection import of_training
from gmmhet.engine.training.batches import Items, by_item, prefetched
from gmmhet.engine.training.gauss_newton import refine
from gmmhet.engine.training.model import load_model
from gmmhet.engine.training.pose_errors import residuals


def refine_poses(model, items, z, sigma_angle_deg, sigma_shift_angst, steps, batch_size):
    """Posterior mode of a small rotation (in the image's frame) and a shift for every particle.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items, with the model's symmetry.
    z : array [n_items, D], latent points.
    sigma_angle_deg, sigma_shift_angst : standard deviations of the prior about the given poses.

    Returns
    -------
    rotation [n, 3, 3], shift [n, 2] Å, gain [n] (log-likelihood over the given pose, nats).
    """
    likelihood = model.likelihood
    sigma = np.array([np.radians(sigma_angle_deg)] * 3 + [sigma_shift_angst] * 2, np.float32)
    precision = tf.constant(np.diag(sigma**-2.0).astype(np.float32))
    scale = tf.constant(difference_steps(model.pixel_size))

    @tf.function(reduce_retracing=True, autograph=False)
    def solve(images, rotation, shift, ctf, points):
        data, transfer = likelihood.observe(images, ctf)
        mixture = model.assembled(model.mixture(by_item(points)))

        def residual(x):
            return residuals(likelihood, data, transfer, changed(rotation, shift, x), mixture)

        start = tf.zeros([tf.shape(images)[0], 5])
        before = 0.5 * tf.reduce_sum(residual(start) ** 2, 1)
        x, _, after, _ = refine(residual, start, tf.zeros(5), precision, steps, scale)
        return x, before - after

    changes, gains = [], []
    count = len(items.particles)
    batches = prefetched(items, np.arange(count), batch_size, np.asarray(z, np.float32))
    for _, batch in progress(batches, -(-count // batch_size), "poses"):
        x, gain = solve(*batch)
        changes.append(x.numpy())
        gains.append(gain.numpy())
    return (*changed_exactly(items.particles.rotation, items.particles.shift_angst, np.concatenate(changes)), np.concatenate(gains))


def refine_stage(config, run):
    """Run the refine stage (see `gmmhet refine --help`)."""
    required(config, "model")
    problem = rundir.missing_run(config.model, "train")
    if problem:
        raise ConfigError("--model: " + problem)
    model = load_model(config.model)
    particles = read_particles(config.particles) if config.particles else of_training(read_particles(model.particles_path), config.model)
    if particles.sampling.has(model.box, model.pixel_size) or set(particles.sampling.number.tolist()) <= set(model.likelihood.groups):
        particles = particles.at_sampling(model.box, model.pixel_size)
    if particles.box != model.box or abs(particles.pixel_size - model.pixel_size) > 1e-3 * model.pixel_size:
        raise ConfigError("%s has %d px of %.4f Å, the model was trained on %d px of %.4f Å: give the particles it was trained on" % (
            particles.path, particles.box, particles.pixel_size, model.box, model.pixel_size))
    z = _latents_of(config.model, particles, model)
    run.create()
    rotation, shift, gain = refine_poses(model, Items(particles, model.symmetry), z, config.sigma_angle, config.sigma_shift, config.steps,
                                         config.batch_size)
    angle = angular_distance_deg(particles.rotation.astype(np.float64), rotation)
    moved = np.linalg.norm(shift - particles.shift_angst, axis=1)
    particles.with_poses(rotation, shift).write_star(run(rundir.STAR))
    np.savez(run(rundir.POSES), id=particles.ids, rotation=rotation.astype(np.float32), shift_angst=shift.astype(np.float32),
             angle_change_deg=angle, shift_change_angst=moved, gain=gain)
    run.write_summary(dict(stage="refine", seed=config.seed, particles=len(particles), angle_change_rms_deg=_rms(angle),
                           shift_change_rms_angst=_rms(moved), gain=float(gain.mean())))
    log.info("poses changed by %.3g° and %.3g Å rms; agreement rose by %.4g nats a particle", _rms(angle), _rms(moved), gain.mean())


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def _latents_of(folder, particles, model):
    """Latent points of all copies of every particle [n * copies, D], joined by id; refuses particles the model has none for."""
    with np.load(os.path.join(folder, rundir.LATENTS)) as data:
        order = np.lexsort((data["copy"], data["id"]))
        known = dict(zip(data["id"][order][::model.copies].tolist(), data["z"][order].reshape(-1, model.copies, data["z"].shape[1])))
    missing = [i for i in particles.ids.tolist() if i not in known]
    if missing:
        raise ConfigError("%d of %d particles have no latent point in %s, the first is id %d: give the particles it was trained on, or "
                          "fewer" % (
            len(missing), len(particles), folder, missing[0]))
    return np.concatenate([known[i] for i in particles.ids.tolist()])
