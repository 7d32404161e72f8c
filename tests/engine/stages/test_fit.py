"""The fit stage: from density and from atoms, into weak density, with what it refuses."""
import json
import re

import gemmi
import mrcfile
import numpy as np
import pytest
from commands import gmmhet

from gmmhet.engine import rundir
from gmmhet.engine.config import DEFAULT_RESOLUTION_PX
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.regions import region_mask
from gmmhet.engine.imaging.fsc import fsc_curve
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.stages import fit as stage

BOX, PIXEL = 32, 5.0
#: middle and half axes of two chains, Å from the box centre, and how many carbon atoms each has
CHAINS = {"A": ([-18, 0, 0], [24, 20, 18], 900), "B": ([28, 0, 0], [14, 14, 14], 300)}


def atoms_of(chain, seed=0):
    """Atoms [A, 3] Å from the box centre: a ball filled along its long axis, so that residue numbers grow
    with x."""
    middle, axes, count = CHAINS[chain]
    points = np.random.default_rng([seed, ord(chain)]).uniform(-1, 1, (4 * count, 3))
    points = points[np.linalg.norm(points, axis=1) < 1][:count] * axes + middle
    return points[np.argsort(points[:, 0])]


def write_model(path, chains, shift=BOX // 2 * PIXEL):
    """A PDB file of chains with five atoms a residue, its coordinates measured from `shift` Å before the box
    centre."""
    model = gemmi.Model(1)
    for name in chains:
        chain = gemmi.Chain(name)
        for number, part in enumerate(np.split(atoms_of(name), CHAINS[name][2] // 5), 1):
            residue = gemmi.Residue()
            residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number))
            for point in part + shift:
                atom = gemmi.Atom()
                atom.name, atom.element, atom.pos = "C", gemmi.Element("C"), gemmi.Position(*point)
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    structure.write_pdb(str(path))


def density(**shares):
    """Map of the chains, each with a share of its mass."""
    centers = np.concatenate([atoms_of(name) for name in shares])
    amplitudes = np.concatenate([np.full(CHAINS[name][2], share) for name, share in shares.items()])
    return render(Mixture(np.float32(centers), np.float32(amplitudes),
                          np.full(len(centers), PIXEL, np.float32)), BOX, PIXEL)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """whole.mrc (both chains), rare.mrc (chain B in one particle of ten), ab.pdb, a.pdb, centred.pdb,
    far.pdb."""
    folder = tmp_path_factory.mktemp("data")
    write_map(str(folder / "whole.mrc"), density(A=1, B=1), PIXEL)
    write_map(str(folder / "rare.mrc"), density(A=1, B=0.1), PIXEL)
    write_model(folder / "ab.pdb", "AB")
    write_model(folder / "a.pdb", "A")
    write_model(folder / "centred.pdb", "AB", 0.0)
    write_model(folder / "far.pdb", "AB", np.array([300.0, 40, 0]))
    return folder


def fit(folder, **flags):
    """Exit status of a fit."""
    return gmmhet("fit", "--out", folder,
                  *[word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), value)])


def found(folder):
    with open(folder / rundir.SUMMARY) as f:
        return Mixture.load(str(folder / rundir.GMM)), json.load(f)


def mass_of(mixture, chain):
    """Amplitude of the Gaussians in a chain's place."""
    return mixture.amplitudes[in_chain(mixture, chain)].sum()


def in_chain(mixture, chain):
    """Gaussians inside the ellipsoid that a chain fills, one pixel wider: bool [N]."""
    middle, axes, _ = CHAINS[chain]
    return np.linalg.norm((mixture.centers - middle) / (np.array(axes) + PIXEL), axis=1) < 1


# ---- from atoms

@pytest.fixture(scope="module")
def labelled(data, tmp_path_factory):
    """A fit of the whole map that starts from both chains."""
    folder = tmp_path_factory.mktemp("labelled") / "fit"
    assert fit(folder, map=data / "whole.mrc", atoms=data / "ab.pdb") == 0
    return folder


def test_a_fit_from_atoms_knows_its_chains_and_fits_the_map(labelled):
    mixture, summary = found(labelled)
    assert summary["chains"] == ["A", "B"] and summary["mean_fsc"] > 0.97 and summary["probes"] == 0
    for chain in "AB":
        assert in_chain(mixture, chain)[mixture.labels.chain == chain].mean() > 0.95
    assert mixture.amplitudes[mixture.labels.chain == "A"].sum() == pytest.approx(900, rel=0.1)


