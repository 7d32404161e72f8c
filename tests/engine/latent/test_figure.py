"""The landscape page: what it leaves out, what it says, and that it stays readable."""
import numpy as np

from gmmhet.engine.latent.assignment import Clusters
from gmmhet.engine.latent.eigenmotion import LocalMotions
from gmmhet.engine.latent.figure import (
    change_bars,
    cluster_bars,
    density,
    landscape_figure,
    limits_of,
    outline_level,
    separate,
    variance_bars,
)
from gmmhet.engine.latent.landscape import Landscape, LineChange
from gmmhet.engine.latent.paths import Line
from gmmhet.engine.latent.reduce import Plane
from gmmhet.engine.latents import Latents, PrincipalAxes


def page(xy, labels, lines=(), changes=(), copies=1, note=""):
    """The figure of a landscape whose latent points are drawn as they are."""
    n, explained = len(xy), np.array([0.8, 0.2])[:1 + bool(np.ptp(xy[:, 1]))]
    latents = Latents(np.repeat(np.arange(n // copies), copies), np.tile(np.arange(copies), n // copies), xy)
    axes = PrincipalAxes(np.zeros(2), np.eye(2), explained)
    clusters = Clusters(labels, np.zeros((int(labels.max()), 2)))
    landscape = Landscape(latents, axes, Plane(xy, ("a", "b"), axes, xy), clusters, LocalMotions.none(2),
                          list(lines), list(lines),
                          dict(changes))
    return landscape_figure(landscape, 2, note)


def texts(figure):
    of_axes = [text for axes in figure.axes for text in axes.texts]
    return [text.get_text() for text in [*of_axes, *figure.texts]]


def test_one_far_point_does_not_shrink_the_landscape():
    xy = np.random.default_rng(0).normal(size=(5000, 2))
    xy[0] = 1e4
    assert limits_of(xy)[0][1] < 6


def test_the_outline_holds_the_share_of_the_points_asked_for():
    image = density(np.random.default_rng(0).normal(size=(20000, 2)), [(-5, 5), (-5, 5)])
    level = outline_level(image, 0.7)
    assert abs(image[image >= level].sum() / image.sum() - 0.7) < 0.01


def test_bars_gather_many_clusters_and_show_the_unassigned():
    labels = np.concatenate([np.repeat(np.arange(1, 16), 10), np.zeros(50, int)])
    names, sizes, written, _ = cluster_bars(labels)
    assert names[-2:] == ["3 more", "none"] and sizes[-2:] == [30, 50] and written[-1] == "50  (25 %)"


def test_bars_are_populations_where_particles_are_assigned_by_image():
    names, shares, written, _ = cluster_bars(np.repeat(np.arange(1, 16), 10), np.full(15, 1 / 15))
    assert names[-1] == "3 more" and shares[-1] == 0.2 and written[0] == "7 %  (10)"
    assert written[-1] == "20 %  (30)"


def test_bars_show_amplitudes_where_nothing_moves():
    changes = {"pc1": LineChange(0.001, 0.5), "pc2": LineChange(0.0, 0.1)}
    (names, lengths, written, _), title = change_bars(changes)
    assert names == ["pc1", "pc2"] and lengths == [0.5, 0.1] and written[0] == "0.00 Å, 50 %"
    assert title.startswith("(Motion,)")
    assert change_bars({"pc1": LineChange(2.0, 0.5)})[0].lengths == [2.0]


def test_no_more_than_eight_axes_are_drawn():
    assert variance_bars(np.full(20, 0.05)).names == ["PC %d" % i for i in range(1, 9)]


def test_labels_at_one_place_are_separated():
    places = np.array(separate(np.zeros((4, 2)), (100, 20)))
    assert np.ptp(places[:, 0]) == 0 and np.diff(np.sort(places[:, 1])).min() >= 20


def test_the_page_names_clusters_trajectories_and_figures():
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 2, 0], [600, 300, 100])
    xy = rng.normal(size=(1000, 2)) + np.where(labels == 1, 3, -3)[:, None]
    line = Line("pc1", np.zeros(2), np.array([1.0, 1]) / np.sqrt(2), -3.0, 3.0)
    figure = page(xy, labels, [line], {"pc1": LineChange(4.25, 0.1)}, note="seed 1")
    assert {"1", "2", "pc1", "600  (60 %)", "100  (10 %)", "80.0 %", "4.25 Å, 10 %", "1,000 points",
            "seed 1"} <= set(texts(figure))


def test_the_page_of_a_symmetric_set_says_that_it_counts_symmetry_copies():
    xy, labels = np.random.default_rng(0).normal(size=(1200, 2)), np.repeat([1, 2], 600)
    plain, symmetric = (page(xy, labels, copies=copies) for copies in (1, 3))
    assert plain.axes[1].get_title("left") == "Particles per cluster" and "1,200 points" in texts(plain)
    assert symmetric.axes[1].get_title("left") == "Symmetry copies per cluster"
    assert "1,200 points: 400 particles, 3 symmetry copies of each" in texts(symmetric)
    histogram = page(xy * (1, 0), labels, copies=3)
    assert histogram.axes[0].get_ylabel() == "symmetry copies"


def test_one_latent_dimension_is_drawn_as_a_histogram():
    xy = np.column_stack([np.random.default_rng(0).normal(size=300), np.zeros(300)])
    figure = page(xy, np.ones(300, int))
    assert figure.axes[0].get_ylabel() == "particles"
    assert sum(p.get_height() for p in figure.axes[0].patches) == 300
    figure.canvas.draw()
