"""The fit stage: a map (given, or reconstructed from posed particles) to a neutral Gaussian model, started from density or from atoms."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import DEFAULT_RESOLUTION_PX, MOST_BY_DEFAULT, ConfigError, check_resolution
from gmmhet.engine.gmm import atoms as atomic
from gmmhet.engine.gmm import seeding
from gmmhet.engine.gmm.fitting import fit_mixture
from gmmhet.engine.gmm.mixture import render, write_cif
from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.target import make_target
from gmmhet.engine.imaging.fsc import write_fsc_csv
from gmmhet.engine.io.chimerax import map_commands, write_script
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.log import log
from gmmhet.engine.reconstruction.backprojection import backproject
from gmmhet.engine.reconstruction.contrast import made_white

#: an automatic number of Gaussians grows by this factor until the mean FSC reaches the goal, or gains less than the least
GROWTH, FSC_GOAL, LEAST_GAIN = 1.5, 0.95, 0.01


def fit(config, run):
    """Run the fit stage (see `gmmhet fit --help`)."""
    count = parse_count(config.n_gaussians)
    weak_level = parse_probes(config.probes)
    if bool(config.map) == bool(config.particles):
        raise ConfigError("give --map or --particles (exactly one): the neutral model is fitted to one of them")
    atoms = atomic.read_atoms(config.atoms) if config.atoms else None
    corner = np.zeros(3)
    if config.map:
        volume, pixel_size = read_map(config.map)
        mask = _mask(config.mask, volume.shape[0], pixel_size)
        corner = atomic.map_corner(config.map)
        resolution = _resolution(config, pixel_size)
        run.create()
    else:
        particles = read_particles(config.particles)
        mask, pixel_size = _mask(config.mask, particles.box, particles.pixel_size), particles.pixel_size
        resolution = _resolution(config, pixel_size)
        run.create()
        volume = made_white(backproject(particles, np.arange(len(particles))), "the particles' reconstruction")
    if atoms is not None:
        atoms = _placed(atoms, volume, pixel_size, resolution, corner, config.seed)
    target = make_target(volume, pixel_size, resolution, config.threshold, weak_level, mask, atoms)
    too_many = target.first_count() / (count or MOST_BY_DEFAULT)
    if too_many > 1 and not config.resolution:
        coarser = resolution * too_many ** (1 / 3)
        log.info("%.3g pixels would take %d Gaussians; going to %.1f Å instead: give --resolution for more", DEFAULT_RESOLUTION_PX,
                 target.first_count(), coarser)
        target = make_target(volume, pixel_size, coarser, config.threshold, weak_level, mask, atoms)
    mixture, fsc = _grow(config, target, count)
    _write(config, run, mixture, fsc, target)


def _placed(atoms, volume, pixel_size, resolution, corner, seed):
    """The atoms in Å from the box centre, with what their place rests on in the log. They are sought at twice the resolution: noise."""
    smooth = seeding.smooth_to(volume, pixel_size, 2 * resolution)
    placed, found, expected = atomic.find_frame(atoms, smooth, pixel_size, 2 * resolution, corner, seed)
    frame, best = next(iter(found.items()))
    log.info("%d atoms in %d chains, measured from %s: correlation with the map %.3f", len(atoms), len(np.unique(atoms.chains)), frame,
             best)
    if frame != expected:
        log.warning("the atomic model is taken as measured from %s, because it fits the map there (%s)", frame, atomic.describe(found))
    if best < atomic.DOUBTED:
        log.warning("the atomic model and the map correlate by only %.2f: is it this molecule, and fitted into this map?", best)
    return placed


def _grow(config, target, count):
    """Fit `count` Gaussians; for 0 as many as the resolution asks for, and more while the mean FSC is below the goal and they raise it."""
    fixed, count, best = bool(count), count or target.first_count(), None
    most = len(target.atoms) if target.atoms is not None else int(target.solid.sum()) // 2
    while True:
        centers, shares, labels = target.seeds(count, config.seed)
        weak = " (%d in weak density)" % (len(centers) - count) if len(centers) > count else ""
        log.info("fitting %d Gaussians%s to %.1f Å", len(centers), weak, target.resolution_angst)
        found = fit_mixture(target.volume, target.pixel_size, centers, target.resolution_angst, config.steps, target.keeps, shares, labels)
        log.info("mean FSC with the map up to %.1f Å: %.4f", target.resolution_angst, found[1].mean())
        gained = np.inf if best is None else found[1].mean() - best[1].mean()
        best = found if best is None or gained > 0 else best
        count = int(count * GROWTH)
        if fixed or best[1].mean() >= FSC_GOAL or gained < LEAST_GAIN or count > most:
            break
    if best[1].mean() < FSC_GOAL:
        log.warning("the neutral model and the map correlate by only %.2f on average up to %.1f Å (mean FSC; %.2f is asked for)%s: what is "
                    "not in the model cannot be seen to move. Is the map sharp to that resolution and free of noise? Filter it, or give %s",
                    best[1].mean(), target.resolution_angst, FSC_GOAL, " with this number of Gaussians" if fixed else "",
                    "more --n-gaussians or a coarser --resolution" if fixed else "a coarser --resolution")
    return best


def parse_probes(text):
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


def parse_count(text):
    """'auto' to 0, else a whole number from 4.

    Raises
    ------
    ConfigError
        for anything else.
    """
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 4:
        raise ConfigError("--n-gaussians must be 'auto' or a whole number from 4, got '%s'" % text)
    return int(text)


def _resolution(config, pixel_size):
    """Target resolution (Å), given or by pixel size (Å/px); a ConfigError where pixels do not reach it."""
    check_resolution(config.resolution, pixel_size)
    return config.resolution or DEFAULT_RESOLUTION_PX * pixel_size


def _mask(path, box, pixel_size):
    if not path:
        return None
    mask, mask_pixel = read_map(path)
    if mask.max() <= 0.5:
        raise ConfigError("--mask %s is empty: expected values from 0 to 1, above 0.5 inside, its largest is %.3g" % (path, mask.max()))
    if mask.shape[0] != box or abs(mask_pixel - pixel_size) > 1e-3 * pixel_size:
        raise ConfigError("--mask %s has %d px of %.4f Å, the map has %d px of %.4f Å: make them the same" % (
            os.path.basename(path), mask.shape[0], mask_pixel, box, pixel_size))
    return mask


def _write(config, run, mixture, fsc, target):
    box, pixel_size, resolution = target.volume.shape[0], target.pixel_size, target.resolution_angst
    mixture.save(run(rundir.GMM), pixel_size=pixel_size, box=box, resolution=resolution)
    write_cif(run(rundir.GMM_CIF), mixture)
    write_map(run(rundir.GMM_MAP), render(mixture, box, pixel_size), pixel_size)
    write_script(run(rundir.SHOW), map_commands(run(rundir.GMM_MAP), box, pixel_size, run(rundir.GMM_CIF)))
    curve = np.concatenate([[1.0], fsc, np.zeros(box // 2 - len(fsc))])
    write_fsc_csv(run(rundir.FSC), box, pixel_size, fsc=curve)
    probes = int(np.sum(sample_map(target.weak, pixel_size, mixture.centers) > 0))
    chains = dict(chains=mixture.labels.names()) if mixture.labels else {}
    run.write_summary(dict(stage="fit", seed=config.seed, gaussians=len(mixture), probes=probes, **chains, resolution_angst=resolution,
                           mean_fsc=float(fsc.mean()), threshold=float(target.threshold), pixel_size=pixel_size, box=box))
