import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import (
    RegionError,
    asymmetric_unit,
    region_mask,
    region_parts,
    sample_map,
    shared_by_copies,
    symmetry_correlation,
)
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import write_map

CENTERS = np.float32([[0, 0, 0], [10, 0, 0], [0, 20, 0], [0, 0, -30]])
#: the last Gaussian stands behind no atom
LABELS = Labels(np.array(["A", "A", "B", ""]), np.int32([0, 0, 1, 2, 2]), np.int32([1, 2, 120, 7, 8]),
                np.float32([10, 20, 30, 10, 10]))
MODEL = Mixture(CENTERS, np.ones(4, np.float32), np.ones(4, np.float32), LABELS)


def refused(spec, message, model=MODEL):
    with pytest.raises(RegionError, match=re.escape(message)):
        region_mask(spec, model)


@pytest.mark.parametrize("spec, expected", [
    ("chain:A", [1, 1, 0, 0]), ("chain:B", [0, 0, 1, 0]), ("chain: A , B", [1, 1, 1, 0]),
    ("chain:A/1-100", [1, 0, 0, 0]),
    ("chain:A/120", [0, 1, 0, 0]), ("chain:A/2-2,B/7-8", [1, 0, 1, 0]), ("chain:B/8-20", [0, 0, 1, 0]),
    ("chain:A/-5-2", [1, 0, 0, 0]),
    ("chain:B;sphere:0,0,-30,1", [0, 0, 1, 1]), (" chain:A/1-2 ; chain:B ;", [1, 0, 1, 0])])
def test_chains_and_residues_select_gaussians_that_hold_them_for_half_and_regions_join(spec, expected):
    np.testing.assert_array_equal(region_mask(spec, MODEL), np.array(expected, bool))


@pytest.mark.parametrize("spec, expected",
                         [("", [1, 1, 1, 1]), ("chain:A", [1, 1, 0, 0]),
                          ("chain:B;chain:A/1-2", [2, 0, 1, 0]),
                                            ("sphere:0,0,-30,1; chain:A,B; chain:B", [2, 2, 2, 1])])
def test_the_parts_of_a_region_are_numbered_and_the_first_that_holds_a_gaussian_has_it(spec, expected):
    assert region_parts(spec, MODEL).tolist() == expected


def test_a_file_joins_other_regions_and_a_semicolon_in_its_name_does_no_harm(tmp_path):
    for name in ("list.txt", "my;list.txt"):
        (tmp_path / name).write_text("4\n")
    np.testing.assert_array_equal(region_mask("chain:A;%s" % (tmp_path / "list.txt"), MODEL),
                                  [True, True, False, True])
    np.testing.assert_array_equal(region_mask(str(tmp_path / "my;list.txt"), MODEL),
                                  [False, False, False, True])


@pytest.mark.parametrize("spec, message", [
    ("chain:C", "region 'chain:C': the neutral model has no chain 'C', its chains are A, B"),
    ("chain:a", "the neutral model has no chain 'a', its chains are A, B"),
    ("chain:", "each alone or with residues, as in 'chain:A,B/120-240', got ''"),
    ("chain:A/x", "as in 'chain:A,B/120-240', got 'A/x'"), ("chain:A/1-2-3", "got 'A/1-2-3'"),
    ("chain:A:B", "has no chain 'A:B'"),
    ("chain:A/9-3", "region 'chain:A/9-3': residues 9 to 3 of chain A run backwards, write 'A/3-9'"),
    ("chain:B/1-6", "selects none of the 1 Gaussians of chain B, which has residues 7 to 8"),
    ("chain:A,B/1-6", "selects none of the 1 Gaussians of chain B"),
    ("chain:A;sphere:500,0,0,1", "region 'sphere:500,0,0,1' selects none"),
    (";", "names no region")])
def test_a_chain_selection_that_selects_nothing_is_refused_with_what_there_is(spec, message):
    refused(spec, message)


@pytest.mark.parametrize("spec", ["sphere:0,0,0,-5", "sphere:0,0,0,0", "sphere:nan,0,0,10"])
def test_a_sphere_that_is_none_is_refused_with_how_to_write_one(spec):
    refused(spec, "region '%s' must be 'sphere:x,y,z,radius', four numbers in Å, the radius above 0" % spec)


def test_a_binary_list_is_refused_without_its_bytes(tmp_path):
    (tmp_path / "gmm.npz").write_bytes(b"PK\x03\x04\xff\x00\x07")
    refused(str(tmp_path / "gmm.npz"), "must hold whole numbers from 1, got 'PK\\x03\\x04\\ufffd\\x00\\x07'")


