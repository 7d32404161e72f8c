"""Controls of a training: the same on homogeneous images, and the same on half sets."""
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, FeaturedViews, Views, prefetched
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import MOST_CROSS_VALIDATED, TrainConfig
from gmmhet.engine.inference.latent_posterior import (
    LatentPosteriors,
    gaussian_prior,
    infer_latents,
    unit_prior,
)
from gmmhet.engine.inference.pose_errors import PoseErrors
from gmmhet.engine.initialization.gradients import BATCH_SIZE, Gradients
from gmmhet.engine.latent.motion import MOST_MOTION_POINTS, displacement_field
from gmmhet.engine.latents import Latents
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.log import log
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.continuation import Continuation, held_out_before
from gmmhet.engine.training.result import Trained
from gmmhet.engine.validation.half_set_agreement import displacement_agreement, latent_agreement
from gmmhet.engine.validation.held_out_evidence import bootstrap_interval, held_out_evidence

#: motion (Å) below which nothing is said to move
STILL_ANGST = 1e-6

#: trains the same on other particles: folder's name, particles, and changed parameters to the summary
Repeat = Callable[..., dict[str, Any]]


def null_control(trained: Trained, motion_rms_angst: float, particles: Any, seed: int,
                 repeat: Repeat) -> dict[str, Any]:
    """Train in the same way on homogeneous images of the best single model; what it moves and gains is
    spurious.

    Parameters
    ----------
    trained : Trained, on the real particles; motion_rms_angst : decoded there.
    particles : ParticleSet.
    seed : of the images.
    repeat : Repeat.

    Returns
    -------
    dict for the summary: held_out_evidence and its interval, motion_rms_angst, share_of_motion (of the real
    run's; None where nothing may move).
    """
    log.info("null control: the same on homogeneous images, in %s", rundir.NULL)
    model, poses = trained.model, trained.trainer.data.poses
    images = HomogeneousParticles(particles, trained.single_model(), model.likelihood, seed, poses)
    null = repeat(rundir.NULL, images)
    moves = "position" in model.settings.parameters and motion_rms_angst > STILL_ANGST
    control = {name: null[name]
               for name in ("held_out_evidence", "held_out_evidence_interval", "motion_rms_angst")}
    control["share_of_motion"] = null["motion_rms_angst"] / motion_rms_angst if moves else None
    log.info("null control: spurious motion %.3g Å, evidence %.3g nats (%.3g to %.3g)",
             control["motion_rms_angst"], control["held_out_evidence"],
             *control["held_out_evidence_interval"])
    return control


class HalfSetControl(NamedTuple):
    """What two half-set networks say of the same particles.

    Attributes
    ----------
    figures : for the summary (see `latent_agreement`, `displacement_agreement` and `held_out_evidence`).
    variates : [m, 2], first canonical variate of the latents under either network.
    correlations : [2, n], of each particle's displacements with its own under the other network, and with
        another's.
    """

    figures: dict[str, Any]
    variates: np.ndarray
    correlations: np.ndarray


class _HalfSetNetwork(NamedTuple):
    """A network of one half set: its latents of the particles that are compared, and its gain on those that
    it judges."""

    model: HeterogeneityModel
    z_stage: np.ndarray
    gain: np.ndarray
    weight: float


