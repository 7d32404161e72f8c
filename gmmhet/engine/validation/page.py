"""The page that shows what speaks for the heterogeneity of a training and what against it."""
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gmmhet.engine.palette import AGAINST, FAINT, FOR, INK, PAPER, REAL, RULE, SPURIOUS
from gmmhet.engine.rundir import read_columns
from gmmhet.engine.validation.half_set_agreement import correlation
from gmmhet.engine.validation.leakage import TOLERATED_R2, is_harmless, leakage_text
from gmmhet.engine.validation.verdict import LEAST_AGREEMENT, MOST_SPURIOUS, n_cross_validated

#: width of the verdict (characters)
LINE = 150


@dataclass(frozen=True)
class Page:
    """What the page shows beside the summary's figures.

    Attributes
    ----------
    history : path of history.csv.
    gain : [n_held], evidence of each held-out particle, nats.
    variates : [m, 2], latents of the same particles under two half-set networks, or None.
    correlations : [2, n], of each particle's displacements under two half-set networks with its own and with
        another's, or None.
    """

    history: str
    gain: np.ndarray
    variates: "np.ndarray | None" = None
    correlations: "np.ndarray | None" = None


def plain(axes: Any, title: str, xlabel: str = "", ylabel: str = "") -> None:
    """Title on the left, no frame at top and right, quiet ticks."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=9)
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.tick_params(colors=FAINT, labelsize=8, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(FAINT)


def not_run(axes: Any, title: str, flag: str) -> None:
    """An empty panel that says what would fill it."""
    plain(axes, title)
    axes.set(xticks=[], yticks=[])
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.set_facecolor("#f6f8f9")
    axes.text(0.5, 0.5, "not run\n\nthe same command with\n%s --resume\nadds it" % flag,
              transform=axes.transAxes, ha="center", va="center", fontsize=9.5, color=FAINT, linespacing=1.4)


def draw_history(axes: Any, path: str, summary: dict[str, Any]) -> None:
    """Gain over the neutral model (or the earlier stage) by epoch, of the particles learned from and of those
    held out, and which epoch of a run with this summary was kept; 0 is its start."""
    columns = read_columns(path)
    epoch, held = columns["epoch"], columns["held_out_gain"]
    axes.axhline(0, color=FAINT, linewidth=0.9, linestyle="--")
    axes.plot(epoch, columns["training_gain"], "-o", color=FAINT, markersize=3, linewidth=1.4,
              label="learned from")
    axes.plot(epoch, held, "-o", color=REAL, markersize=3, linewidth=1.6, label="held out")
    best = summary["best_epoch"]
    axes.plot(best, held[best - 1] if best else summary["held_out_gain"], "o", markersize=10,
              markerfacecolor="none", markeredgecolor=REAL, markeredgewidth=1.4,
              label="epoch kept" if best else "start kept: none surely better")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    plain(axes, "Bound on the gain, by epoch", "Epoch", "Over the model it starts from, per particle")


def draw_gain(axes: Any, gain: np.ndarray, summary: dict[str, Any]) -> None:
    """Histogram of the held-out particles' evidence, with its mean and interval, and the landscape's weight;
    beside it what networks of the half sets gain on each other's particles."""
    mean, interval = summary["held_out_evidence"], summary["held_out_evidence_interval"]
    low, high = np.quantile(gain, [0.005, 0.995])
    if not np.ptp(gain):
        low, high = low - 0.5, high + 0.5
    axes.hist(np.clip(gain, low, high), bins=np.linspace(low, high, int(np.clip(np.sqrt(len(gain)), 10, 50))),
              color=REAL, alpha=0.35)
    axes.axvline(0, color=FAINT, linewidth=0.9, linestyle="--")
    top = axes.get_ylim()[1]

    def bar(mean: float, interval: list[float], place: float, **marker: Any) -> str:
        """Mean and interval at `place` of the highest bin; the colour that says which way they speak."""
        tint = FOR if interval[0] > 0 else AGAINST
        axes.errorbar(mean, place * top, xerr=[[max(mean - interval[0], 0)], [max(interval[1] - mean, 0)]],
                      fmt="o", color=tint, markersize=4, capsize=4, linewidth=1.6, **marker)
        return tint
    tint = bar(mean, interval, 1.06)
    half = summary.get("half_sets", {})
    axes.set_ylim(0, (1.75 if n_cross_validated(half) else 1.45) * top)
    axes.text(0.98, 0.98, "mean %.3g nats\n%.3g to %.3g (95 %%)" % (mean, *interval),
              transform=axes.transAxes, ha="right", va="top", fontsize=9, color=tint, fontweight="bold")
    axes.text(0.98, 0.85, "weight of the landscape %.2f" % summary["landscape_weight"],
              transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=INK)
    if n_cross_validated(half):
        bar(half["held_out_evidence"], half["held_out_evidence_interval"], 1.15, markerfacecolor=PAPER)
        axes.text(0.98, 0.78, "half sets of each other (○)\n%.3g (%.3g to %.3g)" % (
            half["held_out_evidence"], *half["held_out_evidence_interval"]), transform=axes.transAxes,
                  ha="right", va="top",
            fontsize=8.5, color=INK)
    plain(axes, "Evidence of each held-out particle",
          "\n".join(textwrap.wrap("Over %s (nats)" % summary.get("evidence_over", "a single model"), 44)),
          "Particles")


