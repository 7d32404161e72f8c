"""The page that shows a landscape: embedding, clusters, trajectories, explained variance and decoded motion."""
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

INK, FAINT, PAPER = "#22303c", "#8795a1", "#ffffff"
COLOURS = ("#d1495b", "#00798c", "#edae49", "#5f4b8b", "#3a7d44", "#e07a1f", "#2e86ab", "#9b5094", "#7a5c3e", "#6b7280")
BINS, OUTLINE_SHARE = 160, 0.7
FEW, MANY_CLUSTERS = 5000, 12
LEAST_MOTION_ANGST = 0.02       # below it, a model counts as one in which only amplitudes vary


def colour(number):
    """Colour of cluster or trajectory `number`, from 1."""
    return COLOURS[(number - 1) % len(COLOURS)]


def frame(xy, margin=0.06):
    """Limits ((x0, x1), (y0, y1)) that hold all but the farthest thousandth of the points, with a margin."""
    limits = []
    for values in np.asarray(xy).T:
        low, high = np.quantile(values, [0.0005, 0.9995])
        room = margin * (high - low) or 1.0
        limits.append((low - room, high + room))
    return limits


def density(xy, limits, bins=BINS, blur=1.5):
    """Smoothed number of points per bin, [bins, bins] indexed [y, x]."""
    counts, _, _ = np.histogram2d(xy[:, 1], xy[:, 0], bins=bins, range=[limits[1], limits[0]])
    return gaussian_filter(counts, blur)


def outline_level(image, share=OUTLINE_SHARE):
    """Density above which `share` of the points lie."""
    ordered = np.sort(image.ravel())[::-1]
    total = np.cumsum(ordered)
    return float(ordered[np.searchsorted(total, share * total[-1])])


def draw_density(axes, xy, limits):
    """All points as a density in logarithmic greys, so that 400,000 stay readable; few points are also drawn one by one."""
    few = len(xy) <= FEW
    image = density(xy, limits, blur=3.0 if few else 1.0)
    least = max(image.max() / 60, 1e-9) if few else 0.05
    greys = LogNorm(vmin=least, vmax=max((30 if few else 3) * float(image.max()), 2 * least))
    axes.imshow(np.ma.masked_less(image, least), origin="lower", extent=(*limits[0], *limits[1]), aspect="auto", cmap="Greys",
                interpolation="bilinear", norm=greys, rasterized=True, zorder=0)
    if few:
        axes.scatter(xy[:, 0], xy[:, 1], s=3, color=INK, alpha=0.35, linewidths=0, rasterized=True, zorder=1)


def draw_clusters(axes, xy, labels, limits):
    """Each cluster outlined where 70 % of its particles lie, with its number at the densest place."""
    grid = [np.linspace(low, high, BINS + 1) for low, high in limits]
    middle = [0.5 * (edges[1:] + edges[:-1]) for edges in grid]
    for number in range(1, int(labels.max(initial=0)) + 1):
        members = xy[labels == number]
        image = density(members, limits, blur=3.0 if len(members) > FEW else 6.0)
        if image.max() <= 0:
            continue
        level = outline_level(image)
        axes.contourf(*middle, image, levels=[level, image.max() * 1.01], colors=[colour(number)], alpha=0.10, zorder=2)
        axes.contour(*middle, image, levels=[level], colors=[colour(number)], linewidths=1.6, zorder=3)
        row, column = np.unravel_index(image.argmax(), image.shape)
        axes.text(middle[0][column], middle[1][row], str(number), color="white", fontsize=10, fontweight="bold", ha="center", va="center",
                  bbox=dict(boxstyle="circle,pad=0.25", facecolor=colour(number), edgecolor="white", linewidth=1.2), zorder=6)


def apart(places, room):
    """Move label places [P, 2] up or down, first come first kept, until none lies within `room` (x, y) of an earlier one."""
    kept: list = []
    for place in np.array(places, float):
        for step in sum(([i, -i] for i in range(1, len(places) + 1)), [0]):
            candidate = place + (0, step * room[1])
            if not any((np.abs(candidate - other) < room).all() for other in kept):
                break
        kept.append(candidate)
    return kept


def draw_paths(axes, paths):
    """Trajectories [P, 2] by name: a line with a dot at each point, a larger one at the end, and the name there."""
    ends = []
    for path in paths.values():
        axes.plot(path[:, 0], path[:, 1], "-", color="white", linewidth=3.6, zorder=4)
        axes.plot(path[:, 0], path[:, 1], "-o", color=INK, linewidth=1.4, markersize=3.5, zorder=5)
        axes.plot(*path[-1], "o", color=INK, markersize=8, markeredgecolor="white", zorder=5)
        pixels = axes.transData.transform(path[[-2, -1]])
        step = pixels[1] - pixels[0]
        ends.append(pixels[1] + 26 * step / max(float(np.linalg.norm(step)), 1e-9))
    for name, place in zip(paths, apart(ends, (110, 20))):
        axes.annotate(name, axes.transData.inverted().transform(place), fontsize=9, color=INK, zorder=7, ha="center", va="center",
                      bbox=dict(boxstyle="round,pad=0.15", facecolor="white", edgecolor="none", alpha=0.8))


