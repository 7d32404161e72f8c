"""Pose of each particle against its own conformation (paper, Fig. S1)."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import by_item, prefetched
from gmmhet.engine.imaging.pose_change import changed, changed_exactly, difference_steps
from gmmhet.engine.inference.least_squares import refine
from gmmhet.engine.likelihood.forward import residuals
from gmmhet.engine.log import progress


def refine_poses(model, items, z, sigma_angle_deg, sigma_shift_angst, steps, batch_size):
    """Posterior mode of a small rotation (in the image's frame) and a shift for every particle.

    Parameters
    ----------
    model : HeterogeneityModel.
    items : Items, with the model's symmetry.
    z : array [n_items, D], latent points.
    sigma_angle_deg, sigma_shift_angst : standard deviations of the prior about the given poses.

    Returns
    -------
    rotation [n, 3, 3], shift [n, 2] Å, gain [n] (log-likelihood over the given pose, nats).
    """
    likelihood = model.likelihood
    sigma = np.array([np.radians(sigma_angle_deg)] * 3 + [sigma_shift_angst] * 2, np.float32)
    precision = tf.constant(np.diag(sigma**-2.0).astype(np.float32))
    scale = tf.constant(difference_steps(model.pixel_size))

    @tf.function(reduce_retracing=True, autograph=False)
    def solve(images, rotation, shift, ctf, points):
        data, transfer = likelihood.observe(images, ctf)
        mixture = model.assembled(model.mixture(by_item(points)))

        def residual(x):
            return residuals(likelihood, data, transfer, changed(rotation, shift, x), mixture)

        start = tf.zeros([tf.shape(images)[0], 5])
        before = 0.5 * tf.reduce_sum(residual(start) ** 2, 1)
        x, _, after, _ = refine(residual, start, tf.zeros(5), precision, steps, scale)
        return x, before - after

    changes, gains = [], []
    count = len(items.particles)
    batches = prefetched(items, np.arange(count), batch_size, np.asarray(z, np.float32))
    for _, batch in progress(batches, -(-count // batch_size), "poses"):
        x, gain = solve(*batch)
        changes.append(x.numpy())
        gains.append(gain.numpy())
    return (*changed_exactly(items.particles.rotation, items.particles.shift_angst, np.concatenate(changes)), np.concatenate(gains))
