"""The train stage: checks, preparation, epochs, latents, controls, summary."""
import os
from dataclasses import replace

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.batching.devices import find_devices
from gmmhet.engine.config import PRESETS, ConfigError, check_resolution, flag, to_json, with_length, with_preset
from gmmhet.engine.gmm.regions import symmetry_correlation
from gmmhet.engine.inference.latent_metric import even_pace, seen_change
from gmmhet.engine.inference.latent_posterior import latent_prior, refine_latents, unit_prior
from gmmhet.engine.inference.pose_errors import PoseErrors, marginal
from gmmhet.engine.initialization.gradients import compute_features, holds_others
from gmmhet.engine.initialization.linear_start import begin, modes_again
from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.io.half_sets import half_sets
from gmmhet.engine.latent.motion import spread_motion
from gmmhet.engine.likelihood.noise import calibrate
from gmmhet.engine.log import log
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.latent_scale import read, spread
from gmmhet.engine.model.saved import load_weights, save_model
from gmmhet.engine.model.settings import NETWORKS
from gmmhet.engine.training.continuation import beginning, check_same_images, held_out_of
from gmmhet.engine.training.inputs import (
    GRADIENTS,
    _check_particles,
    chosen_particles,
    free_gaussians,
    hold_out,
    load_neutral,
    parse_columns,
)
from gmmhet.engine.training.result import Trained
from gmmhet.engine.training.trainer import Trainer, TrainError
from gmmhet.engine.validation.controls import half_set_control, null_control
from gmmhet.engine.validation.held_out_evidence import axis_information, bootstrap_interval, held_out_evidence
from gmmhet.engine.validation.leakage import how_seen, seen_warnings, seen_words
from gmmhet.engine.validation.page import Page, evidence_figure
from gmmhet.engine.validation.verdict import SYMMETRY_DOUBT, pose_blur, verdict


def _symmetry(group, neutral, resolution_angst):
    """What is said before training of the symmetry that is asked for, for the summary: symmetry_correlation of the neutral model (nothing
    of c1), and warnings."""
    if group.lower() == "c1":
        return dict(warnings=[])
    alike = symmetry_correlation(neutral, group, resolution_angst / 2)
    if alike >= SYMMETRY_DOUBT:
        return dict(symmetry_correlation=alike, warnings=[])
    doubt = ("The neutral model does not look %s: turned by it, it correlates with itself by only %.2f. Is the map symmetric about the z "
             "axis, with that symmetry?" % (group, alike))
    log.warning(doubt)
    return dict(symmetry_correlation=alike, warnings=[doubt])


def train(config, run):
    """Run the train stage (see `gmmhet train --help`).

    Raises
    ------
    TrainError
        when several hosts train together and one of them is lost.
    """
    devices = find_devices()
    try:
        _train(config, run, devices)
        devices.ask(0)
    except tf.errors.OpError as error:
        if devices.processes == 1:
            raise
        raise TrainError("host %d of %d lost contact with the others: see which one stopped first, and why, then start all again with "
                         "--resume" % (
            devices.process, devices.processes)) from error


def _train(config, run, devices):
    """The stage, on this process's devices: the training itself, then the controls that were asked for."""
    given, config = config, with_preset(config)
    changed = [(flag(name), getattr(config, name)) for name in PRESETS[config.preset] if getattr(config, name) != getattr(given, name)]
    if changed:
        log.info("--preset %s: %s", config.preset, ", ".join("%s %s" % pair for pair in changed))
    particles = chosen_particles(config)
    half = half_sets(particles, config.seed) if config.half_sets else None
    for number in (1, 2) if config.half_sets and config.continue_from else ():
        ids = particles.ids[half == number]
        held_out_of(config.continue_from, ids, hold_out(len(ids), config.held_out, config.seed + number - 1))
    trained = train_set(config, run, devices, particles)
    if trained is None:
        return
    summary, page = trained.summary, Page(run(rundir.HISTORY), trained.gain)

    def repeat(name, others, **changes):
        changes.update(out=run(name), null=False, half_sets=False, pause_after_epoch=-1)
        return _repeat(replace(config, **changes), run.joins, devices, others)
    if config.null:
        summary["null"] = null_control(trained, particles, config.seed, repeat)
    if config.half_sets:
        summary["half_sets"], page.variates, page.fields = half_set_control(config, particles, half, devices, repeat)
    if devices.is_chief:
        _conclude(run, summary, page)


