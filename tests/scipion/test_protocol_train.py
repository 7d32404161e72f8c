"""The form of 'train heterogeneity', and its output where each particle has several latent points (symmetry),
from a run folder written by hand."""
import json
import os

import finished_runs
import numpy as np
import pytest
from inputs import particle_set, problems_of, volume
from pwem.objects import AtomStructFlex, VolumeMask

from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtTrain, protocol_train


# ------------------------------------------------------------------ form
@pytest.fixture
def refused(gaussians, particles):
    """Function that gives what validation says of good input with changes."""
    def say(**changes):
        return problems_of(GmmHetProtTrain,
                           **{"inputParticles": particles, "inputGaussians": gaussians, **changes})
    return say


def test_train_accepts_good_input(refused):
    assert refused() == ""


@pytest.mark.parametrize("field, value, text", [
    ("learningRate", 5.0, "*Learning rate* must be at most 1.0, got 5.0"),
    ("latentDim", 0, "*Latent dimensions* must be at least 1, got 0"),
    ("vary", "position,color", "*Vary* must name some of amplitude, position, width, separated by commas"),
    ("vary", "position,color", "got 'position,color'"),
    ("heldOut", 2.0, "*Held out* must be at most 0.9, got 2.0"),
    ("symmetry", "tetrahedral", "*Symmetry* must be cN or dN (such as c3 or d2), got 'tetrahedral'.")])
def test_a_value_out_of_range_is_refused_with_its_label(refused, field, value, text):
    assert text in refused(**{field: value})


def test_train_refuses_pseudo_atoms_that_are_not_ours(refused):
    text = refused(inputGaussians=AtomStructFlex(filename="x.cif"))
    assert "was not made by the 'fit' protocol of gmmhet" in text


def test_train_refuses_a_fit_whose_files_are_gone(tmp_path, refused):
    os.remove(str(tmp_path / "fit" / rundir.GMM))
    assert "it lacks gmm.npz" in refused()


def test_train_refuses_particles_without_alignment(tmp_path, refused):
    unaligned = particle_set(str(tmp_path / "p.sqlite"))
    unaligned.setAlignment("None")
    assert "no projection alignment (their alignment is 'None')" in refused(inputParticles=unaligned)


def test_train_refuses_an_empty_set(tmp_path, refused):
    empty = particle_set(str(tmp_path / "p.sqlite"), number=0)
    assert "The set of particles is empty" in refused(inputParticles=empty)


@pytest.mark.parametrize("sampling, rescale, is_refused", [
    ((64, 2.0), False, False), ((32, 4.0), False, True), ((60, 2.0), False, True), ((32, 4.0), True, False)])
def test_train_refuses_gaussians_of_another_grid_with_the_numbers(tmp_path, refused, sampling, rescale,
                                                                  is_refused):
    with open(str(tmp_path / "fit" / rundir.SUMMARY), "w") as file:
        json.dump(dict(zip(("box", "pixel_size"), sampling)), file)
    text = refused(rescaleMap=rescale)
    expected = "The map of the Gaussians has %d px of %.4f Å, the particle set has 64 px of 2.0000 Å"
    assert (expected % sampling in text) == is_refused and bool(text) == is_refused


def test_train_refuses_a_region_given_twice(tmp_path, refused):
    mask = volume(str(tmp_path / "mask.mrc"), cls=VolumeMask)
    text = refused(region="sphere:0,0,0,20", inputRegion=mask)
    assert "A region is given twice, as text ('sphere:0,0,0,20') and as a mask" in text


def test_train_warns_of_few_particles(particles):
    protocol = GmmHetProtTrain()
    protocol.inputParticles.set(particles)
    assert "There are only 3 particles" in protocol.warnings()[0]


def test_a_phase_shift_that_is_the_amplitude_contrast_of_eman_is_doubted(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol_train, "FEW_PARTICLES", 3)
    particles = particle_set(str(tmp_path / "p.sqlite"))
    particles.getAcquisition().setAmplitudeContrast(0.1)
    protocol = GmmHetProtTrain()
    protocol.inputParticles.set(particles)
    assert protocol.warnings() == []
    item = particles.getFirstItem().clone()
    item.getCTF().setPhaseShift(float(np.degrees(np.arcsin(0.1))))
    particles.getFirstItem = lambda: item
    text, = protocol.warnings()
    assert "phase shift of the particles (5.74°) equals the phase of their amplitude contrast (0.1)" in text


# ------------------------------------------------------------------ output of a training with symmetry c3
def test_a_particle_stays_one_item_with_the_latent_point_of_its_first_copy(symmetric):
    points = {item.getObjId(): item.getZFlex().tolist() for item in symmetric.outputParticles}
    assert points == {item.getObjId(): [item.getObjId(), 0] for item in symmetric.inputParticles.get()}


def test_the_latent_points_of_all_copies_are_kept_in_their_order(symmetric):
    for item in symmetric.outputParticles:
        copies = np.reshape([float(value) for value in item._gmmCopies], (finished_runs.COPIES, 2))
        assert copies.tolist() == [[item.getObjId(), copy] for copy in range(finished_runs.COPIES)]


def test_agreement_is_the_mean_over_the_copies_and_held_out_particles_are_marked(symmetric):
    for item in symmetric.outputParticles:
        number = item.getObjId()
        assert (item._gmmAgreement.get(), item._gmmNeutralAgreement.get()) == (number, 1.0)
        assert item._gmmHeldOut.get() == (number % 4 == 0)
