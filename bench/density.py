"""Systems whose truth is real density, which no sum of Gaussians is: maps of different states, and a map of
which parts turn.

A `MapSystem` answers what `bench/truth.py` asks of a `systems.System`. Its images are made by RELION from the
maps themselves: `relion_project` sees every map, or part of a map, at its own pose, and what they show adds
up.
"""
import glob
import gzip
import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

import mrcfile
import numpy as np
import tensorflow as tf
from scipy import fft
from scipy.ndimage import affine_transform, gaussian_filter
from systems import EDGE_PX, SWEEP, Family, Mover, State

from gmmhet.engine.gmm.regions import sample_map
from gmmhet.engine.gmm.seeding import find_threshold, soft_edge
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles

#: names of the sets, and the folder of --data that holds the maps of each
NAMES = {"states": "states_10076", "bodies": "bodies_10180"}
#: signal to noise of each set where none is asked for
SNR = {"states": 0.05, "bodies": 0.03}
#: share of the particles in each of the ten states
POPULATIONS = (0.2, 0.16, 0.14, 0.12, 0.1, 0.08, 0.07, 0.06, 0.04, 0.03)
#: largest turn of a body to either side
BODY_DEG = 12.0
#: padding of maps whose slices are taken
PADDING = 2


class Slices:
    """Central slices of a map's transform: trilinear interpolation in the transform of the padded map, which
    is divided by the transform of the kernel first, as RELION's projector does.

    Parameters
    ----------
    volume : [L, L, L], origin at voxel L//2.
    pixel_size : float, Å/px.
    """

    def __init__(self, volume, pixel_size):
        box = len(volume)
        self._padded, self._pixel_size = PADDING * box, pixel_size
        axis = np.arange(box) - box // 2
        kernel = np.sinc(axis / self._padded) ** 2
        volume = volume / (kernel[:, None, None] * kernel[:, None] * kernel)
        spread = np.zeros(3 * [self._padded], np.float32)
        spread[np.ix_(axis % self._padded, axis % self._padded, axis % self._padded)] = volume
        whole = fft.fftshift(fft.fftn(spread, workers=-1)) / box
        self._values = tf.constant(np.stack([whole.real, whole.imag], -1).reshape(-1, 2).astype(np.float32))

    def project(self, pose, grid):
        """As `project_mixture`: [B, 2, 2m+1, m+1]."""
        side = self._padded
        frequency = np.stack(np.broadcast_arrays(grid.kx, grid.ky), -1).reshape(-1, 2)               # [K, 2]
        rotation = tf.cast(pose.rotation, tf.float32)
        point = tf.einsum("kc,bci->bki", tf.constant(frequency), rotation[:, :2])            # x, y, z in 1/Å
        point = point * (side * self._pixel_size) + side // 2
        low = tf.clip_by_value(tf.floor(point), 0, side - 2)         # the plane's corners lie beyond ring m
        share, low = point - low, tf.cast(low, tf.int32)
        total = tf.zeros([tf.shape(point)[0], len(frequency), 2])
        for corner in np.ndindex(2, 2, 2):
            weight = tf.reduce_prod(tf.where(np.array(corner, bool), share, 1 - share), 2)
            x, y, z = tf.unstack(low + np.array(corner, np.int32), axis=2)
            total += weight[..., None] * tf.gather(self._values, (z * side + y) * side + x)
        shift = tf.cast(pose.shift_angst, tf.float32)
        phase = -2 * np.pi * tf.einsum("kc,bc->bk", tf.constant(frequency), shift)
        real, imaginary = total[..., 0], total[..., 1]
        turned = tf.stack([real * tf.cos(phase) - imaginary * tf.sin(phase),
                           real * tf.sin(phase) + imaginary * tf.cos(phase)], 1)
        return tf.reshape(turned, [-1, 2, *grid.shape])


@dataclass(frozen=True)
class TurnedSlices:
    """Slices of a part of a map that is turned: its `Slices`, and rotation matrix [3, 3] and pivot [3] Å of
    the turn."""

    slices: Slices
    turn: np.ndarray
    pivot: np.ndarray

    def project(self, pose, grid):
        """As `project_mixture`."""
        return self.slices.project(turned_pose(*pose, self.turn, self.pivot), grid)


def turned_pose(rotation, shift_angst, turn, pivot):
    """Pose of the rotation ``A R`` and the shift ``t + A (h - R h)`` at which a part that turned by R about h
    is seen.

    Parameters
    ----------
    rotation : [B, 3, 3]; shift_angst : [B, 2].
    turn : R, [3, 3] or [B, 3, 3]; pivot : h, [3] Å.
    """
    rotation, shift_angst, turn, pivot = (tf.cast(values, tf.float32)
                                          for values in (rotation, shift_angst, turn, pivot))
    moved = pivot - tf.linalg.matvec(turn, pivot)
    return Pose(tf.matmul(rotation, turn), shift_angst + tf.linalg.matvec(rotation, moved)[:, :2])


