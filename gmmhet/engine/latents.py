"""The latent points of a train run, and their principal axes: the only place where latents.npz is opened.

NumPy alone and Python 3.8, because Scipion reads latent points too.
"""
import dataclasses
import io
import os
from dataclasses import dataclass
from typing import List, Optional, Sequence, Union

import numpy as np

from gmmhet.engine import rundir

#: whole numbers, in whatever holds them
Numbers = Union[Sequence[int], np.ndarray]
#: ids that a message names
MOST_IDS_LISTED = 5


class LatentsError(ValueError):
    """The latent points cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Latents:
    """Latent points of n views: of every particle one, of a symmetric particle one for each symmetry copy.

    What may be None was not written by the run: by an older version, or where it was not asked for.

    Attributes
    ----------
    ids : int64 [n], particle ids.
    copy : int [n], symmetry copy from 0.
    z : float32 [n, D], mean of the latent posterior.
    z_covariance : float32 [n, D, D], its covariance, the pose integrated out.
    z_std : float32 [n, D], its standard deviations.
    encoded : float32 [n, n_stage], the encoder's answer, of the last stage alone.
    held_out : bool [n], whether the networks have not learned from the particle.
    pose_change : float32 [n, 5], rotation vector (radians) and shift (Å) that training found.
    agreement, neutral_agreement, static_agreement : float32 [n], log-likelihood (nats) or mean FRC with the
        particle's own conformation, with that of the model before this stage, and with the one at the prior's
        mean.
    evidence, neutral_evidence, static_evidence : float32 [n], the same with conformation and pose integrated
        out, nats.
    """

    ids: np.ndarray
    copy: np.ndarray
    z: np.ndarray
    z_covariance: Optional[np.ndarray] = None
    z_std: Optional[np.ndarray] = None
    encoded: Optional[np.ndarray] = None
    held_out: Optional[np.ndarray] = None
    pose_change: Optional[np.ndarray] = None
    agreement: Optional[np.ndarray] = None
    neutral_agreement: Optional[np.ndarray] = None
    static_agreement: Optional[np.ndarray] = None
    evidence: Optional[np.ndarray] = None
    neutral_evidence: Optional[np.ndarray] = None
    static_evidence: Optional[np.ndarray] = None

    @classmethod
    def load(cls, folder: str, needed: Sequence[str] = ()) -> "Latents":
        """Those of a train run.

        Parameters
        ----------
        folder : str, the run's folder.
        needed : names of attributes that must be there.

        Raises
        ------
        LatentsError
            when the file does not exist or lacks what is needed.
        """
        path = os.path.join(folder, rundir.LATENTS)
        if not os.path.exists(path):
            raise LatentsError("'%s' holds no %s: expected the folder of a finished 'train' run" % (
                folder, rundir.LATENTS))
        with np.load(path, allow_pickle=False) as data:
            arrays = {_attribute(name): data[name] for name in data.files}
        known = {field.name for field in dataclasses.fields(cls)}
        lacking = [name for name in ("ids", "copy", "z", *needed) if name not in arrays]
        if lacking:
            raise LatentsError("%s lacks %s: it is of an older version of gmmhet; train again" % (
                path, " and ".join(lacking)))
        return cls(**{name: values for name, values in arrays.items() if name in known})

    def save(self, folder: str) -> None:
        """Write latents.npz into a train run's folder, in one step."""
        packed = io.BytesIO()
        arrays = {_key(name): values for name, values in vars(self).items() if values is not None}
        np.savez(packed, **arrays)
        with rundir.whole_file(os.path.join(folder, rundir.LATENTS)) as file:
            file.write(packed.getbuffer())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Latent dimensions D."""
        return int(self.z.shape[1])

    @property
    def copies(self) -> int:
        """Symmetry copies of a particle."""
        return int(self.copy.max(initial=0)) + 1

    @property
    def particle_ids(self) -> np.ndarray:
        """The id of every particle once, in the order of the rows."""
        return np.asarray(self.ids[self.copy == 0])

    def select(self, rows: np.ndarray) -> "Latents":
        """The chosen rows (numbers or bool [n]) of every array."""
        chosen = {name: values[rows] for name, values in vars(self).items() if values is not None}
        return dataclasses.replace(self, **chosen)

    def nearest(self, point: np.ndarray, k: int) -> np.ndarray:
        """Rows of the k different particles nearest to a latent point, nearest first.

        Distance is plain distance in z. Of a particle that has several symmetry copies the nearest one
        counts.

        Parameters
        ----------
        point : [D].
        k : int.

        Returns
        -------
        int [min(k, number of particles)].
        """
        rows = nearest_rows(self.z, point, k * self.copies)
        _, first = np.unique(self.ids[rows], return_index=True)
        return np.asarray(rows[np.sort(first)][:k])

    def rows_of(self, ids: Numbers, copy: Optional[Numbers] = None) -> np.ndarray:
        """Rows of particles by id, never by order.

        Parameters
        ----------
        ids : int [m].
        copy : int [m], or None for all copies of each.

        Returns
        -------
        int [m], or [m, copies] in the order of the copies.

        Raises
        ------
        LatentsError
            naming particles that there is no latent point for; its `missing` holds them all.
        """
        row = {pair: i for i, pair in enumerate(zip(self.ids.tolist(), self.copy.tolist()))}
        wanted = np.asarray(ids, np.int64).tolist()
        every = range(self.copies)
        pairs = [[(i, c) for c in every] for i in wanted]
        if copy is not None:
            pairs = [[pair] for pair in zip(wanted, np.asarray(copy).tolist())]
        incomplete = [group[0][0] for group in pairs if any(pair not in row for pair in group)]
        missing = list(dict.fromkeys(incomplete))
        if missing:
            raise MissingLatents(missing, len(set(wanted)))
        rows = np.array([[row[pair] for pair in group] for group in pairs], np.int64).reshape(
            len(pairs), self.copies if copy is None else 1)
        return rows if copy is None else rows[:, 0]


class MissingLatents(LatentsError):
    """Particles without a latent point: `missing` lists their ids, of `wanted` particles in all."""

    def __init__(self, missing: List[int], wanted: int):
        self.missing, self.wanted = missing, wanted
        listed = ", ".join(str(i) for i in missing[:MOST_IDS_LISTED])
        super().__init__("%d of %d particles have no latent point (ids %s%s)" % (
            len(missing), wanted, listed, ", ..." if len(missing) > MOST_IDS_LISTED else ""))


def _attribute(key: str) -> str:
    return "ids" if key == "id" else key


def _key(attribute: str) -> str:
    return "id" if attribute == "ids" else attribute


def nearest_rows(z: np.ndarray, point: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k latent points nearest to a point, nearest first; of points equally near the first row
    first.

    Parameters
    ----------
    z : [n, D].
    point : [D].
    k : int; all rows where there are fewer.

    Returns
    -------
    int [min(k, n)].
    """
    squared = np.sum((np.asarray(z, float) - np.asarray(point, float)) ** 2, axis=1)
    k = min(k, len(squared))
    if k == 0:
        return np.zeros(0, np.int64)
    within = np.flatnonzero(~(squared > np.partition(squared, k - 1)[k - 1]))       # NaN is farthest
    return within[np.argsort(squared[within], kind="stable")][:k]


