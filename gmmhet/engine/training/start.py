"""What a training starts from: how the encoder sees the gradients, and the linear answer to which of them are no noise."""
import numpy as np

from gmmhet.engine.log import log
from gmmhet.engine.training.batches import Items, prefetched
from gmmhet.engine.training.features import column_statistics, gradient_function
from gmmhet.engine.training.homogeneous import HomogeneousParticles
from gmmhet.engine.training.subspace import find_subspace, kept_axes, streamed_covariances

#: homogeneous images per column of the features, their least and largest number, and what lies between the seeds of two sets of them
PER_COLUMN, FEWEST, MOST, SEED_STEP = 16, 4096, 16384, 100003


def begin(trainer, given, conformations):
    """Give a trainer's model its feature statistics and, where it takes one, its linear start.

    Parameters
    ----------
    trainer : Trainer, with features and poses.
    given : float32 [n_items, given_dim], latent points of the earlier stages.
    conformations : callable, rows [B] to their mixtures before this training; None where it is the neutral one.

    Returns
    -------
    int, number of the column that explains most and is the first to vary; None where all vary from the start.
    """
    model = trainer.model
    mean, deviation = column_statistics(trainer.features, trainer.items.of(trainer.learned).ravel())
    model.feature_mean.assign(mean)
    model.feature_deviation.assign(deviation)
    return model.begin_in(_subspaces(trainer, given, conformations)) if model.kept else None


def _subspaces(trainer, given, conformations):
    """The subspace of every column, of the particles that are learned from against homogeneous images."""
    deformation = trainer.model.deformation
    covariances, found = [*_halves(trainer), *_homogeneous(trainer, given, conformations)], []
    for number, (name, kept) in enumerate(zip(deformation.columns, kept_axes(trainer.model.settings["subspace"], deformation.sizes))):
        part = [covariance[number] for covariance in covariances]
        found.append(find_subspace(part[:2], part[2:], kept))
        log.info("to first order, %s explains %.3g nats a particle (%d axes above the noise)", name,
                 found[-1].evidence(trainer.model.own_dim), found[-1].significant)
    return found


def _halves(trainer, chunk=512):
    """Covariances of the gradients, by column, of two random halves of the particles that are learned from."""
    deformation, order = trainer.model.deformation, np.random.default_rng([trainer.config.seed, 18]).permutation(trainer.learned)
    rows = [np.sort(trainer.items.of(half).ravel()) for half in (order[::2], order[1::2])]
    return [streamed_covariances((trainer.features[part[i:i + chunk]][:, :deformation.outputs] for i in range(0, len(part), chunk)),
                                 deformation.sizes) for part in rows]


def _homogeneous(trainer, given, conformations, batch_size=64):
    """Covariances of the gradients, by column, of two independent sets of homogeneous images, at the particles' own poses and CTF."""
    model, config, particles, devices = trainer.model, trainer.config, trainer.items.particles, trainer.devices
    gradients, size = devices.compiled(gradient_function(trainer.agreement, model)), model.deformation.outputs
    wanted = int(np.clip(PER_COLUMN * size, FEWEST, MOST)) // 2 // model.copies

    def drawn(number):
        left = wanted
        while left > 0:
            seed = (config.seed + SEED_STEP * number) % 2**31
            items = Items(HomogeneousParticles(particles, conformations or model.neutral, model.likelihood, seed, trainer.poses),
                          config.symmetry)
            rows = np.sort(np.random.default_rng([seed, 19]).permutation(len(particles))[:left])
            for chosen, batch in prefetched(items, rows, batch_size, given, devices.own):
                yield gradients(len(chosen), *batch)[0].numpy().reshape(-1, size + model.given_dim)[:, :size]
            number, left = number + 2, left - len(rows)
    return [streamed_covariances(drawn(number), model.deformation.sizes) for number in (1, 2)]
