"""How well and how fast the fit stage turns maps of atomic models into Gaussians.

    python bench/neutral.py --data DIR [--boxes 64,128] [--noise 0.1]

DIR holds 1hzh.pdb.gz (an IgG) and the 50S cut into RNA*.pdb.gz and prots*.pdb.gz. Every model is rendered in
a box of 384 Å, atom by atom, with noise where asked, and fitted with default settings; started from density,
from atoms, and, from 128 px on, from density with N = 2,048.
Columns: Gaussians, probes among them, Gaussians further from every atom than the target resolution (false),
mean and least FSC with the noise-free map over the shells up to the target, correlation of atoms and map,
seconds of CPU and of the clock.
"""
import argparse
import glob
import os
import tempfile
import time

import gemmi
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from gmmhet.engine import rundir
from gmmhet.engine.config import DEFAULT_RESOLUTION_PX, FitConfig
from gmmhet.engine.gmm.atoms import correlation, read_atoms
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.seeding import smooth_to
from gmmhet.engine.imaging.fsc import fsc_curve
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.stages.runner import run_stage

EDGE_ANGST = 384.0
MODELS = {"IgG": ("1hzh.pdb.gz",), "50S": ("RNA*.pdb.gz", "prots*.pdb.gz")}
HEADER = "%-4s %4s %-8s %6s %6s %6s %9s %9s %6s %7s %7s" % (
    "set", "box", "start", "N", "probes", "false", "mean FSC", "least FSC", "atoms", "CPU s", "clock s")


def joined_model(patterns, folder, path):
    """One mmCIF of all files, centred in a box whose corner is at zero; chains that share a name are
    numbered."""
    model, names = gemmi.Model(1), set()
    for name in sorted(name for pattern in patterns for name in glob.glob(os.path.join(folder, pattern))):
        for chain in gemmi.read_structure(name)[0]:
            copy = chain.clone()
            copy.name = next(n for n in [chain.name] + ["%s%d" % (chain.name, i) for i in range(1, 100)]
                             if n not in names)
            names.add(copy.name)
            model.add_chain(copy)
    middle = model.calculate_center_of_mass()
    move = gemmi.Transform()
    move.vec.fromlist([EDGE_ANGST / 2 - v for v in middle.tolist()])
    model.transform_pos_and_adp(move)
    structure = gemmi.Structure()
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(path)


def noise_like_a_map(shape, rng):
    """Noise of unit deviation whose power rises towards high resolution, as in an unsharpened half-map
    average."""
    fine = rng.normal(size=shape)
    noise = fine - 0.5 * gaussian_filter(fine, 1.5)
    return (noise / noise.std()).astype(np.float32)


def fitted(folder, clean, positions, **flags):
    """Run the stage; its figures as a dict."""
    out = tempfile.mkdtemp(dir=folder)
    cpu, clock = time.process_time(), time.time()
    run = run_stage(FitConfig(map=os.path.join(folder, "map.mrc"), out=out, **flags))
    cpu, clock = time.process_time() - cpu, time.time() - clock
    found, mixture = run.read_summary(), Mixture.load(run(rundir.GMM))
    away = cKDTree(positions).query(mixture.centers)[0] > found["resolution_angst"]
    shells = int(round(clean.shape[0] * found["pixel_size"] / found["resolution_angst"]))
    fsc = fsc_curve(read_map(run(rundir.GMM_MAP))[0], clean)[1:shells + 1]
    return dict(N=found["gaussians"], probes=found["probes"], false=int(away.sum()), mean=fsc.mean(),
                least=fsc.min(), cpu=cpu, clock=clock)


def bench(name, folder, box, noise):
    """The rows of one model in one box."""
    pixel_size = EDGE_ANGST / box
    path = os.path.join(folder, "model.cif")
    atoms = read_atoms(path).translate(-(box // 2) * pixel_size)
    clean = render(Mixture(np.float32(atoms.positions), np.float32(atoms.masses),
                           np.full(len(atoms), pixel_size, np.float32)), box,
                   pixel_size)
    inside = sample_map(clean, pixel_size, atoms.positions).mean()
    volume = clean + noise * inside * noise_like_a_map(clean.shape,
                                                       np.random.default_rng(1)) if noise else clean
    write_map(os.path.join(folder, "map.mrc"), volume, pixel_size)
    smooth = smooth_to(volume, pixel_size, DEFAULT_RESOLUTION_PX * pixel_size)
    overlap = correlation(np.float32(atoms.positions), np.float32(atoms.masses), pixel_size, smooth,
                          pixel_size)
    starts = [("density", {}),
              ("atoms", dict(atoms=path))] + [("2048", dict(n_gaussians="2048"))] * (box >= 128)
    for start, flags in starts:
        row = fitted(folder, clean, atoms.positions, **flags)
        print("%-4s %4d %-8s %6d %6d %6d %9.4f %9.4f %6.3f %7.0f %7.0f" % (
            name, box, start, row["N"], row["probes"], row["false"], row["mean"], row["least"], overlap,
            row["cpu"], row["clock"]),
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder of the atomic models")
    parser.add_argument("--sets", default=",".join(MODELS),
                        help="which of %s, comma-separated" % ", ".join(MODELS))
    parser.add_argument("--boxes", default="64,128", help="boxes in pixels, comma-separated")
    parser.add_argument("--noise", type=float, default=0.0,
                        help="standard deviation of noise per voxel over the mean density at the atoms")
    options = parser.parse_args()
    print(HEADER)
    for name in options.sets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            joined_model(MODELS[name], options.data, os.path.join(folder, "model.cif"))
            for box in options.boxes.split(","):
                bench(name, folder, int(box), options.noise)


if __name__ == "__main__":
    main()
