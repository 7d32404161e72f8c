"""The encoder's input: each particle's gradient of the agreement at the neutral model, in the molecule's frame.

Where training goes finer than FIRST_ANGST, the gradient of the agreement up to there stands beside it: to first order, a motion that goes
further than the resolution looks like fading.

In a further stage of training the gradient is taken at the conformation that the earlier stages gave the particle, and the latent point of
that conformation stands beside it. Gradients live in a file, never whole in memory; they are standardised per column with statistics of the
particles trained on.
"""
import os

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import by_item, check_strength, prefetched
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.inference.pose_errors import pose_function
from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.io.row_file import Rows
from gmmhet.engine.log import progress

#: rows of a file that are compared, to tell what it was made of
ASKED = 1000


def gradient_function(agreement, model, posed=False):
    """A function: images, rotation, shift, ctf, given to features [B, copies, gradients + given_dim], agreement before this stage [B], and
    only where it is asked to (`posed`) its slope [B, 5] and curvature [B, 5, 5] by a change of pose (see `pose_errors`).

    `given` [B, copies, given_dim] are latent points of the earlier stages. The gradient with respect to the decoder's outputs at 0 is the
    per-Gaussian gradient carried through the deformation's chain rule, so it is already summed over neighbours that move together, and
    restricted to the columns and region that may vary. It is the same whether poses turn out to be exact or not: the
    motion of the whole stays in it.
    """
    by_pose, looks = pose_function(agreement), [agreement, agreement.coarse][:model.looks]

    def gradients(images, rotation, shift, ctf, given):
        seen = [look.observe(images, ctf) for look in looks]
        u = tf.zeros([tf.shape(given)[0] * model.copies, model.deformation.outputs])
        start = model.start(by_item(given))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(u)
            mixture = centers, amplitudes, widths = model.assembled(model.deformation.apply(u, start, at_rest=False))
            placed = place(centers, rotation, shift)
            values = [look.value(data, transfer * project(placed, amplitudes, widths, look.grid))
                      for look, (data, transfer) in zip(looks, seen)]
        by_output = [tf.reshape(tape.gradient(value, u), [-1, model.copies, model.deformation.outputs]) for value in values]
        pose = by_pose(*seen[0], rotation, shift, mixture) if posed else ()
        return tf.concat([*by_output, given], 2), values[0], *pose
    return gradients


def compute_features(path, items, given, agreement, model, devices, batch_size=64):
    """Write the features of all items to `path` (.npy, float32 [n_items, gradients + given_dim]); an existing complete file is kept.

    All devices compute, the chief writes, and the others read its files when it has finished.

    Parameters
    ----------
    given : float32 [n_items, given_dim], latent points of the earlier stages.

    Returns
    -------
    features (Rows), agreement before this stage [n] of every particle (of the neutral model in a first one), its slope [n, 5] and curvature
    [n, 5, 5] by a change of pose ([n, 0] where poses are taken as exact).
    """
    values_path = _values(path)
    if not devices.ask(devices.is_chief and os.path.exists(values_path))[0]:
        gradients = devices.compiled(gradient_function(agreement, model, bool(model.settings.get("at_rest"))))
        count = len(items.particles)
        batches = prefetched(items, np.arange(count), batch_size, given, devices.own)
        results = (gradients(len(chosen), *batch) for chosen, batch in progress(batches, -(-count // batch_size), "gradients"))
        if devices.is_chief:
            _write_features(path, values_path, results, (len(items), model.gradients + model.given_dim), items.particles.ids)
        else:
            for _ in results:
                pass
        devices.ask(0)
    with np.load(values_path) as data:
        return (Rows(path), *(data[name] for name in ("agreement", "slope", "curvature")))


def _values(path):
    """What is known of each particle beside its features in `path`."""
    return path[:-4] + "_neutral.npz"


def ids_of(path):
    """Ids of the particles whose features are in a file; None without one, or where a version made it that did not write them."""
    if not os.path.exists(_values(path)):
        return None
    with np.load(_values(path)) as data:
        return data.get("ids")


def _write_features(path, values_path, results, shape, ids):
    """Stream gradients into `path`; the neutral agreements, written last, say that it is complete."""
    kept: list[tuple] = []
    with rundir.whole_file(path) as file:
        np.lib.format.write_array_header_1_0(file, dict(descr="<f4", fortran_order=False, shape=shape))
        for gradient, *values in results:
            file.write(gradient.numpy().tobytes())
            strength = np.sqrt(np.square(gradient, dtype=float).sum((1, 2)))
            kept.append((strength, *(value.numpy() for value in values)))
        strength, agreement, *pose = (np.concatenate(part) for part in zip(*kept))
        check_strength(ids, strength)
        slope, curvature = pose or 2 * [np.zeros((len(agreement), 0), np.float32)]
    write_arrays(values_path, agreement=agreement, slope=slope, curvature=curvature, ids=ids)


def holds_others(path, given):
    """Whether a file of features was made at other latent points of the earlier stages than `given` [n_items, given_dim]; False without
    a file."""
    if not given.shape[1] or not os.path.exists(path):
        return False
    asked = np.unique(np.linspace(0, len(given) - 1, ASKED).astype(int))
    return not np.array_equal(Rows(path)[asked][:, -given.shape[1]:], given[asked])


def column_statistics(features, rows, chunk=1024):
    """Mean and standard deviation [F] of the features of the given rows, streamed; a constant column gets deviation 1."""
    rows = np.sort(rows)
    total, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for i in range(0, len(rows), chunk):
        part = features[rows[i:i + chunk]].astype(np.float64)
        total, square = total + part.sum(0), square + (part**2).sum(0)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(square / len(rows) - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-12, deviation, 1.0).astype(np.float32)
