"""The neutral model: a mixture fitted to a map in three-dimensional Fourier space, coarse to fine.

The map and the mixture are compared in products of cosines and sines along z, y, x (an orthogonal mix of the Fourier coefficients of
the eight sign combinations), which makes a mixture's transform one matrix product of real numbers.
"""
import numpy as np
import tensorflow as tf

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.log import progress

#: resolutions of the stages, as multiples of the target, and the share of the steps each takes
STAGES = ((4.0, 0.2), (2.0, 0.3), (1.0, 0.5))
#: smallest amplitude at the start, over the mean
LEAST_SHARE = 0.02


class FitError(ValueError):
    """The fit cannot start or has failed; the message says why."""


def shell_table(box, m):
    """Shell index and multiplicity of the packed coefficients, both [2(m+1)]*3; multiplicity 0 at the origin and past shell m."""
    index = np.concatenate([np.arange(m + 1)] * 2)
    zero_sine = np.concatenate([np.zeros(m + 1, bool), np.arange(m + 1) == 0])
    k = np.meshgrid(index, index, index, indexing="ij")
    shell = np.round(np.sqrt(sum(a.astype(float) ** 2 for a in k))).astype(np.int32)
    count = 2.0 ** np.sum([(a > 0).astype(int) for a in k], axis=0)
    empty = zero_sine[:, None, None] | zero_sine[None, :, None] | zero_sine[None, None, :]
    count[empty | (shell > m) | (shell == 0)] = 0
    return np.minimum(shell, m + 1), count.astype(np.float32)


def pack_map(volume, m):
    """Products-of-waves coefficients [2(m+1)]*3 of a map [z, y, x] with its origin at voxel L//2."""
    box = volume.shape[0]
    angle = 2 * np.pi * np.outer(np.arange(m + 1), np.arange(box) - box // 2) / box
    waves = np.concatenate([np.cos(angle), np.sin(angle)]).astype(np.float32)
    packed = np.tensordot(waves, volume, (1, 0))
    packed = np.tensordot(waves, packed, (1, 1)).transpose(1, 0, 2)
    return np.tensordot(packed, waves, (2, 1))


def pack_mixture(centers, amplitudes, widths, box, pixel_size, m):
    """The same coefficients of a mixture, as `mixture.render` would sample it; differentiable.

    centers [N, 3] Å (x, y, z), amplitudes [N], widths [N] Å.
    """
    step = np.float32(1.0 / (box * pixel_size))
    k = tf.range(m + 1, dtype=tf.float32) * step
    damping = tf.exp(-2 * np.float32(np.pi) ** 2 * tf.square(widths[:, None] * k))
    waves = []
    for axis in (2, 1, 0):
        angle = 2 * np.float32(np.pi) * centers[:, axis, None] * k
        waves.append(tf.concat([tf.cos(angle) * damping, tf.sin(angle) * damping], 1))
    z, y, x = waves
    z = z * (amplitudes[:, None] / np.float32(pixel_size**2))
    sheet = tf.reshape(z[:, :, None] * y[:, None, :], [-1, 4 * (m + 1) ** 2])
    packed = tf.matmul(sheet, x, transpose_a=True)
    return tf.reshape(packed, [2 * (m + 1)] * 3)


def packed_fsc(a, b, shell, count, m):
    """FSC per shell 1..m of packed coefficients (standard definition)."""
    def sums(values):
        return np.bincount(shell.ravel(), (values * count).ravel(), m + 2)[1:m + 1]
    return sums(a * b) / np.sqrt(sums(a * a) * sums(b * b) + 1e-30)


def fit_mixture(volume, pixel_size, centers, resolution_angst, steps, inside=None, shares=None, labels=None):
    """Fit a mixture to a map.

    Minimises, averaged over shells up to the resolution, the squared difference over the map's power in the shell: every shell counts
    alike and amplitudes come out on the map's scale.

    Parameters
    ----------
    volume : float32 [L, L, L], density positive.
    centers : float32 [N, 3], where the Gaussians start, Å.
    resolution_angst : float, target.
    steps : int, ADAM steps in all.
    inside : callable or None, Mixture to bool [N]: Gaussians that end outside are dropped.
    shares : float32 [N] or None, amplitudes at the start over the mean; None starts all alike.
    labels : Labels or None, of the Gaussians.

    Returns
    -------
    Mixture, fsc [m] of shells 1..m.

    Raises
    ------
    FitError
        when the loss is not finite.
    """
    box = volume.shape[0]
    finest = _shells(box, pixel_size, resolution_angst)
    spacing = _spacing(centers)
    mass = float(volume[volume > 0].sum()) * pixel_size**2 / len(centers)
    logs = np.zeros(len(centers)) if shares is None else np.log(np.maximum(shares, LEAST_SHARE))
    variables = [tf.Variable(centers / spacing), tf.Variable(np.float32(logs)), tf.Variable(tf.zeros(len(centers)))]
    width_scale = 0.6 * spacing

    def mixture():
        return variables[0] * spacing, mass * tf.exp(variables[1]), width_scale * tf.exp(0.7 * tf.tanh(variables[2]))

    for factor, share in STAGES:
        m = max(3, int(round(finest / factor)))
        _descend(variables, mixture, volume, pixel_size, m, max(1, int(round(share * steps))), "fit to %.1f Å" % (box * pixel_size / m))
    found_centers, amplitudes, widths = (part.numpy() for part in mixture())
    found = Mixture(found_centers, amplitudes, widths, labels)
    if inside is not None:
        kept = inside(found)
        if not kept.any():
            raise FitError("all %d Gaussians lie outside the mask: do the mask and the map share box, pixel size and origin?" % len(found))
        found = found.select(kept)
    shell, count = shell_table(box, finest)
    centers, amplitudes, widths = (tf.constant(a) for a in (found.centers, found.amplitudes, found.widths))
    packed = pack_mixture(centers, amplitudes, widths, box, pixel_size, finest).numpy()
    return found, packed_fsc(packed, pack_map(volume, finest), shell, count, finest)


def _shells(box, pixel_size, resolution_angst):
    return int(min((box - 1) // 2, round(box * pixel_size / resolution_angst)))


def _spacing(centers):
    """Median distance of nearest neighbours, Å."""
    from scipy.spatial import cKDTree
    return max(float(np.median(cKDTree(centers).query(centers, 2)[0][:, 1])), 1e-3)


def _descend(variables, mixture, volume, pixel_size, m, steps, label):
    """ADAM on one resolution stage, with the learning rate falling along a cosine."""
    box = volume.shape[0]
    target = pack_map(volume, m)
    shell, count = shell_table(box, m)
    power = np.maximum(np.bincount(shell.ravel(), (target**2 * count).ravel(), m + 2), 1e-12)
    weight = tf.constant((count / power[shell] / m).astype(np.float32))
    target = tf.constant(target)
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(0.05, steps, alpha=0.05))
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            centers, amplitudes, widths = mixture()
            loss = tf.reduce_sum(weight * tf.square(pack_mixture(centers, amplitudes, widths, box, pixel_size, m) - target))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    for i in progress(range(steps), steps, label):
        loss = step()
        if i % 50 == 49 and not np.isfinite(loss.numpy()):
            raise FitError("the fit's loss is not finite after %d steps: does the map hold NaN or huge values?" % (i + 1))
