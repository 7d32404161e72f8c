"""Star text gone wrong: each kind is read right, or refused with one sentence that names file, line, what was
expected and what came."""
import os
import re
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sound_star import (
    LABELS,
    LAST,
    SOUND,
    N,
    arrays,
    assert_refused,
    changed,
    loop,
    read,
    row,
    without,
    wrapped,
)

from gmmhet.engine.particles import star_text
from gmmhet.engine.particles.particle_set import ParticleError
from gmmhet.engine.particles.star_text import read_tables, write_tables

REFUSED = {
    "a binary file": (bytes(range(256)) * 9, "x.star, line 1 holds a NUL byte: the file is binary"),
    "UTF-16": (SOUND.encode("utf-16"), "x.star, line 1 holds a NUL byte: .* encoded as UTF-16"),
    "a text that is no star file": (
        "id,name\n1,2\n",
        r"x.star' is not a star file: expected a line 'data_particles' first, got 'id,name' in line 1"),
    "a row cut short": (
        SOUND.replace(LAST, LAST[:-20]),
        r"line 34: row 4 of table 'particles' \(000004@s.mrcs\) has 9 values, expected 13"),
    "a file cut short": (
        SOUND[:SOUND.index(LAST) + 30],
        r"row 4 of .* has 3 values, expected 13, .*; the file ends in this row and may be cut short"),
    "a value missing inside a row": (
        changed("_rlnDefocusV", ""),
        r"line 33: row 3 of table 'particles' \(000003@s.mrcs\) has 12 values, expected 13"),
    "a value too many in a row": (
        changed("_rlnDefocusV", "1 2"),
        r"line 33: row 3 of .* has 14 values, expected 13"),
    "a value too many in the first row": (
        changed("_rlnDefocusV", "1 2", 0),
        r"line 31: row 1 of .* has 14 values, expected 13"),
    "a row wrapped over two lines": (wrapped(), r"line 32: row 2 of .* has 6 values, expected 13"),
    "two rows on one line": (
        SOUND.replace(" ".join(row(1)) + "\n", " ".join(row(1)) + " "),
        r"line 32: row 2 of .* has 26 values, expected 13"),
    "loop_ missing": (
        SOUND.replace("loop_\n_rlnImageName", "_rlnImageName"),
        r"line 17: _rlnImageName is followed by 0 values; .* the line 'loop_' is missing before its labels"),
    "loop_ twice": (
        SOUND.replace("loop_\n", "loop_\nloop_\n"),
        r"line 6: 'loop_' inside table 'optics', which has begun already"),
    "a label twice": (
        SOUND.replace("_rlnDefocusV", "_rlnDefocusU"),
        "line 21: column _rlnDefocusU occurs twice in table 'particles'; remove one"),
    "a label missing": (without("_rlnDefocusV"), r"line 30: row 1 of .* has 13 values, expected 12"),
    "a label without underscore": (
        SOUND.replace("_rlnDefocusV #4", "rlnDefocusV #4"),
        r"line 21: row 1 of table 'particles' has 1 values, expected 3"),
    "a label after the rows": (
        SOUND.rstrip() + "\n_rlnHelicalTubeID #14\n",
        r"line 35: label _rlnHelicalTubeID stands after the first row of table 'particles'; expected a row"),
    "data_ missing before the particles": (
        SOUND.replace("data_particles\n", ""),
        "line 16: 'loop_' inside table 'optics', which has begun already"),
    "two particle tables of one name": (
        SOUND + SOUND.split("\n\n", 1)[1],
        r"line 36: a second table 'data_optics' begins here; expected one"),
    "a name not in UTF-8": (
        changed("_rlnMicrographName", "µ").encode("latin-1"),
        "column rlnMicrographName of table 'particles' holds b'.xb5', which is not UTF-8"),
    "a NUL byte": (changed("_rlnDefocusV", "1\0000"), "line 33 holds a NUL byte"),
    "a quote that is not closed": (
        changed("_rlnMicrographName", '"m a'),
        "line 33 has a quote that is not closed: '000003@s.mrcs \"m a"),
    "old Mac line ends": (
        SOUND.replace("\n", "\r"),
        "line 1 has a carriage return inside: convert the file to Unix line ends"),
}

READ = {
    "CRLF line ends": SOUND.replace("\n", "\r\n"),
    "tabs": SOUND.replace(" ", "\t"),
    "many blanks, at both ends too": SOUND.replace(" ", "    ").replace("\n", "  \n   "),
    "no newline at the end": SOUND.rstrip(),
    "empty lines between rows": SOUND.replace(" ".join(row(1)), "\n" + " ".join(row(1)) + "\n"),
    "a comment line between rows": SOUND.replace(" ".join(row(1)), "# note's \"text\"\n" + " ".join(row(1))),
    "a comment behind a row": SOUND.replace(" ".join(row(1)), " ".join(row(1)) + " # end"),
    "a comment between labels": SOUND.replace("_rlnVoltage", "#\n_rlnVoltage"),
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
    "the particles before the optics": (
        loop("particles", LABELS, [row(i) for i in range(N)]) + SOUND.split("data_particles")[0]),
    "another order of columns": (
        loop("particles", LABELS[::-1], [row(i)[::-1] for i in range(N)]) + SOUND.split("data_particles")[0]),
}


