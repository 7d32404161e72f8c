"""Which particles a reconstruction takes: all, a list of ids, or those nearest to a latent point."""
import os
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.config import ReconstructConfig
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.errors import listing
from gmmhet.engine.latents import Latents
from gmmhet.engine.log import log
from gmmhet.engine.particles.ids import read_ids
from gmmhet.engine.particles.particle_set import ParticleSet, read_particles


class ReconstructError(ValueError):
    """The subset asked for cannot be reconstructed; the message says why and what to do."""


@dataclass(frozen=True)
class Selection:
    """Particles of a subset, by id.

    Attributes
    ----------
    ids : int64 [n], or None for all particles.
    copy : int [n], symmetry copy (from 0) whose orientation each particle takes; None for all particles.
    text : str, how they were selected, for the log and the summary.
    """

    ids: Optional[np.ndarray]
    copy: Optional[np.ndarray]
    text: str


def check_flags(config: ReconstructConfig) -> None:
    """Refuse contradictory or incomplete flags, before anything is read.

    Raises
    ------
    ReconstructError
    """
    if config.ids and config.near:
        raise ReconstructError("--ids and --near both choose particles: give one of them")
    if config.near and not config.model:
        raise ReconstructError("--near needs --model: the 'train' run whose latent points are meant")
    if not config.particles and not config.model:
        raise ReconstructError("--particles is missing: name the star file of posed particles (or --model "
                               "DIR, to take the particles it was trained on)")
    if config.model:
        problem = rundir.missing_run(config.model, "train")
        if problem:
            raise ReconstructError("--model: " + problem)


def select(config: ReconstructConfig) -> Selection:
    """The subset that the flags ask for.

    Raises
    ------
    ReconstructError, ParticleError, LatentsError
        when the latent point or the list of ids cannot be used, or the list is empty.
    """
    if config.near:
        return _nearest_particles(config.model, config.near, config.k)
    if config.ids:
        ids, copy = read_ids(config.ids)
        return Selection(ids, copy, "the %d ids of %s" % (len(ids), config.ids))
    return Selection(None, None, "all particles")


def _nearest_particles(model: str, near: str, k: int) -> Selection:
    """The k particles nearest to a latent point, each at its nearest symmetry copy, by rising id.

    Distance is plain distance in z, as in trajectories: training sets the scale of every dimension, and one
    that it left unused must not be blown up.
    """
    latents = Latents.load(model)
    point = _latent_point(near, latents.dimension)
    rows = latents.nearest(point, k)
    rows = rows[np.argsort(latents.ids[rows], kind="stable")]
    ids, copy = latents.ids[rows].astype(np.int64), latents.copy[rows].astype(int)
    if len(ids) < k:
        log.warning("--k %d is more than the %d particles of %s: all of them are taken.", k, len(ids), model)
    place = ", ".join("%g" % value for value in point)
    return Selection(ids, copy, "the %d particles nearest to z = %s" % (len(ids), place))


def _latent_point(near: str, dimension: int) -> np.ndarray:
    """The numbers of ``--near``, float64 [D]."""
    try:
        point = np.array([float(word) for word in near.replace(",", " ").split()])
    except ValueError:
        point = np.array([np.nan])
    if not np.isfinite(point).all():
        raise ReconstructError("--near must be comma-separated numbers, got '%s'" % near)
    if len(point) != dimension:
        raise ReconstructError("--near must have %d numbers, one per latent dimension, got %d ('%s')" % (
            dimension, len(point), near))
    return point


def read_subset(config: ReconstructConfig) -> Tuple[ParticleSet, str]:
    """The selected particles, in the orientation of their symmetry copy.

    Returns
    -------
    particles : ParticleSet
    text : str, how they were selected.

    Raises
    ------
    ReconstructError, ParticleError, LatentsError
    """
    check_flags(config)
    selection = select(config)
    particles = read_particles(config.particles or _training_star(config.model))
    if selection.ids is None or selection.copy is None:
        whole = particles if config.particles else of_training(particles, config.model)
        return whole, selection.text
    particles = particles.select(particles.rows_of(selection.ids))
    return _at_copies(particles, selection.copy, config.model), selection.text


def of_training(particles: ParticleSet, model: str) -> ParticleSet:
    """Those of the particles that the train run in the folder `model` was trained on, by id."""
    return particles.select(np.flatnonzero(np.isin(particles.ids, Latents.load(model).ids)))


def _training_star(model: str) -> str:
    """Star file of the particles a train run used, or of more than these."""
    path = rundir.read_json(os.path.join(model, rundir.CONFIG)).get("particles", "")
    if not os.path.isfile(path):
        raise ReconstructError("--particles is missing, and the particles of --model %s are not where they "
                               "were ('%s'): name their star file" % (model, path))
    return str(path)


def _at_copies(particles: ParticleSet, copies: np.ndarray, model: str) -> ParticleSet:
    """Turn each particle to its symmetry copy: ``A' = A S_copy``."""
    if not np.any(copies):
        return particles
    if not model:
        raise ReconstructError("the list of ids names symmetry copies: give --model, whose symmetry they "
                               "refer to")
    group = rundir.read_json(os.path.join(model, rundir.CONFIG)).get("symmetry", "c1")
    matrices = symmetry_matrices(group)                                             # [copies, 3, 3]
    bad = np.unique(copies[(copies < 0) | (copies >= len(matrices))])
    if len(bad):
        raise ReconstructError("symmetry copies must be 0 to %d for %s, got %s" % (
            len(matrices) - 1, group, listing(bad)))
    rotation = particles.rotation.astype(np.float64) @ matrices[copies]
    return particles.with_poses(rotation, particles.shift_angst)
