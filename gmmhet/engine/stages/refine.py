"""The refine stage: a rotation vector and a shift per particle, with the networks and the latent points fixed
(paper, Fig. S1)."""
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import DEFAULT_POSE_ERROR, ConfigError, RefineConfig
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.inference.pose_refinement import PosePrior, RefinedPoses, refine_poses
from gmmhet.engine.log import log
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.finished import have_other_poses, latents_of, particles_of

#: what a prior without an error along some axes is taken for: degrees and Å
LEAST_SIGMA = 0.01


@dataclass(frozen=True)
class RefinePlan:
    """A refine run, read and checked: z [n_views, D] are the latent points of its particles, `sigma` [2] the
    errors to expect (degrees and Å along each axis)."""

    config: RefineConfig
    model: HeterogeneityModel
    particles: Any
    z: np.ndarray
    sigma: np.ndarray


def prepare(config: RefineConfig) -> RefinePlan:
    """Read and check what a refine run is given (see `gmmhet refine --help`).

    Raises
    ------
    ConfigError, ParticleError
    """
    problem = rundir.missing_run(config.model, "train")
    if problem:
        raise ConfigError("--model: " + problem)
    model = load_model(config.model)
    particles = particles_of(config.model, model, config.particles)
    return RefinePlan(config, model, particles, latents_of(config.model, particles),
                      expected_errors(config, model, particles))


def expected_errors(config: RefineConfig, model: HeterogeneityModel, particles: Any) -> np.ndarray:
    """Standard deviations of the errors of poses to expect, [2] (degrees and Å along each axis): what is
    asked for, else what training estimated for these poses, else DEFAULT_POSE_ERROR."""
    asked = np.array([config.sigma_angle, config.sigma_shift])
    summary = rundir.read_json(os.path.join(config.model, rundir.SUMMARY))
    estimated = np.array([summary.get("pose_error_deg", np.nan), summary.get("pose_error_angst", np.nan)])
    if not asked.all() and (np.isnan(estimated).any()
                            or (config.particles and _posed_anew(config, model, particles))):
        estimated = np.array(DEFAULT_POSE_ERROR)
    return np.where(asked, asked, estimated)


def _posed_anew(config: RefineConfig, model: HeterogeneityModel, particles: Any) -> bool:
    """Whether particles have other poses than in training, or those cannot be read any more."""
    try:
        trained = particles_of(config.model, model)
        return bool(have_other_poses(particles, trained.select(trained.rows_of(particles.ids))).any())
    except (ValueError, OSError):
        return True


def execute(plan: RefinePlan, run: rundir.RunDir) -> dict[str, Any]:
    """Refine the poses; the summary."""
    config, particles = plan.config, plan.particles
    refined = _refined(plan)
    rotation, shift = refined.pose
    angle = angular_distance_deg(particles.rotation.astype(np.float64), rotation)
    moved = np.linalg.norm(shift - particles.shift_angst, axis=1)
    particles.with_poses(rotation, shift).write_star(run(rundir.STAR))
    np.savez(run(rundir.POSES), id=particles.ids, rotation=rotation.astype(np.float32),
             shift_angst=shift.astype(np.float32), angle_change_deg=angle, shift_change_angst=moved,
             gain=refined.gain)
    log.info("poses changed by %.3g° and %.3g Å rms; agreement rose by %.4g nats a particle", _rms(angle),
             _rms(moved), refined.gain.mean())
    return dict(stage="refine", seed=config.seed, particles=len(particles),
                sigma_angle_deg=float(plan.sigma[0]), sigma_shift_angst=float(plan.sigma[1]),
                angle_change_rms_deg=_rms(angle), shift_change_rms_angst=_rms(moved),
                gain=float(refined.gain.mean()))


def _refined(plan: RefinePlan) -> RefinedPoses:
    """The poses that the images want; as they are where training found no errors."""
    config, model, particles = plan.config, plan.model, plan.particles
    if np.any(plan.sigma):
        log.info("expected errors of the poses: %.3g° and %.3g Å along each axis", *plan.sigma)
        prior = PosePrior(*np.maximum(plan.sigma, LEAST_SIGMA))
        return refine_poses(model, Views(particles, model.settings.symmetry), plan.z, prior, config.steps,
                            config.batch_size)
    log.warning("training found no errors of the poses that the images show: they are kept as they are. "
                "--sigma-angle and --sigma-shift say what to expect instead")
    return RefinedPoses(Pose(particles.rotation, particles.shift_angst), np.zeros(len(particles)))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
