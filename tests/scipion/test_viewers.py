"""The viewers show what the runs hold; they are driven without a display."""
import json
import os
import re

import finished_runs as truth
import numpy as np
import pytest
from pwem.viewers import EmPlotter
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from gmmhet.engine import rundir
from gmmhet.protocols import (
    GmmHetProtAnalyze,
    GmmHetProtFit,
    GmmHetProtReconstruct,
    GmmHetProtRefine,
    GmmHetProtTrain,
)
from gmmhet.viewers import chimerax
from gmmhet.viewers.viewer_base import GmmHetViewerBase

HERE = os.path.dirname(os.path.abspath(__file__))
#: folder that receives every picture, to be looked at
KEEP = os.environ.get("GMMHET_SCREENSHOTS", "")


def opened(project, protocol, **values):
    """The viewer that 'Analyze results' opens, with its form filled."""
    cls = project.getDomain().findViewers(protocol, DESKTOP_TKINTER)[0]
    viewer = cls(project=project, protocol=protocol)
    viewer.setProtocol(protocol)
    for name, value in values.items():
        param = viewer.getParam(name)
        getattr(viewer, name).set(param.choices.index(value))
    return viewer


def figure_of(project, protocol, button, **values):
    """The figure that a button of a viewer makes."""
    views = opened(project, protocol, **values)._getVisualizeDict()[button](button)
    assert isinstance(views[0], EmPlotter), getattr(views[0], "_msg", views)
    return views[0].getFigure()


def words(figure):
    """Everything that is written in a figure."""
    from matplotlib.text import Text
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("cls", [GmmHetProtAnalyze, GmmHetProtFit, GmmHetProtReconstruct, GmmHetProtRefine,
                                 GmmHetProtTrain])
def test_analyze_results_opens_our_viewer_whose_every_field_has_help(project, cls):
    protocol = project.newProtocol(cls)
    viewer = project.getDomain().findViewers(protocol, DESKTOP_TKINTER)[0]
    assert viewer.__name__ == cls.__name__.replace("Prot", "Viewer")
    assert issubclass(viewer, GmmHetViewerBase)


def test_every_button_of_every_viewer_draws_something(project, runs):
    for label, protocol in runs.items():
        viewer = opened(project, protocol)
        for name, make in viewer._getVisualizeDict().items():
            views = make(name)
            assert isinstance(views[0], EmPlotter), (protocol, name, getattr(views[0], "_msg", ""))
            views[0].getFigure().canvas.draw()
            if KEEP:
                views[0].getFigure().savefig(os.path.join(KEEP, "%s_%s.png" % (label, name)), dpi=70)
            views[0].close()
            assert viewer.getParam(name).label.get()


@pytest.mark.parametrize("cls, button, message", [
    (GmmHetProtFit, "showFsc", "There is no FSC yet"),
    (GmmHetProtFit, "showMap", "There is no .*gmm.mrc yet: it is written when the run has finished"),
    (GmmHetProtTrain, "showHistory", "no training curves yet: .*history.csv is written after the first"),
    (GmmHetProtRefine, "showChanges", "There is no .*poses.npz yet"),
    (GmmHetProtTrain, "showEvidence", "There is no .*evidence.png yet"),
    (GmmHetProtAnalyze, "showPage", "There is no .*landscape.png yet"),
    (GmmHetProtAnalyze, "showArrows", "There are no trajectories yet")])
def test_a_run_that_has_not_finished_gives_a_message_instead_of_a_picture(project, cls, button, message):
    protocol = truth.new(project, cls, "unfinished")
    view, = opened(project, protocol)._getVisualizeDict()[button](button)
    assert isinstance(view, MessageView)
    assert re.search(message, view.getMessage())


# ------------------------------------------------------------------ fit
def test_fsc_is_drawn_with_its_resolution_and_the_target(project, runs):
    figure = figure_of(project, runs["fit"], "showFsc")
    assert "Gaussian model and map: 13.3 Å" in words(figure)        # 24 px of 5 Å, shell 9
    assert "target 15 Å" in words(figure)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), truth.falling_fsc(9), atol=1e-5)


def test_a_gaussian_is_drawn_over_its_density_in_all_three_views(project, runs):
    figure = figure_of(project, runs["fit"], "showGaussians")
    for axes in figure.axes:
        image, (left, _, low, _) = axes.images[0].get_array(), axes.images[0].get_extent()
        places = np.asarray(axes.collections[0].get_offsets())
        columns, rows = (((places - (left, low)) / truth.PIXEL_SIZE).astype(int)).T
        assert np.mean(image[rows, columns]) > 4 * np.mean(image)


