import gzip
import re

import gemmi
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gmmhet.engine.gmm.atoms import (
    AtomsError,
    cluster_atoms,
    find_frame,
    gaussians_per_chain,
    map_corner,
    read_atoms,
)
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.io.volumes import write_map

PIXEL, BOX = 4.0, 32


def a_structure(chains=(("A", 60), ("B", 30)), seed=0):
    """A model of glycines strung along random walks around (70, 60, 50) Å, one walk a chain, with a water in
    the first chain."""
    rng = np.random.default_rng(seed)
    model = gemmi.Model(1)
    for number, (name, length) in enumerate(chains):
        chain, place = gemmi.Chain(name), np.array([70.0, 60, 50]) + [25 * number, 0, 0]
        for i in range(length):
            place = place + rng.normal(0, 2.5, 3)
            residue = gemmi.Residue()
            residue.name, residue.seqid = "GLY", gemmi.SeqId(str(10 + i))
            for j, element in enumerate(("N", "C", "O", "H")):
                atom = gemmi.Atom()
                atom.name, atom.element = element, gemmi.Element(element)
                atom.pos = gemmi.Position(*(place + rng.normal(0, 0.8, 3)))
                atom.occ = 0.5 if i == 0 and j == 0 else 1.0
                residue.add_atom(atom)
            chain.add_residue(residue)
        if not number:
            water = gemmi.Residue()
            water.name, water.seqid = "HOH", gemmi.SeqId("900")
            oxygen = gemmi.Atom()
            oxygen.name, oxygen.element, oxygen.pos = "O", gemmi.Element("O"), gemmi.Position(0, 0, 0)
            water.add_atom(oxygen)
            chain.add_residue(water)
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    return structure


@pytest.fixture
def pdb(tmp_path):
    path = tmp_path / "model.pdb"
    a_structure().write_pdb(str(path))
    return path


def same_atoms(a, b):
    np.testing.assert_allclose(a.positions, b.positions, atol=1.1e-3)
    np.testing.assert_allclose(a.masses, b.masses)
    assert a.chains.tolist() == b.chains.tolist() and a.residues.tolist() == b.residues.tolist()


def test_atoms_come_with_chain_residue_and_weight_times_occupancy_without_waters_and_hydrogens(pdb):
    atoms = read_atoms(str(pdb))
    assert len(atoms) == 3 * 90 and atoms.chains.tolist() == ["A"] * 180 + ["B"] * 90
    assert (atoms.residues.min(), atoms.residues.max()) == (10, 69)
    np.testing.assert_allclose(atoms.masses[:4], [7.00335, 12.011, 15.999, 14.0067], rtol=1e-4)


def test_pdb_and_mmcif_plain_and_compressed_give_the_same_atoms(pdb, tmp_path):
    a_structure().make_mmcif_document().write_file(str(tmp_path / "model.cif"))
    for name in ("model.pdb", "model.cif"):
        with gzip.open(str(tmp_path / name) + ".gz", "wb") as f:
            f.write((tmp_path / name).read_bytes())
    expected = read_atoms(str(pdb))
    for name in ("model.cif", "model.cif.gz", "model.pdb.gz"):
        same_atoms(read_atoms(str(tmp_path / name)), expected)


@pytest.mark.parametrize("name, content, says", [
    ("map.mrc", b"\0" * 2000, "map.mrc' holds no atoms: expected a PDB or mmCIF file"),
    ("x.pdb", b"hello\n", "x.pdb' is not a readable PDB or mmCIF file"),
    ("x.pdb.gz", b"no gzip", "x.pdb.gz' is not a readable PDB or mmCIF file"),
    ("x.cif", b"data_x\nloop_\n_atom_site.id\n1 2 'x\n", "x.cif"),
    ("empty.cif", b"", "empty.cif' is empty: expected a PDB or mmCIF file")])
def test_a_file_that_is_no_atomic_model_is_refused_by_name(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AtomsError, match=re.escape(says)):
        read_atoms(str(tmp_path / name))


def test_every_chain_gets_a_gaussian_and_the_rest_go_by_mass():
    shares = gaussians_per_chain(10, np.array([80.0, 20.0, 0.001]), np.array([1000, 1000, 1]))
    assert shares.tolist() == [7, 2, 1]
    assert gaussians_per_chain(100, np.array([50.0, 50.0]), np.array([10, 1000])).tolist() == [10, 50]


