"""The ceiling of a representation: what some Gaussians with free amplitudes, carried along by what moves,
could express of the truth; the best that anything learned with these Gaussians can come to.

Of every part of the truth that comes and goes or turns by itself, the amplitudes are those of least squares,
over the rings that are learned from and weighed by what images show of each (the mean squared CTF).
"""
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import map_coordinates
from systems import Family

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.ctf import ctf_values

#: part of the diagonal that is added to it in least squares
RIDGE = 1e-3
#: distances and variances at which the product of two Gaussians is tabulated
DISTANCES, VARIANCES = 400, 60
#: Gaussians whose transforms are made at once
CHUNK = 512
#: coordinates at which the represented maps are compared with the true ones, of each mover
POINTS = 3


class Rings:
    """The rings of a box that are learned from, weighed by what images show of each; transforms of maps and
    mixtures there.

    Parameters
    ----------
    box : int, L (px); pixel_size : float, Å/px.
    spectrum : [m + 1], weight of each ring.
    """

    def __init__(self, box, pixel_size, spectrum):
        self.box, self.pixel_size, self.spectrum, self.m = box, pixel_size, spectrum, len(spectrum) - 1
        self.index = np.arange(-self.m, self.m + 1)
        half = np.arange(self.m + 1)
        radius = np.sqrt(self.index[:, None, None]**2 + self.index[:, None]**2 + half**2)
        inside = (radius > 0) & (radius <= self.m + 0.5)
        ring = np.minimum(np.round(radius).astype(int), self.m)
        self.weight = inside * spectrum[ring] * np.where(half == 0, 1.0, 2.0)            # [2m+1, 2m+1, m+1]

    def of_map(self, volume):
        """Coefficients of a map [L, L, L]: [2m+1, 2m+1, m+1]."""
        whole = fft.rfftn(fft.ifftshift(volume), workers=-1)
        return whole[np.ix_(self.index, self.index, np.arange(self.m + 1))]

    def _waves(self, mixture):
        """Factors of a mixture's Gaussians along z, y and x, of amplitude 1: [N, 2m+1], [N, 2m+1], [N,
        m+1]."""
        for indices, axis in ((self.index, 2), (self.index, 1), (np.arange(self.m + 1), 0)):
            k = indices / (self.box * self.pixel_size)
            yield np.exp(-2 * (np.pi * mixture.widths[:, None] * k) ** 2
                         - 2j * np.pi * mixture.centers[:, axis:axis + 1] * k)

    def of_mixture(self, mixture):
        """Coefficients of a mixture, of the scale of maps that `render` draws."""
        total = 0.0
        for start in range(0, len(mixture), CHUNK):
            z, y, x = self._waves(mixture.select(np.arange(start, min(start + CHUNK, len(mixture)))))
            plane = np.einsum("nz,ny->zyn", z, y, optimize=False)
            total = total + plane @ (mixture.amplitudes[start:start + CHUNK, None] * x)
        return total / self.pixel_size**2

    def products(self, mixture, coefficients):
        """Weighed scalar products [N] of each Gaussian, of amplitude 1, with coefficients."""
        found, weighed = [], self.weight * coefficients
        for start in range(0, len(mixture), CHUNK):
            z, y, x = self._waves(mixture.select(np.arange(start, min(start + CHUNK, len(mixture)))))
            along = np.einsum("zyn,ny->nz", weighed @ x.conj().T, y.conj(), optimize=False)
            found.append(np.sum(along * z.conj(), 1).real)
        return np.concatenate(found) / self.pixel_size**2

    def gram(self, mixture):
        """Weighed scalar products of all pairs of Gaussians of amplitude 1, [N, N]: of a spectrum that is the
        same in all directions they depend on the distance and the sum of the variances alone."""
        edges = np.linspace(0.5, self.m + 0.5, 20 * self.m + 1)
        ring = 0.5 * (edges[1:] + edges[:-1])
        k, spectrum = ring / (self.box * self.pixel_size), self.spectrum[np.round(ring).astype(int)]
        volume = (self.box * self.pixel_size) ** 3 * 4 * np.pi * k**2 * (k[1] - k[0])
        distance = np.linspace(0, np.linalg.norm(np.ptp(mixture.centers, 0)), DISTANCES)
        squares = mixture.widths.astype(float) ** 2
        variance = np.linspace(2 * squares.min(), 2 * squares.max() + 1e-3, VARIANCES)
        table = np.exp(-2 * np.pi**2 * variance[:, None] * k**2) * (spectrum * volume) @ np.sinc(
            2 * k[:, None] * distance)                                                               # [V, D]
        apart = np.sqrt(np.maximum(np.sum((mixture.centers[:, None] - mixture.centers[None]) ** 2, -1), 0))
        place = [(squares[:, None] + squares - variance[0]) / (variance[1] - variance[0]),
                 apart / (distance[1] - distance[0])]
        return map_coordinates(table, place, order=3, mode="nearest") / self.pixel_size**4

    def least_squares(self, mixture, volumes):
        """Amplitudes [N, V] of a mixture's Gaussians that are nearest to each of V maps."""
        gram = self.gram(mixture)
        gram[np.diag_indices(len(gram))] *= 1 + RIDGE
        return cho_solve(cho_factor(gram),
                         np.stack([self.products(mixture, self.of_map(volume)) for volume in volumes], 1))


