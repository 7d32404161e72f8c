"""The train stage: what is asked for, the training itself, the controls, and the verdict on all of it."""
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, Views
from gmmhet.engine.batching.devices import Devices, find_devices
from gmmhet.engine.config import ConfigError, TrainConfig, check_resolution, flag, to_json, with_length
from gmmhet.engine.inference.pose_errors import PoseErrors, log_marginal
from gmmhet.engine.initialization.gradients import Gradients, compute_gradients, holds_others
from gmmhet.engine.initialization.linear_start import StartInputs, initialize_linear, load_rigid_modes
from gmmhet.engine.latent.motion import motion_rms
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.conformations import Conformations
from gmmhet.engine.likelihood.noise import ResolutionBand, estimate_noise_and_scale
from gmmhet.engine.log import log
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import assign, save_model, values_of
from gmmhet.engine.model.settings import PRESETS, ModelSettings, with_preset
from gmmhet.engine.training.continuation import (
    Continuation,
    EarlierLatents,
    check_same_images,
    find_continuation,
    held_out_of,
)
from gmmhet.engine.training.inputs import (
    GRADIENTS,
    NeutralModel,
    check_particles,
    check_symmetry,
    chosen_particles,
    free_gaussians,
    half_sets,
    hold_out,
    load_neutral,
    parse_parameters,
)
from gmmhet.engine.training.result import Trained, infer_result
from gmmhet.engine.training.trainer import Trainer, TrainError, TrainingData
from gmmhet.engine.validation.controls import half_set_control, null_control
from gmmhet.engine.validation.held_out_evidence import (
    HeldOutEvidence,
    axis_information,
    bootstrap_interval,
    held_out_evidence,
)
from gmmhet.engine.validation.leakage import imaging_leakage
from gmmhet.engine.validation.page import Page, evidence_figure
from gmmhet.engine.validation.verdict import conclude, pose_blur


@dataclass(frozen=True)
class SetPlan:
    """A training on one set of particles, read and checked.

    Attributes
    ----------
    config : TrainConfig, with its preset and length.
    views : Views of the particles.
    parameters : that may vary.
    neutral : NeutralModel.
    body : int [N], Gaussians that may vary, and their bodies.
    symmetry : what is said of the symmetry, for the summary.
    continuation : Continuation; earlier : EarlierLatents of the views.
    held_out : bool [n], particles.
    """

    config: TrainConfig
    views: Views
    parameters: tuple[str, ...]
    neutral: NeutralModel
    body: np.ndarray
    symmetry: dict[str, Any]
    continuation: Continuation
    earlier: EarlierLatents
    held_out: np.ndarray

    @property
    def conformations(self) -> Conformations:
        """What each particle is of before this training."""
        return self.continuation.conformations(self.neutral.mixture, self.earlier.z)


@dataclass(frozen=True)
class TrainPlan:
    """A train run, read and checked: its parameters with their preset, the training of the whole set, and the
    half sets [n] where they are asked for."""

    config: TrainConfig
    whole: SetPlan
    half: "np.ndarray | None"


def prepare(config: TrainConfig) -> TrainPlan:
    """Read and check what a train run is given (see `gmmhet train --help`).

    Raises
    ------
    ConfigError, ParticleError, RegionError
        when parameters and inputs do not go together.
    """
    asked, config = config, with_preset(config)
    changed = [(flag(name), getattr(config, name)) for name in PRESETS[config.preset].flags
               if getattr(config, name) != getattr(asked, name)]
    if changed:
        log.info("--preset %s: %s", config.preset, ", ".join("%s %s" % pair for pair in changed))
    particles = chosen_particles(config)
    half = half_sets(particles, config.seed) if config.half_sets else None
    for number in (1, 2) if half is not None and config.continue_from else ():
        ids = particles.ids[half == number]
        held_out_of(config.continue_from, ids, hold_out(len(ids), config.held_out, config.seed + number - 1))
    return TrainPlan(config, plan_set(config, particles), half)


