"""The fit stage: a map (given, or reconstructed from posed particles) to a neutral Gaussian model."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.gmm.mixture import render, write_cif
from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.seeding import count_for, find_threshold, molecule_mask, seed_centers, smooth_to
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.log import log
from gmmhet.engine.losses.fsc import write_fsc_csv
from gmmhet.engine.reconstruction.backprojection import backproject
from gmmhet.engine.training.neutral import fit_mixture

#: an automatic number of Gaussians grows by this factor until the mean FSC reaches the goal, or gains less than the least
GROWTH, FSC_GOAL, LEAST_GAIN = 1.5, 0.95, 0.01


def fit(config, run):
    """Run the fit stage (see `gmmhet fit --help`)."""
    count = parse_count(config.n_gaussians)
    if bool(config.map) == bool(config.particles):
        raise ConfigError("give --map or --particles (exactly one): the neutral model is fitted to one of them")
    if config.map:
        volume, pixel_size = read_map(config.map)
        mask = _mask(config.mask, volume.shape[0], pixel_size)
        run.create()
    else:
        particles = read_particles(config.particles)
        mask, pixel_size = _mask(config.mask, particles.box, particles.pixel_size), particles.pixel_size
        run.create()
        volume = backproject(particles, np.arange(len(particles)))
    resolution = config.resolution or 3 * pixel_size
    smooth = smooth_to(volume, pixel_size, resolution) * (1 if mask is None else mask)
    threshold = config.threshold or find_threshold(smooth)
    molecule = molecule_mask(smooth, threshold, pixel_size, resolution) if mask is None else mask
    smooth = np.where(molecule > 0.5, smooth, 0)
    first = count or count_for(smooth, threshold, pixel_size, resolution)
    mixture, fsc = _grow(config, volume * molecule, smooth, threshold, pixel_size, resolution, first, bool(count),
                         lambda centers: sample_map(molecule, pixel_size, centers) > 0.1)
    _write(config, run, mixture, fsc, volume.shape[0], pixel_size, resolution, threshold)


def _grow(config, volume, smooth, threshold, pixel_size, resolution, count, fixed, inside):
    """Fit `count` Gaussians, or more (unless `fixed`) while the mean FSC is short of the goal and more Gaussians raise it."""
    voxels, best = int(np.sum(smooth > threshold)), None
    while True:
        centers = seed_centers(smooth, threshold, pixel_size, count, config.seed)
        log.info("fitting %d Gaussians to %.1f Å", len(centers), resolution)
        found = fit_mixture(volume, pixel_size, centers, resolution, config.steps, inside)
        log.info("mean FSC with the map up to %.1f Å: %.4f", resolution, found[1].mean())
        gained = np.inf if best is None else found[1].mean() - best[1].mean()
        best = found if best is None or gained > 0 else best
        count = int(count * GROWTH)
        if fixed or best[1].mean() >= FSC_GOAL or gained < LEAST_GAIN or count > voxels // 2:
            return best


def parse_count(text):
    """'auto' to 0, else a whole number from 4."""
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 4:
        raise ConfigError("--n-gaussians must be 'auto' or a whole number from 4, got '%s'" % text)
    return int(text)


def _mask(path, box, pixel_size):
    if not path:
        return None
    mask, mask_pixel = read_map(path)
    if mask.shape[0] != box or abs(mask_pixel - pixel_size) > 1e-3 * pixel_size:
        raise ConfigError("--mask %s has %d px of %.4f Å, the map has %d px of %.4f Å: make them the same" % (
            os.path.basename(path), mask.shape[0], mask_pixel, box, pixel_size))
    return mask


def _write(config, run, mixture, fsc, box, pixel_size, resolution, threshold):
    mixture.save(run(rundir.GMM), pixel_size=pixel_size, box=box, resolution=resolution)
    write_cif(run(rundir.GMM_CIF), mixture)
    write_map(run(rundir.GMM_MAP), render(mixture, box, pixel_size), pixel_size)
    curve = np.concatenate([[1.0], fsc, np.zeros(box // 2 - len(fsc))])
    write_fsc_csv(run(rundir.FSC), box, pixel_size, fsc=curve)
    run.write_summary(dict(stage="fit", seed=config.seed, gaussians=len(mixture), resolution_angst=resolution, mean_fsc=float(fsc.mean()),
                           threshold=float(threshold), pixel_size=pixel_size, box=box))
