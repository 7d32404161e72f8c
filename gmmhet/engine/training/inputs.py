"""What a training is given: neutral model, parameters that vary, free Gaussians, particles, held-out
particles."""
import os
from typing import Any, NamedTuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import VARIABLE_PARAMETERS, ConfigError, TrainConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit, region_parts, shared_by_copies, symmetry_correlation
from gmmhet.engine.initialization.gradients import ids_of
from gmmhet.engine.log import log
from gmmhet.engine.particles.half_sets import draw_half_sets
from gmmhet.engine.particles.ids import read_ids
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.sampling import Sampling

#: the features, in the folder WORK of a run
GRADIENTS = "gradients.npy"
#: part of a region's mass that may lie where the symmetry turns others of it, near the axis
MOST_SHARED = 0.25
#: Gaussians that a rigid body needs: fewer lie on a line
FEWEST_IN_BODY = 3
#: particles that a training needs
FEWEST_PARTICLES = 10
#: particles of a half set that a network can be trained on
FEWEST_IN_HALF_SET = 10
#: stream of random numbers from which unknown half sets are drawn
HALF_SET_STREAM = (14,)
#: below this correlation with itself turned, a neutral model is not taken for symmetric
SYMMETRY_DOUBT = 0.9


class NeutralModel(NamedTuple):
    """The neutral mixture of a fit run, and its target resolution (Å)."""

    mixture: Mixture
    resolution_angst: float


def load_neutral(folder: str, particles: Any, rescale: bool) -> NeutralModel:
    """The neutral model of a fit run; refuses another sampling than the particles' unless `rescale`.

    Centres are in Å, so a model of another sampling is right as it is; what differs is the finest detail it
    can hold.

    Raises
    ------
    ConfigError
        when there is none, or it has another pixel size or box.
    """
    problem = rundir.missing_run(folder, "fit")
    if problem:
        raise ConfigError("--gmm: " + problem)
    with np.load(os.path.join(folder, rundir.GMM)) as data:
        fitted, resolution = Sampling(int(data["box"]), float(data["pixel_size"])), float(data["resolution"])
    common = Sampling(particles.box, particles.pixel_size)
    if not rescale and not common.agrees(fitted):
        raise ConfigError("%s: rescale, crop or pad the map or the particles, or give --rescale-map to use "
                          "the model as it is, in Å from the box centre" % (
                              fitted.difference("the map of the neutral model", common, "the particle set")))
    return NeutralModel(Mixture.load(os.path.join(folder, rundir.GMM)), resolution)


def parse_parameters(vary: str) -> tuple[str, ...]:
    """'amplitude,position' to a tuple of VARIABLE_PARAMETERS.

    Raises
    ------
    ConfigError
        when it names another, or none.
    """
    parameters = tuple(name.strip() for name in vary.split(",") if name.strip())
    if not parameters or any(name not in VARIABLE_PARAMETERS for name in parameters):
        raise ConfigError("--vary must name some of %s, comma-separated, got '%s'"
                          % (", ".join(VARIABLE_PARAMETERS), vary))
    return parameters


def free_gaussians(config: TrainConfig, parameters: tuple[str, ...], neutral: Mixture) -> np.ndarray:
    """Gaussians that may vary, int [N], by the part of the region they are in, from 1, 0 for none: the
    region; without one all, or one asymmetric unit when there is symmetry.

    Raises
    ------
    ConfigError
        when rigid bodies are asked for and something could not move so, or when a region of a symmetric
        particle holds its own copies.
    """
    body, symmetric = region_parts(config.region, neutral), config.symmetry.lower() != "c1"
    if symmetric and config.region:
        shared = shared_by_copies(neutral, body > 0, config.symmetry)
        if shared > MOST_SHARED:
            raise ConfigError("--region '%s': %.0f %% of its mass lie where %s turns another part of it. "
                              "The region is of one subunit, and its copies under the symmetry vary by "
                              "themselves: name what may vary in one of them, or give no --region for one "
                              "whole subunit" % (config.region, 100 * shared,
                                                                  config.symmetry))
    elif symmetric:
        body = asymmetric_unit(neutral.centers, neutral.amplitudes, config.symmetry).astype(int)
    if config.rigid:
        _check_bodies(config, parameters, body)
    return body


