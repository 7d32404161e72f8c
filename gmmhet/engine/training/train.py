"""The train stage: checks, preparation, epochs, latents, summary."""
import os

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.config import COLUMNS, ConfigError, required, with_preset
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit, region_mask, symmetry_correlation
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.log import log
from gmmhet.engine.training.batches import Items
from gmmhet.engine.training.calibrate import calibrate
from gmmhet.engine.training.checkpoint import write_arrays
from gmmhet.engine.training.devices import find_devices
from gmmhet.engine.training.features import column_statistics, compute_features
from gmmhet.engine.training.heterogeneity import NETWORKS, Trainer, TrainError
from gmmhet.engine.training.latents import latent_prior, refine_latents, unit_prior
from gmmhet.engine.training.model import SETTINGS, HeterogeneityModel

#: below this correlation with itself turned, a neutral model is not taken for symmetric
SYMMETRY_DOUBT = 0.9


def load_neutral(folder, particles, rescale):
    """Neutral mixture and its target resolution from a fit run; refuses another pixel size unless `rescale`.

    Centres are in Å, so a model of another sampling is right as it is; what differs is the finest detail it can hold.
    """
    problem = rundir.missing_run(folder, "fit")
    if problem:
        raise ConfigError("--gmm: " + problem)
    with np.load(os.path.join(folder, rundir.GMM)) as data:
        pixel_size, box, resolution = float(data["pixel_size"]), int(data["box"]), float(data["resolution"])
    if abs(pixel_size - particles.pixel_size) > 1e-3 * pixel_size and not rescale:
        raise ConfigError("the neutral model was fitted to a map of %.4f Å/px, the particles have %.4f Å/px: rescale the map or the particles, or "
                          "give --rescale-map to use the model in Å as it is" % (pixel_size, particles.pixel_size))
    if box != particles.box and not rescale:
        raise ConfigError("the neutral model was fitted to a map of %d px, the particles have %d px: crop or pad one of them, or give "
                          "--rescale-map to use the model about the centre of the box" % (box, particles.box))
    return Mixture.load(os.path.join(folder, rundir.GMM)), resolution


def parse_columns(vary):
    """'amplitude,position' to a tuple of COLUMNS."""
    columns = tuple(c.strip() for c in vary.split(",") if c.strip())
    wrong = [c for c in columns if c not in COLUMNS]
    if wrong or not columns:
        raise ConfigError("--vary must name some of %s, comma-separated, got '%s'" % (", ".join(COLUMNS), vary))
    return columns


def free_gaussians(config, neutral):
    """Gaussians that may vary: the region; without one all, or one asymmetric unit when there is symmetry."""
    free = region_mask(config.region, neutral)
    if config.symmetry.lower() != "c1" and not config.region:
        free = asymmetric_unit(neutral.centers, neutral.amplitudes, config.symmetry)
    return free


def _doubt_symmetry(group, neutral, resolution_angst):
    """Warn when the neutral model does not have the symmetry that is asked for."""
    if group.lower() != "c1":
        alike = symmetry_correlation(neutral, group, resolution_angst / 2)
        if alike < SYMMETRY_DOUBT:
            log.warning("the neutral model does not look %s: turned by it, it correlates with itself by only %.2f. Is the map symmetric about the z "
                        "axis, with that symmetry?", group, alike)


def hold_out(items, fraction, seed):
    """Held-out items, bool [n_items]: all copies of a random fraction of the particles, at least one and never all."""
    count = len(items.particles)
    chosen = np.random.default_rng([seed, 1]).permutation(count)[:min(max(1, int(round(fraction * count))), count - 1)]
    return np.isin(items.row, chosen)


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
        raise TrainError("host %d of %d lost contact with the others: see which one stopped first, and why, then start all again with --resume" % (
            devices.process, devices.processes)) from error


def _train(config, run, devices):
    """The stage, on this process's devices."""
    required(config, "particles", "gmm")
    config = with_preset(config)
    particles = read_particles(config.particles)
    if len(particles) < 10:
        raise ConfigError("%s holds %d particles; at least 10 are needed to train" % (config.particles, len(particles)))
    columns = parse_columns(config.vary)
    neutral, fitted_resolution = load_neutral(config.gmm, particles, config.rescale_map)
    free = free_gaussians(config, neutral)
    _doubt_symmetry(config.symmetry, neutral, fitted_resolution)
    if config.continue_from:
        _check_continued(config, columns)
    run.create()
    os.makedirs(run(rundir.WORK), exist_ok=True)
    items = Items(particles, config.symmetry)
    held_out = hold_out(items, config.held_out, config.seed)
    likelihood = calibrate(particles, neutral, config.resolution or fitted_resolution, config.mask_diameter, config.seed, config.min_resolution)
    settings = dict(NETWORKS[config.preset], columns=list(columns), smoothness=config.smoothness, latent_dim=config.latent_dim,
                    latent_noise=config.latent_noise, seed=config.seed, symmetry=config.symmetry.lower(),
                    particles=os.path.abspath(config.particles), likelihood=likelihood.state())
    model = HeterogeneityModel(neutral, free, settings)
    log.info("%d particles (%d held out), %d of %d Gaussians may vary, %d anchors", len(particles), len(np.unique(items.row[held_out])),
             int(free.sum()), len(free), model.deformation.anchors)
    if devices.replicas > 1:
        log.info("%d devices in %d processes share each batch of %d", devices.replicas, devices.processes, config.batch_size)
    trainer = _trainer(config, run, items, model, held_out, devices)
    while not trainer.finished():
        if 0 <= config.pause_after_epoch <= len(trainer.history):
            log.info("paused after epoch %d; --resume continues", len(trainer.history))
            return
        trainer.epoch()
    trainer.restore_best()
    if devices.is_chief:
        model.save(run(rundir.MODEL))
    _finish(config, run, trainer)


