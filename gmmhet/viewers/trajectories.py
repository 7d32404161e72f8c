"""Trajectories: maps along a line of latent space, and how far each Gaussian moves."""
import os

import numpy as np
from matplotlib.colors import Normalize

from gmmhet.engine import rundir
from gmmhet.viewers.drawing import FAINT, INK, NothingToShow, plain
from gmmhet.viewers.maps import VIEWS, picture, reach, read_map

SMALLEST_ARROW = 0.1        # of the longest; shorter ones are not drawn
LEAST_MOTION_ANGST = 0.02   # below it, a model counts as one in which only amplitudes vary
MOST_ARROWS = 1500          # so that a view of many Gaussians stays readable and quick


def trajectory_names(folder):
    """Trajectories of an analyze run, in the order they were asked for."""
    return list(rundir.read_json(os.path.join(folder, rundir.SUMMARY)).get("trajectories", []))


def point_files(folder, name, ending):
    """Files of a trajectory's points, in order: list of paths.

    Raises
    ------
    NothingToShow
        when there is none.
    """
    found, number = [], 1
    while os.path.exists(os.path.join(folder, rundir.trajectory(name), rundir.point(number, ending))):
        found.append(os.path.join(folder, rundir.trajectory(name), rundir.point(number, ending)))
        number += 1
    if not found:
        raise NothingToShow("Trajectory '%s' has no %s files in %s." % (name, rundir.point(1, ending), folder))
    return found


def end_centers(folder, name):
    """Centres [N, 3] (Å) of the Gaussians at a trajectory's first and last point."""
    models = point_files(folder, name, ".npz")
    ends = []
    for path in (models[0], models[-1]):
        with np.load(path, allow_pickle=False) as file:
            ends.append(np.asarray(file["centers"], float))
    return ends


def draw_displacements(figure, volume, pixel_size, start, end):
    """Arrows of the Gaussians over three projections of a map.

    Parameters
    ----------
    figure : matplotlib Figure
    volume : [L, L, L], indexed [z, y, x].
    pixel_size : float, Å/px.
    start, end : [N, 3], centres in Å.
    """
    length = np.linalg.norm(end - start, axis=1)
    longest = max(float(length.max()), 1e-9)
    shown = np.flatnonzero((length >= SMALLEST_ARROW * longest) & (length > 1e-3))
    shown = shown[np.argsort(length[shown])][-MOST_ARROWS:]
    room = max(reach(volume, pixel_size), 1.1 * float(np.abs(end[shown]).max(initial=0.0)))
    row = figure.subplots(1, 3)
    drawn = None
    for axes, (name, summed, (across, up)) in zip(row, VIEWS):
        image = volume.sum(axis=summed)
        picture(axes, image, pixel_size, "projection " + name, (0.0, 1.8 * max(float(image.max()), 1e-12)), room)
        if len(shown):
            drawn = axes.quiver(start[shown, across], start[shown, up], (end - start)[shown, across], (end - start)[shown, up],
                                length[shown],
                                angles="xy", scale_units="xy", scale=1, cmap="plasma_r", norm=Normalize(0, longest), width=0.006,
                                headwidth=3.5, headlength=4.5)
        axes.set(xlabel="xyz"[across] + " (Å)", ylabel="xyz"[up] + " (Å)")
    if drawn is not None:
        figure.colorbar(drawn, ax=row, label="displacement from first to last point (Å)", shrink=0.7)
    else:
        row[1].annotate("no Gaussian moves", (0.5, 0.03), xycoords="axes fraction", ha="center", color=INK)


def draw_series(figure, maps, titles):
    """Projections of the maps along a trajectory, one column per point, above their difference from the first point.

    Parameters
    ----------
    figure : matplotlib Figure
    maps : list of paths.
    titles : list of str, one per map.
    """
    volumes = [read_map(path) for path in maps]
    pixel_size = volumes[0][1]
    change = volumes[-1][0] - volumes[0][0]
    summed = int(np.argmax([np.sum(change.sum(axis=axis) ** 2) for axis in range(3)]))     # the direction in which the change shows most
    room = reach(np.max([volume for volume, _ in volumes], axis=0), pixel_size)
    images = [volume.sum(axis=summed) for volume, _ in volumes]
    grid = figure.subplots(2, len(images), squeeze=False)
    limits = (0.0, max(float(np.max(images)), 1e-12))
    most = max(float(np.max(np.abs(images - images[0]))), 1e-12)
    for column, (image, title) in enumerate(zip(images, titles)):
        picture(grid[0, column], image, pixel_size, title, limits, room)
        picture(grid[1, column], image - images[0], pixel_size, reach=room)
        grid[1, column].images[0].set(cmap="RdBu_r", clim=(-most, most))
    grid[0, 0].set_ylabel("projection " + VIEWS[summed][0], color=INK)
    grid[1, 0].set_ylabel("minus the first", color=INK)


def draw_directions(axes, directions):
    """Bars of what each direction does to the model from end to end: rms motion, or the amplitude change where nothing moves.

    Parameters
    ----------
    axes : matplotlib Axes
    directions : dict of name to dict with motion_rms_angst and amplitude_rms.
    """
    names = list(directions)
    motion = [directions[name]["motion_rms_angst"] for name in names]
    amplitude = [100 * directions[name]["amplitude_rms"] for name in names]
    moves = max(motion) >= LEAST_MOTION_ANGST
    lengths = motion if moves else amplitude
    top = max(lengths + [1e-9])
    axes.barh(range(len(names)), lengths, color="#3a7d44" if moves else "#8a6d9f", height=0.66)
    for place in range(len(names)):
        axes.text(lengths[place] + 0.015 * top, place, "%.2f Å, amplitudes %.1f %%" % (motion[place], amplitude[place]), va="center",
                  fontsize=9, color=INK)
    plain(axes, "Change of the model from end to end (rms)", "Motion of the Gaussians (Å)" if moves else "Change of the amplitudes (%)")
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.45 * top))
    axes.spines["left"].set_color(FAINT)
    axes.invert_yaxis()
