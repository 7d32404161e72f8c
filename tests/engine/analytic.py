"""A decoder whose answer is known: two domains of Gaussians, each sliding along its own axis with its own
latent coordinate."""
import json
import os
from typing import NamedTuple

import numpy as np

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.latents import Latents

AMPLITUDE_STEP = 0.1    # relative change of the first domain's amplitudes per unit of z[2]


class SlidingDomains:
    """First domain (20 Gaussians at x = -30 Å) moves 3 Å along y per unit of z[0]; the second (20, at x = +30
    Å) 2 Å along z per unit of z[1]; a unit of z[2] raises the first domain's amplitudes by a tenth."""

    latent_dim, box, pixel_size, symmetry = 3, 24, 5.0, "c1"

    def __init__(self):
        rng = np.random.default_rng(0)
        centers = rng.uniform(-8, 8, (40, 3)) + np.repeat([[-30.0, 0, 0], [30.0, 0, 0]], 20, axis=0)
        self.neutral = Mixture(np.float32(centers), np.ones(40, np.float32), np.full(40, 4.0, np.float32))
        self.first, self.free = np.arange(40) < 20, np.ones(40, bool)
        self.slope = np.zeros((40, 3, 3))
        self.slope[self.first, 1, 0], self.slope[~self.first, 2, 1] = 3.0, 2.0

    def decode(self, z):
        z = np.asarray(z, float)
        centers = self.neutral.centers + np.einsum("nxd,bd->bnx", self.slope, z)
        amplitudes = self.neutral.amplitudes * (1 + AMPLITUDE_STEP * z[:, 2:3] * self.first)
        return np.float32(centers), np.float32(amplitudes), np.tile(self.neutral.widths, (len(z), 1))

    def jacobian(self, z):
        return self.slope


class TwoStates(NamedTuple):
    """Latents of n particles, and which of them are in the rarer state, bool [n]."""

    latents: Latents
    rare: np.ndarray


def two_states(n=400, seed=0):
    """Three in four of n particles at z[0] = -2 and the others at z[0] = +2; ids from 101 in reverse
    order."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, (0.3, 0.6, 0.05), (n, 3))
    rare = np.arange(n) % 4 == 0
    z[:, 0] += np.where(rare, 2.0, -2.0)
    return TwoStates(Latents(np.arange(100 + n, 100, -1), np.zeros(n, int), z), rare)


def write_train_run(folder, latents):
    """A folder with what a finished train run leaves and `analyze` reads, but for the networks."""
    os.makedirs(os.path.join(folder, rundir.MODEL))
    latents.save(folder)
    for name, text in ((rundir.HISTORY, "epoch\n"), (rundir.SUMMARY, json.dumps({"epochs": 1}))):
        with open(os.path.join(folder, name), "w") as f:
            f.write(text)
    return folder
