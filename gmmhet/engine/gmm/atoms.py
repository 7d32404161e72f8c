"""Atomic models: PDB and mmCIF files to atoms, atoms to clusters with labels, and where the model lies in a
map."""
import os
from dataclasses import dataclass
from typing import Any, Dict, List, NamedTuple, Tuple

import gemmi
import mrcfile
import numpy as np

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.seeding import weighted_means

#: correlation of atoms and map below which an atomic model is refused, and below which it is doubted
LEAST_CORRELATION, DOUBTFUL_CORRELATION = 0.3, 0.6
#: chain name of atoms whose file leaves it blank
UNNAMED_CHAIN = "blank"
#: so many Gaussians stand for the atoms while their frame is sought
FRAME_GAUSSIANS = 1000
#: by so much another frame must fit better than the one that the header gives
HEADER_BONUS = 0.1


class AtomsError(ValueError):
    """An atomic model cannot be read or does not lie in the map; the message says why and what to do."""


@dataclass(frozen=True)
class Atoms:
    """Atoms of a model, without hydrogens and waters.

    Attributes
    ----------
    positions : float64 [A, 3], x, y, z in Å.
    masses : float64 [A], atomic weight times occupancy.
    chains : str array [A], the author's chain names.
    residues : int array [A], the author's residue numbers.
    """

    positions: np.ndarray
    masses: np.ndarray
    chains: np.ndarray
    residues: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def translate(self, shift_angst: Any) -> "Atoms":
        """The same atoms moved by [3] Å."""
        return Atoms(self.positions + shift_angst, self.masses, self.chains, self.residues)

    def middle(self) -> np.ndarray:
        """Centre of mass [3], Å."""
        return np.asarray(np.average(self.positions, axis=0, weights=self.masses))


def read_atoms(path: str) -> Atoms:
    """Atoms of the first model of a PDB or mmCIF file, also compressed (.gz).

    Alternate locations count with their occupancies. Chains and residue numbers are the author's.

    Raises
    ------
    AtomsError
        when the file cannot be read or holds no atoms.
    """
    if os.path.isdir(path) or not os.path.getsize(path):
        raise AtomsError("atomic model '%s' is %s: expected a PDB or mmCIF file" % (
            path, "a folder" if os.path.isdir(path) else "empty"))
    try:
        structure = gemmi.read_structure(path, format=gemmi.CoorFormat.Detect)
    except (RuntimeError, ValueError, OSError) as error:
        raise AtomsError("atomic model '%s' is not a readable PDB or mmCIF file: %s" % (
            path, error)) from None
    rows = _atom_rows(structure)
    if not rows:
        raise AtomsError("atomic model '%s' holds no atoms: expected a PDB or mmCIF file" % path)
    numbers, chains, residues = zip(*rows)
    table = np.array(numbers)                                               # [A, 4]: x, y, z, mass
    if not np.isfinite(table).all():
        raise AtomsError("atomic model '%s' holds coordinates that are no numbers" % path)
    return Atoms(table[:, :3], table[:, 3], np.array(chains), np.array(residues, np.int32))


def _atom_rows(structure: Any) -> List[Tuple[Tuple[float, ...], str, int]]:
    """Of each atom of the first model: x, y, z and mass; chain name; residue number."""
    rows: List[Tuple[Tuple[float, ...], str, int]] = []
    for chain in structure[0] if len(structure) else ():
        name = chain.name.strip() or UNNAMED_CHAIN
        for residue in chain:
            if not residue.is_water():
                rows += [((*atom.pos.tolist(), atom.element.weight * atom.occ), name, residue.seqid.num)
                         for atom in residue if not atom.is_hydrogen() and atom.occ > 0]
    return rows


