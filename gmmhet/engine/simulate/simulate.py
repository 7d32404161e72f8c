"""The simulate and score stages."""
import json
import os

import numpy as np
from sklearn.cluster import KMeans

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.io.particles import read_particles, write_particles
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.log import log, progress
from gmmhet.engine.simulate.images import CHUNK, consensus_map, draw_ctf, draw_poses, noisy_images
from gmmhet.engine.simulate.oracle import estimates, posterior, truths
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, SYMMETRIC, Phantom, make_phantom
from gmmhet.engine.simulate.physics import decoded_angles, decoded_states, plain_r2
from gmmhet.engine.simulate.score import FEWEST, fraction, oracle_scores, score_all, scored
from gmmhet.engine.training.model import load_model


def simulate(config, run):
    """Run the simulate stage (see `gmmhet simulate --help`)."""
    run.create()
    n, box, pixel_size = config.n, config.box, config.pixel_size
    rng = np.random.default_rng([config.seed, 1])
    phantom = make_phantom(config.kind, 0.3 * box * pixel_size, pixel_size, config.angle, 1)
    drawn = phantom.draw(n, rng)
    rotation, shift = draw_poses(n, config.shift, rng)
    ctf = draw_ctf(n, rng)
    half = 1 + rng.permutation(n) % 2
    images = noisy_images(phantom, drawn, rotation, shift, ctf, box, pixel_size, config.snr, config.seed)
    sigma = next(images)
    shown = progress(images, -(-n // CHUNK), "images")
    write_particles(run(rundir.STAR), run(rundir.STACK), shown, n, rotation, shift, ctf, pixel_size, half)
    write_map(run(rundir.MAP), consensus_map(phantom, box, pixel_size), pixel_size)
    particles = read_particles(run(rundir.STAR))
    truth = truths(phantom, drawn)
    oracle = estimates(phantom, *posterior(phantom, particles, sigma))
    np.savez(run(rundir.TRUTH), id=particles.ids, rotation=rotation, shift_angst=shift, sigma=sigma, centers=phantom.base.centers,
             amplitudes=phantom.base.amplitudes, widths=phantom.base.widths, part=phantom.part, pivot=phantom.pivot, axis=phantom.axis,
             angle_deg=phantom.angle_deg,
             **{"true_" + k: v for k, v in truth.items()}, **{"oracle_" + k: v for k, v in oracle.items()})
    scores = oracle_scores(config.kind, truth, oracle)
    with open(run(rundir.ORACLE), "w", encoding="utf-8") as f:
        json.dump(dict(kind=config.kind, snr=config.snr, n=n, **scores), f, indent=2)
    run.write_summary(dict(stage="simulate", seed=config.seed, kind=config.kind, particles=n, noise_sigma=sigma, oracle=scores))
    log.info("%d particles of kind %s; the oracle's scores: %s", n, config.kind, ", ".join(
        "%s %s" % (name.replace("_", " "), _said(value)) for name, value in scores.items()) or "there is nothing to find")


def score(config, run):
    """Run the score stage: latents against the truth, beside the oracle (see `gmmhet score --help`)."""
    for name, stage in (("model", "train"), ("truth", "simulate")):
        problem = rundir.missing_run(getattr(config, name), stage)
        if problem:
            raise ConfigError("--%s: %s" % (name, problem))
    with open(os.path.join(config.truth, rundir.ORACLE), encoding="utf-8") as f:
        oracle = json.load(f)
    with np.load(os.path.join(config.truth, rundir.TRUTH)) as data:
        rows = {int(i): row for row, i in enumerate(data["id"])}
        truth = {k[5:]: data[k] for k in data.files if k.startswith("true_")}
        phantom = _phantom(oracle["kind"], data)
    latents = dict(np.load(os.path.join(config.model, rundir.LATENTS)))
    ids = latents["id"][latents["copy"] == 0].tolist()
    copies = int(latents["copy"].max()) + 1
    unknown = [i for i in ids if i not in rows]
    if unknown:
        raise ConfigError("%d particles of --model %s are not in --truth %s, the first is id %d: give the 'simulate' run that made them" % (
            len(unknown), config.model, config.truth, unknown[0]))
    if copies != len(phantom.turns):
        raise ConfigError("--truth %s is of kind %s, so the model must be trained with --symmetry %s; --model %s has %d latent points a "
                          "particle" % (config.truth, oracle["kind"], oracle["kind"] if oracle["kind"] in SYMMETRIC else "c1",
                                        config.model, copies))
    run.create()
    order = np.array([rows[i] for i in ids])
    truth = {k: v[order] for k, v in truth.items()}
    z = latents["z"].reshape(-1, copies, latents["z"].shape[-1]) if copies > 1 else latents["z"]
    estimate = dict(z=z)
    if oracle["kind"] == "assembly":
        estimate["state"] = _clusters(config, latents)
    model = load_model(config.model)
    if oracle["kind"] == "mixed":
        estimate["state"] = decoded_states(model, z, phantom)
    figures = score_all(oracle["kind"], truth, estimate)
    if "angle" in truth:
        turns = np.isfinite(truth["angle"])
        figures["decoded_angle_r2"] = scored(plain_r2, truth["angle"][turns], decoded_angles(model, z[turns], phantom))
        oracle["decoded_angle_r2"] = oracle["r2"]
    summary = dict(stage="score", seed=config.seed, kind=oracle["kind"], scores=figures, oracle={k: oracle.get(k) for k in figures},
                   fraction_of_oracle={k: fraction(figures[k], oracle[k]) for k in figures})
    run.write_summary(summary)
    for name, value in figures.items():
        if value is None:
            log.warning("%s is not scored: fewer than %d of the %d particles have a true value, or all have the same",
                        name.replace("_", " "), FEWEST, len(ids))
        else:
            log.info("%s: %s; oracle %s; fraction of the oracle %s", name.replace("_", " "), *(
                _said(summary[part][name]) for part in ("scores", "oracle", "fraction_of_oracle")))


def _said(figure):
    return "unknown" if figure is None else "%.3f" % figure


def _phantom(kind, data):
    """The phantom that a simulate run keeps in its truth."""
    base = Mixture(data["centers"], data["amplitudes"], data["widths"])
    return Phantom(kind, base, data["part"], data["pivot"], data["axis"], float(data["angle_deg"]))


def _clusters(config, latents):
    """Cluster label of every particle: from an analyze run where one is given, else k-means with as many clusters as there are states."""
    if config.analysis:
        problem = rundir.missing_run(config.analysis, "analyze")
        if problem:
            raise ConfigError("--analysis: " + problem)
        with np.load(os.path.join(config.analysis, rundir.EMBEDDING)) as data:
            label = dict(zip(data["id"].tolist(), data["label"].tolist()))
        return np.array([label[i] for i in latents["id"].tolist()])
    return KMeans(len(ASSEMBLY_STATES), n_init=10, random_state=0).fit_predict(latents["z"])
