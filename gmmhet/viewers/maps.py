"""Maps as pictures: projections with Gaussians over them, and rows of slices."""
import mrcfile
import numpy as np

from gmmhet.viewers.drawing import INK, RED, NothingToShow

#: the three views: name, axis of the array [z, y, x] that is summed, columns of centres [N, 3] (x, y, z) drawn across and upwards
VIEWS = (("along z", 0, (0, 1)), ("along y", 1, (0, 2)), ("along x", 2, (1, 2)))


def read_map(path):
    """A map as float32 [z, y, x] and its pixel size (Å/px)."""
    try:
        with mrcfile.open(path, permissive=True) as file:
            return np.array(file.data, np.float32), float(file.voxel_size.x)
    except (OSError, ValueError, TypeError):
        raise NothingToShow("There is no readable map %s: it is written when the run has finished." % path) from None


def extent(box, pixel_size):
    """Edges (left, right, bottom, top) of a picture of `box` pixels, Å from the box centre (pixel L // 2)."""
    low = -(box // 2 + 0.5) * pixel_size
    return low, low + box * pixel_size, low, low + box * pixel_size


def reach(volume, pixel_size):
    """Largest |x|, |y| or |z| (Å) of density above 3 % of the highest, with a margin; half the box at most."""
    half = 0.5 * len(volume) * pixel_size
    places = np.argwhere(volume > 0.03 * volume.max())
    return min(1.15 * float(np.abs(places - len(volume) // 2).max(initial=0)) * pixel_size, half) or half


def picture(axes, image, pixel_size, title="", limits=None, reach=None):
    """One grey picture [L, L] in Å from the box centre, dark where there is density; cut to `reach` Å around the centre."""
    low, high = limits or (0.0, max(float(image.max()), 1e-12))
    axes.imshow(image, origin="lower", extent=extent(len(image), pixel_size), cmap="Greys", vmin=low, vmax=high, interpolation="bicubic")
    axes.set_title(title, fontsize=10, color=INK)
    if reach:
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set(xticks=[], yticks=[])


def draw_views(figure, volume, pixel_size, centers=None):
    """Three projections of a map in a row, with the Gaussians' centres as dots.

    Parameters
    ----------
    figure : matplotlib Figure
    volume : [L, L, L], indexed [z, y, x].
    pixel_size : float, Å/px.
    centers : [N, 3] or None, Å.
    """
    row = figure.subplots(1, 3)
    for axes, (name, summed, (across, up)) in zip(row, VIEWS):
        picture(axes, volume.sum(axis=summed), pixel_size, "projection " + name, reach=reach(volume, pixel_size))
        if centers is not None:
            axes.scatter(centers[:, across], centers[:, up], s=max(2.0, min(14.0, 6000.0 / len(centers))), color=RED, alpha=0.55,
                         linewidths=0)
        axes.set(xlabel="xyz"[across] + " (Å)", ylabel="xyz"[up] + " (Å)")
    return row


def draw_slices(figure, maps):
    """Central slices of several maps: one column per map, one row per direction, one grey scale per row.

    Parameters
    ----------
    figure : matplotlib Figure
    maps : list of (title, volume [L, L, L], pixel size in Å/px).
    """
    grid = figure.subplots(3, len(maps), squeeze=False)
    room = max(reach(volume, pixel_size) for _, volume, pixel_size in maps)
    for row, (name, cut, _) in zip(grid, VIEWS):
        slices = [np.take(volume, len(volume) // 2, axis=cut) for _, volume, _ in maps]
        limits = (0.0, max(max(float(np.percentile(image, 99.8)) for image in slices), 1e-12))
        for axes, (title, _, pixel_size), image in zip(row, maps, slices):
            picture(axes, image, pixel_size, title if cut == 0 else "", limits, room)
        row[0].set_ylabel("slice across " + name[-1], color=INK)
    return grid
