"""The page that shows a landscape: embedding, clusters, trajectories, explained variance and decoded
motion."""
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from gmmhet.engine.latent.landscape import Landscape, LineChange
from gmmhet.engine.palette import (
    AMPLITUDE,
    FAINT,
    GREYS,
    INK,
    LEAST_MOTION_ANGST,
    MOTION,
    PAPER,
    VARIANCE,
    class_colour,
)

#: quantiles of the points that limits hold, and the room beyond, over the rest
INNER_POINTS, MARGIN = (0.0005, 0.9995), 0.06
#: bins of the density along each axis, and share of a cluster's points inside its outline
BINS, OUTLINE_SHARE = 160, 0.7
#: up to so many points are also drawn one by one, and blurred more
FEW_POINTS = 5000
#: more clusters than this are drawn as one bar, and more axes or directions not at all
MOST_CLUSTER_BARS, MOST_BARS = 12, 8
#: room (x, y) around the name of a trajectory, and its distance from the end, pixels
NAME_ROOM, NAME_DISTANCE = (110, 20), 26

#: limits of the drawn plane, ((x0, x1), (y0, y1))
Limits = List[Tuple[float, float]]


class Bars(NamedTuple):
    """Horizontal bars: names, lengths, the text behind each, and colours."""

    names: List[str]
    lengths: Sequence[float]
    texts: List[str]
    colours: List[str]


# ---------------------------------------------------------------- the plane
def limits_of(xy: np.ndarray, margin: float = MARGIN) -> Limits:
    """Limits that hold all but the farthest thousandth of the points [n, 2], with a margin."""
    limits = []
    for values in np.asarray(xy).T:
        low, high = np.quantile(values, INNER_POINTS)
        room = margin * (high - low) or 1.0
        limits.append((low - room, high + room))
    return limits


def density(xy: np.ndarray, limits: Limits, bins: int = BINS, blur: float = 1.5) -> np.ndarray:
    """Smoothed number of points per bin, [bins, bins] indexed [y, x]."""
    counts, _, _ = np.histogram2d(xy[:, 1], xy[:, 0], bins=bins, range=[limits[1], limits[0]])
    return np.asarray(gaussian_filter(counts, blur))


def outline_level(image: np.ndarray, share: float = OUTLINE_SHARE) -> float:
    """Density above which `share` of the points lie."""
    falling = np.sort(image.ravel())[::-1]
    total = np.cumsum(falling)
    return float(falling[np.searchsorted(total, share * total[-1])])


def draw_density(axes: Any, xy: np.ndarray, limits: Limits) -> None:
    """All points as a density in logarithmic greys, so that 400,000 stay readable; few points are also drawn
    one by one."""
    few = len(xy) <= FEW_POINTS
    image = density(xy, limits, blur=3.0 if few else 1.0)
    least = max(image.max() / 60, 1e-9) if few else 0.05
    greys = LogNorm(vmin=least, vmax=max((30 if few else 3) * float(image.max()), 2 * least))
    masked: Any = np.ma         # NumPy leaves it untyped
    axes.imshow(masked.masked_less(image, least), origin="lower", extent=(*limits[0], *limits[1]),
                aspect="auto", cmap=GREYS, interpolation="bilinear", norm=greys, rasterized=True, zorder=0)
    if few:
        axes.scatter(xy[:, 0], xy[:, 1], s=3, color=INK, alpha=0.35, linewidths=0, rasterized=True, zorder=1)


def draw_clusters(axes: Any, xy: np.ndarray, labels: np.ndarray, limits: Limits) -> None:
    """Each cluster outlined where 70 % of its particles lie, with its number at the densest place."""
    grid = [np.linspace(low, high, BINS + 1) for low, high in limits]
    x, y = (0.5 * (edges[1:] + edges[:-1]) for edges in grid)
    for number in range(1, int(labels.max(initial=0)) + 1):
        members, colour = xy[labels == number], class_colour(number)
        image = density(members, limits, blur=3.0 if len(members) > FEW_POINTS else 6.0)
        if image.max() <= 0:
            continue
        level = outline_level(image)
        axes.contourf(x, y, image, levels=[level, image.max() * 1.01], colors=[colour], alpha=0.10, zorder=2)
        axes.contour(x, y, image, levels=[level], colors=[colour], linewidths=1.6, zorder=3)
        row, column = np.unravel_index(image.argmax(), image.shape)
        circle = dict(boxstyle="circle,pad=0.25", facecolor=colour, edgecolor="white", linewidth=1.2)
        axes.text(x[column], y[row], str(number), color="white", fontsize=10, fontweight="bold", ha="center",
                  va="center", bbox=circle, zorder=6)