def ring_spectrum(particles, m):
    """Mean squared CTF of each ring, [m + 1]."""
    k = (np.arange(m + 1) / (particles.box * particles.pixel_size)).astype(np.float32)[None]
    some = particles.ctf[np.linspace(0, len(particles) - 1, min(len(particles), 200)).astype(int)]
    return np.mean(np.asarray(ctf_values(some, k, np.zeros((1, 1), np.float32)))[:, 0] ** 2, 0)


@dataclass(frozen=True)
class Represented(Family):
    """A family as some Gaussians could express it at best.

    Attributes
    ----------
    truth : Family.
    gaussians : Mixture, whose centres and widths they have.
    rings : Rings, over which they are fitted.
    """

    truth: Family
    gaussians: Mixture
    rings: Rings

    movers = property(lambda self: self.truth.movers)
    states = property(lambda self: self.truth.states)
    size = property(lambda self: self.truth.size)

    @cached_property
    def _solved(self):
        """Amplitudes [N] of every group of things that is seen together, by which they are."""
        groups = []

        class Groups(Family):
            movers, states, size = self.movers, self.states, self.size

            def drawn(self, chosen, mover, angle_deg):
                groups.append(chosen)
        Groups().components(self.truth.grid(1)[0])
        sampling = self.rings.box, self.rings.pixel_size
        found = self.rings.least_squares(self.gaussians, [self.truth.volume(g, *sampling) for g in groups])
        return {group.tobytes(): np.float32(amplitudes) for group, amplitudes in zip(groups, found.T)}

    def drawn(self, chosen, mover, angle_deg):
        """A mixture (see `Family`)."""
        centers = self.gaussians.centers
        if mover is not None:
            centers = np.float32(self.movers[mover].turned(centers.astype(float), float(angle_deg)))
        return Mixture(centers, self._solved[chosen.tobytes()], self.gaussians.widths)


def represented(truth, gaussians, particles, m):
    """What Gaussians could express at best of a family, by the rings up to m of some particles."""
    rings = Rings(particles.box, particles.pixel_size, ring_spectrum(particles, m))
    return Represented(truth, gaussians, rings)


def explained_variance(family):
    """Share of what differs between the coordinates of a `Represented` family that its Gaussians express."""
    rings, truth = family.rings, family.truth
    coordinates, prior = truth.grid(POINTS)
    parts, uses = family.components(coordinates)
    found = np.tensordot(uses.astype(float), np.stack([rings.of_mixture(part) for part in parts]), 1)
    true = np.stack([rings.of_map(truth.true_map(c, rings.box, rings.pixel_size)) for c in coordinates])

    def spread(values):
        offset = values - np.tensordot(prior, values, 1)
        return prior @ np.sum(rings.weight * np.abs(offset) ** 2, axis=(1, 2, 3))
    return float(1 - spread(true - found) / spread(true))