@pytest.fixture(params=[1, 2**19], ids=["in small chunks", "at once"])
def chunks(request, monkeypatch):
    """The two ways that rows are read: many lines at once, and line by line."""
    monkeypatch.setattr(star_text, "_CHUNK_BYTES", request.param)


@pytest.mark.parametrize("kind", REFUSED)
def test_text_gone_wrong_is_refused_with_a_sentence(folder, chunks, kind):
    assert_refused(folder, *REFUSED[kind])


@pytest.mark.parametrize("kind", READ)
def test_read_right(folder, chunks, kind):
    assert READ[kind] != SOUND
    for ours, sound in zip(arrays(read(folder, READ[kind])), arrays(read(folder, SOUND))):
        np.testing.assert_allclose(ours, sound, atol=1e-6)


# ------------------------------------------------------------------ whatever the text
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)
texts = texts.filter(lambda t: not ('"' in t and "'" in t))
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
    table = pd.DataFrame({"%s%d%s" % (name[:-4], i, name[-4:]): values
                          for i, (name, values) in enumerate(found)})
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
        with pytest.raises(ParticleError, match="column rlnTestName holds .*, which cannot be written to a "
                                                "star file: change the text"):
            write_tables(str(tmp_path / "x.star"), {"": pd.DataFrame({"rlnTestName": [text]})})


def strict(content):
    """Particle rows of a star text as {label: [text]}, by other means than the reader's; None where anything
    is doubtful."""
    text = re.sub("\r+\n", "\n", content.decode("utf-8-sig", errors="surrogateescape"))
    if re.search("[\0\r]", text):
        return None
    tables, name = {}, None
    for line in text.split("\n"):
        words, raw, rest = [], [], line
        while rest := rest.strip(" \t\f\v"):
            found = re.match(r"#.*|\"([^\"]|\"\S)*\"(?=[ \t\f\v]|$)|'([^']|'\S)*'(?=[ \t\f\v]|$)|[^\"'# "
                             r"\t\f\v][^ \t\f\v]*", rest)
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


PIECE = st.sampled_from(["", " ", "\n", "\t", "\r\n", "#", '"', "'", "_", "@", "0", "1", "-", ".", "e", "nan",
                         "inf", "loop_\n", "data_x\n",
                         "\0", "\xe9", "data_particles\n",
                         "_rlnAngleRot\n", "1e400", "000002@s.mrcs", "999999999999999999999", " 1",
                         "abc"]).map(str.encode)


@st.composite
def mutations(draw):
    """The sound file after a few deletions, doublings, swaps and insertions of bytes, values or lines."""
    content = SOUND.encode()
    for _ in range(draw(st.integers(1, 3))):
        pieces = re.findall(draw(st.sampled_from([rb"[\s\S]", rb"\S+|\s+", rb"[^\n]*\n|[^\n]+"])),
                            content) or [b""]
        i, j = (draw(st.integers(0, len(pieces) - 1)) for _ in range(2))
        kind = draw(st.sampled_from(["delete", "double", "swap", "insert", "replace"]))
        if kind == "swap":
            pieces[i], pieces[j] = pieces[j], pieces[i]
        else:
            pieces[i] = {"delete": b"", "double": pieces[i] * 2, "insert": pieces[i] + draw(PIECE),
                         "replace": draw(PIECE)}[kind]
        content = b"".join(pieces)
    return content


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations(), st.sampled_from([1, 150, 2**19]))
def test_a_damaged_file_is_refused_with_its_name_or_read_as_it_stands(folder, content, chunk_bytes):
    try:
        # small: rows are taken many lines at once
        with mock.patch.object(star_text, "_CHUNK_BYTES", chunk_bytes):
            particles = read(folder, content)
    except ParticleError as error:
        assert "x.star" in str(error) or os.fspath(folder) in str(error)
        return
    rows = strict(content)
    assert rows is not None, "read although the text is doubtful"
    assert len(particles) == len(rows["_rlnImageName"])
    for column, label in enumerate(("_rlnDefocusU", "_rlnDefocusV", "_rlnDefocusAngle")):
        if label in rows:
            np.testing.assert_array_equal(particles.ctf[:, column],
                                          np.array(rows[label], float).astype(np.float32))
    if "_rlnOriginXAngst" in rows:
        np.testing.assert_array_equal(particles.shift_angst[:, 0],
                                      -np.array(rows["_rlnOriginXAngst"], float).astype(np.float32))
    np.testing.assert_array_equal(particles.ids,
                                  np.array(rows.get("_rlnImageId", range(1, len(particles) + 1)), float))
    np.testing.assert_array_equal(particles.half,
                                  np.array(rows.get("_rlnRandomSubset", [0] * len(particles)), float))
    tilt = np.radians(np.array(rows["_rlnAngleTilt"], float))
    np.testing.assert_allclose(particles.rotation[:, 2, 2], np.cos(tilt), atol=1e-5)
