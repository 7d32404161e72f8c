"""Which particles a reconstruction takes: all, a list of ids, or those nearest to a latent point."""
import os
from dataclasses import dataclass

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.errors import listing
from gmmhet.engine.io.ids import read_ids
from gmmhet.engine.io.particles import ParticleSet, read_particles
from gmmhet.engine.log import log


class ReconstructError(ValueError):
    """The subset asked for cannot be reconstructed; the message says why and what to do."""


@dataclass(frozen=True)
class Chosen:
    """Ids of a subset and how they were chosen.

    Attributes
    ----------
    ids : int64 [n] or None for all particles.
    copy : int [n], symmetry copy whose orientation each particle takes, 0-based.
    words : str, how they were chosen, for the log and the summary.
    """

    ids: "np.ndarray | None"
    copy: "np.ndarray | None"
    words: str


def check_choice(config):
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
        raise ReconstructError("--particles is missing: name the star file of posed particles (or --model DIR, to take the particles "
                               "it was trained on)")
    if config.model:
        problem = rundir.missing_run(config.model, "train")
        if problem:
            raise ReconstructError("--model: " + problem)


def choose(config):
    """The subset that the flags ask for.

    Parameters
    ----------
    config : ReconstructConfig

    Returns
    -------
    Chosen

    Raises
    ------
    ReconstructError, ParticleError
        when the latent point or the list of ids cannot be used, or the list is empty.
    """
    if config.near:
        return _nearest(config.model, config.near, config.k)
    if config.ids:
        ids, copies = read_ids(config.ids)
        return Chosen(ids, copies, "the %d ids of %s" % (len(ids), config.ids))
    return Chosen(None, None, "all particles")


def _nearest(model, near, k):
    """The k particles nearest to a latent point, each at its nearest symmetry copy."""
    with np.load(os.path.join(model, rundir.LATENTS)) as data:
        ids, copies, z = data["id"], data["copy"], data["z"].astype(np.float64)
    point = _latent_point(near, z.shape[1])
    ids, copies = nearest_particles(ids, copies, z, point, k)
    if len(ids) < k:
        log.warning("--k %d is more than the %d particles of %s: all of them are taken.", k, len(ids), model)
    return Chosen(ids, copies, "the %d particles nearest to z = %s" % (len(ids), ", ".join("%g" % value for value in point)))


def _latent_point(near, dimension):
    try:
        point = np.array([float(word) for word in near.replace(",", " ").split()])
    except ValueError:
        point = np.array([np.nan])
    if not np.isfinite(point).all():
        raise ReconstructError("--near must be comma-separated numbers, got '%s'" % near)
    if len(point) != dimension:
        raise ReconstructError("--near must have %d numbers, one per latent dimension, got %d ('%s')" % (dimension, len(point), near))
    return point


def nearest_particles(ids, copies, z, point, k):
    """Ids and copies of the k particles nearest to a point of z.

    Distance is plain distance in z, as in trajectories: training sets the scale of every dimension, and one that it left unused must
    not be blown up. A particle that has several symmetry copies is taken once, at the nearest of them.

    Parameters
    ----------
    ids, copies : int arrays [n]
    z : array [n, D]
    point : array [D]
    k : int

    Returns
    -------
    ids, copies : int arrays [min(k, number of particles)], by rising id.
    """
    order = np.argsort(((z - point) ** 2).sum(axis=1), kind="stable")
    _, first = np.unique(ids[order], return_index=True)      # the nearest copy of each particle, as a place in `order`
    kept = order[np.sort(first)[:k]]
    kept = kept[np.argsort(ids[kept], kind="stable")]
    return ids[kept].astype(np.int64), copies[kept].astype(int)


def read_subset(config):
    """The chosen particles, in the orientation of their symmetry copy.

    Returns
    -------
    particles : ParticleSet
    words : str, how they were chosen.

    Raises
    ------
    ReconstructError, ParticleError
    """
    check_choice(config)
    chosen = choose(config)
    particles = read_particles(config.particles or _trained_on(config.model))
    if chosen.ids is None:
        return particles if config.particles else of_training(particles, config.model), chosen.words
    particles = particles.select(particles.rows_of(chosen.ids))
    return _at_copies(particles, chosen.copy, config.model), chosen.words


def of_training(particles, model):
    """Those of the particles that the train run in the folder `model` was trained on, by id."""
    with np.load(os.path.join(model, rundir.LATENTS)) as data:
        return particles.select(np.flatnonzero(np.isin(particles.ids, data["id"])))


def _trained_on(model):
    """Star file of the particles a train run used, or of more than these."""
    path = rundir.read_json(os.path.join(model, rundir.CONFIG)).get("particles", "")
    if not os.path.isfile(path):
        raise ReconstructError("--particles is missing, and the particles of --model %s are not where they were ('%s'): "
                               "name their star file" % (model, path))
    return path


def _at_copies(particles: ParticleSet, copies, model):
    """Turn each particle to its symmetry copy: ``A' = A S_copy``."""
    if not np.any(copies):
        return particles
    if not model:
        raise ReconstructError("the list of ids names symmetry copies: give --model, whose symmetry they refer to")
    group = rundir.read_json(os.path.join(model, rundir.CONFIG)).get("symmetry", "c1")
    matrices = symmetry_matrices(group)
    bad = np.unique(copies[(copies < 0) | (copies >= len(matrices))])
    if len(bad):
        raise ReconstructError("symmetry copies must be 0 to %d for %s, got %s" % (len(matrices) - 1, group, listing(bad)))
    return particles.with_poses(particles.rotation.astype(np.float64) @ matrices[copies], particles.shift_angst)