def test_how_much_of_a_region_lies_on_its_own_copies():
    rng = np.random.default_rng(0)
    unit = np.float32(rng.normal((30, 0, 0), 5, (200, 3)))
    whole = np.concatenate([unit @ matrix.T for matrix in symmetry_matrices("c3")]).astype(np.float32)
    model = Mixture(whole, np.ones(600, np.float32), np.full(600, 3, np.float32))
    assert shared_by_copies(model, np.arange(600) < 200, "c3") < 0.02
    assert shared_by_copies(model, np.ones(600, bool), "c3") == 1
    assert 0.6 < shared_by_copies(model, np.arange(600) < 400, "c3") <= 1


def test_chains_of_a_model_without_atoms_are_refused_with_the_way_to_get_them():
    plain = Mixture(MODEL.centers, MODEL.amplitudes, MODEL.widths)
    refused("chain:A", "region 'chain:A' names chains, but the neutral model has none: it was not started "
                       "from an atomic model (fit --atoms)", plain)


def test_no_region_is_every_gaussian():
    assert region_mask("", MODEL).all()


def test_a_sphere_holds_what_lies_within_its_radius_of_its_centre():
    np.testing.assert_array_equal(region_mask("sphere:10,0,0,10", MODEL), [True, True, False, False])
    np.testing.assert_array_equal(region_mask("sphere: 0, 0, -30, 0.5", MODEL), [False, False, False, True])


def test_a_list_names_gaussians_from_1_by_line_or_comma(tmp_path):
    for name, text in (("a.txt", "1\n4\n"), ("b.csv", "1,4\n"), ("c.txt", "# the arm\n1 4  # both ends\n")):
        (tmp_path / name).write_text(text)
        np.testing.assert_array_equal(region_mask(str(tmp_path / name), MODEL), [True, False, False, True])


def test_a_mask_map_holds_what_lies_on_voxels_above_one_half(tmp_path):
    mask = np.zeros((16, 16, 16), np.float32)
    mask[8, 8, 10] = 1                                                      # z, y, x: 10 Å along x
    mask[2, 8, 8] = 0.6
    mask[8, 12, 8] = 0.4
    write_map(str(tmp_path / "mask.mrc"), mask, 5.0)
    np.testing.assert_array_equal(region_mask(str(tmp_path / "mask.mrc"), MODEL), [False, True, False, True])


def test_a_map_is_zero_outside_its_box():
    values = sample_map(np.ones((4, 4, 4), np.float32), 5.0,
                        np.float32([[0, 0, 0], [-10, 0, 0], [10, 0, 0], [0, 1e6, 0]]))
    np.testing.assert_array_equal(values, [1, 1, 0, 0])


def test_a_region_that_is_neither_file_nor_sphere_is_refused():
    refused("arm.mrc", "region 'arm.mrc' is neither an existing file nor 'sphere:x,y,z,radius'")


@pytest.mark.parametrize("spec",
                         ["sphere:", "sphere:1,2,3", "sphere:1,2,3,4,5", "sphere:a,b,c,d", "sphere:1;2;3;4"])
def test_a_sphere_without_four_numbers_is_refused(spec):
    refused(spec, "region '%s' must be 'sphere:x,y,z,radius', four numbers in Å" % spec.split(";")[0])


def test_a_region_without_gaussians_is_refused_with_their_number():
    spec = "sphere:500,0,0,10"
    refused(spec, "region '%s' selects none of the 4 Gaussians: check its position (Å from the box centre, "
                  "x,y,z)" % spec)


@pytest.mark.parametrize("number", [0, -2, 5])
def test_a_number_outside_the_model_is_refused_with_the_models_range(tmp_path, number):
    path = tmp_path / "list.txt"
    path.write_text("2\n%d\n" % number)
    refused(str(path), "region file '%s' names Gaussian %d; the model has Gaussians 1 to 4" % (path, number))


@pytest.mark.parametrize("text", [("one\n", "one"), ("1.5\n", "1.5"), ("1 two\n", "two"), ("1;2", "1;2")])
def test_a_list_of_anything_but_whole_numbers_is_refused_with_what_it_holds(tmp_path, text):
    path = tmp_path / "list.txt"
    path.write_text(text[0])
    refused(str(path), "region file '%s' must hold whole numbers from 1, got '%s'" % (path, text[1]))


def test_an_empty_list_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("")
    refused(str(path), "region '%s' selects none of the 4 Gaussians" % path)


