import numpy as np
import pytest
from analytic import SlidingDomains

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.eigenmotion import localised_motions, motion_matrices

MODEL = SlidingDomains()
MIX = np.array([[1.0, 0.6, 0.2], [0.4, -1.0, 0.3], [0.1, 0.2, 1.0]])    # latent axes that mix the two motions


def test_the_direction_found_moves_the_region_alone_although_the_latent_axes_mix_the_motions():
    mixed = MODEL.slope @ MIX
    motions = localised_motions([mixed], MODEL.first, np.eye(3))
    step = mixed @ motions.vectors[0]
    inside, outside = (np.linalg.norm(step[members], axis=1) for members in (MODEL.first, ~MODEL.first))
    assert inside.min() > 20 * outside.max()
    assert motions.outside_angst[0] < 0.05 * motions.inside_angst[0]


def test_a_vector_is_one_standard_deviation_of_the_particles_and_its_motion_is_in_angstrom():
    motions = localised_motions([MODEL.slope], MODEL.first, np.diag([0.25, 1.0, 1.0]))
    np.testing.assert_allclose(motions.vectors[0], [0.5, 0, 0], atol=1e-9)
    assert motions.inside_angst[0] == pytest.approx(1.5)
    assert motions.outside_angst[0] == pytest.approx(0.0, abs=1e-9)


def test_the_result_does_not_depend_on_the_units_of_z():
    scale = np.diag([10.0, 0.1, 3.0])
    plain = localised_motions([MODEL.slope @ MIX], MODEL.first, np.eye(3))
    scaled = localised_motions([MODEL.slope @ MIX @ scale], MODEL.first,
                               np.linalg.inv(scale) @ np.linalg.inv(scale))
    moved = [MODEL.slope @ MIX @ plain.vectors[0], MODEL.slope @ MIX @ scale @ scaled.vectors[0]]
    np.testing.assert_allclose(np.abs(moved[0]), np.abs(moved[1]), atol=1e-8)


def test_a_direction_in_which_the_particles_do_not_differ_is_not_found_first():
    both = np.zeros((40, 3, 2))
    both[MODEL.first, 0, 0] = both[MODEL.first, 1, 1] = 1.0
    motions = localised_motions([both], MODEL.first, np.diag([1.0, 1e-8]))
    assert abs(motions.vectors[0, 0]) == pytest.approx(1.0, abs=1e-6)


def test_matrices_are_the_mean_squared_motion_for_a_small_step():
    v = np.array([0.3, -0.2, 0.1])
    a_in, a_out = motion_matrices([MODEL.slope], MODEL.first)
    assert v @ a_in @ v == pytest.approx(0.9**2) and v @ a_out @ v == pytest.approx(0.4**2)


def test_a_region_of_every_gaussian_gives_the_largest_motion():
    motions = localised_motions([MODEL.slope], np.ones(40, bool), np.eye(3))
    np.testing.assert_allclose(motions.vectors[0], [1, 0, 0], atol=1e-9)


def test_a_region_that_selects_nothing_or_nothing_that_moves_is_refused_with_its_size():
    with pytest.raises(LatentError, match="--motion-region selects none of the 40 Gaussians"):
        localised_motions([MODEL.slope], np.zeros(40, bool), np.eye(3))
    with pytest.raises(LatentError, match="--motion-region: none of its 20 Gaussians moves in this model"):
        localised_motions([MODEL.slope * ~MODEL.first[:, None, None]], MODEL.first, np.eye(3))
