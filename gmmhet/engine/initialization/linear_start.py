"""What a training starts from: how the encoder sees the gradients, and the linear answer to which of them are no noise."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items, prefetched
from gmmhet.engine.config import FIRST_ANGST
from gmmhet.engine.initialization.gradients import column_statistics, gradient_function
from gmmhet.engine.initialization.subspace import MOST_COLUMNS, find_subspace, streamed_covariances, summed
from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.log import log, progress
from gmmhet.engine.model.encoder import kept_axes

#: homogeneous images per column of the features, their least and largest number, and what lies between the seeds of two sets of them
PER_COLUMN, FEWEST, MOST, SEED_STEP = 16, 4096, 16384, 100003
#: the rigid modes, in the folder WORK of a run
MODES = "modes.npz"
#: amplitudes lead where they explain so many times what other columns do: to first order, motion looks like fading here and there too
FADING_OVER_MOTION = 1.5


def begin(trainer, given, conformations):
    """Give a trainer's model its feature statistics and, where it takes one, its linear start.

    Parameters
    ----------
    trainer : Trainer, with features and poses.
    given : float32 [n_items, given_dim], latent points of the earlier stages.
    conformations : callable, rows [B] to their mixtures before this training; None where it is the neutral one.

    Returns
    -------
    int, number of the column that leads and is the first to vary; None where none does, and all vary from the start.
    """
    model = trainer.model
    mean, deviation = column_statistics(trainer.features, trainer.items.of(trainer.learned).ravel())
    model.feature_mean.assign(mean)
    model.feature_deviation.assign(deviation)
    if not model.kept:
        return None
    (found, modes), columns = _subspaces(trainer, given, conformations), model.deformation.columns
    leading = explains_most(model, found)
    model.begin_in(found, leading)
    if model.begins_near and modes is not None:
        _take_modes(trainer, modes)
    return leading % len(columns) if leading is not None and len(columns) > 1 else None


def explains_most(model, subspaces):
    """Number of the subspace that leads; None where none explains anything.

    It is of the column that explains most at the coarsest look at which any does, amplitudes only where FADING_OVER_MOTION as much as
    another: to first order, a motion that goes further than the resolution looks like fading. Of this column's looks the finest that
    explains anything leads.

    Parameters
    ----------
    model : HeterogeneityModel.
    subspaces : list of Subspace, one for each of its columns, and as many more for every further look.
    """
    columns = model.deformation.columns
    evidence = np.reshape([found.evidence(model.own_dim) for found in subspaces], (model.looks, len(columns)))
    if not evidence.any():
        return None
    coarsest = evidence[np.flatnonzero(evidence.any(1))[-1]]
    column = int(np.argmax(coarsest / [FADING_OVER_MOTION if name == "amplitude" else 1.0 for name in columns]))
    return int(np.argmax(evidence[:, column] > 0)) * len(columns) + column


def modes_again(trainer, given, conformations):
    """Give a trainer's model, of a run that goes on, the rigid modes that its decoder is described by: as `begin` left them, or anew."""
    model, path, devices = trainer.model, trainer.run(rundir.WORK, MODES), trainer.devices
    if not (model.begins_near and model.deformation.parts[0]):
        return
    if devices.ask(devices.is_chief and os.path.exists(path))[0]:
        with np.load(path) as data:
            model.modes = data["modes"], data["reader"], data["owner"]
        return
    number, merged = model.deformation.columns.index("position"), model.deformation.merged(MOST_COLUMNS)
    nulls = [covariances[number] for covariances in _homogeneous(trainer, given, conformations, merged * model.looks)]
    _take_modes(trainer, _apart(_modes(model.deformation, nulls, merged[number]), merged[number]))


def _modes(deformation, nulls, merged):
    """Rigid modes of parts (see `Deformation.rigid_modes`) where noise alone has these covariances, which are the Fisher information."""
    return deformation.rigid_modes(0.5 * (nulls[0] + nulls[1]), merged)


