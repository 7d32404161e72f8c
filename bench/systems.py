"""Systems with known heterogeneity, made of atomic models: one Gaussian a residue, domains that turn, parts
that can be absent.

A `System` answers what `gmmhet.engine.simulate` asks of a phantom (`at`, `draw`, `grid`, `reference`),
for any number of states and movers; `Family` is what it shares with systems of real density (density.py).
"""
import glob
import os
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gmmhet.engine.gmm.atoms import Atoms, read_atoms
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.imaging.projection import project_mixture
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES

#: standard deviation (Å) of one atom's density
ATOM_WIDTH_ANGST = 1.0
#: largest turn to either side: Fab of an IgG, each of two Fabs, central protuberance (8° from end to end),
#: variable domain of a spike's unit
FAB_DEG, TWO_FABS_DEG, TILT_DEG, UNIT_DEG = 25.0, 20.0, 4.0, 25.0
#: last residue of an IgG's Fab in chains H and K (1HZH), and of its variable domains in the light and heavy
#: chains
HINGE, VARIABLE_LIGHT, VARIABLE_HEAVY = 230, 107, 113
#: share of the 50S's mass in each part that can be absent
PART_SHARE = 0.07
#: angles at which a mover is laid out to see where it can be
SWEEP = 9
#: voxels this near to a moving atom are inside its region; soft edge beyond
REGION_ANGST, EDGE_PX = 8.0, 3.0
#: finest voxel at which maps of mixtures are drawn
FINE_ANGST = 2.0
NAMES = ("igg", "assembly", "mixed", "domains", "c3", "d3")


@dataclass(frozen=True)
class Mover:
    """A domain that turns: members bool [N], pivot [3] Å, axis [3] (unit vector), largest angle to either
    side in degrees."""

    members: np.ndarray
    pivot: np.ndarray
    axis: np.ndarray
    angle_deg: float

    def turn(self, angle_deg):
        """Rotation matrix [3, 3] of one angle, or [n, 3, 3] of angles [n]."""
        return Rotation.from_rotvec(np.radians(np.multiply.outer(angle_deg, self.axis))).as_matrix()

    def turned(self, points, angle_deg):
        """Points [P, 3] of the domain after a turn by one angle, or by one each."""
        vectors = np.radians(np.atleast_1d(angle_deg))[:, None] * self.axis
        return Rotation.from_rotvec(vectors if np.ndim(angle_deg)
                                    else vectors[0]).apply(points - self.pivot) + self.pivot


@dataclass(frozen=True)
class State:
    """A share of the particles: its population, what it lacks (bool [N]), and the numbers (from 0) of the
    movers that turn in it."""

    population: float
    absent: np.ndarray
    moves: tuple = ()


