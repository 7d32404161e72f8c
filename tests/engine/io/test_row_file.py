from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gmmhet.engine.io.row_file import RowFile


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(20, 3, 2)).astype(np.float32)


@pytest.fixture
def path(array, tmp_path):
    np.save(tmp_path / "rows.npy", array)
    return str(tmp_path / "rows.npy")


def test_rows_are_those_of_the_array_in_the_order_asked(path, array):
    rows = RowFile(path)
    assert len(rows) == 20 and rows.shape == (20, 3, 2) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows[np.array([17, 0, 17])], array[[17, 0, 17]])
    assert rows[np.array([], int)].shape == (0, 3, 2)


def test_several_threads_read_at_once(path, array):
    rows, orders = RowFile(path), [np.random.default_rng(seed).integers(20, size=200) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for order, found in zip(orders, pool.map(rows.__getitem__, orders)):
            np.testing.assert_array_equal(found, array[order])


def test_a_file_that_was_cut_short_since_it_was_opened_is_an_error_that_names_it(path):
    rows = RowFile(path)
    with open(path, "r+b") as file:
        file.truncate(128 + 24 * 10)
    assert rows[np.array([9])].shape == (1, 3, 2)
    with pytest.raises(OSError, match="rows.npy' has been cut short: row 11 of 20 is not there any more"):
        rows[np.array([10])]
