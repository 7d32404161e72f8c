"""Trajectories: maps along a line in latent space, and how far each Gaussian moves."""
import os
from typing import Any, Dict, List, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from gmmhet.engine import rundir
from gmmhet.engine.palette import AMPLITUDE, FAINT, INK, LEAST_MOTION_ANGST, LENGTHS, MOTION, SIGNED
from gmmhet.viewers.drawing import NothingToShow, plain
from gmmhet.viewers.maps import VIEWS, Map, picture, reach, read_map

#: arrows are not drawn when they are shorter than this fraction of the longest, or than this length
SHORTEST_ARROW, SHORTEST_ARROW_ANGST = 0.1, 1e-3
#: so that a view of many Gaussians stays readable and quick
MOST_ARROWS = 1500


def trajectory_names(folder: str) -> List[str]:
    """Trajectories of an analyze run, in the order of its parameter `line`."""
    return list(rundir.read_json(os.path.join(folder, rundir.SUMMARY)).get("trajectories", []))


def point_files(folder: str, name: str, ending: str) -> List[str]:
    """Files of a trajectory's points, in order.

    Raises
    ------
    NothingToShow
        when there is none.
    """
    paths: List[str] = []
    while True:
        path = os.path.join(folder, rundir.trajectory(name), rundir.point(len(paths) + 1, ending))
        if not os.path.exists(path):
            break
        paths.append(path)
    if not paths:
        raise NothingToShow("Trajectory '%s' has no %s files in %s."
                            % (name, rundir.point(1, ending), folder))
    return paths


def end_centers(folder: str, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Centres [N, 3] (Å) of the Gaussians at a trajectory's first and last point."""
    models = point_files(folder, name, ".npz")
    with np.load(models[0], allow_pickle=False) as first, np.load(models[-1], allow_pickle=False) as last:
        return np.asarray(first["centers"], float), np.asarray(last["centers"], float)


def draw_displacements(figure: Figure, density: Map, start: np.ndarray, end: np.ndarray) -> None:
    """Arrows of the Gaussians over three projections of a map.

    Parameters
    ----------
    figure : matplotlib Figure
    density : Map
    start, end : [N, 3], centres in Å.
    """
    length = np.linalg.norm(end - start, axis=1)
    longest = max(float(length.max()), 1e-9)
    rows = np.flatnonzero((length >= SHORTEST_ARROW * longest) & (length > SHORTEST_ARROW_ANGST))
    rows = rows[np.argsort(length[rows])][-MOST_ARROWS:]
    room = max(reach(density), 1.1 * float(np.abs(end[rows]).max(initial=0.0)))
    panels, arrows = figure.subplots(1, 3), None
    style = dict(angles="xy", scale_units="xy", scale=1, cmap=LENGTHS, norm=Normalize(0, longest),
                 width=0.006, headwidth=3.5, headlength=4.5)
    for axes, (name, summed, (across, up)) in zip(panels, VIEWS):
        image = density.volume.sum(axis=summed)
        limits = (0.0, 1.8 * max(float(image.max()), 1e-12))
        picture(axes, image, density.pixel_size, "projection " + name, limits, room)
        if len(rows):
            tail, change = start[rows], (end - start)[rows]
            arrows = axes.quiver(tail[:, across], tail[:, up], change[:, across], change[:, up],
                                 length[rows], **style)
        axes.set(xlabel="xyz"[across] + " (Å)", ylabel="xyz"[up] + " (Å)")
    if arrows is not None:
        figure.colorbar(arrows, ax=panels, label="displacement from first to last point (Å)", shrink=0.7)
    else:
        panels[1].annotate("no Gaussian moves", (0.5, 0.03), xycoords="axes fraction", ha="center", color=INK)


def draw_series(figure: Figure, maps: List[str], titles: List[str]) -> None:
    """Projections of the maps along a trajectory, one column per point, above their difference from the first
    point.

    Parameters
    ----------
    figure : matplotlib Figure
    maps : list of paths.
    titles : list of str, one per map.
    """
    densities = [read_map(path) for path in maps]
    pixel_size = densities[0].pixel_size
    change = densities[-1].volume - densities[0].volume
    strength = [np.sum(change.sum(axis=axis) ** 2) for axis in range(3)]
    summed = int(np.argmax(strength))       # the direction of view in which the change shows most
    room = reach(Map(np.max([density.volume for density in densities], axis=0), pixel_size))
    images = [density.volume.sum(axis=summed) for density in densities]
    grid = figure.subplots(2, len(images), squeeze=False)
    limits = (0.0, max(float(np.max(images)), 1e-12))
    most = max(float(np.max(np.abs(images - images[0]))), 1e-12)
    for column, (image, title) in enumerate(zip(images, titles)):
        picture(grid[0, column], image, pixel_size, title, limits, room)
        picture(grid[1, column], image - images[0], pixel_size, reach_angst=room)
        grid[1, column].images[0].set(cmap=SIGNED, clim=(-most, most))
    grid[0, 0].set_ylabel("projection " + VIEWS[summed][0], color=INK)
    grid[1, 0].set_ylabel("minus the first", color=INK)


def draw_directions(axes: Axes, directions: Dict[str, Dict[str, Any]]) -> None:
    """Bars of what each latent direction changes in the model from end to end: rms motion, or the amplitude
    change where nothing moves.

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
    top = max([*lengths, 1e-9])
    axes.barh(range(len(names)), lengths, color=MOTION if moves else AMPLITUDE, height=0.66)
    for place in range(len(names)):
        text = "%.2f Å, amplitudes %.1f %%" % (motion[place], amplitude[place])
        axes.text(lengths[place] + 0.015 * top, place, text, va="center", fontsize=9, color=INK)
    plain(axes, "Change of the model from end to end (rms)",
          "Motion of the Gaussians (Å)" if moves else "Change of the amplitudes (%)")
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.45 * top))
    axes.spines["left"].set_color(FAINT)
    axes.invert_yaxis()