def test_residues_of_a_chain_are_where_they_are_in_the_atomic_model(labelled):
    mixture, _ = found(labelled)
    left, right = region_mask("chain:A/1-60", mixture), region_mask("chain:A/121-180", mixture)
    assert mixture.centers[left, 0].max() < mixture.centers[right, 0].min()
    assert region_mask("chain:A/1-180", mixture).sum() == np.sum(mixture.labels.chain == "A")


def test_the_pseudo_atoms_have_the_chains_of_the_atomic_model(labelled):
    model = gemmi.read_structure(str(labelled / rundir.GMM_CIF))[0]
    mixture, _ = found(labelled)
    expected = {name: int(np.sum(mixture.labels.chain == name)) for name in "AB"}
    assert {chain.name: len(chain) for chain in model} == expected


def test_density_that_the_atoms_do_not_explain_gets_gaussians_without_a_chain(data, tmp_path):
    assert fit(tmp_path / "fit", map=data / "whole.mrc", atoms=data / "a.pdb") == 0
    mixture, summary = found(tmp_path / "fit")
    bare = mixture.labels.chain == ""
    assert summary["chains"] == ["A"] and summary["mean_fsc"] > 0.97
    assert bare.sum() >= 5 and in_chain(mixture, "B")[bare].mean() > 0.8
    assert mass_of(mixture, "B") == pytest.approx(300, rel=0.15)


def test_atoms_in_weak_density_keep_their_gaussians_with_small_amplitudes(data, tmp_path):
    assert fit(tmp_path / "fit", map=data / "rare.mrc", atoms=data / "ab.pdb", probes="none") == 0
    mixture, _ = found(tmp_path / "fit")
    b = mixture.labels.chain == "B"
    assert b.sum() >= 5 and 20 < mixture.amplitudes[b].sum() < 45


def test_a_model_measured_from_the_box_centre_is_taken_there_with_a_warning(data, tmp_path, labelled):
    assert fit(tmp_path / "fit", map=data / "whole.mrc", atoms=data / "centred.pdb") == 0
    assert found(tmp_path / "fit")[1]["mean_fsc"] == pytest.approx(found(labelled)[1]["mean_fsc"], abs=0.01)
    said = (tmp_path / "fit" / rundir.LOG).read_text()
    assert re.search(r"WARNING.*the atomic model is taken as measured from the box centre, because it fits "
                     r"the map there", said)


