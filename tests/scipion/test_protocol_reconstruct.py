"""The form of 'reconstruct states', and its output from run folders written by hand."""
import finished_runs
import pytest
from inputs import problems_of

from gmmhet.protocols import GmmHetProtReconstruct, protocol_reconstruct


def test_reconstruct_refuses_a_latent_point_for_particles_without_one(particles):
    text = problems_of(GmmHetProtReconstruct, inputParticles=particles, near="0,0")
    assert "was not made by the 'train' protocol" in text


def test_reconstruct_refuses_a_latent_point_for_classes(runs):
    protocol = GmmHetProtReconstruct(near="0,0")
    protocol.inputParticles.set(runs["analyze"].outputClasses)
    assert "*Near latent point* selects particles: clear it" in " ".join(protocol.validate())


@pytest.mark.parametrize("few, warnings", [
    (100, []), (101, ["Class 2 has only 100 particles: its map will be mostly noise."])])
def test_small_classes_get_a_warning_with_their_size(runs, monkeypatch, few, warnings):
    monkeypatch.setattr(protocol_reconstruct, "FEW_PARTICLES", few)
    protocol = GmmHetProtReconstruct()
    protocol.inputParticles.set(runs["analyze"].outputClasses)
    assert protocol.warnings() == warnings


def test_particles_give_a_map_and_classes_a_set_of_maps_with_the_number_of_their_class(runs):
    assert runs["reconstruct"].outputVolume.hasHalfMaps()
    volumes = [(volume.getObjId(), volume.getClassId()) for volume in runs["classes"].outputVolumes]
    assert volumes == [(1, 1), (2, 2)]


def test_fsc_curves_are_those_of_the_file_and_name_class_and_mask(runs):
    curves = {curve.getObjLabel(): curve.getData() for curve in runs["classes"].outputFSCs}
    assert sorted(curves) == ["class %d, %s" % (number, name) for number in (1, 2)
                              for name in ("fsc_masked", "fsc_unmasked")]
    frequency, values = curves["class 2, fsc_masked"]
    assert [float(x) for x in values] == pytest.approx(finished_runs.falling_fsc(6), abs=1e-5)
    assert float(frequency[-1]) == pytest.approx(1 / (2 * finished_runs.PIXEL_SIZE))
