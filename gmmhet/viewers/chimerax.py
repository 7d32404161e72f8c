"""ChimeraX: whether it is there, and the scripts that show maps, Gaussians and their motion in one frame.

Our maps have origin zero in their headers and Gaussians are in Å from the box centre, so every script moves a map's centre to zero.
"""
import os

from pwem.viewers.viewer_chimera import Chimera, ChimeraView

INSTALL = "ChimeraX was not found. Install it with Scipion's 'chimera' plugin, or set CHIMERA_HOME in Scipion's configuration."


def is_installed():
    """Whether Scipion knows a ChimeraX that exists."""
    program = Chimera.getProgram()
    return bool(program) and os.path.exists(program)


def centred(box, pixel_size):
    """Option of the volume command that puts the box centre (voxel L // 2) at zero."""
    return "origin %.4f,%.4f,%.4f" % ((-(box // 2) * pixel_size,) * 3)


def map_commands(maps, box, pixel_size, cif=""):
    """Commands that show maps, centred, and pseudo-atoms where a file is given.

    Parameters
    ----------
    maps : list of paths.
    box : int, L of the maps.
    pixel_size : float, Å/px.
    cif : str, pseudo-atoms, or empty.
    """
    commands = []
    for number, path in enumerate(maps, 1):
        commands += ['open "%s"' % os.path.abspath(path), "volume #%d %s style surface" % (number, centred(box, pixel_size))]
    if cif:
        atoms = "#%d" % (len(maps) + 1)
        commands += ["transparency #1 50", 'open "%s"' % os.path.abspath(cif), "hide %s cartoons" % atoms, "show %s atoms" % atoms,
                     "style %s sphere" % atoms, "color %s orange" % atoms]
    return commands + ["view"]


def trajectory_commands(maps, box, pixel_size, bild, cif):
    """Commands that play a series of maps with the Gaussians' arrows; the moving pseudo-atoms are opened hidden.

    Parameters
    ----------
    maps : list of paths, in order.
    box : int, L of the maps.
    pixel_size : float, Å/px.
    bild, cif : str, paths of motion.bild and motion.cif.
    """
    files = " ".join('"%s"' % os.path.abspath(path) for path in maps)
    return ["open %s vseries true" % files, "volume #1 %s style surface" % centred(box, pixel_size), "transparency #1 50",
            'open "%s"' % os.path.abspath(bild), 'open "%s" coordsets true' % os.path.abspath(cif), "hide #3 models", "view",
            "vseries play #1 loop true direction oscillate maxFrameRate 6"]


def script_view(commands, path):
    """Write the commands to `path` (.cxc) and return the view that starts ChimeraX with it."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(commands) + "\n")
    return ChimeraView(os.path.abspath(path))
