"""Each particle's latent point after training: its posterior with the decoder fixed, and the evidence."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import by_item, prefetched
from gmmhet.engine.imaging.pose_change import changed, difference_steps
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.inference.least_squares import corrected, posterior, refine
from gmmhet.engine.likelihood.forward import residuals
from gmmhet.engine.log import progress

#: Gauss-Newton steps on the pose of a single model, from that of the particle's own conformation
POSE_STEPS = 2


def latent_prior(z):
    """Mean [D] and precision [D, D] of the Gaussian that describes the particles' latent points z [n, D]."""
    covariance = np.atleast_2d(np.cov(z, rowvar=False)) + 1e-4 * np.eye(z.shape[1])
    return z.mean(0).astype(np.float32), np.linalg.inv(covariance).astype(np.float32)


def unit_prior(dimension):
    """Mean and precision of the unit normal, the prior of variational training."""
    return np.zeros(dimension, np.float32), np.eye(dimension, dtype=np.float32)


def _pose_precision(sigma):
    """Precision [5, 5] of changes of pose of standard deviations sigma [2], radians and Å."""
    return np.diag(np.maximum(np.repeat(sigma, (3, 2)), [1e-5] * 3 + [1e-4] * 2) ** -2.0)


def refine_latents(model, items, features, prior, steps, devices, poses=None, batch_size=64):
    """Posterior of every item's z under a Gaussian prior, together with its change of pose where poses are uncertain, as the nearest normal
    distribution (see `gauss_newton.posterior`) with the posterior's own mean and variance along the line in which each copy is told most
    of (see `gauss_newton.corrected`); and the evidence, by Laplace's approximation about the mode.

    The mode itself is no good place for z: where discrete states make the decoder steep and flat by turns it is at the edge of a plateau.

    In a further stage the part of z that the earlier stages found stays, and all figures are of the own part, on the scales that it is
    trained on.

    Parameters
    ----------
    model : HeterogeneityModel, as trained.
    items : Items.
    features : Rows or array [n_items, F].
    prior : mean [own_dim], precision [own_dim, own_dim], of each copy.
    steps : int; 0 keeps the encoder's mean, with Laplace's covariance.
    devices : Devices.
    poses : PoseErrors of these particles, or None where the given poses are exact.

    Returns
    -------
    dict, a row an item; what is of the particle is the same for all its copies: z [n, D], its posterior's mean, z_covariance [n, own_dim,
    own_dim] (the pose integrated out), pose_change [n, 5] (see `imaging.pose_change`), agreement [n]
    (log-likelihood), neutral_agreement [n] (before this stage) and static_agreement [n] (at the prior's mean), each at its own best pose,
    and evidence, neutral_evidence and static_evidence [n] (log marginal likelihoods: z and pose integrated out, the pose alone for the
    latter two, as uncertain as it is for a single model); all in nats.
    """
    copies, dimension = model.copies, model.own_dim
    pose, pose_alone = (5 * bool(np.any(sigma > 0)) for sigma in ((poses.sigma, poses.first_sigma) if poses else (0, 0)))
    own = copies * dimension
    prior = np.tile(prior[0], copies), np.kron(np.eye(copies), prior[1])
    by_pose = _pose_precision(poses.sigma) if pose else np.zeros((0, 0))
    alone = tf.constant(_pose_precision(poses.first_sigma) if pose_alone else np.zeros((0, 0)), tf.float32)
    mean = tf.constant(np.pad(prior[0], (0, pose)), tf.float32)
    precision = tf.constant(np.block([[prior[1], np.zeros((own, pose))], [np.zeros((pose, own)), by_pose]]), tf.float32)
    grid, likelihood = model.likelihood.grid, model.likelihood
    steps_pose = difference_steps(grid.pixel_size)
    delta = tf.constant(np.concatenate([0.02 / np.sqrt(np.diag(prior[1])), steps_pose[:pose]]), tf.float32)

    def solve(images, rotation, shift, ctf, feature, change):
        data, transfer = likelihood.observe(images, ctf)
        count, feature = tf.shape(images)[0], by_item(feature)
        given = model.given(feature)
        start, at_mean = model.start(given), tf.zeros([count, own]) + mean[:own]

        def mixture(u, base=None):
            return model.assembled(model.deformation.apply(u, start, base=base))

        def decoded(z):
            return mixture(model.changes(tf.reshape(z, [-1, dimension])), model.own_base)

        def posed(x):
            return changed(rotation, shift, x) if x is not None else (rotation, shift)

        def residual(mixture, x):
            return residuals(likelihood, data, transfer, posed(x), mixture)

        def agreement(mixture, x):
            centers, amplitudes, widths = mixture
            return likelihood.value(data, transfer * project(place(centers, *posed(x)), amplitudes, widths, grid))

        def posing(q):
            return q[:, own:] if pose else None

        def cost(difference, inverse):
            return 0.5 * tf.einsum("bq,qp,bp->b", difference, inverse, difference)

        def single(mixture):
            """Agreement and evidence of one mixture for all particles, with its own best pose."""
            if not pose_alone:
                value = agreement(mixture, None)
                return value, value
            begin = change if pose else tf.zeros([count, 5])
            x, _, _, curvature = refine(lambda x: residual(mixture, x), begin, tf.zeros(5), alone, POSE_STEPS, tf.constant(steps_pose))
            value = agreement(mixture, x)
            return value, value - cost(x, alone) + 0.5 * (tf.linalg.logdet(alone) - tf.linalg.logdet(curvature + alone))

        def around(q):
            return residual(decoded(q[:, :own]), posing(q))

        def log_posterior(q):
            return agreement(decoded(q[:, :own]), posing(q)) - cost(q - mean, precision)

        encoded, log_std = (tf.reshape(part, [-1, own]) for part in model.encode(feature))
        begin = tf.concat([encoded, change], 1)
        mode, _, _, curvature = refine(around, begin, mean, precision, max(steps, 1), delta)
        if steps == 0:
            mode = begin
        laplace = curvature + precision
        evidence = log_posterior(mode) + 0.5 * (tf.linalg.logdet(precision) - tf.linalg.logdet(laplace))
        found, covariance = begin, tf.linalg.inv(laplace)
        if steps:
            width = tf.concat([tf.exp(log_std), tf.sqrt(tf.linalg.diag_part(covariance)[:, own:])], 1)
            found, covariance = posterior(around, begin, tf.linalg.diag(width), mean, precision, steps)
            for copy in range(copies):
                found, covariance = corrected(log_posterior, found, covariance, mean, precision,
                                              slice(copy * dimension, (copy + 1) * dimension))
        value = agreement(decoded(found[:, :own]), posing(found))
        neutral, static = single(mixture(tf.zeros([count * copies, model.deformation.outputs]))), single(decoded(at_mean))
        z = tf.concat([tf.reshape(given, [-1, copies, model.given_dim]), tf.reshape(found[:, :own], [-1, copies, dimension])], 2)
        covariance = tf.reshape(covariance[:, :own, :own], [-1, copies, dimension, copies, dimension])
        own_covariance = tf.stack([covariance[:, j, :, j] for j in range(copies)], 1)
        return z, own_covariance, found[:, own:] if pose else tf.zeros([count, 5]), value, evidence, *neutral, *static

    names = ("z", "z_covariance", "pose_change", "agreement", "evidence", "neutral_agreement", "neutral_evidence", "static_agreement",
             "static_evidence")
    parts: dict[str, list] = {name: [] for name in names}
    shared = devices.compiled(solve)
    particles = len(items.particles)
    changes = poses.change if pose else np.zeros((particles, 0), np.float32)
    batches = prefetched(items, np.arange(particles), batch_size, features, devices.own)
    for chosen, batch in progress(batches, -(-particles // batch_size), "latents"):
        for name, part in zip(names, shared(len(chosen), *batch, devices.own(changes[chosen], batch_size))):
            parts[name].append(part.numpy())
    found = {name: np.concatenate(part) for name, part in parts.items()}
    return {name: part.reshape(-1, *part.shape[2:]) if name in names[:2] else np.repeat(part, copies, 0) for name, part in found.items()}
