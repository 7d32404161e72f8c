"""Latent points in a scatter plot with a choice of axes and colours."""
import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gmmhet.engine import rundir
from gmmhet.engine.latents import Latents, LatentsError, principal_axes
from gmmhet.engine.palette import INK, NO_CLASS, VALUES, class_colour
from gmmhet.viewers.drawing import NothingToShow, inner_limits, plain, require_file

#: more points are drawn as averages over hexagons, or as a sample where colours are categories
MOST_DOTS = 20000
#: what points can be coloured by
DENSITY, CLUSTER, HELD_OUT, GAIN, UNCERTAINTY, DEFOCUS, TILT = (
    "density of points", "cluster", "held out", "agreement gain", "uncertainty of z", "defocus", "tilt angle")
#: colours that are categories
CATEGORIES = (CLUSTER, HELD_OUT)


def read_latents(folder: str) -> Latents:
    """The latent points of a train run.

    Raises
    ------
    NothingToShow
        when there are none yet, or they cannot be used.
    """
    require_file(os.path.join(folder, rundir.LATENTS))
    try:
        return Latents.load(folder)
    except LatentsError as error:
        raise NothingToShow("%s." % error) from None


def read_arrays(path: str) -> Dict[str, np.ndarray]:
    """All arrays of an npz.

    Raises
    ------
    NothingToShow
        when the file does not exist.
    """
    with np.load(require_file(path), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def axis_names(dimension: int, embedding: str = "") -> List[str]:
    """Names of the axes to choose from: the embedding's two where there is one, principal components of z,
    components of z."""
    first = ["%s %d" % (embedding, i) for i in (1, 2)] if embedding else []
    numbers = range(1, dimension + 1)
    return first + ["PC %d" % i for i in numbers] + ["z %d" % i for i in numbers]


def axis_values(name: str, z: np.ndarray, xy: Optional[np.ndarray] = None) -> Tuple[np.ndarray, str]:
    """Values [n] of the axis `name`, and its label.

    Parameters
    ----------
    name : str, one of `axis_names`.
    z : [n, D]
    xy : [n, 2] or None, the embedding.
    """
    number = int(name.split()[-1]) - 1
    if name.startswith("PC "):
        axes = principal_axes(z)
        label = "%s  (%.1f %% of the variance)" % (name, 100 * axes.explained[number])
        return axes.coordinates(z, number + 1)[:, number], label
    return (z[:, number], name) if name.startswith("z ") or xy is None else (xy[:, number], name)


def colour_names(has_clusters: bool) -> List[str]:
    """What points can be coloured by."""
    return [DENSITY] + ([CLUSTER] if has_clusters else []) + [HELD_OUT, GAIN, UNCERTAINTY, DEFOCUS, TILT]


def colour_values(name: str, latents: Latents, star: str = "") -> Tuple[Optional[np.ndarray], str]:
    """Values [n] to colour the latent points by, and their label; None for the density.

    Parameters
    ----------
    name : str, one of `colour_names` but the cluster.
    latents : Latents
    star : str, star file of the particles, for defocus and tilt angle.
    """
    if name == DENSITY:
        return None, ""
    if name == HELD_OUT:
        return latents.held_out.astype(int), name
    if name == GAIN:
        return latents.agreement - latents.neutral_agreement, "agreement above the neutral model (nats)"
    if name == UNCERTAINTY:
        return np.sqrt(np.mean(latents.z_std ** 2, axis=1)), "uncertainty of z (rms standard deviation)"
    column, scale, label = {DEFOCUS: ("rlnDefocusU", 1e-4, "defocus (µm)"),
                            TILT: ("rlnAngleTilt", 1.0, "tilt angle (°)")}[name]
    return scale * star_column(star, column, latents.ids), label


def star_column(path: str, column: str, ids: np.ndarray) -> np.ndarray:
    """A column of a star file's particles, for particle ids (rlnImageId, else the row number from 1): [n]
    float.

    Raises
    ------
    NothingToShow
        when the file or the column does not exist, or lacks an id.
    """
    from emtable import Table
    if not os.path.exists(path):
        raise NothingToShow("The particles' star file '%s' does not exist any more, and with it '%s'."
                            % (path, column))
    values = {}
    for number, row in enumerate(Table.iterRows(path, tableName="particles", guessType=False), 1):
        if not hasattr(row, column):
            raise NothingToShow("The star file '%s' has no column %s." % (path, column))
        values[int(getattr(row, "rlnImageId", number))] = float(getattr(row, column))
    try:
        return np.array([values[int(one)] for one in ids])
    except KeyError as error:
        raise NothingToShow("Particle %s of the run is not in '%s': the star file has changed since."
                            % (error, path)) from None


def star_of(train_folder: str) -> str:
    """Star file of the particles of a train run; empty when the run has none."""
    return rundir.read_json(os.path.join(train_folder, rundir.CONFIG)).get("particles", "")


def draw_latents(figure: Figure, x: np.ndarray, y: np.ndarray, values: Optional[np.ndarray],
                 labels: Tuple[str, str, str], categories: bool = False) -> None:
    """Scatter plot of latent points that stays readable and quick with 400,000 of them.

    Parameters
    ----------
    figure : matplotlib Figure
    x, y : [n]
    values : [n] or None; colours; None draws the density.
    labels : (x label, y label, colour label).
    categories : bool, True where `values` are whole numbers that name categories.
    """
    axes = figure.subplots()
    plain(axes, "Latent points", labels[0], labels[1])
    limits = inner_limits(x) + inner_limits(y)
    hexagons = dict(cmap=VALUES, linewidths=0, extent=limits)
    if values is None:
        size = int(np.clip(np.sqrt(len(x)), 20, 90))
        points = axes.hexbin(x, y, gridsize=size, bins="log", mincnt=1, **hexagons)
        figure.colorbar(points, ax=axes, label="points", shrink=0.8)
    elif categories:
        _draw_categories(axes, x, y, values, labels[2])
    else:
        low, high = np.quantile(values, [0.02, 0.98])
        if len(x) > MOST_DOTS:
            points = axes.hexbin(x, y, C=values, gridsize=110, vmin=low, vmax=high, **hexagons)
            label = "mean " + labels[2]
        else:
            points = axes.scatter(x, y, c=values, s=7, cmap=VALUES, vmin=low, vmax=high, linewidths=0,
                                  rasterized=True)
            label = labels[2]
        figure.colorbar(points, ax=axes, label=label, shrink=0.8)
    axes.set(xlim=limits[:2], ylim=limits[2:])
    axes.annotate("{:,} points".format(len(x)), (1, 1), xycoords="axes fraction", xytext=(-3, 6),
                  textcoords="offset points", ha="right", fontsize=9, color=INK)


def _draw_categories(axes: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, label: str) -> None:
    """Points in the colours of their categories; a random sample of very many."""
    rows: Any = np.arange(len(x))
    if len(x) > MOST_DOTS:
        rows = np.random.default_rng(0).choice(len(x), MOST_DOTS, replace=False)
    names = {0: "training", 1: "held out"} if label == HELD_OUT else {0: "in no cluster"}
    for value in np.unique(values):
        inside = rows[values[rows] == value]
        name = names.get(int(value), "%s %d" % (label, value))
        label_of_value = "{} ({:,})".format(name, int(np.sum(values == value)))
        axes.scatter(x[inside], y[inside], s=6, color=NO_CLASS if value == 0 else class_colour(value),
                     alpha=0.7, linewidths=0, rasterized=True, label=label_of_value)
    axes.legend(frameon=False, fontsize=9, markerscale=2.5, loc="upper left", bbox_to_anchor=(1.0, 1.0),
                title="random sample of {:,}".format(MOST_DOTS) if len(x) > MOST_DOTS else None)
