"""New sets of particles: what is written comes back."""
import mrcfile
import numpy as np
import pytest
import starfile

from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles

N, BOX = 7, 8
#: first and last value of each CTF parameter
CTF_RANGES = ((9e3, 2e4), (8e3, 1e4), (0, 170), (300, 300), (2.7, 2.7), (0.1, 0.1), (0, 90), (0, 50),
              (1, 0.5), (0, 0))


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(N, BOX, BOX)).astype(np.float32)


def centred(n, ctf):
    """Particles at one orientation, in the middle of their images."""
    return ParticleMetadata(np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 2)), ctf)


def test_what_is_written_comes_back(tmp_path, images):
    rng = np.random.default_rng(4)
    rotation, shift = random_rotations(N, rng), rng.normal(size=(N, 2)) * 5
    ctf = np.stack([np.linspace(first, last, N) for first, last in CTF_RANGES], axis=1)
    ctf[4:, 3], ctf[5:, 9], optics_group = 200, 1, np.array([1] * 4 + [2] + [3] * (N - 5))
    star = str(tmp_path / "p.star")
    metadata = ParticleMetadata(rotation, shift, ctf, np.arange(N) % 2 + 1, np.arange(N) * 10 + 5,
                                optics_group)
    write_particles(star, str(tmp_path / "p.mrcs"), iter([images[:3], images[3:]]), metadata, 3.5)
    again = read_particles(star)
    np.testing.assert_array_equal(again.read(np.arange(N)), images)
    np.testing.assert_array_equal(again.ids, metadata.ids)
    np.testing.assert_array_equal(again.half, metadata.half)
    np.testing.assert_allclose(again.rotation, rotation, atol=1e-6)
    np.testing.assert_allclose(again.shift_angst, shift, atol=1e-5)
    np.testing.assert_allclose(again.ctf, ctf, rtol=1e-6)
    np.testing.assert_array_equal(again.optics_group, optics_group)
    assert again.pixel_size == 3.5
    assert list(starfile.read(star)["optics"].rlnCtfDataArePhaseFlipped) == [0, 0, 1]
    assert mrcfile.validate(str(tmp_path / "p.mrcs"))


def test_nine_ctf_columns_mean_not_phase_flipped_and_a_group_per_voltage_aberration_and_contrast(
        tmp_path, images):
    star, ctf = str(tmp_path / "p.star"), np.tile([1e4, 1e4, 0, 300, 2.7, 0.1, 0, 0, 1], (N, 1))
    ctf[:2, 3] = 200
    write_particles(star, str(tmp_path / "p.mrcs"), [images], centred(N, ctf), 2.0)
    again = read_particles(star)
    np.testing.assert_array_equal(again.ctf[:, 9], 0)
    np.testing.assert_array_equal(again.optics_group, [1] * 2 + [2] * (N - 2))
    assert "rlnCtfDataArePhaseFlipped" not in starfile.read(star)["optics"]


def test_without_ids_and_half_sets_ids_count_from_1_and_half_sets_are_unknown(tmp_path, images):
    ctf = np.tile([1e4, 1e4, 0, 300, 2.7, 0.1, 0, 0, 1], (N, 1))
    write_particles(str(tmp_path / "p.star"), str(tmp_path / "p.mrcs"), [images], centred(N, ctf), 2.0)
    again = read_particles(str(tmp_path / "p.star"))
    assert again.ids.tolist() == list(range(1, N + 1)) and not again.half.any()


@pytest.mark.parametrize("batches, message", [
    ([np.zeros((3, 8, 8))], "images must be 5 in all, got 3"),
    ([np.zeros((3, 8, 8))] * 2, r"images must be 5 arrays of 8 x 8 px in all, got \[3, 8, 8\] after 3"),
    ([np.zeros((8, 8))], r"images must come as arrays \[B, L, L\], got \[8, 8\]"),
    ([], r"images must come as arrays \[B, L, L\], got \[0, 0, 0\]"),
])
def test_a_wrong_number_or_shape_of_images_is_refused(tmp_path, batches, message):
    with pytest.raises(ParticleError, match=message):
        write_particles(str(tmp_path / "p.star"), str(tmp_path / "p.mrcs"), batches,
                        centred(5, np.ones((5, 9))), 2.0)
