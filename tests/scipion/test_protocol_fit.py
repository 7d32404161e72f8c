"""The form of 'fit Gaussians'."""
from inputs import problems_of, volume
from pwem.objects import AtomStruct, VolumeMask

from gmmhet.protocols import GmmHetProtFit


def test_fit_wants_a_map_or_particles(tmp_path, particles):
    assert "Give a consensus map or particles." in problems_of(GmmHetProtFit)
    both = problems_of(GmmHetProtFit, inputVolume=volume(str(tmp_path / "map.mrc")), inputParticles=particles)
    assert "not both" in both


def test_fit_accepts_a_map(tmp_path):
    assert problems_of(GmmHetProtFit, inputVolume=volume(str(tmp_path / "map.mrc"))) == ""


def test_fit_refuses_a_mask_of_another_pixel_size_with_the_numbers(tmp_path):
    text = problems_of(GmmHetProtFit, inputVolume=volume(str(tmp_path / "map.mrc")),
                       inputMask=volume(str(tmp_path / "mask.mrc"), 2.0, VolumeMask))
    assert "The mask has 32 px of 2.0000 Å, the map has 32 px of 4.0000 Å" in text


def test_fit_takes_an_atomic_model_beside_the_map_and_hands_its_file_to_the_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = dict(inputVolume=volume(str(tmp_path / "map.mrc")), inputAtoms=AtomStruct(filename="model.cif"))
    assert problems_of(GmmHetProtFit, **inputs) == ""
    protocol = GmmHetProtFit(workingDir="Runs/1")
    for name, value in inputs.items():
        getattr(protocol, name).set(value)
    assert protocol._inputValues()["atoms"] == "model.cif"
    protocol.inputAtoms.set(None)
    assert protocol._inputValues()["atoms"] == ""


def test_fit_refuses_pseudo_atoms_for_an_atomic_model(tmp_path):
    text = problems_of(GmmHetProtFit, inputVolume=volume(str(tmp_path / "map.mrc")),
                       inputAtoms=AtomStruct(filename="x.cif", pseudoatoms=True))
    assert "The atomic model holds pseudo-atoms, which have neither chains nor residues" in text