# ------------------------------------------------------------------ train
@pytest.mark.parametrize("summary,epoch,words_of_it", [(None, 2, "final model"), ({}, 3, "highest so far"),
                                                       (dict(best_epoch=0, held_out_gain=1.9), 0,
                                                        "final model")])
def test_curves_show_both_gains_the_neutral_line_and_the_epoch_that_was_kept(project, runs, monkeypatch,
                                                                             summary, epoch, words_of_it):
    if summary is not None:
        monkeypatch.setattr(type(runs["train"]), "getSummary", lambda self: summary)
    axes = figure_of(project, runs["train"], "showHistory").axes[0]
    held, = (line for line in axes.lines if line.get_label() == "held out")
    best, = (line for line in axes.lines if line.get_label() == words_of_it)
    assert held.get_ydata().tolist() == [0.8, 1.5, 1.6, 1.4] and list(best.get_xdata()) == [epoch]
    assert "neutral model" in words(axes.figure) and "nats" in axes.get_ylabel()


def test_gains_keep_held_out_particles_apart(project, runs):
    gain = truth.IDS / 100
    held = np.arange(truth.NUMBER) % 10 == 0
    text = words(figure_of(project, runs["train"], "showGains"))
    assert "held out: mean %.3g" % gain[held].mean() in text
    assert "training: mean %.3g" % gain[~held].mean() in text


def test_latent_points_are_drawn_on_the_chosen_axes(project, runs):
    figure = figure_of(project, runs["train"], "showLatents", xAxis="z 2", yAxis="z 1",
                       colourBy="agreement gain")
    shown = figure.axes[0].collections[0]
    np.testing.assert_allclose(np.asarray(shown.get_offsets()), truth.latent_points()[:, ::-1])
    np.testing.assert_allclose(shown.get_array(), truth.IDS / 100, atol=1e-9)


def test_defocus_is_joined_by_id_although_the_orders_differ(project, runs):
    figure = figure_of(project, runs["train"], "showLatents", colourBy="defocus")
    np.testing.assert_allclose(figure.axes[0].collections[0].get_array(), 1 + truth.IDS / 1000, rtol=1e-6)
    assert "defocus (µm)" in words(figure)


def test_many_points_are_drawn_as_hexagons_and_not_one_by_one(project):
    from gmmhet.viewers.latents import draw_latents
    x, y = np.random.default_rng(0).normal(size=(2, 100000))
    plotter = EmPlotter()
    draw_latents(plotter.getFigure(), x, y, x, ("a", "b", "c"))
    assert len(plotter.getFigure().axes[0].collections[0].get_array()) < 20000
    assert "100,000 points" in words(plotter.getFigure())


# ------------------------------------------------------------------ refine
def test_pose_changes_count_every_particle_and_say_the_median(project, runs):
    figure = figure_of(project, runs["refine"], "showChanges")
    assert abs(sum(bar.get_height() for bar in figure.axes[0].patches) - truth.NUMBER) <= 1
    assert words(figure).count("median") == 2


# ------------------------------------------------------------------ analyze
def test_clusters_are_coloured_and_counted(project, runs):
    figure = figure_of(project, runs["analyze"], "showLatents", colourBy="cluster")
    assert "cluster 1 (300)" in words(figure) and "cluster 2 (100)" in words(figure)
    assert len(figure.axes[0].collections[1].get_offsets()) == 100


def test_arrows_are_the_gaussians_that_move_and_as_long_as_they_move(project, runs):
    figure = figure_of(project, runs["analyze"], "showArrows", trajectory="pc1")
    arrows = figure.axes[0].collections[0]
    assert len(arrows.U) == truth.MOVING.sum()
    np.testing.assert_allclose(arrows.V, 4 * truth.STEP, rtol=1e-6)
    assert np.abs(arrows.U).max() < 1e-9


def test_series_has_one_column_per_point_and_its_first_difference_is_zero(project, runs):
    figure = figure_of(project, runs["analyze"], "showSeries")
    assert "projection along" in words(figure)
    assert "projection along y" not in words(figure)        # the motion is along y: it would not show
    assert len(figure.axes) == 10 and not np.any(figure.axes[5].images[0].get_array())
    assert np.ptp(figure.axes[9].images[0].get_array()) > 0