def _repeat(config, joins, devices, particles):
    """Train the same on other particles, into a folder of its own, unless that has been done; its summary."""
    run = rundir.RunDir(config.out, resume=True, joins=joins)
    finished = devices.is_chief and rundir.is_finished(run.path, "train") and not run.check_same(config)
    if not devices.ask(finished)[0]:
        if devices.is_chief:
            run.create()
            run.reopen()
            with rundir.whole_file(run(rundir.CONFIG)) as file:
                file.write(to_json(config).encode("utf-8"))
        trained = train_set(config, run, devices, particles)
        if devices.is_chief:
            _conclude(run, trained.summary, Page(run(rundir.HISTORY), trained.gain))
        devices.ask(0)
    return run.read_summary()


def train_set(config, run, devices, particles):
    """Train on a set of particles.

    Returns
    -------
    Trained, or None where the training was paused.

    Raises
    ------
    ConfigError
        before anything is written, when parameters and inputs do not go together.
    """
    if len(particles) < 10:
        raise ConfigError("%s holds %d particles; at least 10 are needed to train" % (config.ids or config.particles, len(particles)))
    columns = parse_columns(config.vary)
    neutral, fitted_resolution = load_neutral(config.gmm, particles, config.rescale_map)
    free = free_gaussians(config, columns, neutral)
    check_resolution(config.resolution, particles.pixel_size)
    symmetry = _symmetry(config.symmetry, neutral, fitted_resolution)
    begins, items = beginning(config, columns, neutral, free), Items(particles, config.symmetry)
    held_out = hold_out(len(particles), config.held_out, config.seed)
    if begins.folder:
        check_same_images(begins.folder, particles)
        held_out = held_out_of(begins.folder, particles.ids, held_out)
    given, given_covariance = begins.given(items)
    _check_particles(run, config, items)
    if holds_others(run(rundir.WORK, GRADIENTS), given):
        raise ConfigError("--resume: %s has been trained further since this run began on top of it, and its conformations of the "
                          "particles are others now: choose another --out" % config.continue_from)
    run.create()
    if begins.words:
        log.info("%s; held out are the %d of these particles that it held out", begins.words, held_out.sum())
    os.makedirs(run(rundir.WORK), exist_ok=True)
    config = with_length(config, len(particles))
    uncertain = config.pose_errors == "auto" and config.objective == "likelihood"
    likelihood = calibrate(particles, neutral, config.resolution or fitted_resolution, config.mask_diameter, config.seed,
                           config.min_resolution, begins.conformations(given))
    network = NETWORKS[config.preset]
    unblurred = network["unblurred"] and config.objective == "likelihood" and begins.unblurred
    settings = dict(network, looks=begins.looks or network["looks"], unblurred=unblurred, columns=list(columns),
                    smoothness=config.smoothness, rigid=config.rigid, at_rest=uncertain, latent_dim=config.latent_dim,
                    latent_noise=config.latent_noise, seed=config.seed, symmetry=config.symmetry.lower(), whole_unit=not config.region,
                    particles=os.path.abspath(config.particles), likelihood=likelihood.state())
    model = HeterogeneityModel(neutral, free, settings, begins.earlier)
    if begins.weights:
        load_weights(model, begins.weights)
        model.pace = None
    log.info("%d particles (%d held out), %d of %d Gaussians may vary, %d %s", len(particles), held_out.sum(), int(model.free.sum()),
             len(free), *((np.max(free), "rigid bodies") if config.rigid else (model.deformation.anchors, "anchors")))
    if devices.replicas > 1:
        log.info("%d devices in %d processes share each batch of %d", devices.replicas, devices.processes, config.batch_size)
    trainer = _trainer(config, run, items, given, model, held_out, devices, begins)
    while not trainer.finished():
        if 0 <= config.pause_after_epoch <= len(trainer.history):
            log.info("paused after epoch %d; --resume continues", len(trainer.history))
            return None
        trainer.epoch()
    trainer.restore_best()
    return _finish(config, run, trainer, given_covariance, symmetry)


def _trainer(config, run, items, given, model, held_out, devices, begins):
    """Features, poses, and the last checkpoint or the start."""
    trainer = Trainer(model, items, None, None, None, held_out, config, run, devices)
    trainer.features, trainer.neutral, slope, curvature = compute_features(
        run(rundir.WORK, GRADIENTS), items, given, trainer.agreement, model, devices)
    if model.settings["at_rest"]:
        trainer.poses = PoseErrors(slope, curvature, model.pixel_size, trainer.learned, config.seed)
        trainer.neutral = trainer.neutral + marginal(trainer.poses.sigmas, slope, curvature)
        log.info("with the neutral model alone, the poses seem uncertain by %s", trainer.poses)
        if begins.exact:
            trainer.poses.assume(np.zeros(2))
        trainer.free_exact()
    resumed, conformations = trainer.resume(), begins.conformations(given)
    if resumed or begins.weights:
        modes_again(trainer, given, conformations)
    else:
        trainer.leading = begin(trainer, given, conformations)
    if not resumed and (begins.weights or model.linear):
        trainer.measure_start()
    return trainer


