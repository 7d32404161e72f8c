"""The refine stage: a rotation vector and a shift per particle, with the networks and the latent points fixed (paper, Fig. S1)."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.config import POSE_ERROR, ConfigError
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.inference.pose_refinement import refine_poses
from gmmhet.engine.log import log
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.finished import latents_of, particles_of, posed_otherwise

#: what a prior without an error along some axes is taken for: degrees and Å
LEAST_SIGMA = 0.01


def prior(config, model, particles):
    """Standard deviations of the errors of poses to expect, [2] (degrees and Å along each axis): what is asked for, else what training
    estimated for these poses, else POSE_ERROR."""
    asked = np.array([config.sigma_angle, config.sigma_shift])
    trained = rundir.read_json(os.path.join(config.model, rundir.SUMMARY))
    found = np.array([trained.get("pose_error_deg", np.nan), trained.get("pose_error_angst", np.nan)])
    if not asked.all() and (np.isnan(found).any() or (config.particles and _posed_anew(config, model, particles))):
        found = np.array(POSE_ERROR)
    return np.where(asked, asked, found)


def _posed_anew(config, model, particles):
    """Whether particles have other poses than in training, or those cannot be read any more."""
    try:
        trained = particles_of(config.model, model)
        return bool(posed_otherwise(particles, trained.select(trained.rows_of(particles.ids))).any())
    except (ValueError, OSError):
        return True


def refine_stage(config, run):
    """Run the refine stage (see `gmmhet refine --help`)."""
    problem = rundir.missing_run(config.model, "train")
    if problem:
        raise ConfigError("--model: " + problem)
    model = load_model(config.model)
    particles = particles_of(config.model, model, config.particles)
    z = latents_of(config.model, particles, model)
    run.create()
    sigma = prior(config, model, particles)
    if np.any(sigma):
        log.info("expected errors of the poses: %.3g° and %.3g Å along each axis", *sigma)
        angle, shift = np.maximum(sigma, LEAST_SIGMA)
        rotation, shift, gain = refine_poses(model, Items(particles, model.symmetry), z, angle, shift, config.steps, config.batch_size)
    else:
        log.warning("training found no errors of the poses that the images show: they are kept as they are. --sigma-angle and "
                    "--sigma-shift say what to expect instead")
        rotation, shift, gain = particles.rotation, particles.shift_angst, np.zeros(len(particles))
    angle = angular_distance_deg(particles.rotation.astype(np.float64), rotation)
    moved = np.linalg.norm(shift - particles.shift_angst, axis=1)
    particles.with_poses(rotation, shift).write_star(run(rundir.STAR))
    np.savez(run(rundir.POSES), id=particles.ids, rotation=rotation.astype(np.float32), shift_angst=shift.astype(np.float32),
             angle_change_deg=angle, shift_change_angst=moved, gain=gain)
    run.write_summary(dict(stage="refine", seed=config.seed, particles=len(particles), sigma_angle_deg=float(sigma[0]),
                           sigma_shift_angst=float(sigma[1]), angle_change_rms_deg=_rms(angle), shift_change_rms_angst=_rms(moved),
                           gain=float(gain.mean())))
    log.info("poses changed by %.3g° and %.3g Å rms; agreement rose by %.4g nats a particle", _rms(angle), _rms(moved), gain.mean())


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))