def test_clusters_keep_the_mass_and_its_middle_and_never_mix_chains(pdb):
    atoms = read_atoms(str(pdb))
    centers, masses, labels = cluster_atoms(atoms, 24, 1)
    assert len(centers) == len(masses) == len(labels) == 24 and labels.names() == ["A", "B"]
    for chain in "AB":
        ours = atoms.chains == chain
        assert masses[labels.chain == chain].sum() == pytest.approx(atoms.masses[ours].sum(), rel=1e-5)
    np.testing.assert_allclose(np.average(centers, axis=0, weights=masses),
                               np.average(atoms.positions, axis=0, weights=atoms.masses),
                               atol=1e-3)
    assert labels.residue_range("A") == (10, 69) and labels.residue_range("B") == (10, 39)
    assert labels.mass.sum() == pytest.approx(atoms.masses.sum(), rel=1e-5)


def test_every_gaussian_of_a_chain_is_in_one_half_of_its_residues_and_near_them(pdb):
    atoms = read_atoms(str(pdb))
    centers, _, labels = cluster_atoms(atoms, 30, 1)
    first, second = labels.within("A", 10, 39), labels.within("A", 40, 69)
    assert np.array_equal(first | second, labels.chain == "A") and not np.any(first & second)
    near = np.linalg.norm(centers[first][:, None]
                          - atoms.positions[(atoms.chains == "A") & (atoms.residues < 40)][None],
                          axis=-1).min(1)
    assert near.max() < 4


def test_a_folder_is_no_atomic_model(tmp_path):
    with pytest.raises(AtomsError, match="is a folder: expected a PDB or mmCIF file"):
        read_atoms(str(tmp_path))


def test_fewer_gaussians_than_chains_and_more_than_atoms_are_refused_with_the_range(pdb):
    for count in (1, 271):
        with pytest.raises(AtomsError,
                           match="%d Gaussians cannot stand for an atomic model of 2 chains with 270 atoms: "
                                 "give --n-gaussians "
                                             "from 2 to 270" % count):
            cluster_atoms(read_atoms(str(pdb)), count, 1)


def test_the_same_seed_gives_the_same_clusters(pdb):
    atoms = read_atoms(str(pdb))
    a, b, c = (cluster_atoms(atoms, 24, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


# ---- the frame

def a_map(atoms, corner):
    """The atoms' density in a box whose first voxel lies at `corner`, [z, y, x]."""
    centre = np.array(corner) + (BOX // 2) * PIXEL
    return render(Mixture(np.float32(atoms.positions - centre), np.float32(atoms.masses),
                          np.full(len(atoms), 4, np.float32)), BOX, PIXEL)


@pytest.mark.parametrize("corner, header, frame", [
    ([15, -5, -14], True, "the origin in the map's header"), ([10, 0, -10], False, "the box centre"),
    ([0, 0, 0], False, "the first voxel"),
    ([0, 0, 0], [500, 0, 0], "the first voxel")])
def test_the_frame_in_which_the_model_fits_the_map_is_found(pdb, corner, header, frame):
    atoms = read_atoms(str(pdb))
    middle = atoms.middle()
    given = atoms.translate(-np.array(corner) - (BOX // 2) * PIXEL) if frame == "the box centre" else atoms
    header = corner if header is True else (header or [0, 0, 0])
    found = find_frame(given, a_map(atoms, corner), PIXEL, 12.0, header, 1)
    assert found.name == frame and found.correlation == found.correlations[frame] > 0.9
    assert found.of_header == ("the origin in the map's header" if np.any(header) else "the first voxel")
    np.testing.assert_allclose(found.atoms.middle(), middle - corner - (BOX // 2) * PIXEL, atol=1e-6)


def test_a_model_outside_the_density_is_refused_with_correlations_places_and_the_likely_cause(pdb):
    atoms = read_atoms(str(pdb))
    with pytest.raises(AtomsError,
                       match=r"the atomic model does not lie in the map's density \(correlation .* when "
                             r"measured from .*\): "
                                         r"its middle is at \(\d+, \d+, \d+\) Å, the box centre at \(64, 64, "
                                         r"64\) Å\. Fit it into this map first, and check the origin"):
        find_frame(atoms.translate([-60, 60, 60]), a_map(atoms, [0, 0, 0]), PIXEL, 12.0, [0, 0, 0], 1)


def test_the_corner_of_a_map_is_its_origin_else_its_start_indices(tmp_path):
    import mrcfile
    path = str(tmp_path / "map.mrc")
    write_map(path, gaussian_filter(np.ones((8, 8, 8), np.float32), 1), PIXEL)
    assert map_corner(path).tolist() == [0, 0, 0]
    with mrcfile.open(path, "r+") as file:
        file.header.nxstart, file.header.nzstart = -3, 5
    np.testing.assert_allclose(map_corner(path), [-12, 0, 20])
    with mrcfile.open(path, "r+") as file:
        file.header.origin.y = 7.5
    np.testing.assert_allclose(map_corner(path), [0, 7.5, 0])
