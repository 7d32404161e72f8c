"""What a step in latent space does to the molecule: decoded models, displacements, and ChimeraX arrows."""
import numpy as np

from gmmhet.engine.gmm.mixture import Mixture

SMALLEST_ARROW = 0.1    # of the longest displacement; shorter ones are not drawn
SHAFT_ANGST, HEAD_ANGST, SHAFT_FRACTION = 0.5, 1.0, 0.75
SHORT_COLOUR, LONG_COLOUR = np.array([0.25, 0.45, 0.85]), np.array([0.85, 0.15, 0.10])

#: most latent points at which motion is measured
MOST_POINTS = 2000
#: most Gaussians whose displacements are compared
MOST_GAUSSIANS = 1000


def decoded(model, z):
    """The Gaussian models at latent points.

    Parameters
    ----------
    model : TrainedModel
    z : [B, D]

    Returns
    -------
    list of B Mixture
    """
    centers, amplitudes, widths = model.decode(np.asarray(z, np.float32))
    return [Mixture(np.asarray(c), np.asarray(a), np.asarray(w), model.neutral.labels) for c, a, w in zip(centers, amplitudes, widths)]


def rms_motion(start, end):
    """Root mean square distance (Å) between the centres of two mixtures of N Gaussians, all counted alike."""
    return float(np.sqrt(np.mean(np.sum((np.asarray(end.centers, float) - start.centers) ** 2, axis=1))))


def relative_amplitude_change(start, end):
    """Root mean square change of the amplitudes over their root mean square at `start`."""
    scale = np.sqrt(np.mean(np.square(start.amplitudes, dtype=float)))
    change = np.sqrt(np.mean(np.square(np.asarray(end.amplitudes, float) - start.amplitudes)))
    return float(change / scale) if scale > 0 else 0.0


def write_bild(path, start, end, title=""):
    """Arrows from one set of centres to another, for ChimeraX.

    Displacements below a tenth of the longest are left out. The colour goes from blue (shortest) to red (longest). Coordinates are
    Å from the box centre, as in the mmCIF files; a map drawn with them needs its origin moved there.

    Parameters
    ----------
    path : str
    start, end : [N, 3], Å.
    title : str

    Returns
    -------
    arrows : int, how many were drawn.
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = np.linalg.norm(end - start, axis=1)
    longest = float(length.max(initial=0.0))
    shown = np.flatnonzero((length >= SMALLEST_ARROW * longest) & (length > 1e-3))
    with open(path, "w", encoding="utf-8") as f:
        f.write(".comment %s\n.comment %d of %d Gaussians; longest displacement %.2f angstrom\n" % (
            title, len(shown), len(length), longest))
        for row in shown:
            colour = SHORT_COLOUR + (LONG_COLOUR - SHORT_COLOUR) * length[row] / longest
            f.write(".color %.3f %.3f %.3f\n" % tuple(colour))
            f.write(".arrow %.3f %.3f %.3f %.3f %.3f %.3f %.2f %.2f %.2f\n" % (
                *start[row], *end[row], SHAFT_ANGST, HEAD_ANGST, SHAFT_FRACTION))
    return len(shown)


def evenly(count, most):
    """At most `most` of `count` rows, evenly spaced."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def spread_motion(model, z, batch_size=100):
    """How far the particles' models lie from their mean: of the Gaussians that may vary, over a sample of latent points.

    From their mean and not from the neutral model, because a shift that all particles share is no heterogeneity.

    Parameters
    ----------
    model : HeterogeneityModel.
    z : [n, D]

    Returns
    -------
    motion_rms_angst : float.
    amplitude_rms : float, relative to the root mean square amplitude.
    """
    chosen = np.asarray(z, np.float32)[evenly(len(z), MOST_POINTS)]
    total, square = [0.0, 0.0], [0.0, 0.0]
    for i in range(0, len(chosen), batch_size):
        decoded = model.decode(chosen[i:i + batch_size])[:2]
        for k, part in enumerate(decoded):
            part = np.asarray(part, float)[:, model.free]
            total[k], square[k] = total[k] + part.sum(0), square[k] + (part**2).sum(0)
    moved, changed = (np.maximum(s / len(chosen) - (t / len(chosen)) ** 2, 0) for t, s in zip(total, square))
    scale = np.mean(square[1]) / len(chosen)
    return float(np.sqrt(np.mean(moved.sum(-1)))), float(np.sqrt(np.mean(changed) / scale)) if scale > 0 else 0.0


def field(model, z, moves, batch_size=100):
    """What is decoded of a sample of the Gaussians that may vary, [n, K]: their positions (Å) where something `moves`, else amplitudes."""
    free = np.flatnonzero(model.free)
    free = free[evenly(len(free), MOST_GAUSSIANS)]
    found = [np.asarray(model.decode(z[i:i + batch_size])[0 if moves else 1])[:, free] for i in range(0, len(z), batch_size)]
    return np.concatenate(found).reshape(len(z), -1).astype(np.float32)
