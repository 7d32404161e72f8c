import re

import pytest

from gmmhet.engine.log import buffer_log, log, log_to, progress


@pytest.fixture
def log_file(tmp_path):
    path = tmp_path / "log.txt"
    log_to(str(path))
    yield path
    log_to(None)


def test_messages_go_to_the_console_and_to_the_file(log_file, capfd):
    log.warning("shell %d is empty", 7)
    assert "WARNING shell 7 is empty" in log_file.read_text()
    assert "WARNING: shell 7 is empty" in re.sub(r"\d\d:\d\d:\d\d ", "", capfd.readouterr().err)


def test_a_second_file_takes_over_from_the_first(log_file, tmp_path):
    log.info("one")
    log_to(str(tmp_path / "second.txt"))
    log.info("two")
    assert "two" not in log_file.read_text() and "one" not in (tmp_path / "second.txt").read_text()


def test_what_was_said_before_the_file_opened_stands_at_its_head(tmp_path):
    buffer_log()
    log.info("four clusters")
    log_to(str(tmp_path / "log.txt"))
    log.info("two maps")
    log_to(None)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" INFO ")[1] for line in lines] == ["four clusters", "two maps"]


def test_what_was_kept_for_a_run_that_was_refused_goes_to_no_other_run_s_file(tmp_path):
    buffer_log()
    log.info("no such region")
    log_to(None)
    log_to(str(tmp_path / "log.txt"))
    log.info("another run")
    log_to(None)
    text = (tmp_path / "log.txt").read_text()
    assert "no such region" not in text and "another run" in text


def test_progress_gives_the_items_and_a_line_for_every_tenth_with_the_time_left(log_file):
    assert list(progress(iter("abcdefghijklmnopqrstuvwxyz" * 2), 52,
                         "Letters")) == list("abcdefghijklmnopqrstuvwxyz" * 2)
    lines = log_file.read_text().splitlines()
    assert len(lines) == 10
    assert re.search(r"Letters: 6 of 52 \(11 %\), 00:00 spent, 00:00 left$", lines[0])
    assert "Letters: 52 of 52 (100 %)" in lines[-1]
