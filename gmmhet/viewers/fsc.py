"""FSC curves drawn over resolution."""
import os
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from matplotlib.axes import Axes

from gmmhet.engine.palette import FAINT, class_colour
from gmmhet.engine.resolution import crossing, read_fsc_csv
from gmmhet.viewers.drawing import NothingToShow, plain

#: names of the columns of fsc.csv in the legend
NAMES = {"fsc": "Gaussian model and map", "fsc_masked": "half maps, masked",
         "fsc_unmasked": "half maps, unmasked"}


class FscCurve(NamedTuple):
    """An FSC [S] over spatial frequency [S] (1/Å), with its name in the legend."""

    label: str
    frequency: np.ndarray
    fsc: np.ndarray


def read_fsc(path: str) -> Tuple[np.ndarray, Dict[str, np.ndarray]]:
    """Columns of an fsc.csv.

    Returns
    -------
    frequency : [S], 1/Å.
    curves : dict of column name to [S].

    Raises
    ------
    NothingToShow
        when the file does not exist.
    """
    if not os.path.exists(path):
        raise NothingToShow("There is no FSC yet (%s): it is written when the run has finished." % path)
    return read_fsc_csv(path)


def draw_fsc(axes: Axes, curves: List[FscCurve], threshold: float,
             target_angst: Optional[float] = None) -> None:
    """Curves over spatial frequency, with the resolution of each in the legend.

    Parameters
    ----------
    axes : matplotlib Axes
    curves : at least one.
    threshold : float, drawn as a line.
    target_angst : float or None, resolution drawn as a vertical line.
    """
    for number, curve in enumerate(curves, 1):
        limit = crossing(curve.frequency, curve.fsc, threshold)
        axes.plot(curve.frequency, curve.fsc, color=class_colour(number), linewidth=1.8,
                  label=curve.label + (": %.1f Å" % (1 / limit) if limit else ""))
    axes.axhline(threshold, color=FAINT, linewidth=0.9, linestyle="--")
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.annotate("%g" % threshold, (1, threshold), xycoords=("axes fraction", "data"), xytext=(-4, 3),
                  textcoords="offset points", fontsize=8, color=FAINT, ha="right")
    if target_angst:
        axes.axvline(1 / target_angst, color=FAINT, linewidth=0.9, linestyle=":")
        axes.annotate("target %.3g Å" % target_angst, (1 / target_angst, 0.02),
                      xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points",
                      fontsize=8, color=FAINT)
    plain(axes, "Fourier shell correlation", "Resolution (Å)", "FSC")
    axes.set(xlim=(0, max(float(curve.frequency[-1]) for curve in curves)),
             ylim=(min(-0.1, min(float(np.min(curve.fsc)) for curve in curves)), 1.03))
    ticks = axes.get_xticks()
    ticks = ticks[(ticks > 0) & (ticks <= axes.get_xlim()[1])]
    axes.set_xticks(ticks)
    axes.set_xticklabels(["%.3g" % (1 / tick) for tick in ticks])
    axes.legend(frameon=False, fontsize=9, loc="lower left" if len(curves) < 5 else "upper right")