def separate(places: Sequence[np.ndarray], room: Tuple[float, float]) -> List[np.ndarray]:
    """Move label places [P, 2] up or down, first come first kept, until none lies within `room` (x, y) of an
    earlier one."""
    settled: List[np.ndarray] = []
    steps = [0, *(step for i in range(1, len(places) + 1) for step in (i, -i))]
    for place in np.array(places, float):
        for step in steps:
            candidate = place + (0, step * room[1])
            if not any((np.abs(candidate - other) < room).all() for other in settled):
                break
        settled.append(candidate)
    return settled


def draw_paths(axes: Any, paths: Mapping[str, np.ndarray]) -> None:
    """Trajectories [P, 2] by name: a line with a dot at each point, a larger one at the end, and the name
    there."""
    name_places = []
    for path in paths.values():
        axes.plot(path[:, 0], path[:, 1], "-", color="white", linewidth=3.6, zorder=4)
        axes.plot(path[:, 0], path[:, 1], "-o", color=INK, linewidth=1.4, markersize=3.5, zorder=5)
        axes.plot(*path[-1], "o", color=INK, markersize=8, markeredgecolor="white", zorder=5)
        pixels = axes.transData.transform(path[[-2, -1]])
        step = pixels[1] - pixels[0]
        name_places.append(pixels[1] + NAME_DISTANCE * step / max(float(np.linalg.norm(step)), 1e-9))
    box = dict(boxstyle="round,pad=0.15", facecolor="white", edgecolor="none", alpha=0.8)
    to_data = axes.transData.inverted()
    for name, place in zip(paths, separate(name_places, NAME_ROOM)):
        axes.annotate(name, to_data.transform(place), fontsize=9, color=INK, zorder=7, ha="center",
                      va="center", bbox=box)


def draw_map(axes: Any, landscape: Landscape, paths: Mapping[str, np.ndarray]) -> None:
    """The landscape itself; a histogram where there is only one dimension."""
    xy, labels, axis_labels = landscape.plane.xy, landscape.clusters.labels, landscape.plane.axis_labels
    clusters = range(1, int(labels.max(initial=0)) + 1)
    if not np.ptp(xy[:, 1]):
        bins = np.linspace(xy[:, 0].min(), xy[:, 0].max(), 81)
        axes.hist([xy[labels == number, 0] for number in (0, *clusters)], bins=bins, stacked=True,
                  color=[FAINT, *(class_colour(number) for number in clusters)])
        axes.set(xlabel=axis_labels[0], ylabel=_counted(landscape))
    else:
        limits = limits_of(np.concatenate([xy, *paths.values()]))
        draw_density(axes, xy, limits)
        draw_clusters(axes, xy, labels, limits)
        axes.set(xlim=limits[0], ylim=limits[1])
        draw_paths(axes, paths)
        axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
    axes.tick_params(colors=FAINT, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _counted(landscape: Landscape) -> str:
    """What a latent point is."""
    return "particles" if landscape.latents.copies == 1 else "symmetry copies"


# ---------------------------------------------------------------- bars
def draw_bars(axes: Any, bars: Bars, title: str) -> None:
    """Horizontal bars, each with its text behind it."""
    places = np.arange(len(bars.names))
    axes.barh(places, bars.lengths, color=bars.colours, height=0.66)
    top = max(float(np.max(bars.lengths, initial=0.0)), 1e-12)
    for place, length, text in zip(places, bars.lengths, bars.texts):
        axes.text(length + 0.02 * top, place, text, va="center", fontsize=8.5, color=INK)
    axes.set(yticks=places, yticklabels=bars.names, xlim=(0, 1.42 * top), xticks=[])
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=9, colors=INK)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def cluster_bars(labels: np.ndarray, population: Optional[np.ndarray] = None) -> Bars:
    """Clusters by their populations [K] where these are known, else by their sizes; many clusters are cut,
    unassigned particles come last."""
    count = int(labels.max(initial=0))
    drawn = list(range(1, min(count, MOST_CLUSTER_BARS) + 1))
    sizes = [int(np.sum(labels == number)) for number in drawn]
    names, colours = [str(number) for number in drawn], [class_colour(number) for number in drawn]
    rest, none = int(np.sum(labels > MOST_CLUSTER_BARS)), int(np.sum(labels == 0))
    if rest:
        more = "%d more" % (count - MOST_CLUSTER_BARS)
        names, sizes, colours = [*names, more], [*sizes, rest], [*colours, FAINT]
    if none:
        names, sizes, colours = [*names, "none"], [*sizes, none], [*colours, FAINT]
    if population is None:
        texts = ["{:,}  ({:.0f} %)".format(size, 100 * size / len(labels)) for size in sizes]
        return Bars(names, sizes, texts, colours)
    shares = [*population[:MOST_CLUSTER_BARS], *([sum(population[MOST_CLUSTER_BARS:])] if rest else [])]
    texts = ["{:.0f} %  ({:,})".format(100 * share, size) for share, size in zip(shares, sizes)]
    return Bars(names, shares, texts, colours)


