"""Items (a particle at one of its symmetry-related orientations) and the batches that stream through the networks."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gmmhet.engine.imaging.pose import symmetry_matrices


class Items:
    """Particles times symmetry copies; copy j of a particle is the same image seen at ``A @ S_j``.

    Parameters
    ----------
    particles : ParticleSet.
    symmetry : str, point group.

    Attributes
    ----------
    row, copy : int arrays [n_items], the particle's row and the symmetry copy of each item.
    """

    def __init__(self, particles, symmetry="c1"):
        self.particles = particles
        self._symmetry = symmetry_matrices(symmetry).astype(np.float32)
        copies = len(self._symmetry)
        self.row = np.repeat(np.arange(len(particles)), copies)
        self.copy = np.tile(np.arange(copies), len(particles))

    def __len__(self):
        return len(self.row)

    @property
    def ids(self):
        """Particle id of every item."""
        return self.particles.ids[self.row]

    def batch(self, chosen):
        """Images [B, L, L], rotations [B, 3, 3], shifts [B, 2] Å and CTF parameters [B, 11] of the chosen items."""
        row = self.row[chosen]
        return self.particles.read(row), self.rotation(chosen), self.particles.shift_angst[row], self.particles.ctf[row]

    def rotation(self, chosen):
        """Rotations [B, 3, 3] of the chosen items."""
        return self.particles.rotation[self.row[chosen]] @ self._symmetry[self.copy[chosen]]


def prefetched(items, order, batch_size, features=None, own=lambda rows, size: rows):
    """Batches of items in the given order, the next one read while this one is used.

    `own` gives the part of the chosen items that this process reads (see `Devices.own`).

    Yields
    ------
    chosen, (images, rotation, shift, ctf[, features])
    """
    def read(chosen):
        mine = own(chosen, batch_size)
        batch = items.batch(mine)
        return chosen, batch if features is None else batch + (features[mine],)

    chunks = [order[i:i + batch_size] for i in range(0, len(order), batch_size)]
    if not chunks:
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(read, chunks[0])
        for following in chunks[1:] + [None]:
            current = ahead.result()
            if following is not None:
                ahead = pool.submit(read, following)
            yield current
