"""Latent points with a choice of axes and colours."""
import os

import numpy as np

from gmmhet.engine import rundir
from gmmhet.viewers.drawing import INK, NothingToShow, colour, middle, plain

FEW = 20000                     # above this, points are drawn as averages over hexagons, or as a sample where colours are classes
DENSITY, CLUSTER, HELD_OUT, GAIN, SPREAD, DEFOCUS, TILT = (
    "density of points", "cluster", "held out", "agreement gain", "uncertainty of z", "defocus", "tilt angle")
CLASSES = (CLUSTER, HELD_OUT)   # colours that are classes


def read_arrays(path):
    """All arrays of an npz.

    Raises
    ------
    NothingToShow
        when the file is not there.
    """
    if not os.path.exists(path):
        raise NothingToShow("There is no %s yet: it is written when the run has finished." % path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def principal_coordinates(z):
    """Coordinates [n, D] of latent points on their principal axes, and the fraction of the variance on each [D]."""
    centred = np.asarray(z, float) - np.mean(z, axis=0)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(centred, rowvar=False)))
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(vectors))])
    return centred @ vectors, values / max(values.sum(), 1e-300)


def axis_names(dimension, embedding=""):
    """What can be drawn across and upwards: the embedding's two axes where there is one, principal axes, components of z."""
    first = ["%s %d" % (embedding, i) for i in (1, 2)] if embedding else []
    return first + ["PC %d" % (i + 1) for i in range(dimension)] + ["z %d" % (i + 1) for i in range(dimension)]


def axis_values(name, z, xy=None):
    """Values [n] of the axis called `name`, and its label."""
    number = int(name.split()[-1]) - 1
    if name.startswith("PC "):
        coordinates, explained = principal_coordinates(z)
        return coordinates[:, number], "%s  (%.1f %% of the variance)" % (name, 100 * explained[number])
    return (z[:, number], name) if name.startswith("z ") else (xy[:, number], name)


def colour_names(has_clusters):
    """What points can be coloured by."""
    return [DENSITY] + ([CLUSTER] if has_clusters else []) + [HELD_OUT, GAIN, SPREAD, DEFOCUS, TILT]


def colour_values(name, latents, star=""):
    """Values [n] to colour the latent points by, and their label; None for the density.

    Parameters
    ----------
    name : str, one of `colour_names` but the cluster.
    latents : dict of the arrays of latents.npz.
    star : str, star file of the particles, for defocus and tilt angle.
    """
    if name == DENSITY:
        return None, ""
    if name == HELD_OUT:
        return latents["held_out"].astype(int), name
    if name == GAIN:
        return latents["agreement"] - latents["neutral_agreement"], "agreement gain over the neutral model"
    if name == SPREAD:
        return np.sqrt(np.mean(latents["z_std"] ** 2, axis=1)), "uncertainty of z (rms)"
    column, scale, label = {DEFOCUS: ("rlnDefocusU", 1e-4, "defocus (µm)"), TILT: ("rlnAngleTilt", 1.0, "tilt angle (°)")}[name]
    return scale * star_column(star, column, latents["id"]), label


def star_column(path, column, ids):
    """A column of a star file's particles for the given ids (rlnImageId, else the row number from 1): [n] float.

    Raises
    ------
    NothingToShow
        when the file or the column is not there, or lacks an id.
    """
    from emtable import Table
    if not os.path.exists(path):
        raise NothingToShow("The particles' star file '%s' is not there any more, so '%s' is not known." % (path, column))
    known = {}
    for number, row in enumerate(Table.iterRows(path, tableName="particles", guessType=False), 1):
        if not hasattr(row, column):
            raise NothingToShow("The star file '%s' has no column %s." % (path, column))
        known[int(getattr(row, "rlnImageId", number))] = float(getattr(row, column))
    try:
        return np.array([known[int(one)] for one in ids])
    except KeyError as error:
        raise NothingToShow("Particle %s of the run is not in '%s': the star file has changed since." % (error, path)) from None


def star_of(train_folder):
    """Star file of the particles of a train run."""
    return rundir.read_json(os.path.join(train_folder, rundir.CONFIG)).get("particles", "")


def draw_latents(figure, x, y, values, labels, classes=False):
    """Scatter of latent points that stays readable and quick with 400,000 of them.

    Parameters
    ----------
    figure : matplotlib Figure
    x, y : [n]
    values : [n] or None; colours; None draws the density.
    labels : (x label, y label, colour label).
    classes : bool, True where `values` are whole numbers that name classes.
    """
    axes = figure.subplots()
    plain(axes, "Latent points", labels[0], labels[1])
    limits = middle(x) + middle(y)
    if values is None:
        size = int(np.clip(np.sqrt(len(x)), 20, 90))
        shown = axes.hexbin(x, y, gridsize=size, bins="log", mincnt=1, cmap="viridis", linewidths=0, extent=limits)
        figure.colorbar(shown, ax=axes, label="points", shrink=0.8)
    elif classes:
        _draw_classes(axes, x, y, values, labels[2])
    elif len(x) > FEW:
        low, high = np.quantile(values, [0.02, 0.98])
        shown = axes.hexbin(x, y, C=values, gridsize=110, cmap="viridis", linewidths=0, vmin=low, vmax=high, extent=limits)
        figure.colorbar(shown, ax=axes, label="mean " + labels[2], shrink=0.8)
    else:
        low, high = np.quantile(values, [0.02, 0.98])
        shown = axes.scatter(x, y, c=values, s=7, cmap="viridis", vmin=low, vmax=high, linewidths=0, rasterized=True)
        figure.colorbar(shown, ax=axes, label=labels[2], shrink=0.8)
    axes.set(xlim=limits[:2], ylim=limits[2:])
    axes.annotate("{:,} points".format(len(x)), (1, 1), xycoords="axes fraction", xytext=(-3, 6), textcoords="offset points", ha="right",
                  fontsize=9, color=INK)


def _draw_classes(axes, x, y, values, label):
    """Points in the colours of their classes; a fair sample of very many."""
    rows = np.arange(len(x))
    if len(x) > FEW:
        rows = np.random.default_rng(0).choice(len(x), FEW, replace=False)
    words = {0: "learned from", 1: "held out"} if label == HELD_OUT else {0: "in no cluster"}
    for one in np.unique(values):
        chosen = rows[values[rows] == one]
        tint = "#b4bec6" if one == 0 else colour(one)
        axes.scatter(x[chosen], y[chosen], s=6, color=tint, alpha=0.7, linewidths=0, rasterized=True,
                     label="{} ({:,})".format(words.get(int(one), "%s %d" % (label, one)), int(np.sum(values == one))))
    axes.legend(frameon=False, fontsize=9, markerscale=2.5, loc="upper left", bbox_to_anchor=(1.0, 1.0),
                title="%d of %d shown" % (FEW, len(x)) if len(x) > FEW else None)
