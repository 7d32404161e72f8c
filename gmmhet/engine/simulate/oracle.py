"""The oracle: what Bayes' rule recovers when the true model, poses, CTF and noise are all known. Nobody can
do better."""
from typing import Dict, Tuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch, project_mixture
from gmmhet.engine.log import progress
from gmmhet.engine.particles.particle_set import ParticleSet
from gmmhet.engine.simulate.images import family_mixtures
from gmmhet.engine.simulate.phantom import SYMMETRIC, MixtureFamily, Phantom


def posterior(family: MixtureFamily, particles: ParticleSet, sigma: float,
              batch_size: int = 32) -> Tuple[np.ndarray, np.ndarray]:
    """Posterior probability of every coordinate of the family's grid for every particle.

    ``p(c | image) ~ p(c) exp( sum_k w (image . model_c - |model_c|^2 / 2) / sigma^2 )``, the sum over the
    frequencies below Nyquist.

    Parameters
    ----------
    family : MixtureFamily.
    particles : ParticleSet with the true poses.
    sigma : float, standard deviation of the white noise.
    batch_size : int, images in memory at once.

    Returns
    -------
    coordinates : [G, C].
    probability : float32 [n, G].
    """
    coordinates, prior = family.grid()
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size)
    centers, amplitudes = (tf.constant(array) for array in family_mixtures(family, coordinates))
    widths = tf.constant(family.reference.widths)
    weight = tf.constant(grid.weight / sigma**2)

    def log_likelihoods(images: tf.Tensor, rotation: tf.Tensor, shift: tf.Tensor,
                        ctf: tf.Tensor) -> tf.Tensor:
        data, transfer = transform(images, grid), ctf_values(ctf, grid.kx, grid.ky)[:, None]

        def of_mixture(mixture: Tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image = transfer * project_mixture(MixtureBatch(*mixture, widths), Pose(rotation, shift), grid)
            return tf.reduce_sum(weight * image * (data - 0.5 * image), (1, 2, 3))
        return tf.map_fn(of_mixture, (centers, amplitudes), fn_output_signature=tf.float32)     # [G, B]

    compiled = tf.function(log_likelihoods, reduce_retracing=True, autograph=False)
    chunks = []
    for start in progress(range(0, len(particles), batch_size), -(-len(particles) // batch_size), "oracle"):
        rows = np.arange(start, min(start + batch_size, len(particles)))
        values = compiled(particles.read(rows), particles.rotation[rows], particles.shift_angst[rows],
                          particles.ctf[rows])
        chunks.append(values.numpy().T + np.log(prior))
    log_p = np.concatenate(chunks)
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return coordinates, (p / p.sum(1, keepdims=True)).astype(np.float32)


def estimates(phantom: Phantom, coordinates: np.ndarray, p: np.ndarray) -> Dict[str, np.ndarray]:
    """The oracle's answer per particle, from its posterior [n, G] over coordinates [G, 2]: arrays named as
    those of `truths`.

    The most probable state or unit, and the posterior mean of angles.
    """
    if phantom.kind == "assembly":
        return dict(state=np.argmax(p, axis=1))
    if phantom.kind == "mixed":
        state = coordinates[:, 0]
        arm = phantom.has_arm(state)
        of_state = np.stack([p[:, state == s].sum(1) for s in np.unique(state)], axis=1)    # [n, states]
        angle = (p[:, arm] @ coordinates[arm, 1]) / np.maximum(p[:, arm].sum(1), 1e-12)
        return dict(state=np.argmax(of_state, axis=1), angle=angle)
    if phantom.kind == "hinge":
        return dict(angle=p @ coordinates[:, 1])
    if phantom.kind in SYMMETRIC:
        by_unit = p.reshape(len(p), len(phantom.unit_rotations), -1)
        return dict(unit_angles=by_unit @ coordinates[:by_unit.shape[2], 1],
                    unit=1 + np.argmax(by_unit.sum(2), axis=1))
    return {}


def truths(phantom: Phantom, coordinates: np.ndarray) -> Dict[str, np.ndarray]:
    """The true values per particle of coordinates [n, 2], under the names `estimates` uses."""
    first, angle = coordinates.T
    if phantom.kind == "assembly":
        return dict(state=first.astype(int))
    if phantom.kind == "mixed":
        return dict(state=first.astype(int), angle=np.where(phantom.has_arm(first), angle, np.nan))
    if phantom.kind == "hinge":
        return dict(angle=angle)
    if phantom.kind in SYMMETRIC:
        unit = first.astype(int)
        moves = unit[:, None] == np.arange(1, 1 + len(phantom.unit_rotations))
        return dict(unit_angles=np.where(moves, angle[:, None], 0.0), unit=unit)
    return {}
