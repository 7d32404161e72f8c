"""The encoder's input: each view's gradient of the agreement at the neutral model, in the molecule's frame.

Where training goes finer than COARSE_ANGST, the gradient of the agreement up to there stands beside it: to
first order, a motion that goes further than the resolution looks like fading.

In a further stage of training the gradient is taken at the conformation that the earlier stages gave the
particle, and the latent point of that conformation stands beside it. Gradients live in a file, never whole in
memory; they are standardised per column with statistics of the particles trained on.
"""
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import (
    BatchFunction,
    ParticleBatch,
    Views,
    by_view,
    check_strength,
    prefetched,
)
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.io.arrays import write_arrays
from gmmhet.engine.io.row_file import RowFile
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.likelihood.forward import ImageModel
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.log import progress
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel

#: rows of a file that are compared, to tell what it was made of
ROWS_COMPARED = 1000
BATCH_SIZE = 64


class GradientTerms(NamedTuple):
    """Of B particles before a stage: features [B, copies, F], agreement [B], and slope [B, 5] and curvature
    [B, 5, 5] of the log-likelihood by a change of pose ([B, 0] where they are not asked for)."""

    features: Any
    agreement: Any
    slope: Any
    curvature: Any


class Gradients:
    """A function of a batch (z: latent points of the earlier stages) that gives its `GradientTerms`.

    The gradient with respect to the decoder's outputs at 0 is the per-Gaussian gradient carried through the
    deformation's chain rule, so it is already summed over neighbours that move together, and restricted to
    the parameters and the region that may vary. It is the same whether poses turn out to be exact or not: the
    motion of the whole stays in it.

    Parameters
    ----------
    model : HeterogeneityModel.
    agreement : Agreement.
    with_pose : whether derivatives by a change of pose are given too.
    """

    def __init__(self, model: HeterogeneityModel, agreement: Agreement, with_pose: bool = False) -> None:
        self._model, self._with_pose = model, with_pose
        self._levels = [ImageModel(level)
                        for level in (agreement, agreement.coarse)[:model.resolution_levels]]

    def __call__(self, batch: ParticleBatch) -> GradientTerms:
        model = self._model
        observed = [level.observe(batch) for level in self._levels]
        outputs = tf.zeros([tf.shape(batch.z)[0] * model.copies, model.deformation.n_outputs])
        start = model.starting_mixture(by_view(batch.z))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(outputs)
            mixture = model.symmetry.assemble(model.deformation.apply(outputs, start))
            values = [level.log_likelihood(mixture, images) for level, images in zip(self._levels, observed)]
        shape = [-1, model.copies, model.deformation.n_outputs]
        by_output = [tf.reshape(tape.gradient(value, outputs), shape) for value in values]
        pose = Quadratic(*2 * [tf.zeros([tf.shape(batch.images)[0], 0])])
        if self._with_pose:
            pose = self._levels[0].pose_derivatives(mixture, observed[0])
        return GradientTerms(tf.concat([*by_output, batch.z], 2), values[0], *pose)


class EncoderInput(NamedTuple):
    """What is known of the particles before a stage.

    Attributes
    ----------
    features : RowFile [n_views, F].
    agreement : [n], of the neutral model, or of what the earlier stages found.
    pose : Quadratic, derivatives of that by a change of pose ([n, 0] where poses are taken as exact).
    """

    features: Any
    agreement: np.ndarray
    pose: Quadratic


def compute_gradients(path: str, views: Views, z_earlier: np.ndarray, gradients: BatchFunction,
                      devices: Devices) -> EncoderInput:
    """Write the features of all views to `path` (.npy, float32 [n_views, F]); an existing complete file is
    kept.

    All devices compute, the chief writes, and the others read its files when it has finished.

    Parameters
    ----------
    z_earlier : float32 [n_views, n_earlier], latent points of the earlier stages.
    gradients : BatchFunction of `Gradients`.
    """
    values_path = _values(path)
    if not devices.ask(devices.is_chief and os.path.exists(values_path))[0]:
        count = len(views.particles)
        batches = prefetched(views, np.arange(count), BATCH_SIZE, devices, z=z_earlier)
        results = (gradients(len(rows), batch)
                   for rows, batch in progress(batches, -(-count // BATCH_SIZE), "gradients"))
        if devices.is_chief:
            _write_features(path, results, len(views), views.particles.ids)
        else:
            for _ in results:
                pass
        devices.ask(0)
    with np.load(values_path) as data:
        return EncoderInput(RowFile(path), data["agreement"], Quadratic(data["slope"], data["curvature"]))


def _values(path: str) -> str:
    """What is known of each particle beside its features in `path`."""
    return path[:-4] + "_neutral.npz"


def ids_of(path: str) -> "np.ndarray | None":
    """Ids of the particles whose features are in a file; None without one, or where a version made it that
    did not write them."""
    if not os.path.exists(_values(path)):
        return None
    with np.load(_values(path)) as data:
        return data.get("ids")


def _write_features(path: str, results: Iterable[GradientTerms], n_views: int, ids: np.ndarray) -> None:
    """Stream gradients into `path`; the other values, written last, say that it is complete."""
    strengths: list[np.ndarray] = []
    values: list[tuple[np.ndarray, ...]] = []
    with rundir.whole_file(path) as file:
        for terms in results:
            if not values:
                shape = (n_views, terms.features.shape[2])
                np.lib.format.write_array_header_1_0(file,
                                                     dict(descr="<f4", fortran_order=False, shape=shape))
            file.write(terms.features.tobytes())
            strengths.append(np.sqrt(np.square(terms.features, dtype=float).sum((1, 2))))
            values.append(terms[1:])
        check_strength(ids, np.concatenate(strengths))
    agreement, slope, curvature = (np.concatenate(parts) for parts in zip(*values))
    write_arrays(_values(path), agreement=agreement, slope=slope, curvature=curvature, ids=ids)


def holds_others(path: str, z_earlier: np.ndarray) -> bool:
    """Whether a file of features was made at other latent points of the earlier stages than these [n_views,
    n_earlier]; False without a file."""
    if not z_earlier.shape[1] or not os.path.exists(path):
        return False
    rows = np.unique(np.linspace(0, len(z_earlier) - 1, ROWS_COMPARED).astype(int))
    return not np.array_equal(RowFile(path)[rows][:, -z_earlier.shape[1]:], z_earlier[rows])


def column_statistics(features: Any, rows: np.ndarray, chunk: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [F] of the features of the given rows, streamed; a constant column gets
    deviation 1."""
    rows = np.sort(rows)
    total, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for i in range(0, len(rows), chunk):
        values = features[rows[i:i + chunk]].astype(np.float64)
        total, square = total + values.sum(0), square + (values**2).sum(0)
    mean = total / len(rows)
    deviation = np.sqrt(np.maximum(square / len(rows) - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-12, deviation, 1.0).astype(np.float32)
