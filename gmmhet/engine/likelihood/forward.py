"""The forward model: from a posed mixture to residuals and the log-likelihood of images."""
import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.projection import place, project


def residuals(agreement, data, transfer, posed, mixture):
    """Whitened model minus data [B, K] of mixtures at poses (rotation, shift): minus half their squared sum is the log-likelihood."""
    centers, amplitudes, widths = mixture
    difference = transfer * project(place(centers, *posed), amplitudes, widths, agreement.grid) - data
    return tf.reshape(np.sqrt(agreement.grid.weight) * difference,
                      [tf.shape(data)[0], 2 * agreement.grid.shape[0] * agreement.grid.shape[1]])
