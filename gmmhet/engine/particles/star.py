"""Star files of particles: RELION 3.0 (one table) and 3.1 and later (optics groups) in, RELION 3.1 out."""
import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Optional, Tuple, Union

import numpy as np
import pandas as pd

from gmmhet.engine.io.errors import ParticleError, listing
from gmmhet.engine.particles.star_text import read_tables, write_tables

#: RELION's labels of an orientation
ANGLE_LABELS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_OPTICS_LABELS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
#: lowest and highest plausible value of a column, and its unit: what lies outside is a wrong unit or another
#: column
RANGES: Dict[str, Tuple[float, float, str]] = {
    **dict.fromkeys((*ANGLE_LABELS, "rlnDefocusAngle", "rlnPhaseShift"), (-720, 720, "°")),
    **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), (-10**5, 10**5, "Å")),
    **dict.fromkeys(("rlnOriginX", "rlnOriginY"), (-10**4, 10**4, "px")),
    **dict.fromkeys(("rlnDefocusU", "rlnDefocusV"), (-10**6, 10**6, "Å")),
    **dict.fromkeys(("rlnImagePixelSize", "rlnPixelSize"), (0.01, 1000, "Å/px")),
    **dict.fromkeys(("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"), (0, 1, "")),
    "rlnVoltage": (10, 2000, "kV"),
    "rlnSphericalAberration": (-20, 20, "mm"),
    "rlnAmplitudeContrast": (0, 1, ""),
    "rlnCtfBfactor": (-1000, 10**5, "Å²"),
    "rlnCtfScalefactor": (0, 10**4, ""),
    "rlnDetectorPixelSize": (0.001, 1000, "µm"),
    "rlnMagnification": (1, 10**8, ""),
    "rlnRandomSubset": (0, 2, ""),
    "rlnImageId": (0, 2**53, ""),
    "rlnOpticsGroup": (0, 2**31, ""),
}
_WHOLE_NUMBERS = ("rlnRandomSubset", "rlnImageId", "rlnOpticsGroup", "rlnCtfDataAreCtfPremultiplied",
                  "rlnCtfDataArePhaseFlipped")
#: columns that are of one particle and never of its optics group
_OF_PARTICLES_ONLY = (*ANGLE_LABELS, "rlnOriginX", "rlnOriginY", "rlnOriginXAngst", "rlnOriginYAngst",
                      "rlnRandomSubset", "rlnImageId")


@dataclass(frozen=True)
class ParticleTable:
    """The tables of one particle star file.

    Attributes
    ----------
    path : str
    particles : DataFrame, one row per particle; every column of the input.
    optics : DataFrame or None, one row per optics group (None in RELION 3.0 files).
    others : dict of the remaining tables, carried along.
    """

    path: str
    particles: pd.DataFrame
    optics: Optional[pd.DataFrame]
    others: Dict[str, pd.DataFrame]

    def has(self, label: str) -> bool:
        """Whether the particles have the column, or their optics groups where it can be theirs."""
        return label in self.particles or (self.optics is not None and label in self.optics
                                           and label not in _OF_PARTICLES_ONLY)

    def numbers(self, label: str, default: Optional[float] = None) -> np.ndarray:
        """A column as float64 [n], taken from the particles, else from their optics groups, else `default`
        for all.

        Raises
        ------
        ParticleError
            when a value is missing, no number or outside its range (names the row).
        """
        if label in self.particles:
            return _in_range(self.path, label, self.particles[label], self._particle)
        if self.optics is not None and self.has(label):
            of_groups = _in_range(self.path, label, self.optics[label], _optics_row)
            return of_groups[self._optics_rows(self.optics)]
        return np.full(len(self.particles), default, np.float64)

    def _particle(self, row: int) -> str:
        """``particle row 3 (000003@stack.mrcs)``."""
        return "particle row %d (%s)" % (row, self.particles["rlnImageName"].iloc[row - 1])

    def _optics_rows(self, optics: pd.DataFrame) -> np.ndarray:
        """Row of the optics table of each particle."""
        numbers = _in_range(self.path, "rlnOpticsGroup", optics["rlnOpticsGroup"], _optics_row)
        groups = pd.Index(numbers.astype(int))
        wanted = self.numbers("rlnOpticsGroup").astype(int)
        if groups.has_duplicates:
            twice = listing(groups[groups.duplicated()].unique())
            raise ParticleError("%s: the optics table describes group %s more than once: keep one row of each"
                                % (self.path, twice))
        rows: np.ndarray = groups.get_indexer(wanted)
        if (rows < 0).any():
            raise ParticleError("%s: particles name optics group %s, but the optics table has only %s: "
                                "correct column rlnOpticsGroup, first in %s" % (
                                    self.path, listing(np.unique(wanted[rows < 0])), listing(groups),
                                    self._particle(np.flatnonzero(rows < 0)[0] + 1)))
        return rows

    def select(self, rows: np.ndarray) -> "ParticleTable":
        """The table with only the given particle rows."""
        return replace(self, particles=self.particles.iloc[rows].reset_index(drop=True))


