"""Controls of a training: the same on homogeneous images, the same on half sets, and whether z knows how a particle was seen."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items, prefetched
from gmmhet.engine.config import MOST_JUDGED
from gmmhet.engine.inference.latent_posterior import latent_prior, refine_latents, unit_prior
from gmmhet.engine.inference.pose_errors import PoseErrors
from gmmhet.engine.initialization.gradients import gradient_function
from gmmhet.engine.latent.motion import MOST_POINTS, field
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.log import log
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.training.continuation import Beginning, held_out_before
from gmmhet.engine.validation.half_set_agreement import field_agreement, latent_agreement
from gmmhet.engine.validation.held_out_evidence import bootstrap_interval, held_out_evidence

#: motion (Å) below which nothing is said to move
STILL_ANGST = 1e-6


def null_control(trained, particles, seed, repeat):
    """Train in the same way on homogeneous images of the best single model; what it moves and gains is spurious.

    Parameters
    ----------
    trained : Trained, on the real particles.
    particles : ParticleSet.
    seed : int
    repeat : callable, folder's name and particles to the summary of a training.

    Returns
    -------
    dict for the summary: held_out_evidence and its interval, motion_rms_angst, share_of_motion (of the real run's; None where nothing may
    move).
    """
    log.info("null control: the same on homogeneous images, in %s", rundir.NULL)
    model = trained.trainer.model
    found = repeat(rundir.NULL, HomogeneousParticles(particles, trained.single_model(), model.likelihood, seed, trained.trainer.poses))
    real = trained.summary["motion_rms_angst"]
    moves = "position" in model.settings["columns"] and real > STILL_ANGST
    control = dict({name: found[name] for name in ("held_out_evidence", "held_out_evidence_interval", "motion_rms_angst")},
                   share_of_motion=found["motion_rms_angst"] / real if moves else None)
    log.info("null control: spurious motion %.3g Å, evidence %.3g nats (%.3g to %.3g)", control["motion_rms_angst"],
             control["held_out_evidence"], *control["held_out_evidence_interval"])
    return control


def half_set_control(config, particles, half, devices, repeat):
    """Train one network on each half set, compare what the two say of the same particles, and let each judge the other's.

    The halves share the neutral model; noise, density scale, initial weights and held-out particles are each half's own. What one half set
    has taught is told from the other, whole: many more particles than a single training holds out, none of which has chosen an epoch.
    Where the networks go on from an earlier run, particles that it has learned from do not judge.

    Parameters
    ----------
    config : TrainConfig.
    particles : ParticleSet; half : int [n], 1 or 2.
    devices : Devices.
    repeat : callable, as for `null_control`.

    Returns
    -------
    dict for the summary, latent variates [m, 2], field correlations [2, n]; see `latent_agreement`, `field_agreement` and
    `held_out_evidence`.
    """
    order = np.random.default_rng([config.seed, 15]).permutation(len(particles))
    compared = order[:max(1, MOST_POINTS // len(Items(particles.select([0]), config.symmetry)))]
    unseen = np.ones(len(particles), bool)
    if config.continue_from:
        unseen = held_out_before(config.continue_from, particles.ids, unseen)
    models, points, gains, weights = [], [], [], []
    for number, name in enumerate(rundir.HALF_SETS, 1):
        log.info("half set %d, in %s", number, name)
        told = repeat(name, particles.select(np.flatnonzero(half == number)), seed=(config.seed + number - 1) % 2**31)
        judging = order[(half != number)[order] & unseen[order]][:MOST_JUDGED]
        rows = np.union1d(compared, judging)
        items, folder = Items(particles.select(rows), config.symmetry), os.path.join(config.out, name)
        models.append(load_model(folder).as_trained())
        found = latent_points(models[-1], folder, told, items, config, devices)
        points.append(found["z"][np.isin(rows, compared)[items.row], models[-1].given_dim:])
        evidence, *singles = (found[kind][np.isin(rows, judging)[items.row] & (items.copy == 0)]
                              for kind in ("evidence", "neutral_evidence", "static_evidence"))
        gain, weight, _ = held_out_evidence(evidence, np.stack(singles), config.seed)
        gains.append(gain)
        weights.append(weight)
    gains = np.concatenate(gains)
    moves = all("position" in model.varying for model in models)
    fields = [field(model.alone(), z, moves) for model, z in zip(models, points)]
    latents, variates = latent_agreement(points[0], points[1], config.seed)
    displacements, each = field_agreement(fields[0], fields[1], config.seed)
    found = dict(particles=[int(np.sum(half == number)) for number in (1, 2)], compared=len(compared), **latents, **displacements,
                 judged=len(gains), held_out_evidence=float(gains.mean()),
                 held_out_evidence_interval=list(bootstrap_interval(gains, config.seed)), landscape_weight=float(np.mean(weights)))
    log.info("half sets: correlation of the particles' displacements %.3f (%.3f between different particles), of latents %.3f; evidence of "
             "%d particles by the network of the other half %.3g nats (%.3g to %.3g)", found["displacement_correlation"],
             found["shuffled"][0], found["canonical_correlations"][0], len(gains), found["held_out_evidence"],
             *found["held_out_evidence_interval"])
    return found, variates, each


def latent_points(model, folder, told, items, config, devices, batch_size=64):
    """What `refine_latents` finds of other items than a network was trained on; `folder` is its run, and `told` its summary.

    Poses are as uncertain as they were in that training; of single models as these particles say.
    """
    given, _ = Beginning(model.earlier, folder=config.continue_from).given(items)
    uncertain = "pose_error_deg" in told
    gradients = devices.compiled(gradient_function(model.likelihood.by(config.objective), model, uncertain))
    parts = [[part.numpy() for part in gradients(len(chosen), *batch)] for chosen, batch in prefetched(
        items, np.arange(len(items.particles)), batch_size, given, devices.own)]
    features, _, *pose = (np.concatenate(part) for part in zip(*parts))
    poses, prior = None, unit_prior(model.own_dim)
    if uncertain:
        slope, curvature = pose
        poses = PoseErrors(slope, curvature, model.pixel_size, np.arange(len(slope)), config.seed)
        poses.assume((np.radians(told["pose_error_deg"]), told["pose_error_angst"]))
    if not model.settings["variational"]:
        with np.load(os.path.join(folder, rundir.LATENTS)) as data:
            prior = latent_prior(data["encoded"][~data["held_out"]])
    return refine_latents(model, items, features.reshape(len(items), -1), prior, config.latent_steps, devices, poses)
