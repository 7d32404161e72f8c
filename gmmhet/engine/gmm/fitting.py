"""The neutral model: a mixture fitted to a map in three-dimensional Fourier space, coarse to fine.

The map and the mixture are compared in products of cosines and sines along z, y, x (an orthogonal mix of the
Fourier coefficients of the eight sign combinations), which makes a mixture's transform one matrix product of
real numbers.
"""
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf
from scipy.spatial import cKDTree

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.seeding import Seeds
from gmmhet.engine.log import progress

#: resolutions of the fit's rounds, as multiples of the target, and the share of the steps that each takes
COARSE_TO_FINE = ((4.0, 0.2), (2.0, 0.3), (1.0, 0.5))
#: smallest amplitude at the start, over the mean
LEAST_START_AMPLITUDE = 0.02
#: widths at the start over the distance of neighbours, and how far they may change: by the factor exp(±this)
START_WIDTH, WIDTH_RANGE = 0.6, 0.7
#: fewest shells that a round of the fit compares
FEWEST_SHELLS = 3
#: ADAM's learning rate at the start of a round, and its part that is left at the end
LEARNING_RATE, LAST_RATE = 0.05, 0.05


class FitError(ValueError):
    """The fit cannot start or has failed; the message says why."""


@dataclass(frozen=True)
class FitSettings:
    """How a mixture is fitted.

    Attributes
    ----------
    resolution_angst : float, target resolution.
    steps : int, ADAM steps in all.
    keeps : callable or None, a fitted Mixture to bool [N]: Gaussians that are kept.
    """

    resolution_angst: float
    steps: int
    keeps: Optional[Callable[[Mixture], np.ndarray]] = None


class FittedMixture(NamedTuple):
    """A mixture fitted to a map, and their FSC in shells 1 to m, float64 [m]."""

    mixture: Mixture
    fsc: np.ndarray

    @property
    def mean_fsc(self) -> float:
        """Mean over the shells."""
        return float(self.fsc.mean())


# ---------------------------------------------------------------- packed coefficients
def shell_table(box: int, m: int) -> Tuple[np.ndarray, np.ndarray]:
    """Shell index (int32) and multiplicity (float32) of the packed coefficients, both [2(m+1)]*3;
    multiplicity 0 at the origin and past shell m."""
    index = np.concatenate([np.arange(m + 1)] * 2)
    zero_sine = np.concatenate([np.zeros(m + 1, bool), np.arange(m + 1) == 0])
    k = np.meshgrid(index, index, index, indexing="ij")
    squared = k[0].astype(float) ** 2 + k[1].astype(float) ** 2 + k[2].astype(float) ** 2
    shell = np.round(np.sqrt(squared)).astype(np.int32)
    count = 2.0 ** np.sum([(a > 0).astype(int) for a in k], axis=0)
    empty = zero_sine[:, None, None] | zero_sine[None, :, None] | zero_sine[None, None, :]
    count[empty | (shell > m) | (shell == 0)] = 0
    return np.minimum(shell, m + 1), count.astype(np.float32)


def pack_map(volume: np.ndarray, m: int) -> np.ndarray:
    """Products-of-waves coefficients [2(m+1)]*3 of a map [z, y, x] with its origin at voxel L//2."""
    box = volume.shape[0]
    angle = 2 * np.pi * np.outer(np.arange(m + 1), np.arange(box) - box // 2) / box
    waves = np.concatenate([np.cos(angle), np.sin(angle)]).astype(np.float32)       # [2(m+1), L]
    packed = np.tensordot(waves, volume, (1, 0))
    packed = np.tensordot(waves, packed, (1, 1)).transpose(1, 0, 2)
    return np.tensordot(packed, waves, (2, 1))


def pack_mixture(centers: tf.Tensor, amplitudes: tf.Tensor, widths: tf.Tensor, box: int, pixel_size: float,
                 m: int) -> tf.Tensor:
    """The same coefficients of a mixture, as `mixture.render` would sample it; differentiable.

    Along each axis a Gaussian of width s at c has the coefficients ``cos, sin(2 pi c k) exp(-2 pi^2 s^2
    k^2)``.

    Parameters
    ----------
    centers : tensor [N, 3], x, y, z in Å.
    amplitudes : tensor [N].
    widths : tensor [N], Å.
    box, pixel_size : int, px; float, Å/px.
    m : int, last shell.

    Returns
    -------
    tensor [2(m+1)]*3.
    """
    step = np.float32(1.0 / (box * pixel_size))
    k = tf.range(m + 1, dtype=tf.float32) * step
    damping = tf.exp(-2 * np.float32(np.pi) ** 2 * tf.square(widths[:, None] * k))          # [N, m+1]
    waves = []
    for axis in (2, 1, 0):
        angle = 2 * np.float32(np.pi) * centers[:, axis, None] * k
        waves.append(tf.concat([tf.cos(angle) * damping, tf.sin(angle) * damping], 1))      # [N, 2(m+1)]
    z, y, x = waves
    z = z * (amplitudes[:, None] / np.float32(pixel_size**2))
    sheet = tf.reshape(z[:, :, None] * y[:, None, :], [-1, 4 * (m + 1) ** 2])
    packed = tf.matmul(sheet, x, transpose_a=True)
    return tf.reshape(packed, [2 * (m + 1)] * 3)


def packed_fsc(a: np.ndarray, b: np.ndarray, shell: np.ndarray, count: np.ndarray, m: int) -> np.ndarray:
    """FSC in shells 1 to m of packed coefficients, ``sum(a b) / sqrt(sum(a^2) sum(b^2))``: float64 [m]."""
    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell.ravel(), (values * count).ravel(), m + 2)[1:m + 1]
    return np.asarray(sums(a * b) / np.sqrt(sums(a * a) * sums(b * b) + 1e-30))


