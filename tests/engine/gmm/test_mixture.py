import numpy as np
import pytest
import reference

from gmmhet.engine.gmm.labels import Labels
from gmmhet.engine.gmm.mixture import Mixture, render, write_cif, write_cif_models


def mixture(count=9, seed=0):
    rng = np.random.default_rng(seed)
    return Mixture(rng.normal(0, 8, (count, 3)).astype(np.float32),
                   rng.uniform(0.5, 2, count).astype(np.float32),
                   rng.uniform(4, 6, count).astype(np.float32))


def atoms(path):
    """The _atom_site loop of an mmCIF file, as a list of dicts."""
    lines = open(path).read().splitlines()
    assert lines[0].startswith("data_") and "loop_" in lines
    names = [line.split(".")[1] for line in lines if line.startswith("_atom_site.")]
    rows = [line.split() for line in lines if line.startswith("HETATM")]
    assert all(len(row) == len(names) for row in rows)
    return [dict(zip(names, row)) for row in rows]


def test_a_saved_mixture_loads_the_same_with_its_extra_arrays_beside_it(tmp_path):
    path, m = str(tmp_path / "gmm.npz"), mixture()
    m.save(path, pixel_size=3.0, free=np.ones(9, bool))
    back = Mixture.load(path)
    for name in ("centers", "amplitudes", "widths"):
        np.testing.assert_array_equal(getattr(back, name), getattr(m, name))
        assert getattr(back, name).dtype == np.float32
    assert np.load(path)["pixel_size"] == 3.0 and np.load(path)["free"].sum() == 9


def test_selecting_keeps_the_chosen_gaussians_together():
    m = mixture()
    chosen = m.select(np.arange(9) % 2 == 0)
    assert len(chosen) == 5
    np.testing.assert_array_equal(chosen.centers, m.centers[::2])
    np.testing.assert_array_equal(chosen.widths, m.widths[::2])


def test_the_radius_holds_every_centre_and_two_widths_around_it():
    m = Mixture(np.float32([[0, 0, 0], [3, 4, 0]]), np.float32([1, 1]), np.float32([20, 1]))
    assert m.radius_angst == pytest.approx(40)
    assert m.select([1]).radius_angst == pytest.approx(7)


@pytest.mark.parametrize("box", [24, 25])
def test_the_sum_of_the_map_along_z_is_the_projection(box):
    m = mixture()
    flat = render(m, box, 3.0).sum(0)
    expected = reference.image_of(m.centers[:, :2], m.amplitudes, m.widths, box, 3.0)
    np.testing.assert_allclose(flat, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("axis,plane", [(1, (0, 2)), (2, (1, 2))])
def test_the_map_is_indexed_z_y_x(axis, plane):
    m = mixture()
    flat = render(m, 25, 3.0).sum(axis)                                     # [z, x] or [z, y]
    expected = reference.image_of(m.centers[:, plane], m.amplitudes, m.widths, 25, 3.0)
    np.testing.assert_allclose(flat, expected, atol=1e-4 * expected.max())


def test_a_gaussian_at_the_origin_peaks_at_voxel_half_the_box():
    m = Mixture(np.zeros((1, 3), np.float32), np.ones(1, np.float32), np.float32([4]))
    for box in (24, 25):
        assert np.unravel_index(np.argmax(render(m, box, 3.0)), (box,) * 3) == (box // 2,) * 3


def test_the_map_holds_the_amplitudes_whatever_the_sampling():
    m = mixture()
    for box, pixel in ((30, 3.0), (60, 1.5)):
        assert render(m, box, pixel).sum() * pixel**2 == pytest.approx(m.amplitudes.sum(), rel=1e-3)


def test_mmcif_holds_an_atom_per_gaussian_with_place_occupancy_and_b_factor(tmp_path):
    path, m = str(tmp_path / "gmm.cif"), mixture()
    write_cif(path, m)
    found = atoms(path)
    assert len(found) == 9 and [a["id"] for a in found] == [str(i) for i in range(1, 10)]
    np.testing.assert_allclose([[float(a["Cartn_" + c]) for c in "xyz"] for a in found], m.centers, atol=6e-4)
    np.testing.assert_allclose([float(a["occupancy"]) for a in found], m.amplitudes / m.amplitudes.max(),
                               atol=6e-5)
    np.testing.assert_allclose([float(a["B_iso_or_equiv"]) for a in found], 8 * np.pi**2 * m.widths**2,
                               atol=6e-3)


def test_mmcif_of_a_trajectory_has_one_model_per_mixture_and_serials_that_never_repeat(tmp_path):
    path = str(tmp_path / "path.cif")
    write_cif_models(path, [mixture(seed=0), mixture(seed=1)])
    found = atoms(path)
    assert [a["pdbx_PDB_model_num"] for a in found] == ["1"] * 9 + ["2"] * 9
    assert len({a["id"] for a in found}) == 18


@pytest.mark.parametrize("reader", ["gemmi", "Bio.PDB"])
def test_mmcif_is_read_by_other_programs(tmp_path, reader):
    module, path, m = pytest.importorskip(reader), str(tmp_path / "gmm.cif"), mixture()
    write_cif(path, m)
    if reader == "gemmi":
        places = [[a.atom.pos.x, a.atom.pos.y, a.atom.pos.z] for a in module.read_structure(path)[0].all()]
    else:
        places = [a.coord for a in module.MMCIFParser(QUIET=True).get_structure("gmm", path).get_atoms()]
    np.testing.assert_allclose(places, m.centers, atol=1e-3)


def test_the_mmcif_of_a_labelled_mixture_has_its_chains_and_gaussian_numbers(tmp_path):
    labels = Labels(np.array(["H", "p1'", "_x", ""]),
                    *(np.zeros(0, t) for t in (np.int32, np.int32, np.float32)))
    write_cif(str(tmp_path / "gmm.cif"),
              Mixture(np.eye(4, 3, dtype=np.float32), np.ones(4, np.float32), np.ones(4, np.float32), labels))
    gemmi = pytest.importorskip("gemmi")
    model = gemmi.read_structure(str(tmp_path / "gmm.cif"))[0]
    found = [(chain.name, chain[0].seqid.num) for chain in model]
    assert found == [("H", 1), ("p1'", 2), ("_x", 3), ("GMM", 4)]
