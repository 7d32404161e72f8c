"""Phantoms: pseudo-atomic models with a known coordinate that moves a domain, removes a part, or does nothing."""
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import symmetry_matrices

#: unequal populations of the assembly states, and the parts (1 to 4) that each state lacks
ASSEMBLY_STATES = ((0.35, ()), (0.25, (1,)), (0.2, (2,)), (0.12, (1, 3)), (0.08, (2, 4)))
#: the same of the mixed phantom, whose part 1 turns where it is present
MIXED_STATES = ((0.4, ()), (0.3, (1,)), (0.3, (2,)))
STATES = {"assembly": ASSEMBLY_STATES, "mixed": MIXED_STATES}
#: kinds named after their point group: one of the units moves
SYMMETRIC = ("c3", "d2")


@dataclass(frozen=True)
class Phantom:
    """A family of mixtures indexed by a coordinate.

    Attributes
    ----------
    kind : hinge, assembly, mixed, c3, d2 or null.
    base : Mixture at rest.
    part : int [N]; hinge: 1 on the arm; c3, d2: 1 to 3 or 4 on the arms; assembly: 1 to 4 on the parts that can be absent;
        mixed: 1 on the arm, which can be absent, 2 on another such part; else 0.
    pivot, axis : [3] Å and unit vector of the hinge (c3, d2: of unit 1; the others by symmetry).
    angle_deg : largest rotation to either side.
    """

    kind: str
    base: Mixture
    part: np.ndarray
    pivot: np.ndarray = field(default_factory=lambda: np.zeros(3))
    axis: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    angle_deg: float = 0.0

    @cached_property
    def turns(self):
        """Matrices [units, 3, 3] that take unit 1 to each; what does not move by units has one."""
        return symmetry_matrices(self.kind if self.kind in SYMMETRIC else "c1")

    def turned(self, angle_deg, unit=1):
        """The mixture with arm `unit` turned by an angle."""
        turn_unit = self.turns[unit - 1]
        pivot = turn_unit @ self.pivot
        turn = Rotation.from_rotvec(np.radians(angle_deg) * (turn_unit @ self.axis))
        arm = self.part == unit
        centers = self.base.centers.copy()
        centers[arm] = turn.apply(centers[arm] - pivot) + pivot
        return Mixture(centers.astype(np.float32), self.base.amplitudes, self.base.widths)

    def in_state(self, state):
        """The mixture at rest of a state (from 0) of an assembly or mixed phantom."""
        absent = np.isin(self.part, STATES[self.kind][state][1])
        return Mixture(self.base.centers, np.where(absent, 0, self.base.amplitudes).astype(np.float32), self.base.widths)

    def at(self, coordinate):
        """The mixture at a coordinate: (unit, angle in degrees) for hinge, c3 and d2, (state, angle) for assembly and mixed."""
        first, second = coordinate
        if self.kind in ("hinge", *SYMMETRIC):
            return self.turned(second, int(first))
        if self.kind == "mixed":
            return Mixture(self.turned(second).centers, self.in_state(int(first)).amplitudes, self.base.widths)
        return self.in_state(int(first)) if self.kind == "assembly" else self.base

    def draw(self, n, rng):
        """Random coordinates [n, 2] (see `at`)."""
        angle = rng.uniform(-self.angle_deg, self.angle_deg, n)
        if self.kind in STATES:
            state = rng.choice(len(STATES[self.kind]), n, p=[p for p, _ in STATES[self.kind]])
            return np.stack([state, np.where(self.has_arm(state), angle, 0.0)], 1).astype(float)
        if self.kind in SYMMETRIC:
            return np.stack([rng.integers(1, 1 + len(self.turns), n), angle], 1).astype(float)
        return np.stack([np.ones(n), angle if self.kind == "hinge" else np.zeros(n)], 1)

    def has_arm(self, state):
        """Whether the arm is there and turns in the states [n] of a mixed phantom, bool [n]; never in an assembly."""
        return np.array([self.kind == "mixed" and 1 not in absent for _, absent in STATES[self.kind]])[np.asarray(state, int)]

    def grid(self, points=25):
        """Coordinates that cover the family [G, 2] with their prior probabilities [G]."""
        angle = np.linspace(-self.angle_deg, self.angle_deg, points)
        if self.kind in STATES:
            found = [(s, a, p / points if self.has_arm(s) else p) for s, (p, _) in enumerate(STATES[self.kind])
                     for a in (angle if self.has_arm(s) else (0.0,))]
            return np.array(found)[:, :2], np.array(found)[:, 2]
        if self.kind == "null":
            return np.array([[1.0, 0.0]]), np.ones(1)
        coordinates = np.array([[u, a] for u in range(1, 1 + len(self.turns)) for a in angle])
        return coordinates, np.full(len(coordinates), 1.0 / len(coordinates))


