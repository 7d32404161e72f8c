"""Sets whose optics groups differ in pixel size and box, made exactly: every image is the projection itself,
sampled."""
import numpy as np
import pandas as pd
import reference
import starfile

from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles

CENTERS = np.array([[-20, 0, 4], [14, 8, -9], [10, 20, 12], [-8, -14, 22], [12, 4, -20]], float)
AMPLITUDES, WIDTHS = np.array([900.0, 700, 1200, 800, 500]), np.array([6.5, 7, 6, 8, 7])
FLAT = [0, 0, 0, 300, 0, 1, 0, 0, 1.0]      # asin(1): the CTF is 1 everywhere


def exact_image(rotation, shift_angst, box, pixel_size):
    """The molecule's projection [L, L] at a pose."""
    return reference.image_of((CENTERS @ rotation.T)[:, :2] + shift_angst, AMPLITUDES, WIDTHS, box,
                              pixel_size)


def write_mixed(folder, counts, samplings, seed=0, noise=0.0, factors=None, ctf=None):
    """particles.star in a folder, with one stack and one optics group per sampling; returns its path,
    rotations and shifts.

    counts : number of particles of each group; samplings : (box, pixel_size) of each; factors : what each
        group's images are multiplied by.
    """
    rng, tables, optics = np.random.default_rng(seed), [], []
    n = sum(counts)
    rotation, shift = random_rotations(n, rng), rng.normal(0, 4, (n, 2))
    ctf = np.tile(FLAT, (n, 1)) if ctf is None else ctf
    start = 0
    for group, (count, (box, pixel_size)) in enumerate(zip(counts, samplings), 1):
        rows = slice(start, start + count)
        start += count
        images = np.stack([exact_image(a, t, box, pixel_size) for a, t in zip(rotation[rows], shift[rows])])
        images = images * (1 if factors is None
                           else factors[group - 1]) + noise * rng.normal(size=images.shape)
        star = folder / ("group%d.star" % group)
        write_particles(str(star), str(folder / ("group%d.mrcs" % group)), [images],
                        ParticleMetadata(rotation[rows], shift[rows], ctf[rows], 1 + np.arange(n)[rows] % 2,
                                         1 + np.arange(n)[rows]), pixel_size)
        made = starfile.read(star)
        tables.append(made["particles"].assign(rlnOpticsGroup=group))
        optics.append(made["optics"].assign(rlnOpticsGroup=group, rlnOpticsGroupName="camera%d" % group))
    path = str(folder / "particles.star")
    starfile.write({"optics": pd.concat(optics), "particles": pd.concat(tables)}, path, float_format=None)
    return path, rotation, shift