def _optics_row(row: int) -> str:
    return "row %d of the optics table" % row


def _in_range(path: str, label: str, values: pd.Series, place: Callable[[int], str]) -> np.ndarray:
    """A column as float64 [n], finite and in its range; `place` names a row of the file, counted from 1."""
    if values.dtype.kind in "iuf":
        numbers: np.ndarray = values.to_numpy(np.float64)
    else:
        numbers = np.array([_number(value) for value in values], np.float64)
    low, high, unit = RANGES.get(label, (-np.inf, np.inf, ""))
    kind = "a whole number" if label in _WHOLE_NUMBERS else "a number"
    bad = ~np.isfinite(numbers) | (numbers < low) | (numbers > high)
    if label in _WHOLE_NUMBERS:
        bad |= numbers != np.round(numbers)
    rows = np.flatnonzero(bad)
    if len(rows):
        expected = kind
        if np.isfinite(low):
            expected = "%s from %s to %s%s" % (kind, low, high, " " + unit if unit else "")
        others = ", and %d more rows likewise" % (len(rows) - 1) if len(rows) > 1 else ""
        raise ParticleError("%s: column %s of %s holds '%s', expected %s%s: correct or remove such rows" % (
            path, label, place(rows[0] + 1), values.iloc[rows[0]], expected, others))
    return numbers


def _number(text: Any) -> float:
    """A text as a number; NaN when it is none."""
    try:
        return float(text) if "_" not in str(text) else np.nan
    except ValueError:
        return np.nan


def read_star(path: str) -> ParticleTable:
    """Read the tables of a particle star file.

    Raises
    ------
    ParticleError
        when the file is missing, is no star file, has no table with ``rlnImageName`` or two of them, or has
        no particle.
    """
    if not os.path.isfile(path):
        raise ParticleError("particles file '%s' %s" % (
            path, "is a folder: name the star file in it" if os.path.isdir(path) else "does not exist"))
    try:
        tables = read_tables(path)
    except OSError as error:
        raise ParticleError("particles file '%s' cannot be read: %s" % (path, error.strerror)) from None
    names = [name for name, table in tables.items() if "rlnImageName" in table]
    if not names:
        raise ParticleError("'%s' is not a star file of particles: no table has the column rlnImageName "
                            "(tables found: %s)" % (path, listing(tables) or "none"))
    if len(names) > 1:
        raise ParticleError("'%s' has %d tables with the column rlnImageName, expected one: keep only one of "
                            "%s" % (path, len(names), listing("data_" + name for name in names)))
    particles = tables.pop(names[0])
    if not len(particles):
        raise ParticleError("'%s' holds no particles: its table '%s' is empty" % (path, "data_" + names[0]))
    optics = tables.pop("optics", None)
    if optics is not None and not ("rlnOpticsGroup" in optics and "rlnOpticsGroup" in particles):
        raise ParticleError("'%s' has an optics table, but rlnOpticsGroup is missing from it or from the "
                            "particles" % path)
    return ParticleTable(path, particles, optics, tables)


def as_relion31(table: ParticleTable, pixel_size: np.ndarray, box: np.ndarray) -> ParticleTable:
    """The table with optics groups: a RELION 3.0 table gets one group per distinct voltage, aberration,
    contrast and pixel size.

    Every column of the input stays.

    Parameters
    ----------
    table : ParticleTable
    pixel_size, box : arrays [n], of each particle (Å/px, px).
    """
    if table.optics is not None:
        return table
    particles = table.particles.copy()
    settings = np.stack([table.numbers(label) for label in _OPTICS_LABELS] + [pixel_size], axis=1)
    groups, first, row = np.unique(settings, axis=0, return_index=True, return_inverse=True)
    particles["rlnOpticsGroup"] = row.reshape(-1) + 1
    return replace(table, particles=particles,
                   optics=optics_table(groups[:, :3], groups[:, 3], np.asarray(box)[first]))


def optics_table(settings: np.ndarray, pixel_size: Union[float, np.ndarray],
                 box: Union[int, np.ndarray]) -> pd.DataFrame:
    """Optics table of RELION 3.1.

    Parameters
    ----------
    settings : array [G, 3], voltage (kV), spherical aberration (mm), amplitude contrast of each group.
    pixel_size : float or array [G], Å/px.
    box : int or array [G]
    """
    number = np.arange(1, len(settings) + 1)
    columns: Dict[str, object] = {"rlnOpticsGroup": number,
                                  "rlnOpticsGroupName": ["opticsGroup%d" % i for i in number]}
    columns.update({label: settings[:, i] for i, label in enumerate(_OPTICS_LABELS)})
    columns.update(rlnImagePixelSize=pixel_size, rlnImageSize=box, rlnImageDimensionality=2)
    return pd.DataFrame(columns)


def write_star(path: str, table: ParticleTable) -> None:
    """Write the tables: optics, particles, then the others, numbers with all their digits."""
    write_tables(path, {"optics": table.optics, "particles": table.particles, **table.others})