# ---------------------------------------------------------------- principal axes
@dataclass(frozen=True)
class PrincipalAxes:
    """Principal axes of latent points.

    Attributes
    ----------
    mean : [D], the middle of the points.
    vectors : [K, D], unit vectors, most variance first; the largest component of each is positive.
    explained : [K], fraction of the variance along each; zeros when all points coincide.
    """

    mean: np.ndarray
    vectors: np.ndarray
    explained: np.ndarray

    def coordinates(self, z: np.ndarray, axes: int = 2) -> np.ndarray:
        """Coordinates of `z` [n, D] on the first `axes` axes: [n, axes], zeros where there are fewer axes."""
        projected = (np.asarray(z, float) - self.mean) @ self.vectors[:axes].T
        return np.pad(projected, ((0, 0), (0, axes - projected.shape[1])))


def positive_largest(vectors: np.ndarray) -> np.ndarray:
    """Vectors [K, D], each with the sign that makes its largest component positive."""
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return np.asarray(vectors * np.where(signs == 0, 1.0, signs)[:, None])


def principal_axes(z: np.ndarray) -> PrincipalAxes:
    """Principal component analysis of latent points, by the singular values of ``z - mean``.

    Parameters
    ----------
    z : [n, D], at least two points.

    Raises
    ------
    LatentsError
        for fewer points.
    """
    z = np.asarray(z, float)
    if len(z) < 2:
        raise LatentsError("z must hold at least 2 points for principal axes, got %d" % len(z))
    if not np.ptp(z, axis=0).any():
        return PrincipalAxes(z.mean(axis=0), np.eye(z.shape[1]), np.zeros(z.shape[1]))
    mean = np.mean(z, axis=0)
    _, singular, vectors = np.linalg.svd(z - mean, full_matrices=False)
    variance = singular**2 / (len(z) - 1)
    return PrincipalAxes(mean, positive_largest(vectors), variance / np.sum(variance))
