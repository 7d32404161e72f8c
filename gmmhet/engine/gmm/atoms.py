"""Atomic models: PDB and mmCIF files to atoms, atoms to clusters with labels, and where the model lies in a map."""
import os
from dataclasses import dataclass

import gemmi
import mrcfile
import numpy as np

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.seeding import weighted_means

#: correlation of atoms and map below which a model is refused, or doubted
REFUSED, DOUBTED = 0.3, 0.6
#: chain name of atoms whose file leaves it blank
BLANK = "blank"


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

    def __len__(self):
        return len(self.positions)

    def moved(self, shift_angst):
        """The same atoms moved by [3] Å."""
        return Atoms(self.positions + shift_angst, self.masses, self.chains, self.residues)


def read_atoms(path):
    """Atoms of the first model of a PDB or mmCIF file, also compressed (.gz).

    Alternate locations count with their occupancies. Chains and residue numbers are the author's.

    Raises
    ------
    AtomsError
        when the file cannot be read or holds no atoms.
    """
    if os.path.isdir(path) or not os.path.getsize(path):
        raise AtomsError("atomic model '%s' is %s: expected a PDB or mmCIF file" % (path, "a folder" if os.path.isdir(path) else "empty"))
    try:
        structure = gemmi.read_structure(path, format=gemmi.CoorFormat.Detect)
    except (RuntimeError, ValueError, OSError) as error:
        raise AtomsError("atomic model '%s' is not a readable PDB or mmCIF file: %s" % (path, error)) from None
    found = []
    for chain in structure[0] if len(structure) else ():
        for residue in chain:
            if not residue.is_water():
                found += [((*atom.pos.tolist(), atom.element.weight * atom.occ), chain.name.strip() or BLANK, residue.seqid.num)
                          for atom in residue if not atom.is_hydrogen() and atom.occ > 0]
    if not found:
        raise AtomsError("atomic model '%s' holds no atoms: expected a PDB or mmCIF file" % path)
    numbers, chains, residues = zip(*found)
    table = np.array(numbers)
    if not np.isfinite(table).all():
        raise AtomsError("atomic model '%s' holds coordinates that are no numbers" % path)
    return Atoms(table[:, :3], table[:, 3], np.array(chains), np.array(residues, np.int32))


def share_out(count, masses, atoms):
    """How many of `count` Gaussians each chain gets: one, and the rest by mass (largest remainders).

    Parameters
    ----------
    count : int.
    masses : array [C], mass of each chain; atoms : int array [C], their number, which no share exceeds.
    """
    wanted = (count - len(masses)) * masses / masses.sum()
    shares = np.floor(wanted).astype(int)
    shares[np.argsort(shares - wanted)[:count - len(masses) - shares.sum()]] += 1
    return np.minimum(1 + shares, atoms)


def cluster_atoms(atoms, count, seed):
    """Mass-weighted k-means of the atoms of each chain, so that every Gaussian stands for residues of one chain.

    Returns
    -------
    centers : float32 [N, 3]; masses : float32 [N]; labels : Labels of N Gaussians.
        N is `count`, or less where a chain has fewer atoms than its share.

    Raises
    ------
    AtomsError
        when `count` is less than the number of chains or more than the number of atoms.
    """
    names, chain = np.unique(atoms.chains, return_inverse=True)
    if not len(names) <= count <= len(atoms):
        raise AtomsError("%d Gaussians cannot stand for an atomic model of %d chains with %d atoms: give --n-gaussians from %d to %d" % (
            count, len(names), len(atoms), len(names), len(atoms)))
    shares = share_out(count, np.bincount(chain, atoms.masses), np.bincount(chain))
    member = np.zeros(len(atoms), int)
    for number, share in enumerate(shares):
        rows = np.flatnonzero(chain == number)
        start = np.random.default_rng([seed, number]).choice(rows, share, replace=False)
        member[rows] = shares[:number].sum() + weighted_means(atoms.positions[rows], atoms.masses[rows], atoms.positions[start])[1]
    _, member = np.unique(member, return_inverse=True)
    total = np.bincount(member, atoms.masses)
    centers = np.stack([np.bincount(member, atoms.masses * axis) for axis in atoms.positions.T], 1) / total[:, None]
    return centers.astype(np.float32), total.astype(np.float32), _labels(atoms, chain, names, member)


