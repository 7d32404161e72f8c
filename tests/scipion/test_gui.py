"""A real project in Scipion's own window: every form and every viewer opens, under a display of its own.
Pictures go to the folder GMMHET_SCREENSHOTS, where they are to be looked at."""
import json
import os
import subprocess
import sys

import pytest
from gui_screen import MISSING, screen
from matplotlib.image import imread

HERE = os.path.dirname(os.path.abspath(__file__))
pytestmark = [pytest.mark.gui, pytest.mark.slow,
              pytest.mark.skipif(bool(MISSING),
                                 reason="not installed: apt-get install %s" % " ".join(MISSING))]

VIEWERS = {"fit Gaussians": "GmmHetViewerFit", "train heterogeneity": "GmmHetViewerTrain",
           "refine orientations": "GmmHetViewerRefine",
           "analyze landscape": "GmmHetViewerAnalyze", "reconstruct classes": "GmmHetViewerReconstruct"}


@pytest.fixture(scope="module")
def display():
    """A new X display with a window manager where there is one; its name."""
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    with screen("1500x950") as name:
        yield name


@pytest.fixture(scope="module")
def report(runs, project, display, tmp_path_factory):
    """What appeared on the screen: list of dicts with name, shot and windows."""
    shots = os.environ.get("GMMHET_SCREENSHOTS") or str(tmp_path_factory.mktemp("screenshots"))
    os.makedirs(shots, exist_ok=True)
    done = subprocess.run([sys.executable, os.path.join(HERE, "gui_driver.py"), project.path, shots]
                          + list(VIEWERS), check=False,
                          env=dict(os.environ, DISPLAY=display, MPLBACKEND="TkAgg"), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=420)
    path = os.path.join(shots, "report.json")
    assert os.path.exists(path), done.stdout[-4000:]
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def named(report, name):
    found = [entry for entry in report if entry["name"] == name]
    assert found, "'%s' is not among %s" % (name, [entry["name"] for entry in report])
    return found[0]


def test_nothing_went_wrong_in_the_window(report):
    assert [entry["error"] for entry in report if "error" in entry] == []


def test_no_picture_of_the_screen_is_blank(report):
    for entry in report:
        image = imread(entry["shot"])[..., :3]
        assert image.std() > 0.05, entry["name"]


def test_the_project_window_is_scipions(report, project):
    assert any(project.getShortName() in title for title in named(report, "project")["windows"])


@pytest.mark.parametrize("label", VIEWERS)
def test_a_form_and_the_viewer_open_in_windows_of_their_own(report, label):
    assert any("GmmHetProt" in title for title in named(report, label + ", form")["windows"])
    assert any(VIEWERS[label] in title for title in named(report, label + ", viewer")["windows"])


@pytest.mark.parametrize("name, title", [
    ("fit Gaussians, showFsc", "fit Gaussians: FSC"),
    ("fit Gaussians, showGaussians", "fit Gaussians: Gaussians"),
    ("train heterogeneity, showEvidence", "train heterogeneity: evidence"),
    ("train heterogeneity, showHistory", "train heterogeneity: training curves"),
    ("train heterogeneity, showGains", "train heterogeneity: gain of each particle"),
    ("train heterogeneity, showLatents", "train heterogeneity: latent points"),
    ("refine orientations, showChanges", "refine orientations: changes of the orientations"),
    ("analyze landscape, showPage", "analyze landscape: landscape"),
    ("analyze landscape, showLatents", "analyze landscape: latent points"),
    ("analyze landscape, showArrows", "analyze landscape: displacements along pc1"),
    ("analyze landscape, showSeries", "analyze landscape: maps along pc1"),
    ("analyze landscape, showDirections", "analyze landscape: motion along directions"),
    ("reconstruct classes, showFsc", "reconstruct classes: FSC"),
    ("reconstruct classes, showSlices", "reconstruct classes: slices")])
def test_a_button_of_a_viewer_opens_its_picture(report, name, title):
    assert title in named(report, name)["windows"]
