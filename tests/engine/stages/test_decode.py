from pathlib import Path

import numpy as np
import pytest
from analytic import SlidingDomains

from gmmhet.engine import rundir
from gmmhet.engine.config import DecodeConfig
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.io.volumes import read_map
from gmmhet.engine.latent import LatentError
from gmmhet.engine.stages.decode import Plan, execute, prepare, read_points


def points_file(tmp_path, text):
    path = tmp_path / "z.txt"
    path.write_text(text)
    return str(path)


def test_points_may_be_apart_by_spaces_or_commas_with_comments(tmp_path):
    assert read_points(points_file(tmp_path, "# two points\n1 2 3\n\n4,5, 6  # last\n"),
                       3).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("text, message", [
    ("1 2 3\n1 2\n", r"row 2: expected 3 numbers \(the model's latent dimension\), got 2"),
    ("1 2 x\n", "row 1: expected numbers, could not convert string to float: 'x'"),
    ("1 2 nan\n", "row 1: expected finite numbers, got '1 2 nan'"),
    ("# nothing\n", "holds no latent point: write one row of 3 numbers per point")])
def test_a_bad_row_is_named_with_what_came_and_what_was_expected(tmp_path, text, message):
    with pytest.raises(LatentError, match=message):
        read_points(points_file(tmp_path, text), 3)


def test_a_missing_points_file_and_an_unfinished_model_are_named(tmp_path):
    with pytest.raises(LatentError,
                       match="--z must name a text file .*, got 'nowhere.txt', which does not exist"):
        read_points("nowhere.txt", 3)
    with pytest.raises(LatentError,
                       match="--model: 'nowhere' is not a folder: expected the --out folder of a 'train' "
                             "run"):
        prepare(DecodeConfig(out=str(tmp_path / "d"), model="nowhere", z="z.txt"))


def test_each_row_gives_its_model_map_and_pseudo_atoms(tmp_path):
    model, run = SlidingDomains(), rundir.RunDir(str(tmp_path / "d"))
    summary = execute(Plan(DecodeConfig(), model, np.array([[0.0, 0, 0], [2.0, 0, 0]])), run.create())
    mixture = Mixture.load(run(rundir.point(2, ".npz")))
    np.testing.assert_allclose(mixture.centers, model.decode([[2.0, 0, 0]])[0][0])
    volume, pixel_size = read_map(run(rundir.point(2, ".mrc")))
    np.testing.assert_allclose(volume, render(mixture, 24, 5.0), rtol=1e-5)
    assert pixel_size == 5.0 and Path(run(rundir.point(2, ".cif"))).read_text().count("HETATM") == 40
    assert Path(run(rundir.SHOW)).read_text().startswith('open "point_01.mrc" "point_02.mrc" vseries true')
    assert summary["motion_rms_angst"] == pytest.approx([0, 6 / np.sqrt(2)], rel=1e-5)
    assert summary["points"] == 2
