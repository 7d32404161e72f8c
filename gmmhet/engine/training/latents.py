"""Each particle's latent point after training: Gauss-Newton with the decoder fixed, its uncertainty, and the evidence."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import progress
from gmmhet.engine.training.batches import prefetched
from gmmhet.engine.training.gauss_newton import refine


def latent_prior(z):
    """Mean [D] and precision [D, D] of the Gaussian that describes the particles' latent points z [n, D]."""
    covariance = np.atleast_2d(np.cov(z, rowvar=False)) + 1e-4 * np.eye(z.shape[1])
    return z.mean(0).astype(np.float32), np.linalg.inv(covariance).astype(np.float32)


def unit_prior(dimension):
    """Mean and precision of the unit normal, the prior of variational training."""
    return np.zeros(dimension, np.float32), np.eye(dimension, dtype=np.float32)


def refine_latents(model, items, features, prior, steps, devices, batch_size=64):
    """Posterior mode of every item's z under a Gaussian prior, with the Laplace evidence.

    In a further stage the part of z that the earlier stages found stays, and all figures are of the own part.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items.
    features : Rows or array [n_items, F].
    prior : mean [own_dim], precision [own_dim, own_dim].
    steps : int; 0 keeps the encoder's mean.
    devices : Devices.

    Returns
    -------
    dict: z [n, D], its posterior's z_covariance [n, own_dim, own_dim] (Laplace's approximation), agreement [n] (log-likelihood at z),
    neutral_agreement [n] (before this stage), static_agreement [n] (at the prior's mean), evidence [n] (log marginal likelihood, also Laplace's);
    all in nats.
    """
    mean, precision = (tf.constant(p) for p in prior)
    grid, likelihood = model.likelihood.grid, model.likelihood
    root_weight = tf.constant(np.sqrt(grid.weight))
    log_det_precision = tf.linalg.logdet(precision)
    delta = tf.constant(0.02 / np.sqrt(np.diag(prior[1])))

    def solve(images, rotation, shift, ctf, feature):
        data, transfer = likelihood.observe(images, ctf)
        count, given = tf.shape(images)[0], model.given(feature)
        start = model.start(given)

        def image(z=None):
            u = tf.zeros([count, model.deformation.outputs]) if z is None else model.decoder(z)
            centers, amplitudes, widths = model.deformation.apply(u, start)
            return transfer * project(place(centers, rotation, shift), amplitudes, widths, grid)

        def residual(z):
            return tf.reshape(root_weight * (image(z) - data), [count, 2 * grid.shape[0] * grid.shape[1]])

        encoded = model.encode(feature)[0]
        z, _, _, curvature = refine(residual, encoded, mean, precision, max(steps, 1), delta)
        if steps == 0:
            z = encoded
        posterior = curvature + precision
        value, static, neutral = (likelihood.value(data, image(at)) for at in (z, tf.zeros_like(z) + mean, None))
        prior_cost = 0.5 * tf.einsum("bq,qp,bp->b", z - mean, precision, z - mean)
        evidence = value - prior_cost + 0.5 * (log_det_precision - tf.linalg.logdet(posterior))
        return tf.concat([given, z], 1), tf.linalg.inv(posterior), value, neutral, static, evidence

    names = ("z", "z_covariance", "agreement", "neutral_agreement", "static_agreement", "evidence")
    parts: dict[str, list] = {name: [] for name in names}
    shared = devices.compiled(solve)
    batches = prefetched(items, np.arange(len(items)), batch_size, features, devices.own)
    for chosen, batch in progress(batches, -(-len(items) // batch_size), "latents"):
        for name, part in zip(names, shared(len(chosen), *batch)):
            parts[name].append(part.numpy())
    return {name: np.concatenate(part) for name, part in parts.items()}