@dataclass(frozen=True)
class MapSystem(Family):
    """A family of sums of maps.

    Attributes
    ----------
    name : str.
    maps : tuple of arrays [L, L, L], which movers and states name: those present add up.
    pixel_size : float, Å/px.
    movers : tuple of Mover; states : tuple of State; populations sum to 1.
    """

    name: str
    maps: tuple
    pixel_size: float
    movers: tuple
    states: tuple

    @property
    def size(self):
        """Number of maps."""
        return len(self.maps)

    @property
    def box(self):
        """Box of the maps, px."""
        return len(self.maps[0])

    @cached_property
    def _slices(self):
        return [Slices(volume, self.pixel_size) for volume in self.maps]

    def drawn(self, chosen, mover, angle_deg):
        """Slices of each chosen map (see `Family`)."""
        chosen = np.flatnonzero(chosen)
        if mover is None:
            return [self._slices[number] for number in chosen]
        turn, pivot = self.movers[mover].turn(angle_deg), self.movers[mover].pivot
        return [TurnedSlices(self._slices[number], turn, pivot) for number in chosen]

    def project(self, part, pose, grid):
        """As `Family.project`."""
        return sum(slices.project(pose, grid) for slices in part)

    def volume(self, chosen, box, pixel_size):
        """As `Family.volume`, of the maps' own sampling."""
        return sum(self.maps[number] for number in np.flatnonzero(chosen))

    def true_map(self, coordinate, box, pixel_size):
        """As `Family.true_map`, of the maps' own sampling."""
        absent, total = self.states[int(coordinate[0])].absent, np.zeros_like(self.maps[0])
        for number in np.flatnonzero(~absent):
            volume = self.maps[number]
            for mover, angle in zip(self.movers, coordinate[1:]):
                if mover.members[number] and angle:
                    volume = turned_map(volume, self.pixel_size, mover, angle)
            total = total + volume
        return total

    def _body(self, mover):
        """The map of a mover at rest."""
        return self.volume(self.movers[mover].members, self.box, self.pixel_size)

    def points(self, mover):
        """Voxels of the body, by their density."""
        body = self._body(mover)
        index = np.argwhere(body > find_threshold(body))
        return (index - self.box // 2)[:, ::-1] * self.pixel_size, body[tuple(index.T)]

    def owners(self, centers):
        """By the most density that each body has there at any angle, if more than what is at rest (see
        `Family`)."""
        if not self.movers:
            return np.zeros(len(centers), int)
        still = ~np.any([m.members for m in self.movers], axis=0)
        density = [sample_map(self.volume(still, self.box, self.pixel_size), self.pixel_size, centers)]
        for j, mover in enumerate(self.movers):
            turned = (turned_map(self._body(j), self.pixel_size, mover, angle)
                      for angle in np.linspace(-mover.angle_deg, mover.angle_deg, SWEEP))
            density.append(np.max([sample_map(body, self.pixel_size, centers) for body in turned], axis=0))
        return np.argmax(density, axis=0)

    def region_mask(self, box, pixel_size):
        """As `Family.region_mask`, where any state differs from the mean or a body can be."""
        coordinates, prior = self.grid(3)
        seen = np.stack([self.true_map(c, box, pixel_size) for c in coordinates])
        mean = np.tensordot(prior, seen, 1)
        spread = np.sqrt(np.tensordot(prior, (seen - mean) ** 2, 1))
        return soft_edge(spread > find_threshold(spread), 1.0, EDGE_PX)

    def null(self):
        """The same at rest in every particle: with everything present, or, where states are maps by
        themselves, of their mean."""
        name, single = self.name + " null", (State(1.0, np.zeros(self.size, bool)),)
        if self.movers:
            return replace(self, name=name, states=single)
        mean = sum(state.population * self.volume(~state.absent, self.box, self.pixel_size)
                   for state in self.states)
        return MapSystem(name, (mean,), self.pixel_size, (), (State(1.0, np.zeros(1, bool)),))

    def over(self, sigma):
        """The system with its density over sigma."""
        return replace(self, maps=tuple(np.float32(volume / sigma) for volume in self.maps))


def turned_map(volume, pixel_size, mover, angle_deg):
    """A map [L, L, L] turned by a mover's angle, by cubic splines."""
    inverse, pivot = mover.turn(-angle_deg)[::-1, ::-1], mover.pivot[::-1] / pixel_size + len(volume) // 2
    return affine_transform(volume, inverse, pivot - inverse @ pivot, order=3).astype(np.float32)


# ---- the two sets

def read_zipped(path):
    """A map [L, L, L] of an .mrc.gz, and its pixel size (Å/px)."""
    with gzip.open(path) as packed, tempfile.NamedTemporaryFile(suffix=".mrc") as file:
        file.write(packed.read())
        file.flush()
        volume, pixel_size = read_map(file.name)
        return np.array(volume), pixel_size


def make(name, folder):
    """One of NAMES from the maps in `folder`.

    Raises
    ------
    FileNotFoundError
        when they are not there.
    """
    folder = os.path.join(folder, NAMES[name])
    if not glob.glob(os.path.join(folder, "*.mrc.gz")):
        raise FileNotFoundError("--data holds no maps for the set %s: expected them in %s" % (name, folder))
    return {"states": states, "bodies": bodies}[name](folder)


def states(folder):
    """Ten maps of a ribosome along its assembly, of unequal population, within one soft mask: nothing of a
    state happens in the solvent."""
    found = [read_zipped(path) for path in sorted(glob.glob(os.path.join(folder, "vol_*.mrc.gz")))]
    highest = np.max([gaussian_filter(volume, 1.0) for volume, _ in found], axis=0)
    mask = soft_edge(highest > find_threshold(highest), 1.0, EDGE_PX)
    count = len(found)
    population = np.array(POPULATIONS[:count]) / np.sum(POPULATIONS[:count])
    return MapSystem("states", tuple(np.float32(mask * volume) for volume, _ in found), found[0][1], (),
                     tuple(State(p, np.arange(count) != s) for s, p in enumerate(population)))


def bodies(folder):
    """A spliceosome of which two bodies turn, each by its own angle, about where it hangs on the rest."""
    volume, pixel_size = read_zipped(os.path.join(folder, "map.mrc.gz"))
    masks = [read_zipped(path)[0] for path in sorted(glob.glob(os.path.join(folder, "body*.mrc.gz")))]
    shared = np.maximum(1, np.sum(masks, axis=0))
    parts = [np.float32(volume * mask / shared) for mask in masks]
    rest = np.float32(volume - np.sum(parts, axis=0))
    middle = _middle(np.maximum(rest, 0), pixel_size)
    movers = []
    for number, (part, mask) in enumerate(zip(parts, masks), 1):
        near = gaussian_filter(mask, 2.0) * np.maximum(rest, 0)           # what of the rest the body touches
        pivot, own = _middle(near, pixel_size), _middle(np.maximum(part, 0), pixel_size)
        axis = np.cross(own - pivot, np.cross(own - pivot, middle - pivot))
        members = np.arange(1 + len(masks)) == number
        movers.append(Mover(members, pivot, axis / np.linalg.norm(axis), BODY_DEG))
    return MapSystem("bodies", (rest, *parts), pixel_size, tuple(movers),
                     (State(1.0, np.zeros(1 + len(masks), bool), tuple(range(len(masks)))),))


def _middle(density, pixel_size):
    """Centre of mass of a map without negative values, [3] Å."""
    index = np.indices(density.shape).reshape(3, -1) - len(density) // 2
    return (index @ density.ravel() / density.sum())[::-1] * pixel_size


# ---- images by RELION

@dataclass(frozen=True)
class ProjectedSet:
    """CTF-multiplied projections of a system's particles by RELION, without noise: what `noisy_images` takes.

    Attributes
    ----------
    projections : [n, L, L].
    """

    projections: np.ndarray

    def __len__(self):
        return len(self.projections)

    def images(self, rows):
        """Images of particles, [B, L, L]."""
        return self.projections[rows]


def project(system, coordinates, rotation, shift_angst, ctf):
    """A system's particles at coordinates [n, 1 + movers] and poses, as RELION sees its maps: ProjectedSet.

    Raises
    ------
    RuntimeError
        with what relion_project said, when it fails.
    """
    n, box = len(coordinates), system.box
    total = np.zeros((n, box, box), np.float32)
    absent = np.stack([s.absent for s in system.states])[coordinates[:, 0].astype(int)]          # [n, maps]
    with tempfile.TemporaryDirectory() as folder:
        for number, volume in enumerate(system.maps):
            rows = np.flatnonzero(~absent[:, number])
            if not len(rows):
                continue
            pose = Pose(rotation[rows], shift_angst[rows])
            for mover, angles in zip(system.movers, coordinates[rows, 1:].T):
                if mover.members[number]:
                    pose = turned_pose(*pose, mover.turn(angles), mover.pivot)
            total[rows] += _relion_project(folder, volume, system.pixel_size,
                                           ParticleMetadata(*(np.asarray(v) for v in pose), ctf[rows]))
    return ProjectedSet(total)


def _relion_project(folder, volume, pixel_size, metadata):
    """Projections [n, L, L] of a map at the poses and CTF of particles."""
    path, star, images = (os.path.join(folder, name) for name in ("map.mrc", "at.star", "seen"))
    write_map(path, volume, pixel_size)
    blank = np.zeros((1, *volume.shape[1:]), np.float32)
    write_particles(star, os.path.join(folder, "blank.mrcs"), (blank for _ in range(len(metadata))), metadata,
                    pixel_size)
    done = subprocess.run(["relion_project", "--i", path, "--ang", star, "--ctf", "--angpix",
                           "%.9g" % pixel_size, "--o", images], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("relion_project failed:\n%s" % (done.stdout + done.stderr)[-2000:])
    with mrcfile.open(images + ".mrcs") as file:
        return np.array(file.data, np.float32).reshape(len(metadata), *volume.shape[1:])
