"""Decoded physics: angles and states from Gaussians alone."""
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.metrics import adjusted_rand_score

from gmmhet.engine.simulate.phantom import make_phantom
from gmmhet.engine.simulate.physics import (
    arm_members,
    decoded_angles,
    decoded_states,
    plain_r2,
    rigid_rotations,
)


def model_of(phantom):
    """A decoder whose latent points are the phantom's coordinates, seen from somewhere else each time."""
    def decode(z):
        mixtures, rng = [phantom.at(point) for point in z], np.random.default_rng(0)
        turns = Rotation.from_rotvec(0.2 * rng.normal(size=(len(z), 3)))
        centers = np.stack([turns[i].apply(m.centers) + 3.0 * i for i, m in enumerate(mixtures)])
        return centers, np.stack([m.amplitudes for m in mixtures]), np.stack([m.widths for m in mixtures])
    return SimpleNamespace(neutral=phantom.reference, decode=decode)


def test_the_best_rotation_of_turned_and_moved_points_is_the_one_that_turned_them():
    rng = np.random.default_rng(0)
    points, turns = rng.normal(size=(30, 3)), Rotation.random(5, random_state=1)
    after = np.stack([turn.apply(points) + rng.normal(size=3) for turn in turns])
    found = rigid_rotations(points, after, rng.uniform(0.5, 1, (5, 30)))
    assert np.degrees((found.inv() * turns).magnitude()).max() < 1e-5


def test_points_of_no_weight_do_not_turn_it_and_a_mirror_image_is_no_rotation():
    points = np.random.default_rng(0).normal(size=(20, 3))
    after, weights = np.stack([points, points * (1, 1, -1)]), np.ones((2, 20))
    after[0, :5], weights[0, :5] = 100, 0
    found = rigid_rotations(points, after, weights)
    assert found[0].magnitude() < 1e-6 and np.linalg.det(found[1].as_matrix()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["hinge", "c3"])
def test_members_of_an_arm_are_the_gaussians_of_its_domain(kind):
    phantom = make_phantom(kind, 60.0, 6.0, 20.0, 1)
    for unit in range(1, 1 + len(phantom.unit_rotations)):
        assert (
            np.mean(arm_members(phantom.reference.centers, phantom, unit) == (phantom.domain == unit)) > 0.95
        )


def test_decoded_angles_are_those_of_the_phantom_wherever_the_whole_is_seen_from():
    phantom, angles = make_phantom("hinge", 60.0, 6.0, 20.0, 1), np.linspace(-20, 20, 9)
    z = np.stack([np.ones(9), angles], 1)
    found = decoded_angles(model_of(phantom), z, phantom, batch_size=4)
    assert np.abs(found - angles).max() < 1.5
    assert len(decoded_angles(model_of(phantom), z[:0], phantom)) == 0


def test_decoded_states_are_those_of_the_phantom():
    phantom = make_phantom("mixed", 60.0, 6.0, 20.0, 1)
    z = phantom.draw(120, np.random.default_rng(0))
    assert adjusted_rand_score(z[:, 0], decoded_states(model_of(phantom), z, phantom)) == 1


def test_r2_is_one_for_the_truth_and_not_above_zero_for_its_mean():
    truth = np.arange(9.0)
    assert plain_r2(truth, truth) == 1 and plain_r2(np.full(9, 4.0), truth) == 0
    assert plain_r2(truth + 10, truth) < 0