def test_the_maps_origin_moves_with_its_model(data, tmp_path):
    write_model(tmp_path / "moved.pdb", "AB", BOX // 2 * PIXEL + np.array([100.0, -50, 30]))
    write_map(str(tmp_path / "moved.mrc"), density(A=1, B=1), PIXEL)
    with mrcfile.open(str(tmp_path / "moved.mrc"), "r+") as file:
        file.header.origin.x, file.header.origin.y, file.header.origin.z = 100, -50, 30
    assert fit(tmp_path / "fit", map=tmp_path / "moved.mrc", atoms=tmp_path / "moved.pdb",
               resolution=2.25 * PIXEL) == 0
    said = (tmp_path / "fit" / rundir.LOG).read_text()
    assert "measured from the origin in the map's header: correlation with the map 0.9" in said
    assert "WARNING" not in said


def test_a_model_elsewhere_is_refused_and_the_folder_stays_free(data, tmp_path, capsys):
    assert fit(tmp_path / "fit", map=data / "whole.mrc", atoms=data / "far.pdb") == 2
    assert "the atomic model does not lie in the map's density (correlation" in capsys.readouterr().err
    assert fit(tmp_path / "fit", map=data / "whole.mrc", n_gaussians=8) == 0


def test_atoms_start_a_fit_to_particles_too(small, tmp_path):
    with np.load(small / "set" / rundir.TRUTH) as truth:
        centers = truth["centers"]
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("Q")
    for number, point in enumerate(centers, 1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(str(number))
        atom.name, atom.element, atom.pos = "C", gemmi.Element("C"), gemmi.Position(*point.astype(float))
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(tmp_path / "q.pdb"))
    assert fit(tmp_path / "fit", particles=small / "set" / rundir.STAR, atoms=tmp_path / "q.pdb",
               n_gaussians=40) == 0
    assert found(tmp_path / "fit")[1]["chains"] == ["Q"]


def test_training_takes_a_chain_for_its_region_and_names_those_there_are(labelled, small, tmp_path, capsys):
    flags = ["--particles", small / "set" / rundir.STAR, "--gmm", labelled, "--rescale-map",
             "--pause-after-epoch", 0]
    assert gmmhet("train", "--out", tmp_path / "wrong", *flags, "--region", "chain:Z") == 2
    assert "the neutral model has no chain 'Z', its chains are A, B" in capsys.readouterr().err
    assert gmmhet("train", "--out", tmp_path / "right", *flags, "--region", "chain:B") == 0
    number = np.sum(found(labelled)[0].labels.chain == "B")
    said = (tmp_path / "right" / rundir.LOG).read_text()
    assert "%d of %d Gaussians may vary" % (number, len(found(labelled)[0])) in said


# ---- straight from particles, and inside a mask

def test_particles_without_a_map_give_the_model_of_what_they_show(hinge, tmp_path):
    assert fit(tmp_path / "fit", particles=hinge / "set" / rundir.STAR, n_gaussians=80, steps=120) == 0
    (mixture, summary), (given, _) = found(tmp_path / "fit"), found(hinge / "fit")
    assert (summary["box"], summary["pixel_size"]) == (32, 6.0) and summary["mean_fsc"] > 0.9
    truth, pixel_size = read_map(str(hinge / "set" / rundir.MAP))
    curves = [fsc_curve(render(model, 32, pixel_size), truth)[1:9] for model in (mixture, given)]
    assert curves[0].mean() > 0.9 * curves[1].mean()
    # on the scale of the particles
    assert mixture.amplitudes.sum() == pytest.approx(given.amplitudes.sum(), rel=0.3)


def test_a_mask_leaves_no_gaussian_outside_it(data, tmp_path):
    left = np.zeros((BOX,) * 3, np.float32)
    left[:, :, :BOX // 2 + 2] = 1
    write_map(str(tmp_path / "left.mrc"), left, PIXEL)
    assert fit(tmp_path / "fit", map=data / "whole.mrc", mask=tmp_path / "left.mrc") == 0
    mixture, summary = found(tmp_path / "fit")
    assert mixture.centers[:, 0].max() < 2.5 * PIXEL and summary["probes"] == 0
    assert mass_of(mixture, "A") == pytest.approx(mixture.amplitudes.sum())
    assert 650 < mixture.amplitudes.sum() < 950


def test_a_mask_of_other_pixels_is_refused_with_both(data, tmp_path, capsys):
    for box, pixel in ((BOX, 4.0), (BOX - 2, PIXEL)):
        write_map(str(tmp_path / "mask.mrc"), np.ones((box,) * 3), pixel)
        assert fit(tmp_path / "fit", map=data / "whole.mrc", mask=tmp_path / "mask.mrc") == 2
        both = "mask.mrc has %d px of %.4f Å, the map has %d px of %.4f Å" % (box, pixel, BOX, PIXEL)
        assert both in capsys.readouterr().err


# ---- weak density

def test_a_domain_that_one_particle_in_ten_has_gets_probes_that_hold_its_mass(data, tmp_path):
    assert fit(tmp_path / "with", map=data / "rare.mrc") == 0
    assert fit(tmp_path / "without", map=data / "rare.mrc", probes="none") == 0
    (mixture, summary), (plain, none) = found(tmp_path / "with"), found(tmp_path / "without")
    assert none["probes"] == 0 and mass_of(plain, "B") < 5
    assert summary["probes"] >= 4 and in_chain(mixture, "B").sum() >= 0.8 * summary["probes"]
    assert 15 < mass_of(mixture, "B") < 40


def test_a_whole_molecule_needs_no_probes_and_noise_gets_none(data, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1 * density(A=1).max(), (BOX,) * 3).astype(np.float32)
    write_map(str(tmp_path / "noisy.mrc"), density(A=1) + noise, PIXEL)
    for path in (data / "whole.mrc", tmp_path / "noisy.mrc"):
        assert fit(tmp_path / path.stem, map=path, n_gaussians=60, resolution=3 * PIXEL, steps=100) == 0
        assert found(tmp_path / path.stem)[1]["probes"] == 0
    assert in_chain(found(tmp_path / "noisy")[0], "A").mean() > 0.95


@pytest.mark.parametrize("text", ["some", "-1", "0", "nan", "inf", ""])
def test_probes_are_auto_none_or_a_density(data, tmp_path, capsys, text):
    assert gmmhet("fit", "--out", tmp_path / "fit", "--map", data / "whole.mrc", "--probes=" + text) == 2
    says = "--probes must be 'auto', 'none' or a density level above 0, got '%s'" % text
    assert says in capsys.readouterr().err


def test_a_probe_level_above_the_threshold_is_refused_with_both(data, tmp_path, capsys):
    assert fit(tmp_path / "fit", map=data / "whole.mrc", threshold=0.02, probes=0.03) == 2
    assert "--probes 0.03 must lie below the density threshold 0.02" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{}, dict(n_gaussians=20)], ids=["auto", "given"])