def _finish(config, run, trainer, given_covariance, symmetry):
    """Latent points, their agreement, and what they are worth; `symmetry`: what `_symmetry` found."""
    model, items, held = trainer.model, trainer.items, trainer.held_out[trainer.items.row]
    encoded = np.concatenate(
        [model.encode(trainer.features[rows])[0].numpy() for rows in np.split(np.arange(len(items)), range(1024, len(items), 1024))])
    prior = unit_prior(config.latent_dim) if model.settings["variational"] else latent_prior(encoded[~held])
    found = refine_latents(model, items, trainer.features, prior, config.latent_steps, trainer.devices, trainer.poses)
    own = found["z"][:, model.given_dim:]
    seen = how_seen(items, own, found["z_covariance"], config.seed)
    told = axis_information(own[held], found["z_covariance"][held]).tolist() if model.settings["variational"] else []
    if model.settings["variational"] and model.varying == ["position"]:
        model.pace = even_pace(own, seen_change(model.alone()))
        found["z_covariance"] = spread(own, found["z_covariance"], *model.pace)
        own[:] = read(own, *model.pace)
        encoded = read(encoded, *model.pace).astype(np.float32)
    padded = np.pad(found["z_covariance"], ((0, 0), *[(model.given_dim, 0)] * 2))
    found["z_covariance"] = padded + np.pad(given_covariance, ((0, 0), *[(0, model.own_dim)] * 2))
    found["held_out"] = held
    found["z_std"] = np.sqrt(np.diagonal(found["z_covariance"], axis1=1, axis2=2))
    if trainer.devices.is_chief:
        save_model(model, run(rundir.MODEL))
        write_arrays(run(rundir.LATENTS), id=items.ids, copy=items.copy, encoded=encoded, **found)
    evidence, *singles = (found[name][held & (items.copy == 0)] for name in ("evidence", "neutral_evidence", "static_evidence"))
    gain, weight, plain = held_out_evidence(evidence, np.stack(singles), config.seed)
    motion, amplitude = spread_motion(model.alone(), own)
    summary = dict(
        stage="train", seed=config.seed, particles=len(items.particles), held_out=len(gain), epochs=len(trainer.history),
        best_epoch=trainer.best["epoch"], held_out_gain=trainer.best["held_out_gain"],
        held_out_evidence=float(gain.mean()), held_out_evidence_interval=list(bootstrap_interval(gain, config.seed)),
        landscape_weight=weight, evidence_of_landscape_alone=plain, motion_rms_angst=motion, amplitude_rms=amplitude, varies=model.varying,
        predicts=seen, axis_information=told,
        resolution_angst=model.likelihood.grid.box * model.pixel_size / model.likelihood.grid.m,
        gaussians=len(model.neutral), free_gaussians=int(model.free.sum()), anchors=model.deformation.anchors, **model.likelihood.figures(),
        **symmetry)
    if model.base is not None and not model.based.numpy() and not model.begins_near:
        log.info("the mixture that moves is the neutral one: held-out particles were not surely better explained with one learned along")
    if trainer.poses:
        summary.update(pose_error_deg=float(np.degrees(trainer.poses.sigma[0])), pose_error_angst=float(trainer.poses.sigma[1]))
        summary["pose_blur_angst"] = pose_blur(model.neutral, *trainer.poses.sigma)
        log.info("poses are uncertain by %s along each axis", trainer.poses)
    if config.continue_from:
        summary["continued_from"] = os.path.abspath(config.continue_from)
    if model.earlier:
        summary.update(stages=model.stages, evidence_over=model.compared_with)
    return Trained(trainer, found, prior, gain, summary)


def _conclude(run, summary, page):
    """Verdict and warnings into summary, log and page; the summary, written last, says that the run has finished."""
    seen = seen_warnings(summary["predicts"])
    summary["verdict"], summary["warnings"] = verdict(summary), summary["warnings"] + seen
    log.info("held-out evidence %.4g nats a particle (95 %% interval %.4g to %.4g); decoded motion %.3g Å rms; seed %d",
             summary["held_out_evidence"], *summary["held_out_evidence_interval"], summary["motion_rms_angst"], summary["seed"])
    if summary["axis_information"]:
        log.info("nats that an image tells about each axis of z, on particles left out: %s",
                 ", ".join("%.2g" % nats for nats in summary["axis_information"]))
    for words, told in summary["predicts"].items():
        log.info("z predicts the %s on particles left out: %s", words, seen_words(told))
    for sentence in seen:
        log.warning(sentence)
    log.info(summary["verdict"])
    with rundir.whole_file(run(rundir.EVIDENCE)) as file:
        evidence_figure(summary, page).savefig(file, dpi=130)
    run.write_summary(summary)