def variance_bars(explained: np.ndarray) -> Bars:
    """Fraction of the variance along each principal axis [K]."""
    drawn = explained[:MOST_BARS].tolist()
    names = ["PC %d" % (i + 1) for i in range(len(drawn))]
    return Bars(names, drawn, ["%.1f %%" % (100 * share) for share in drawn], [VARIANCE] * len(drawn))


def change_bars(changes: Mapping[str, LineChange]) -> Tuple[Bars, str]:
    """What each direction does from end to end: motion, or amplitudes where nothing moves; and the title that
    says which."""
    drawn: Dict[str, LineChange] = dict(list(changes.items())[:MOST_BARS])
    moves = any(change.motion_rms_angst >= LEAST_MOTION_ANGST for change in drawn.values())
    lengths = [change.motion_rms_angst if moves else change.amplitude_rms for change in drawn.values()]
    texts = ["%.2f Å, %.0f %%" % (motion, 100 * amplitude) for motion, amplitude in drawn.values()]
    title = "Motion, amplitude change end to end" if moves else "(Motion,) amplitude change end to end"
    return Bars(list(drawn), lengths, texts, [MOTION if moves else AMPLITUDE] * len(drawn)), title


# ---------------------------------------------------------------- the page
def landscape_figure(landscape: Landscape, points: int, note: str) -> Figure:
    """The page, on the Agg canvas.

    Parameters
    ----------
    landscape : Landscape.
    points : int, points of each trajectory.
    note : str, below.
    """
    figure = Figure(figsize=(12.5, 7.6), facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(2.2, 1), height_ratios=(1, 1, 1), left=0.06, right=0.985,
                               top=0.89, bottom=0.11, wspace=0.25, hspace=0.42)
    counted, clusters = _counted(landscape), landscape.clusters
    draw_map(figure.add_subplot(grid[:, 0]), landscape, landscape.paths(points))
    title = "Population (%s assigned)" % counted
    if clusters.population is None:
        title = counted.capitalize() + " per cluster"
    draw_bars(figure.add_subplot(grid[0, 1]), cluster_bars(clusters.labels, clusters.population), title)
    draw_bars(figure.add_subplot(grid[1, 1]), variance_bars(landscape.axes.explained),
              "Variance of z explained")
    changes = {line.name: landscape.changes[line.name] for line in landscape.directions}
    draw_bars(figure.add_subplot(grid[2, 1]), *change_bars(changes))
    figure.text(0.06, 0.945, "Conformational landscape", fontsize=15, fontweight="bold", color=INK)
    n, copies = len(landscape.latents), landscape.latents.copies
    each = ": {:,} particles, {} symmetry copies of each".format(n // copies, copies) if copies > 1 else ""
    figure.text(0.06, 0.912, "{:,} points".format(n) + each, fontsize=10, color=FAINT)
    figure.text(0.06, 0.025, note, fontsize=8.5, color=FAINT)
    return figure
