"""Phantoms: pseudo-atomic models with a known coordinate that moves a domain, removes one, or does
nothing."""
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import symmetry_matrices

#: unequal populations of the assembly states, and the domains (1 to 4) that each state lacks
ASSEMBLY_STATES: Tuple[Tuple[float, Tuple[int, ...]], ...] = (
    (0.35, ()), (0.25, (1,)), (0.2, (2,)), (0.12, (1, 3)), (0.08, (2, 4)))
#: the same of the mixed phantom, whose domain 1 turns where it is present
MIXED_STATES: Tuple[Tuple[float, Tuple[int, ...]], ...] = ((0.4, ()), (0.3, (1,)), (0.3, (2,)))
STATES = {"assembly": ASSEMBLY_STATES, "mixed": MIXED_STATES}
#: kinds named after their point group: one of the units moves
SYMMETRIC = ("c3", "d2")
#: distance of neighbouring Gaussians over their width, and the share of lattice points that are kept
LATTICE_SPACING, LATTICE_FILLING = 2.0, 0.7
#: amplitudes are uniform between these
AMPLITUDES = 0.6, 1.4


class MixtureFamily(Protocol):
    """Mixtures of the same Gaussians, indexed by a coordinate: what images are simulated of."""

    @property
    def reference(self) -> Mixture:
        """The mixture at rest, with everything present."""
        ...

    def at(self, coordinate: np.ndarray) -> Mixture:
        """The mixture at a coordinate [C]."""
        ...

    def grid(self, points: int = 25) -> Tuple[np.ndarray, np.ndarray]:
        """Coordinates that cover the family [G, C] with their prior probabilities [G]."""
        ...


