"""Star files gone wrong: each kind is read right, or refused with one sentence that names file, place, what was expected and what came."""
import os
import re
from unittest import mock

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gmmhet.engine.io import startext
from gmmhet.engine.io.particles import ParticleError, read_particles
from gmmhet.engine.io.startext import read_tables, write_tables

N, BOX = 4, 8
OPTICS = ["_rln" + name for name in ("OpticsGroup", "OpticsGroupName", "Voltage", "SphericalAberration", "AmplitudeContrast",
                                     "ImagePixelSize", "ImageSize")]
LABELS = ["_rln" + name for name in ("ImageName", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "AngleRot", "AngleTilt",
                                     "AnglePsi", "OriginXAngst", "OriginYAngst", "OpticsGroup", "RandomSubset", "ImageId")]


def row(i):
    numbers = [15000 + 10.5 * i, 14000.25, 33.5, -12.5 + i, 100.125, 7.75 * i, 1.5, -2.25]
    return ["%06d@s.mrcs" % (i + 1), "m/%03d.mrc" % i, *("%.6f" % v for v in numbers), "1", str(i % 2 + 1), str(10 + i)]


def loop(name, labels, rows):
    head = "".join("%s #%d\n" % (label, i) for i, label in enumerate(labels, 1))
    return "data_%s\n\nloop_\n%s%s\n\n" % (name, head, "\n".join(" ".join(r) for r in rows))


SOUND = "# version 30001\n\n" + loop("optics", OPTICS, [["1", "og1", "300.0", "2.7", "0.1", "2.5", "8"]]) + loop(
    "particles", LABELS, [row(i) for i in range(N)])
