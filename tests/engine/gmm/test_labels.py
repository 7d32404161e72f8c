"""Labels: which chains and residues Gaussians stand for, kept through files, selections and extensions."""
import numpy as np

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture

#: five Gaussians: residues 1 to 4 and 5 to 9 of chain A, 3 to 5 of chain B, one of two residues of unequal
#: mass, and one of no atom
LABELS = Labels(np.array(["A", "A", "B", "B", ""]), np.int32([0, 0, 1, 1, 2, 3, 3]),
                np.int32([1, 4, 5, 9, 3, 6, 7]),
                np.float32([10, 10, 20, 20, 30, 5, 15]))


def test_chains_are_named_once_in_their_order_and_without_the_empty_one():
    assert LABELS.names() == ["A", "B"] and len(LABELS) == 5


def test_the_residue_range_is_that_of_all_gaussians_of_the_chain():
    assert LABELS.residue_range("A") == (1, 9) and LABELS.residue_range("B") == (3, 7)


def test_a_gaussian_is_within_residues_that_hold_half_of_its_mass_and_only_in_its_chain():
    assert LABELS.within("A", 1, 3).tolist() == [True, False, False, False, False]
    assert LABELS.within("B", 1, 6).tolist() == [False, False, True, False, False]
    assert LABELS.within("B", 7, 9).tolist() == [False, False, False, True, False]


def test_selected_labels_are_those_of_the_gaussians_in_their_new_order():
    chosen = LABELS.select(np.array([3, 0]))
    assert chosen.chain.tolist() == ["B", "A"]
    assert chosen.residue_range("A") == (1, 4) and chosen.residue_range("B") == (6, 7)
    assert chosen.within("B", 7, 7).tolist() == [True, False]
    for choice in (slice(1, 3), [1, 2], np.array([False, True, True, False, False])):
        assert LABELS.select(choice).chain.tolist() == ["A", "B"]


def test_gaussians_that_no_atom_stands_behind_follow_and_are_within_no_residues():
    longer = LABELS.extend(2)
    assert len(longer) == 7 and longer.names() == ["A", "B"]
    assert not longer.within("A", -999, 999)[-3:].any() and longer.within("A", -999, 999)[:2].all()


def test_labels_survive_the_file_of_their_mixture(tmp_path):
    ones = np.ones(5, np.float32)
    Mixture(np.eye(5, 3, dtype=np.float32), ones, ones, LABELS).save(tmp_path / "gmm.npz")
    back = Mixture.load(tmp_path / "gmm.npz").labels
    for name, values in LABELS.arrays().items():
        np.testing.assert_array_equal(back.arrays()[name], values)
    Mixture(np.eye(5, 3, dtype=np.float32), ones, ones).save(tmp_path / "plain.npz")
    assert Mixture.load(tmp_path / "plain.npz").labels is None
