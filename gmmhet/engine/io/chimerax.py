"""Scripts for ChimeraX that show maps, Gaussians and their motion in one frame.

Our maps have origin zero in their headers and Gaussians are in Å from the box centre, so every script moves a
map's centre to zero. Paths in a script are relative to its folder, which ChimeraX changes to when it runs
one: a run can be copied elsewhere with its scripts.
"""
import os
from typing import Iterable, List, Sequence, Tuple

#: a command of ChimeraX, and the files that take the place of its %s
Command = Tuple[str, ...]


def centred(box: int, pixel_size: float) -> str:
    """Option of the volume command that puts the box centre (voxel L // 2) at zero."""
    return "origin %.4f,%.4f,%.4f" % ((-(box // 2) * pixel_size,) * 3)


def map_commands(path: str, box: int, pixel_size: float, cif: str) -> List[Command]:
    """Commands that show a map, and pseudo-atoms in it.

    Parameters
    ----------
    path : str, the map.
    box : int, L of the map.
    pixel_size : float, Å/px.
    cif : str, path of the pseudo-atoms.

    Returns
    -------
    list of Command, for `write_script`.
    """
    return [("open %s", path), ("volume #1 %s style surface" % centred(box, pixel_size),),
            ("transparency #1 50",), ("open %s", cif), ("hide #2 cartoons",), ("show #2 atoms",),
            ("style #2 sphere",), ("color #2 orange",), ("view",)]


def series_commands(maps: Sequence[str], box: int, pixel_size: float, cif: str = "",
                    bild: str = "") -> List[Command]:
    """Commands that play a series of maps; for a motion they also show its arrows and load its pseudo-atoms,
    hidden.

    Parameters
    ----------
    maps : list of paths, in order.
    box : int, L of the maps.
    pixel_size : float, Å/px.
    cif, bild : str, paths of a motion's pseudo-atoms, with a model for every map, and its arrows; or empty.

    Returns
    -------
    list of Command, for `write_script`.
    """
    commands: List[Command] = [
        ("open " + " ".join(["%s"] * len(maps)) + " vseries true", *maps),
        ("volume #1 %s style surface" % centred(box, pixel_size),), ("transparency #1 50",)]
    if bild:
        commands += [("open %s", bild), ("open %s coordsets true", cif), ("hide #3 models",)]
    return [*commands, ("view",), ("vseries play #1 loop true direction oscillate maxFrameRate 6",)]


def write_script(path: str, commands: Iterable[Command]) -> None:
    """Write commands to the file `path` (.cxc)."""
    folder = os.path.dirname(os.path.abspath(path))
    with open(path, "w", encoding="utf-8") as file:
        for command, *files in commands:
            quoted = tuple('"%s"' % os.path.relpath(name, folder) for name in files)
            file.write((command % quoted if files else command) + "\n")