def test_without_chimerax_the_movie_button_draws_arrows_and_says_why(project, runs, monkeypatch):
    monkeypatch.setattr(chimerax, "is_installed", lambda: False)
    picture, message = opened(project, runs["analyze"])._getVisualizeDict()["showMovie"]("showMovie")
    assert isinstance(picture, EmPlotter) and "ChimeraX was not found. Install it" in message.getMessage()


def test_with_chimerax_the_movie_button_starts_it_with_the_trajectory_s_script(project, runs, monkeypatch):
    monkeypatch.setattr(chimerax, "is_installed", lambda: True)
    protocol = runs["analyze"]
    view, = opened(project, protocol)._getVisualizeDict()["showMovie"]("showMovie")
    assert os.path.abspath(protocol.getRunFile(rundir.trajectory("pc1"), rundir.SHOW)) in view._cmd


def test_with_chimerax_the_gaussians_are_shown_in_their_map_and_clusters_as_maps(project, runs, monkeypatch):
    monkeypatch.setattr(chimerax, "is_installed", lambda: True)
    view, = opened(project, runs["fit"])._getVisualizeDict()["showMap"]("showMap")
    assert os.path.abspath(runs["fit"].getRunFile(rundir.SHOW)) in view._cmd
    view, = opened(project, runs["analyze"])._getVisualizeDict()["showClusters"]("showClusters")
    script = runs["analyze"]._getExtraPath("show_maps.cxc")
    assert os.path.abspath(script) in view._cmd
    lines = open(script, encoding="utf-8").read().splitlines()
    assert lines[0] == 'open "%s"' % os.path.abspath(runs["analyze"].getRunFile(rundir.cluster_map(1)))


def test_an_analysis_older_than_its_training_is_refused(project, runs):
    protocol = runs["analyze"]
    path = protocol.getRunFile(rundir.EMBEDDING)
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    np.savez(path, **dict(kept, id=kept["id"][::-1]))
    try:
        view, = opened(project, protocol)._getVisualizeDict()["showLatents"]("showLatents")
        assert "was repeated after this analysis: run the analysis again" in view.getMessage()
    finally:
        np.savez(path, **kept)


def test_every_button_shows_what_the_engine_itself_writes(project, monkeypatch):
    pytest.importorskip("sklearn", reason="the engine's packages are not in this Python")
    monkeypatch.syspath_prepend(os.path.join(os.path.dirname(HERE), "engine"))
    from analytic import SlidingDomains, two_states, write_train_run

    from gmmhet.engine.config import AnalyzeConfig
    from gmmhet.engine.stages.analyze import execute, plan_for
    protocol = truth.new(project, GmmHetProtAnalyze, "analysis by the engine")
    latents, _ = two_states()
    train = write_train_run(protocol._getExtraPath("train"), latents)
    config = AnalyzeConfig(out=protocol.getRunFolder(), model=train, clusters=2, points=3, assign_by="latent",
                           line="from:1-to:2,motion1", motion_region="sphere:-30,0,0,20")
    run = rundir.RunDir(config.out)
    run.write_summary(execute(plan_for(config, latents, SlidingDomains()), run.create()))
    truth.write_text(run(rundir.CONFIG), json.dumps(dict(model=train)))
    for trajectory in ("from1-to2", "motion1"):
        viewer = opened(project, protocol, trajectory=trajectory, colourBy="cluster")
        for name, make in viewer._getVisualizeDict().items():
            views = make(name)
            assert isinstance(views[0], EmPlotter), (name, getattr(views[0], "_msg", ""))
            views[0].getFigure().canvas.draw()
            views[0].close()


# ------------------------------------------------------------------ reconstruct
def test_classes_are_drawn_together_with_the_resolution_of_each(project, runs):
    text = words(figure_of(project, runs["classes"], "showFsc"))
    assert "class 1: 14.0 Å" in text and "class 2: 15.9 Å" in text      # 120 Å over shells 8.54 and 7.54


def test_one_class_can_be_chosen(project, runs):
    text = words(figure_of(project, runs["classes"], "showFsc", state="class 2"))
    assert "half maps, masked" in text and "half maps, unmasked" in text and "class 1" not in text


def test_slices_of_classes_share_one_grey_scale(project, runs):
    figure = figure_of(project, runs["classes"], "showSlices")
    first, second = [axes.images[0].get_clim() for axes in figure.axes[:2]]
    assert len(figure.axes) == 6 and first == second
