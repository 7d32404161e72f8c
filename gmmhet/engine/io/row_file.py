"""Rows of a .npy file that is larger than memory."""
import os
import weakref

import numpy as np


class RowFile:
    """An array in a .npy file, whose rows are read when asked for; several threads may read at once.

    Read, not memory-mapped: mapped pages count as the process's memory, up to the size of the file, and a
    mapped file that is cut short while it is used ends the process without a word.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    shape : tuple of int, of the whole array; dtype : its type.
    """

    def __init__(self, path: str):
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self._offset = file.tell()
        self.path, self._row_bytes = path, self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Rows [B, ...] of the given numbers, an int array [B].

        Raises
        ------
        OSError
            when the file cannot be read there, or has become shorter (names it).
        """
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for row, number in zip(rows, numbers):
            try:
                size = os.preadv(self._file, [row], self._offset + int(number) * self._row_bytes)
            except OSError as error:
                raise OSError("'%s' cannot be read any more: %s" % (self.path, error.strerror)) from None
            if size < self._row_bytes:
                raise OSError("'%s' has been cut short: row %d of %d is not there any more" % (
                    self.path, number + 1, len(self)))
        return rows
