"""The simulate stage: particles of a phantom, their consensus map, their truth, and the oracle's score."""
import json
from dataclasses import dataclass
from typing import Any, Dict, Tuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import SimulateConfig
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.log import log, progress
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.rundir import RunDir
from gmmhet.engine.simulate.images import (
    CHUNK,
    NoisyImages,
    SimulatedSet,
    consensus_map,
    draw_ctf,
    draw_poses,
    noisy_images,
)
from gmmhet.engine.simulate.oracle import estimates, posterior, truths
from gmmhet.engine.simulate.phantom import Phantom, make_phantom
from gmmhet.engine.simulate.scores import Scores, figure_text, oracle_scores

#: radius of the phantom over the edge of the box, and seed of the one phantom that there is of each kind
PHANTOM_RADIUS, PHANTOM_SEED = 0.3, 1


@dataclass(frozen=True)
class Plan:
    """What the stage works on."""

    config: SimulateConfig
    phantom: Phantom


def prepare(config: SimulateConfig) -> Plan:
    """The phantom that is simulated."""
    radius_angst = PHANTOM_RADIUS * config.box * config.pixel_size
    phantom = make_phantom(config.kind, radius_angst, config.pixel_size, config.angle, PHANTOM_SEED)
    return Plan(config, phantom)


def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Write what `rundir.FILES` lists for the stage into `run`; the summary (see `gmmhet simulate
    --help`)."""
    config, phantom = plan.config, plan.phantom
    simulated, half = _draw(config, phantom)
    images = noisy_images(simulated, config.snr, config.seed)
    _write_images(run, simulated, images, half)
    write_map(run(rundir.MAP), consensus_map(phantom, config.box, config.pixel_size), config.pixel_size)
    scores = _write_truth(run, plan, simulated, images.sigma)
    log.info("%d particles of kind %s; the oracle's scores: %s", config.n, config.kind, ", ".join(
        "%s %s" % (name.replace("_", " "), figure_text(value)) for name, value in scores.items())
        or "there is nothing to find")
    return dict(stage="simulate", seed=config.seed, kind=config.kind, particles=config.n,
                noise_sigma=images.sigma, oracle=scores)


def _draw(config: SimulateConfig, phantom: Phantom) -> Tuple[SimulatedSet, np.ndarray]:
    """Particles with random coordinates, poses and CTF, and their half sets, int [n]."""
    n, rng = config.n, np.random.default_rng([config.seed, 1])
    coordinates = phantom.draw(n, rng)
    rotation, shift = draw_poses(n, config.shift, rng)
    ctf = draw_ctf(n, rng)
    half = 1 + rng.permutation(n) % 2
    return SimulatedSet(phantom, coordinates, rotation, shift, ctf, config.box, config.pixel_size), half


def _write_images(run: RunDir, simulated: SimulatedSet, images: NoisyImages, half: np.ndarray) -> None:
    chunks = progress(images.chunks, -(-len(simulated) // CHUNK), "images")
    metadata = ParticleMetadata(simulated.rotation, simulated.shift_angst, simulated.ctf, half)
    write_particles(run(rundir.STAR), run(rundir.STACK), chunks, metadata, simulated.pixel_size)


def _write_truth(run: RunDir, plan: Plan, simulated: SimulatedSet, sigma: float) -> Scores:
    """truth.npz and oracle.json; the oracle's scores."""
    config, phantom, particles = plan.config, plan.phantom, read_particles(run(rundir.STAR))
    truth = truths(phantom, simulated.coordinates)
    oracle = estimates(phantom, *posterior(phantom, particles, sigma))
    base = phantom.reference
    np.savez(run(rundir.TRUTH), id=particles.ids, rotation=simulated.rotation,
             shift_angst=simulated.shift_angst, sigma=sigma, centers=base.centers, amplitudes=base.amplitudes,
             widths=base.widths, part=phantom.domain, pivot=phantom.pivot, axis=phantom.axis,
             angle_deg=phantom.angle_deg, **{"true_" + name: values for name, values in truth.items()},
             **{"oracle_" + name: values for name, values in oracle.items()})
    scores = oracle_scores(config.kind, truth, oracle)
    with open(run(rundir.ORACLE), "w", encoding="utf-8") as f:
        json.dump(dict(kind=config.kind, snr=config.snr, n=config.n, **scores), f, indent=2)
    return scores