class Family:
    """What particles are of: states, some of whose parts are absent, and movers that turn in them; a
    coordinate is (state, angle of mover 0, angle of mover 1, ...), angles in degrees.

    A subclass has name, movers (tuple of `Mover`), states (tuple of `State`, populations sum to 1), symmetry
    at rest, `size`, the number of things (Gaussians, maps) that movers and states name, and says what these
    are.
    """

    symmetry = "c1"

    def drawn(self, chosen, mover, angle_deg):
        """What is chosen of the things, bool [size], after a turn by the mover (from 0; None for none):
        something that `project` takes."""
        raise NotImplementedError

    def project(self, part, pose, grid):
        """Transforms of something `drawn`, as `project_mixture` gives them."""
        return project_mixture(part, pose, grid)

    def volume(self, chosen, box, pixel_size):
        """Density of what is chosen of the things at rest, [L, L, L]."""
        raise NotImplementedError

    def true_map(self, coordinate, box, pixel_size):
        """Density at a coordinate, [L, L, L]."""
        raise NotImplementedError

    def points(self, mover):
        """Points that stand for a mover at rest, [P, 3] Å, and their weights [P]."""
        raise NotImplementedError

    def owners(self, centers):
        """What each Gaussian of a neutral model stands for: 0 what is at rest, j the mover j - 1. Int [N]."""
        raise NotImplementedError

    def region_mask(self, box, pixel_size):
        """Soft mask of where anything can move or be absent, [L, L, L]."""
        raise NotImplementedError

    def draw(self, n, rng):
        """Random coordinates [n, 1 + movers]: states by population, angles uniform."""
        state = rng.choice(len(self.states), n, p=[s.population for s in self.states])
        angles = [rng.uniform(-m.angle_deg, m.angle_deg,
                              n) * np.array([j in s.moves for s in self.states])[state]
                  for j, m in enumerate(self.movers)]
        return np.stack([state, *angles], 1).astype(float)

    def grid(self, points=25):
        """Coordinates that cover the family [G, 1 + movers], `points` angles a mover, with their prior
        probabilities [G]."""
        rows, prior = [], []
        for number, state in enumerate(self.states):
            axes = [np.linspace(-m.angle_deg, m.angle_deg, points) if j in state.moves else np.zeros(1)
                    for j, m in enumerate(self.movers)]
            angles = np.stack(np.meshgrid(*axes, indexing="ij"),
                              -1).reshape(-1, len(axes)) if axes else np.zeros((1, 0))
            rows.append(np.insert(angles, 0, number, axis=1))
            prior.append(np.full(len(angles), state.population / len(angles)))
        return np.concatenate(rows), np.concatenate(prior)

    def components(self, coordinates):
        """What is seen at a grid [G, 1 + movers] as sums of few: list of P parts, each `drawn`, and which of
        them each row holds, bool [G, P]."""
        owner = np.zeros(self.size, int)
        for j, mover in enumerate(self.movers, 1):
            owner[mover.members] = j
        absent = np.stack([s.absent for s in self.states], 1)
        patterns, group = np.unique(np.insert(absent.astype(int), 0, owner, axis=1), axis=0,
                                    return_inverse=True)
        parts, uses = [], []
        for number, (j, *lacking) in enumerate(patterns):
            chosen, present = group.reshape(-1) == number, ~np.array(lacking,
                                                                     bool)[coordinates[:, 0].astype(int)]
            for angle in np.unique(coordinates[:, j]) if j else (0.0,):
                parts.append(self.drawn(chosen, j - 1 if j else None, angle))
                uses.append(present & (coordinates[:, j] == angle) if j else present)
        return parts, np.stack(uses, 1)


