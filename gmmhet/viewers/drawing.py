"""What the figures of all viewers share: plain axes, and the error that becomes a message in the window."""
import os
from typing import Tuple

import numpy as np
from matplotlib.axes import Axes

from gmmhet.engine.palette import INK


class NothingToShow(Exception):
    """A file does not exist, or holds nothing that can be drawn; the message says what and when it will."""


def require_file(path: str) -> str:
    """`path`, if it exists.

    Raises
    ------
    NothingToShow
    """
    if not os.path.exists(path):
        raise NothingToShow("There is no %s yet: it is written when the run has finished." % path)
    return path


def plain(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """Title on the left, no frame at top and right, quiet ticks."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def inner_limits(values: np.ndarray, margin: float = 0.05) -> Tuple[float, float]:
    """Limits of an axis that hold all but the farthest thousandth of `values`, with a margin."""
    low, high = np.quantile(values, [0.0005, 0.9995])
    room = margin * (high - low) or 1.0
    return low - room, high + room
