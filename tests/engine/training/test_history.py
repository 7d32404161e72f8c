"""The history of a training: a row an epoch, whose columns others read."""
import csv
import os

import numpy as np

from gmmhet.engine.training.history import history_row, write_history

COLUMNS = ["epoch", "training_gain", "held_out_gain", "divergence", "seconds", "behind_best"]


def row(epoch, **figures):
    """A row of made-up figures, some of them given."""
    values = dict(training_gain=1.5, held_out_gain=0.25, kl=0.6, seconds=2.5, behind=-1.0)
    return history_row(epoch, **{**values, **figures})


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_has_the_columns_that_others_read_in_their_order():
    assert list(row(1)) == COLUMNS
    assert row(3, kl=0.7, behind=1.25) == dict(epoch=3, training_gain=1.5, held_out_gain=0.25, divergence=0.7,
                                               seconds=2.5, behind_best=1.25)


def test_numbers_are_written_in_full_and_what_is_not_known_as_nan(tmp_path):
    path, third = str(tmp_path / "history.csv"), 1 / 3
    write_history(path, [row(1, training_gain=np.nan), row(2, held_out_gain=third)])
    first, second = read(path)
    assert list(first) == COLUMNS and np.isnan(float(first["training_gain"]))
    assert float(second["held_out_gain"]) == third and second["epoch"] == "2"


def test_a_longer_history_takes_the_place_of_a_shorter_one_in_one_step(tmp_path):
    path, rows = str(tmp_path / "history.csv"), []
    for epoch in (1, 2, 3):
        rows.append(row(epoch))
        write_history(path, rows)
        assert [int(r["epoch"]) for r in read(path)] == list(range(1, epoch + 1))
        assert os.listdir(tmp_path) == ["history.csv"]


def test_a_run_of_so_many_epochs_has_as_many_rows(small_run):
    rows = read(str(small_run / "history.csv"))
    assert list(rows[0]) == COLUMNS and [int(r["epoch"]) for r in rows] == [1, 2]
    assert all(float(r["seconds"]) > 0 and float(r["divergence"]) > 0 for r in rows)
