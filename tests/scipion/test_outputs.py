"""How results become Scipion objects when each particle has several latent points (symmetry), from run folders written by hand."""
import os

import numpy as np
import pytest
import synthetic
from pyworkflow.utils import makePath

from gmmhet import convert
from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtAnalyze, GmmHetProtTrain

COPIES = 3


def new(project, cls, **pointers):
    """A protocol with its folders, not started; pointers are (protocol, output name)."""
    protocol = project.newProtocol(cls)
    for name, (source, output) in pointers.items():
        getattr(protocol, name).set(source)
        getattr(protocol, name).setExtended(output)
    project.saveProtocol(protocol)
    makePath(protocol._getExtraPath(), protocol._getTmpPath(), protocol.getRunFolder())
    return protocol


def points(ids):
    """Ids, copies and latent points of every particle and copy, not in order: z = (id, copy)."""
    number, copy = [grid.ravel() for grid in np.meshgrid(ids, np.arange(COPIES))]
    order = np.random.default_rng(5).permutation(len(number))
    return number[order], copy[order], np.stack([number, copy], 1)[order].astype(float)


@pytest.fixture(scope="module")
def trained(project, imported):
    """A training with symmetry c3 whose output was made from hand-written latents."""
    protocol = new(project, GmmHetProtTrain, inputParticles=(imported, "outputParticles"), inputGaussians=(imported, "outputParticles"))
    number, copy, z = points([item.getObjId() for item in imported.outputParticles])
    np.savez(protocol.getRunFile(rundir.LATENTS), id=number, copy=copy, z=z, agreement=number + 0.0, neutral_agreement=copy + 0.0,
             held_out=number % 5 == 0)
    os.makedirs(protocol.getRunFile(rundir.MODEL))
    for name in (rundir.HISTORY, rundir.SUMMARY):
        with open(protocol.getRunFile(name), "w") as file:
            file.write('{"epochs": 3}')
    protocol.createOutputStep("")
    return protocol


def test_a_particle_stays_one_item_with_the_latent_point_of_its_first_copy(trained, imported):
    output = trained.outputParticles
    assert [item.getObjId() for item in output] == [item.getObjId() for item in imported.outputParticles]
    for item in output:
        assert item.getZFlex().tolist() == [item.getObjId(), 0]


def test_the_latent_points_of_all_copies_are_kept_in_their_order(trained):
    for item in trained.outputParticles:
        copies = np.reshape([float(value) for value in item._gmmCopies], (COPIES, 2))
        assert copies.tolist() == [[item.getObjId(), copy] for copy in range(COPIES)]


def test_agreement_is_the_mean_over_the_copies_and_held_out_particles_are_marked(trained):
    item = trained.outputParticles[11]
    assert (item._gmmAgreement.get(), item._gmmNeutralAgreement.get(), item._gmmHeldOut.get()) == (11.0, 1.0, 0)
    assert trained.outputParticles[20]._gmmHeldOut.get() == 1


@pytest.fixture(scope="module")
def analyzed(project, trained):
    """An analysis in which copy 0 is in class 1, copy 1 in class 2, and copy 2 in class 1 for even ids, in none for odd ones."""
    protocol = new(project, GmmHetProtAnalyze, inputParticles=(trained, "outputParticles"))
    number, copy, z = points([item.getObjId() for item in trained.outputParticles])
    label = np.where(copy == 1, 2, np.where(copy == 0, 1, np.where(number % 2 == 0, 1, 0)))
    np.savez(protocol.getRunFile(rundir.EMBEDDING), id=number, copy=copy, label=label, xy=z, centers=np.array([[1.0, 2.0], [3.0, 4.0]]))
    for cluster in (1, 2):
        synthetic.write_map(protocol.getRunFile(rundir.cluster_map(cluster)))
    protocol.createOutputStep("")
    return protocol


def test_a_particle_is_in_every_class_that_one_of_its_copies_fell_into(analyzed, trained):
    everyone = [item.getObjId() for item in trained.outputParticles]
    assert [[member.getObjId() for member in item] for item in analyzed.outputClasses] == [everyone, everyone]


def test_a_class_says_which_copies_of_a_particle_it_holds(analyzed):
    for member in analyzed.outputClasses[1]:
        assert [int(value) for value in member._gmmCopiesInClass] == ([0, 2] if member.getObjId() % 2 == 0 else [0])
    for member in analyzed.outputClasses[2]:
        assert [int(value) for value in member._gmmCopiesInClass] == [1]


def test_classes_carry_the_centre_of_their_cluster(analyzed):
    assert [item.getRepresentative().getZFlex().tolist() for item in analyzed.outputClasses] == [[1, 2], [3, 4]]


def test_without_trajectories_there_is_no_set_of_volumes(analyzed):
    assert not hasattr(analyzed, "outputVolumes")


def test_an_analysis_of_other_particles_is_refused(project, trained, analyzed):
    with np.load(analyzed.getRunFile(rundir.EMBEDDING)) as file:
        kept = {name: file[name] for name in file.files}
    rows = kept["id"] != 11
    protocol = new(project, GmmHetProtAnalyze, inputParticles=(trained, "outputParticles"))
    np.savez(protocol.getRunFile(rundir.EMBEDDING), centers=kept["centers"],
             **{name: kept[name][rows] for name in ("id", "copy", "label", "xy")})
    for cluster in (1, 2):
        synthetic.write_map(protocol.getRunFile(rundir.cluster_map(cluster)))
    with pytest.raises(convert.ConversionError, match="Particle 11 of the input set has no place in the landscape"):
        protocol.createOutputStep("")
