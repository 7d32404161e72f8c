"""Changes of orientations and shifts by the refinement."""
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gmmhet.engine.palette import BLUE, FAINT, RED, VALUES
from gmmhet.viewers.drawing import plain


def draw_pose_changes(figure: Figure, angle_deg: np.ndarray, shift_angst: np.ndarray,
                      gain: np.ndarray) -> None:
    """Histograms of angle and shift changes, and the gain against the angle.

    Parameters
    ----------
    figure : matplotlib Figure
    angle_deg, shift_angst : [n], change of each particle's orientation and shift.
    gain : [n], rise of its agreement, nats.
    """
    first, second, third = figure.subplots(1, 3)
    for axes, values, unit, title in ((first, angle_deg, "°", "Orientation"),
                                      (second, shift_angst, "Å", "Shift")):
        top = max(float(np.quantile(values, 0.999)), 1e-6)
        bins = np.linspace(0, top, int(np.clip(2 * np.sqrt(len(values)), 10, 60)))
        axes.hist(values, bins=bins, color=BLUE, alpha=0.8)
        median = float(np.median(values))
        axes.axvline(median, color=RED, linewidth=1.4)
        axes.annotate("median %.2f %s" % (median, unit), (median, 0.97), xycoords=("data", "axes fraction"),
                      xytext=(5, 0), textcoords="offset points", fontsize=9, color=RED, va="top")
        plain(axes, "%s, change" % title, "Change (%s)" % unit, "Particles")
    top = max(float(np.quantile(angle_deg, 0.999)), 1e-6)
    low, high = np.quantile(gain, [0.001, 0.999])
    third.hexbin(angle_deg, gain, gridsize=45, mincnt=1, cmap=VALUES, norm=LogNorm(), linewidths=0,
                 extent=(0, top, low, high if high > low else low + 1))
    third.axhline(0, color=FAINT, linewidth=1, linestyle="--")
    plain(third, "Agreement", "Change of orientation (°)", "Gain over the given pose (nats)")