def draw_null(axes: Any, summary: dict[str, Any]) -> None:
    """Motion of the particles and of the homogeneous images; their evidence where nothing may move."""
    null = summary["null"]
    moves = null["share_of_motion"] is not None
    if moves:
        values = [summary["motion_rms_angst"], null["motion_rms_angst"]]
        written = ["%.3g Å" % values[0],
                   "%.2g Å: %.2g %% of that" % (values[1], 100 * null["share_of_motion"])]
    else:
        values = [summary["held_out_evidence"], null["held_out_evidence"]]
        written = ["%.3g nats" % values[0], "%.2g nats" % values[1]]
    top = max(*values, 1e-12)
    axes.barh([0, 1], np.maximum(values, 0), color=[REAL, SPURIOUS], height=0.5)
    for place, value, text in zip((0, 1), values, written):
        axes.text(max(value, MOST_SPURIOUS * top * moves * place, 0) + 0.025 * top, place, text, va="center",
                  fontsize=9, color=INK)
    if moves:
        axes.plot(2 * [MOST_SPURIOUS * values[0]], [0.6, 1.4], color=AGAINST, linewidth=1.2, linestyle=":")
        axes.text(MOST_SPURIOUS * values[0], 1.43,
                  "%.0f %%: more would speak against" % (100 * MOST_SPURIOUS), fontsize=8, color=AGAINST,
                  va="top", ha="left")
    axes.set(yticks=[0, 1], xlim=(0, 1.3 * top), xticks=[], ylim=(1.65, -0.5))
    axes.set_yticklabels(["particles", "all alike"])
    plain(axes, "Decoded motion (rms) against the null" if moves else "Evidence against the null",
          "All alike: evidence %.2g nats (%.2g to %.2g)" % (null["held_out_evidence"],
                                                            *null["held_out_evidence_interval"]))
    axes.tick_params(length=0, labelsize=9)


def draw_variates(axes: Any, variates: np.ndarray) -> None:
    """First canonical variate of the same particles under two half-set networks."""
    x, y = variates.T
    limits = [np.quantile(v, [0.002, 0.998]) for v in (x, y)]
    size = max(np.abs(limit).max() for limit in limits) * 1.15
    axes.plot([-size, size], [-size, size], color=RULE, linewidth=1, zorder=0)
    axes.scatter(x, y, s=7, color=REAL, alpha=0.45, linewidths=0, rasterized=True)
    axes.set(xlim=(-size, size), ylim=(-size, size))
    axes.text(0.03, 0.97, "correlation %.2f" % correlation(x, y), transform=axes.transAxes, va="top",
              fontsize=9, color=INK, fontweight="bold")
    plain(axes, "Latent points, two half-set networks", "Network of half 1 (first canonical axis)",
          "Network of half 2")


def draw_correlations(axes: Any, correlations: np.ndarray, half_sets: dict[str, Any]) -> None:
    """Correlation of the displacements that two half-set networks decode, for the same and for different
    particles."""
    bins = np.linspace(-1, 1, 41)
    axes.hist(correlations[1], bins=bins, color=SPURIOUS, alpha=0.9,
              label="different particles: %.2f" % half_sets["shuffled"][0])
    axes.hist(correlations[0], bins=bins, color=REAL, alpha=0.5,
              label="same particle: %.2f" % half_sets["displacement_correlation"])
    axes.axvline(half_sets["displacement_correlation"], color=REAL, linewidth=1.8)
    axes.axvline(LEAST_AGREEMENT, color=AGAINST, linewidth=1, linestyle=":")
    axes.set_ylim(0, 1.55 * axes.get_ylim()[1])
    axes.text(LEAST_AGREEMENT - 0.02, 0.67, "less speaks against", transform=axes.get_xaxis_transform(),
              fontsize=8, color=AGAINST, ha="right")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", title="mean", alignment="left",
                title_fontsize=8.5)
    plain(axes, "Displacements, two half-set networks", "Correlation of the decoded displacements",
          "Particles")


