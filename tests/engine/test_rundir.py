import json
import re

import pytest

from gmmhet.engine import config as cfg
from gmmhet.engine import rundir
from gmmhet.engine.rundir import RunDir, RunDirError


def refused(call, *arguments, message):
    with pytest.raises(RunDirError, match=re.escape(message)):
        call(*arguments)


def started(path, config):
    run = RunDir(str(path)).create()
    (path / rundir.CONFIG).write_text(cfg.to_json(config))
    return run


def finished(path, stage):
    path.mkdir()
    for name in rundir.FILES[stage]:
        (path / name).write_text("x")
    RunDir(str(path)).write_summary(dict(stage=stage))
    return str(path)


def test_a_run_without_a_folder_is_refused():
    refused(RunDir, "", message="--out is missing: name the folder that receives the results")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    refused(RunDir, str(tmp_path / "out"),
            message="--out %s is a file, expected a folder: choose another name" % (tmp_path / "out"))


def test_a_folder_below_a_file_is_refused_with_the_file(tmp_path):
    (tmp_path / "notes").write_text("")
    refused(RunDir, str(tmp_path / "notes" / "a" / "b"),
            message="--out %s lies below %s, which is a file, expected a folder: choose another name" % (
                tmp_path / "notes/a/b", tmp_path / "notes"))


def test_a_folder_that_the_system_refuses_is_said_in_a_sentence(tmp_path):
    name = str(tmp_path / ("x" * 300))
    refused(RunDir(name).create, message="--out %s cannot be made: File name too long" % name)


def test_a_folder_that_holds_a_run_is_refused_unless_resumed(tmp_path):
    started(tmp_path / "out", cfg.FitConfig())
    refused(RunDir, str(tmp_path / "out"),
            message="already holds a run: choose another folder, or add --resume to continue that run")
    assert RunDir(str(tmp_path / "out"), resume=True)(rundir.GMM) == str(tmp_path / "out" / "gmm.npz")


def test_a_folder_with_other_files_is_taken_and_one_that_does_not_exist_is_made_only_when_asked(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunDir(str(tmp_path)).create()
    run = RunDir(str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
    run.create()
    assert (tmp_path / "a" / "b").is_dir()


def test_resuming_with_other_parameters_is_refused_with_both_values(tmp_path):
    run = started(tmp_path / "out", cfg.TrainConfig(epochs=10, latent_dim=2))
    refused(run.check_same, cfg.TrainConfig(epochs=5, latent_dim=3),
            message="was started with other parameters: latent_dim (2 in the run, 3 now), epochs (10 in the "
                    "run, 5 now); give the same, or another --out")


def test_a_run_may_be_resumed_to_go_further_and_says_so(tmp_path):
    run = started(tmp_path / "out", cfg.TrainConfig(epochs=10))
    assert run.check_same(cfg.TrainConfig(epochs=20, patience=6))
    assert not run.check_same(cfg.TrainConfig(epochs=10))


def test_how_a_run_is_executed_may_differ_when_it_is_resumed(tmp_path):
    run = started(tmp_path / "out", cfg.TrainConfig(pause_after_epoch=0, threads=1))
    run.check_same(cfg.TrainConfig(pause_after_epoch=-1, threads=2, gpus="none", resume=True))


def test_resuming_a_run_of_another_stage_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / rundir.CONFIG).write_text(cfg.to_json(cfg.DecodeConfig(model="m", z="z.txt")))
    with pytest.raises(RunDirError, match="holds a run of another stage"):
        RunDir(str(tmp_path / "out"), resume=True).check_same(cfg.AnalyzeConfig(model="m"))


def test_the_summary_comes_back_and_leaves_no_temporary_file(tmp_path):
    run = RunDir(str(tmp_path))
    assert run.read_summary() == {}
    run.write_summary(dict(stage="fit", name="Å"))
    assert run.read_summary() == dict(stage="fit", name="Å")
    assert [p.name for p in tmp_path.iterdir()] == [rundir.SUMMARY]


@pytest.mark.parametrize("stage", list(rundir.FILES))
def test_a_finished_run_has_its_summary_and_every_file_of_its_stage(tmp_path, stage):
    path = finished(tmp_path / "run", stage)
    assert rundir.is_finished(path, stage) and rundir.missing_run(path, stage) == ""
    for name in (*rundir.FILES[stage], rundir.SUMMARY):
        (tmp_path / "run" / name).rename(tmp_path / "aside")
        assert not rundir.is_finished(path, stage)
        assert rundir.missing_run(path, stage) == "'%s' is not a finished '%s' run: it lacks %s" % (
            path, stage, name)
        (tmp_path / "aside").rename(tmp_path / "run" / name)


def test_a_folder_that_does_not_exist_is_no_run(tmp_path):
    path = str(tmp_path / "no")
    expected = "'%s' is not a folder: expected the --out folder of a 'fit' run" % path
    assert rundir.missing_run(path, "fit") == expected


def test_every_stage_of_the_parameters_has_its_files_and_every_parameter_that_may_differ_exists():
    assert set(rundir.FILES) == set(cfg.STAGES)
    known = {f for cls in cfg.STAGES.values() for f in vars(cls())}
    assert set(rundir.MAY_DIFFER) <= known


def test_json_of_a_file_that_does_not_exist_is_empty(tmp_path):
    assert rundir.read_json(str(tmp_path / "no.json")) == {}
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    assert rundir.read_json(str(tmp_path / "a.json")) == {"a": 1}


def test_a_broken_json_file_is_refused_with_its_name(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=re.escape("%s is not readable JSON" % (tmp_path / "summary.json"))):
        rundir.read_json(str(tmp_path / "summary.json"))


def test_a_file_that_is_broken_off_leaves_the_old_one_and_nothing_beside_it(tmp_path):
    path = tmp_path / "features.npy"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="refused"), rundir.whole_file(str(path)) as file:
        file.write(b"new")
        raise ValueError("refused")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["features.npy"]


def test_the_columns_of_a_csv_file_come_back_by_name(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,gain\r\n1,nan\r\n2,0.5\r\n")
    columns = rundir.read_columns(str(path))
    assert columns["epoch"] == [1, 2] and columns["gain"][1] == 0.5
    assert columns["gain"][0] != columns["gain"][0]
