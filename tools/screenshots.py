"""The pictures of docs/tutorial-scipion.md and docs/reading-the-verdict.md, made again: ``make screenshots``.

The demo's project (``make demo``, with the controls of the training) is opened in Scipion's own window, on a
screen of its own, by the driver of the windows' tests (tests/scipion/gui_driver.py). Of its pictures of the
screen, the windows below are cut out and made small.
"""
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict

import demo
import environment

from gmmhet.engine import rundir

sys.path.insert(0, os.path.join(environment.ROOT, "tests", "scipion"))
from gui_screen import MISSING, screen

PICTURES = os.path.join(environment.ROOT, "docs", "pictures")
SHOTS = os.path.join(demo.OUT, "screenshots")
#: large enough for every window to lie on it as a whole
SIZE = "1800x1250"
FRAME = 1, 19       # border and title of a window (px), by which xdotool places its inside too far
MOST_BYTES, MOST_COLOURS = 60000, 64
FIT, TRAIN, REFINE, ANALYZE, RECONSTRUCT = LABELS = (
    "Fit: the neutral Gaussian model", "Train: one latent point per particle, and the decoder",
    "Refine: each pose against its own conformation", "Analyze: landscape, clusters, trajectories",
    "Reconstruct: the particles of each cluster, with half maps")

#: picture -> (what the driver did, title of the window, width in px)
WANTED = {
    "project.png": (TRAIN + ", selected", "* (* on *)", 900),
    "fit-form.png": (FIT + ", form", "*Protocol Run*", 700),
    "fit-gaussians.png": (FIT + ", showGaussians", "*: Gaussians", 900),
    "train-form.png": (TRAIN + ", form", "*Protocol Run*", 700),
    "train-viewer.png": (TRAIN + ", viewer", "*Protocol Viewer*", 520),
    "train-evidence.png": (TRAIN + ", showEvidence", "*: evidence", 940),
    "analyze-form.png": (ANALYZE + ", form", "*Protocol Run*", 700),
    "analyze-arrows.png": (ANALYZE + ", showArrows", "*: displacements along pc1", 900),
    "analyze-series.png": (ANALYZE + ", showSeries", "*: maps along pc1", 900),
    "reconstruct-slices.png": (RECONSTRUCT + ", showSlices", "*: slices", 560),
}


def make_project() -> str:
    """Path of the demo's project, made where it is not there or lacks the controls of the training."""
    def path() -> str:
        return os.path.join(demo.USER_DATA, "projects", demo.PROJECT)
    if not has_controls(path()):
        program = os.path.join(environment.ROOT, "tools", "demo.py")
        subprocess.run([sys.executable, program, "--controls"], check=True)
    return path()


def has_controls(project: str) -> bool:
    """Whether the demo's project has a finished training with both controls, and all five protocols."""
    runs = os.path.join(project, "Runs")
    folders = sorted(os.listdir(runs)) if os.path.isdir(runs) else []
    trained = [os.path.join(runs, name) for name in folders if name.endswith("GmmHetProtTrain")]
    if not trained or not any(name.endswith("GmmHetProtReconstruct") for name in folders):
        return False
    summary = rundir.read_json(os.path.join(trained[0], "extra", "train", rundir.SUMMARY))
    return {"null", "half_sets"} <= set(summary)


def drive(project: str) -> Dict[str, Dict[str, Any]]:
    """Use the project's window; the driver's report by the name of what was done."""
    shutil.rmtree(SHOTS, ignore_errors=True)
    os.makedirs(SHOTS)
    driver = os.path.join(environment.ROOT, "tests", "scipion", "gui_driver.py")
    with screen(SIZE) as display:
        surroundings = dict(os.environ, DISPLAY=display, MPLBACKEND="TkAgg")
        subprocess.run([sys.executable, driver, project, SHOTS, *LABELS], check=False, env=surroundings,
                       cwd=tempfile.gettempdir(), stdin=subprocess.DEVNULL, timeout=600)
    with open(os.path.join(SHOTS, "report.json"), encoding="utf-8") as file:
        entries = json.load(file)
    errors = [entry["error"] for entry in entries if "error" in entry]
    if errors:
        sys.exit(errors[0])
    return {entry["name"]: entry for entry in entries}


def cut(entry: Dict[str, Any], title: str, width: int, path: str) -> None:
    """Cut the inside of the window of this title out of a picture of the screen; small, in few colours."""
    (name,) = fnmatch.filter(entry["places"], title)
    left, top, across, down = entry["places"][name]
    window = "%dx%d+%d+%d" % (across, down, left - FRAME[0], top - FRAME[1])
    few = ["-dither", "None", "-colors", str(MOST_COLOURS), "-strip"]
    subprocess.run(["convert", entry["shot"], "-crop", window, "+repage", "-resize", "%dx>" % width, *few,
                    "PNG8:" + path], check=True)
    size = os.path.getsize(path)
    print("%6d bytes  %s" % (size, os.path.relpath(path, environment.ROOT)))
    if size > MOST_BYTES:
        sys.exit("%s is larger than %d bytes: make it narrower in WANTED" % (path, MOST_BYTES))


def main() -> None:
    if MISSING:
        sys.exit("not installed: apt-get install %s" % " ".join(MISSING))
    environment.apply(demo.USER_DATA)
    report = drive(make_project())
    os.makedirs(PICTURES, exist_ok=True)
    for name, (act, title, width) in WANTED.items():
        cut(report[act], title, width, os.path.join(PICTURES, name))


if __name__ == "__main__":
    main()
