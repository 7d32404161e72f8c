import shlex

from gmmhet.engine.io.chimerax import map_commands, series_commands, write_script


def written(path, commands):
    write_script(str(path), commands)
    return path.read_text(encoding="utf-8").splitlines()


def test_a_map_s_centre_is_put_where_the_gaussians_are_measured_from(tmp_path):
    lines = written(tmp_path / "show.cxc",
                    map_commands(str(tmp_path / "gmm.mrc"), 13, 5.0, str(tmp_path / "gmm.cif")))
    # 13 px of 5 Å: voxel 6
    assert lines[:2] == ['open "gmm.mrc"', "volume #1 origin -30.0000,-30.0000,-30.0000 style surface"]
    assert 'open "gmm.cif"' in lines and "show #2 atoms" in lines


def test_a_series_is_opened_in_order_by_paths_that_start_at_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a run"
    folder.mkdir()
    maps = ["a run/point_%02d.mrc" % i for i in (1, 2, 3)]
    lines = written(folder / "show.cxc", series_commands(maps, 12, 5.0, "a run/motion.cif",
                                                         "a run/100 %.bild"))
    assert shlex.split(lines[0]) == ["open", "point_01.mrc", "point_02.mrc", "point_03.mrc", "vseries",
                                     "true"]
    assert lines[1] == "volume #1 origin -30.0000,-30.0000,-30.0000 style surface"
    assert {'open "100 %.bild"', 'open "motion.cif" coordsets true', "hide #3 models"} <= set(lines)


def test_maps_of_no_motion_are_played_alone(tmp_path):
    lines = written(tmp_path / "show.cxc", series_commands(["m.mrc"], 12, 5.0))
    assert sum(line.startswith("open ") for line in lines) == 1 and lines[-1].startswith("vseries play #1 ")
