"""What a training starts from: how the encoder sees the gradients, and the linear answer to which of them are no noise."""
import numpy as np

from gmmhet.engine.config import FIRST_ANGST
from gmmhet.engine.log import log
from gmmhet.engine.training.batches import Items, prefetched
from gmmhet.engine.training.features import column_statistics, gradient_function
from gmmhet.engine.training.homogeneous import HomogeneousParticles
from gmmhet.engine.training.subspace import find_subspace, kept_axes, streamed_covariances

#: homogeneous images per column of the features, their least and largest number, and what lies between the seeds of two sets of them
PER_COLUMN, FEWEST, MOST, SEED_STEP = 16, 4096, 16384, 100003
#: amplitudes lead where they explain so many times what other columns do: to first order, motion looks like fading here and there too
FADING_OVER_MOTION = 1.5


def coarse(agreement, model):
    """The agreement that training starts from: of no rings finer than FIRST_ANGST, for networks that begin with a linear answer; the whole
    where less than an octave would be left."""
    first = agreement.to_resolution(FIRST_ANGST) if model.kept else agreement
    return first if first.grid.m >= 2 * first.first_ring else agreement


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
    found = _subspaces(trainer, given, conformations, trainer.agreement)
    leading, first = explains_most(model, found), coarse(trainer.agreement, model)
    if leading is not None and len(found) > 1 and model.deformation.columns[leading] == "amplitude" and first is not trainer.agreement:
        # a motion that goes further than the resolution looks like fading to first order
        seen = explains_most(model, _subspaces(trainer, given, conformations, first))
        leading = leading if seen is None else seen
    model.begin_in(found, leading)
    return leading if len(found) > 1 else None


def explains_most(model, subspaces):
    """Number of the column whose subspace explains most, amplitudes only where FADING_OVER_MOTION as much as another; None where no column
    explains anything.

    Parameters
    ----------
    model : HeterogeneityModel.
    subspaces : list of Subspace, one for each of its columns.
    """
    evidence = [found.evidence(model.own_dim) / (FADING_OVER_MOTION if name == "amplitude" else 1.0)
                for name, found in zip(model.deformation.columns, subspaces)]
    return int(np.argmax(evidence)) if max(evidence) > 0 else None


def _subspaces(trainer, given, conformations, agreement):
    """The subspace of every column by an agreement, of the particles that are learned from against homogeneous images."""
    deformation, gradients = trainer.model.deformation, trainer.devices.compiled(gradient_function(agreement, trainer.model))
    at_target = agreement is trainer.agreement
    particles = _halves(trainer) if at_target else _halves_anew(trainer, given, gradients)
    covariances, found = [*particles, *_homogeneous(trainer, given, conformations, gradients)], []
    for number, (name, kept) in enumerate(zip(deformation.columns, kept_axes(trainer.model.settings["subspace"], deformation.sizes))):
        part = [covariance[number] for covariance in covariances]
        found.append(find_subspace(part[:2], part[2:], kept))
        log.info("to first order%s, %s explains %.3g nats a particle (%d axes above the noise)", "" if at_target else
                 " at %.3g Å" % FIRST_ANGST, name, found[-1].evidence(trainer.model.own_dim), found[-1].significant)
    return found


def _two_halves(trainer):
    """Two random halves of the particles that are learned from."""
    order = np.random.default_rng([trainer.config.seed, 18]).permutation(trainer.learned)
    return order[::2], order[1::2]


def _halves(trainer, chunk=512):
    """Covariances of the gradients in the features, by column, of two random halves of the particles."""
    deformation, rows = trainer.model.deformation, [np.sort(trainer.items.of(half).ravel()) for half in _two_halves(trainer)]
    return [streamed_covariances((trainer.features[part[i:i + chunk]][:, :deformation.outputs] for i in range(0, len(part), chunk)),
                                 deformation.sizes) for part in rows]


def _halves_anew(trainer, given, gradients):
    """The same of gradients by another agreement, of no more particles than there are homogeneous images."""
    return [streamed_covariances(_gradients(trainer, gradients, trainer.items, np.sort(half[:_wanted(trainer.model)]), given),
                                 trainer.model.deformation.sizes) for half in _two_halves(trainer)]


def _homogeneous(trainer, given, conformations, gradients):
    """Covariances of the gradients, by column, of two independent sets of homogeneous images, at the particles' own poses and CTF."""
    model, config, particles = trainer.model, trainer.config, trainer.items.particles

    def drawn(number):
        left = _wanted(model)
        while left > 0:
            seed = (config.seed + SEED_STEP * number) % 2**31
            items = Items(HomogeneousParticles(particles, conformations or model.neutral, model.likelihood, seed, trainer.poses),
                          config.symmetry)
            rows = np.sort(np.random.default_rng([seed, 19]).permutation(len(particles))[:left])
            yield from _gradients(trainer, gradients, items, rows, given)
            number, left = number + 2, left - len(rows)
    return [streamed_covariances(drawn(number), model.deformation.sizes) for number in (1, 2)]


def _wanted(model):
    """Particles in each set of homogeneous images."""
    return int(np.clip(PER_COLUMN * model.deformation.outputs, FEWEST, MOST)) // 2 // model.copies


def _gradients(trainer, gradients, items, rows, given, batch_size=64):
    """Gradients by the decoder's outputs [b * copies, outputs] of the given particles, batch by batch."""
    size, devices = trainer.model.deformation.outputs, trainer.devices
    for chosen, batch in prefetched(items, rows, batch_size, given, devices.own):
        yield gradients(len(chosen), *batch)[0].numpy().reshape(-1, size + trainer.model.given_dim)[:, :size]
