"""A handed phantom, and its images as RELION projects them."""
import shutil
import subprocess

import numpy as np

from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles

HAS_RELION = all(shutil.which(name) for name in ("relion_project", "relion_reconstruct"))
NO_RELION = "relion_project and relion_reconstruct are not installed (Debian package relion)"
BOX, PIXEL_SIZE = 32, 4.0


def blobs(seed=0, count=25):
    """Centres [count, 3] Å, amplitudes and widths of Gaussians with no symmetry and no mirror plane."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(count, 3)) * 13
    centers[:, 0] += 0.4 * np.abs(centers[:, 1])
    return centers, rng.uniform(0.5, 2, count), rng.uniform(3.5, 8, count)


def _along(axis, centers, widths):
    """Gaussians of integral 1 along an axis: [L, N]."""
    return np.exp(-(axis[:, None] - centers) ** 2 / (2 * widths**2)) / np.sqrt(2 * np.pi) / widths


def density(centers, amplitudes, widths, box=BOX, pixel_size=PIXEL_SIZE):
    """Map [z, y, x] of Gaussians of the given integrals, in 1/Å^3."""
    axis = (np.arange(box) - box // 2) * pixel_size
    x, y, z = (_along(axis, centers[:, i], widths) for i in range(3))
    return np.einsum("n,zn,yn,xn->zyx", amplitudes, z, y, x).astype(np.float32)


def projection(rotation, shift_angst, centers, amplitudes, widths, box=BOX, pixel_size=PIXEL_SIZE):
    """One image [y, x] of the Gaussians: each at ``A c + t``."""
    axis = (np.arange(box) - box // 2) * pixel_size
    xy = (centers @ rotation.T)[:, :2] + shift_angst
    x, y = (_along(axis, xy[:, i], widths) for i in (0, 1))
    return np.einsum("n,yn,xn->yx", amplitudes, y, x)


def random_ctf(n, rng):
    """CTF parameters [n, 9] with astigmatism and phase shifts."""
    u = rng.uniform(8000, 20000, n)
    constant = np.ones(n)
    return np.stack([u, u - rng.uniform(0, 2000, n), rng.uniform(0, 180, n), 300 * constant, 2.7 * constant,
                     0.1 * constant,
                     rng.uniform(0, 60, n), 0 * constant, constant], axis=1)


def run(folder, *command):
    """Run a program in a folder; its own words when it fails."""
    done = subprocess.run([str(word) for word in command], check=False, cwd=folder, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def project(folder, n, applies_ctf, seed=0):
    """Have RELION project the phantom with random poses; returns the particle set read from RELION's star,
    and the phantom's map."""
    rng, volume = np.random.default_rng(seed), density(*blobs())
    write_map(str(folder / "phantom.mrc"), volume, PIXEL_SIZE)
    write_particles(str(folder / "asked.star"), str(folder / "empty.mrcs"), [np.zeros((n, BOX, BOX))],
                    ParticleMetadata(random_rotations(n, rng), rng.normal(size=(n, 2)) * 4,
                                     random_ctf(n, rng), half=rng.permutation(n) % 2 + 1), PIXEL_SIZE)
    run(folder, "relion_project", "--i", "phantom.mrc", "--ang", "asked.star", "--o", "proj", "--angpix",
        PIXEL_SIZE,
        *(["--ctf"] if applies_ctf else []))
    return read_particles(str(folder / "proj.star")), volume
