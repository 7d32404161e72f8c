"""Views (a particle at one of its symmetry-related orientations) and the batches of particles that stream
through the networks."""
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.io.errors import ParticleError, listing

#: images more than so many times as strong as most are no images of particles
LARGEST_STRENGTH = 1000.0
#: most: this share of them, as many others may be blank
MOST_IMAGES = 0.97


def check_strength(ids: np.ndarray, strength: np.ndarray) -> None:
    """Refuse images that are far stronger than all others, or that overflow: a single one of them spoils what
    all are measured by.

    Parameters
    ----------
    ids : [n]; strength : [n], above 0, in any unit that goes with the values of the pixels.

    Raises
    ------
    ParticleError
        naming the particles.
    """
    with np.errstate(invalid="ignore"):
        odd = ~(strength <= LARGEST_STRENGTH * np.nanquantile(strength, MOST_IMAGES, method="lower"))
    if odd.any():
        raise ParticleError("the image of particle %s is more than %g times as strong as most, or "
                            "overflows: look at it, and leave such particles out with --ids, or normalise "
                            "the images"
                            % (listing(ids[odd], 20), LARGEST_STRENGTH))


class ParticleBatch(NamedTuple):
    """B particles with what is known of them, as arrays or tensors; None where something is not asked for.

    Attributes
    ----------
    images : [B, L, L].
    rotation : [B, 3, 3]; shift_angst : [B, 2] Å: the given pose.
    ctf : [B, 10], CTF parameters.
    optics_group : [B], its number.
    features : [B, copies, F], encoder input of each view (see `model.encoder`).
    z : [B, copies, D], latent points of each view.
    pose_change : [B, 5], change of the pose so far, radians and Å.
    pose_response : [B, 5, 5], from a slope by a change of pose to the change (see `inference.pose_errors`).
    noise : [B, copies, ...], standard normal numbers.
    weight : [B], what each particle counts in the mean over a batch.
    """

    images: Any
    rotation: Any
    shift_angst: Any
    ctf: Any
    optics_group: Any
    features: Any = None
    z: Any = None
    pose_change: Any = None
    pose_response: Any = None
    noise: Any = None
    weight: Any = None

    @property
    def pose(self) -> Pose:
        """The given poses."""
        return Pose(self.rotation, self.shift_angst)

    @property
    def present(self) -> dict[str, Any]:
        """What is there, by name."""
        return {name: values for name, values in zip(self._fields, self) if values is not None}


class Views:
    """Particles times symmetry copies; copy j of a particle is the same image seen at ``A @ S_j``.

    Parameters
    ----------
    particles : ParticleSet.
    symmetry : point group.

    Attributes
    ----------
    copies : views a particle; they follow one another.
    row, copy : int [n_views], the particle's row and the symmetry copy of each view.
    """

    def __init__(self, particles: Any, symmetry: str = "c1") -> None:
        self.particles = particles
        self._symmetry = symmetry_matrices(symmetry).astype(np.float32)
        self.copies = len(self._symmetry)
        self.row = np.repeat(np.arange(len(particles)), self.copies)
        self.copy = np.tile(np.arange(self.copies), len(particles))

    def __len__(self) -> int:
        return len(self.row)

    @property
    def ids(self) -> np.ndarray:
        """Particle id of every view."""
        return self.particles.ids[self.row]

    def batch(self, rows: np.ndarray) -> ParticleBatch:
        """Images, poses and CTF of particles, by their rows."""
        particles = self.particles
        return ParticleBatch(particles.read(rows), particles.rotation[rows], particles.shift_angst[rows],
                             particles.ctf[rows], particles.optics_group[rows])

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the views of particles, [B, copies]."""
        return np.asarray(rows)[:, None] * self.copies + np.arange(self.copies)

    def rotation(self, chosen: np.ndarray) -> np.ndarray:
        """Rotations [B, 3, 3] of the chosen views."""
        return self.particles.rotation[self.row[chosen]] @ self._symmetry[self.copy[chosen]]


class FeaturedViews(NamedTuple):
    """Views with the encoder's input of each: features [n_views, F], an array or a RowFile."""

    views: Views
    features: Any


def prefetched(views: Views, order: np.ndarray, batch_size: int, devices: Devices, **of_views: Any,
               ) -> Iterator[tuple[np.ndarray, ParticleBatch]]:
    """Batches of particles in the given order of rows, the next one read while this one is used.

    Parameters
    ----------
    views : Views; order : int [n], rows of its particles.
    devices : Devices, which say which rows of each batch this process reads.
    of_views : arrays (or row files) [n_views, ...] by the name of the field of ParticleBatch that they fill.

    Yields
    ------
    the rows of a whole batch, and this process's part of it.
    """
    def read(rows: np.ndarray) -> tuple[np.ndarray, ParticleBatch]:
        own = devices.local_rows(rows, batch_size)
        batch = views.batch(own)
        filled = {name: values[views.of(own).ravel()].reshape(len(own), views.copies, -1)
                  for name, values in of_views.items()}
        return rows, batch._replace(**filled)

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


def by_view(values: tf.Tensor) -> tf.Tensor:
    """[B, copies, ...] to [B * copies, ...]."""
    return tf.reshape(values,
                      [-1 if values.shape[0] is None else values.shape[0] * values.shape[1],
                       *values.shape[2:]])


class BatchFunction:
    """A function of a ParticleBatch, compiled, and shared by all devices.

    Parameters
    ----------
    function : from a ParticleBatch of tensors to a NamedTuple of tensors [B, ...].
    devices : Devices.
    """

    def __init__(self, function: Callable[[ParticleBatch], Any], devices: Devices) -> None:
        self._function = function
        self._names: tuple[str, ...] = ()
        self._kind: Any = tuple
        self._compiled = devices.compiled(self._of_arrays)

    def _of_arrays(self, *arrays: tf.Tensor) -> tuple[tf.Tensor, ...]:
        result = self._function(ParticleBatch(**dict(zip(self._names, arrays))))
        self._kind = type(result)
        return tuple(result)

    def __call__(self, count: int, batch: ParticleBatch) -> Any:
        """Results of the whole batch of `count` particles, of which `batch` is this process's part, as NumPy
        arrays."""
        present = batch.present
        self._names = tuple(present)
        results = self._compiled(count, *present.values())
        return self._kind(*(values.numpy() for values in results))
