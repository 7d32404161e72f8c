"""The figures of the viewers, one by one."""
import numpy as np
import pytest
from finished_runs import write_fsc
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import write_star

from gmmhet.engine import rundir
from gmmhet.viewers import fsc, latents, maps, training, trajectories
from gmmhet.viewers.drawing import NothingToShow, inner_limits


def words(figure):
    """Everything that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_farthest_thousandth_lies_outside_the_limits_of_an_axis():
    low, high = inner_limits(np.append(np.linspace(0, 1, 10000), 100.0))
    assert low < 0.01 and 0.99 < high < 1.2


# ------------------------------------------------------------------ fsc
def test_a_curve_that_stays_above_the_threshold_has_no_resolution_in_the_legend(tmp_path):
    write_fsc(str(tmp_path / "fsc.csv"), fsc=np.ones(12))
    frequency, columns = fsc.read_fsc(str(tmp_path / "fsc.csv"))
    figure = Figure()
    fsc.draw_fsc(figure.subplots(), [fsc.FscCurve("model", frequency, columns["fsc"])], 0.5)
    assert "model" in words(figure).splitlines()


# ------------------------------------------------------------------ maps
@pytest.mark.parametrize("box", [24, 25])
def test_the_box_centre_is_the_middle_of_its_pixel(box):
    left, right, _, _ = maps.extent(box, 2.0)
    assert left + (box // 2 + 0.5) * 2.0 == 0 and right - left == box * 2.0


def test_a_picture_reaches_to_the_farthest_density_and_not_beyond_the_box():
    volume = np.zeros((24, 24, 24), np.float32)
    assert maps.reach(maps.Map(volume, 2.0)) == 24.0
    volume[12, 12, 16] = 1.0
    assert maps.reach(maps.Map(volume, 2.0)) == pytest.approx(1.15 * 4 * 2.0)
    volume[0, 12, 12] = 0.02            # below 3 %
    assert maps.reach(maps.Map(volume, 2.0)) == pytest.approx(1.15 * 4 * 2.0)


def test_a_map_that_cannot_be_read_gives_a_message(tmp_path):
    (tmp_path / "broken.mrc").write_text("no map")
    with pytest.raises(NothingToShow, match="no readable map .*broken.mrc"):
        maps.read_map(str(tmp_path / "broken.mrc"))


# ------------------------------------------------------------------ latent points
def test_axes_are_the_embedding_then_principal_components_then_components_of_z():
    assert latents.axis_names(2, "UMAP") == ["UMAP 1", "UMAP 2", "PC 1", "PC 2", "z 1", "z 2"]


def test_a_principal_component_says_how_much_of_the_variance_it_explains():
    z = np.random.default_rng(0).normal(size=(2000, 2)) * (3.0, 1.0)
    values, label = latents.axis_values("PC 1", z)
    assert np.corrcoef(values, z[:, 0])[0, 1] > 0.99
    assert label.startswith("PC 1  (") and 88 < float(label.split("(")[1].split()[0]) < 92


def test_a_colour_of_the_star_file_says_what_is_missing(tmp_path):
    path, gone = str(tmp_path / "particles.star"), str(tmp_path / "gone.star")
    write_star(path)
    assert latents.star_column(path, "rlnPhaseShift", [14, 11]).tolist() == [0, 0]
    for star, column, ids, message in ((gone, "rlnDefocusU", [11], "gone.star' does not exist any more"),
                                       (path, "rlnNothing", [11], "has no column rlnNothing"),
                                       (path, "rlnDefocusU", [12], "Particle 12 of the run is not in")):
        with pytest.raises(NothingToShow, match=message):
            latents.star_column(star, column, ids)


def test_of_very_many_points_in_categories_a_sample_is_drawn_and_all_are_counted():
    x = np.random.default_rng(0).normal(size=30000)
    figure = Figure()
    latents.draw_latents(figure, x, x, np.arange(30000) % 3, ("a", "b", latents.CLUSTER), categories=True)
    assert sum(len(dots.get_offsets()) for dots in figure.axes[0].collections) == latents.MOST_DOTS
    for text in ("in no cluster (10,000)", "cluster 2 (10,000)", "random sample of 20,000", "30,000 points"):
        assert text in words(figure)


# ------------------------------------------------------------------ training
def test_a_training_without_held_out_gains_has_one_histogram():
    figure = Figure()
    gain = np.random.default_rng(0).normal(2.0, 1.0, 500)
    training.draw_gains(figure.subplots(), gain, np.zeros(500, bool), "nats")
    assert "training: mean %.3g" % gain.mean() in words(figure) and "held out" not in words(figure)


# ------------------------------------------------------------------ trajectories
def test_files_of_a_trajectory_are_those_until_the_first_that_lacks(tmp_path):
    folder = tmp_path / rundir.trajectory("pc1")
    folder.mkdir()
    for number in (1, 2, 4):
        (folder / rundir.point(number, ".mrc")).touch()
    paths = trajectories.point_files(str(tmp_path), "pc1", ".mrc")
    assert paths == [str(folder / rundir.point(number, ".mrc")) for number in (1, 2)]
    with pytest.raises(NothingToShow, match="Trajectory 'pc1' has no point_01.npz files"):
        trajectories.point_files(str(tmp_path), "pc1", ".npz")


def test_without_motion_no_arrow_is_drawn_and_the_figure_says_so():
    volume, centers = np.ones((8, 8, 8), np.float32), np.zeros((5, 3))
    figure = Figure()
    trajectories.draw_displacements(figure, maps.Map(volume, 2.0), centers, centers)
    assert "no Gaussian moves" in words(figure)


@pytest.mark.parametrize("motion, label, length", [(3.0, "Motion of the Gaussians (Å)", 3.0),
                                                   (0.01, "Change of the amplitudes (%)", 25.0)])
def test_bars_of_directions_show_motion_or_amplitudes_where_nothing_moves(motion, label, length):
    figure = Figure()
    axes = figure.subplots()
    trajectories.draw_directions(axes, {"pc1": dict(motion_rms_angst=motion, amplitude_rms=0.25)})
    assert axes.get_xlabel() == label and axes.patches[0].get_width() == pytest.approx(length)
