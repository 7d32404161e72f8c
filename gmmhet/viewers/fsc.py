"""FSC curves: reading fsc.csv and drawing it over resolution."""
import csv
import os

import numpy as np

from gmmhet.viewers.drawing import FAINT, NothingToShow, colour, plain

NAMES = {"fsc": "Gaussian model and map", "fsc_masked": "half maps, masked", "fsc_unmasked": "half maps, unmasked"}


def read_fsc(path):
    """Columns of an fsc.csv.

    Returns
    -------
    frequency : [S], 1/Å.
    curves : dict of column name to [S].

    Raises
    ------
    NothingToShow
        when the file is not there.
    """
    if not os.path.exists(path):
        raise NothingToShow("There is no FSC yet (%s): it is written when the run has finished." % path)
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    table = np.array(rows, float).reshape(len(rows), len(header))
    return 1.0 / table[:, 0], {name: table[:, i] for i, name in enumerate(header) if i}


def crossing(frequency, curve, threshold):
    """Resolution (Å) of the first shell below `threshold`, interpolated; None when the curve stays above it or begins below it."""
    below = np.flatnonzero(np.asarray(curve) < threshold)
    if not len(below) or below[0] == 0:
        return None
    i = below[0]
    share = (curve[i - 1] - threshold) / (curve[i - 1] - curve[i])
    return float(1.0 / (frequency[i - 1] + share * (frequency[i] - frequency[i - 1])))


def draw_fsc(axes, curves, threshold, target=None):
    """Curves over spatial frequency, with the resolution of each in the legend.

    Parameters
    ----------
    axes : matplotlib Axes
    curves : list of (label, frequency [S], fsc [S]).
    threshold : float, drawn as a line.
    target : float or None, resolution (Å) drawn as a vertical line.
    """
    for number, (label, frequency, curve) in enumerate(curves, 1):
        at = crossing(frequency, curve, threshold)
        axes.plot(frequency, curve, color=colour(number), linewidth=1.8, label=label + (": %.1f Å" % at if at else ""))
    axes.axhline(threshold, color=FAINT, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.annotate("%g" % threshold, (1, threshold), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points",
                  fontsize=8, color=FAINT, ha="right")
    if target:
        axes.axvline(1 / target, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("target %.3g Å" % target, (1 / target, 0.02), xycoords=("data", "axes fraction"), xytext=(4, 0),
                      textcoords="offset points", fontsize=8, color=FAINT)
    plain(axes, "Fourier shell correlation", "Resolution (Å)", "FSC")
    axes.set(xlim=(0, max(float(frequency[-1]) for _, frequency, _ in curves)),
             ylim=(min(-0.1, min(float(np.min(curve)) for _, _, curve in curves)), 1.03))
    ticks = axes.get_xticks()
    ticks = ticks[(ticks > 0) & (ticks <= axes.get_xlim()[1])]
    axes.set_xticks(ticks)
    axes.set_xticklabels(["%.3g" % (1 / tick) for tick in ticks])
    axes.legend(frameon=False, fontsize=9, loc="lower left" if len(curves) < 5 else "upper right")
