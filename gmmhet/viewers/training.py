"""Training curves: gain of agreement of the trained model over the neutral one, on training and held-out
particles."""
import os
from typing import Dict, Optional

import numpy as np
from matplotlib.axes import Axes

from gmmhet.engine.palette import BLUE, FAINT, RED
from gmmhet.engine.rundir import read_columns
from gmmhet.viewers.drawing import NothingToShow, plain


def read_history(path: str) -> Dict[str, np.ndarray]:
    """Columns of a history.csv: dict of name to [epochs].

    Raises
    ------
    NothingToShow
        before the first epoch has ended.
    """
    if not os.path.exists(path):
        raise NothingToShow("There are no training curves yet: %s is written after the first epoch." % path)
    return {name: np.array(values) for name, values in read_columns(path).items()}


def draw_history(axes: Axes, history: Dict[str, np.ndarray], unit: str, best: Optional[int] = None,
                 start_gain: Optional[float] = None) -> None:
    """Mean gain of agreement over the neutral model by epoch; the neutral model is the line at zero, and the
    epoch of the final model is marked.

    Parameters
    ----------
    axes : matplotlib Axes
    history : dict with epoch, training_gain, held_out_gain.
    unit : str, of the gain.
    best : int, epoch of the final model of a finished training, 0 for its start; None while it runs: the
        highest on held-out particles is marked.
    start_gain : float, of the start on held-out particles; where `best` is 0.
    """
    epoch, held_out = history["epoch"], history["held_out_gain"]
    axes.axhline(0, color=FAINT, linewidth=1, linestyle="--")
    axes.annotate("neutral model", (1, 0), xycoords=("axes fraction", "data"), xytext=(-4, 4),
                  textcoords="offset points", fontsize=8.5, color=FAINT, ha="right")
    axes.plot(epoch, history["training_gain"], "-o", color=BLUE, markersize=3.5, label="training")
    axes.plot(epoch, held_out, "-o", color=RED, markersize=3.5, label="held out")
    label, best = ("highest so far", epoch[np.argmax(held_out)]) if best is None else ("final model", best)
    height = held_out[list(epoch).index(best)] if best else start_gain
    axes.plot(best, height, "o", markersize=11, markerfacecolor="none", markeredgecolor=RED, label=label)
    plain(axes, "Gain of agreement over the neutral model", "Epoch", "Gain per particle (%s)" % unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)


def draw_gains(axes: Axes, gain: np.ndarray, held_out: np.ndarray, unit: str) -> None:
    """Histogram of the particles' gains over the neutral model, held-out particles apart.

    Parameters
    ----------
    axes : matplotlib Axes
    gain : [n]
    held_out : [n] bool
    unit : str
    """
    low, high = np.quantile(gain, [0.001, 0.999])
    bins = np.linspace(low, high if high > low else low + 1, int(np.clip(np.sqrt(len(gain)), 10, 60)))
    for rows, tint, label in ((~held_out, BLUE, "training"), (held_out, RED, "held out")):
        if rows.any():
            axes.hist(gain[rows], bins=bins, density=True, histtype="stepfilled", color=tint, alpha=0.25)
            axes.hist(gain[rows], bins=bins, density=True, histtype="step", color=tint, linewidth=1.5,
                      label="%s: mean %.3g" % (label, gain[rows].mean()))
    axes.axvline(0, color=FAINT, linewidth=1, linestyle="--")
    plain(axes, "Gain of each particle's own conformation", "Gain over the neutral model (%s)" % unit,
          "Density of particles")
    axes.legend(frameon=False, fontsize=9)
