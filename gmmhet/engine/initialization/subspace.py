"""The linear subspace in which the particles vary more than noise explains, which training starts from.

To first order in the decoder's outputs u, a particle's gradient at the model that training starts from is ``g
= F u + e``, with F the Fisher information and e the gradient of noise, whose covariance C0 is F too. So the
covariance of the gradients over the particles is ``C = C0 + F S F``, S being the covariance of u, and the
solutions of the generalised eigenvalue problem

    C w = lambda (C0 + RIDGE diag C0) w,    w C0 w = 1

are the directions of u along which the particles differ. A particle's place along one of them has posterior
mean ``sqrt(lambda - 1) / lambda w g`` and variance ``1 / lambda`` under the unit normal prior (probabilistic
principal component analysis, Tipping & Bishop 1999, with the noise of the images for its noise). C0 is taken
from images of one model, so that mask, CTF, viewing directions and what is not known of the poses are in it.
Where the particles are few or their motion is faint, it is sought among motions of parts as a whole
(`model.rigid_modes`), which are few: the halves of the particles say in which it is found best. Of more
outputs than LARGEST_SUBSPACE those of neighbouring anchors are taken to be alike: their gradients add up, and
an axis is the same in all of them.

A mixture at z along it has u = sqrt(lambda - 1) w z.

The encoder begins with that answer, and where it is of positions the decoder as well, and the encoder sees
the gradients along the w, the strongest first: it need not learn which of hundreds of correlated columns hold
signal, nor is signal given up before it is found. What the directions do beyond first order is learned. The
start is kept where no epoch explains the held-out particles surely better, as with a motion that hardly shows
in any one image.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array

from gmmhet.engine.model.rigid_modes import RigidModes, ridged

#: of more outputs of one parameter than this, neighbours are taken together
LARGEST_SUBSPACE = 3072
#: part of the diagonal that is added to C0, which holds back directions that hardly show
NULL_RIDGE = 0.3
#: axes of less strength are noise
LEAST_STRENGTH = 0.2
#: eigenvalues of a smaller share of the largest are 0 but for rounding
RANK_TOLERANCE = 1e-6
#: axes without strength come to the encoder this small
LEAST_SCALE = 0.2


class Covariances(NamedTuple):
    """Covariances [F, F] of gradients: of two independent halves of the particles, and of two sets of
    homogeneous images."""

    halves: Sequence[np.ndarray]
    nulls: Sequence[np.ndarray]


def streamed_covariances(chunks: Iterable[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
    """Covariances [F, F] within each group of columns, of these sizes, of the rows of an iterable of arrays
    [b, sum F]."""
    count, ends = 0, np.cumsum(sizes)
    total, products = np.zeros(ends[-1]), [np.zeros((size, size)) for size in sizes]
    for chunk in chunks:
        chunk = np.asarray(chunk, np.float64)
        count, total = count + len(chunk), total + chunk.sum(0)
        for product, columns in zip(products, np.split(chunk, ends[:-1], axis=1)):
            product += columns.T @ columns
    means = np.split(total, ends[:-1])
    return [product / count - np.outer(mean, mean) / count**2 for product, mean in zip(products, means)]


def group_sums(rows: np.ndarray, groupings: Sequence[csr_array]) -> np.ndarray:
    """Gradients [b, sum F] by what several outputs each say together (see `Deformation.anchor_groups`): sums,
    [b, sum of fewer]."""
    columns = np.split(rows, np.cumsum([grouping.shape[0] for grouping in groupings])[:-1], axis=1)
    return np.concatenate([values @ grouping for values, grouping in zip(columns, groupings)], 1)


@dataclass(frozen=True)
class Subspace:
    """Axes along which the particles vary.

    Attributes
    ----------
    axes : w [F, K], those that were found to be the strongest first (of rigid parts before the others, see
        `find_subspace`).
    strength : [K], lambda - 1 on particles that the axis was not found with, at least 0.
    """

    axes: np.ndarray
    strength: np.ndarray

    @property
    def significant(self) -> int:
        """How many axes, from the first, are no noise."""
        return int(np.sum(np.cumprod(self.strength > LEAST_STRENGTH)))

    @property
    def scale(self) -> np.ndarray:
        """What to multiply features along the axes by: to variance 1, times the part of it that is no noise,
        as amplitude."""
        signal = np.maximum(np.sqrt(self.strength / (1 + self.strength)), LEAST_SCALE)
        return signal / np.sqrt(1 + self.strength)

    def expanded(self, grouping: csr_array) -> "Subspace":
        """The same of the single outputs, of which `grouping` [outputs, F] says which were taken together."""
        return Subspace(grouping @ self.axes, self.strength)

    def evidence(self, dimension: int) -> float:
        """What a particle gains from the first `dimension` axes that are no noise, nats: its mean log
        marginal likelihood over that without them."""
        kept = self.strength[:min(dimension, self.significant)]
        return 0.5 * float(np.sum(kept - np.log1p(kept)))


def find_subspace(covariances: Covariances, kept: int, dimension: int = 1, modes: "RigidModes | None" = None,
                  ends: Sequence[int] = ()) -> Subspace:
    """The subspace of the particles against homogeneous images.

    Where rigid modes of parts are given, its first axes are motions of the larger parts alone, of as many as
    explain most, wherever that is more than axes explain that may be anything; the others are then what is
    left beside those.

    Parameters
    ----------
    covariances : Covariances.
    kept : axes in all.
    dimension : how many axes count in what is explained.
    modes : RigidModes, or None.
    ends : how many parts may be taken, from the first.
    """
    free = _eigenaxes(covariances, kept)
    if modes is None:
        return free
    basis, dual, owner = modes
    own = Covariances(*([basis.T @ covariance @ basis for covariance in group] for group in covariances))

    def among(end: int) -> Subspace:
        return _eigenaxes(Covariances(*([c[:end, :end] for c in group] for group in own)), min(kept, end))
    tried = [(among(end), end) for end in np.unique(np.searchsorted(owner, ends)) if end < len(basis)]
    best, end = max(tried, key=lambda pair: pair[0].evidence(dimension), default=(free, 0))
    if best.evidence(dimension) <= free.evidence(dimension):
        return free
    basis, dual = basis[:, :end], dual[:, :end]

    def beside(covariance: np.ndarray) -> np.ndarray:
        along = dual @ (basis.T @ covariance)
        return covariance - along - along.T + (along @ basis) @ dual.T
    rest = _eigenaxes(Covariances(*([beside(c) for c in group] for group in covariances)),
                      min(kept, len(basis) - end))
    axes = np.concatenate([basis @ best.axes, rest.axes - basis @ (dual.T @ rest.axes)], 1)
    strength = np.concatenate([best.strength, rest.strength])
    # the parts stay first: of many the strongest is the luckiest
    order = np.sort(np.argsort(-strength, kind="stable")[:kept])
    return Subspace(axes[:, order], strength[order])


def _eigenaxes(covariances: Covariances, kept: int) -> Subspace:
    """Axes of the particles against homogeneous images; their strength by the half that each was not found
    with. A half of few particles says nothing of the axes beyond its rank, which have strength 0."""
    halves, nulls = covariances
    size = len(nulls[0])

    def axes(covariance: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh(covariance, ridged(null, NULL_RIDGE), subset_by_index=(size - kept, size - 1))
        vectors = vectors[:, ::-1] / np.sqrt(np.sum(vectors * (null @ vectors), 0))[::-1]
        return vectors, values[::-1] > RANK_TOLERANCE * values[-1]

    def ratio(vectors: np.ndarray, covariance: np.ndarray, null: np.ndarray) -> np.ndarray:
        return np.sum(vectors * (covariance @ vectors), 0) / np.sum(vectors * (null @ vectors), 0)
    found = [axes(half, null) for half, null in zip(halves, nulls)]
    crossed = [ratio(vectors, halves[1 - i], nulls[1 - i]) for i, (vectors, _) in enumerate(found)]
    strength = np.where(found[0][1] & found[1][1], np.mean(crossed, 0) - 1, 0)
    vectors, _ = axes(0.5 * (halves[0] + halves[1]), 0.5 * (nulls[0] + nulls[1]))
    return Subspace(vectors, np.maximum(strength, 0))
