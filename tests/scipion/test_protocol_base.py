"""What all five protocols share: threads and GPUs, settings, inputs of other programs, restart of a run,
summary."""
import json
import os

import pytest
from inputs import NAMES, PROTOCOLS, each_protocol, finished_run, particle_set, problems_of, volume
from pwem.objects import SetOfParticlesFlex

from gmmhet.engine import rundir
from gmmhet.protocols import (
    GmmHetProtAnalyze,
    GmmHetProtFit,
    GmmHetProtReconstruct,
    GmmHetProtRefine,
    GmmHetProtTrain,
)
from gmmhet.protocols import protocol_base as base


def test_the_protocol_that_only_the_cpu_runs_has_no_gpu_field():
    protocol = GmmHetProtReconstruct()
    assert not protocol.allowsGpu() and not protocol.usesGpu()
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("cls", PROTOCOLS[:-1], ids=NAMES[:-1])
def test_threads_and_gpus_can_be_chosen(cls):
    protocol = cls(numberOfThreads=3, gpuList="1", useGpu=True)
    assert protocol.getBinThreads() == 3
    assert protocol.usesGpu() and protocol.getGpuList() == [1]
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == "1"
    protocol.useGpu.set(False)
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == ""


@each_protocol
def test_a_changed_parameter_changes_the_arguments_of_the_steps(cls):
    protocol = cls()
    before = protocol._settings()
    protocol.seed.set(2)
    assert protocol._settings() != before
    assert json.loads(before)["parameters"]["seed"] == 1


@each_protocol
def test_every_output_that_is_promised_has_a_class(cls):
    from pwem.objects import EMObject
    assert cls._possibleOutputs and all(issubclass(kind, EMObject) for kind in cls._possibleOutputs.values())


# ------------------------------------------------------------------ inputs
@pytest.mark.parametrize("cls, name", [
    (GmmHetProtTrain, "Particles"), (GmmHetProtRefine, "Trained particles"),
    (GmmHetProtAnalyze, "Trained particles"), (GmmHetProtReconstruct, "Particles or classes")])
def test_an_empty_form_is_refused_with_the_name_of_the_field(cls, name):
    assert "*%s* cannot be EMPTY." % name in problems_of(cls)


@pytest.mark.parametrize("cls", [GmmHetProtRefine, GmmHetProtAnalyze])
def test_flex_particles_of_another_program_are_refused_with_its_name(cls, tmp_path):
    other = particle_set(str(tmp_path / "p.sqlite"), SetOfParticlesFlex)
    other.getFlexInfo().setProgName("Zernike3D")
    text = problems_of(cls, inputParticles=other)
    assert "was not made by the 'train' protocol of gmmhet (program 'Zernike3D')" in text


@pytest.mark.parametrize("cls", [GmmHetProtRefine, GmmHetProtAnalyze, GmmHetProtReconstruct])
def test_trained_particles_are_accepted(cls, trained):
    assert problems_of(cls, inputParticles=trained) == ""


# ------------------------------------------------------------------ summary
def test_a_summary_before_the_run_says_that_it_is_not_finished():
    assert GmmHetProtFit()._summary() == ["Not finished yet."]


def test_a_summary_gives_the_figures_that_the_run_has_with_their_units():
    summary = {"angle_change_rms_deg": 1.234, "shift_change_rms_angst": None, "gain": 0.5, "seed": 1}
    assert base.summary_lines(summary, GmmHetProtRefine._summaryTexts) == [
        "Change of the orientations: *1.23°* rms", "Mean gain of agreement: *0.5* nats per particle"]
    sizes = base.summary_lines({"clusters": [7, 5]}, GmmHetProtAnalyze._summaryTexts)
    assert sizes == ["Particles per class: *7, 5*"]


# ------------------------------------------------------------------ a run that was stopped
@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A fit whose engine only notes how it was started: (protocol, list of requests)."""
    monkeypatch.chdir(tmp_path)
    protocol, requests = GmmHetProtFit(workingDir="Runs/1"), []
    os.makedirs(protocol._getExtraPath())
    os.makedirs(protocol._getTmpPath())
    protocol.inputVolume.set(volume(str(tmp_path / "map.mrc")))

    def note(program, arguments, env):
        requests.append(rundir.read_json(arguments.split("--config ")[1]))
        os.makedirs(protocol.getRunFolder(), exist_ok=True)
        with open(protocol.getRunFile(rundir.CONFIG), "w") as file:
            json.dump(requests[-1], file)
    monkeypatch.setattr(protocol, "runJob", note)
    return protocol, requests


def test_a_stopped_run_is_resumed(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, True]
    assert requests[0]["map"].endswith("map.mrc") and requests[0]["out"] == "Runs/1/extra/fit"


def test_a_run_whose_parameters_changed_starts_afresh(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    with open(protocol.getRunFile("left_over.txt"), "w"):
        pass
    protocol.steps.set(7)
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, False]
    assert not os.path.exists(protocol.getRunFile("left_over.txt"))


def test_threads_may_change_when_a_run_is_resumed(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    protocol.numberOfThreads.set(1)
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, True]
    assert requests[1]["threads"] == 1


def test_a_finished_run_is_not_started_again(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    finished_run(protocol.getRunFolder(), "fit")
    protocol._runEngine()
    assert len(requests) == 1
