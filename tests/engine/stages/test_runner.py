"""How a stage is run: checks, then a plan, then the folder, then the work; and stages one after another."""
import os
from types import SimpleNamespace

import pytest
import tensorflow as tf

from gmmhet.engine import rundir
from gmmhet.engine.config import STAGES, ConfigError, FitConfig, ScoreConfig, from_dict
from gmmhet.engine.log import log
from gmmhet.engine.stages import runner
from gmmhet.engine.stages.runner import run_stage, stage_module, use_hardware


def test_every_stage_is_prepared_and_then_executed():
    for name in STAGES:
        module = stage_module(name)
        assert callable(module.prepare) and callable(module.execute), name


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A stage in place of the real one: what it came to is in `calls`, what it gives in `summary`."""
    given = SimpleNamespace(calls=[], summary=dict(stage="score", figure=1.5), error=None)

    def prepare(config):
        given.calls.append("prepare")
        log.info("said while preparing")
        if given.error:
            raise given.error
        return "the plan"

    def execute(plan, run):
        given.calls.append("execute %s" % plan)
        assert os.path.exists(run(rundir.CONFIG)) and os.path.exists(run(rundir.LOG))
        return given.summary
    module = SimpleNamespace(prepare=prepare, execute=execute)
    monkeypatch.setattr(runner, "stage_module", lambda name: module)
    monkeypatch.setattr(runner, "check", lambda config: None)
    given.config = ScoreConfig(out=str(tmp_path / "out"))
    return given


def test_a_run_keeps_its_parameters_its_log_and_its_summary(stand_in):
    run = run_stage(stand_in.config)
    assert stand_in.calls == ["prepare", "execute the plan"] and run.read_summary() == stand_in.summary
    assert from_dict(ScoreConfig, rundir.read_json(run(rundir.CONFIG))) == stand_in.config
    with open(run(rundir.LOG), encoding="utf-8") as file:
        text = file.read()
    assert "said while preparing" in text and "gmmhet score, seed 1, in " in text


def test_a_run_that_is_refused_leaves_no_folder_and_one_that_fails_no_summary(stand_in):
    stand_in.error = ConfigError("no such thing")
    with pytest.raises(ConfigError, match="no such thing"):
        run_stage(stand_in.config)
    assert stand_in.calls == ["prepare"] and not os.path.exists(stand_in.config.out)
    stand_in.error, stand_in.summary = None, None      # as a training that is paused
    run = run_stage(stand_in.config)
    assert run.read_summary() == {} and os.path.exists(run(rundir.CONFIG))


def test_a_finished_run_is_not_made_again_and_another_is_not_overwritten(stand_in):
    run_stage(stand_in.config)
    stand_in.calls.clear()
    with pytest.raises(ValueError, match="already holds a run: choose another folder, or add --resume"):
        run_stage(stand_in.config)
    run_stage(ScoreConfig(out=stand_in.config.out, resume=True))
    assert stand_in.calls == []


def test_all_that_is_wrong_with_parameters_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        run_stage(FitConfig(out=str(tmp_path / "out"), map="nowhere.mrc", steps=0))
    assert "nowhere.mrc" in str(refusal.value) and "--steps" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 2 and not (tmp_path / "out").exists()


def test_a_gpu_that_the_process_uses_already_is_taken_as_it_is(monkeypatch):
    """So it was with a real one: a stage after other work on the GPU ended with this error."""
    asked = []

    def refuse(gpu, _):
        asked.append(gpu)
        raise RuntimeError("Physical devices cannot be modified after being initialized")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    use_hardware(FitConfig())
    assert asked == ["a GPU"]


def test_gpus_are_hidden_where_none_is_asked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    use_hardware(FitConfig(gpus="none"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
