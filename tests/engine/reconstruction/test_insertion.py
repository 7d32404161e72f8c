"""Insertion of slices: equal to the slow loop, and to itself for any number of threads."""
import numba
import numpy as np

from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.reconstruction.backprojection import Accumulator
from gmmhet.engine.reconstruction.insertion import insert_slices

FLAT_CTF = np.array([0, 0, 0, 300, 0, 1, 0, 0, 1.0])      # asin(1): the CTF is 1 everywhere


def slow_insertion(values, weights, rotation, radius):
    """Every frequency of the half plane to its eight neighbours, and its Friedel mate to those of -q."""
    size, origin = 2 * radius + 3, radius + 1
    numerator, denominator = np.zeros((size,) * 3, complex), np.zeros((size,) * 3)
    for value, weight, a in zip(values, weights, rotation):
        for ky in range(-radius, radius + 1):
            for kx in range(0 if ky >= 0 else 1, radius + 1):
                if kx * kx + ky * ky > radius * radius:
                    continue
                for sign in (1, -1):
                    q = (sign * (a.T @ [kx, ky, 0]) + origin)[::-1]
                    base = np.floor(q).astype(int)
                    for corner in np.ndindex(2, 2, 2):
                        w = np.prod(np.where(corner, q - base, 1 - (q - base)))
                        v = value[ky, kx] if sign > 0 else value[ky, kx].conj()
                        place = tuple(base + corner)
                        if max(place) < size:
                            numerator[place] += w * v
                            denominator[place] += w * weight[ky, kx]
    return numerator, denominator


def test_insertion_equals_the_slow_loop_for_any_number_of_slabs():
    rng, radius, height = np.random.default_rng(0), 5, 14
    values = (rng.normal(size=(3, height, height // 2 + 1)) + 1j
              * rng.normal(size=(3, height, height // 2 + 1))).astype(np.complex64)
    weights = rng.uniform(size=values.shape).astype(np.float32)
    rotation = np.concatenate([random_rotations(2, rng), np.eye(3)[None]])
    slow = slow_insertion(values, weights, rotation, radius)
    for slabs in (1, 4, 13):
        shape = (13, 13, radius + 2)
        sums = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
        insert_slices(*sums, values, weights, rotation, radius, slabs)
        for fast, whole in zip(sums, slow):
            assert np.abs(fast[:, :, 1:] - whole[:, :, 7:]).max() < 1e-5
            plane = fast[:, :, 0] + fast[::-1, ::-1, 0].conj()
            assert np.abs(plane - whole[:, :, 6]).max() < 1e-5


def test_the_sums_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 16, 16)).astype(np.float32)
    poses, before, maps = random_rotations(20, rng), numba.get_num_threads(), []
    for threads in (1, before):
        numba.set_num_threads(threads)
        sums = Accumulator(16, 2.0)
        sums.add(images, poses, np.zeros((20, 2)), np.tile(FLAT_CTF, (20, 1)))
        maps.append(sums.map())
    numba.set_num_threads(before)
    np.testing.assert_array_equal(maps[0], maps[1])
