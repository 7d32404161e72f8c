import os

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from sound_star import SOUND, assert_refused, changed

from gmmhet.engine.imaging.pose import random_rotations, rotation_from_euler
from gmmhet.engine.log import log
from gmmhet.engine.particles.particle_set import ParticleError, read_particles

N, BOX = 7, 8


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(N, BOX, BOX)).astype(np.float32)


def stack(path, images):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with mrcfile.new(path, data=images, overwrite=True) as file:
        file.set_image_stack()


def tables(n=N, image_name="Extract/s.mrcs", **changes):
    """RELION 3.1 tables; a change of None drops a column."""
    rng = np.random.default_rng(2)
    particles = dict(
        rlnImageName=["%06d@%s" % (i + 1, image_name) for i in range(n)],
        rlnMicrographName=["m/%03d.mrc" % i for i in range(n)],
        rlnGroupName=["%03d" % i for i in range(n)], rlnOpticsGroup=1,
        rlnDefocusU=rng.uniform(8e3, 2e4, n), rlnDefocusV=12345.5, rlnDefocusAngle=33.25,
        rlnAngleRot=rng.uniform(-180, 180, n), rlnAngleTilt=rng.uniform(0, 180, n),
        rlnAnglePsi=rng.uniform(-180, 180, n),
        rlnOriginXAngst=rng.normal(size=n), rlnOriginYAngst=rng.normal(size=n),
        rlnRandomSubset=np.arange(n) % 2 + 1, rlnImageId=100 - np.arange(n),
        rlnMaxValueProbDistribution=1.25e-9)
    optics = dict(
        rlnOpticsGroup=[1], rlnOpticsGroupName=["og1"], rlnVoltage=[300.0], rlnSphericalAberration=[2.7],
        rlnAmplitudeContrast=[0.1], rlnImagePixelSize=[2.5], rlnImageSize=[BOX])
    for name, value in changes.items():
        target = optics if name in optics and name not in particles else particles
        target[name] = value
        if value is None:
            del target[name]
    return {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}


def project(folder, images, n=N, **changes):
    """A project folder with Extract/s.mrcs and Refine/job/data.star; returns the star's path."""
    stack(str(folder / "Extract" / "s.mrcs"), images)
    os.makedirs(folder / "Refine" / "job", exist_ok=True)
    star = str(folder / "Refine" / "job" / "data.star")
    starfile.write(tables(n, **changes), star, float_format=None)
    return star


def old_tables(n=N, **changes):
    """A RELION 3.0 table."""
    later = ["rlnOpticsGroup", "rlnOriginXAngst", "rlnOriginYAngst", "rlnImageId"]
    new = tables(n)["particles"].drop(columns=later)
    new = new.assign(rlnVoltage=300.0, rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1,
                     rlnDetectorPixelSize=14.0, rlnMagnification=56000.0,
                     rlnOriginX=np.arange(n) - 3.0, rlnOriginY=0.5)
    return {"": new.assign(**changes)}