# ---------------------------------------------------------------- the fit
class _FreeMixture:
    """A mixture as free variables: centres over the distance of neighbours, log amplitudes over their mean at
    the start, and widths between bounds."""

    def __init__(self, seeds: Seeds, mean_amplitude: float):
        count = len(seeds.centers)
        self._spacing, self._mean_amplitude = _spacing(seeds.centers), mean_amplitude
        logs = np.zeros(count)
        if seeds.shares is not None:
            logs = np.log(np.maximum(seeds.shares, LEAST_START_AMPLITUDE))
        self.variables = [tf.Variable(seeds.centers / self._spacing), tf.Variable(np.float32(logs)),
                          tf.Variable(tf.zeros(count))]

    def tensors(self) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Centres [N, 3], amplitudes [N] and widths [N]."""
        centers, amplitudes, widths = self.variables
        return (centers * self._spacing, self._mean_amplitude * tf.exp(amplitudes),
                START_WIDTH * self._spacing * tf.exp(WIDTH_RANGE * tf.tanh(widths)))

    def mixture(self, labels: Optional[Labels]) -> Mixture:
        """The mixture as it is now."""
        centers, amplitudes, widths = (tensor.numpy() for tensor in self.tensors())
        return Mixture(centers, amplitudes, widths, labels)


def fit_mixture(volume: np.ndarray, pixel_size: float, seeds: Seeds, settings: FitSettings) -> FittedMixture:
    """Fit a mixture to a map.

    Minimises, averaged over shells up to the resolution, the squared difference over the map's power in the
    shell: every shell counts alike and amplitudes come out on the map's scale.

    Parameters
    ----------
    volume : float32 [L, L, L], density positive.
    pixel_size : float, Å/px.
    seeds : Seeds, where the Gaussians start.
    settings : FitSettings.

    Raises
    ------
    FitError
        when the loss is not finite, or none of the Gaussians is kept.
    """
    box = volume.shape[0]
    finest = _last_shell(box, pixel_size, settings.resolution_angst)
    free = _FreeMixture(seeds, float(volume[volume > 0].sum()) * pixel_size**2 / len(seeds.centers))
    for factor, share in COARSE_TO_FINE:
        m = max(FEWEST_SHELLS, int(round(finest / factor)))
        _descend(free, volume, pixel_size, m, max(1, int(round(share * settings.steps))))
    mixture = free.mixture(seeds.labels)
    if settings.keeps is not None:
        chosen = settings.keeps(mixture)
        if not chosen.any():
            raise FitError("all %d Gaussians lie outside the mask: do the mask and the map share box, pixel "
                           "size and origin?" % len(mixture))
        mixture = mixture.select(chosen)
    shell, count = shell_table(box, finest)
    arrays = mixture.centers, mixture.amplitudes, mixture.widths
    centers, amplitudes, widths = (tf.constant(array) for array in arrays)
    packed = pack_mixture(centers, amplitudes, widths, box, pixel_size, finest).numpy()
    return FittedMixture(mixture, packed_fsc(packed, pack_map(volume, finest), shell, count, finest))


def _last_shell(box: int, pixel_size: float, resolution_angst: float) -> int:
    return int(min((box - 1) // 2, round(box * pixel_size / resolution_angst)))


def _spacing(centers: np.ndarray) -> float:
    """Median distance of nearest neighbours, Å."""
    return max(float(np.median(cKDTree(centers).query(centers, 2)[0][:, 1])), 1e-3)


def _descend(free: _FreeMixture, volume: np.ndarray, pixel_size: float, m: int, steps: int) -> None:
    """ADAM on the shells up to m, with the learning rate falling along a cosine."""
    box = volume.shape[0]
    target = pack_map(volume, m)
    shell, count = shell_table(box, m)
    power = np.maximum(np.bincount(shell.ravel(), (target**2 * count).ravel(), m + 2), 1e-12)
    weight = tf.constant((count / power[shell] / m).astype(np.float32))
    coefficients = tf.constant(target)
    rate = tf.keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps, alpha=LAST_RATE)
    optimizer = tf.keras.optimizers.Adam(rate)
    optimizer.build(free.variables)

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            difference = pack_mixture(*free.tensors(), box, pixel_size, m) - coefficients
            loss = tf.reduce_sum(weight * tf.square(difference))
        optimizer.apply_gradients(zip(tape.gradient(loss, free.variables), free.variables))
        return loss

    compiled = tf.function(step, autograph=False)
    for i in progress(range(steps), steps, "fit to %.1f Å" % (box * pixel_size / m)):
        loss = compiled()
        if i % 50 == 49 and not np.isfinite(loss.numpy()):
            raise FitError("the fit's loss is not finite after %d steps: does the map hold NaN or huge "
                           "values?" % (
                i + 1))
