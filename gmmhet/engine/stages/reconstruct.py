"""The `reconstruct` stage: a map of a subset of the particles, its half maps and their FSC."""
import os
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import ReconstructConfig
from gmmhet.engine.imaging.fsc import fsc_curve, masked_fsc_curve, soft_sphere
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.log import log
from gmmhet.engine.particles.half_sets import draw_half_sets
from gmmhet.engine.particles.particle_set import ParticleSet
from gmmhet.engine.reconstruction.backprojection import (
    Accumulator,
    ReconstructionSettings,
    accumulate,
    use_threads,
)
from gmmhet.engine.reconstruction.contrast import map_contrast, whitening_signs
from gmmhet.engine.reconstruction.selection import ReconstructError, read_subset
from gmmhet.engine.resolution import HALF_MAPS, resolution_at, write_fsc_csv
from gmmhet.engine.rundir import RunDir
from gmmhet.engine.sampling import Sampling


@dataclass(frozen=True)
class Plan:
    """What is reconstructed.

    Attributes
    ----------
    config : ReconstructConfig.
    particles : ParticleSet, with a half set each.
    selection : str, how the particles were selected.
    half_sets : str, where their half sets come from.
    mask : [L, L, L], for the FSC.
    training : summary of the train run of ``--model``; empty without one.
    """

    config: ReconstructConfig
    particles: ParticleSet
    selection: str
    half_sets: str
    mask: np.ndarray
    training: Mapping[str, Any]


def prepare(config: ReconstructConfig) -> Plan:
    """Read the particles that the flags choose, and the mask.

    Raises
    ------
    ReconstructError, ParticleError, MapError, LatentsError
        when the flags, the particles or the mask cannot be used.
    """
    symmetry_matrices(config.symmetry)
    particles, selection = read_subset(config)
    particles, half_sets = with_halves(particles, config.seed)
    mask = fsc_mask(config.mask, particles.box, particles.pixel_size)
    training = rundir.read_json(os.path.join(config.model, rundir.SUMMARY)) if config.model else {}
    return Plan(config, particles, selection, half_sets, mask, training)


def with_halves(particles: ParticleSet, seed: int) -> Tuple[ParticleSet, str]:
    """Particles with a half set each: the star file's where it has them, else drawn by `seed`.

    Returns
    -------
    particles : ParticleSet
    origin : str, where the half sets come from.

    Raises
    ------
    ReconstructError
        when a half set would be empty.
    """
    halves = draw_half_sets(particles.half, seed)
    if 0 in halves.sizes:
        raise ReconstructError("half set %d of the subset has no particles (the other has %d): half maps "
                               "need particles in both; choose a larger subset" % (
                                   1 + halves.sizes.index(0), max(halves.sizes)))
    return particles.with_half(halves.number) if halves.n_drawn else particles, halves.source


def fsc_mask(path: str, box: int, pixel_size: float) -> np.ndarray:
    """The mask for the FSC [L, L, L]: the map at `path`, or a soft sphere.

    Raises
    ------
    ReconstructError
        when the mask does not have the particles' box and pixel size, or its values leave 0 to 1.
    """
    if not path:
        return np.asarray(soft_sphere(box))
    mask, mask_pixel_size = read_map(path)
    own, expected = Sampling(len(mask), mask_pixel_size), Sampling(box, pixel_size)
    if not own.agrees(expected):
        raise ReconstructError("%s: rescale the mask" % (
            own.difference("--mask %s" % path, expected, "the particle set")))
    if mask.min() < -1e-3 or mask.max() > 1.001 or not mask.any():
        raise ReconstructError("--mask %s must have values from 0 to 1 and not only 0, got %g to %g" % (
            path, mask.min(), mask.max()))
    return np.asarray(mask)


def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Reconstruct, and write what `rundir.FILES` lists for the stage into `run`; the summary (see `gmmhet
    reconstruct --help`).

    Maps have the particles' common pixel size and box, that of most of them where optics groups differ. With
    a model, images of black contrast are used inverted, by optics group, as training did, so that maps are
    white like the model; without one images are used as they are.
    """
    config, particles = plan.config, plan.particles
    use_threads(config.threads)
    log.info("Reconstructing %s: %d particles, box %d px, %g Å/px, symmetry %s. Half sets: %s.",
             plan.selection, len(particles), particles.box, particles.pixel_size, config.symmetry,
             plan.half_sets)
    signs = whitening_signs(particles.optics_group, plan.training)
    half1, half2, whole = _maps(particles, ReconstructionSettings(config.symmetry, config.padding), signs)
    contrast = plan.training.get("contrast") or _contrast(whole)
    for name, volume in ((rundir.MAP, whole), (rundir.HALF1, half1), (rundir.HALF2, half2)):
        write_map(run(name), volume, particles.pixel_size)
    particles.write_star(run(rundir.STAR))
    curves = {"fsc_unmasked": fsc_curve(half1, half2),
              "fsc_masked": masked_fsc_curve(half1, half2, plan.mask)}
    write_fsc_csv(run(rundir.FSC), particles.box, particles.pixel_size, **curves)
    summary = dict(_summary(plan, curves), contrast=contrast)
    log.info("Resolution at FSC %g: %s masked, %s unmasked.", HALF_MAPS, *(
        _resolution_text(summary[key]) for key in ("resolution_angst", "resolution_unmasked_angst")))
    return summary


def _maps(particles: ParticleSet, settings: ReconstructionSettings,
          signs: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two half maps and the map of all, of images times their signs [n]; two sets of sums are in memory
    at most."""
    def sums_of(half: int) -> Accumulator:
        rows = np.flatnonzero(particles.half == half)
        return accumulate(particles, rows, settings, "Half map %d" % half, signs)

    first = sums_of(1)
    half1 = first.map()
    second = sums_of(2)
    half2 = second.map()
    first.merge(second)
    return half1, half2, first.map()


def _contrast(volume: np.ndarray) -> str:
    """The particles' contrast as their map shows it; of black contrast the log says what to do."""
    contrast = map_contrast(volume)
    if contrast == "black":
        log.warning("the map's density is negative: the particles' contrast is black. 'train' uses such "
                    "particles inverted, but a map for 'fit' must be white: invert it (relion_image_handler "
                    "--i map.mrc --o white.mrc --multiply_constant -1)")
    return contrast


def _summary(plan: Plan, curves: Mapping[str, np.ndarray]) -> Dict[str, Any]:
    """Figures of the run; a resolution is None where the curve is below the threshold from the first shell
    on."""
    config, particles = plan.config, plan.particles
    resolution = {name: resolution_at(curve, HALF_MAPS, particles.box, particles.pixel_size)
                  for name, curve in curves.items()}
    known = {name: round(value, 3) if np.isfinite(value) else None for name, value in resolution.items()}
    return {
        "stage": "reconstruct", "particles": len(particles),
        "half1": int(np.sum(particles.half == 1)), "half2": int(np.sum(particles.half == 2)),
        "chosen": plan.selection, "half_sets": plan.half_sets, "symmetry": config.symmetry,
        "box": particles.box, "pixel_size": particles.pixel_size, "fsc_threshold": HALF_MAPS,
        "resolution_angst": known["fsc_masked"], "resolution_unmasked_angst": known["fsc_unmasked"],
        "fsc_mask": config.mask or "soft sphere", "seed": config.seed}


def _resolution_text(resolution: Optional[float]) -> str:
    return "none" if resolution is None else "%.2f Å" % resolution
