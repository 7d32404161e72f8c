"""Where an FSC curve falls below a threshold, and fsc.csv: the only place where it is written and read.

NumPy alone and Python 3.8, because Scipion draws FSC curves too.
"""
from typing import Dict, Optional, Tuple

import numpy as np

from gmmhet.engine.rundir import read_columns

#: FSC at the resolution: between two half maps (Rosenthal & Henderson 2003), and with a map that is known
HALF_MAPS, KNOWN_MAP = 0.143, 0.5


def crossing(abscissa: np.ndarray, fsc: np.ndarray, threshold: float) -> Optional[float]:
    """Where an FSC curve first falls below a threshold, linear between its points.

    Parameters
    ----------
    abscissa : [S], shell index or spatial frequency of each point, rising.
    fsc : [S].
    threshold : float, such as HALF_MAPS or KNOWN_MAP.

    Returns
    -------
    float, in the abscissa's unit; None where the curve never falls below, or begins below.
    """
    fsc = np.asarray(fsc, np.float64)
    below = np.flatnonzero(fsc < threshold)
    if not len(below) or below[0] == 0:
        return None
    last, first = below[0] - 1, below[0]
    share = (fsc[last] - threshold) / (fsc[last] - fsc[first])
    return float(abscissa[last] + share * (abscissa[first] - abscissa[last]))


def resolution_at(fsc: np.ndarray, threshold: float, box: int, pixel_size: float) -> float:
    """Resolution (Å) at which the FSC curve of two maps first falls below a threshold.

    Parameters
    ----------
    fsc : [L//2 + 1], shells 0 .. L//2.
    threshold : float, such as HALF_MAPS or KNOWN_MAP.
    box : int, L (px).
    pixel_size : float, Å/px.

    Returns
    -------
    float, Å; the Nyquist limit where the curve never falls below, ``inf`` where shell 1 already is below.
    """
    curve = np.asarray(fsc, np.float64)[1:]
    if curve[0] < threshold:
        return float("inf")
    shell = crossing(np.arange(1, len(curve) + 1), curve, threshold)
    return float(box * pixel_size / (len(curve) if shell is None else shell))


def write_fsc_csv(path: str, box: int, pixel_size: float, **curves: np.ndarray) -> None:
    """Write FSC curves [L//2 + 1] as columns beside ``resolution_angst``, one row per shell from 1 on."""
    resolution = box * pixel_size / np.arange(1, box // 2 + 1)
    table = np.stack([resolution] + [np.asarray(curve, np.float64)[1:] for curve in curves.values()], axis=1)
    np.savetxt(path, table, "%.6g", ",", header=",".join(["resolution_angst", *curves]), comments="")


def read_fsc_csv(path: str) -> Tuple[np.ndarray, Dict[str, np.ndarray]]:
    """FSC curves of a run.

    Returns
    -------
    frequency : [S], spatial frequency of each shell from 1 on, 1/Å.
    curves : dict of column name to FSC [S].
    """
    columns = {name: np.array(values) for name, values in read_columns(path).items()}
    return 1.0 / columns.pop("resolution_angst"), columns
