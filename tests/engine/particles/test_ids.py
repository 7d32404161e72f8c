import re

import pytest

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.log import log
from gmmhet.engine.particles.ids import read_ids


@pytest.fixture
def of_text(tmp_path):
    """`read_ids` of a text."""
    def call(text):
        path = tmp_path / "ids.txt"
        path.write_text(text)
        return read_ids(str(path))
    return call


def test_ids_come_rising_and_comments_and_empty_lines_are_left_out(of_text):
    ids, copies = of_text("# cluster 1\n7\n\n3 # the best\n 900000000000\n")
    assert ids.tolist() == [3, 7, 900000000000] and copies.tolist() == [0, 0, 0]


def test_a_second_number_is_the_symmetry_copy_of_its_particle(of_text):
    ids, copies = of_text("7 2\n3, 1\n")
    assert ids.tolist() == [3, 7] and copies.tolist() == [1, 2]


def test_an_id_that_is_named_twice_is_taken_once_and_it_is_said(of_text, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    assert of_text("5\n3\n5\n")[0].tolist() == [3, 5]
    assert "ids.txt names 1 ids more than once; each particle is taken once." in caplog.text


@pytest.mark.parametrize("text, message", [
    ("", "holds no ids: expected one particle id (rlnImageId, or row number from 1) per line"),
    ("3\n4 1\n", "must hold one whole number per line (or two: id and symmetry copy), got for example '4 1'"),
    ("3\n4.5\n", "got for example '4.5'"), ("1 2 3\n", "got for example '1 2 3'"),
    ("3\nparticle\n", "got for example 'particle'"), ("3\n1e300\n", "got for example '1e300'"),
])
def test_a_file_of_something_else_is_refused_with_an_example_of_it(of_text, text, message):
    with pytest.raises(ParticleError, match=re.escape(message)):
        of_text(text)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ParticleError, match="is a folder, expected a text file of particle ids"):
        read_ids(str(tmp_path))