def plan_set(config: TrainConfig, particles: Any) -> SetPlan:
    """Check a training of a ParticleSet (or of what stands for one) before anything is written; `config` has
    its preset.

    Raises
    ------
    ConfigError
    """
    run = rundir.RunDir(config.out, resume=True)
    check_particles(run, config, particles)
    parameters = parse_parameters(config.vary)
    neutral = load_neutral(config.gmm, particles, config.rescale_map)
    body = free_gaussians(config, parameters, neutral.mixture)
    check_resolution(config.resolution, particles.pixel_size)
    symmetry = check_symmetry(config.symmetry, neutral)
    continuation, views = find_continuation(config, parameters, neutral.mixture,
                                            body), Views(particles, config.symmetry)
    held_out = hold_out(len(particles), config.held_out, config.seed)
    if continuation.folder:
        check_same_images(continuation.folder, particles)
        held_out = held_out_of(continuation.folder, particles.ids, held_out)
    earlier = continuation.latents(views)
    if holds_others(run(rundir.WORK, GRADIENTS), earlier.z):
        raise ConfigError("--resume: %s has been trained further since this run began on top of it, and its "
                          "conformations of the particles are others now: choose another "
                          "--out" % config.continue_from)
    return SetPlan(with_length(config, len(particles)), views, parameters, neutral, body, symmetry,
                   continuation, earlier, held_out)


def execute(plan: TrainPlan, run: rundir.RunDir) -> "dict[str, Any] | None":
    """Train, then run the controls that were asked for; the summary, None where the training was paused.

    Raises
    ------
    TrainError
        when the agreement is not finite, or when several hosts train together and one of them is lost.
    """
    devices = find_devices()
    try:
        summary = _train_and_control(plan, run, devices)
        devices.ask(0)
        return summary
    except tf.errors.OpError as error:
        if devices.processes == 1:
            raise
        raise TrainError("host %d of %d lost contact with the others: see which one stopped first, and why, "
                         "then start all again with "
                         "--resume" % (devices.process, devices.processes)) from error


def _train_and_control(plan: TrainPlan, run: rundir.RunDir, devices: Devices) -> "dict[str, Any] | None":
    config, particles = plan.config, plan.whole.views.particles
    trained = train_set(plan.whole, run, devices)
    if trained is None:
        return None
    summary, page = summarise(plan.whole, trained, run)

    def repeat(name: str, others: Any, **changes: Any) -> dict[str, Any]:
        changes.update(out=run(name), null=False, half_sets=False, pause_after_epoch=-1)
        return _repeat(replace(config, **changes), run.is_worker, devices, others)
    if config.null:
        summary["null"] = null_control(trained, summary["motion_rms_angst"], particles, config.seed, repeat)
    if plan.half is not None:
        control = half_set_control(config, particles, plan.half, devices, repeat)
        summary["half_sets"] = control.figures
        page = replace(page, variates=control.variates, correlations=control.correlations)
    _conclude(run, summary, page, devices)
    return summary


def _repeat(config: TrainConfig, joins: bool, devices: Devices, particles: Any) -> dict[str, Any]:
    """Train the same on other particles, into a folder of its own, unless that has been done; its summary."""
    run = rundir.RunDir(config.out, resume=True, is_worker=joins)
    finished = devices.is_chief and rundir.is_finished(run.path, "train") and not run.check_same(config)
    if not devices.ask(finished)[0]:
        plan = plan_set(config, particles)
        if devices.is_chief:
            run.create()
            run.reopen()
            with rundir.whole_file(run(rundir.CONFIG)) as file:
                file.write(to_json(config).encode("utf-8"))
        trained = train_set(plan, run, devices)
        assert trained is not None      # it is never paused
        summary, page = summarise(plan, trained, run)
        _conclude(run, summary, page, devices)
        if devices.is_chief:
            run.write_summary(summary)
        devices.ask(0)
    return run.read_summary()


