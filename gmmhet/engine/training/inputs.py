"""What a training is given: neutral model, parameters that vary, free Gaussians, particles, held-out particles."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import COLUMNS, ConfigError
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit, region_parts, shared_by_copies
from gmmhet.engine.initialization.gradients import ids_of
from gmmhet.engine.io.ids import read_ids
from gmmhet.engine.io.particles import read_particles

#: the features, in the folder WORK of a run
GRADIENTS = "gradients.npy"
#: part of a region's mass that may lie where the symmetry turns others of it, near the axis
MOST_SHARED = 0.25
#: Gaussians that a rigid body needs: fewer lie on a line
FEWEST_IN_BODY = 3


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
        raise ConfigError("the neutral model was fitted to a map of %.4f Å/px, the particles have %.4f Å/px: rescale the map or the "
                          "particles, or give --rescale-map to use the model in Å as it is" % (pixel_size, particles.pixel_size))
    if box != particles.box and not rescale:
        raise ConfigError("the neutral model was fitted to a map of %d px, the particles have %d px: crop or pad one of them, or give "
                          "--rescale-map to use the model about the centre of the box" % (box, particles.box))
    return Mixture.load(os.path.join(folder, rundir.GMM)), resolution


def parse_columns(vary):
    """'amplitude,position' to a tuple of COLUMNS.

    Raises
    ------
    ConfigError
        when it names another, or none.
    """
    columns = tuple(c.strip() for c in vary.split(",") if c.strip())
    wrong = [c for c in columns if c not in COLUMNS]
    if wrong or not columns:
        raise ConfigError("--vary must name some of %s, comma-separated, got '%s'" % (", ".join(COLUMNS), vary))
    return columns


def free_gaussians(config, columns, neutral):
    """Gaussians that may vary, int [N], by the part of the region they are in, from 1, 0 for none: the region; without one all, or one
    asymmetric unit when there is symmetry.

    Raises
    ------
    ConfigError
        when rigid bodies are asked for and something could not move so, or when a region of a symmetric particle holds its own copies.
    """
    free, symmetric = region_parts(config.region, neutral), config.symmetry.lower() != "c1"
    if symmetric and config.region:
        shared = shared_by_copies(neutral, free > 0, config.symmetry)
        if shared > MOST_SHARED:
            raise ConfigError("--region '%s': %.0f %% of its mass lie where %s turns another part of it. The region is of one subunit, "
                              "and its copies under the symmetry vary by themselves: name what may vary in one of them, or give no "
                              "--region for one whole subunit" % (config.region, 100 * shared, config.symmetry))
    elif symmetric:
        free = asymmetric_unit(neutral.centers, neutral.amplitudes, config.symmetry).astype(int)
    if config.rigid and "position" not in columns:
        raise ConfigError("--rigid says how positions move, and --vary %s lets none move: add position" % config.vary)
    if config.rigid and np.all(free == 1):
        raise ConfigError("--rigid: a molecule that moves as one body only changes its pose. Name the parts that move with --region, "
                          "one body each, joined by ';'")
    bodies = np.bincount(free)[1:]
    if config.rigid and np.any(bodies < FEWEST_IN_BODY):
        raise ConfigError("--rigid: body %d of --region '%s' holds %d of the Gaussians, and a body needs %d to be turned: name a larger "
                          "part, or fit more Gaussians" % (np.argmin(bodies) + 1, config.region, bodies.min(), FEWEST_IN_BODY))
    return free


def _check_particles(run, config, items):
    """Refuse to go on with other particles than those that the run began with."""
    begun = ids_of(run(rundir.WORK, GRADIENTS))
    if begun is not None and not np.array_equal(begun, items.particles.ids):
        raise ConfigError("--resume: the run in %s began with %d particles, and %s holds others now (%d): give the particles of then, or "
                          "another --out" % (run.path, len(begun), config.ids or config.particles, len(items.particles)))


def hold_out(count, fraction, seed):
    """Held-out particles, bool [count]: a random fraction of them, at least one and never all."""
    chosen = np.random.default_rng([seed, 1]).permutation(count)[:min(max(1, int(round(fraction * count))), count - 1)]
    return np.isin(np.arange(count), chosen)


def chosen_particles(config):
    """The particles of a run: all of its set, or those that `--ids` lists.

    Raises
    ------
    ConfigError
        when the list names symmetry copies.
    """
    particles = read_particles(config.particles)
    if not config.ids:
        return particles
    ids, copies = read_ids(config.ids)
    if np.any(copies):
        raise ConfigError("--ids %s names symmetry copies ('%d %d'), but training takes every particle at all of its orientations: leave "
                          "the second column out" % (config.ids, ids[copies > 0][0], copies[copies > 0][0]))
    return particles.select(particles.rows_of(ids))
