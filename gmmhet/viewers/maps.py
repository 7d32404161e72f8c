"""Maps as pictures: projections with Gaussians over them, and rows of slices."""
from typing import List, NamedTuple, Optional, Tuple

import mrcfile
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gmmhet.engine.palette import GREYS, INK, RED
from gmmhet.viewers.drawing import NothingToShow

#: the three views: name, axis of the array [z, y, x] that is summed, columns of centres [N, 3] (x, y, z) that
#: run across and upwards
VIEWS = (("along z", 0, (0, 1)), ("along y", 1, (0, 2)), ("along x", 2, (1, 2)))
#: fraction of the highest density above which a map counts as molecule, and what is left free around it
MOLECULE, MARGIN = 0.03, 1.15


class Map(NamedTuple):
    """A map [L, L, L], indexed [z, y, x], and its pixel size (Å/px)."""

    volume: np.ndarray
    pixel_size: float


def read_map(path: str) -> Map:
    """A map file as float32.

    Raises
    ------
    NothingToShow
        when the file does not exist or cannot be read.
    """
    try:
        with mrcfile.open(path, permissive=True) as file:
            return Map(np.array(file.data, np.float32), float(file.voxel_size.x))
    except (OSError, ValueError, TypeError):
        raise NothingToShow("There is no readable map %s: it is written when the run has finished."
                            % path) from None


def extent(box: int, pixel_size: float) -> Tuple[float, float, float, float]:
    """Edges (left, right, bottom, top) of a picture of `box` pixels, Å from the box centre (pixel L // 2)."""
    low = -(box // 2 + 0.5) * pixel_size
    return low, low + box * pixel_size, low, low + box * pixel_size


def reach(density: Map) -> float:
    """Largest |x|, |y| or |z| (Å) of a map's molecule, with a margin; half the box at most."""
    volume, pixel_size = density
    half = 0.5 * len(volume) * pixel_size
    places = np.argwhere(volume > MOLECULE * volume.max())
    return min(MARGIN * float(np.abs(places - len(volume) // 2).max(initial=0)) * pixel_size, half) or half


def picture(axes: Axes, image: np.ndarray, pixel_size: float, title: str = "",
            limits: Optional[Tuple[float, float]] = None, reach_angst: Optional[float] = None) -> None:
    """One grey picture [L, L] in Å from the box centre, dark where there is density; cut to `reach_angst`
    around the centre."""
    low, high = limits or (0.0, max(float(image.max()), 1e-12))
    axes.imshow(image, origin="lower", extent=extent(len(image), pixel_size), cmap=GREYS, vmin=low,
                vmax=high, interpolation="bicubic")
    axes.set_title(title, fontsize=10, color=INK)
    if reach_angst:
        axes.set(xlim=(-reach_angst, reach_angst), ylim=(-reach_angst, reach_angst))
    axes.set(xticks=[], yticks=[])


def draw_views(figure: Figure, density: Map, centers: np.ndarray) -> None:
    """Three projections of a map in a row, with the centres [N, 3] (Å) of Gaussians as dots."""
    room, size = reach(density), max(2.0, min(14.0, 6000.0 / len(centers)))
    for axes, (name, summed, (across, up)) in zip(figure.subplots(1, 3), VIEWS):
        picture(axes, density.volume.sum(axis=summed), density.pixel_size, "projection " + name,
                reach_angst=room)
        axes.scatter(centers[:, across], centers[:, up], s=size, color=RED, alpha=0.55, linewidths=0)
        axes.set(xlabel="xyz"[across] + " (Å)", ylabel="xyz"[up] + " (Å)")


def draw_slices(figure: Figure, maps: List[Tuple[str, Map]]) -> None:
    """Central slices of several maps with their titles: one column per map, one row per direction, one grey
    scale per row."""
    grid = figure.subplots(3, len(maps), squeeze=False)
    room = max(reach(density) for _, density in maps)
    for row, (name, cut, _) in zip(grid, VIEWS):
        slices = [np.take(density.volume, len(density.volume) // 2, axis=cut) for _, density in maps]
        limits = (0.0, max(max(float(np.percentile(image, 99.8)) for image in slices), 1e-12))
        for axes, (title, density), image in zip(row, maps, slices):
            picture(axes, image, density.pixel_size, title if cut == 0 else "", limits, room)
        row[0].set_ylabel("slice across " + name[-1], color=INK)