def symmetric_model(group, seed):
    """Gaussians [N, 3] with amplitudes, exactly symmetric under the group."""
    rng = np.random.default_rng(seed)
    centers, amplitudes = rng.normal(0, 15, (40, 3)) + [30, 5, 12], rng.uniform(0.5, 2, 40)
    matrices = symmetry_matrices(group)
    return np.concatenate([centers @ s.T for s in matrices]), np.tile(amplitudes, len(matrices))


@pytest.mark.parametrize("group", ["c2", "c3", "c7", "d1", "d2", "d3", "d7"])
@pytest.mark.parametrize("seed", range(5))
def test_the_asymmetric_unit_holds_exactly_one_nth_and_its_copies_cover_everything_once(group, seed):
    centers, amplitudes = symmetric_model(group, seed)
    inside, matrices = asymmetric_unit(centers, amplitudes, group), symmetry_matrices(group)
    assert amplitudes[inside].sum() == pytest.approx(amplitudes.sum() / len(matrices), rel=1e-9)
    covered = np.concatenate([centers[inside] @ s.T for s in matrices])
    distance = np.linalg.norm(covered[:, None] - centers[None], axis=-1)
    assert np.array_equal(np.sort(distance.argmin(1)), np.arange(len(centers)))
    assert distance.min(1).max() < 1e-9


def test_the_asymmetric_unit_of_separate_subunits_is_one_whole_subunit():
    rng = np.random.default_rng(0)
    for azimuth in (0, 25, 60, 100):
        arm = rng.normal(0, 3, (20, 3)) + Rotation.from_euler("z", azimuth, degrees=True).apply([40, 0, 0])
        centers = np.concatenate([arm @ s.T for s in symmetry_matrices("c3")])
        inside = asymmetric_unit(centers, np.ones(60), "c3").reshape(3, 20)
        assert sorted(inside.sum(1)) == [0, 0, 20]


@pytest.mark.parametrize("group", ["d2", "d3", "d7"])
@pytest.mark.parametrize("place", [[40, 0, 2], [35, 12, -6], [30, 10, 25]])
def test_the_asymmetric_unit_of_separate_subunits_of_dn_is_one_whole_subunit_wherever_it_lies(group, place):
    matrices, rng = symmetry_matrices(group), np.random.default_rng(0)
    place = np.array(place, float)
    gap = np.min([np.linalg.norm(place - s @ place) for s in matrices[1:]])
    subunit = place + np.clip(rng.normal(0, 0.12 * gap, (20, 3)), -0.25 * gap, 0.25 * gap)
    inside = asymmetric_unit(np.concatenate([subunit @ s.T for s in matrices]), np.ones(20 * len(matrices)),
                             group)
    assert sorted(inside.reshape(-1, 20).sum(1)) == [0] * (len(matrices) - 1) + [20]


def test_the_asymmetric_unit_is_the_one_that_holds_the_x_axis():
    centers, amplitudes = symmetric_model("c3", 0)
    for at_x in (True, False):
        probe = np.array([[200.0, 0, 0]]) @ symmetry_matrices("c3")[0 if at_x else 1].T
        assert asymmetric_unit(np.concatenate([centers, probe]), np.append(amplitudes, 1e-9),
                               "c3")[-1] == at_x


def test_the_asymmetric_unit_of_c1_is_everything():
    assert asymmetric_unit(CENTERS, np.ones(4), "c1").all()


def test_a_symmetric_model_is_told_from_one_that_is_not():
    rng = np.random.default_rng(5)
    unit = rng.normal(0, 20, (30, 3)) + [40, 0, 0]
    centers = np.concatenate([unit @ matrix.T for matrix in symmetry_matrices("c3")]).astype(np.float32)
    even = Mixture(centers, np.ones(90, np.float32), np.full(90, 4, np.float32))
    assert symmetry_correlation(even, "c3", 6.0) == pytest.approx(1, abs=1e-4)
    assert symmetry_correlation(even.select(slice(0, 40)), "c3", 6.0) < 0.8


def test_a_list_needs_no_ending_and_a_weak_map_is_named_as_the_cause(tmp_path):
    (tmp_path / "chosen").write_text("2\n")
    assert region_mask(str(tmp_path / "chosen"), MODEL).tolist() == [False, True, False, False]
    write_map(tmp_path / "weak.mrc", np.full((20, 20, 20), 0.1, np.float32), 5.0)
    refused(str(tmp_path / "weak.mrc"),
            "expected a mask from 0 to 1 that is above 0.5 inside, its largest value at a Gaussian is 0.1")
