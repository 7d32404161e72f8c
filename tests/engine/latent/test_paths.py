import numpy as np
import pytest

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latent.paths import NamedLines, along, covariance, line_through, line_words
from gmmhet.engine.latents import principal_axes

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(500, 3)) * (3, 1, 0.3)
MOTIONS = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.3]])
CENTERS = np.array([[-1.0, 0, 0], [2.0, 0, 0], [0, 1.0, 0]])


def line(word, centers=CENTERS, motions=MOTIONS):
    return NamedLines(Z, principal_axes(Z), centers, motions).line(word)


def test_a_line_through_a_principal_axis_ends_at_the_percentiles_of_the_coordinates():
    found = line("pc1")
    expected = np.percentile((Z - Z.mean(axis=0)) @ principal_axes(Z).vectors[0], [5, 95])
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-4)
    np.testing.assert_allclose(found.points(2),
                               Z.mean(axis=0) + expected[:, None] * principal_axes(Z).vectors[0], rtol=1e-3,
                               atol=1e-3)


def test_a_line_off_the_principal_axes_stays_inside_the_cloud():
    steep = line_through("x", Z, np.zeros(3), [1.0, 0.0, 1.0])
    reach = np.sqrt(np.einsum("pi,ij,pj->p", steep.points(2), np.linalg.inv(np.cov(Z, rowvar=False)),
                              steep.points(2)))
    assert (np.abs(reach - 1.645) < 0.25).all()


def test_along_gives_the_coordinate_and_the_distance():
    t, distance = along(np.array([[3.0, 4.0]]), np.zeros(2), np.array([2.0, 0.0]))
    assert t.tolist() == [1.5] and distance.tolist() == [4.0]


def test_covariance_of_particles_that_coincide_can_still_be_inverted():
    assert np.isfinite(np.linalg.inv(covariance(np.ones((9, 2))))).all()


def test_points_between_clusters_run_from_one_centre_to_the_other_and_the_name_has_no_colon():
    found = line("from:2-to:3")
    assert found.name == "from2-to3"
    np.testing.assert_allclose(found.points(3), [CENTERS[1], (CENTERS[1] + CENTERS[2]) / 2, CENTERS[2]])


def test_motions_add_and_subtract_through_the_origin():
    np.testing.assert_allclose(line("motion1+motion2").vector, np.array([0, 1, 0.3]) / np.hypot(1, 0.3))
    np.testing.assert_allclose(line("motion1-motion2").vector, np.array([0, 1, -0.3]) / np.hypot(1, 0.3))
    assert not line("motion1").origin.any()


@pytest.mark.parametrize("word", ["pc4", "pc0", "from:1-to:4", "motion3", "umap1", "motion1*motion2"])
def test_an_unknown_line_is_named_together_with_the_known_ones(word):
    with pytest.raises(LatentError,
                       match="unknown line '.*'; known: pc1 to pc3; from:A-to:B for clusters A, B of 1 to 3; "
                             "motion1 to "
                                          "motion2, their sums") as caught:
        line(word)
    assert "'%s'" % word in str(caught.value)


def test_a_motion_without_a_region_says_that_it_needs_one():
    with pytest.raises(LatentError,
                       match=r"no from:A-to:B \(fewer than two clusters\); no motion1, ... \(they need "
                             r"--motion-region\)"):
        line("motion1", centers=CENTERS[:1], motions=np.empty((0, 3)))


def test_a_line_from_a_cluster_to_itself_and_a_motion_with_itself_are_refused():
    with pytest.raises(LatentError, match="--line from1-to1: both ends are the same latent point"):
        line("from:1-to:1")
    with pytest.raises(LatentError,
                       match=r"--line motion1\+motion1: a sum or difference takes two different motions"):
        line("motion1+motion1")


def test_no_line_asked_for_means_the_first_two_axes_and_repeated_words_count_once():
    assert line_words("", 4) == ["pc1", "pc2"] and line_words("", 1) == ["pc1"]
    assert line_words(" pc2, pc1 ,pc2,", 4) == ["pc2", "pc1"]


def test_described_are_the_lines_that_are_asked_for_then_all_axes_and_all_motions_each_once():
    lines = NamedLines(Z, principal_axes(Z), CENTERS, MOTIONS)
    found = lines.described([lines.line(word) for word in ("motion1", "from:1-to:2")])
    assert [one.name for one in found] == ["motion1", "from1-to2", "pc1", "pc2", "pc3", "motion2"]
