"""Tables of particle star files: which table is the particles', what their columns may hold, how groups are
joined."""
import numpy as np
import pandas as pd
import pytest
from sound_star import IN_ROW_3, LABELS, SOUND, assert_refused, changed, loop, optics, row

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.particles.star import ParticleTable, as_relion31, optics_table, read_star, write_star

REFUSED = {
    "empty file": (
        "",
        (r"x.star' is not a star file of particles: no table has the column rlnImageName \(tables found: "
         r"none\)")),
    "only comments": ("# a\n\n# b\n", r"tables found: none"),
    "a table of another kind": (
        "data_model\n\n_rlnReferenceDimensionality 3\n",
        r"no table has the column rlnImageName \(tables found: model\)"),
    "no rows": (
        loop("particles", LABELS, []),
        "x.star' holds no particles: its table 'data_particles' is empty"),
    "two particle tables": (
        SOUND + loop("images", LABELS, [row(0)]),
        ("x.star' has 2 tables with the column rlnImageName, expected one: keep only one of data_particles, "
         "data_images")),
    "a defocus that is text": (
        changed("_rlnDefocusU", "abc"),
        IN_ROW_3 % ("rlnDefocusU", "abc") + "a number from -1000000 to 1000000 Å"),
    "a defocus nan": (changed("_rlnDefocusU", "nan"), IN_ROW_3 % ("rlnDefocusU", "nan")),
    "a defocus of a metre": (changed("_rlnDefocusU", "1e10"), IN_ROW_3 % ("rlnDefocusU", "10000000000.0")),
    "a number with an underscore": (changed("_rlnDefocusU", "15_000"), IN_ROW_3 % ("rlnDefocusU", "15_000")),
    "a decimal comma": (
        changed("_rlnAngleRot", "12,5"),
        IN_ROW_3 % ("rlnAngleRot", "12,5") + "a number from -720 to 720 °"),
    "an infinite angle": (changed("_rlnAnglePsi", "inf"), IN_ROW_3 % ("rlnAnglePsi", "inf")),
    "a tilt that is a defocus": (
        changed("_rlnAngleTilt", "15000.5"),
        IN_ROW_3 % ("rlnAngleTilt", "15000.5") + "a number from -720 to 720 °"),
    "an origin outside any box": (
        changed("_rlnOriginXAngst", "1e6"),
        IN_ROW_3 % ("rlnOriginXAngst", "1000000.0")),
    "an optics group that is not there": (
        changed("_rlnOpticsGroup", "3"),
        (r"particles name optics group 3, but the optics table has only 1: .* first in particle row 3 "
         r"\(000003@s.mrcs\)")),
    "an optics group that is text": (
        changed("_rlnOpticsGroup", "og1"),
        IN_ROW_3 % ("rlnOpticsGroup", "og1") + "a whole number from 0"),
    "an optics group twice": (
        SOUND.replace("1 og1 300.0 2.7 0.1 2.5 8\n",
                      "1 og1 300.0 2.7 0.1 2.5 8\n1 og2 200.0 2.7 0.1 2.5 8\n"),
        "the optics table describes group 1 more than once: keep one row of each"),
    "an optics table without its group": (
        SOUND.replace("_rlnOpticsGroup #1", "_other #1"),
        "has an optics table, but rlnOpticsGroup is missing from it or"),
    "an id that is no whole number": (
        changed("_rlnImageId", "12.5"),
        IN_ROW_3 % ("rlnImageId", "12.5") + "a whole number"),
    "a negative id": (changed("_rlnImageId", "-12"), IN_ROW_3 % ("rlnImageId", "-12")),
    "half set 7": (
        changed("_rlnRandomSubset", "7"),
        IN_ROW_3 % ("rlnRandomSubset", "7") + "a whole number from 0 to 2: correct or remove such rows"),
    "half set 1.5": (changed("_rlnRandomSubset", "1.5"), IN_ROW_3 % ("rlnRandomSubset", "1.5")),
    "voltage 0": (
        optics("_rlnVoltage", "0"),
        ("x.star: column rlnVoltage of row 1 of the optics table holds '0', expected a number from 10 to "
         "2000 kV")),
    "voltage in volts": (
        optics("_rlnVoltage", "300000"),
        "rlnVoltage of row 1 of the optics table holds '300000'"),
    "aberration in micrometres": (
        optics("_rlnSphericalAberration", "2700"),
        "rlnSphericalAberration of row 1 .* holds '2700', expected a number from -20 to 20 mm"),
    "contrast in percent": (
        optics("_rlnAmplitudeContrast", "10"),
        "rlnAmplitudeContrast of row 1 .* holds '10', expected a number from 0 to 1:"),
    "pixel size 0": (
        optics("_rlnImagePixelSize", "0"),
        "rlnImagePixelSize of row 1 .* holds '0', expected a number from 0.01 to 1000 Å/px"),
    "a negative pixel size": (
        optics("_rlnImagePixelSize", "-2.5"),
        "rlnImagePixelSize of row 1 .* holds '-2.5'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tables_that_cannot_be_meant_are_refused_with_a_sentence(folder, kind):
    assert_refused(folder, *REFUSED[kind])


def test_a_folder_and_a_file_that_is_not_there_are_named(folder):
    with pytest.raises(ParticleError, match="particles file '.*folder.mrcs' is a folder: name the star file "
                                            "in it"):
        read_star(str(folder / "folder.mrcs"))
    with pytest.raises(ParticleError, match="particles file '.*none.star' does not exist"):
        read_star(str(folder / "none.star"))


@pytest.fixture
def table():
    """Three particles of optics groups 5, 2, 5; their voltage is in the optics table, their defocus is their
    own."""
    particles = pd.DataFrame(dict(rlnImageName=["1@a", "2@a", "3@a"], rlnOpticsGroup=[5, 2, 5],
                                  rlnDefocusU=["1e4", "9000", "8000.5"]))
    groups = pd.DataFrame(dict(rlnOpticsGroup=[2, 5], rlnVoltage=[200, 300], rlnDefocusU=[1.0, 1.0],
                               rlnAngleRot=[1.0, 2.0]))
    return ParticleTable("x.star", particles, groups, {})


def test_a_column_of_the_particles_goes_before_that_of_their_groups_and_text_is_read_as_numbers(table):
    np.testing.assert_array_equal(table.numbers("rlnDefocusU"), [10000, 9000, 8000.5])


def test_a_column_of_the_optics_table_is_joined_by_group_number_and_not_by_row(table):
    np.testing.assert_array_equal(table.numbers("rlnVoltage"), [300, 200, 300])
    np.testing.assert_array_equal(table.select(np.array([1, 0])).numbers("rlnVoltage"), [200, 300])


def test_an_orientation_is_never_that_of_an_optics_group(table):
    assert table.has("rlnVoltage") and not table.has("rlnAngleRot")


def test_a_column_that_is_nowhere_takes_its_default(table):
    np.testing.assert_array_equal(table.numbers("rlnPhaseShift", 0.5), [0.5, 0.5, 0.5])


def test_every_bad_row_is_counted_and_the_first_one_named(table):
    table.particles["rlnPhaseShift"] = [90, 900, 9000]
    with pytest.raises(ParticleError, match=r"particle row 2 \(2@a\) holds '900', expected a number from "
                                            r"-720 to 720 °, and 1 more rows likewise: correct or remove "
                                            r"such rows"):
        table.numbers("rlnPhaseShift")


def test_a_relion_30_table_gets_a_group_for_each_voltage_aberration_contrast_and_pixel_size():
    particles = pd.DataFrame(dict(rlnImageName=["1@a"] * 4, rlnVoltage=[300, 200, 300, 300],
                                  rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1))
    pixel_size, box = np.array([1.5, 1.5, 1.5, 2.0]), np.array([64, 64, 64, 48])
    made = as_relion31(ParticleTable("x.star", particles, None, {}), pixel_size, box)
    assert list(made.particles.rlnOpticsGroup) == [2, 1, 2, 3] and "rlnVoltage" in made.particles
    assert list(made.optics.rlnVoltage) == [200, 300, 300]
    assert list(made.optics.rlnImagePixelSize) == [1.5, 1.5, 2]
    assert list(made.optics.rlnImageSize) == [64, 64, 48]
    assert as_relion31(made, pixel_size, box) is made


def test_what_is_written_is_read_with_every_other_table(table, tmp_path):
    path = str(tmp_path / "x.star")
    write_star(path, ParticleTable(path, table.particles, table.optics,
                                   {"job": pd.DataFrame(dict(note=["a b"]))}))
    again = read_star(path)
    pd.testing.assert_frame_equal(again.optics, table.optics)
    np.testing.assert_array_equal(again.numbers("rlnDefocusU"), table.numbers("rlnDefocusU"))
    assert list(again.others) == ["job"] and again.others["job"].note[0] == "a b"


def test_optics_groups_are_numbered_from_1():
    made = optics_table(np.array([[300, 2.7, 0.1], [200, 2.0, 0.07]]), 1.5, 64)
    assert list(made.rlnOpticsGroup) == [1, 2] and list(made.rlnSphericalAberration) == [2.7, 2.0]
    assert list(made.rlnImageSize) == [64, 64] and list(made.rlnImageDimensionality) == [2, 2]
