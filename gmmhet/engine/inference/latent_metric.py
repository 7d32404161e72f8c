"""Latent axes at an even pace: a step along an axis changes the images as much wherever it is taken.

Variational training spreads latent points like its prior, a normal distribution, whatever the particles do: of an angle that is spread
evenly the ends are drawn out. Its axes are therefore measured again when it has ended, by how far apart images of what is decoded are,

    u(z) = integral from 0 to z of sqrt(I(t)) dt, over the mean of sqrt(I) over the particles,

with I(t) the squared change of an image along the axis at the particles near t: the Fisher information, but for the noise. This stabilises
the variance of estimates (Bartlett 1947): distances along an axis, and how densely particles lie along it, are those of what is seen.

That is for motion. Parts that come and go have levels, and nobody lies between: about its state a particle lies like a normal distribution
on the scales that are trained, and states are told apart best on those.
"""
import numpy as np
import tensorflow as tf
from scipy.spatial.transform import Rotation

from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import progress
from gmmhet.engine.model.latent_scale import PARTS, PLACES, POINTS, STEPS, read

#: an axis along which images change by less than this share of themselves, from the first particle to the last, stays as it is
LEAST_CHANGE = 1e-4
#: no step is drawn together to less than this share of what it was, so that there is a way back
LEAST_PACE = 0.1


def _views(count):
    """Rotations [count, 6, 3, 3]: each six look along the axes of an icosahedron, turned at random. Averages over one are those over all
    directions to fourth order, and what that leaves out is another for each."""
    golden = (1 + np.sqrt(5)) / 2
    axes = np.array([(0, 1, golden), (0, 1, -golden), (1, golden, 0), (1, -golden, 0), (golden, 0, 1), (-golden, 0, 1)])
    views = np.stack([np.linalg.svd(axis[None])[2][[1, 2, 0]] for axis in axes])
    return np.float32(views @ Rotation.random(count, random_state=0).as_matrix()[:, None])


def seen_change(model, batch_size=16):
    """How far apart images of what is decoded at two latent points are, over all viewing directions and up to the target resolution, as a
    share of the neutral model's: a function, own z [n, D] and [n, D] to [n]."""
    grid = model.likelihood.grid

    def seen(mixture, view):
        centers, amplitudes, widths = mixture
        return project(place(centers, view, tf.zeros([tf.shape(view)[0], 2])), amplitudes, widths, grid)

    @tf.function(autograph=False, reduce_retracing=True)
    def difference(a, b, views):
        one, other = model.mixture(a), model.mixture(b)
        return sum(tf.reduce_sum((seen(other, views[:, k]) - seen(one, views[:, k])) ** 2, (1, 2, 3)) for k in range(6))

    def change(a, b):
        given = [np.float32(v) for v in (a, b)] + [_views(len(a))]
        squares = [difference(*(tf.constant(v[i:i + batch_size]) for v in given)).numpy() for i in range(0, len(a), batch_size)]
        return np.sqrt(np.concatenate(squares) / whole)
    neutral, views = model.neutral, _views(1)[0]
    whole = float(tf.reduce_sum(seen((neutral.centers, neutral.amplitudes, neutral.widths), tf.constant(views)) ** 2))
    return change


def even_pace(z, change):
    """Scales at an even pace.

    Parameters
    ----------
    z : [n, D], latent points as training has them; rows that are not finite do not count.
    change : callable, points [n, D] and [n, D] to how far apart what is seen there is, [n] (see `seen_change`).

    Returns
    -------
    float32 [2, D, PLACES]: places along z, which rise, and where they lie along u. Between them, and beyond, both are linear.
    """
    z = np.asarray(z, float)
    z = z[np.isfinite(z).all(1)]
    return np.stack([_scale(z, axis, change) for axis in progress(range(z.shape[1]), z.shape[1], "pace")], 1).astype(np.float32)


def _scale(z, axis, change):
    """Scale of one axis [2, PLACES]. Every part is gone through from end to end, each step by another of the particles in it."""
    along, same = z[:, axis], np.tile(np.linspace(-1, 1, PLACES), (2, 1))
    parts = int(np.clip(len(z) // POINTS, 1, PARTS))
    edges = np.quantile(along, np.linspace(0, 1, parts + 1)) if len(z) else np.zeros(parts + 1)
    if np.any(np.diff(edges) <= 1e-4 * along.std()):
        return same
    part = np.clip(np.searchsorted(edges, along, "right") - 1, 0, parts - 1)
    members = [np.flatnonzero(part == number) for number in range(parts)]
    asked = np.concatenate([rows[np.linspace(0, len(rows) - 1, STEPS).astype(int)] for rows in members])
    ends = np.interp(np.arange(parts * STEPS + 1) / STEPS, np.arange(parts + 1), edges)
    low, high = z[asked], z[asked]
    low[:, axis], high[:, axis] = ends[:-1], ends[1:]
    walk, share = change(low, high), np.histogram(along, ends)[0] / len(z)
    if walk.sum() < LEAST_CHANGE:
        return same
    pace = walk / np.diff(ends)
    pace = np.maximum(pace / (share @ pace), LEAST_PACE)
    walked = np.concatenate([[0], np.cumsum(pace / (share @ pace) * np.diff(ends))])
    at = np.linspace(0, parts * STEPS, PLACES)
    found = np.stack([np.interp(at, np.arange(len(ends)), values) for values in (ends, walked)])
    found[1] -= read(np.zeros((1, 1)), *found[:, None])[0, 0]
    return found
