"""The fit stage: a map (given, or reconstructed from posed particles) to a neutral Gaussian model, started
from density or from atoms."""
import os
from dataclasses import dataclass, replace
from typing import Any, Dict, Optional

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import (
    DEFAULT_RESOLUTION_PX,
    MOST_DEFAULT_GAUSSIANS,
    ConfigError,
    FitConfig,
    check_resolution,
)
from gmmhet.engine.gmm import atoms as atomic
from gmmhet.engine.gmm import seeding
from gmmhet.engine.gmm.atoms import Atoms
from gmmhet.engine.gmm.fitting import FitSettings, FittedMixture, fit_mixture
from gmmhet.engine.gmm.mixture import render, write_cif
from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.target import Target, TargetSettings, find_target
from gmmhet.engine.io.chimerax import map_commands, write_script
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.log import log
from gmmhet.engine.particles.particle_set import ParticleSet, read_particles
from gmmhet.engine.reconstruction.backprojection import backproject
from gmmhet.engine.reconstruction.contrast import ensure_white
from gmmhet.engine.resolution import write_fsc_csv
from gmmhet.engine.rundir import RunDir
from gmmhet.engine.sampling import Sampling

#: an automatic number of Gaussians grows by this factor until the mean FSC reaches the goal, or gains less
#: than the least
GROWTH, FSC_GOAL, LEAST_FSC_GAIN = 1.5, 0.95, 0.01
#: fewest Gaussians that may be asked for
FEWEST_GAUSSIANS = 4
#: atoms are placed in the map at this many times the target resolution, where its noise does not matter
PLACING_RESOLUTION = 2.0


@dataclass(frozen=True)
class Plan:
    """What is fitted to what.

    Attributes
    ----------
    config : FitConfig.
    volume : float32 [L, L, L], the map; None where it is yet to be reconstructed from `particles`.
    particles : ParticleSet, or None where there is a map.
    pixel_size : float, Å/px.
    corner_angst : [3], where the map's header puts its first voxel.
    mask : float32 [L, L, L], or None.
    atoms : Atoms in Å as their file has them, or None.
    count : int, Gaussians asked for; 0 for as many as the resolution takes.
    settings : TargetSettings.
    """

    config: FitConfig
    volume: Optional[np.ndarray]
    particles: Optional[ParticleSet]
    pixel_size: float
    corner_angst: np.ndarray
    mask: Optional[np.ndarray]
    atoms: Optional[Atoms]
    count: int
    settings: TargetSettings


def prepare(config: FitConfig) -> Plan:
    """Read the map or the particles, the mask and the atoms.

    Raises
    ------
    ConfigError, MapError, ParticleError, AtomsError
        when parameters contradict one another, or a file cannot be used.
    """
    count, probe_level = parse_count(config.n_gaussians), parse_probes(config.probes)
    if bool(config.map) == bool(config.particles):
        raise ConfigError("give --map or --particles (exactly one): the neutral model is fitted to one of "
                          "them")
    atoms = atomic.read_atoms(config.atoms) if config.atoms else None
    volume, particles, corner = None, None, np.zeros(3)
    if config.map:
        volume, pixel_size = read_map(config.map)
        mask = _mask(config.mask, volume.shape[0], pixel_size)
        corner = atomic.map_corner(config.map)
    else:
        particles = read_particles(config.particles)
        pixel_size = particles.pixel_size
        mask = _mask(config.mask, particles.box, pixel_size)
    settings = TargetSettings(_resolution(config, pixel_size), config.threshold, probe_level)
    return Plan(config, volume, particles, pixel_size, corner, mask, atoms, count, settings)


def parse_probes(text: str) -> Optional[float]:
    """'auto' to None, 'none' to infinity, else a density level above 0.

    Raises
    ------
    ConfigError
        for anything else.
    """
    if text in ("auto", "none"):
        return None if text == "auto" else np.inf
    try:
        level = float(text)
    except ValueError:
        level = 0.0
    if not 0 < level < np.inf:
        raise ConfigError("--probes must be 'auto', 'none' or a density level above 0, got '%s'" % text)
    return level


def parse_count(text: str) -> int:
    """'auto' to 0, else a whole number from 4.

    Raises
    ------
    ConfigError
        for anything else.
    """
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < FEWEST_GAUSSIANS:
        raise ConfigError("--n-gaussians must be 'auto' or a whole number from %d, got '%s'" % (
            FEWEST_GAUSSIANS, text))
    return int(text)


def _resolution(config: FitConfig, pixel_size: float) -> float:
    """Target resolution (Å), given or by pixel size (Å/px); a ConfigError where pixels do not reach it."""
    check_resolution(config.resolution, pixel_size)
    return config.resolution or DEFAULT_RESOLUTION_PX * pixel_size


def _mask(path: str, box: int, pixel_size: float) -> Optional[np.ndarray]:
    """The mask of that path, with the map's box and pixel size; None without one."""
    if not path:
        return None
    mask, mask_pixel = read_map(path)
    if mask.max() <= 0.5:
        raise ConfigError("--mask %s is empty: expected values from 0 to 1, above 0.5 inside, its largest is "
                          "%.3g" % (
            path, mask.max()))
    own, expected = Sampling(len(mask), mask_pixel), Sampling(box, pixel_size)
    if not own.agrees(expected):
        raise ConfigError("%s: make them the same" % (
            own.difference("--mask %s" % os.path.basename(path), expected, "the map")))
    return np.asarray(mask)


