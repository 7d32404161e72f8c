"""ChimeraX: whether it is installed, and how it is started."""
import os
from typing import Iterable

from pwem.viewers.viewer_chimera import Chimera, ChimeraView

INSTALL = ("ChimeraX was not found. Install it with Scipion's 'chimera' plugin, or set CHIMERA_HOME in "
           "Scipion's configuration.")


def is_installed() -> bool:
    """Whether Scipion knows a ChimeraX that exists."""
    program = Chimera.getProgram()
    return bool(program) and os.path.exists(program)


def view(script: str) -> ChimeraView:
    """View that starts ChimeraX with a script (.cxc)."""
    return ChimeraView(os.path.abspath(script))


def map_view(maps: Iterable[str], script: str) -> ChimeraView:
    """View that starts ChimeraX with map files, as surfaces; `script` (.cxc) is written for it."""
    with open(script, "w", encoding="utf-8") as file:
        file.writelines('open "%s"\n' % os.path.abspath(path) for path in maps)
        file.write("volume style surface\nview\n")
    return view(script)
