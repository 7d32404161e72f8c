"""What lines through a landscape do to the model, and where they lie in the plane."""
import numpy as np
import pytest
from analytic import AMPLITUDE_STEP, SlidingDomains, two_states

from gmmhet.engine.latent.assignment import Clusters
from gmmhet.engine.latent.eigenmotion import LocalMotions
from gmmhet.engine.latent.landscape import Landscape, changes_along
from gmmhet.engine.latent.paths import Line
from gmmhet.engine.latent.reduce import Plane
from gmmhet.engine.latents import Latents, principal_axes

LINES = [Line("slide", np.zeros(3), np.array([1.0, 0, 0]), -1.0, 2.0),
         Line("fade", np.zeros(3), np.array([0, 0, 1.0]), 0.0, 1.0)]


def test_changes_are_those_from_one_end_of_a_line_to_the_other():
    found = changes_along(SlidingDomains(), LINES)
    assert list(found) == ["slide", "fade"]
    assert found["slide"].motion_rms_angst == pytest.approx(9 / np.sqrt(2), rel=1e-5)
    assert found["slide"].amplitude_rms == 0
    assert found["fade"] == pytest.approx((0, AMPLITUDE_STEP / np.sqrt(2)), rel=1e-5)


def test_a_landscape_counts_particles_once_and_places_its_trajectories_in_the_plane():
    once, _ = two_states(50)
    latents = Latents(np.repeat(once.ids, 2), np.tile([0, 1], 50), np.repeat(once.z, 2, axis=0))
    axes = principal_axes(latents.z)
    landscape = Landscape(latents, axes, Plane(axes.coordinates(latents.z), ("", ""), axes, latents.z),
                          Clusters(np.ones(100, int), np.zeros((1, 3))), LocalMotions.none(3), LINES[:1],
                          LINES, {})
    assert landscape.n_particles == 50
    np.testing.assert_allclose(landscape.paths(4)["slide"], axes.coordinates(LINES[0].points(4)))