def draw_leakage(axes: Any, predicts: dict[str, dict[str, float]]) -> None:
    """How well z predicts how the particles were seen, with what chance reaches."""
    values = [max(leakage["r2"], 0)
              for leakage in predicts.values()]       # below 0: worse than their mean predicts them
    places, top = np.arange(len(values)), max(1.3 * max(values), 4 * TOLERATED_R2)
    colours = [SPURIOUS if is_harmless(leakage) else AGAINST for leakage in predicts.values()]
    axes.barh(places, values, color=colours, height=0.3)
    for place, leakage in zip(places, predicts.values()):
        axes.text(0.99 * top, place - 0.27, leakage_text(leakage), fontsize=8.5, color=INK, va="center",
                  ha="right")
    axes.plot(2 * [TOLERATED_R2], [-0.2, len(values) - 0.6], color=AGAINST, linewidth=1.2, linestyle=":")
    axes.text(TOLERATED_R2, len(values) - 0.57, "beyond this: look into it", fontsize=8, color=AGAINST,
              ha="left", va="top")
    axes.set(yticks=places, xlim=(0, top), ylim=(len(values) - 0.35, -0.5))
    axes.set_yticklabels([name.replace(" ", "\n") for name in predicts])
    axes.xaxis.get_major_locator().set_params(nbins=5)
    plain(axes, "Does z know how it was seen?", "R² of z's prediction, on particles left out")
    axes.tick_params(axis="y", length=0, labelsize=9)


def evidence_figure(summary: dict[str, Any], page: Page) -> Figure:
    """The page.

    Parameters
    ----------
    summary : of a train run, with its verdict.
    page : Page.

    Returns
    -------
    matplotlib Figure, on the Agg canvas.
    """
    figure = Figure(figsize=(12.5, 8.8), facecolor=PAPER)
    FigureCanvasAgg(figure)
    supported = summary["verdict"].startswith("Heterogeneity supported")
    head, _, because = summary["verdict"].partition(": ")
    figure.text(0.045, 0.96, head, fontsize=16, fontweight="bold", color=FOR if supported else AGAINST,
                va="center")
    lines = textwrap.wrap(because[:1].upper() + because[1:], LINE)
    figure.text(0.045, 0.933, "\n".join(lines), fontsize=9.5, color=INK, va="top", linespacing=1.35)
    doubts = [line for sentence in summary["warnings"] for line in textwrap.wrap(sentence, LINE)]
    figure.text(0.045, 0.933 - 0.021 * len(lines), "\n".join(doubts), fontsize=9.5, color=AGAINST, va="top",
                linespacing=1.35)
    lines += doubts
    grid = figure.add_gridspec(2, 3, left=0.065, right=0.98, top=0.87 - 0.021 * len(lines), bottom=0.115,
                               wspace=0.32, hspace=0.5)
    panels = [figure.add_subplot(grid[i, j]) for i in range(2) for j in range(3)]
    draw_history(panels[0], page.history, summary)
    draw_gain(panels[1], page.gain, summary)
    draw_leakage(panels[2], summary["predicts"])
    if "null" in summary:
        draw_null(panels[3], summary)
    else:
        not_run(panels[3], "Decoded motion (rms) against the null", "--null")
    if page.variates is not None and page.correlations is not None:
        draw_variates(panels[4], page.variates)
        draw_correlations(panels[5], page.correlations, summary["half_sets"])
    else:
        not_run(panels[4], "Latent points, two half-set networks", "--half-sets")
        not_run(panels[5], "Displacements, two half-set networks", "--half-sets")
    words = "%s particles, %s of them held out; decoded motion %.3g Å rms; seed %d. " % (
        "{:,}".format(summary["particles"]), "{:,}".format(summary["held_out"]), summary["motion_rms_angst"],
        summary["seed"])
    figure.text(0.045, 0.022,
                words + "A decoded model is a hypothesis: reconstruct the particles near a point of the "
                        "landscape to see it.", fontsize=8.5, color=FAINT)
    return figure