assert SOUND.splitlines()[-4].startswith("000002@")
LAST = " ".join(row(3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with s.mrcs of four images and t.mrcs of one."""
    where = tmp_path_factory.mktemp("stars")
    images = np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)
    for name, data in (("s.mrcs", images), ("t.mrcs", images[:1])):
        with mrcfile.new(str(where / name), data=data) as file:
            file.set_image_stack()
    (where / "folder.mrcs").mkdir()
    return where


def read(folder, content):
    star = folder / "x.star"
    star.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_particles(str(star))


def arrays(particles):
    return [particles.ids, particles.rotation, particles.shift_angst, particles.ctf, particles.half,
            particles.read(np.arange(len(particles)))]


def changed(label, value, i=2, text=SOUND):
    """The sound file with another value in one column of particle row i + 1."""
    words = row(i)
    words[LABELS.index(label)] = value
    return text.replace(" ".join(row(i)), " ".join(words))


def optics(label, value):
    words = ["1", "og1", "300.0", "2.7", "0.1", "2.5", "8"]
    new = list(words)
    new[OPTICS.index(label)] = value
    return SOUND.replace(" ".join(words), " ".join(new))


def without(label):
    """The sound file without a label, its values left."""
    return re.sub(label + r" #\d+\n", "", SOUND)


def wrapped():
    words = row(1)
    return SOUND.replace(" ".join(words), " ".join(words[:6]) + "\n" + " ".join(words[6:]))


IN_ROW_3 = r"x.star: column %s of particle row 3 \(000003@s.mrcs\) holds '%s', expected "
REFUSED = {
    "empty file": ("", r"x.star' is not a star file of particles: no table has the column rlnImageName \(tables found: none\)"),
    "only comments": ("# a\n\n# b\n", r"tables found: none"),
    "a binary file": (bytes(range(256)) * 9, "x.star, line 1 holds a NUL byte: the file is binary"),
    "UTF-16": (SOUND.encode("utf-16"), "x.star, line 1 holds a NUL byte: .* encoded as UTF-16"),
    "a text that is no star file": ("id,name\n1,2\n",
                                    r"x.star' is not a star file: expected a line 'data_particles' first, got 'id,name' in line 1"),
    "a table of another kind": ("data_model\n\n_rlnReferenceDimensionality 3\n",
                                r"no table has the column rlnImageName \(tables found: model\)"),
    "no rows": (loop("particles", LABELS, []), "x.star' holds no particles: its table 'data_particles' is empty"),
    "a row cut short": (SOUND.replace(LAST, LAST[:-20]),
                        r"line 34: row 4 of table 'particles' \(000004@s.mrcs\) has 9 values, expected 13"),
    "a file cut short": (SOUND[:SOUND.index(LAST) + 30],
                         r"row 4 of .* has 3 values, expected 13, .*; the file ends in this row and may be cut short"),
    "a value missing inside a row": (changed("_rlnDefocusV", ""),
                                     r"line 33: row 3 of table 'particles' \(000003@s.mrcs\) has 12 values, expected 13"),
    "a value too many in a row": (changed("_rlnDefocusV", "1 2"), r"line 33: row 3 of .* has 14 values, expected 13"),
    "a value too many in the first row": (changed("_rlnDefocusV", "1 2", 0), r"line 31: row 1 of .* has 14 values, expected 13"),
    "a row wrapped over two lines": (wrapped(), r"line 32: row 2 of .* has 6 values, expected 13"),
    "two rows on one line": (SOUND.replace(" ".join(row(1)) + "\n", " ".join(row(1)) + " "),
                             r"line 32: row 2 of .* has 26 values, expected 13"),
    "loop_ missing": (SOUND.replace("loop_\n_rlnImageName", "_rlnImageName"),
                      r"line 17: _rlnImageName is followed by 0 values; .* the line 'loop_' is missing before its labels"),
    "loop_ twice": (SOUND.replace("loop_\n", "loop_\nloop_\n"), r"line 6: 'loop_' inside table 'optics', which has begun already"),
    "a label twice": (SOUND.replace("_rlnDefocusV", "_rlnDefocusU"),
                      "line 21: column _rlnDefocusU occurs twice in table 'particles'; remove one"),
    "a label missing": (without("_rlnDefocusV"), r"line 30: row 1 of .* has 13 values, expected 12"),
    "a label without underscore": (SOUND.replace("_rlnDefocusV #4", "rlnDefocusV #4"),
                                   r"line 21: row 1 of table 'particles' has 1 values, expected 3"),
    "a label after the rows": (SOUND.rstrip() + "\n_rlnHelicalTubeID #14\n",
                               r"line 35: label _rlnHelicalTubeID stands after the first row of table 'particles'; expected a row"),
    "data_ missing before the particles": (SOUND.replace("data_particles\n", ""),
                                           "line 16: 'loop_' inside table 'optics', which has begun already"),
    "two particle tables of one name": (SOUND + SOUND.split("\n\n", 1)[1],
                                        r"line 36: a second table 'data_optics' begins here; expected one"),
    "two particle tables": (SOUND + loop("images", LABELS, [row(0)]),
                            ("x.star' has 2 tables with the column rlnImageName, expected one: "
                             "keep only one of data_particles, data_images")),
    "a name not in UTF-8": (changed("_rlnMicrographName", "µ").encode("latin-1"),
                            "column rlnMicrographName of table 'particles' holds b'.xb5', which is not UTF-8"),
    "a NUL byte": (changed("_rlnDefocusV", "1\0000"), "line 33 holds a NUL byte"),
    "a quote that is not closed": (changed("_rlnMicrographName", '"m a'), "line 33 has a quote that is not closed: '000003@s.mrcs \"m a"),
    "old Mac line ends": (SOUND.replace("\n", "\r"), "line 1 has a carriage return inside: convert the file to Unix line ends"),
    "a defocus that is text": (changed("_rlnDefocusU", "abc"), IN_ROW_3 % ("rlnDefocusU", "abc") + "a number from -1000000 to 1000000 Å"),
    "a defocus nan": (changed("_rlnDefocusU", "nan"), IN_ROW_3 % ("rlnDefocusU", "nan")),
    "a defocus of a metre": (changed("_rlnDefocusU", "1e10"), IN_ROW_3 % ("rlnDefocusU", "10000000000.0")),
    "a number with an underscore": (changed("_rlnDefocusU", "15_000"), IN_ROW_3 % ("rlnDefocusU", "15_000")),
    "a decimal comma": (changed("_rlnAngleRot", "12,5"), IN_ROW_3 % ("rlnAngleRot", "12,5") + "a number from -720 to 720 °"),
    "an infinite angle": (changed("_rlnAnglePsi", "inf"), IN_ROW_3 % ("rlnAnglePsi", "inf")),
    "a tilt that is a defocus": (changed("_rlnAngleTilt", "15000.5"),
                                 IN_ROW_3 % ("rlnAngleTilt", "15000.5") + "a number from -720 to 720 °"),
    "an origin outside any box": (changed("_rlnOriginXAngst", "1e6"), IN_ROW_3 % ("rlnOriginXAngst", "1000000.0")),
    "an optics group that is not there": (changed("_rlnOpticsGroup", "3"),
                                          (r"particles name optics group 3, but the optics table has only 1: "
                                           r".* first in particle row 3 \(000003@s.mrcs\)")),
    "an optics group that is text": (changed("_rlnOpticsGroup", "og1"), IN_ROW_3 % ("rlnOpticsGroup", "og1") + "a whole number from 0"),
    "an optics group twice": (SOUND.replace("1 og1 300.0 2.7 0.1 2.5 8\n", "1 og1 300.0 2.7 0.1 2.5 8\n1 og2 200.0 2.7 0.1 2.5 8\n"),
                              "the optics table describes group 1 more than once: keep one row of each"),
    "an optics table without its group": (SOUND.replace("_rlnOpticsGroup #1", "_other #1"),
                                          "has an optics table, but rlnOpticsGroup is missing from it or"),
    "orientations in the optics table": (SOUND.replace("_rlnAngleTilt", "_other").replace("_rlnImageSize", "_rlnAngleTilt"),
                                         r"particles without projection alignment \(missing columns: rlnAngleTilt\)"),
    "an optics table without voltage": (SOUND.replace("_rlnVoltage", "_other"), r"particles without CTF \(missing columns: rlnVoltage\)"),
    "an optics table without pixel size": (SOUND.replace("_rlnImagePixelSize", "_other"),
                                           "the pixel size is unknown; expected rlnImagePixelSize"),
    "an id twice": (changed("_rlnImageId", "10"), "rlnImageId must be different for every particle, but these occur more than once: 10"),
    "an id that is no whole number": (changed("_rlnImageId", "12.5"), IN_ROW_3 % ("rlnImageId", "12.5") + "a whole number"),
    "a negative id": (changed("_rlnImageId", "-12"), IN_ROW_3 % ("rlnImageId", "-12")),
    "half set 7": (changed("_rlnRandomSubset", "7"),
                   IN_ROW_3 % ("rlnRandomSubset", "7") + "a whole number from 0 to 2: correct or remove such rows"),
    "half set 1.5": (changed("_rlnRandomSubset", "1.5"), IN_ROW_3 % ("rlnRandomSubset", "1.5")),
    "image number 0": (changed("_rlnImageName", "000000@s.mrcs"),
                       "rlnImageName of particle row 3 is '000000@s.mrcs', expected the image's number from 1"),
    "image number beyond the stack": (changed("_rlnImageName", "000005@s.mrcs"),
                                      "particle id 12 names image 5 of '.*s.mrcs', which holds only 4 images"),
    "an image number that is none": (changed("_rlnImageName", "1e0@s.mrcs"), "rlnImageName of particle row 3 is '1e0@s.mrcs'"),
    "an image number of 30 digits": (changed("_rlnImageName", "9" * 30 + "@s.mrcs"), "rlnImageName of particle row 3 is '9{30}@s.mrcs'"),
    "an image without number": (changed("_rlnImageName", "s.mrcs"),
                                "rlnImageName of particle row 3 is 's.mrcs', which does not say which of the stack's 4"),
    "an image without stack": (changed("_rlnImageName", "000001@"), "rlnImageName of particle row 3 is '000001@'"),
    "an empty image number": (changed("_rlnImageName", "@s.mrcs"), "rlnImageName of particle row 3 is '@s.mrcs'"),
    "a stack that is not there": (changed("_rlnImageName", "000001@u.mrcs"),
                                  "1 of 2 image stacks are missing, the first is 'u.mrcs'; searched"),
    "a stack that is a folder": (changed("_rlnImageName", "000001@folder.mrcs"),
                                 "1 of 2 image stacks are missing, the first is 'folder.mrcs'"),
    "a stack that is the star itself": (changed("_rlnImageName", "000001@x.star"),
                                        "stack '.*x.star' is not an MRC file: it has 941 bytes, a header has 1024"),
    "voltage 0": (optics("_rlnVoltage", "0"),
                  "x.star: column rlnVoltage of row 1 of the optics table holds '0', expected a number from 10 to 2000 kV"),
    "voltage in volts": (optics("_rlnVoltage", "300000"), "rlnVoltage of row 1 of the optics table holds '300000'"),
    "aberration in micrometres": (optics("_rlnSphericalAberration", "2700"),
                                  "rlnSphericalAberration of row 1 .* holds '2700', expected a number from -20 to 20 mm"),
    "contrast in percent": (optics("_rlnAmplitudeContrast", "10"),
                            "rlnAmplitudeContrast of row 1 .* holds '10', expected a number from 0 to 1:"),
    "pixel size 0": (optics("_rlnImagePixelSize", "0"),
                     "rlnImagePixelSize of row 1 .* holds '0', expected a number from 0.01 to 1000 Å/px"),
    "a negative pixel size": (optics("_rlnImagePixelSize", "-2.5"), "rlnImagePixelSize of row 1 .* holds '-2.5'"),
}

READ = {
    "CRLF line ends": SOUND.replace("\n", "\r\n"),
    "tabs": SOUND.replace(" ", "\t"),
    "many blanks, at both ends too": SOUND.replace(" ", "    ").replace("\n", "  \n   "),
    "no newline at the end": SOUND.rstrip(),
    "empty lines between rows": SOUND.replace(" ".join(row(1)), "\n" + " ".join(row(1)) + "\n"),
    "comment lines between rows and labels": SOUND.replace(" ".join(row(1)), "# note's \"text\"\n" + " ".join(row(1)) + " # end").replace(
        "_rlnVoltage", "#\n_rlnVoltage"),
    "labels without numbers": re.sub(r" #\d+", "", SOUND),
    "labels with wrong numbers": re.sub(r" #\d+", " #1", SOUND),
    "a byte order mark": "\ufeff" + SOUND,
    "quoted values with blanks": changed("_rlnMicrographName", '"m/a b.mrc"'),
    "quoted values with quotes and comments": changed("_rlnMicrographName", "'it''s \"# odd'"),
    "quoted numbers": changed("_rlnOriginYAngst", '"-2.25"'),
    "a comment sign inside a value": changed("_rlnMicrographName", "m#1.mrc"),
    "names in UTF-8": changed("_rlnMicrographName", "µ/é.mrc"),
    "a micrograph named like a table": changed("_rlnMicrographName", "data_1/loop_.mrc"),
    "a tilt below zero that is the same view": changed("_rlnAngleTilt", "-259.875000"),
    "exponents": changed("_rlnDefocusV", "1.400025e4"),
    "leading zeros in the id": changed("_rlnImageId", "0012"),
    "a further table": SOUND + "data_other\n\n_rlnNote 'a b'\n",
    "the particles before the optics": loop("particles", LABELS, [row(i) for i in range(N)]) + SOUND.split("data_particles")[0],
    "another order of columns": loop("particles", LABELS[::-1], [row(i)[::-1] for i in range(N)]) + SOUND.split("data_particles")[0],
}


@pytest.fixture(params=[1, 2**19], ids=["in small chunks", "at once"])
def chunks(request, monkeypatch):
    """The two ways that rows are read: many lines at once, and line by line."""
    monkeypatch.setattr(startext, "_CHUNK_BYTES", request.param)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_a_sentence(folder, chunks, kind):
    content, message = REFUSED[kind]
    assert content != SOUND
    with pytest.raises(ParticleError, match=message) as caught:
        read(folder, content)
    assert "x.star" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", READ)
def test_read_right(folder, chunks, kind):
    assert READ[kind] != SOUND
    for ours, sound in zip(arrays(read(folder, READ[kind])), arrays(read(folder, SOUND))):
        np.testing.assert_allclose(ours, sound, atol=1e-6)


def test_a_folder_and_a_file_that_is_not_there_are_named(folder):
    with pytest.raises(ParticleError, match="particles file '.*folder.mrcs' is a folder: name the star file in it"):
        read_particles(str(folder / "folder.mrcs"))
    with pytest.raises(ParticleError, match="particles file '.*none.star' does not exist"):
        read_particles(str(folder / "none.star"))


def test_a_name_without_number_is_the_one_image_of_its_stack(folder):
    particles = read(folder, changed("_rlnImageName", "t.mrcs"))
    np.testing.assert_array_equal(particles.read([2]), particles.read([0]))


# ------------------------------------------------------------------ whatever the text
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8).filter(lambda t: not ('"' in t and "'" in t))
columns = st.one_of(
    st.lists(texts, min_size=3, max_size=3).map(lambda v: ("rlnTestName", v)),
    st.lists(st.integers(-2**63, 2**63 - 1), min_size=3, max_size=3).map(lambda v: ("count", v)),
    st.lists(st.floats(), min_size=3, max_size=3).map(lambda v: ("value", np.array(v, float))))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(columns, min_size=1, max_size=4))
@example([("rlnTestName", ["data_x", "loop_", "_label"])])
@example([("rlnTestName", ["", "#x", "'a b"])])
def test_a_table_that_is_written_is_read_back_equal(tmp_path_factory, found):
    path = str(tmp_path_factory.getbasetemp() / "round.star")
    table = pd.DataFrame({"%s%d%s" % (name[:-4], i, name[-4:]): values for i, (name, values) in enumerate(found)})
    write_tables(path, {"particles": table})
    again = read_tables(path)["particles"]
    assert list(again) == list(table) and len(again) == 3
    for label in table:
        if label.endswith("Name"):
            assert list(again[label]) == list(table[label])
        else:
            np.testing.assert_array_equal(again[label].to_numpy(float), table[label].to_numpy(float))


def test_a_text_that_no_star_file_can_hold_is_refused(tmp_path):
    for text in ("a\nb", "a\" b' c"):
        with pytest.raises(ParticleError, match="column rlnTestName holds .*, which cannot be written to a star file: change the text"):
            write_tables(str(tmp_path / "x.star"), {"": pd.DataFrame({"rlnTestName": [text]})})


def strict(content):
    """Particle rows of a star text as {label: [text]}, by other means than the reader's; None where anything is doubtful."""
    text = re.sub("\r+\n", "\n", content.decode("utf-8-sig", errors="surrogateescape"))
    if re.search("[\0\r]", text):
        return None
    tables, name = {}, None
    for line in text.split("\n"):
        words, raw, rest = [], [], line
        while rest := rest.strip(" \t\f\v"):
            found = re.match(r"#.*|\"([^\"]|\"\S)*\"(?=[ \t\f\v]|$)|'([^']|'\S)*'(?=[ \t\f\v]|$)|[^\"'# \t\f\v][^ \t\f\v]*", rest)
            if not found:
                return None
            if rest[0] != "#":
                raw.append(found.group())
                words.append(found.group()[1:-1] if rest[0] in "\"'" else found.group())
            rest = rest[found.end():]
        if not words:
            continue
        if len(words) == 1 and raw[0].startswith("data_"):
            name = words[0][5:]
            if name in tables:
                return None
            tables[name] = ([], [], [])
        elif name is None:
            return None
        elif raw == ["loop_"]:
            if any(tables[name]):
                return None
            tables[name][0].append("loop")
        elif raw[0].startswith("_"):
            if tables[name][2] or len(words) != (1 if tables[name][0] else 2) or words[0] in tables[name][1]:
                return None
            tables[name][1].append(words[0])
        elif not tables[name][0] or len(words) != len(tables[name][1]):
            return None
        else:
            tables[name][2].append(words)
    with_images = [t for t in tables.values() if "_rlnImageName" in t[1] and t[2]]
    return dict(zip(with_images[0][1], zip(*with_images[0][2]))) if len(with_images) == 1 else None


PIECE = st.sampled_from(["", " ", "\n", "\t", "\r\n", "#", '"', "'", "_", "@", "0", "1", "-", ".", "e", "nan", "inf", "loop_\n", "data_x\n",
                         "\0", "\xe9", "data_particles\n",
                         "_rlnAngleRot\n", "1e400", "000002@s.mrcs", "999999999999999999999", " 1", "abc"]).map(str.encode)


@st.composite
def mutations(draw):
    """The sound file after a few deletions, doublings, swaps and insertions of bytes, values or lines."""
    content = SOUND.encode()
    for _ in range(draw(st.integers(1, 3))):
        pieces = re.findall(draw(st.sampled_from([rb"[\s\S]", rb"\S+|\s+", rb"[^\n]*\n|[^\n]+"])), content) or [b""]
        i, j = (draw(st.integers(0, len(pieces) - 1)) for _ in range(2))
        kind = draw(st.sampled_from(["delete", "double", "swap", "insert", "replace"]))
        if kind == "swap":
            pieces[i], pieces[j] = pieces[j], pieces[i]
        else:
            pieces[i] = {"delete": b"", "double": pieces[i] * 2, "insert": pieces[i] + draw(PIECE), "replace": draw(PIECE)}[kind]
        content = b"".join(pieces)
    return content


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations(), st.sampled_from([1, 150, 2**19]))
def test_a_damaged_file_is_refused_with_its_name_or_read_as_it_stands(folder, content, chunk_bytes):
    try:
        with mock.patch.object(startext, "_CHUNK_BYTES", chunk_bytes):         # small: rows are taken many lines at once
            particles = read(folder, content)
    except ParticleError as error:
        assert "x.star" in str(error) or os.fspath(folder) in str(error)
        return
    rows = strict(content)
    assert rows is not None, "read although the text is doubtful"
    assert len(particles) == len(rows["_rlnImageName"])
    for column, label in enumerate(("_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle")):
        if label in rows:
            np.testing.assert_array_equal(particles.ctf[:, column], np.array(rows[label], float).astype(np.float32))
    if "_rlnOriginXAngst" in rows:
        np.testing.assert_array_equal(particles.shift_angst[:, 0], -np.array(rows["_rlnOriginXAngst"], float).astype(np.float32))
    np.testing.assert_array_equal(particles.ids, np.array(rows.get("_rlnImageId", range(1, len(particles) + 1)), float))
    np.testing.assert_array_equal(particles.half, np.array(rows.get("_rlnRandomSubset", [0] * len(particles)), float))
    tilt = np.radians(np.array(rows["_rlnAngleTilt"], float))
    np.testing.assert_allclose(particles.rotation[:, 2, 2], np.cos(tilt), atol=1e-5)
