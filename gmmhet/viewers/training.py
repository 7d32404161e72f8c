"""Training curves: gain of the trained model over the neutral one, on the particles learned from and on those held out."""
import csv
import os

import numpy as np

from gmmhet.viewers.drawing import BLUE, FAINT, RED, NothingToShow, plain


def read_history(path):
    """Columns of a history.csv: dict of name to [epochs].

    Raises
    ------
    NothingToShow
        before the first epoch has ended.
    """
    rows = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    if not rows:
        raise NothingToShow("There are no training curves yet: %s is written after the first epoch." % path)
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def draw_history(axes, history, unit, best=None, gain=None):
    """Gain per particle over the neutral model by epoch; the neutral model is the line at zero, the epoch that was kept is marked.

    Parameters
    ----------
    axes : matplotlib Axes
    history : dict with epoch, training_gain, held_out_gain.
    unit : str, of the gain.
    best : int, the epoch that a finished training kept, 0 for its start; of one that still runs, None, the highest on held-out particles is
        marked.
    gain : float, of the start on held-out particles; where `best` is 0.
    """
    epoch, held = history["epoch"], history["held_out_gain"]
    axes.axhline(0, color=FAINT, linewidth=1, linestyle="--")
    axes.annotate("neutral model", (1, 0), xycoords=("axes fraction", "data"), xytext=(-4, 4), textcoords="offset points", fontsize=8.5,
                  color=FAINT, ha="right")
    axes.plot(epoch, history["training_gain"], "-o", color=BLUE, markersize=3.5, label="learned from")
    axes.plot(epoch, held, "-o", color=RED, markersize=3.5, label="held out")
    words, best = ("highest so far", epoch[np.argmax(held)]) if best is None else ("epoch kept", best)
    axes.plot(best, held[list(epoch).index(best)] if best else gain, "o", markersize=11, markerfacecolor="none", markeredgecolor=RED,
              label=words)
    plain(axes, "Agreement above the neutral model", "Epoch", "Gain per particle (%s)" % unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)


def draw_gains(axes, gain, held_out, unit):
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
    for chosen, tint, label in ((~held_out, BLUE, "learned from"), (held_out, RED, "held out")):
        if chosen.any():
            axes.hist(gain[chosen], bins=bins, density=True, histtype="stepfilled", color=tint, alpha=0.25)
            axes.hist(gain[chosen], bins=bins, density=True, histtype="step", color=tint, linewidth=1.5,
                      label="%s: mean %.3g" % (label, gain[chosen].mean()))
    axes.axvline(0, color=FAINT, linewidth=1, linestyle="--")
    plain(axes, "Gain of each particle's own model", "Gain over the neutral model (%s)" % unit, "Density of particles")
    axes.legend(frameon=False, fontsize=9)
