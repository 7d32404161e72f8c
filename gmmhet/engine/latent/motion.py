"""What a step in latent space does to the molecule: decoded models, displacements, and ChimeraX arrows."""
from typing import List, NamedTuple

import numpy as np

from gmmhet.engine.gmm.mixture import Mixture, MixtureDecoder, Path

#: displacements shorter than this part of the longest, or than this many Å, are not drawn
LEAST_ARROW, LEAST_ARROW_ANGST = 0.1, 1e-3
#: radii of an arrow's shaft and head, and the shaft's part of its length
SHAFT_ANGST, HEAD_ANGST, SHAFT_FRACTION = 0.5, 1.0, 0.75
#: red, green, blue of the shortest and the longest arrow
SHORT_COLOUR, LONG_COLOUR = np.array([0.25, 0.45, 0.85]), np.array([0.85, 0.15, 0.10])

#: most latent points at which motion is measured
MOST_MOTION_POINTS = 2000
#: most Gaussians whose displacements are compared
MOST_FIELD_GAUSSIANS = 1000


def decode_mixtures(model: MixtureDecoder, z: np.ndarray) -> List[Mixture]:
    """The Gaussian models at latent points [B, D], with the chains of the neutral one: B mixtures."""
    centers, amplitudes, widths = model.decode(np.asarray(z, np.float32))
    labels = model.neutral.labels
    return [Mixture(np.asarray(c), np.asarray(a), np.asarray(w), labels)
            for c, a, w in zip(centers, amplitudes, widths)]


def rms_displacement(start: Mixture, end: Mixture) -> float:
    """Root mean square distance (Å) between the centres of two mixtures of N Gaussians, all counted alike."""
    return float(np.sqrt(np.mean(np.sum((np.asarray(end.centers, float) - start.centers) ** 2, axis=1))))


def relative_amplitude_change(start: Mixture, end: Mixture) -> float:
    """Root mean square change of the amplitudes over their root mean square at `start`."""
    scale = np.sqrt(np.mean(np.square(start.amplitudes, dtype=float)))
    change = np.sqrt(np.mean(np.square(np.asarray(end.amplitudes, float) - start.amplitudes)))
    return float(change / scale) if scale > 0 else 0.0


def write_bild(path: Path, start: np.ndarray, end: np.ndarray, title: str = "") -> int:
    """Arrows from one set of centres to another, for ChimeraX.

    Displacements below a tenth of the longest are left out. The colour goes from blue (shortest) to red
    (longest). Coordinates are Å from the box centre, as in the mmCIF files; a map drawn with them needs its
    origin moved there.

    Parameters
    ----------
    path : str.
    start, end : [N, 3], Å.
    title : str.

    Returns
    -------
    int, how many arrows were drawn.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = np.linalg.norm(end - start, axis=1)
    longest = float(length.max(initial=0.0))
    drawn = np.flatnonzero((length >= LEAST_ARROW * longest) & (length > LEAST_ARROW_ANGST))
    with open(path, "w", encoding="utf-8") as f:
        f.write(".comment %s\n.comment %d of %d Gaussians; longest displacement %.2f angstrom\n" % (
            title, len(drawn), len(length), longest))
        for row in drawn:
            colour = SHORT_COLOUR + (LONG_COLOUR - SHORT_COLOUR) * length[row] / longest
            f.write(".color %.3f %.3f %.3f\n" % tuple(colour))
            f.write(".arrow %.3f %.3f %.3f %.3f %.3f %.3f %.2f %.2f %.2f\n" % (
                *start[row], *end[row], SHAFT_ANGST, HEAD_ANGST, SHAFT_FRACTION))
    return len(drawn)


def evenly_spaced_rows(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


class MotionRms(NamedTuple):
    """How far decoded models lie apart: of centres in Å, of amplitudes relative to their root mean square."""

    motion_angst: float
    amplitude: float


def motion_rms(model: MixtureDecoder, z: np.ndarray, batch_size: int = 100) -> MotionRms:
    """How far the particles' models lie from their mean: rms over the Gaussians that may vary and a sample of
    latent points [n, D].

    ``sqrt( mean_i |c_i(z) - mean_z c_i|^2 )``: from their mean and not from the neutral model, because a
    shift that all particles share is no heterogeneity.
    """
    sample = np.asarray(z, np.float32)[evenly_spaced_rows(len(z), MOST_MOTION_POINTS)]
    sums, squares = [0.0, 0.0], [0.0, 0.0]      # of centres [N, 3], of amplitudes [N]
    for i in range(0, len(sample), batch_size):
        for k, values in enumerate(model.decode(sample[i:i + batch_size])[:2]):
            values = np.asarray(values, float)[:, model.free]
            sums[k], squares[k] = sums[k] + values.sum(0), squares[k] + (values**2).sum(0)
    n = len(sample)
    motion, change = (np.maximum(square / n - (total / n) ** 2, 0) for total, square in zip(sums, squares))
    scale = np.mean(squares[1]) / n
    amplitude = float(np.sqrt(np.mean(change) / scale)) if scale > 0 else 0.0
    return MotionRms(float(np.sqrt(np.mean(motion.sum(-1)))), amplitude)


def displacement_field(model: MixtureDecoder, z: np.ndarray, moves: bool,
                       batch_size: int = 100) -> np.ndarray:
    """What is decoded of a sample of the Gaussians that may vary, float32 [n, K]: their positions (Å) where
    something `moves`, else amplitudes."""
    free = np.flatnonzero(model.free)
    free = free[evenly_spaced_rows(len(free), MOST_FIELD_GAUSSIANS)]
    batches = [z[i:i + batch_size] for i in range(0, len(z), batch_size)]
    values = [np.asarray(model.decode(batch)[0 if moves else 1])[:, free] for batch in batches]
    return np.asarray(np.concatenate(values).reshape(len(z), -1), np.float32)
