"""Straight lines through latent space."""
import re
from dataclasses import dataclass
from typing import List, NoReturn, Optional, Tuple

import numpy as np

from gmmhet.engine.latent import LatentError
from gmmhet.engine.latents import PrincipalAxes

#: percentiles of the particles' coordinates at which a trajectory begins and ends
LOW_PERCENT, HIGH_PERCENT = 5.0, 95.0

_PC = re.compile(r"pc(\d+)$")
_BETWEEN = re.compile(r"from:?(\d+)-to:?(\d+)$")
_MOTION = re.compile(r"motion(\d+)$")
_MOTIONS = re.compile(r"motion(\d+)([+-])motion(\d+)$")


@dataclass(frozen=True)
class Line:
    """A piece of a straight line in latent space: ``origin + t * vector`` for t from `low` to `high`.

    Attributes
    ----------
    name : str, without characters that trouble file names.
    origin : [D].
    vector : [D], unit length.
    low, high : float, in units of z.
    """

    name: str
    origin: np.ndarray
    vector: np.ndarray
    low: float
    high: float

    def points(self, count: int) -> np.ndarray:
        """`count` equally spaced latent points from `low` to `high`: [count, D]."""
        return np.asarray(self.origin + np.linspace(self.low, self.high, count)[:, None] * self.vector)


def along(z: np.ndarray, origin: np.ndarray, vector: np.ndarray,
          metric: Optional[np.ndarray] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Coordinate of latent points along a line, and their distance from it.

    Parameters
    ----------
    z : [n, D].
    origin : [D].
    vector : [D], any length; the coordinate is in units of it.
    metric : [D, D] or None, measures angles and distances (None: Euclidean). With the inverse covariance of
        the points the spread of the coordinate is the reach of the cloud in this direction, also where the
        direction is no principal axis.

    Returns
    -------
    t, distance : [n].
    """
    offset, vector = np.asarray(z, float) - origin, np.asarray(vector, float)
    metric = np.eye(len(vector)) if metric is None else metric
    t = offset @ metric @ vector / (vector @ metric @ vector)
    off = offset - t[:, None] * vector
    return t, np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", off, metric, off), 0.0))


def covariance(z: np.ndarray) -> np.ndarray:
    """Covariance [D, D] of latent points, with the small floor that keeps it invertible."""
    c = np.atleast_2d(np.cov(np.asarray(z, float), rowvar=False))
    return np.asarray(c + max(1e-6 * np.trace(c) / len(c), 1e-20) * np.eye(len(c)))


def line_through(name: str, z: np.ndarray, origin: np.ndarray, vector: np.ndarray) -> Line:
    """The line from the 5th to the 95th percentile of the particles' coordinates along `vector`.

    Parameters
    ----------
    name : str.
    z : [n, D], the particles.
    origin : [D].
    vector : [D], any length above zero.
    """
    unit = np.asarray(vector, float) / np.linalg.norm(vector)
    t, _ = along(z, origin, unit, np.linalg.inv(covariance(z)))
    low, high = np.percentile(t, [LOW_PERCENT, HIGH_PERCENT])
    return Line(name, np.asarray(origin, float), unit, float(low), float(high))


def line_between(name: str, start: np.ndarray, end: np.ndarray) -> Line:
    """The line from one latent point [D] to another.

    Raises
    ------
    LatentError
        when they are the same.
    """
    span = np.asarray(end, float) - start
    length = float(np.linalg.norm(span))
    if length == 0:
        raise LatentError("--line %s: both ends are the same latent point, so there is no line" % name)
    return Line(name, np.asarray(start, float), span / length, 0.0, length)


@dataclass(frozen=True)
class NamedLines:
    """The lines of a landscape that can be asked for by name: pc1, from:1-to:3, motion1, motion1+motion2 or
    motion1-motion2.

    Attributes
    ----------
    z : [n, D], the particles.
    axes : PrincipalAxes.
    centers : [K, D], cluster centres.
    motions : [M, D], localised directions, each one standard deviation of the particles long; empty without a
        region.
    """

    z: np.ndarray
    axes: PrincipalAxes
    centers: np.ndarray
    motions: np.ndarray

    def line(self, word: str) -> Line:
        """The line called `word`.

        Raises
        ------
        LatentError
            for an unknown name, with the known ones, and where a line would have no length.
        """
        name = word.replace(":", "")
        if match := _PC.match(word):
            return line_through(name, self.z, self.axes.mean, self._pick(word, match[1], self.axes.vectors))
        if match := _BETWEEN.match(word):
            start, end = (self._pick(word, number, self.centers) for number in match.groups())
            return line_between(name, start, end)
        if match := _MOTION.match(word):
            return self._along(name, self._pick(word, match[1], self.motions))
        if match := _MOTIONS.match(word):
            first, second = (self._pick(word, number, self.motions) for number in (match[1], match[3]))
            if match[1] == match[3]:
                raise LatentError("--line %s: a sum or difference takes two different motions" % word)
            return self._along(name, first + second if match[2] == "+" else first - second)
        self._refuse(word)

    def described(self, lines: List[Line]) -> List[Line]:
        """The given lines, all principal axes and all localised motions, each once."""
        by_name = {line.name: line for line in lines}
        for i, vector in enumerate(self.axes.vectors):
            name = "pc%d" % (i + 1)
            by_name.setdefault(name, line_through(name, self.z, self.axes.mean, vector))
        for i, vector in enumerate(self.motions):
            name = "motion%d" % (i + 1)
            by_name.setdefault(name, self._along(name, vector))
        return list(by_name.values())

    def _along(self, name: str, vector: np.ndarray) -> Line:
        """The line along a vector through the origin of the latent space."""
        return line_through(name, self.z, np.zeros(self.z.shape[1]), vector)

    def _pick(self, word: str, number: str, rows: np.ndarray) -> np.ndarray:
        """Row `number` (from 1)."""
        if not 1 <= int(number) <= len(rows):
            self._refuse(word)
        return np.asarray(rows[int(number) - 1])

    def _refuse(self, word: str) -> NoReturn:
        raise LatentError("--line: unknown line '%s'; %s" % (
            word, known_lines(self.z.shape[1], len(self.centers), len(self.motions))))


def known_lines(dimension: int, clusters: int, motions: int) -> str:
    """The part of a message that names the lines that can be asked for."""
    def numbered(stem: str, count: int) -> str:
        return stem + "1" if count == 1 else "%s1 to %s%d" % (stem, stem, count)
    known = [numbered("pc", dimension)]
    known.append("from:A-to:B for clusters A, B of 1 to %d" % clusters if clusters > 1
                 else "no from:A-to:B (fewer than two clusters)")
    known.append(numbered("motion", motions) + ", their sums motion1+motion2 and differences "
                                               "motion1-motion2" if motions
                 else "no motion1, ... (they need --motion-region)")
    return "known: " + "; ".join(known)


def line_words(text: str, dimension: int) -> List[str]:
    """The words of ``--line`` in order, each once; pc1 and pc2 (where there are two) when it is empty."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return list(dict.fromkeys(words)) or ["pc1", "pc2"][:dimension]
