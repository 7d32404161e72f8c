"""Latent axes on a uniform scale: a step along an axis changes the images as much wherever it is taken.

Variational training spreads latent points like its prior, a normal distribution, whatever the particles do:
of an angle that is spread evenly the ends are drawn out. Its axes are therefore measured again when it has
ended, by how far apart images of what is decoded are,

    u(z) = integral from 0 to z of sqrt(I(t)) dt, over the mean of sqrt(I) over the particles,

with I(t) the squared change of an image along the axis at the particles near t: the Fisher information, but
for noise and CTF. This stabilises the variance of estimates (Bartlett 1947): distances along an axis, and how
densely particles lie along it, are those of what is seen in images.

That is for motion. Parts that come and go have levels, and nobody lies between: about its state a particle
lies like a normal distribution on the scales that are trained, and states are told apart best on those.
"""
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.spatial.transform import Rotation

from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch, project_mixture
from gmmhet.engine.log import progress
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.latent_scale import KNOTS, PIECES, STEPS_PER_PIECE, LatentScale

#: particles that each piece of a scale is to hold at least
FEWEST_IN_PIECE = 30
#: an axis along which images change by less than this share of themselves, from the first particle to the
#: last, stays as it is
LEAST_CHANGE = 1e-4
#: no step is drawn together to less than this share of what it was, so that there is a way back
LEAST_SLOPE = 0.1
#: viewing directions over which images are compared
DIRECTIONS = 6

#: latent points z_stage [n, D] and [n, D] to how far apart images of what is decoded there are, [n]
ImageDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _icosahedral_directions(count: int) -> np.ndarray:
    """Rotations [count, 6, 3, 3]: each six look along the axes of an icosahedron, turned at random. Averages
    over one are those over all directions to fourth order, and what that leaves out is another for each."""
    golden = (1 + np.sqrt(5)) / 2
    axes = np.array([(0, 1, golden), (0, 1, -golden), (1, golden, 0), (1, -golden, 0), (golden, 0, 1),
                     (-golden, 0, 1)])
    views: Any = np.stack([np.linalg.svd(axis[None])[2][[1, 2, 0]] for axis in axes])
    turned = views @ Rotation.random(count, random_state=0).as_matrix()[:, None]
    return turned.astype(np.float32)


def image_distance(model: HeterogeneityModel, batch_size: int = 16) -> ImageDistance:
    """How far apart images of what is decoded at two latent points are, over all viewing directions and up to
    the target resolution, as a share of the neutral model's: a function, z_stage [n, D] and [n, D] to [n]."""
    grid = model.likelihood.grid

    def seen(mixture: MixtureBatch, rotation: tf.Tensor) -> tf.Tensor:
        return project_mixture(mixture, Pose(rotation, tf.zeros([tf.shape(rotation)[0], 2])), grid)

    @tf.function(autograph=False, reduce_retracing=True)
    def squared_difference(a: tf.Tensor, b: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
        one, other = model.mixture(a), model.mixture(b)
        return sum(tf.reduce_sum((seen(other, views[:, k]) - seen(one, views[:, k])) ** 2, (1, 2, 3))
                   for k in range(DIRECTIONS))

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        arrays: list[Any] = [np.float32(v) for v in (a, b)] + [_icosahedral_directions(len(a))]
        squares: list[np.ndarray] = [squared_difference(*(tf.constant(v[i:i + batch_size])
                                                          for v in arrays)).numpy()
                   for i in range(0, len(a), batch_size)]
        return np.sqrt(np.concatenate(squares) / whole)
    neutral = MixtureBatch(model.neutral.centers, model.neutral.amplitudes, model.neutral.widths)
    whole = float(tf.reduce_sum(seen(neutral, tf.constant(_icosahedral_directions(1)[0])) ** 2))
    return distance


def uniform_scale(z: np.ndarray, distance: ImageDistance) -> LatentScale:
    """The scale on which images change alike along each axis.

    Parameters
    ----------
    z : [n, D], latent points as training has them; rows that are not finite do not count.
    distance : callable, see `image_distance`.
    """
    z = np.asarray(z, float)
    z = z[np.isfinite(z).all(1)]
    axes = [_scale_of_axis(z, axis, distance)
            for axis in progress(range(z.shape[1]), z.shape[1], "scale of z")]
    return LatentScale(*np.stack(axes, 1).astype(np.float32))


def _scale_of_axis(z: np.ndarray, axis: int, distance: ImageDistance) -> np.ndarray:
    """Scale of one axis [2, KNOTS]. Every piece is gone through from end to end, each step by another of the
    particles in it."""
    along, same = z[:, axis], np.tile(np.linspace(-1, 1, KNOTS), (2, 1))
    pieces = int(np.clip(len(z) // FEWEST_IN_PIECE, 1, PIECES))
    edges = np.quantile(along, np.linspace(0, 1, pieces + 1)) if len(z) else np.zeros(pieces + 1)
    if np.any(np.diff(edges) <= 1e-4 * along.std()):
        return same
    piece = np.clip(np.searchsorted(edges, along, "right") - 1, 0, pieces - 1)
    members = [np.flatnonzero(piece == number) for number in range(pieces)]
    walkers = np.concatenate([rows[np.linspace(0, len(rows) - 1, STEPS_PER_PIECE).astype(int)]
                              for rows in members])
    steps = pieces * STEPS_PER_PIECE
    ends = np.interp(np.arange(steps + 1) / STEPS_PER_PIECE, np.arange(pieces + 1), edges)
    low, high = z[walkers], z[walkers]
    low[:, axis], high[:, axis] = ends[:-1], ends[1:]
    walk, share = distance(low, high), np.histogram(along, ends)[0] / len(z)
    if walk.sum() < LEAST_CHANGE:
        return same
    slope = walk / np.diff(ends)
    slope = np.maximum(slope / (share @ slope), LEAST_SLOPE)
    walked = np.concatenate([[0], np.cumsum(slope / (share @ slope) * np.diff(ends))])
    at = np.linspace(0, steps, KNOTS)
    scale = np.stack([np.interp(at, np.arange(len(ends)), values) for values in (ends, walked)])
    scale[1] -= LatentScale(scale[:1], scale[1:]).rescale(np.zeros((1, 1)))[0, 0]
    return scale
