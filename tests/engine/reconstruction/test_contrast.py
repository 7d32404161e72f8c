import numpy as np
import pytest
from relion_images import blobs, density

from gmmhet.engine.log import log
from gmmhet.engine.reconstruction.contrast import ensure_white, map_contrast, whitening_signs


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("offset", [0.0, -5.0])
def test_a_molecule_is_white_and_its_inverse_black_whatever_the_offset_and_moderate_noise(noise, offset):
    volume = density(*blobs())
    volume = volume + noise * volume.std() * np.random.default_rng(0).normal(size=volume.shape) + offset
    assert (map_contrast(volume), map_contrast(-volume)) == ("white", "black")


def test_noise_and_an_empty_map_are_unclear():
    assert map_contrast(np.random.default_rng(1).normal(size=(32, 32, 32))) == "unclear"
    assert map_contrast(np.zeros((32, 32, 32))) == "unclear"


def test_a_black_map_is_inverted_aloud_and_a_white_one_left_alone(caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    volume = density(*blobs())
    assert ensure_white(volume, "it") is volume and not caplog.text
    np.testing.assert_array_equal(ensure_white(-volume, "the reconstruction"), volume)
    assert "the density of the reconstruction is negative: the particles' contrast is black" in caplog.text
    assert "The map is inverted" in caplog.text


def test_images_are_turned_white_by_what_training_found_of_their_group_and_else_of_all():
    group = np.array([1, 2, 2, 7])
    assert whitening_signs(group, {}).tolist() == [1, 1, 1, 1]
    assert whitening_signs(group, dict(contrast="black")).tolist() == [-1, -1, -1, -1]
    mixed = dict(contrast="black", contrast_of_optics_group={"1": "black", "2": "white"})
    assert whitening_signs(group, mixed).tolist() == [-1, 1, 1, -1]