def gaussians_per_chain(count: int, masses: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """How many of `count` Gaussians each chain gets: one, and the rest by mass (largest remainders).

    Parameters
    ----------
    count : int, at least the number of chains C.
    masses : array [C], mass of each chain.
    atoms : int array [C], atoms of each chain, which its number of Gaussians does not exceed.

    Returns
    -------
    int array [C].
    """
    by_mass = (count - len(masses)) * masses / masses.sum()
    shares = np.floor(by_mass).astype(int)
    shares[np.argsort(shares - by_mass)[:count - len(masses) - shares.sum()]] += 1
    return np.minimum(1 + shares, atoms)


class AtomClusters(NamedTuple):
    """Clusters of atoms, each for one Gaussian: centres of mass float32 [N, 3] Å, masses float32 [N], Labels
    of N."""

    centers: np.ndarray
    masses: np.ndarray
    labels: Labels


def cluster_atoms(atoms: Atoms, count: int, seed: int) -> AtomClusters:
    """Mass-weighted k-means of the atoms of each chain, so that every Gaussian stands for residues of one
    chain.

    Returns
    -------
    AtomClusters of N Gaussians: `count`, or less where a chain has fewer atoms than its share.

    Raises
    ------
    AtomsError
        when `count` is less than the number of chains or more than the number of atoms.
    """
    names, chain = np.unique(atoms.chains, return_inverse=True)
    if not len(names) <= count <= len(atoms):
        raise AtomsError("%d Gaussians cannot stand for an atomic model of %d chains with %d atoms: give "
                         "--n-gaussians from %d to %d" % (
                             count, len(names), len(atoms), len(names), len(atoms)))
    shares = gaussians_per_chain(count, np.bincount(chain, atoms.masses), np.bincount(chain))
    member = np.zeros(len(atoms), int)
    for number, share in enumerate(shares):
        rows = np.flatnonzero(chain == number)
        start = np.random.default_rng([seed, number]).choice(rows, share, replace=False)
        _, in_chain = weighted_means(atoms.positions[rows], atoms.masses[rows], atoms.positions[start])
        member[rows] = shares[:number].sum() + in_chain
    _, member = np.unique(member, return_inverse=True)
    total = np.bincount(member, atoms.masses)
    moments = np.stack([np.bincount(member, atoms.masses * axis) for axis in atoms.positions.T], 1)
    centers = (moments / total[:, None]).astype(np.float32)
    return AtomClusters(centers, total.astype(np.float32), _labels(atoms, chain, names, member))


def _labels(atoms: Atoms, chain: np.ndarray, names: np.ndarray, member: np.ndarray) -> Labels:
    """Labels of clusters; `chain` [A] indexes `names`, `member` [A] is each atom's cluster."""
    chain_of_cluster = np.zeros(member.max() + 1, int)
    chain_of_cluster[member] = chain
    entries, entry = np.unique(np.stack([member, atoms.residues], 1), axis=0, return_inverse=True)
    mass = np.bincount(entry.ravel(), atoms.masses).astype(np.float32)
    cluster, residue = entries.astype(np.int32).T
    return Labels(names[chain_of_cluster], cluster, residue, mass)


def map_corner(path: str) -> np.ndarray:
    """Where a map's header puts the centre of its first voxel, x, y, z in Å: the origin, else the start
    indices (MRC words 50-52, 5-7)."""
    with mrcfile.open(path, permissive=True, header_only=True) as file:
        header: Any = file.header
        voxel: Any = file.voxel_size
        origin = np.array([header.origin.x, header.origin.y, header.origin.z], float)
        start = np.array([header.nxstart, header.nystart, header.nzstart], float)
        spacing = np.array([voxel.x, voxel.y, voxel.z], float)
    return origin if np.any(origin) else start * spacing


def correlation(centers: np.ndarray, masses: np.ndarray, width_angst: float, smooth: np.ndarray,
                pixel_size: float) -> float:
    """Correlation of a smoothed map [L, L, L] with Gaussians of one width at centres [N, 3] Å from the box
    centre."""
    mixture = Mixture(centers, masses, np.full(len(centers), width_angst, np.float32))
    model = render(mixture, smooth.shape[0], pixel_size)
    return float(np.corrcoef(model.ravel(), smooth.ravel())[0, 1]) if model.any() else 0.0


class Frame(NamedTuple):
    """Where an atomic model lies in a map.

    Attributes
    ----------
    atoms : Atoms in Å from the box centre.
    correlations : what coordinates may be measured from, to the correlation with the map; the frame that was
        taken comes first.
    of_header : the frame that the map's header gives.
    """

    atoms: Atoms
    correlations: Dict[str, float]
    of_header: str

    @property
    def name(self) -> str:
        """What the coordinates are measured from."""
        return next(iter(self.correlations))

    @property
    def correlation(self) -> float:
        """Correlation of atoms and map."""
        return self.correlations[self.name]


def find_frame(atoms: Atoms, smooth: np.ndarray, pixel_size: float, resolution_angst: float,
               corner_angst: np.ndarray, seed: int) -> Frame:
    """Where an atomic model lies in a map: in the frame that the map's header gives, or, when it fits better,
    in another usual one.

    Parameters
    ----------
    atoms : Atoms, in Å as their file has them.
    smooth : [L, L, L], the map smoothed to `resolution_angst`.
    pixel_size : float, Å/px.
    resolution_angst : float.
    corner_angst : [3], where the header puts the first voxel (see `map_corner`).
    seed : int, of the clusters that stand for the atoms.

    Raises
    ------
    AtomsError
        when the model overlaps the map's density in no frame.
    """
    centre = (smooth.shape[0] // 2) * pixel_size
    shifts = {"the first voxel": np.full(3, -centre), "the box centre": np.zeros(3)}
    if np.any(corner_angst):
        shifts = {"the origin in the map's header": -(np.asarray(corner_angst) + centre), **shifts}
    of_header = next(iter(shifts))
    count = min(len(atoms), max(len(np.unique(atoms.chains)), FRAME_GAUSSIANS))
    centers, masses, _ = cluster_atoms(atoms, count, seed)
    width_angst = resolution_angst / 3
    correlations = {name: correlation(centers + np.float32(shift), masses, width_angst, smooth, pixel_size)
                    for name, shift in shifts.items()}

    def rank(name: str) -> float:
        return -correlations[name] - (HEADER_BONUS if name == of_header else 0.0)
    correlations = {name: correlations[name] for name in sorted(correlations, key=rank)}
    frame = Frame(atoms.translate(shifts[next(iter(correlations))]), correlations, of_header)
    if frame.correlation < LEAST_CORRELATION:
        raise AtomsError("the atomic model does not lie in the map's density (%s): its middle is at %s Å, "
                         "the box centre at %s Å. Fit it into this map first, and check the origin in the "
                         "map's header and the map's hand" % (
                             describe_frames(correlations), _point_text(atoms.middle()),
                             _point_text(-shifts[of_header])))
    return frame


def describe_frames(correlations: Dict[str, float]) -> str:
    """The correlations of `Frame`, as text."""
    return "; ".join("correlation %.2f when measured from %s" % (value, name)
                     for name, value in correlations.items())


def _point_text(point: np.ndarray) -> str:
    return "(%s)" % ", ".join("%.0f" % value for value in point)
