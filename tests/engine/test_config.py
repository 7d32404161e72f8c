import dataclasses
import json
import re

import pytest

from gmmhet.engine import config as cfg
from gmmhet.engine.model.settings import with_preset

NAN, INFINITE = float("nan"), float("inf")


def refused(call, *arguments, message):
    with pytest.raises(cfg.ConfigError, match=re.escape(message)):
        call(*arguments)


@pytest.mark.parametrize("stage", list(cfg.STAGES))
def test_every_default_lies_in_its_own_range_and_survives_json(stage):
    config = cfg.STAGES[stage]()
    assert cfg.problems(config) == [] and cfg.missing_files(config) == []
    assert cfg.from_dict(cfg.STAGES[stage], json.loads(cfg.to_json(config))) == config


@pytest.mark.parametrize("stage", list(cfg.STAGES))
def test_every_parameter_is_listed_once_with_help_that_ends_in_a_full_stop(stage):
    found = cfg.parameters(cfg.STAGES[stage])
    assert sorted(f.name for f in found) == sorted(f.name for f in dataclasses.fields(cfg.STAGES[stage]))
    assert all(f.help.endswith(".") for f in found)
    expert = [f.expert for f in found]
    assert expert == sorted(expert)


def test_a_stage_s_parameters_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.TrainConfig().epochs = 3


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    refused(cfg.from_dict, cfg.TrainConfig, {"epoch": 3},
            message="unknown parameter 'epoch' for stage 'train'; did you mean 'epochs'?")
    refused(cfg.from_dict, cfg.FitConfig, {"zzz": 3},
            message="unknown parameter 'zzz' for stage 'fit'; see gmmhet fit --help")


@pytest.mark.parametrize("values,message", [
    ({"epochs": "3"}, "parameter 'epochs' of stage 'train' must be int, got '3'"),
    ({"epochs": 3.5}, "parameter 'epochs' of stage 'train' must be int, got 3.5"),
    ({"epochs": True}, "parameter 'epochs' of stage 'train' must be int, got True"),
    ({"learning_rate": True}, "parameter 'learning_rate' of stage 'train' must be float, got True"),
    ({"resume": 1}, "parameter 'resume' of stage 'train' must be bool, got 1"),
    ({"region": None}, "parameter 'region' of stage 'train' must be str, got None"),
    ({"vary": ["position"]}, "parameter 'vary' of stage 'train' must be str, got ['position']"),
])
def test_a_value_of_the_wrong_type_is_refused_with_the_value(values, message):
    refused(cfg.from_dict, cfg.TrainConfig, values, message=message)


def test_a_whole_number_is_taken_where_a_real_one_is_expected():
    assert cfg.from_dict(cfg.TrainConfig, {"learning_rate": 1}).learning_rate == 1.0


@pytest.mark.parametrize("stage,values,message", [
    ("simulate", {"box": 8}, "--box must be at least 16 px, got 8."),
    ("simulate", {"n": 1}, "--n must be at least 2, got 1."),
    ("simulate", {"angle": 120.0}, "--angle must be at most 90.0 °, got 120.0."),
    ("simulate", {"kind": "x"}, "--kind must be one of hinge, assembly, mixed, c3, d2, null, got 'x'."),
    ("train", {"latent_dim": 0}, "--latent-dim must be at least 1, got 0."),
    ("train", {"objective": "l2"}, "--objective must be one of likelihood, frc, got 'l2'."),
    ("train", {"held_out": 1.0}, "--held-out must be at most 0.9, got 1.0."),
    ("refine", {"sigma_angle": -1.0}, "--sigma-angle must be at least 0.0 °, got -1.0."),
    ("train", {"symmetry": "c101"}, "--symmetry c101 has 101 asymmetric units, expected at most 100."),
    ("reconstruct", {"symmetry": "D51"}, "--symmetry D51 has 102 asymmetric units, expected at most 100."),
    ("fit", {"seed": -1}, "--seed must be at least 0, got -1."),
])
def test_a_value_outside_its_range_is_named_with_its_limit_and_unit(stage, values, message):
    assert cfg.problems(cfg.from_dict(cfg.STAGES[stage], values)) == [message]


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
def test_numbers_that_are_not_finite_are_refused(value):
    found = cfg.problems(cfg.TrainConfig(learning_rate=value, mask_diameter=value))
    assert found == ["--learning-rate must be a finite number, got %s." % value,
                     "--mask-diameter must be a finite number, got %s." % value]


def test_every_problem_is_told_at_once():
    assert len(cfg.problems(cfg.SimulateConfig(box=1, n=0, kind="x", snr=-1.0))) == 4


def test_files_that_do_not_exist_are_named_with_their_flag(tmp_path):
    found = cfg.missing_files(cfg.TrainConfig(particles=str(tmp_path / "no.star"), gmm=str(tmp_path)))
    assert found == ["--particles %s does not exist." % (tmp_path / "no.star")]


def test_parameters_a_stage_cannot_do_without_are_named_together():
    sentence = "train needs %s; see gmmhet train --help"
    assert cfg.missing_parameters(cfg.TrainConfig()) == [sentence % "--particles, --gmm and --out"]
    assert cfg.missing_parameters(cfg.TrainConfig(out="a", gmm="b")) == [sentence % "--particles"]
    assert cfg.missing_parameters(cfg.FitConfig(out="a")) == []


def test_flags_use_dashes():
    assert cfg.flag("n_gaussians") == "--n-gaussians"


@pytest.mark.parametrize("gpus", ["foo", "0,", "-1", "0 and 1"])
def test_gpus_that_are_no_ids_are_refused(gpus):
    message = "--gpus must be 'auto', 'none' or ids such as '0,1', got '%s'." % gpus
    assert cfg.problems(cfg.FitConfig(gpus=gpus)) == [message]
    assert not cfg.problems(cfg.FitConfig(gpus="0, 1"))


@pytest.mark.parametrize("particles,epochs,patience",
                         [(120, 100, 33), (10000, 77, 25), (200000, 10, 3), (10**6, 10, 3)])
def test_a_training_is_as_long_as_its_particles_need(particles, epochs, patience):
    found = cfg.with_length(cfg.TrainConfig(), particles)
    assert (found.epochs, found.patience) == (epochs, patience)
    given = cfg.with_length(cfg.TrainConfig(epochs=4, patience=2), particles)
    assert (given.epochs, given.patience) == (4, 2)


def test_the_paper_s_preset_is_the_paper_s():
    found = with_preset(cfg.TrainConfig(preset="paper"))
    assert (found.objective, found.learning_rate, found.batch_size, found.latent_dim) == ("frc", 1e-4, 8, 4)
    assert (found.smoothness, found.amplitude_cost, found.latent_noise, found.latent_steps) == (0, 0, 0.01, 0)
    assert with_preset(cfg.TrainConfig(preset="paper", batch_size=32)).batch_size == 32
