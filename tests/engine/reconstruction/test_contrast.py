import numpy as np
import pytest
from relion_images import blobs, density

from gmmhet.engine.log import log
from gmmhet.engine.reconstruction.contrast import made_white, map_contrast


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
    assert made_white(volume, "it") is volume and not caplog.text
    np.testing.assert_array_equal(made_white(-volume, "the reconstruction"), volume)
    assert "the density of the reconstruction is negative: the particles' contrast is black. The map is inverted" in caplog.text