# ---------------------------------------------------------------- the training of one set
def train_set(plan: SetPlan, run: rundir.RunDir, devices: Devices) -> "Trained | None":
    """Train on a set of particles; None where the training was paused. Writes the model and its latent
    points."""
    config, particles = plan.config, plan.views.particles
    if plan.continuation.text:
        log.info("%s; held out are the %d of these particles that it held out", plan.continuation.text,
                 plan.held_out.sum())
    os.makedirs(run(rundir.WORK), exist_ok=True)
    band = ResolutionBand(config.resolution or plan.neutral.resolution_angst, config.min_resolution)
    likelihood = estimate_noise_and_scale(particles, plan.neutral.mixture, band, config.mask_diameter,
                                          config.seed, plan.conformations if plan.continuation.earlier
                                          else None)
    model = _new_model(plan, likelihood)
    what = (int(plan.body.max()),
            "rigid bodies") if config.rigid else (model.deformation.n_anchors, "anchors")
    log.info("%d particles (%d held out), %d of %d Gaussians may vary, %d %s", len(particles),
             plan.held_out.sum(), int(model.free.sum()), len(plan.body), *what)
    if devices.replicas > 1:
        log.info("%d devices in %d processes share each batch of %d", devices.replicas, devices.processes,
                 config.batch_size)
    trainer = _new_trainer(plan, run, model, devices)
    while not trainer.finished:
        if 0 <= config.pause_after_epoch <= len(trainer.history):
            log.info("paused after epoch %d; --resume continues", len(trainer.history))
            return None
        trainer.epoch()
    trainer.restore_best()
    trained = infer_result(trainer, plan.earlier, config.latent_steps)
    if devices.is_chief:
        save_model(model, run(rundir.MODEL))
        trained.latents.save(run.path)
    return trained


def _new_model(plan: SetPlan, likelihood: Agreement) -> HeterogeneityModel:
    """The model before training: new networks, or those of the earlier run."""
    config, networks = plan.config, plan.continuation.networks
    network = PRESETS[config.preset].network
    network = replace(network, sharpens=network.sharpens and config.objective == "likelihood")
    if networks is not None:
        network = replace(network, resolution_levels=networks.resolution_levels)
    settings = ModelSettings(
        plan.parameters, likelihood.state(), config.latent_dim, config.smoothness, config.rigid,
        removes_rigid_motion=config.pose_errors == "auto" and config.objective == "likelihood",
        latent_noise=config.latent_noise, seed=config.seed, symmetry=config.symmetry.lower(),
        whole_unit=not config.region, particles=os.path.abspath(config.particles), network=network)
    model = HeterogeneityModel(plan.neutral.mixture, plan.body, settings, plan.continuation.earlier)
    if networks is not None:
        assign(model.named_weights(), values_of(networks.named_weights()))
        model.state.low_signal = networks.state.low_signal
        model.state.sharpens = model.state.sharpens and networks.state.sharpens
    return model


def _new_trainer(plan: SetPlan, run: rundir.RunDir, model: HeterogeneityModel, devices: Devices) -> Trainer:
    """Gradients, poses, and the last checkpoint or the linear start."""
    config, views, continuation = plan.config, plan.views, plan.continuation
    agreement = model.likelihood.by(config.objective)
    uncertain = model.settings.removes_rigid_motion
    gradients = BatchFunction(Gradients(model, agreement, uncertain), devices)
    known = compute_gradients(run(rundir.WORK, GRADIENTS), views, plan.earlier.z, gradients, devices)
    neutral, poses = known.agreement, None
    learned = np.flatnonzero(~plan.held_out)
    if uncertain:
        poses = PoseErrors(known.pose, model.pixel_size, learned, config.seed)
        neutral = neutral + log_marginal(poses.sigmas, known.pose)
        log.info("with the neutral model alone, the poses seem uncertain by %s", poses)
        if continuation.poses_are_exact:
            poses.set_sigma(np.zeros(2))
    inputs = FeaturedViews(views, known.features)
    trainer = Trainer(model, TrainingData(inputs, neutral, poses, plan.held_out), config, run, devices)
    trainer.keep_rigid_motion_of_exact_poses()
    resumed = trainer.resume()
    start = StartInputs(inputs, learned, plan.earlier.z, plan.conformations, poses, agreement, devices, run,
                        config.seed)
    if resumed or continuation.networks is not None:
        trainer.begin(trainer.leading, load_rigid_modes(model, start))
    else:
        trainer.begin(*initialize_linear(model, start))
    if not resumed and (continuation.networks is not None or model.state.linear):
        trainer.measure_start()
    return trainer