def test_a_large_molecule_is_not_fitted_finer_than_its_gaussians_can_hold(data, tmp_path, monkeypatch, given):
    monkeypatch.setattr(stage, "MOST_DEFAULT_GAUSSIANS", 2000 if given else 20)
    assert fit(tmp_path / "capped", map=data / "whole.mrc", **given) == 0
    assert fit(tmp_path / "asked", map=data / "whole.mrc", resolution=DEFAULT_RESOLUTION_PX * PIXEL) == 0
    capped, asked = found(tmp_path / "capped")[1], found(tmp_path / "asked")[1]
    assert capped["gaussians"] < asked["gaussians"]
    assert capped["resolution_angst"] > asked["resolution_angst"]
    assert asked["resolution_angst"] == pytest.approx(DEFAULT_RESOLUTION_PX * PIXEL)
    assert "Å instead: give --resolution for more" in (tmp_path / "capped" / rundir.LOG).read_text()


def test_a_resolution_that_pixels_do_not_reach_is_refused_with_what_they_do(data, tmp_path, capsys):
    assert fit(tmp_path / "fit", map=data / "whole.mrc", resolution=6) == 2
    says = "--resolution 6 Å is finer than pixels of 5 Å hold: give 10 Å (two pixels) or more"
    assert says in capsys.readouterr().err
    assert not (tmp_path / "fit").exists()


def test_a_map_that_gaussians_do_not_follow_is_said(data, tmp_path):
    write_map(tmp_path / "noise.mrc", np.random.default_rng(0).normal(size=(BOX,) * 3), PIXEL)
    for name, source, flags in (("noise", tmp_path, {}), ("few", data, dict(n_gaussians=4, resolution=11)),
                                ("whole", data, {})):
        source = source / ("noise.mrc" if name == "noise" else "whole.mrc")
        assert fit(tmp_path / name, map=source, **flags) == 0
        said = (tmp_path / name / rundir.LOG).read_text()
        low = found(tmp_path / name)[1]["mean_fsc"] < 0.95
        assert ("what is not in the model cannot be seen to move" in said) == low
        assert ("with this number of Gaussians" in said) == (name == "few")
    assert found(tmp_path / "noise")[1]["mean_fsc"] < 0.95 < found(tmp_path / "whole")[1]["mean_fsc"]


@pytest.mark.parametrize("values,says", [(0.7, "the map is 0.7 everywhere"), (-1.0, "no positive density")])
def test_a_map_of_nothing_is_refused(tmp_path, capsys, values, says):
    write_map(tmp_path / "map.mrc", np.full((BOX,) * 3, values), PIXEL)
    assert fit(tmp_path / "fit", map=tmp_path / "map.mrc") == 2
    assert says in capsys.readouterr().err


def test_an_empty_mask_and_a_folder_for_a_map_are_named(data, tmp_path, capsys):
    write_map(tmp_path / "mask.mrc", np.zeros((BOX,) * 3), PIXEL)
    assert fit(tmp_path / "fit", map=data / "whole.mrc", mask=tmp_path / "mask.mrc") == 2
    assert "mask.mrc is empty" in capsys.readouterr().err
    assert fit(tmp_path / "fit", map=tmp_path) == 2
    assert "is a folder, expected an MRC file" in capsys.readouterr().err
