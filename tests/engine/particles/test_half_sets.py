import numpy as np

from gmmhet.engine.particles.half_sets import draw_half_sets


def test_known_half_sets_are_kept_as_they_are():
    halves = draw_half_sets(np.array([1, 2, 2, 1, 2]), 1)
    assert halves.number.tolist() == [1, 2, 2, 1, 2] and halves.sizes == (2, 3)
    assert halves.source == "rlnRandomSubset of the star file" and halves.n_drawn == 0


def test_unknown_half_sets_are_drawn_in_equal_numbers_and_again_the_same_with_the_seed():
    halves = draw_half_sets(np.zeros(300), 7)
    assert halves.sizes == (150, 150) and np.any(np.diff(halves.number, 2))
    assert halves.source == "drawn at random with seed 7" and halves.n_drawn == 300
    np.testing.assert_array_equal(draw_half_sets(np.zeros(300), 7).number, halves.number)
    assert np.any(draw_half_sets(np.zeros(300), 8).number != halves.number)
    assert np.any(draw_half_sets(np.zeros(300), 7, (14,)).number != halves.number)


def test_of_partly_known_half_sets_only_the_unknown_are_drawn():
    known = np.repeat([1, 0, 2], [30, 20, 10])
    halves = draw_half_sets(known, 3)
    np.testing.assert_array_equal(halves.number[known > 0], known[known > 0])
    assert np.bincount(halves.number[known == 0]).tolist() == [0, 10, 10]
    assert halves.source == "rlnRandomSubset, and for 20 particles without it drawn at random with seed 3"
