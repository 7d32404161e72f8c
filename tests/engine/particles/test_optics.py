"""Optics groups of different pixel size and box in one set."""
import numpy as np
import pandas as pd
import pytest
import starfile
from mixed_set import exact_image, write_mixed
from sound_star import SOUND, assert_refused

from gmmhet.engine.imaging.ctf import CTF_COLUMNS
from gmmhet.engine.log import log
from gmmhet.engine.particles.optics import CTF_LABELS, GroupSampling
from gmmhet.engine.particles.particle_set import ParticleError, read_particles

REFUSED = {
    "an optics table without voltage": (
        SOUND.replace("_rlnVoltage", "_other"),
        r"particles without CTF \(missing columns: rlnVoltage\)"),
    "an optics table without pixel size": (
        SOUND.replace("_rlnImagePixelSize", "_other"),
        "the pixel size is unknown; expected rlnImagePixelSize"),
}

COUNTS, SAMPLINGS = (3, 7, 4), ((64, 2.0), (45, 3.0), (40, 3.7))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """particles.star, rotations, shifts."""
    return write_mixed(tmp_path_factory.mktemp("mixed"), COUNTS, SAMPLINGS)


def test_the_common_sampling_is_that_of_most_particles_and_is_said(mixed, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    particles = read_particles(mixed[0])
    assert (particles.box, particles.pixel_size) == (45, 3.0)
    assert ("optics groups of several samplings (group 1: 64 px of 2 Å/px, group 2: 45 px of 3 Å/px, group "
            "3: 40 px of 3.7 Å/px); all images are brought to 45 px of 3 Å/px") in caplog.text


def test_every_image_is_the_exact_projection_at_the_common_sampling(mixed):
    path, rotation, shift = mixed
    images = read_particles(path).read(np.arange(14))
    for i in range(14):
        exact = exact_image(rotation[i], shift[i], 45, 3.0)
        assert np.abs(images[i] - exact).max() < 1e-3 * exact.max()


def test_any_order_of_rows_gives_the_same_images(mixed):
    particles = read_particles(mixed[0])
    whole, rows = particles.read(np.arange(14)), [13, 2, 5, 2, 0, 9]
    np.testing.assert_allclose(particles.read(rows), whole[rows], atol=1e-6)
    np.testing.assert_allclose(particles.select(rows).read([3, 0]), whole[[2, 13]], atol=1e-6)


def test_a_subset_stays_at_the_sampling_of_its_set_and_another_can_be_asked_for(mixed):
    path, rotation, shift = mixed
    subset = read_particles(path).select([0, 1, 2])
    assert subset.read([0]).shape == (1, 45, 45)
    finer = subset.at_sampling(64, 2.0)
    assert (finer.box, finer.pixel_size, subset.box) == (64, 2.0, 45)
    np.testing.assert_allclose(finer.read([1])[0], exact_image(rotation[1], shift[1], 64, 2.0), atol=1e-5)


def test_groups_sampled_more_coarsely_say_where_their_data_end(mixed):
    limit = read_particles(mixed[0]).finest_frequency([0, 5, 12])
    assert limit[0] == pytest.approx(1 / 6, rel=0.05) and limit[2] == pytest.approx(1 / 7.4, rel=0.06)
    assert np.isinf(limit[1])
    assert limit[0] < 1 / 6 and limit[2] < 1 / 7.4


def test_groups_of_one_sampling_are_read_as_stored_and_have_no_limit(tmp_path):
    path, _, _ = write_mixed(tmp_path, (2, 3), ((32, 4.0), (32, 4.0)), noise=1.0)
    particles = read_particles(path)
    assert particles.finest_frequency([0, 4]) is None
    np.testing.assert_array_equal(particles.read([0, 1]),
                                  read_particles(str(tmp_path / "group1.star")).read([0, 1]))
    np.testing.assert_array_equal(particles.optics_group, [1, 1, 2, 2, 2])


def test_shifts_in_pixels_are_pixels_of_the_particle_s_own_group(mixed, tmp_path):
    path, _, shift = mixed
    tables = starfile.read(path)
    own = np.repeat([2.0, 3.0, 3.7], COUNTS)
    old = tables["particles"].drop(columns=["rlnOriginXAngst", "rlnOriginYAngst"])
    old = old.assign(rlnOriginX=-shift[:, 0] / own, rlnOriginY=-shift[:, 1] / own)
    again = path.replace("particles.star", "pixels.star")
    starfile.write({"optics": tables["optics"], "particles": old}, again, float_format=None)
    particles = read_particles(again)
    np.testing.assert_allclose(particles.shift_angst, shift, atol=1e-4)
    particles.with_poses(particles.rotation, particles.shift_angst + 6).write_star(str(tmp_path / "new.star"))
    written = starfile.read(tmp_path / "new.star")["particles"]
    np.testing.assert_allclose(written.rlnOriginX, -(shift[:, 0] + 6) / own, atol=1e-4)
    np.testing.assert_allclose(written.rlnOriginXAngst, -(shift[:, 0] + 6), atol=1e-4)


def test_a_star_written_keeps_each_particle_s_group_pixel_size_and_box(mixed, tmp_path):
    read_particles(mixed[0]).select([12, 0, 5]).write_star(str(tmp_path / "new.star"))
    before, after = starfile.read(mixed[0]), starfile.read(tmp_path / "new.star")
    pd.testing.assert_frame_equal(after["optics"], before["optics"])
    assert list(after["particles"].rlnOpticsGroup) == [3, 1, 2]
    assert list(read_particles(str(tmp_path / "new.star")).optics_group) == [3, 1, 2]


def test_a_relion_30_table_with_two_magnifications_gets_a_group_for_each(mixed, tmp_path):
    tables = starfile.read(mixed[0])
    chosen = tables["particles"].iloc[:10].drop(columns=["rlnOpticsGroup"])
    old = chosen.assign(rlnVoltage=300.0, rlnSphericalAberration=0.0, rlnAmplitudeContrast=1.0,
                        rlnDetectorPixelSize=15.0,
                        rlnMagnification=1e4 * 15.0 / np.repeat([2.0, 3.0], COUNTS[:2]))
    star = mixed[0].replace("particles.star", "old.star")
    starfile.write({"": old}, star, float_format=None)
    particles = read_particles(star)
    np.testing.assert_allclose(particles.read(np.arange(10)), read_particles(mixed[0]).read(np.arange(10)),
                               atol=1e-5)
    particles.select([1, 8]).write_star(str(tmp_path / "new.star"))
    optics = starfile.read(tmp_path / "new.star")["optics"]
    assert list(optics.rlnImagePixelSize.round(4)) == [2.0, 3.0] and list(optics.rlnImageSize) == [64, 45]


def test_phase_flipped_optics_groups_are_marked_particle_by_particle(mixed):
    tables = starfile.read(mixed[0])
    star = mixed[0].replace("particles.star", "flipped.star")
    starfile.write({"optics": tables["optics"].assign(rlnCtfDataArePhaseFlipped=[0, 1, 0]),
                    "particles": tables["particles"]}, star)
    np.testing.assert_array_equal(read_particles(star).ctf[:, 9], np.repeat([0, 1, 0], COUNTS))


def test_nearly_equal_pixel_sizes_are_one():
    sampling = GroupSampling.of("x.star", np.array([1, 1, 2]), np.array([1.06, 1.06, 1.06005]),
                                np.array([128, 128, 128]))
    assert not sampling.differs.any() and sampling.common.pixel_size == 1.06
    found = GroupSampling.of("x.star", np.array([1, 1, 2]), np.array([1.06, 1.06, 1.062]),
                             np.array([128, 128, 128]))
    assert found.differs.tolist() == [False, True]


def test_many_small_groups_of_one_sampling_outweigh_one_large_group():
    number = np.array([1, 1, 1, 2, 2, 3, 3])
    sampling = GroupSampling.of("x.star", number, np.where(number == 1, 1.5, 1.0),
                                np.where(number == 1, 64, 96))
    assert (sampling.common.pixel_size, sampling.common.box, sampling.extent_angst) == (1.0, 96, 96.0)


def test_one_optics_group_of_two_pixel_sizes_is_refused_with_both():
    with pytest.raises(ParticleError, match="one pixel size, got 2, 3 Å/px: give each pixel size an optics "
                                            "group"):
        GroupSampling.of("x.star", np.array([4, 5, 5]), np.array([2.0, 2.0, 3.0]), np.array([64, 64, 64]))


def test_ctf_columns_are_in_the_order_of_the_imaging_package():
    assert len(CTF_LABELS) == len(CTF_COLUMNS)
    pairs = dict(zip(CTF_LABELS, CTF_COLUMNS))
    assert pairs["rlnDefocusAngle"] == "defocus_angle_deg" and pairs["rlnSphericalAberration"] == "cs_mm"
    assert pairs["rlnCtfScalefactor"] == "scale" and pairs["rlnPhaseShift"] == "phase_shift_deg"


@pytest.mark.parametrize("kind", REFUSED)
def test_groups_without_what_image_formation_needs_are_refused_with_a_sentence(folder, kind):
    assert_refused(folder, *REFUSED[kind])