def _labels(atoms, chain, names, member):
    """Labels of clusters; `chain` [A] indexes `names`, `member` [A] is each atom's cluster."""
    owner = np.zeros(member.max() + 1, int)
    owner[member] = chain
    entries, place = np.unique(np.stack([member, atoms.residues], 1), axis=0, return_inverse=True)
    mass = np.bincount(place.ravel(), atoms.masses).astype(np.float32)
    return Labels(names[owner], entries[:, 0].astype(np.int32), entries[:, 1].astype(np.int32), mass)


def map_corner(path):
    """Where a map's header puts the centre of its first voxel, x, y, z in Å: the origin, else the start indices (MRC words 50-52, 5-7)."""
    with mrcfile.open(path, permissive=True, header_only=True) as file:
        header, voxel = file.header, file.voxel_size
        origin = np.array([header.origin.x, header.origin.y, header.origin.z], float)
        start = np.array([header.nxstart * voxel.x, header.nystart * voxel.y, header.nzstart * voxel.z], float)
    return origin if np.any(origin) else start


def correlation(centers, masses, width_angst, smooth, pixel_size):
    """Correlation of a smoothed map [L, L, L] with Gaussians of one width at centres [N, 3] Å from the box centre."""
    model = render(Mixture(centers, masses, np.full(len(centers), width_angst, np.float32)), smooth.shape[0], pixel_size)
    return float(np.corrcoef(model.ravel(), smooth.ravel())[0, 1]) if model.any() else 0.0


def find_frame(atoms, smooth, pixel_size, resolution_angst, corner_angst, seed):
    """Where an atomic model lies in a map: in the frame that the map's header gives, or, when it fits better, in another usual one.

    Parameters
    ----------
    smooth : [L, L, L], the map smoothed to `resolution_angst`.
    corner_angst : [3], where the header puts the first voxel (see `map_corner`).

    Returns
    -------
    atoms : Atoms in Å from the box centre.
    found : dict, what coordinates may be measured from to the correlation with the map; the frame that was taken comes first.
    expected : str, the frame that the header gives.

    Raises
    ------
    AtomsError
        when the model overlaps the map's density in no frame.
    """
    centre = (smooth.shape[0] // 2) * pixel_size
    shifts = {"the origin in the map's header": -(np.asarray(corner_angst) + centre)} if np.any(corner_angst) else {}
    shifts.update({"the first voxel": np.full(3, -centre), "the box centre": np.zeros(3)})
    expected = next(iter(shifts))
    count = min(len(atoms), max(len(np.unique(atoms.chains)), 1000))
    centers, masses, _ = cluster_atoms(atoms, count, seed)
    found = {name: correlation(centers + np.float32(shift), masses, resolution_angst / 3, smooth, pixel_size)
             for name, shift in shifts.items()}
    found = dict(sorted(found.items(), key=lambda item: -item[1] - (0.1 if item[0] == expected else 0.0)))
    best = next(iter(found))
    if found[best] < REFUSED:
        middle = np.average(atoms.positions, axis=0, weights=atoms.masses)
        raise AtomsError("the atomic model does not lie in the map's density (%s): its middle is at %s Å, the box centre at %s Å. Fit it "
                         "into this map first, and check the origin in the map's header and the map's hand" % (
                             describe(found), _place(middle), _place(-shifts[expected])))
    return atoms.moved(shifts[best]), found, expected


def describe(found):
    """The correlations that `find_frame` found, as text."""
    return "; ".join("correlation %.2f when measured from %s" % (value, name) for name, value in found.items())


def _place(point):
    return "(%s)" % ", ".join("%.0f" % value for value in point)
