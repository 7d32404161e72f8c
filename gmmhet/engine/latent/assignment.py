"""Clusters of particles: by latent point, or by image."""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from gmmhet.engine.batching.batches import Items
from gmmhet.engine.inference.cluster_membership import likeliest, likelihoods, memberships, mixed, sharpened, two_levels
from gmmhet.engine.inference.latent_posterior import latent_prior, unit_prior
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.cluster import by_size, cluster_centers, density_labels, kmeans_labels, largest_first
from gmmhet.engine.log import log
from gmmhet.engine.model.latent_scale import read, spread
from gmmhet.engine.training.finished import particles_of, posed_otherwise

PLACED_BY = 2000    # particles whose images say where the clusters' centres are


@dataclass(frozen=True)
class Clusters:
    """Clusters of latent points, in order of size.

    Parameters
    ----------
    labels : int [n], from 1; 0 for none.
    centers : [K, D]
    probability : [n, K], of each cluster by the particle's image; population : [K]. None where clusters are by z alone.
    """

    labels: np.ndarray
    centers: np.ndarray
    probability: Optional[np.ndarray] = None
    population: Optional[np.ndarray] = None

    @property
    def certainty(self):
        """How probable the cluster of a particle is, on average; None where clusters are by z alone."""
        return None if self.probability is None else float(self.probability.max(1).mean())

    @property
    def sizes(self):
        """Points of each cluster [K]."""
        return np.bincount(self.labels, minlength=len(self.centers) + 1)[1:]

    @property
    def unassigned(self):
        """How many points are in no cluster."""
        return int(np.sum(self.labels == 0))


def by_latent(config, z):
    """Clusters in z [n, D], as many as ``--clusters`` asks for, or by density."""
    labels = kmeans_labels(z, config.clusters, config.seed) if config.clusters else density_labels(z)
    return Clusters(labels, cluster_centers(z, labels))


def posed_particles(config, latents, model):
    """The particles of the landscape, in the order of their latent points, and what training found that their poses change by, [n, 5].

    What `--particles` gives another pose than it had in training is taken as it is.
    """
    ids, change = latents["id"][::model.copies], latents["pose_change"][::model.copies]
    given = particles_of(config.model, model, config.particles) if config.particles else None
    whole = given is not None and bool(np.isin(ids, given.ids).all())
    try:
        trained = particles_of(config.model, model)
    except (ValueError, OSError):
        if given is None or not whole:
            raise
        return given.select(given.rows_of(ids)), np.zeros_like(change)
    trained = trained.select(trained.rows_of(ids))
    if given is None:
        return trained, change
    rows = np.flatnonzero(np.isin(ids, given.ids))
    given = given.select(given.rows_of(ids[rows]))
    other = posed_otherwise(given, trained.select(rows))
    log.info("%d of the %d particles have another pose in %s than in training", other.sum(), len(ids), config.particles)
    rotation, shift, change = trained.rotation.copy(), trained.shift_angst.copy(), change.copy()
    rotation[rows], shift[rows], change[rows[other]] = given.rotation, given.shift_angst, 0
    return (given if whole else trained).with_poses(rotation, shift), change


def by_image(config, latents, model, labels):
    """Clusters that begin as `labels` [n] say, with particles assigned by their images (see `membership`)."""
    try:
        particles, change = posed_particles(config, latents, model)
    except (ValueError, OSError) as error:
        raise LatentError("%s (--assign-by latent needs no images)" % error) from error
    to, back = model.paces[::-1], model.paces
    model, z = model.as_trained(throughout=True), read(latents["z"], *to)
    covariance = spread(latents["z"], latents["z_covariance"], *to)
    prior = unit_prior(model.latent_dim) if model.settings["variational"] else latent_prior(z)
    some = np.random.default_rng([config.seed, 20]).permutation(len(particles))[:PLACED_BY]
    items, few = Items(particles, model.symmetry), Items(particles.select(some), model.symmetry)
    centers = likeliest(lambda places: likelihoods(model, few, z[items.of(some).ravel()], places, change[some], "centers"),
                        cluster_centers(z, labels), sharpened(z, covariance, labels, prior))
    centers, found, probability, population = populated(centers, likelihoods(model, items, z, centers, change))
    found = levelled(model, items, z, latents["held_out"], centers, change, found, population)
    centers, found, probability, population = populated(centers, found)
    most = probability.argmax(1)
    kept = largest_first(most)
    return Clusters(by_size(most), read(centers[kept], *back), probability[:, kept], population[kept])


def populated(centers, found):
    """Clusters that are the most probable one of some item: centers [K, D], log-likelihoods [n, K], probability [n, K], population [K]."""
    probability, population = memberships(found)
    while len(present := np.unique(probability.argmax(1))) < len(population):      # what no image fits best takes no share either
        centers, found = centers[present], found[:, present]
        probability, population = memberships(found)
    return centers, found, probability, population


def levelled(model, items, z, held_out, centers, change, found, population):
    """Log-likelihoods [n_items, K] at the centers: those `found`, or with amplitudes of two levels (see `two_levels`) where particles that
    the networks never saw are likelier so, by two standard errors and more."""
    _, plain, _ = model.decode(centers)
    held = held_out[::model.copies]
    if len(plain) < 3 or not np.any(held):
        return found
    amplitudes = two_levels(plain, population)
    if np.allclose(amplitudes, plain, rtol=1e-3):
        return found
    rows = items.of(np.flatnonzero(held)).ravel()
    those = Items(items.particles.select(np.flatnonzero(held)), model.symmetry)
    by_levels = likelihoods(model, those, z[rows], centers, change[held], "held out", amplitudes=amplitudes)
    gain = mixed(by_levels, population) - mixed(found[rows], population)
    if gain.mean() < 2 * gain.std() / np.sqrt(len(gain)):
        return found
    log.info("Parts that come and go are taken to be there or not: held-out particles gain %.3g nats by it.", gain.mean())
    return likelihoods(model, items, z, centers, change, amplitudes=amplitudes)