@dataclass(frozen=True)
class System(Family):
    """A family of mixtures.

    Attributes
    ----------
    name : str.
    reference : Mixture, with everything present; its Gaussians are what movers and states name.
    movers : tuple of Mover.
    states : tuple of State; populations sum to 1.
    symmetry : str, of the mixture at rest.
    """

    name: str
    reference: Mixture
    movers: tuple
    states: tuple
    symmetry: str = "c1"

    @property
    def size(self):
        """Number of Gaussians."""
        return len(self.reference)

    def at(self, coordinate):
        """The mixture at a coordinate."""
        centers = self.reference.centers.copy()
        for mover, angle in zip(self.movers, coordinate[1:]):
            if angle:
                centers[mover.members] = mover.turned(centers[mover.members], float(angle))
        absent = self.states[int(coordinate[0])].absent
        return Mixture(
            centers.astype(np.float32),
            np.where(absent, 0, self.reference.amplitudes).astype(np.float32),
            self.reference.widths,
        )

    def drawn(self, chosen, mover, angle_deg):
        """A mixture (see `Family`)."""
        coordinate = np.zeros(1 + len(self.movers))
        if mover is not None:
            coordinate[1 + mover] = angle_deg
        return self.null().at(coordinate).select(chosen)

    def volume(self, chosen, box, pixel_size):
        """As `Family.volume`, free of aliasing."""
        return sampled(self.reference.select(chosen), box, pixel_size)

    def true_map(self, coordinate, box, pixel_size):
        """As `Family.true_map`, free of aliasing."""
        return sampled(self.at(coordinate), box, pixel_size)

    def points(self, mover):
        """Every fifth Gaussian, by its amplitude."""
        members = self.movers[mover].members
        return self.reference.centers[members][::5], self.reference.amplitudes[members][::5]

    def swept(self, mover):
        """Where the atoms of a mover can be, [SWEEP * P, 3]."""
        points = self.reference.centers[mover.members]
        return np.concatenate([mover.turned(points, a)
                               for a in np.linspace(-mover.angle_deg, mover.angle_deg, SWEEP)])

    def owners(self, centers):
        """By the nearest atom at any angle (see `Family`)."""
        if not self.movers:
            return np.zeros(len(centers), int)
        still = ~np.any([m.members for m in self.movers], axis=0)
        sets = [self.reference.centers[still]] + [self.swept(m) for m in self.movers]
        return np.argmin([cKDTree(points).query(centers)[0] for points in sets], axis=0)

    def region_mask(self, box, pixel_size):
        """As `Family.region_mask`."""
        absent = np.any([s.absent for s in self.states], axis=0)
        points = np.concatenate([self.reference.centers[absent]] + [self.swept(m) for m in self.movers])
        axis = (np.arange(box) - box // 2) * pixel_size
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        beyond = (cKDTree(points).query(np.stack([x, y, z], -1).reshape(-1, 3))[0]
                  - REGION_ANGST) / (EDGE_PX * pixel_size)
        return (0.5 + 0.5 * np.cos(np.pi * np.clip(beyond, 0, 1))).reshape(box, box, box).astype(np.float32)

    def null(self):
        """The same at rest, with everything present, in every particle."""
        return replace(
            self, name=self.name + " null", states=(State(1.0, np.zeros(len(self.reference), bool)),)
        )

    def over(self, sigma):
        """The system with its density over sigma."""
        base = replace(self.reference, amplitudes=np.float32(self.reference.amplitudes / sigma))
        return replace(self, reference=base)


def sampled(mixture, box, pixel_size):
    """Density of a mixture, free of aliasing: drawn finely and cropped in Fourier space, [L, L, L]."""
    times = int(np.ceil(pixel_size / FINE_ANGST))
    fine = render(mixture, box * times, pixel_size / times)
    kept = np.r_[0:box - box // 2, -(box // 2):0]
    whole = fft.fftn(fft.ifftshift(fine),
                     workers=-1)[np.ix_(kept, kept, kept)] / times**2     # render counts mass per pixel area
    return fft.fftshift(fft.ifftn(whole).real).astype(np.float32)


def make(name, folder):
    """One of NAMES from the atomic models in `folder`."""
    return {"igg": igg, "assembly": assembly, "mixed": mixed, "domains": domains, "c3": spike,
            "d3": barrel}[name](folder)


def by_residue(atoms):
    """One Gaussian per residue: mass, centre of mass, and the width of the residue's second moment. Mixture,
    and chain and residue [N]."""
    names, chain = np.unique(atoms.chains, return_inverse=True)
    keys, group = np.unique(np.stack([chain.reshape(-1), atoms.residues], 1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    mass = np.bincount(group, atoms.masses)

    def mean(values):
        return np.bincount(group, atoms.masses * values) / mass
    centers = np.stack([mean(axis) for axis in atoms.positions.T], 1)
    spread = mean(np.sum((atoms.positions - centers[group]) ** 2, 1)) / 3
    mixture = Mixture(np.float32(centers), np.float32(mass / 100),
                      np.float32(np.sqrt(spread + ATOM_WIDTH_ANGST**2)))
    return mixture, names[keys[:, 0]], keys[:, 1]


def read_centred(folder, *patterns):
    """Atoms of files, their centre of mass at the origin; a chain is named after its file and itself."""
    paths = sorted(path for pattern in patterns for path in glob.glob(os.path.join(folder, pattern)))
    if not paths:
        raise FileNotFoundError("--data %s holds no %s: give the folder of the atomic models"
                                % (folder, " and no ".join(patterns)))
    found = [read_atoms(path) for path in paths]
    chains = [np.char.add(os.path.basename(path).split(".")[0] + ":", atoms.chains)
              for path, atoms in zip(paths, found)]
    atoms = Atoms(np.concatenate([a.positions for a in found]), np.concatenate([a.masses for a in found]),
                  np.concatenate(chains), np.concatenate([a.residues for a in found]))
    return atoms.translate(-np.average(atoms.positions, axis=0, weights=atoms.masses))


def _middle(mixture, members):
    """Centre of mass of some Gaussians, [3]."""
    return np.average(mixture.centers[members].astype(float), axis=0, weights=mixture.amplitudes[members])


def _unit(vector):
    return vector / np.linalg.norm(vector)


def _whole(base):
    return np.zeros(len(base), bool)


def _antibody(folder):
    """The IgG by residue: Mixture, chain and residue [N], and the members of both Fabs and of both hinges,
    each bool [N]."""
    base, chain, residue = by_residue(read_centred(folder, "1hzh.pdb.gz"))
    chain = np.char.rpartition(chain, ":")[:, 2]
    fabs = [(chain == light) | ((chain == heavy) & (residue <= HINGE)) for light, heavy in ("LH", "MK")]
    hinges = [(chain == heavy) & (np.abs(residue - HINGE) <= 4) for heavy in "HK"]
    return base, chain, residue, fabs, hinges


def _fab(base, fab, hinge, rest, angle_deg):
    """A Fab that swings out of the plane of itself, its hinge and the `rest`."""
    pivot = _middle(base, hinge)
    arm, stem = _middle(base, fab) - pivot, _middle(base, rest) - pivot
    return Mover(fab, pivot, _unit(np.cross(arm, np.cross(arm, stem))), angle_deg)


def igg(folder):
    """An IgG with one Fab that turns about the hinge."""
    base, _, _, fabs, hinges = _antibody(folder)
    fc = ~fabs[0] & ~fabs[1]
    return System("igg", base, (_fab(base, fabs[0], hinges[0], fc, FAB_DEG),),
                  (State(1.0, _whole(base), (0,)),))


def domains(folder):
    """An IgG with both Fabs turning, each by its own angle."""
    base, _, _, fabs, hinges = _antibody(folder)
    fc = ~fabs[0] & ~fabs[1]
    movers = tuple(_fab(base, fab, hinge, fc, TWO_FABS_DEG) for fab, hinge in zip(fabs, hinges))
    return System("domains", base, movers, (State(1.0, _whole(base), (0, 1)),))


def spike(folder):
    """Three units about an axis, each a Fab that stands on an Fc; in each particle one unit's variable domain
    turns to the axis and away."""
    base, fab, fc, variable, elbow, standing = _standing_fab(folder)
    top = standing + [34.0, 0.0, 10.0]
    long_axis = np.linalg.svd(base.centers[fc] - base.centers[fc].mean(0), full_matrices=False)[2][0]
    stalk = _standing(base.centers, long_axis).apply(base.centers - _middle(base, fc)) + [26.0, 0.0, -45.0]
    unit = np.where(fc[:, None], stalk, top)
    return _multimer("c3", Mixture(np.float32(unit), base.amplitudes, base.widths), fab | fc, variable,
                     unit[elbow].mean(0))


def barrel(folder):
    """Six Fabs in two rings of three that stand foot to foot; in each particle one Fab's variable domain
    turns to the axis and away."""
    base, fab, _, variable, elbow, standing = _standing_fab(folder)
    unit = standing + [34.0, 0.0, 24.0]
    return _multimer("d3", Mixture(np.float32(unit), base.amplitudes, base.widths), fab, variable,
                     unit[elbow].mean(0))


def _standing_fab(folder):
    """The IgG by residue: Mixture, members of a Fab, the Fc, that Fab's variable domains and elbow, each bool
    [N], and the centres when this Fab stands on its constant domains, whose middle is the origin, [N, 3]."""
    base, chain, residue, fabs, _ = _antibody(folder)
    variable = fabs[0] & (((chain == "L") & (residue <= VARIABLE_LIGHT))
                          | ((chain == "H") & (residue <= VARIABLE_HEAVY)))
    constant, fc = fabs[0] & ~variable, ~fabs[0] & ~fabs[1]
    elbow = fabs[0] & (((chain == "L") & (np.abs(residue - VARIABLE_LIGHT) <= 2)) |
                       ((chain == "H") & (np.abs(residue - VARIABLE_HEAVY) <= 2)))
    upright = _standing(base.centers, _middle(base, variable) - _middle(base, constant))
    return base, fabs[0], fc, variable, elbow, upright.apply(base.centers - _middle(base, constant))


def _multimer(group, unit, kept, variable, pivot):
    """Copies of what is kept (bool [N]) of a unit by the point group, of which one turns its variable domain
    in each particle."""
    turns = symmetry_matrices(group)
    copies = len(turns)
    centers = np.concatenate([unit.centers[kept] @ turn.T for turn in turns])
    whole = Mixture(np.float32(centers), np.tile(unit.amplitudes[kept], copies),
                    np.tile(unit.widths[kept], copies))
    number, moving = np.arange(copies).repeat(kept.sum()), np.tile(variable[kept], copies)
    movers = tuple(Mover((number == j) & moving, turn @ pivot, turn @ [0.0, 1.0, 0.0], UNIT_DEG)
                   for j, turn in enumerate(turns))
    return System(group, whole, movers,
                  tuple(State(1 / copies, _whole(whole), (j,)) for j in range(copies)), group)


def _standing(centers, direction):
    """The rotation that takes a direction to z."""
    side = np.cross(direction, [1.0, 0.0, 0.0])
    return Rotation.align_vectors([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
                                  np.stack([_unit(direction), _unit(side)]))[0]


def ribosome_parts(base, chain):
    """Four parts of the 50S that can be absent: part [N], 0 for what always stays, 1 the central
    protuberance.

    Part 1 is the chains around the 5S RNA; each further one those around the chain that lies furthest from
    the parts before. A part takes chains, nearest first, until it has PART_SHARE of the mass.
    """
    names, member = np.unique(chain, return_inverse=True)
    member = member.reshape(-1)
    mass = np.bincount(member, base.amplitudes)
    middle = np.stack([np.bincount(member, base.amplitudes * axis) for axis in base.centers.T],
                      1) / mass[:, None]
    is_5s = np.char.startswith(names, "RNA_5S:")
    mark, marks, part = np.average(middle[is_5s], axis=0, weights=mass[is_5s]), [], np.zeros(len(names), int)
    for number in range(1, 5):
        marks.append(mark)
        free = np.flatnonzero(part == 0)
        nearest = free[np.argsort(np.linalg.norm(middle[free] - mark, axis=1))]
        before = np.cumsum(mass[nearest]) - mass[nearest]
        part[nearest[before < PART_SHARE * mass.sum()]] = number
        mark = middle[np.argmax(np.min(np.linalg.norm(middle[:, None] - np.array(marks), axis=-1), axis=1))]
    return part[member]


def assembly(folder):
    """The 50S in five states of unequal population, each without some of four parts."""
    base, chain, _ = by_residue(read_centred(folder, "RNA*.pdb.gz", "prots*.pdb.gz"))
    part = ribosome_parts(base, chain)
    return System("assembly", base, (),
                  tuple(State(p, np.isin(part, absent)) for p, absent in ASSEMBLY_STATES))


def mixed(folder):
    """The same, and the central protuberance tilts in the particles that have it."""
    whole = assembly(folder)
    base, protuberance = whole.reference, ~np.stack([s.absent
                                                for s in whole.states]).all(0) & whole.states[1].absent
    up = _unit(_middle(base, protuberance))
    height = base.centers @ up
    pivot = base.centers[protuberance & (height <= np.percentile(height[protuberance], 15))].mean(0)
    mover = Mover(protuberance, pivot, _unit(np.cross(up, [0.0, 1.0, 0.0])), TILT_DEG)
    states = tuple(replace(s, moves=() if s.absent[protuberance].any() else (0,)) for s in whole.states)
    return System("mixed", base, (mover,), states)
