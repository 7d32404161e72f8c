"""The linear subspace in which the particles vary more than noise explains, which training starts from.

To first order in the decoder's outputs u, a particle's gradient at the model that training starts from is ``g = F u + e``, with F the
Fisher information and e the gradient of noise, whose covariance C0 is F too. So the covariance of the gradients over the particles is
``C = C0 + F S F``, S being the covariance of u, and the solutions of the generalised eigenvalue problem

    C w = lambda C0 w,    w C0 w = 1

are the directions of u along which the particles differ. A particle's place along one of them has posterior mean ``sqrt(lambda - 1) /
lambda w g`` and variance ``1 / lambda`` under the unit normal prior (probabilistic principal component analysis, Tipping & Bishop 1999,
with the noise of the images for its noise). C0 is taken from images of one model, so that mask, CTF, viewing directions and what is not
known of the poses are in it. Where the particles are few or their motion is faint, it is sought among motions of parts as a whole
(`networks.parts`), which are few: the halves of the particles say in which it is found best. Of more outputs than MOST_COLUMNS those of
neighbouring anchors are taken to be alike: their gradients add up, and an axis is the same in all of them.

A mixture at z along it has u = sqrt(lambda - 1) w z.

The encoder begins with that answer, and where it is of positions the decoder as well, and the encoder sees the gradients along the w, the
strongest first: it need not learn which of hundreds of correlated columns hold signal, nor is signal given up before it is found. What the
directions do beyond first order is learned. The start is kept where no epoch explains the held-out particles better, as with a motion that
hardly shows in any one image.
"""
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from gmmhet.engine.model.rigid_modes import ridged

#: of more outputs of one kind than this, neighbours are taken together
MOST_COLUMNS = 3072
#: part of the diagonal that is added to C0, which holds back directions that hardly show; axes of less strength are noise
RIDGE, LEAST_STRENGTH = 0.3, 0.2
#: columns without strength come to the encoder this small
FLOOR = 0.2


def streamed_covariances(chunks, sizes):
    """Covariances [F, F] within each group of columns, of these sizes, of the rows of an iterable of arrays [b, sum F]."""
    count, ends = 0, np.cumsum(sizes)
    total, products = np.zeros(ends[-1]), [np.zeros((size, size)) for size in sizes]
    for chunk in chunks:
        chunk = np.asarray(chunk, np.float64)
        count, total = count + len(chunk), total + chunk.sum(0)
        for product, part in zip(products, np.split(chunk, ends[:-1], axis=1)):
            product += part.T @ part
    return [product / count - np.outer(part, part) / count**2 for product, part in zip(products, np.split(total, ends[:-1]))]


def summed(rows, merged):
    """Gradients [b, sum F] by what several outputs each say together (see `Deformation.merged`): sums, [b, sum of fewer]."""
    parts = np.split(rows, np.cumsum([matrix.shape[0] for matrix in merged])[:-1], axis=1)
    return np.concatenate([part @ matrix for part, matrix in zip(parts, merged)], 1)


@dataclass(frozen=True)
class Subspace:
    """Axes w [F, K], those that were found to be the strongest first (of parts before the others, see `find_subspace`), and their strength
    [K]: lambda - 1 on particles that the axis was not found with, at least 0."""

    axes: np.ndarray
    strength: np.ndarray

    @property
    def significant(self):
        """How many axes, from the first, are no noise."""
        return int(np.sum(np.cumprod(self.strength > LEAST_STRENGTH)))

    @property
    def scale(self):
        """What to multiply features along the axes by: to variance 1, times the part of it that is no noise, as amplitude."""
        return np.maximum(np.sqrt(self.strength / (1 + self.strength)), FLOOR) / np.sqrt(1 + self.strength)

    def apart(self, merged):
        """The same of the single outputs, of which `merged` [outputs, F] says which were taken together."""
        return Subspace(merged @ self.axes, self.strength)

    def evidence(self, dimension):
        """What a particle gains from the first `dimension` axes that are no noise, nats: its mean log marginal likelihood over that without
        them."""
        kept = self.strength[:min(dimension, self.significant)]
        return 0.5 * float(np.sum(kept - np.log1p(kept)))


def find_subspace(halves, nulls, kept, dimension=1, modes=None, ends=()):
    """The subspace of the particles against homogeneous images.

    Where rigid modes of parts are given, its first axes are motions of the larger parts alone, of as many as explain most, wherever that is
    more than axes explain that may be anything; the others are then what is left beside those.

    Parameters
    ----------
    halves, nulls : covariances [F, F], two of independent halves of the particles, and two of homogeneous images.
    kept : int, axes.
    dimension : int, how many axes count in that.
    modes : modes [F, K], their readers and whose they are (see `networks.parts.rigid_modes`), or None.
    ends : sequence of int, how many parts may be taken, from the first.

    Returns
    -------
    Subspace
    """
    found = _found(halves, nulls, kept)
    if modes is None:
        return found
    basis, reader, owner = modes
    own_halves, own_nulls = ([basis.T @ covariance @ basis for covariance in part] for part in (halves, nulls))

    def among(end):
        return _found([own[:end, :end] for own in own_halves], [own[:end, :end] for own in own_nulls], min(kept, end))
    tried = [(among(end), end) for end in np.unique(np.searchsorted(owner, ends)) if end < len(basis)]
    best, end = max(tried, key=lambda pair: pair[0].evidence(dimension), default=(found, 0))
    if best.evidence(dimension) <= found.evidence(dimension):
        return found
    basis, reader = basis[:, :end], reader[:, :end]

    def beside(covariance):
        along = reader @ (basis.T @ covariance)
        return covariance - along - along.T + (along @ basis) @ reader.T
    rest = _found([beside(covariance) for covariance in halves], [beside(null) for null in nulls], min(kept, len(basis) - end))
    axes = np.concatenate([basis @ best.axes, rest.axes - basis @ (reader.T @ rest.axes)], 1)
    strength = np.concatenate([best.strength, rest.strength])
    order = np.sort(np.argsort(-strength, kind="stable")[:kept])      # the parts stay first: of many the strongest is the luckiest
    return Subspace(axes[:, order], strength[order])


def _found(halves, nulls, kept):
    """Axes of the particles against homogeneous images."""
    size = len(nulls[0])

    def axes(covariance, null):
        found = eigh(covariance, ridged(null, RIDGE), subset_by_index=(size - kept, size - 1))[1][:, ::-1]
        return found / np.sqrt(np.sum(found * (null @ found), 0))

    def ratio(found, covariance, null):
        return np.sum(found * (covariance @ found), 0) / np.sum(found * (null @ found), 0)
    strength = np.mean([ratio(axes(halves[i], nulls[i]), halves[1 - i], nulls[1 - i]) for i in (0, 1)], 0) - 1
    return Subspace(axes(0.5 * (halves[0] + halves[1]), 0.5 * (nulls[0] + nulls[1])), np.maximum(strength, 0))