def draw_bars(axes, names, values, written, colours, title):
    """Horizontal bars, each with its value written behind it."""
    places = np.arange(len(names))
    axes.barh(places, values, color=colours, height=0.66)
    top = max(float(np.max(values, initial=0.0)), 1e-12)
    for place, value, text in zip(places, values, written):
        axes.text(value + 0.02 * top, place, text, va="center", fontsize=8.5, color=INK)
    axes.set(yticks=places, yticklabels=names, xlim=(0, 1.42 * top), xticks=[])
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=9, colors=INK)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(FAINT)


def cluster_bars(labels, population=None):
    """Names, lengths, texts and colours of the bars of clusters: their populations [K] where these are known, else their sizes; many
    clusters are cut, unassigned particles come last."""
    count = int(labels.max(initial=0))
    shown = list(range(1, min(count, MANY_CLUSTERS) + 1))
    sizes = [int(np.sum(labels == number)) for number in shown]
    names, colours = [str(number) for number in shown], [colour(number) for number in shown]
    rest, none = int(np.sum(labels > MANY_CLUSTERS)), int(np.sum(labels == 0))
    if rest:
        names, sizes, colours = names + ["%d more" % (count - MANY_CLUSTERS)], sizes + [rest], colours + [FAINT]
    if none:
        names, sizes, colours = names + ["none"], sizes + [none], colours + [FAINT]
    if population is None:
        return names, sizes, ["{:,}  ({:.0f} %)".format(size, 100 * size / len(labels)) for size in sizes], colours
    shares = [*population[:MANY_CLUSTERS], *([sum(population[MANY_CLUSTERS:])] if rest else [])]
    return names, shares, ["{:.0f} %  ({:,})".format(100 * share, size) for share, size in zip(shares, sizes)], colours


def change_bars(motion):
    """Names, lengths, texts, colours and title of the bars of what each direction does: motion, or amplitudes where nothing moves."""
    shown = dict(list(motion.items())[:8])
    moves = any(rms >= LEAST_MOTION_ANGST for rms, _ in shown.values())
    lengths = [rms if moves else amplitude for rms, amplitude in shown.values()]
    written = ["%.2f Å, %.0f %%" % (rms, 100 * amplitude) for rms, amplitude in shown.values()]
    title = "Motion, amplitude change end to end" if moves else "(Motion,) amplitude change end to end"
    return list(shown), lengths, written, ["#3a7d44" if moves else "#8a6d9f"] * len(shown), title


def draw_map(axes, xy, labels, paths, axis_labels, counted):
    """The landscape itself; a histogram where there is only one dimension."""
    if not np.ptp(xy[:, 1]):
        bins = np.linspace(xy[:, 0].min(), xy[:, 0].max(), 81)
        axes.hist([xy[labels == number, 0] for number in range(int(labels.max(initial=0)) + 1)], bins=bins, stacked=True,
                  color=[FAINT] + [colour(number) for number in range(1, int(labels.max(initial=0)) + 1)])
        axes.set(xlabel=axis_labels[0], ylabel=counted)
    else:
        limits = frame(np.concatenate([xy] + list(paths.values())))
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


def landscape_figure(xy, labels, paths, axis_labels, explained, motion, note, copies=1, population=None):
    """The page.

    Parameters
    ----------
    xy : [B, 2]
    labels : [B] int, clusters from 1, 0 for none.
    paths : dict of name to [P, 2], trajectories in the plane.
    axis_labels : two str.
    explained : [K], fraction of the variance of z per principal axis.
    motion : dict of direction name to (rms motion in Å, relative rms amplitude change) between its two ends.
    note : str, below.
    copies : int, symmetry copies of each particle, which are points of their own.
    population : [K], share of the points that each cluster holds, or None where points are counted.

    Returns
    -------
    matplotlib Figure, on the Agg canvas.
    """
    figure = Figure(figsize=(12.5, 7.6), facecolor=PAPER)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 2, width_ratios=(2.2, 1), height_ratios=(1, 1, 1), left=0.06, right=0.985, top=0.89, bottom=0.11,
                               wspace=0.25, hspace=0.42)
    counted = "particles" if copies == 1 else "symmetry copies"
    draw_map(figure.add_subplot(grid[:, 0]), xy, labels, paths, axis_labels, counted)
    title = counted.capitalize() + " per cluster" if population is None else "Population (%s assigned)" % counted
    names, lengths, written, colours = cluster_bars(labels, population)
    draw_bars(figure.add_subplot(grid[0, 1]), names, lengths, written, colours, title)
    few = explained[:8]
    draw_bars(figure.add_subplot(grid[1, 1]), ["PC %d" % (i + 1) for i in range(len(few))], few, ["%.1f %%" % (100 * e) for e in few],
              ["#5b7c99"] * len(few), "Variance of z explained")
    draw_bars(figure.add_subplot(grid[2, 1]), *change_bars(motion))
    figure.text(0.06, 0.945, "Conformational landscape", fontsize=15, fontweight="bold", color=INK)
    each = ": {:,} particles, {} symmetry copies of each".format(len(xy) // copies, copies) if copies > 1 else ""
    figure.text(0.06, 0.912, "{:,} points".format(len(xy)) + each, fontsize=10, color=FAINT)
    figure.text(0.06, 0.025, note, fontsize=8.5, color=FAINT)
    return figure
