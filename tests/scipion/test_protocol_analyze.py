"""The form of 'analyze landscape', and its output where each particle has several latent points (symmetry),
from run folders written by hand."""
import finished_runs
import pytest
from inputs import problems_of

from gmmhet import convert
from gmmhet.protocols import GmmHetProtAnalyze


def test_analyze_refuses_localised_motion_without_a_region(trained):
    text = problems_of(GmmHetProtAnalyze, inputParticles=trained, line="pc1,motion1")
    assert "*Trajectories* asks for a localised motion ('pc1,motion1'), which needs a motion region" in text


def test_analyze_cites_umap_only_when_it_is_used():
    protocol = GmmHetProtAnalyze()
    assert protocol._citations() == ["Chen2021"]
    protocol.embedding.set(1)
    assert protocol._citations() == ["Chen2021", "McInnes2018"]


# ------------------------------------------------------------------ output of an analysis with symmetry c3
@pytest.fixture(scope="module")
def analysis(project, symmetric):
    protocol = finished_runs.symmetric_analysis(project, symmetric)
    protocol.createOutputStep("")
    return protocol


def test_a_particle_is_in_every_class_that_one_of_its_copies_is_assigned_to(analysis, symmetric):
    everyone = [item.getObjId() for item in symmetric.outputParticles]
    assert [[member.getObjId() for member in item] for item in analysis.outputClasses] == [everyone, everyone]


def test_a_class_says_which_copies_of_a_particle_it_holds(analysis):
    for member in analysis.outputClasses[1]:
        copies = [int(value) for value in member._gmmCopiesInClass]
        assert copies == ([0, 2] if member.getObjId() % 4 == 0 else [0])
    for member in analysis.outputClasses[2]:
        assert [int(value) for value in member._gmmCopiesInClass] == [1]


def test_classes_carry_the_centre_of_their_cluster(analysis):
    centers = [item.getRepresentative().getZFlex().tolist() for item in analysis.outputClasses]
    assert centers == [[1, 2], [3, 4]]


def test_without_trajectories_there_is_no_set_of_volumes(analysis):
    assert not hasattr(analysis, "outputVolumes")


def test_an_analysis_of_other_particles_is_refused(project, symmetric):
    protocol = finished_runs.symmetric_analysis(project, symmetric, without=202)
    with pytest.raises(convert.ConversionError,
                       match="Particle 202 of the input set has no place in the landscape"):
        protocol.createOutputStep("")
