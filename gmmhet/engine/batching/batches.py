"""Items (a particle at one of its symmetry-related orientations) and the batches of particles that stream through the networks."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.errors import ParticleError, listing

#: images more than so many times as strong as most are no images of particles; most: this share of them, as many others may be blank
MOST_STRENGTH, MOST_IMAGES = 1000.0, 0.97


def check_strength(ids, strength):
    """Refuse images that are far stronger than all others, or that overflow: a single one of them spoils what all are measured by.

    Parameters
    ----------
    ids : [n]; strength : [n], above 0, in any unit that goes with the values of the pixels.

    Raises
    ------
    ParticleError
        naming the particles.
    """
    with np.errstate(invalid="ignore"):
        odd = ~(strength <= MOST_STRENGTH * np.nanquantile(strength, MOST_IMAGES, method="lower"))
    if odd.any():
        raise ParticleError("the image of particle %s is more than %g times as strong as most, or overflows: look at it, and leave such "
                            "particles out with --ids, or normalise the images" % (listing(ids[odd], 20), MOST_STRENGTH))


class Items:
    """Particles times symmetry copies; copy j of a particle is the same image seen at ``A @ S_j``.

    Parameters
    ----------
    particles : ParticleSet.
    symmetry : str, point group.

    Attributes
    ----------
    copies : int, items a particle; they follow one another.
    row, copy : int arrays [n_items], the particle's row and the symmetry copy of each item.
    """

    def __init__(self, particles, symmetry="c1"):
        self.particles = particles
        self._symmetry = symmetry_matrices(symmetry).astype(np.float32)
        self.copies = len(self._symmetry)
        self.row = np.repeat(np.arange(len(particles)), self.copies)
        self.copy = np.tile(np.arange(self.copies), len(particles))

    def __len__(self):
        return len(self.row)

    @property
    def ids(self):
        """Particle id of every item."""
        return self.particles.ids[self.row]

    def batch(self, rows):
        """Images [B, L, L], rotations [B, 3, 3], shifts [B, 2] Å and CTF parameters [B, 11] of particles."""
        particles = self.particles
        return particles.read(rows), particles.rotation[rows], particles.shift_angst[rows], particles.ctf[rows]

    def of(self, rows):
        """Numbers of the items of particles, [B, copies]."""
        return np.asarray(rows)[:, None] * self.copies + np.arange(self.copies)

    def rotation(self, chosen):
        """Rotations [B, 3, 3] of the chosen items."""
        return self.particles.rotation[self.row[chosen]] @ self._symmetry[self.copy[chosen]]


def prefetched(items, order, batch_size, features=None, own=lambda rows, size: rows):
    """Batches of particles in the given order of rows, the next one read while this one is used.

    `own` gives the part of the chosen rows that this process reads (see `Devices.own`).

    Yields
    ------
    chosen, (images, rotation, shift, ctf[, features [B, copies, F]])
    """
    def read(chosen):
        mine = own(chosen, batch_size)
        batch = items.batch(mine)
        if features is not None:
            batch += (features[items.of(mine).ravel()].reshape(len(mine), items.copies, -1),)
        return chosen, batch

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


def by_item(values):
    """[B, copies, ...] to [B * copies, ...]."""
    return tf.reshape(values, [-1 if values.shape[0] is None else values.shape[0] * values.shape[1], *values.shape[2:]])
