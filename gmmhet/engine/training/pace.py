"""Latent axes at an even pace: a step along an axis changes the molecule as much wherever it is taken.

Variational training spreads latent points like its prior, a normal distribution, whatever the particles do: of an angle that is spread
evenly the ends are drawn out. Its axes are therefore measured again when it has ended, by how far apart images of what is decoded are,

    u(z) = integral from 0 to z of sqrt(I(t)) dt, over the mean of sqrt(I) over the particles,

with I(t) the squared change of an image along the axis, averaged over the particles near t: the Fisher information, but for the noise. This
stabilises the variance of estimates (Bartlett 1947): distances along u, and how densely particles lie there, are those of what is seen.
"""
import numpy as np
import tensorflow as tf

#: pieces of a scale; particles' points that each is to hold, and how many of them are asked
PIECES, POINTS, ASKED = 24, 30, 24
#: change is measured over so much of an axis's standard deviation on either side
STEP = 0.05
#: an axis along which an image changes by less than this share of itself within a standard deviation stays as it is
LEAST_CHANGE = 1e-4
#: no piece of an axis is drawn together to less than this share of what it was
LEAST_PACE = 0.1
#: points and weights of expectations under a normal distribution
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
#: places in Fourier space at which images are compared
FREQUENCIES = 128


def seen_change(model, batch_size=16):
    """How far apart images of what is decoded at two latent points are, on average over viewing directions and frequencies up to the target
    resolution, as a share of the neutral model's: a function, own z [n, D] and [n, D] to [n].

    Images in all directions hold a frequency k as often as 1 / |k|: lengths are spread evenly.
    """
    rng, grid = np.random.default_rng(0), model.likelihood.grid
    k = rng.normal(size=(FREQUENCIES, 3))
    length = (np.arange(FREQUENCIES)[:, None] + 0.5) / FREQUENCIES * grid.m * grid.step
    k = tf.constant(k * length / np.linalg.norm(k, axis=1, keepdims=True), tf.float32)

    @tf.function(autograph=False, reduce_retracing=True)
    def transform(z):
        centers, amplitudes, widths = model.mixture(z)
        phase = 2 * np.pi * tf.einsum("bnx,kx->bnk", centers, k)
        size = amplitudes[:, :, None] * tf.exp(-2 * np.pi**2 * (widths**2 + 0 * amplitudes)[:, :, None] * tf.reduce_sum(k**2, 1))
        return tf.stack([tf.reduce_sum(size * tf.cos(phase), 1), tf.reduce_sum(size * tf.sin(phase), 1)], -1)

    def transformed(z):
        z = np.asarray(z, np.float32)
        return np.concatenate([transform(tf.constant(z[i:i + batch_size])).numpy() for i in range(0, len(z), batch_size)])
    whole = np.sum(transformed(np.zeros((1, model.own_dim))) ** 2)
    return lambda a, b: np.sqrt(np.sum((transformed(b) - transformed(a)) ** 2, (1, 2)) / whole)


def even_pace(z, change):
    """Scales at an even pace.

    Parameters
    ----------
    z : [n, D], latent points as training has them.
    change : callable, points [n, D] and [n, D] to how far apart what is seen there is, [n] (see `seen_change`).

    Returns
    -------
    float32 [2, D, PIECES + 1]: places along z, which rise, and where they lie along u. Between them, and beyond, both are linear.
    """
    z = np.asarray(z, float)
    return np.stack([_scale(z, axis, change) for axis in range(z.shape[1])], 1).astype(np.float32)


def _scale(z, axis, change):
    """Scale of one axis [2, PIECES + 1]."""
    along, same = z[:, axis], np.tile(np.linspace(-1, 1, PIECES + 1), (2, 1))
    edges = np.quantile(along, np.linspace(0, 1, 1 + np.clip(len(z) // POINTS, 1, PIECES)))
    if np.any(np.diff(edges) <= 1e-4 * along.std()):
        return same
    piece = np.clip(np.searchsorted(edges, along, "right") - 1, 0, len(edges) - 2)
    asked = np.concatenate([np.flatnonzero(piece == number)[:ASKED] for number in range(len(edges) - 1)])
    step, here = STEP * along.std() * np.eye(z.shape[1])[axis], piece[asked]
    pace = np.sqrt(np.bincount(here, change(z[asked] - step, z[asked] + step) ** 2) / np.bincount(here))
    if pace.mean() < 2 * STEP * LEAST_CHANGE:
        return same
    pace = np.maximum(pace / np.average(pace, weights=np.bincount(piece)), LEAST_PACE)
    walked = np.concatenate([[0], np.cumsum(pace * np.diff(edges))])
    places = np.interp(np.linspace(0, 1, PIECES + 1), np.linspace(0, 1, len(edges)), edges)
    found = np.stack([places, np.interp(places, edges, walked)])
    found[1] -= read(np.zeros((1, 1)), *found[:, None])[0, 0]
    return found


def read(x, source, target):
    """x [n, D] on the scales `source` [D, K] to the scales `target` [D, K], linear between their places and beyond."""
    piece = np.stack([np.clip(np.searchsorted(s, v, "right") - 1, 0, len(s) - 2) for v, s in zip(x.T, source)], 1)
    (low, high), (to_low, to_high) = ([np.take_along_axis(scale, (piece + step).T, 1).T for step in (0, 1)] for scale in (source, target))
    return to_low + (x - low) * (to_high - to_low) / (high - low)


def read_in_graph(x, source, target):
    """As `read`, in TensorFlow."""
    piece = tf.clip_by_value(tf.reduce_sum(tf.cast(x[:, :, None] >= source, tf.int32), 2) - 1, 0, source.shape[1] - 2)

    def at(scale, step):
        return tf.transpose(tf.gather(scale, tf.transpose(piece) + step, batch_dims=1))
    low, to_low = at(source, 0), at(target, 0)
    return to_low + (x - low) * (at(target, 1) - to_low) / (at(source, 1) - low)


def spread(mean, covariance, source, target):
    """Covariance [n, D, D] of normal distributions, mean [n, D] and covariance on the scales `source`, on the scales `target`; correlations
    stay."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    weight = WEIGHTS / WEIGHTS.sum()
    there = np.stack([read(mean + node * deviation, source, target) for node in NODES])
    variance = np.einsum("k,knd->nd", weight, (there - np.einsum("k,knd->nd", weight, there)) ** 2)
    ratio = np.sqrt(variance) / np.maximum(deviation, 1e-12)
    return (covariance * ratio[:, :, None] * ratio[:, None, :]).astype(np.float32)
