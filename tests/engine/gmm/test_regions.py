import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import RegionError, asymmetric_unit, region_mask, sample_map, symmetry_correlation
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.volumes import write_map

CENTERS = np.float32([[0, 0, 0], [10, 0, 0], [0, 20, 0], [0, 0, -30]])


def refused(spec, message):
    with pytest.raises(RegionError, match=re.escape(message)):
        region_mask(spec, CENTERS)


def test_no_region_is_every_gaussian():
    assert region_mask("", CENTERS).all()


def test_a_sphere_holds_what_lies_within_its_radius_of_its_centre():
    np.testing.assert_array_equal(region_mask("sphere:10,0,0,10", CENTERS), [True, True, False, False])
    np.testing.assert_array_equal(region_mask("sphere: 0, 0, -30, 0.5", CENTERS), [False, False, False, True])


def test_a_list_names_gaussians_from_1_by_line_or_comma(tmp_path):
    for name, text in (("a.txt", "1\n4\n"), ("b.csv", "1,4\n"), ("c.txt", "# the arm\n1 4  # both ends\n")):
        (tmp_path / name).write_text(text)
        np.testing.assert_array_equal(region_mask(str(tmp_path / name), CENTERS), [True, False, False, True])


def test_a_mask_map_holds_what_lies_on_voxels_above_one_half(tmp_path):
    mask = np.zeros((16, 16, 16), np.float32)
    mask[8, 8, 10] = 1                                                      # z, y, x: 10 Å along x
    mask[2, 8, 8] = 0.6
    mask[8, 12, 8] = 0.4
    write_map(str(tmp_path / "mask.mrc"), mask, 5.0)
    np.testing.assert_array_equal(region_mask(str(tmp_path / "mask.mrc"), CENTERS), [False, True, False, True])


def test_a_map_is_zero_outside_its_box():
    values = sample_map(np.ones((4, 4, 4), np.float32), 5.0, np.float32([[0, 0, 0], [-10, 0, 0], [10, 0, 0], [0, 1e6, 0]]))
    np.testing.assert_array_equal(values, [1, 1, 0, 0])


def test_a_region_that_is_neither_file_nor_sphere_is_refused():
    refused("arm.mrc", "region 'arm.mrc' is neither an existing file nor 'sphere:x,y,z,radius'")


@pytest.mark.parametrize("spec", ["sphere:", "sphere:1,2,3", "sphere:1,2,3,4,5", "sphere:a,b,c,d", "sphere:1;2;3;4"])
def test_a_sphere_without_four_numbers_is_refused(spec):
    refused(spec, "region '%s' must be 'sphere:x,y,z,radius', four numbers in Å" % spec)


@pytest.mark.parametrize("spec", ["sphere:500,0,0,10", "sphere:0,0,0,-1", "sphere:nan,0,0,10"])
def test_a_region_without_gaussians_is_refused_with_their_number(spec):
    refused(spec, "region '%s' selects none of the 4 Gaussians: check its position (Å from the box centre, x,y,z)" % spec)


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


@pytest.mark.parametrize("group", ["c2", "c3", "c7", "d1", "d2", "d3"])
@pytest.mark.parametrize("seed", range(5))
def test_the_asymmetric_unit_holds_exactly_one_nth_and_its_copies_cover_everything_once(group, seed):
    centers, amplitudes = symmetric_model(group, seed)
    inside, matrices = asymmetric_unit(centers, amplitudes, group), symmetry_matrices(group)
    assert amplitudes[inside].sum() == pytest.approx(amplitudes.sum() / len(matrices), rel=1e-9)
    covered = np.concatenate([centers[inside] @ s.T for s in matrices])
    distance = np.linalg.norm(covered[:, None] - centers[None], axis=-1)
    assert np.array_equal(np.sort(distance.argmin(1)), np.arange(len(centers))) and distance.min(1).max() < 1e-9


def test_the_asymmetric_unit_of_separate_subunits_is_one_whole_subunit():
    rng = np.random.default_rng(0)
    for azimuth in (0, 25, 60, 100):
        arm = rng.normal(0, 3, (20, 3)) + Rotation.from_euler("z", azimuth, degrees=True).apply([40, 0, 0])
        centers = np.concatenate([arm @ s.T for s in symmetry_matrices("c3")])
        inside = asymmetric_unit(centers, np.ones(60), "c3").reshape(3, 20)
        assert sorted(inside.sum(1)) == [0, 0, 20]


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
    assert region_mask(str(tmp_path / "chosen"), CENTERS).tolist() == [False, True, False, False]
    write_map(tmp_path / "weak.mrc", np.full((20, 20, 20), 0.1, np.float32), 5.0)
    refused(str(tmp_path / "weak.mrc"), "expected a mask from 0 to 1 that is above 0.5 inside, its largest value at a Gaussian is 0.1")
