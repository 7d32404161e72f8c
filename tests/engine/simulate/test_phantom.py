"""Phantoms: what moves, what is absent, and how often."""
import numpy as np
import pytest

from gmmhet.engine.imaging.pose import rotation_from_vector, symmetry_matrices
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, MIXED_STATES, make_phantom

KINDS = ("hinge", "assembly", "mixed", "c3", "d2", "null")


def phantom(kind, angle=20.0):
    return make_phantom(kind, 60.0, 6.0, angle, 1)


def test_a_hinge_turns_its_arm_by_the_angle_about_its_axis_and_nothing_else():
    p = phantom("hinge")
    moved, arm = p.at((1, 15.0)), p.domain == 1
    np.testing.assert_array_equal(moved.centers[~arm], p.reference.centers[~arm])
    turned = (p.reference.centers[arm] - p.pivot) @ rotation_from_vector([np.radians(15) * p.axis])[
        0
    ].T + p.pivot
    np.testing.assert_allclose(moved.centers[arm], turned, atol=1e-3)
    assert 0.03 < arm.mean() < 0.3


def test_an_assembly_state_lacks_its_parts_and_populations_sum_to_one():
    p = phantom("assembly")
    assert sum(share for share, _ in ASSEMBLY_STATES) == pytest.approx(1)
    for state, (_, absent) in enumerate(ASSEMBLY_STATES):
        gone = p.at((state, 0)).amplitudes == 0
        np.testing.assert_array_equal(gone, np.isin(p.domain, absent))
        np.testing.assert_array_equal(p.at((state, 0)).centers, p.reference.centers)


@pytest.mark.parametrize("kind", ["c3", "d2"])
def test_a_symmetric_phantom_is_symmetric_at_rest_and_each_unit_moves_as_the_first_one_does(kind):
    p = phantom(kind)
    for unit, turn in enumerate(symmetry_matrices(kind), 1):
        turned = p.reference.centers @ turn.T
        nearest = np.linalg.norm(turned[:, None] - p.reference.centers[None], axis=-1)
        assert nearest.min(1).max() < 1e-3
        np.testing.assert_allclose(
            p.reference.amplitudes[nearest.argmin(1)], p.reference.amplitudes, rtol=1e-6
        )
        first, moved = p.at((1, 12.0)).centers @ turn.T, p.at((unit, 12.0)).centers
        assert np.linalg.norm(first[:, None] - moved[None], axis=-1).min(1).max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_coordinates_repeat_with_the_seed_and_follow_the_prior(kind):
    p = phantom(kind)
    a, b = (p.draw(4000, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    coordinates, prior = p.grid()
    assert prior.sum() == pytest.approx(1) and len(coordinates) == len(prior)
    np.testing.assert_allclose(a.mean(0), prior @ coordinates, atol=0.7)
    assert np.abs(a[:, 1]).max() <= 20


def test_the_arm_of_a_mixed_phantom_turns_where_it_is_there_and_nowhere_else():
    p = phantom("mixed")
    assert p.has_arm(np.array([0, 1, 2])).tolist() == [1 not in absent for _, absent in MIXED_STATES]
    state, angle = p.draw(500, np.random.default_rng(0)).T
    assert not angle[~p.has_arm(state)].any() and angle[p.has_arm(state)].std() > 5
    with_arm, without = p.at((0, 15.0)), p.at((1, 0.0))
    assert not without.amplitudes[p.domain == 1].any() and with_arm.amplitudes.all()
    np.testing.assert_array_equal(with_arm.centers, p.at_angle(15.0).centers)


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    a, b, c = (make_phantom("hinge", 60.0, 6.0, 20.0, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.reference.centers, b.reference.centers)
    assert a.reference.centers.shape != c.reference.centers.shape or not np.array_equal(
        a.reference.centers, c.reference.centers
    )
