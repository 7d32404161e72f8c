"""Straight lines through latent space, and the particles near them."""
import re
from dataclasses import dataclass

import numpy as np

from gmmhet.engine.latent import LatentError

LOW_PERCENT, HIGH_PERCENT = 5.0, 95.0    # of the particles' coordinates: where a trajectory begins and ends

_PC = re.compile(r"pc(\d+)$")
_BETWEEN = re.compile(r"from:?(\d+)-to:?(\d+)$")
_MOTION = re.compile(r"motion(\d+)$")
_MOTIONS = re.compile(r"motion(\d+)([+-])motion(\d+)$")


@dataclass(frozen=True)
class Line:
    """A piece of a straight line in latent space: ``origin + t * vector`` for t from `low` to `high`.

    Parameters
    ----------
    name : str, without characters that trouble file names.
    origin : [D]
    vector : [D], unit length.
    low, high : float, in units of z.
    """

    name: str
    origin: np.ndarray
    vector: np.ndarray
    low: float
    high: float

    def points(self, count):
        """`count` equally spaced latent points from `low` to `high`: [count, D]."""
        return self.origin + np.linspace(self.low, self.high, count)[:, None] * self.vector


def nearest(z, point, k):
    """Rows of the `k` latent points nearest to `point`, nearest first.

    Parameters
    ----------
    z : [B, D]
    point : [D]
    k : int; all rows when there are fewer.

    Returns
    -------
    rows : [min(k, B)] int64
    """
    distance = np.linalg.norm(np.asarray(z, float) - np.asarray(point, float), axis=1)
    k = min(k, len(distance))
    rows = np.argpartition(distance, k - 1)[:k]
    return rows[np.lexsort((rows, distance[rows]))]


def nearest_particles(z, ids, point, k):
    """Rows of the `k` different particles nearest to `point`, nearest first.

    A particle taken at several symmetry-related orientations has several rows with one id: its nearest counts.

    Parameters
    ----------
    z : [B, D]
    ids : [B]
    point : [D]
    k : int

    Returns
    -------
    rows : [min(k, number of particles)]
    """
    copies = max(1, -(-len(ids) // len(np.unique(ids))))
    rows = nearest(z, point, k * copies)
    _, first = np.unique(np.asarray(ids)[rows], return_index=True)
    return rows[np.sort(first)][:k]


def along(z, origin, vector, metric=None):
    """Coordinate of latent points along a line, and their distance from it.

    Parameters
    ----------
    z : [B, D]
    origin : [D]
    vector : [D], any length; the coordinate is in units of it.
    metric : [D, D] or None, measures angles and distances (None: Euclidean). With the inverse covariance of the points the
        spread of the coordinate is the reach of the cloud in this direction, also where the direction is no principal axis.

    Returns
    -------
    t, distance : [B]
    """
    offset, vector = np.asarray(z, float) - origin, np.asarray(vector, float)
    metric = np.eye(len(vector)) if metric is None else metric
    t = offset @ metric @ vector / (vector @ metric @ vector)
    off = offset - t[:, None] * vector
    return t, np.sqrt(np.maximum(np.einsum("bi,ij,bj->b", off, metric, off), 0.0))


def covariance(z):
    """Covariance [D, D] of latent points, with the small floor that keeps it invertible."""
    z = np.asarray(z, float)
    spread = np.atleast_2d(np.cov(z, rowvar=False))
    return spread + max(1e-6 * np.trace(spread) / len(spread), 1e-20) * np.eye(len(spread))


def line_through(name, z, origin, vector):
    """The line from the 5th to the 95th percentile of the particles' coordinates along `vector`.

    Parameters
    ----------
    name : str
    z : [B, D], the particles.
    origin : [D]
    vector : [D], any length above zero.

    Returns
    -------
    Line
    """
    unit = np.asarray(vector, float) / np.linalg.norm(vector)
    t, _ = along(z, origin, unit, np.linalg.inv(covariance(z)))
    low, high = np.percentile(t, [LOW_PERCENT, HIGH_PERCENT])
    return Line(name, np.asarray(origin, float), unit, float(low), float(high))


def line_between(name, start, end):
    """The line from one latent point to another, which must differ."""
    span = np.asarray(end, float) - start
    length = float(np.linalg.norm(span))
    if length == 0:
        raise LatentError("--line %s: both ends are the same latent point, so there is no line" % name)
    return Line(name, np.asarray(start, float), span / length, 0.0, length)


def known_lines(dimension, clusters, motions):
    """A sentence part naming the lines that can be asked for."""
    def counted(stem, count):
        return stem + "1" if count == 1 else "%s1 to %s%d" % (stem, stem, count)
    known = [counted("pc", dimension)]
    known.append("from:A-to:B for clusters A, B of 1 to %d" % clusters if clusters > 1 else "no from:A-to:B (fewer than two clusters)")
    known.append(counted("motion", motions) + ", their sums motion1+motion2 and differences motion1-motion2" if motions
                 else "no motion1, ... (they need --motion-region)")
    return "known: " + "; ".join(known)


def named_line(word, z, axes, centers, motions):
    """The line called `word`: pc1, from:1-to:3, motion1, motion1+motion2 or motion1-motion2.

    Parameters
    ----------
    word : str
    z : [B, D], the particles.
    axes : PrincipalAxes
    centers : [C, D], cluster centres.
    motions : [M, D], localised directions, each one standard deviation of the particles long; empty without a region.

    Returns
    -------
    Line

    Raises
    ------
    LatentError
        for an unknown name, with the known ones.
    """
    def pick(number, rows):
        if not 1 <= int(number) <= len(rows):
            raise LatentError("--line: unknown line '%s'; %s" % (word, known_lines(z.shape[1], len(centers), len(motions))))
        return rows[int(number) - 1]

    name, zero = word.replace(":", ""), np.zeros(z.shape[1])
    if match := _PC.match(word):
        return line_through(name, z, axes.mean, pick(match[1], axes.vectors))
    if match := _BETWEEN.match(word):
        return line_between(name, pick(match[1], centers), pick(match[2], centers))
    if match := _MOTION.match(word):
        return line_through(name, z, zero, pick(match[1], motions))
    if match := _MOTIONS.match(word):
        first, second = pick(match[1], motions), pick(match[3], motions)
        if match[1] == match[3]:
            raise LatentError("--line %s: a sum or difference takes two different motions" % word)
        return line_through(name, z, zero, first + second if match[2] == "+" else first - second)
    return pick(0, ())


def asked_lines(text, dimension):
    """The words of ``--line`` in order, each once; pc1 and pc2 (where there are two) when it is empty."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return list(dict.fromkeys(words)) or ["pc1", "pc2"][:dimension]
