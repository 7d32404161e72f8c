"""A screen of its own for windows that a program looks at: their tests, and tools/screenshots.py."""
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import Iterator

PROGRAMS = {"Xvfb": "xvfb", "xdotool": "xdotool", "import": "imagemagick"}
#: Debian packages of the programs that are not installed
MISSING = sorted(package for program, package in PROGRAMS.items() if shutil.which(program) is None)


@contextmanager
def screen(size: str) -> Iterator[str]:
    """A new X display of `size` ("1500x950"), with a window manager where there is one; its name."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", size + "x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    assert number, "Xvfb did not start"
    name, others = ":" + number, []
    if shutil.which("openbox"):
        manager = subprocess.Popen(["openbox"], env=dict(os.environ, DISPLAY=name), stderr=subprocess.DEVNULL)
        others.append(manager)
    try:
        yield name
    finally:
        for process in [*others, server]:
            process.terminate()
            process.wait()
