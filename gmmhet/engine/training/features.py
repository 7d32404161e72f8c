"""The encoder's input: each particle's gradient of the agreement at the neutral model, in the molecule's frame.

Gradients live in a memory map, never whole in memory; they are standardised per column with statistics of the particles trained on.
"""
import os

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.log import progress
from gmmhet.engine.training.batches import prefetched


def gradient_function(agreement, deformation):
    """A compiled function: images, rotation, shift, ctf to (gradient in network-output space [B, outputs], neutral agreement [B]).

    The gradient with respect to the decoder's outputs at 0 is the per-Gaussian gradient carried through the deformation's chain rule,
    so it is already summed over neighbours that move together, and restricted to the columns and region that may vary.
    """
    @tf.function(reduce_retracing=True, autograph=False)
    def gradients(images, rotation, shift, ctf):
        data, transfer = agreement.observe(images, ctf)
        u = tf.zeros([tf.shape(images)[0], deformation.outputs])
        with tf.GradientTape() as tape:
            tape.watch(u)
            centers, amplitudes, widths = deformation.apply(u)
            value = agreement.value(data, transfer * project(place(centers, rotation, shift), amplitudes, widths, agreement.grid))
        return tape.gradient(value, u), value
    return gradients


def compute_features(path, items, agreement, deformation, batch_size=64):
    """Write the gradients of all items to `path` (.npy, float32 [n_items, outputs]); an existing complete file is kept.

    Returns
    -------
    features (read-only memory map), neutral agreement [n_items].
    """
    values_path = path[:-4] + "_neutral.npy"
    if os.path.exists(values_path):
        return np.load(path, mmap_mode="r"), np.load(values_path)
    features = np.lib.format.open_memmap(path, "w+", np.float32, (len(items), deformation.outputs))
    values = np.empty(len(items), np.float32)
    gradients = gradient_function(agreement, deformation)
    batches = prefetched(items, np.arange(len(items)), batch_size)
    for chosen, batch in progress(batches, -(-len(items) // batch_size), "gradients"):
        gradient, value = gradients(*batch)
        features[chosen], values[chosen] = gradient.numpy(), value.numpy()
    features.flush()
    np.save(values_path + ".tmp.npy", values)
    os.replace(values_path + ".tmp.npy", values_path)
    return np.load(path, mmap_mode="r"), values


def column_statistics(features, rows, chunk=4096):
    """Mean and standard deviation [F] of the features of the given rows, streamed; a constant column gets deviation 1."""
    rows = np.sort(rows)
    total, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for i in range(0, len(rows), chunk):
        part = np.asarray(features[rows[i:i + chunk]], np.float64)
        total, square = total + part.sum(0), square + (part**2).sum(0)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(square / len(rows) - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-12, deviation, 1.0).astype(np.float32)
