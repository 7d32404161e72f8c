"""What the pictures of all viewers share: colours, plain axes, and the error that becomes a message in the window."""
import numpy as np

INK, FAINT, BLUE, RED = "#22303c", "#8795a1", "#2e6f9e", "#c8443c"
COLOURS = ("#d1495b", "#00798c", "#edae49", "#5f4b8b", "#3a7d44", "#e07a1f", "#2e86ab", "#9b5094", "#7a5c3e", "#6b7280")


class NothingToShow(Exception):
    """A file is not there, or holds nothing that can be drawn; the message says what and when it will."""


def colour(number):
    """Colour of class, cluster or curve `number`, from 1."""
    return COLOURS[(int(number) - 1) % len(COLOURS)]


def plain(axes, title="", xlabel="", ylabel=""):
    """Title on the left, no frame at top and right, quiet ticks."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def middle(values, margin=0.05):
    """Limits that hold all but the farthest thousandth of `values`, with a margin."""
    low, high = np.quantile(values, [0.0005, 0.9995])
    room = margin * (high - low) or 1.0
    return low - room, high + room