def execute(plan: Plan, run: RunDir) -> Dict[str, Any]:
    """Fit, and write what `rundir.FILES` lists for the stage into `run`; the summary (see `gmmhet fit
    --help`).

    Raises
    ------
    AtomsError
        when the atoms do not lie in the map.
    ConfigError, ValueError
        when the map holds no molecule, or probes are not below its threshold.
    FitError
    """
    volume = plan.volume
    if volume is None:
        assert plan.particles is not None
        volume = backproject(plan.particles, np.arange(len(plan.particles)))
        volume = ensure_white(volume, "the particles' reconstruction")
    atoms = _atoms_in_map(plan, plan.atoms, volume) if plan.atoms is not None else None
    target = find_target(volume, plan.pixel_size, plan.settings, plan.mask, atoms)
    excess = target.first_count() / (plan.count or MOST_DEFAULT_GAUSSIANS)
    if excess > 1 and not plan.config.resolution:
        coarser = replace(plan.settings, resolution_angst=plan.settings.resolution_angst * excess ** (1 / 3))
        log.info("%.3g pixels would take %d Gaussians; going to %.1f Å instead: give --resolution for more",
                 DEFAULT_RESOLUTION_PX, target.first_count(), coarser.resolution_angst)
        target = find_target(volume, plan.pixel_size, coarser, plan.mask, atoms)
    best = _grow(plan.config, target, plan.count)
    _write(run, best, target)
    return _summary(plan.config, best, target)


def _atoms_in_map(plan: Plan, atoms: Atoms, volume: np.ndarray) -> Atoms:
    """The atoms in Å from the box centre, with what their place rests on in the log."""
    resolution = PLACING_RESOLUTION * plan.settings.resolution_angst
    smooth = seeding.smooth_to(volume, plan.pixel_size, resolution)
    frame = atomic.find_frame(atoms, smooth, plan.pixel_size, resolution, plan.corner_angst, plan.config.seed)
    log.info("%d atoms in %d chains, measured from %s: correlation with the map %.3f", len(atoms),
             len(np.unique(atoms.chains)), frame.name, frame.correlation)
    if frame.name != frame.of_header:
        log.warning("the atomic model is taken as measured from %s, because it fits the map there (%s)",
                    frame.name, atomic.describe_frames(frame.correlations))
    if frame.correlation < atomic.DOUBTFUL_CORRELATION:
        log.warning("the atomic model and the map correlate by only %.2f: is it this molecule, and fitted "
                    "into this map?",
                    frame.correlation)
    return frame.atoms


def _grow(config: FitConfig, target: Target, asked: int) -> FittedMixture:
    """Fit `asked` Gaussians; for 0 as many as the resolution asks for, and more while the mean FSC is below
    the goal and they raise it."""
    count, best = asked or target.first_count(), None
    most = len(target.atoms) if target.atoms is not None else int(target.solid.sum()) // 2
    settings = FitSettings(target.resolution_angst, config.steps, target.keeps)
    while True:
        seeds = target.seeds(count, config.seed)
        extra = len(seeds.centers) - count
        weak = " (%d in weak density)" % extra if extra > 0 else ""
        log.info("fitting %d Gaussians%s to %.1f Å", len(seeds.centers), weak, target.resolution_angst)
        fitted = fit_mixture(target.volume, target.pixel_size, seeds, settings)
        log.info("mean FSC with the map up to %.1f Å: %.4f", target.resolution_angst, fitted.mean_fsc)
        gain = np.inf if best is None else fitted.mean_fsc - best.mean_fsc
        best = fitted if best is None or gain > 0 else best
        count = int(count * GROWTH)
        if asked or best.mean_fsc >= FSC_GOAL or gain < LEAST_FSC_GAIN or count > most:
            break
    if best.mean_fsc < FSC_GOAL:
        log.warning("the neutral model and the map correlate by only %.2f on average up to %.1f Å (mean FSC; "
                    "%.2f is asked for)%s: what is not in the model cannot be seen to move. Is the map sharp "
                    "to that resolution and free of noise? Filter it, or give %s",
                    best.mean_fsc, target.resolution_angst, FSC_GOAL,
                    " with this number of Gaussians" if asked else "",
                    "more --n-gaussians or a coarser --resolution" if asked else "a coarser --resolution")
    return best


def _write(run: RunDir, best: FittedMixture, target: Target) -> None:
    mixture, box, pixel_size = best.mixture, target.volume.shape[0], target.pixel_size
    mixture.save(run(rundir.GMM), pixel_size=pixel_size, box=box, resolution=target.resolution_angst)
    write_cif(run(rundir.GMM_CIF), mixture)
    write_map(run(rundir.GMM_MAP), render(mixture, box, pixel_size), pixel_size)
    write_script(run(rundir.SHOW), map_commands(run(rundir.GMM_MAP), box, pixel_size, run(rundir.GMM_CIF)))
    curve = np.concatenate([[1.0], best.fsc, np.zeros(box // 2 - len(best.fsc))])
    write_fsc_csv(run(rundir.FSC), box, pixel_size, fsc=curve)


def _summary(config: FitConfig, best: FittedMixture, target: Target) -> Dict[str, Any]:
    mixture = best.mixture
    probes = int(np.sum(sample_map(target.weak, target.pixel_size, mixture.centers) > 0))
    chains = dict(chains=mixture.labels.names()) if mixture.labels else {}
    return dict(stage="fit", seed=config.seed, gaussians=len(mixture), probes=probes, **chains,
                resolution_angst=target.resolution_angst, mean_fsc=best.mean_fsc,
                threshold=float(target.threshold), pixel_size=target.pixel_size, box=target.volume.shape[0])