@dataclass(frozen=True)
class Phantom:
    """A family of mixtures indexed by a coordinate, (state or unit, angle in degrees).

    Attributes
    ----------
    kind : hinge, assembly, mixed, c3, d2 or null.
    reference : Mixture, with everything present.
    domain : int [N]; hinge: 1 on the arm; c3, d2: 1 to 3 or 4 on the arms; assembly: 1 to 4 on the domains
        that can be absent; mixed: 1 on the arm, which can be absent, 2 on another such domain; else 0.
    pivot, axis : [3] Å and unit vector of the hinge (c3, d2: of unit 1; the others by symmetry).
    angle_deg : largest rotation to either side.
    """

    kind: str
    reference: Mixture
    domain: np.ndarray
    pivot: np.ndarray = field(default_factory=lambda: np.zeros(3))
    axis: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    angle_deg: float = 0.0

    @cached_property
    def unit_rotations(self) -> np.ndarray:
        """Matrices [units, 3, 3] that take unit 1 to each; what does not move by units has one."""
        return np.asarray(symmetry_matrices(self.kind if self.kind in SYMMETRIC else "c1"))

    def at_angle(self, angle_deg: float, unit: int = 1) -> Mixture:
        """The mixture with arm `unit` turned by an angle."""
        to_unit = self.unit_rotations[unit - 1]
        pivot = to_unit @ self.pivot
        turn = Rotation.from_rotvec(np.radians(angle_deg) * (to_unit @ self.axis))
        arm = self.domain == unit
        centers = self.reference.centers.copy()
        centers[arm] = turn.apply(centers[arm] - pivot) + pivot
        return Mixture(centers.astype(np.float32), self.reference.amplitudes, self.reference.widths)

    def in_state(self, state: int) -> Mixture:
        """The mixture at rest of a state (from 0) of an assembly or mixed phantom."""
        absent = np.isin(self.domain, STATES[self.kind][state][1])
        amplitudes = np.where(absent, 0, self.reference.amplitudes).astype(np.float32)
        return Mixture(self.reference.centers, amplitudes, self.reference.widths)

    def at(self, coordinate: np.ndarray) -> Mixture:
        """The mixture at a coordinate: (unit, angle in degrees) for hinge, c3 and d2, (state, angle) for
        assembly and mixed."""
        first, angle_deg = coordinate
        if self.kind in ("hinge", *SYMMETRIC):
            return self.at_angle(angle_deg, int(first))
        if self.kind == "mixed":
            amplitudes = self.in_state(int(first)).amplitudes
            return Mixture(self.at_angle(angle_deg).centers, amplitudes, self.reference.widths)
        return self.in_state(int(first)) if self.kind == "assembly" else self.reference

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Random coordinates [n, 2] (see `at`)."""
        angle = rng.uniform(-self.angle_deg, self.angle_deg, n)
        if self.kind in STATES:
            state = rng.choice(len(STATES[self.kind]), n, p=[p for p, _ in STATES[self.kind]])
            return np.asarray(np.stack([state, np.where(self.has_arm(state), angle, 0.0)], 1), float)
        if self.kind in SYMMETRIC:
            unit = rng.integers(1, 1 + len(self.unit_rotations), n)
            return np.asarray(np.stack([unit, angle], 1), float)
        return np.stack([np.ones(n), angle if self.kind == "hinge" else np.zeros(n)], 1)

    def has_arm(self, state: np.ndarray) -> np.ndarray:
        """Whether the arm is there and turns in the states [n] of a mixed phantom, bool [n]; never in an
        assembly."""
        of_state = np.array([self.kind == "mixed" and 1 not in absent for _, absent in STATES[self.kind]])
        return np.asarray(of_state[np.asarray(state, int)])

    def grid(self, points: int = 25) -> Tuple[np.ndarray, np.ndarray]:
        """Coordinates that cover the family [G, 2] with their prior probabilities [G]."""
        angles = np.linspace(-self.angle_deg, self.angle_deg, points)
        if self.kind in STATES:
            rows = []
            for state, (population, _) in enumerate(STATES[self.kind]):
                if self.has_arm(np.array(state)):
                    rows += [(state, angle, population / points) for angle in angles]
                else:
                    rows.append((state, 0.0, population))
            table = np.array(rows)
            return table[:, :2], table[:, 2]
        if self.kind == "null":
            return np.array([[1.0, 0.0]]), np.ones(1)
        units = range(1, 1 + len(self.unit_rotations))
        coordinates = np.array([[unit, angle] for unit in units for angle in angles])
        return coordinates, np.full(len(coordinates), 1.0 / len(coordinates))


def make_phantom(kind: str, radius_angst: float, width_angst: float, angle_deg: float, seed: int) -> Phantom:
    """A lumpy pseudo-molecule of about `radius_angst` made of Gaussians of `width_angst`.

    hinge and null: a core with an arm; assembly: a core with four domains; mixed: a core with an arm and
    another domain; c3, d2: three or four arms around a core.
    """
    rng = np.random.default_rng(seed)
    r, spacing = radius_angst, LATTICE_SPACING * width_angst
    core = _ellipsoid((0, 0, -0.1 * r), (0.55 * r, 0.5 * r, 0.45 * r), spacing, rng)
    pivot, axis = np.array([0.2 * r, 0, 0.3 * r]), np.array([0.0, 1.0, 0.0])
    if kind in SYMMETRIC:
        core_unit, arm, matrices = _symmetric_unit(kind, core, r, spacing, rng)
        core = np.concatenate([core_unit @ matrix.T for matrix in matrices])
        domains = [arm @ matrix.T for matrix in matrices]
        pivot = np.array([0.5 * r, 0, 0.1 * r])
    elif kind == "assembly":
        directions = ((0.75, 0, 0.3), (-0.7, 0.3, 0.2), (0, -0.75, 0.1), (0.1, 0.6, -0.6))
        semi_axes = (0.26 * r, 0.22 * r, 0.2 * r)
        domains = [_ellipsoid(tuple(r * np.array(d)), semi_axes, spacing, rng) for d in directions]
        pivot, axis = np.zeros(3), np.array([0.0, 0.0, 1.0])
    else:
        domains = [_ellipsoid((0.3 * r, 0, 0.72 * r), (0.24 * r, 0.22 * r, 0.42 * r), spacing, rng)]
        if kind == "mixed":
            semi_axes = (0.26 * r, 0.22 * r, 0.24 * r)
            domains.append(_ellipsoid((-0.45 * r, 0.1 * r, 0.5 * r), semi_axes, spacing, rng))
    centers = np.concatenate([core, *domains])
    domain = np.concatenate([np.full(len(points), i) for i, points in enumerate([core, *domains])])
    amplitudes = rng.uniform(*AMPLITUDES, len(centers))
    if kind in SYMMETRIC:
        units = [rng.uniform(*AMPLITUDES, len(points)) for points in (core_unit, arm)]
        amplitudes = np.concatenate([np.tile(unit, len(matrices)) for unit in units])
    widths = np.full(len(centers), width_angst, np.float32)
    reference = Mixture(centers.astype(np.float32), amplitudes.astype(np.float32), widths)
    turns = kind in ("hinge", "mixed", *SYMMETRIC)
    return Phantom(kind, reference, domain, pivot, axis, angle_deg if turns else 0.0)


def _symmetric_unit(kind: str, core: np.ndarray, r: float, spacing: float,
                    rng: np.random.Generator) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the core [P, 3] what lies nearest to arm 1; that arm; and the matrices of the point group."""
    matrices, middle = symmetry_matrices(kind), np.array([0.72, 0, 0.45]) * r
    core_unit = core[np.argmax(core @ (matrices @ middle).T, axis=1) == 0]
    arm = _ellipsoid(tuple(middle), (0.2 * r, 0.2 * r, 0.4 * r), spacing, rng)
    return core_unit, arm, matrices


def _ellipsoid(middle: Tuple[float, ...], semi_axes: Tuple[float, ...], spacing: float,
               rng: np.random.Generator) -> np.ndarray:
    """Jittered lattice points of an ellipsoid with random holes, [n, 3] Å: texture that orientations can hold
    on to."""
    half = np.array(semi_axes, float)
    axes = [np.arange(-s, s + spacing, spacing) for s in half]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    lattice = lattice + rng.normal(0, 0.25 * spacing, lattice.shape)
    inside = np.sum((lattice / half) ** 2, axis=1) <= 1
    filled = inside & (rng.random(len(lattice)) < LATTICE_FILLING)
    return np.asarray(np.array(middle, float) + lattice[filled])
