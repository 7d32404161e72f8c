"""The oracle: what Bayes' rule recovers when the true model, poses, CTF and noise are all known. Nobody can do better."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import progress
from gmmhet.engine.simulate.phantom import SYMMETRIC


def posterior(phantom, particles, sigma, batch_size=32):
    """Posterior probability of every coordinate of the phantom's grid for every particle.

    Parameters
    ----------
    phantom : Phantom.
    particles : ParticleSet with the true poses.
    sigma : float, standard deviation of the white noise.

    Returns
    -------
    coordinates [G, 2], probabilities float32 [n, G].
    """
    coordinates, prior = phantom.grid()
    grid = FourierGrid.to_resolution(particles.box, particles.pixel_size)
    models = [phantom.at(c) for c in coordinates]
    centers = tf.constant(np.stack([m.centers for m in models]))
    amplitudes = tf.constant(np.stack([m.amplitudes for m in models]))
    widths = tf.constant(phantom.base.widths)
    weight = tf.constant(grid.weight / sigma**2)

    @tf.function(reduce_retracing=True, autograph=False)
    def log_likelihoods(images, rotation, shift, ctf):
        data, transfer = transform(images, grid), ctf_values(ctf, grid.kx, grid.ky)[:, None]

        def one(model):
            image = transfer * project(place(model[0], rotation, shift), model[1], widths, grid)
            return tf.reduce_sum(weight * image * (data - 0.5 * image), (1, 2, 3))
        return tf.map_fn(one, (centers, amplitudes), fn_output_signature=tf.float32)

    chunks = []
    for start in progress(range(0, len(particles), batch_size), -(-len(particles) // batch_size), "oracle"):
        rows = np.arange(start, min(start + batch_size, len(particles)))
        values = log_likelihoods(particles.read(rows), particles.rotation[rows], particles.shift_angst[rows], particles.ctf[rows])
        chunks.append(values.numpy().T + np.log(prior))
    log_p = np.concatenate(chunks)
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return coordinates, (p / p.sum(1, keepdims=True)).astype(np.float32)


def estimates(phantom, coordinates, p):
    """The oracle's answer per particle: dict of arrays named as the truth's (see `score`)."""
    if phantom.kind == "assembly":
        return dict(state=np.argmax(p, axis=1))
    if phantom.kind == "mixed":
        arm = phantom.has_arm(coordinates[:, 0])
        of_state = np.stack([p[:, coordinates[:, 0] == s].sum(1) for s in np.unique(coordinates[:, 0])], axis=1)
        return dict(state=np.argmax(of_state, axis=1), angle=(p[:, arm] @ coordinates[arm, 1]) / np.maximum(p[:, arm].sum(1), 1e-12))
    if phantom.kind == "hinge":
        return dict(angle=p @ coordinates[:, 1])
    if phantom.kind in SYMMETRIC:
        by_unit = p.reshape(len(p), len(phantom.turns), -1)
        return dict(unit_angles=by_unit @ coordinates[:by_unit.shape[2], 1], unit=1 + np.argmax(by_unit.sum(2), axis=1))
    return {}


def truths(phantom, drawn):
    """The true values per particle, under the names `estimates` uses."""
    if phantom.kind == "assembly":
        return dict(state=drawn[:, 0].astype(int))
    if phantom.kind == "mixed":
        return dict(state=drawn[:, 0].astype(int), angle=np.where(phantom.has_arm(drawn[:, 0]), drawn[:, 1], np.nan))
    if phantom.kind == "hinge":
        return dict(angle=drawn[:, 1])
    if phantom.kind in SYMMETRIC:
        unit = drawn[:, 0].astype(int)
        return dict(unit_angles=np.where(unit[:, None] == np.arange(1, 1 + len(phantom.turns)), drawn[:, 1:], 0.0), unit=unit)
    return {}
