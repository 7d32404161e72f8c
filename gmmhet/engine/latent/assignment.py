"""Clusters of particles: by latent point, or by image."""
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import numpy as np

from gmmhet.engine.batching.batches import Views
from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.inference.cluster_membership import (
    ImageComparison,
    OccupiedClusters,
    mixture_log_likelihood,
    occupied,
    optimise_centers,
    two_level_amplitudes,
    unshrunk_centers,
)
from gmmhet.engine.inference.latent_posterior import gaussian_prior, unit_prior
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.cluster import (
    cluster_centers,
    density_labels,
    kmeans_labels,
    largest_first,
    number_by_size,
)
from gmmhet.engine.latents import Latents
from gmmhet.engine.log import log
from gmmhet.engine.particles.particle_set import ParticleSet
from gmmhet.engine.training.finished import have_other_poses, particles_of

#: particles whose images say where the clusters' centers are
CENTERING_PARTICLES = 2000
#: standard errors by which held-out particles must be likelier with amplitudes of two levels
SURE_ERRORS = 2
#: fewest clusters among which amplitudes of two levels differ from those at the centers
FEWEST_FOR_LEVELS = 3


@dataclass(frozen=True)
class Clusters:
    """Clusters of latent points, in order of size.

    Attributes
    ----------
    labels : int [n], from 1; 0 for none.
    centers : [K, D].
    probability : [n, K], of each cluster by the particle's image. None where clusters are by z alone.
    population : [K], share of the particles. None where clusters are by z alone.
    """

    labels: np.ndarray
    centers: np.ndarray
    probability: Optional[np.ndarray] = None
    population: Optional[np.ndarray] = None

    @property
    def certainty(self) -> Optional[float]:
        """How probable the cluster of a particle is, on average; None where clusters are by z alone."""
        return None if self.probability is None else float(self.probability.max(1).mean())

    @property
    def sizes(self) -> np.ndarray:
        """Points of each cluster, int [K]."""
        return np.bincount(self.labels, minlength=len(self.centers) + 1)[1:]

    @property
    def unassigned(self) -> int:
        """How many points are in no cluster."""
        return int(np.sum(self.labels == 0))


def assign_by_latent(config: AnalyzeConfig, z: np.ndarray) -> Clusters:
    """Clusters in z [n, D], as many as ``--clusters`` asks for, or by density."""
    labels = kmeans_labels(z, config.clusters, config.seed) if config.clusters else density_labels(z)
    return Clusters(labels, cluster_centers(z, labels))


class PosedParticles(NamedTuple):
    """The particles of a landscape, in the order of their latent points, and what training found that their
    poses change by, float32 [n, 5] (see `imaging.pose_change`)."""

    particles: ParticleSet
    pose_change: np.ndarray


def posed_particles(config: AnalyzeConfig, latents: Latents, model: Any) -> PosedParticles:
    """The particles of the landscape; what `--particles` gives another pose than it had in training is taken
    as it is.

    Raises
    ------
    LatentError
        when they cannot be read.
    """
    try:
        return _posed_particles(config, latents, model)
    except (ValueError, OSError) as error:
        raise LatentError("%s (--assign-by latent needs no images)" % error) from error


def _posed_particles(config: AnalyzeConfig, latents: Latents, model: Any) -> PosedParticles:
    assert latents.pose_change is not None
    ids, change = latents.particle_ids, latents.pose_change[latents.copy == 0]
    other = particles_of(config.model, model, config.particles) if config.particles else None
    has_all = other is not None and bool(np.isin(ids, other.ids).all())
    try:
        trained = particles_of(config.model, model)
    except (ValueError, OSError):
        if other is None or not has_all:
            raise
        return PosedParticles(other.select(other.rows_of(ids)), np.zeros_like(change))
    trained = trained.select(trained.rows_of(ids))
    if other is None:
        return PosedParticles(trained, change)
    rows = np.flatnonzero(np.isin(ids, other.ids))
    other = other.select(other.rows_of(ids[rows]))
    differs = have_other_poses(other, trained.select(rows))
    log.info("%d of the %d particles have another pose in %s than in training", differs.sum(), len(ids),
             config.particles)
    rotation, shift, change = trained.rotation.copy(), trained.shift_angst.copy(), change.copy()
    rotation[rows], shift[rows], change[rows[differs]] = other.rotation, other.shift_angst, 0
    return PosedParticles((other if has_all else trained).with_poses(rotation, shift), change)


def assign_by_image(model: Any, latents: Latents, posed: PosedParticles, labels: np.ndarray,
                    seed: int) -> Clusters:
    """Clusters that begin as `labels` [n] say, with particles assigned by their images (see
    `inference.cluster_membership`).

    Parameters
    ----------
    model : HeterogeneityModel.
    latents : Latents, with z_covariance and held_out.
    posed : PosedParticles, of the latent points.
    labels : int [n], from 1; 0 for none.
    seed : int, of the particles that say where the centers are.
    """
    assert latents.z_covariance is not None and latents.held_out is not None
    from_trained = model.latent_scales
    to_trained = from_trained.inverse
    model, z = model.as_trained(throughout=True), to_trained.rescale(latents.z)
    covariance = to_trained.rescale_covariance(latents.z, latents.z_covariance)
    prior = unit_prior(model.latent_dim) if model.is_variational else gaussian_prior(z)
    comparison = ImageComparison(model, Views(posed.particles, model.settings.symmetry), z, posed.pose_change)
    some = np.random.default_rng([seed, 20]).permutation(len(posed.particles))[:CENTERING_PARTICLES]
    few, unshrunk = comparison.of_particles(some), unshrunk_centers(z, covariance, labels, prior)
    centers = optimise_centers(lambda places: few.log_likelihood(places, "centers"),
                               cluster_centers(z, labels), unshrunk)
    clusters = occupied(centers, comparison.log_likelihood(centers))
    clusters = occupied(clusters.centers, two_level_log_likelihood(comparison, latents.held_out, clusters))
    most = clusters.probability.argmax(1)
    order = largest_first(most)
    return Clusters(number_by_size(most), from_trained.rescale(clusters.centers[order]),
                    clusters.probability[:, order], clusters.population[order])


def two_level_log_likelihood(comparison: ImageComparison, held_out: np.ndarray,
                             clusters: OccupiedClusters) -> np.ndarray:
    """Log-likelihoods [V, K] at the centers: those of the clusters, or with amplitudes of two levels (see
    `two_level_amplitudes`) where particles that the networks never saw, bool [V], are surely likelier so."""
    _, at_centers, _ = comparison.model.decode(clusters.centers)
    held = held_out[::comparison.model.copies]
    if len(at_centers) < FEWEST_FOR_LEVELS or not np.any(held):
        return clusters.log_likelihood
    amplitudes = two_level_amplitudes(at_centers, clusters.population)
    if np.allclose(amplitudes, at_centers, rtol=1e-3):
        return clusters.log_likelihood
    rows = np.flatnonzero(held)
    with_levels = comparison.of_particles(rows).log_likelihood(clusters.centers, "held out", amplitudes)
    without = clusters.log_likelihood[comparison.views.of(rows).ravel()]
    before, after = (mixture_log_likelihood(values, clusters.population) for values in (without, with_levels))
    gain = after - before
    if gain.mean() < SURE_ERRORS * gain.std() / np.sqrt(len(gain)):
        return clusters.log_likelihood
    log.info("Parts that come and go are taken to be there or not: held-out particles gain %.3g nats by "
             "it.", gain.mean())
    return comparison.log_likelihood(clusters.centers, amplitudes=amplitudes)
