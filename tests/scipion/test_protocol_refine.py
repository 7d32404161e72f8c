"""The form and the texts of 'refine orientations'."""
import pytest
from inputs import problems_of
from pwem.objects import SetOfParticlesFlex

from gmmhet.protocols import GmmHetProtRefine


def test_refine_refuses_trained_particles_without_alignment(trained):
    unaligned = SetOfParticlesFlex(filename=trained.getFileName())
    unaligned.copy(trained)
    unaligned.setAlignment("None")
    assert "no projection alignment" in problems_of(GmmHetProtRefine, inputParticles=unaligned)


@pytest.mark.parametrize("sigmas, text", [((1.0, 2.0), "standard deviations of the priors: 1° and 2 Å"),
                                          ((0, 0), "Orientations and shifts were kept")])
def test_methods_give_the_priors_or_say_that_nothing_was_refined(monkeypatch, sigmas, text):
    summary = dict(zip(("sigma_angle_deg", "sigma_shift_angst"), sigmas))
    monkeypatch.setattr(GmmHetProtRefine, "getSummary", lambda self: summary)
    assert text in GmmHetProtRefine()._methods()[0]