def _apart(modes, merged):
    """Rigid modes of the single outputs, of which `merged` says which were taken together; what reads them off takes means."""
    found, reader, owner = modes
    return merged @ found, merged @ (reader / merged.sum(0)[:, None]), owner


def _take_modes(trainer, modes):
    modes, reader, owner = trainer.model.modes = np.float32(modes[0]), np.float32(modes[1]), modes[2]
    if trainer.devices.is_chief:
        write_arrays(trainer.run(rundir.WORK, MODES), modes=modes, reader=reader, owner=owner)


def _subspaces(trainer, given, conformations):
    """The subspace of every column at every look, of the particles that are learned from against homogeneous images; and the rigid modes of
    parts by all rings, None where none move."""
    model, found, by_all_rings = trainer.model, [], None
    columns, ends, merged = model.deformation.columns, model.deformation.parts[1], model.deformation.merged(MOST_COLUMNS) * model.looks
    covariances = [*_halves(trainer, merged), *_homogeneous(trainer, given, conformations, merged)]
    for number, kept in enumerate(kept_axes(model.settings["subspace"], model.deformation.sizes * model.looks)):
        part, modes = [covariance[number] for covariance in covariances], None
        if ends and columns[number % len(columns)] == "position":
            modes = _modes(model.deformation, part[2:], merged[number])
            by_all_rings = _apart(modes, merged[number]) if number < len(columns) else by_all_rings
        found.append(find_subspace(part[:2], part[2:], min(kept, len(part[0])), model.own_dim, modes, ends).apart(merged[number]))
        log.info("to first order%s, %s explains %.3g nats a particle (%d axes above the noise)", "" if number < len(columns) else
                 " at %.3g Å" % FIRST_ANGST, columns[number % len(columns)], found[-1].evidence(model.own_dim), found[-1].significant)
    return found, by_all_rings


def _halves(trainer, merged, chunk=512):
    """Covariances of the gradients of each column, its outputs `merged`, of two random halves of the particles that are learned from."""
    order = np.random.default_rng([trainer.config.seed, 18]).permutation(trainer.learned)
    rows = [np.sort(trainer.items.of(half).ravel()) for half in (order[::2], order[1::2])]
    return [streamed_covariances(
        (summed(trainer.features[part[i:i + chunk]][:, :trainer.model.gradients], merged) for i in range(0, len(part), chunk)),
        [matrix.shape[1] for matrix in merged]) for part in rows]


def _homogeneous(trainer, given, conformations, merged, batch_size=64):
    """The same of two independent sets of homogeneous images, at the particles' own poses and CTF."""
    model, config, particles, devices = trainer.model, trainer.config, trainer.items.particles, trainer.devices
    gradients = devices.compiled(gradient_function(trainer.agreement, model))
    wanted = int(np.clip(PER_COLUMN * model.deformation.outputs, FEWEST, MOST)) // 2 // model.copies
    whole, part = divmod(wanted, len(particles))
    batches = whole * -(-len(particles) // batch_size) - (-part // batch_size)

    def drawn(number):
        left = wanted
        while left > 0:
            seed = (config.seed + SEED_STEP * number) % 2**31
            items = Items(HomogeneousParticles(particles, conformations or model.neutral, model.likelihood, seed, trainer.poses),
                          config.symmetry)
            rows = np.sort(np.random.default_rng([seed, 19]).permutation(len(particles))[:left])
            for chosen, batch in prefetched(items, rows, batch_size, given, devices.own):
                found = gradients(len(chosen), *batch)[0].numpy().reshape(-1, model.gradients + model.given_dim)
                yield summed(found[:, :model.gradients], merged)
            number, left = number + 2, left - len(rows)
    return [streamed_covariances(progress(drawn(number), batches, "homogeneous images, set %d of 2" % number),
                                 [matrix.shape[1] for matrix in merged]) for number in (1, 2)]