def make_phantom(kind, radius_angst, width_angst, angle_deg, seed):
    """A lumpy pseudo-molecule of about `radius_angst` made of Gaussians of `width_angst`.

    hinge and null: a core with an arm; assembly: a core with four parts; mixed: a core with an arm and another part; c3, d2: three or
    four arms around a core.
    """
    rng = np.random.default_rng(seed)
    r, spacing = radius_angst, 2.0 * width_angst
    core = _ellipsoid((0, 0, -0.1 * r), (0.55 * r, 0.5 * r, 0.45 * r), spacing, rng)
    if kind == "assembly":
        directions = ((0.75, 0, 0.3), (-0.7, 0.3, 0.2), (0, -0.75, 0.1), (0.1, 0.6, -0.6))
        parts = [_ellipsoid(r * np.array(d), (0.26 * r, 0.22 * r, 0.2 * r), spacing, rng) for d in directions]
        pivot, axis, units = np.zeros(3), np.array([0.0, 0.0, 1.0]), parts
    elif kind in SYMMETRIC:
        turns, middle = symmetry_matrices(kind), np.array([0.72, 0, 0.45]) * r
        own = core[np.argmax(core @ (turns @ middle).T, axis=1) == 0]
        core = np.concatenate([own @ turn.T for turn in turns])
        arm = _ellipsoid(middle, (0.2 * r, 0.2 * r, 0.4 * r), spacing, rng)
        units = [arm @ turn.T for turn in turns]
        pivot, axis = np.array([0.5 * r, 0, 0.1 * r]), np.array([0.0, 1.0, 0.0])
    else:
        units = [_ellipsoid((0.3 * r, 0, 0.72 * r), (0.24 * r, 0.22 * r, 0.42 * r), spacing, rng)]
        if kind == "mixed":
            units.append(_ellipsoid((-0.45 * r, 0.1 * r, 0.5 * r), (0.26 * r, 0.22 * r, 0.24 * r), spacing, rng))
        pivot, axis = np.array([0.2 * r, 0, 0.3 * r]), np.array([0.0, 1.0, 0.0])
    centers = np.concatenate([core] + units)
    part = np.concatenate([np.full(len(p), i) for i, p in enumerate([core] + units)])
    amplitudes = rng.uniform(0.6, 1.4, len(centers))
    if kind in SYMMETRIC:
        amplitudes = np.concatenate([np.tile(rng.uniform(0.6, 1.4, len(piece)), len(turns)) for piece in (own, arm)])
    base = Mixture(centers.astype(np.float32), amplitudes.astype(np.float32), np.full(len(centers), width_angst, np.float32))
    return Phantom(kind, base, part, pivot, axis, angle_deg if kind in ("hinge", "mixed", *SYMMETRIC) else 0.0)


def _ellipsoid(middle, semi_axes, spacing, rng):
    """Jittered lattice points of an ellipsoid with random holes, [n, 3] Å: texture that orientations can hold on to."""
    middle, semi_axes = np.array(middle, float), np.array(semi_axes, float)
    axes = [np.arange(-s, s + spacing, spacing) for s in semi_axes]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    lattice = lattice + rng.normal(0, 0.25 * spacing, lattice.shape)
    inside = np.sum((lattice / semi_axes) ** 2, axis=1) <= 1
    return middle + lattice[inside & (rng.random(len(lattice)) < 0.7)]
