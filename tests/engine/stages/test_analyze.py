import re
from pathlib import Path

import numpy as np
import pytest
from analytic import SlidingDomains, two_states, write_train_run

from gmmhet.engine import rundir
from gmmhet.engine.config import AnalyzeConfig
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.latent import LatentError
from gmmhet.engine.latents import Latents
from gmmhet.engine.stages.analyze import execute, plan_for, prepare

MODEL, (LATENTS, RARE) = SlidingDomains(), two_states()


def analyzed(config, latents=LATENTS):
    """The stage with latents and a model of our own: its run and summary."""
    plan, run = plan_for(config, latents, MODEL), rundir.RunDir(config.out)
    return run, execute(plan, run.create())


@pytest.fixture(scope="module")
def landscape(tmp_path_factory):
    """A landscape with every kind of trajectory, and its summary."""
    config = AnalyzeConfig(out=str(tmp_path_factory.mktemp("analyze") / "run"), clusters=2, points=3,
                           neighbours=40, assign_by="latent",
                           line="pc1,from:1-to:2,motion1,motion1-motion2", motion_region="sphere:-30,0,0,20")
    return analyzed(config)


def test_clusters_are_the_two_states_joined_by_id(landscape):
    run, summary = landscape
    assert summary["clusters"] == [300, 100]
    assert np.loadtxt(run(rundir.cluster_ids(2)), int).tolist() == sorted(LATENTS.ids[RARE])


def test_the_map_of_a_cluster_is_the_model_decoded_at_its_centre(landscape):
    run, _ = landscape
    with np.load(run(rundir.EMBEDDING)) as found:
        centers, amplitudes, widths = MODEL.decode(found["centers"][1:])
    expected = render(Mixture(centers[0], amplitudes[0], widths[0]), 24, 5.0)
    np.testing.assert_allclose(read_map(run(rundir.cluster_map(2)))[0], expected, rtol=1e-4, atol=1e-6)


def test_embedding_keeps_ids_in_the_order_of_the_latents(landscape):
    with np.load(landscape[0](rundir.EMBEDDING)) as found:
        assert np.array_equal(found["id"], LATENTS.ids) and found["xy"].shape == (400, 2)
        assert found["centers"].shape == (2, 3) and found["explained"].sum() == pytest.approx(1)
        assert set(found["label"][RARE]) == {2}


def test_a_point_of_a_trajectory_is_the_decoded_model_its_map_and_the_particles_there(landscape):
    run, _ = landscape
    folder = rundir.trajectory("from1-to2")
    z = np.loadtxt(run(folder, "z.txt"))
    mixture = Mixture.load(run(folder, rundir.point(3, ".npz")))
    np.testing.assert_allclose(mixture.centers, MODEL.decode(z[2:])[0][0], atol=1e-3)
    volume, pixel_size = read_map(run(folder, rundir.point(3, ".mrc")))
    assert volume.shape == (24, 24, 24) and pixel_size == 5.0
    ids = np.loadtxt(run(folder, rundir.point(3, "_ids.txt")), int)
    assert len(ids) == 40 and set(ids) <= set(LATENTS.ids[RARE])


def test_motion1_moves_the_region_and_its_arrows_are_there(landscape):
    run, _ = landscape
    folder = rundir.trajectory("motion1")
    arrows = [line for line in Path(run(folder, "motion.bild")).read_text().splitlines()
              if line.startswith(".arrow")]
    assert len(arrows) == 20 and all(float(line.split()[1]) < 0 for line in arrows)
    opened = re.findall(r'"([^"]+)"', Path(run(folder, rundir.SHOW)).read_text())
    assert opened == ["point_01.mrc", "point_02.mrc", "point_03.mrc", "motion.bild", "motion.cif"]
    models = [line.split()[-1] for line in Path(run(folder, "motion.cif")).read_text().splitlines()
              if line.startswith("HETATM")]
    assert models == ["1"] * 40 + ["2"] * 40 + ["3"] * 40


def test_directions_describe_asked_lines_all_axes_and_all_motions(landscape):
    run, summary = landscape
    with np.load(run(rundir.DIRECTIONS)) as found:
        names = found["names"].tolist()
        assert names == ["pc1", "from1-to2", "motion1", "motion1-motion2", "pc2", "pc3", "motion2", "motion3"]
        np.testing.assert_allclose(np.linalg.norm(found["vectors"], axis=1), 1)
        span = np.ptp(found["percentiles"][names.index("motion1")])
        motion = found["motion_rms_angst"][names.index("motion1")]
        assert motion == pytest.approx(3 * span / np.sqrt(2), rel=0.02)
    first = summary["directions"]["motion1"]
    assert first["inside_angst"] > 20 * first["outside_angst"]


def test_every_file_of_the_stage_is_there_and_the_summary_can_be_written(landscape):
    run, summary = landscape
    run.write_summary(summary)
    assert run.read_summary() == summary and rundir.is_finished(run.path, "analyze")
    expected = np.sqrt(np.var(LATENTS.z, axis=0) @ (9, 4, 0) / 2)
    assert summary["motion_rms_angst"] == pytest.approx(expected, rel=0.01)


def test_a_homogeneous_set_gives_no_motion_and_no_nan(tmp_path):
    still = Latents(np.arange(50), np.zeros(50, int), np.zeros((50, 3)))
    _, summary = analyzed(AnalyzeConfig(out=str(tmp_path / "a"), clusters=1, points=2), still)
    assert summary["motion_rms_angst"] == 0 and summary["clusters"] == [50]
    assert summary["explained_variance"] == [0, 0, 0]


def refused(tmp_path, **wrong):
    with pytest.raises(ValueError) as caught:
        plan_for(AnalyzeConfig(out=str(tmp_path / "refused"), **wrong), LATENTS, MODEL)
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    assert "unknown line 'pc9'; known: pc1 to pc3" in refused(tmp_path, line="pc9")
    assert "(400), got 401" in refused(tmp_path, clusters=401)
    assert "selects none of the 40 Gaussians" in refused(tmp_path, motion_region="sphere:0,500,0,10")
    assert "number of particles (400), got 400" in refused(tmp_path, embedding="umap", umap_neighbours=400)


def test_an_unfinished_train_folder_is_refused_with_what_it_lacks(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(LatentError,
                       match="--model: .*train' is not a finished 'train' run: it lacks latents.npz, model, "
                             "history.csv"):
        prepare(AnalyzeConfig(out=str(tmp_path / "a"), model=str(tmp_path / "train")))


def test_latents_that_are_not_finite_are_counted_in_the_message(tmp_path):
    broken, _ = two_states(10)
    broken.z[3] = np.nan
    folder = write_train_run(str(tmp_path / "train"), broken)
    with pytest.raises(LatentError, match="z of 1 of the 10 particles is not finite"):
        prepare(AnalyzeConfig(out=str(tmp_path / "a"), model=folder))
