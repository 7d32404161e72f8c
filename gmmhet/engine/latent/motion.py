"""What a step in latent space does to the molecule: decoded models, displacements, and ChimeraX arrows."""
import numpy as np

from gmmhet.engine.gmm.mixture import Mixture

SMALLEST_ARROW = 0.1    # of the longest displacement; shorter ones are not drawn
SHAFT_ANGST, HEAD_ANGST, SHAFT_FRACTION = 0.5, 1.0, 0.75
SHORT_COLOUR, LONG_COLOUR = np.array([0.25, 0.45, 0.85]), np.array([0.85, 0.15, 0.10])


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