def half_set_control(config: TrainConfig, particles: Any, half: np.ndarray, devices: Devices,
                     repeat: Repeat) -> HalfSetControl:
    """Train one network on each half set, compare what the two say of the same particles, and let each judge
    the other's.

    The halves share the neutral model; noise, density scale, initial weights and held-out particles are each
    half's own. What one half set has taught is judged by the other, whole: many more particles than a single
    training holds out, none of which has chosen an epoch. Where the networks go on from an earlier run,
    particles that it has learned from do not judge.

    Parameters
    ----------
    config : TrainConfig.
    particles : ParticleSet; half : int [n], 1 or 2.
    devices : Devices.
    repeat : Repeat.
    """
    order = np.random.default_rng([config.seed, 15]).permutation(len(particles))
    compared = order[:max(1, MOST_MOTION_POINTS // len(Views(particles.select([0]), config.symmetry)))]
    unseen = np.ones(len(particles), bool)
    if config.continue_from:
        unseen = held_out_before(config.continue_from, particles.ids, unseen)
    networks = []
    for number, name in enumerate(rundir.HALF_SETS, 1):
        log.info("half set %d, in %s", number, name)
        summary = repeat(name, particles.select(np.flatnonzero(half == number)),
                         seed=(config.seed + number - 1) % 2**31)
        judging = order[(half != number)[order] & unseen[order]][:MOST_CROSS_VALIDATED]
        networks.append(_judge(config, name, summary, particles, (compared, judging), devices))
    first, second = networks
    gains = np.concatenate([first.gain, second.gain])
    moves = all("position" in network.model.active_parameters for network in networks)
    field, other_field = (displacement_field(network.model.alone(), network.z_stage, moves)
                          for network in networks)
    latents, variates = latent_agreement(first.z_stage, second.z_stage, config.seed)
    displacements, correlations = displacement_agreement(field, other_field, config.seed)
    figures = dict(particles=[int(np.sum(half == number)) for number in (1, 2)], compared=len(compared),
                   **latents, **displacements, n_cross_validated=len(gains),
                   held_out_evidence=float(gains.mean()),
                   held_out_evidence_interval=list(bootstrap_interval(gains, config.seed)),
                   landscape_weight=float(np.mean([first.weight, second.weight])))
    log.info("half sets: correlation of the particles' displacements %.3f (%.3f between different "
             "particles), of latents %.3f; evidence of %d particles by the network of the other half %.3g "
             "nats (%.3g to %.3g)",
             figures["displacement_correlation"], figures["shuffled"][0],
             figures["canonical_correlations"][0], len(gains), figures["held_out_evidence"],
             *figures["held_out_evidence_interval"])
    return HalfSetControl(figures, variates, correlations)


def _judge(config: TrainConfig, name: str, summary: dict[str, Any], particles: Any,
           rows: "tuple[np.ndarray, np.ndarray]", devices: Devices) -> _HalfSetNetwork:
    """What the network of a half set, in the folder `name`, says of the particles that are compared and of
    those that it judges: `rows`."""
    compared, judging = rows
    either = np.union1d(compared, judging)
    views, folder = Views(particles.select(either), config.symmetry), os.path.join(config.out, name)
    model = load_model(folder).as_trained()
    posteriors = other_latents(model, folder, summary, views, config, devices)
    z_stage = posteriors.z[np.isin(either, compared)[views.row], model.n_earlier:]
    judged = np.isin(either, judging)[views.row] & (views.copy == 0)
    singles = np.stack([posteriors.neutral_evidence[judged], posteriors.static_evidence[judged]])
    evidence = held_out_evidence(posteriors.evidence[judged], singles, config.seed)
    return _HalfSetNetwork(model, z_stage, evidence.gain, evidence.weight)


def other_latents(model: HeterogeneityModel, folder: str, summary: dict[str, Any], views: Views,
                  config: TrainConfig, devices: Devices) -> LatentPosteriors:
    """What a network says of other views than it was trained on; `folder` is its run, `summary` that run's.

    Poses are as uncertain as they were in that training; of single models as these particles say.
    """
    z_earlier = Continuation(model.earlier, folder=config.continue_from).latents(views).z
    uncertain = "pose_error_deg" in summary
    gradients = BatchFunction(Gradients(model, model.likelihood.by(config.objective), uncertain), devices)
    order = np.arange(len(views.particles))
    terms = [gradients(len(rows), batch)
             for rows, batch in prefetched(views, order, BATCH_SIZE, devices, z=z_earlier)]
    features, _, slope, curvature = (np.concatenate(values) for values in zip(*terms))
    poses, prior = None, unit_prior(model.n_stage)
    if uncertain:
        poses = PoseErrors(Quadratic(slope, curvature), model.pixel_size, order, config.seed)
        poses.set_sigma(np.array([np.radians(summary["pose_error_deg"]), summary["pose_error_angst"]]))
    if not model.is_variational:
        own = Latents.load(folder, needed=("encoded", "held_out"))
        prior = gaussian_prior(np.asarray(own.encoded)[~np.asarray(own.held_out)])
    return infer_latents(model, FeaturedViews(views, features.reshape(len(views), -1)), prior,
                         config.latent_steps, devices, poses)