REFUSED = {
    "orientations in the optics table": (
        SOUND.replace("_rlnAngleTilt", "_other").replace("_rlnImageSize", "_rlnAngleTilt"),
        r"particles without projection alignment \(missing columns: rlnAngleTilt\)"),
    "an id twice": (
        changed("_rlnImageId", "10"),
        "rlnImageId must be different for every particle, but these occur more than once: 10"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_columns_that_cannot_be_used_are_refused_with_a_sentence(folder, kind):
    assert_refused(folder, *REFUSED[kind])


class TestReading:
    def test_relion_31_metadata(self, tmp_path, images):
        particles, table = read_particles(project(tmp_path, images)), tables()["particles"]
        np.testing.assert_array_equal(particles.ids, 100 - np.arange(N))
        rotation = rotation_from_euler(table.rlnAngleRot, table.rlnAngleTilt, table.rlnAnglePsi)
        np.testing.assert_allclose(particles.rotation, rotation, atol=1e-6)
        np.testing.assert_allclose(particles.shift_angst, -table[["rlnOriginXAngst", "rlnOriginYAngst"]],
                                   atol=1e-6)
        np.testing.assert_allclose(particles.ctf[:, 0], table.rlnDefocusU, rtol=1e-6)
        np.testing.assert_allclose(particles.ctf[3, 1:], [12345.5, 33.25, 300, 2.7, 0.1, 0, 0, 1, 0],
                                   rtol=1e-6)
        np.testing.assert_array_equal(particles.half, np.arange(N) % 2 + 1)
        assert (particles.pixel_size, particles.box, len(particles)) == (2.5, BOX, N)

    def test_relion_30_metadata(self, tmp_path, images):
        star = project(tmp_path, images)
        starfile.write(old_tables(), star, float_format=None)
        particles = read_particles(star)
        np.testing.assert_array_equal(particles.ids, np.arange(1, N + 1))
        assert particles.pixel_size == pytest.approx(2.5)
        np.testing.assert_allclose(particles.shift_angst,
                                   np.stack([3 - np.arange(N), np.full(N, -0.5)], 1) * 2.5, atol=1e-6)

    def test_a_single_particle_in_a_table_of_one_row_or_without_loop(self, tmp_path, images):
        star = project(tmp_path, images, n=1)
        assert len(read_particles(star)) == 1
        row = tables(1)["particles"].iloc[0].to_dict()
        starfile.write({"optics": tables(1)["optics"].iloc[0].to_dict(), "particles": row}, star)
        assert "loop_" not in open(star).read()
        np.testing.assert_array_equal(read_particles(star).read([0]), images[:1])

    def test_missing_optional_columns_get_their_defaults(self, tmp_path, images):
        particles = read_particles(project(tmp_path, images, rlnDefocusV=None, rlnDefocusAngle=None,
                                           rlnRandomSubset=None,
                                           rlnOriginXAngst=None, rlnOriginYAngst=None))
        np.testing.assert_array_equal(particles.ctf[:, 1], particles.ctf[:, 0])
        np.testing.assert_array_equal(particles.ctf[0, [2, 6, 7, 8]], [0, 0, 0, 1])
        assert not particles.half.any() and not particles.shift_angst.any()

    def test_images_come_in_the_order_asked_from_several_stacks(self, tmp_path, images):
        names = ["%06d@Extract/%s" % (2 - i // 4, "ab"[i % 2] + "%d.mrcs" % (i % 4 // 2)) for i in range(N)]
        star = project(tmp_path, images, rlnImageName=names)
        for k, name in enumerate(("a0", "b0", "a1", "b1")):
            stack(str(tmp_path / "Extract" / (name + ".mrcs")),
                  np.stack([images[0] + 10 * k + 4, images[0] + 10 * k]))
        whole = read_particles(star).read(np.arange(N))
        wanted = [images[0] + 10 * (i % 4) + (0 if i < 4 else 4) for i in range(N)]
        np.testing.assert_array_equal(whole, wanted)
        np.testing.assert_array_equal(read_particles(star).read([5, 0, 5]), whole[[5, 0, 5]])

class TestSubsets:
    def test_select_keeps_rows_and_images_together(self, tmp_path, images):
        subset = read_particles(project(tmp_path, images)).select([4, 1]).select([1, 0, 1])
        np.testing.assert_array_equal(subset.ids, [99, 96, 99])
        np.testing.assert_array_equal(subset.read([0, 1, 2]), images[[1, 4, 1]])

    def test_rows_of_joins_by_id(self, tmp_path, images):
        np.testing.assert_array_equal(read_particles(project(tmp_path, images)).rows_of([94, 100, 97]),
                                      [6, 0, 3])

    def test_rows_of_names_ids_that_are_not_in_the_set(self, tmp_path, images):
        with pytest.raises(ParticleError, match=r"2 ids are not in .*data.star \(ids 94 to 100\): 7, 101"):
            read_particles(project(tmp_path, images)).rows_of([99, 7, 101])

    def test_with_poses_leaves_the_set_itself_alone_and_checks_shapes(self, tmp_path, images):
        particles = read_particles(project(tmp_path, images))
        before = particles.shift_angst.copy()
        moved = particles.with_poses(particles.rotation, before + 1)
        np.testing.assert_array_equal(particles.shift_angst, before)
        np.testing.assert_array_equal(moved.shift_angst, before + 1)
        with pytest.raises(ParticleError,
                           match=r"must be \[7, 3, 3\] and \[7, 2\], got \[2, 3, 3\] and \[7, 2\]"):
            particles.with_poses(particles.rotation[:2], before)


class TestWritingAStar:
    def test_every_column_and_digit_of_the_input_stays(self, tmp_path, images):
        star, new = project(tmp_path, images), str(tmp_path / "new.star")
        read_particles(star).write_star(new)
        before, after = (starfile.read(path, parse_as_string=["rlnGroupName"]) for path in (star, new))
        pd.testing.assert_frame_equal(after["optics"], before["optics"])
        pd.testing.assert_frame_equal(after["particles"], before["particles"])
        assert after["particles"].rlnGroupName[1] == "001"

    def test_stacks_outside_the_new_folder_get_absolute_paths(self, tmp_path, images, monkeypatch):
        star = project(tmp_path, images)
        os.makedirs(tmp_path / "elsewhere" / "deep")
        new = str(tmp_path / "elsewhere" / "deep" / "new.star")
        read_particles(star).select([3]).write_star(new)
        assert starfile.read(new)["particles"].rlnImageName.iloc[0] == "000004@%s" % (
            tmp_path / "Extract" / "s.mrcs")
        monkeypatch.chdir("/")
        np.testing.assert_array_equal(read_particles(new).read([0]), images[3:4])

    def test_only_changed_poses_are_rewritten(self, tmp_path, images):
        star, new = project(tmp_path, images), str(tmp_path / "new.star")
        particles = read_particles(star)
        rotation = random_rotations(N, np.random.default_rng(3))
        particles.with_poses(rotation, particles.shift_angst + [2, -3]).write_star(new)
        again = read_particles(new)
        np.testing.assert_allclose(again.rotation, rotation, atol=1e-6)
        np.testing.assert_allclose(again.shift_angst, particles.shift_angst + [2, -3], atol=1e-5)
        before, after = starfile.read(star)["particles"], starfile.read(new)["particles"]
        kept = [c for c in before if "Angle" not in c and "Origin" not in c] + ["rlnDefocusAngle"]
        pd.testing.assert_frame_equal(after[kept], before[kept])

    def test_a_relion_30_table_becomes_31_with_its_columns_and_both_kinds_of_origin(self, tmp_path, images):
        star, new = project(tmp_path, images), str(tmp_path / "new.star")
        starfile.write(old_tables(rlnAmplitudeContrast=np.where(np.arange(N) < 3, 0.1, 0.07)), star,
                       float_format=None)
        particles = read_particles(star)
        particles.with_poses(particles.rotation, particles.shift_angst + 5).write_star(new)
        after = starfile.read(new)
        assert set(starfile.read(star)) <= set(after["particles"])
        np.testing.assert_allclose(after["particles"].rlnOriginX, np.arange(N) - 3 - 2, atol=1e-6)
        np.testing.assert_allclose(after["particles"].rlnOriginXAngst, (np.arange(N) - 5) * 2.5, atol=1e-6)
        assert list(after["optics"].rlnAmplitudeContrast) == [0.07, 0.1]
        assert list(after["optics"].rlnImageSize) == [BOX, BOX]
        assert list(after["particles"].rlnOpticsGroup) == [2, 2, 2, 1, 1, 1, 1]
        np.testing.assert_allclose(read_particles(new).ctf, particles.ctf)

    def test_with_half_writes_the_half_sets(self, tmp_path, images):
        new = str(tmp_path / "new.star")
        read_particles(project(tmp_path, images,
                               rlnRandomSubset=None)).with_half([2, 2, 1, 1, 1, 2, 1]).write_star(new)
        np.testing.assert_array_equal(read_particles(new).half, [2, 2, 1, 1, 1, 2, 1])


class TestBadInput:
    def refused(self, star, message):
        with pytest.raises(ParticleError, match=message) as caught:
            read_particles(star)
        return str(caught.value)

    @pytest.mark.parametrize("changes, message", [
        (dict(rlnAngleRot=None, rlnAnglePsi=None),
         r"particles without projection alignment \(missing columns: rlnAngleRot, rlnAnglePsi\)"),
        (dict(rlnDefocusU=None, rlnVoltage=None),
         r"particles without CTF \(missing columns: rlnDefocusU, rlnVoltage\)"),
        (dict(rlnImageId=[5, 6, 7, 7, 7, 6, 9]), "these occur more than once: 6, 7$"),
        (dict(rlnImagePixelSize=None), "the pixel size is unknown; expected rlnImagePixelSize"),
        (dict(rlnImagePixelSize=[0.0]),
         ("column rlnImagePixelSize of row 1 of the optics table holds '0.0', expected a number from 0.01 to "
          "1000 Å/px")),
        (dict(rlnImagePixelSize=None, rlnPixelSize=[2.0] * 6 + [3.0]),
         "particles of one optics group must have one pixel size, got 2, 3 Å/px: give each"),
        (dict(rlnOpticsGroup=[1] * 6 + [4]),
         "particles name optics group 4, but the optics table has only 1"),
        (dict(rlnDefocusU=[1.0] * 4 + ["abc"] + [1.0] * 2),
         (r"column rlnDefocusU of particle row 5 \(000005@Extract/s.mrcs\) holds 'abc', expected a number "
          r"from -1000000 to 1000000 Å")),
        (dict(rlnAnglePsi=[1.0] * 4 + [np.nan] + [1.0] * 2),
         (r"column rlnAnglePsi of particle row 5 \(000005@Extract/s.mrcs\) holds '<NA>', expected a number "
          r"from -720 to 720 °")),
        (dict(rlnImageName=["000001@Extract/s.mrcs"] * 6 + ["x@Extract/s.mrcs"]),
         "rlnImageName of particle row 7 is 'x@Extract/s.mrcs'"),
        (dict(rlnImageName=["%d@Extract/s.mrcs" % (i + 3) for i in range(N)]),
         "particle id 95 names image 8 of '.*s.mrcs', which holds only 7 images"),
        (dict(rlnCtfDataAreCtfPremultiplied=1),
         r"are already multiplied by their CTF \(rlnCtfDataAreCtfPremultiplied is 1\)"),
        (dict(rlnOpticsGroup=None), "has an optics table, but rlnOpticsGroup is missing"),
    ])
    def test_unusable_columns_are_refused(self, tmp_path, images, changes, message):
        assert "data.star" in self.refused(project(tmp_path, images, **changes), message)

    def test_nan_pixels_are_found_when_read_and_all_particles_with_such_named(self, tmp_path, images):
        particles = read_particles(project(tmp_path, images))

        def spoil(number):
            with open(tmp_path / "Extract" / "s.mrcs", "r+b") as file:
                file.seek(1024 + 4 * (number * BOX * BOX + 9))
                file.write(np.float32(np.nan).tobytes())
        spoil(4)
        assert particles.read([0, 1]).shape == (2, BOX, BOX)
        with pytest.raises(ParticleError, match=r"image of particle id 96 \(000005@.*s.mrcs\) holds NaN or "
                                                r"infinite pixels: remove"):
            particles.read([1, 4])
        spoil(2)
        with pytest.raises(ParticleError, match=r"id %d \(000003@.*s.mrcs\) holds NaN or infinite pixels, as "
                                                r"do those of 96: remove" %
                           particles.ids[2]):
            particles.read([1, 4])

    @pytest.mark.parametrize("content, message", [
        ("", r"is not a star file of particles: no table has the column rlnImageName \(tables found: none\)"),
        ("data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n",
         "holds no particles: its table 'data_particles' is empty"),
        ("data_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n1@s.mrcs 1\n1@s.mrcs 1 2 3 4\n",
         (r"line 7: row 2 of table 'particles' \(1@s.mrcs\) has 5 values, expected 2, one for each label: "
          r"correct the row")),
        ("data_model\n\n_rlnReferenceDimensionality 3\n", r"\(tables found: model\)"),
    ])
    def test_a_file_without_particles_is_refused(self, tmp_path, content, message):
        (tmp_path / "bad.star").write_text(content)
        assert "bad.star" in self.refused(str(tmp_path / "bad.star"), message)

    def test_a_binary_file_and_a_missing_one_are_refused(self, tmp_path):
        (tmp_path / "bad.star").write_bytes(bytes(range(256)) * 20)
        self.refused(str(tmp_path / "bad.star"), "bad.star, line 1 holds a NUL byte: the file is binary")
        self.refused(str(tmp_path / "none.star"), "particles file '.*none.star' does not exist")


@pytest.mark.parametrize("changes, words", [
    (dict(rlnAngleRot=0.0, rlnAngleTilt=0.0, rlnAnglePsi=0.0),
     "all orientations are zero; were these particles aligned?"),
    (dict(rlnBeamTiltX=0.1, rlnMagMat00=1.0),
     "anisotropic magnification are not modelled; ignored: rlnBeamTiltX, rlnMagMat00."),
])
def test_what_is_doubtful_is_said_but_read(tmp_path, images, caplog, monkeypatch, changes, words):
    monkeypatch.setattr(log, "propagate", True)
    assert len(read_particles(project(tmp_path, images, **changes))) == N
    assert words in caplog.text
