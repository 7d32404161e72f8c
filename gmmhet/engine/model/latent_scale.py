"""Scales of latent axes: piecewise linear maps between the scale that was trained and the one that is used."""
import numpy as np
import tensorflow as tf

#: parts of a scale, how many particles' points each is to hold at least, and steps in which it is gone through
PARTS, POINTS, STEPS = 24, 30, 6
#: places that a scale is given by
PLACES = PARTS * STEPS + 1


def _pieces(x, source, target):
    """Of the pieces of the scales in which x [n, D] lies: their beginnings and those of the same on `target`, and the slope there."""
    piece = np.stack([np.clip(np.searchsorted(s, v, "right") - 1, 0, len(s) - 2) for v, s in zip(x.T, source)])
    (low, high), (to_low, to_high) = ([np.take_along_axis(scale, piece + step, 1).T for step in (0, 1)] for scale in (source, target))
    return low, to_low, (to_high - to_low) / (high - low)


def read(x, source, target):
    """x [n, D] on the scales `source` [D, K] to the scales `target` [D, K], linear between their places and beyond."""
    low, to_low, slope = _pieces(x, source, target)
    return to_low + (x - low) * slope


def spread(x, covariance, source, target):
    """Covariance [n, D, D] about x [n, D] on the scales `source`, on the scales `target`, by their slopes at x."""
    slope = _pieces(x, source, target)[2].astype(np.float32)
    return covariance * slope[:, :, None] * slope[:, None, :]


def read_in_graph(x, source, target):
    """As `read`, in TensorFlow."""
    piece = tf.clip_by_value(tf.reduce_sum(tf.cast(x[:, :, None] >= source, tf.int32), 2) - 1, 0, source.shape[1] - 2)

    def at(scale, step):
        return tf.transpose(tf.gather(scale, tf.transpose(piece) + step, batch_dims=1))
    low, to_low = at(source, 0), at(target, 0)
    return to_low + (x - low) * (at(target, 1) - to_low) / (at(source, 1) - low)