# ---------------------------------------------------------------- what is said of it
def summarise(plan: SetPlan, trained: Trained, run: rundir.RunDir) -> tuple[dict[str, Any], Page]:
    """Figures of a training for its summary, without verdict, and what its page shows."""
    trainer, model, config, latents = trained.trainer, trained.model, plan.config, trained.latents
    as_trained, views = trained.as_trained, trained.views
    held = np.asarray(latents.held_out)
    judged = held & (latents.copy == 0)
    singles = np.stack([as_trained.neutral_evidence[judged], as_trained.static_evidence[judged]])
    evidence: HeldOutEvidence = held_out_evidence(as_trained.evidence[judged], singles, config.seed)
    z_stage, covariance = as_trained.z[:, model.n_earlier:], as_trained.z_covariance
    information = axis_information(z_stage[held], covariance[held]).tolist() if model.is_variational else []
    motion, amplitude = motion_rms(model.alone(), latents.z[:, model.n_earlier:])
    best, likelihood = trainer.stopping.best or {}, model.likelihood
    summary = dict(
        stage="train", seed=config.seed, particles=len(views.particles), held_out=len(evidence.gain),
        epochs=len(trainer.history), best_epoch=best["epoch"], held_out_gain=best["held_out_gain"],
        held_out_evidence=float(evidence.gain.mean()),
        held_out_evidence_interval=list(bootstrap_interval(evidence.gain, config.seed)),
        landscape_weight=evidence.weight, evidence_of_landscape_alone=evidence.landscape_alone,
        motion_rms_angst=motion, amplitude_rms=amplitude, varies=model.active_parameters,
        predicts=imaging_leakage(views, z_stage, covariance, config.seed), axis_information=information,
        resolution_angst=likelihood.grid.box * model.pixel_size / likelihood.grid.m,
        gaussians=len(model.neutral), free_gaussians=int(model.free.sum()),
        anchors=model.deformation.n_anchors, **likelihood.figures(), **plan.symmetry)
    shift_is_off = model.consensus_shift is not None and not model.state.consensus_shift_on.numpy()
    if shift_is_off and not model.small_motion:
        log.info("the mixture that moves is the neutral one: held-out particles were not surely better "
                 "explained with one learned along")
    poses = trainer.data.poses
    if poses is not None:
        summary.update(pose_error_deg=float(np.degrees(poses.sigma[0])),
                       pose_error_angst=float(poses.sigma[1]),
                       pose_blur_angst=pose_blur(model.neutral, *poses.sigma))
        log.info("poses are uncertain by %s along each axis", poses)
    if config.continue_from:
        summary["continued_from"] = os.path.abspath(config.continue_from)
    if model.earlier:
        summary.update(stages=stages_of(model), evidence_over=evidence_reference(model))
    return summary, Page(run(rundir.HISTORY), evidence.gain)


def stages_of(model: HeterogeneityModel) -> list[dict[str, Any]]:
    """What varies in each stage, and its latent dimensions (from 1, first and last); the first stage
    first."""
    own = dict(vary=list(model.settings.parameters), free_gaussians=int(model.free.sum()),
               latent_dimensions=[model.n_earlier + 1, model.latent_dim])
    return [*(stages_of(model.earlier) if model.earlier else []), own]


def evidence_reference(model: HeterogeneityModel) -> str:
    """What the evidence for this stage is over, in words."""
    if not model.earlier:
        return "a single model"
    return "the conformations of the earlier stage" + (" with the moving part at rest"
                                                       if model.deformation.moves_part else " alone")


def _conclude(run: rundir.RunDir, summary: dict[str, Any], page: Page, devices: Devices) -> None:
    """Verdict and warnings into summary and log, and the page of the evidence."""
    if not devices.is_chief:
        return
    conclude(summary)
    with rundir.whole_file(run(rundir.EVIDENCE)) as file:
        evidence_figure(summary, page).savefig(file, dpi=130)
