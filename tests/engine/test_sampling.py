import pytest

from gmmhet.engine.sampling import Sampling


@pytest.mark.parametrize("box, pixel_size, agrees", [
    (64, 1.5, True), (64, 1.5014, True), (64, 1.4986, True), (64, 1.502, False), (64, 1.498, False),
    (63, 1.5, False)])
def test_samplings_agree_in_box_and_in_pixel_size_to_a_thousandth(box, pixel_size, agrees):
    assert Sampling(box, pixel_size).agrees(Sampling(64, 1.5)) is agrees


def test_the_tolerance_can_be_tighter():
    assert not Sampling(64, 1.5003).agrees(Sampling(64, 1.5),
                                           1e-4) and Sampling(64, 1.5001).agrees(Sampling(64, 1.5), 1e-4)


def test_a_difference_is_worded_with_all_four_numbers():
    assert Sampling(32, 6).difference("--mask m.mrc", Sampling(36, 5.5), "the map") == (
        "--mask m.mrc has 32 px of 6.0000 Å, the map has 36 px of 5.5000 Å")


def test_the_extent_is_the_side_of_the_field_of_view():
    assert Sampling(64, 1.5).extent_angst == 96
