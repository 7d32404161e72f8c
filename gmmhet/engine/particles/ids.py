"""Lists of particle ids in text files."""
import os
from typing import List, Tuple

import numpy as np

from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.log import log

#: whole numbers up to this one are exact as floating point numbers
LARGEST_ID = 2**53


def read_ids(path: str) -> Tuple[np.ndarray, np.ndarray]:
    """Ids of a text file: one per line, or an id and its symmetry copy; '#' begins a comment.

    Returns
    -------
    ids : int64 [n], rising, each once.
    copies : int [n], 0 where the file names none.

    Raises
    ------
    ParticleError
        when the file holds no ids, or something else.
    """
    if os.path.isdir(path):
        raise ParticleError("--ids %s is a folder, expected a text file of particle ids" % path)
    with open(path, encoding="utf-8", errors="replace") as file:
        rows = [line.split("#")[0].replace(",", " ").split() for line in file]
    rows = [row for row in rows if row]
    if not rows:
        raise ParticleError("--ids %s holds no ids: expected one particle id (rlnImageId, or row number from "
                            "1) per line" % path)
    try:
        table = np.array(rows, np.float64)
        if table.shape[1] > 2 or np.any(table % 1) or np.any(np.abs(table) > LARGEST_ID):
            raise ValueError
    except ValueError:
        raise ParticleError("--ids %s must hold one whole number per line (or two: id and symmetry copy), "
                            "got for example '%s'" % (
                                path, ascii(" ".join(_first_odd_row(rows))[:40])[1:-1])) from None
    ids, first = np.unique(table[:, 0].astype(np.int64), return_index=True)
    if len(ids) < len(table):
        log.info("%s names %d ids more than once; each particle is taken once.", path, len(table) - len(ids))
    return ids, table[first, 1].astype(int) if table.shape[1] == 2 else np.zeros(len(ids), int)


def _first_odd_row(rows: List[List[str]]) -> List[str]:
    """The first row of words that is not as the others: not whole numbers, or not as many."""
    def is_sound(row: List[str]) -> bool:
        return len(row) == len(rows[0]) <= 2 and all(word.lstrip("+-").isdecimal() and len(word) < 16
                                                     for word in row)
    return next((row for row in rows if not is_sound(row)), rows[0])