def _check_bodies(config: TrainConfig, parameters: tuple[str, ...], body: np.ndarray) -> None:
    """Refuse rigid bodies [N] that could not move as such."""
    if "position" not in parameters:
        raise ConfigError("--rigid says how positions move, and --vary %s lets none move: add position"
                          % config.vary)
    if np.all(body == 1):
        raise ConfigError("--rigid: a molecule that moves as one body only changes its pose. Name the parts "
                          "that move with --region, one body each, joined by ';'")
    sizes = np.bincount(body)[1:]
    if np.any(sizes < FEWEST_IN_BODY):
        raise ConfigError("--rigid: body %d of --region '%s' holds %d of the Gaussians, and a body needs %d "
                          "to be turned: name a larger part, or fit more "
                          "Gaussians" % (np.argmin(sizes) + 1, config.region, sizes.min(),
                                                           FEWEST_IN_BODY))


def check_symmetry(group: str, neutral: NeutralModel) -> dict[str, Any]:
    """What is said before training of the symmetry that is asked for, for the summary: symmetry_correlation
    of the neutral model (nothing of c1), and warnings."""
    if group.lower() == "c1":
        return dict(warnings=[])
    alike = symmetry_correlation(neutral.mixture, group, neutral.resolution_angst / 2)
    if alike >= SYMMETRY_DOUBT:
        return dict(symmetry_correlation=alike, warnings=[])
    doubt = ("The neutral model does not look %s: turned by it, it correlates with itself by only %.2f. Is "
             "the map symmetric about the z axis, with that symmetry?" % (group, alike))
    log.warning(doubt)
    return dict(symmetry_correlation=alike, warnings=[doubt])


def check_particles(run: Any, config: TrainConfig, particles: Any) -> None:
    """Refuse too few particles, and to go on with others than those that the run began with.

    Raises
    ------
    ConfigError
    """
    source = config.ids or config.particles
    if len(particles) < FEWEST_PARTICLES:
        raise ConfigError("%s holds %d particles; at least %d are needed to train"
                          % (source, len(particles), FEWEST_PARTICLES))
    begun = ids_of(run(rundir.WORK, GRADIENTS))
    if begun is not None and not np.array_equal(begun, particles.ids):
        raise ConfigError("--resume: the run in %s began with %d particles, and %s holds others now (%d): "
                          "give the particles of then, or another "
                          "--out" % (run.path, len(begun), source, len(particles)))


def hold_out(count: int, fraction: float, seed: int) -> np.ndarray:
    """Held-out particles, bool [count]: a random fraction of them, at least one and never all."""
    wanted = min(max(1, int(round(fraction * count))), count - 1)
    chosen = np.random.default_rng([seed, 1]).permutation(count)[:wanted]
    return np.isin(np.arange(count), chosen)


def chosen_particles(config: TrainConfig) -> Any:
    """The particles of a run: all of its set, or those that `--ids` lists. ParticleSet.

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
        raise ConfigError("--ids %s names symmetry copies ('%d %d'), but training takes every particle at "
                          "all of its orientations: leave the second column "
                          "out" % (config.ids, ids[copies > 0][0], copies[copies > 0][0]))
    return particles.select(particles.rows_of(ids))


def half_sets(particles: Any, seed: int) -> np.ndarray:
    """Half set 1 or 2 of every particle, int8 [n]: those of the star file, and random ones where it has none.

    Raises
    ------
    ConfigError
        when a half set holds fewer than ten particles.
    """
    halves = draw_half_sets(particles.half, seed, HALF_SET_STREAM)
    if halves.n_drawn:
        log.info("half sets: %s", halves.source)
    if min(halves.sizes) < FEWEST_IN_HALF_SET:
        raise ConfigError("--half-sets: %s has half sets of %d and %d particles; at least %d each are "
                          "needed to train" % (particles.path, *halves.sizes, FEWEST_IN_HALF_SET))
    return halves.number