def _trainer(config, run, items, model, held_out, devices):
    """Features, standardisation, earlier networks and the last checkpoint."""
    if config.continue_from:
        model.load_weights(os.path.join(config.continue_from, rundir.MODEL))
    trainer = Trainer(model, items, None, None, held_out, config, run, devices)
    trainer.features, trainer.neutral = compute_features(run(rundir.WORK, "gradients.npy"), items, trainer.agreement, model.deformation, devices)
    mean, deviation = column_statistics(trainer.features, np.flatnonzero(~held_out))
    model.feature_mean.assign(mean)
    model.feature_deviation.assign(deviation)
    trainer.resume()
    return trainer


def _check_continued(config, columns):
    """Refuse an earlier run whose networks do not fit this one."""
    folder = config.continue_from
    problem = rundir.missing_run(folder, "train")
    if problem:
        raise ConfigError("--continue-from: " + problem)
    earlier = rundir.read_json(os.path.join(folder, rundir.MODEL, SETTINGS))
    network = NETWORKS[config.preset]
    wanted = {"--vary": ("columns", list(columns)), "--latent-dim": ("latent_dim", config.latent_dim),
              "--preset (hidden layers)": ("hidden", network["hidden"]), "--preset (variational)": ("variational", network["variational"])}
    for words, (name, value) in wanted.items():
        if earlier[name] != value:
            raise ConfigError("--continue-from %s was trained with %s %s, this run has %s: give the same" % (folder, words, earlier[name], value))


def _finish(config, run, trainer):
    """Latent points, their agreement, and the summary."""
    model, items = trainer.model, trainer.items
    encoded = np.concatenate([model.encode(trainer.features[rows])[0].numpy() for rows in np.split(np.arange(len(items)), range(1024, len(items), 1024))])
    prior = unit_prior(config.latent_dim) if model.settings["variational"] else latent_prior(encoded[trainer.learned])
    found = refine_latents(model, items, trainer.features, prior, config.latent_steps, trainer.devices)
    if not trainer.devices.is_chief:
        return
    held = trainer.held_out
    write_arrays(run(rundir.LATENTS), id=items.ids, copy=items.copy, held_out=held, encoded=encoded, **found)
    motion = motion_rms(model, found["z"])
    evidence = per_particle(gain_over_homogeneous(found, held), items.row[held])
    low, high = bootstrap_interval(evidence, config.seed)
    run.write_summary(dict(
        stage="train", seed=config.seed, particles=len(items.particles), held_out=len(evidence), epochs=len(trainer.history),
        best_epoch=trainer.best["epoch"], held_out_gain=trainer.best["held_out_gain"],
        held_out_evidence=float(evidence.mean()), held_out_evidence_interval=[low, high],
        motion_rms_angst=motion, resolution_angst=model.likelihood.grid.box * model.pixel_size / model.likelihood.grid.m,
        verdict=verdict(float(evidence.mean()), low, high), gaussians=len(model.neutral), free_gaussians=int(model.free.sum()),
        anchors=model.deformation.anchors, **model.likelihood.figures()))
    log.info("held-out evidence %.4g nats a particle (95 %% interval %.4g to %.4g); decoded motion %.3g Å rms; seed %d",
             evidence.mean(), low, high, motion, config.seed)
    log.info(verdict(float(evidence.mean()), low, high))


def gain_over_homogeneous(found, held):
    """Evidence of held-out particles minus the agreement of the best single model (neutral, or decoded at the prior's mean), nats [n_held]."""
    single = max((found["neutral_agreement"][held], found["static_agreement"][held]), key=np.mean)
    return found["evidence"][held] - single


def per_particle(values, row):
    """Mean over the symmetry copies of each particle: copies share one image, so they are not independent. [n_items] to [n_particles]."""
    _, place = np.unique(row, return_inverse=True)
    return np.bincount(place, values) / np.bincount(place)


def verdict(gain, low, high):
    """A plain sentence from the held-out evidence (nats a particle over a single model) and its 95 % interval."""
    because = "on particles that the networks never saw, the evidence over a single model is %.3g nats a particle (95 %% interval %.3g to %.3g)" % (
        gain, low, high)
    if low > 0:
        return "Heterogeneity supported: %s." % because
    return "Heterogeneity not supported: %s, which does not exceed 0." % because


def motion_rms(model, z, most=2000):
    """Root mean square displacement (Å) of the free Gaussians from their mean position over the particles."""
    chosen = z[np.linspace(0, len(z) - 1, min(most, len(z))).astype(int)]
    total, square, free = 0.0, 0.0, model.free
    for i in range(0, len(chosen), 200):
        centers = model.decode(chosen[i:i + 200])[0][:, free].astype(np.float64)
        total, square = total + centers.sum(0), square + (centers**2).sum(0)
    variance = square / len(chosen) - (total / len(chosen)) ** 2
    return float(np.sqrt(np.mean(np.maximum(variance, 0).sum(-1))))


def bootstrap_interval(values, seed, draws=1000):
    """95 % confidence interval of a mean, by bootstrap."""
    rng = np.random.default_rng([seed, 9])
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    return tuple(float(v) for v in np.percentile(means, (2.5, 97.5)))
