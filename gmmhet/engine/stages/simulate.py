"""The simulate and score stages."""
import json

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.io.particles import read_particles, write_particles
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.log import log, progress
from gmmhet.engine.simulate.images import CHUNK, consensus_map, draw_ctf, draw_poses, noisy_images
from gmmhet.engine.simulate.oracle import estimates, posterior, truths
from gmmhet.engine.simulate.phantom import make_phantom
from gmmhet.engine.simulate.scores import oracle_scores, said


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
        "%s %s" % (name.replace("_", " "), said(value)) for name, value in scores.items()) or "there is nothing to find")
