"""Star files of particles: RELION 3.0 (one table) and 3.1 and later (optics groups) in, RELION 3.1 out."""
import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import starfile

from gmmhet.engine.io.errors import ParticleError, listing

_OPTICS_LABELS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


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
    optics: "pd.DataFrame | None"
    others: dict

    def has(self, label):
        """Whether the particles or their optics groups have the column."""
        return label in self.particles or (self.optics is not None and label in self.optics)

    def numbers(self, label, default=None):
        """A column as float64 [n], taken from the particles, else from their optics groups, else `default` for all.

        Raises
        ------
        ParticleError
            when a value is missing or no number (names the row).
        """
        if label in self.particles:
            values = self.particles[label]
        elif self.optics is not None and label in self.optics:
            values = self.optics[label].iloc[self._optics_rows(self.optics)]
        else:
            return np.full(len(self.particles), default, np.float64)
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise ParticleError("%s: column %s of particle row %d holds '%s', expected a number: correct the row or remove it" % (
                self.path, label, bad[0] + 1, values.iloc[bad[0]]))
        return numbers

    def _optics_rows(self, optics):
        """Row of the optics table of each particle."""
        groups = pd.Index(pd.to_numeric(optics["rlnOpticsGroup"]))
        wanted = pd.to_numeric(self.particles["rlnOpticsGroup"])
        rows = groups.get_indexer(wanted)
        if (rows < 0).any():
            missing = wanted[rows < 0].unique()
            raise ParticleError("%s: particles name optics group %s, but the optics table has only %s" % (
                self.path, listing(missing), listing(groups)))
        return rows

    def select(self, rows):
        """The table with only the given particle rows."""
        return replace(self, particles=self.particles.iloc[rows].reset_index(drop=True))


def read_star(path):
    """Read the tables of a particle star file.

    Parameters
    ----------
    path : str

    Returns
    -------
    ParticleTable

    Raises
    ------
    ParticleError
        when the file is missing, is no star file, has no table with ``rlnImageName``, or has no particle.
    """
    if not os.path.isfile(path):
        raise ParticleError("particles file '%s' does not exist" % path)
    tables = _tables(path)
    name = next((name for name in ("particles", "images", "", *tables) if "rlnImageName" in tables.get(name, ())), None)
    if name is None:
        raise ParticleError("'%s' is not a star file of particles: no table has the column rlnImageName (tables found: %s)" % (
            path, listing(tables) or "none"))
    particles = tables.pop(name)
    if not len(particles):
        raise ParticleError("'%s' holds no particles: its table '%s' is empty" % (path, "data_" + name))
    optics = tables.pop("optics", None)
    if optics is not None and not ("rlnOpticsGroup" in optics and "rlnOpticsGroup" in particles):
        raise ParticleError("'%s' has an optics table, but rlnOpticsGroup is missing from it or from the particles" % path)
    return ParticleTable(path, particles, optics, tables)


def _tables(path):
    """All tables as DataFrames; columns of names stay text, so that '001' is not turned into 1."""
    try:
        with open(path, encoding="utf-8") as file:
            labels = {line.split()[0][1:] for line in file if line.startswith("_")}
        names = [label for label in labels if label.endswith("Name")]
        blocks = starfile.read(path, always_dict=True, parse_as_string=names)
    except (ValueError, OSError, IndexError, KeyError, TypeError) as error:
        raise ParticleError("'%s' is not a readable star file: %s" % (path, str(error).strip())) from None
    return {name: pd.DataFrame([block]) if isinstance(block, dict) else block for name, block in blocks.items() if block is not None}


def as_relion31(table, pixel_size, box):
    """The table with optics groups: a RELION 3.0 table gets one group per distinct voltage, aberration and contrast.

    Every column of the input stays. Origins in pixels get their counterpart in Å.
    """
    if table.optics is not None:
        return table
    particles = table.particles.copy()
    settings = np.stack([table.numbers(label) for label in _OPTICS_LABELS], axis=1)
    groups, row = np.unique(settings, axis=0, return_inverse=True)
    particles["rlnOpticsGroup"] = row.reshape(-1) + 1
    return replace(table, particles=particles, optics=optics_table(groups, pixel_size, box))


def optics_table(settings, pixel_size, box):
    """Optics table of RELION 3.1.

    Parameters
    ----------
    settings : array [G, 3], voltage (kV), spherical aberration (mm), amplitude contrast of each group.
    pixel_size : float, Å/px.
    box : int
    """
    number = np.arange(1, len(settings) + 1)
    columns = {"rlnOpticsGroup": number, "rlnOpticsGroupName": ["opticsGroup%d" % i for i in number]}
    columns.update({label: settings[:, i] for i, label in enumerate(_OPTICS_LABELS)})
    columns.update(rlnImagePixelSize=float(pixel_size), rlnImageSize=int(box), rlnImageDimensionality=2)
    return pd.DataFrame(columns)


def write_star(path, table):
    """Write the tables: optics, particles, then the others, numbers with all their digits."""
    starfile.write({"optics": table.optics, "particles": table.particles, **table.others}, path, float_format=None, na_rep="nan")
