"""Views of particles, and the batches in which they stream through a compiled function."""
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from gmmhet.engine.batching.batches import (
    BatchFunction,
    ParticleBatch,
    Views,
    by_view,
    check_strength,
    prefetched,
)
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.particles.particle_set import read_particles

ALONE = Devices()


def test_images_far_stronger_than_all_others_are_refused_by_id_and_strong_ones_are_not():
    ids, strength = np.arange(1, 101), np.random.default_rng(0).lognormal(0, 1, 100)
    check_strength(ids, strength)
    check_strength(ids, np.where(ids % 20 == 1, strength, 1e-6))      # most are blank
    strength[[6, 19, 40]] = 1e5, np.inf, np.nan
    message = "the image of particle 7, 20, 41 is more than 1000 times as strong as most, or overflows"
    with pytest.raises(ParticleError, match=message):
        check_strength(ids, strength)


@pytest.fixture(scope="module")
def particles(small):
    return read_particles(str(small / "set" / "particles.star"))


def test_without_symmetry_a_view_is_a_particle(particles):
    views = Views(particles)
    assert len(views) == 120 and not views.copy.any() and views.copies == 1
    np.testing.assert_array_equal(views.ids, particles.ids)
    rows = np.array([5, 2])
    batch = views.batch(rows)
    np.testing.assert_array_equal(batch.images, particles.read(rows))
    np.testing.assert_array_equal(batch.rotation, particles.rotation[rows])
    np.testing.assert_array_equal(batch.shift_angst, particles.shift_angst[rows])
    np.testing.assert_array_equal(batch.ctf, particles.ctf[rows])
    np.testing.assert_array_equal(batch.optics_group, particles.optics_group[rows])


def test_a_batch_names_what_it_holds_and_knows_its_pose(particles):
    batch = Views(particles).batch(np.array([5, 2]))
    assert list(batch.present) == ["images", "rotation", "shift_angst", "ctf", "optics_group"]
    assert batch.pose.rotation is batch.rotation and batch.pose.shift_angst is batch.shift_angst
    weighted = batch._replace(weight=np.ones(2))
    assert list(weighted.present)[-1] == "weight" and weighted.features is None


def test_with_symmetry_a_particle_is_taken_once_per_equivalent_orientation_with_the_same_image(particles):
    views = Views(particles, "c3")
    assert len(views) == 360
    np.testing.assert_array_equal(views.ids[:6], np.repeat(particles.ids[:2], 3))
    np.testing.assert_array_equal(views.copy[:6], [0, 1, 2] * 2)
    np.testing.assert_array_equal(views.of([1, 4]), [[3, 4, 5], [12, 13, 14]])
    turned = particles.rotation[1] @ symmetry_matrices("c3")
    np.testing.assert_allclose(views.rotation(views.of([1])[0]), turned, atol=1e-6)
    features = np.arange(360)
    for rows, batch in prefetched(views, np.array([7, 2]), 8, ALONE, features=features):
        np.testing.assert_array_equal(batch.images, particles.read(rows))
        np.testing.assert_array_equal(batch.features, features[views.of(rows)][..., None])


@pytest.mark.parametrize("size", [1, 7, 120, 500])
def test_prefetched_batches_hold_every_particle_once_in_order_with_what_belongs_to_its_views(particles, size):
    order = np.random.default_rng(0).permutation(120)
    features, z, passed = np.arange(240).reshape(120, 2), np.arange(120.0), []
    for rows, batch in prefetched(Views(particles), order, size, ALONE, features=features, z=z):
        np.testing.assert_array_equal(batch.features, features[rows][:, None])
        np.testing.assert_array_equal(batch.z, z[rows][:, None, None])
        assert len(batch.images) == len(rows) <= size
        passed.extend(rows)
    np.testing.assert_array_equal(passed, order)


def test_nothing_to_read_gives_no_batches(particles):
    assert list(prefetched(Views(particles), np.array([], int), 8, ALONE)) == []


def test_the_views_of_a_batch_are_its_particles_copies_one_after_another():
    values = tf.reshape(tf.range(24.0), [2, 3, 4])
    np.testing.assert_array_equal(by_view(values), np.arange(24.0).reshape(6, 4))


class Sums(NamedTuple):
    """Of each particle: the sum over its image, and its optics group."""

    total: Any
    group: Any


def test_a_function_of_batches_gives_its_results_by_name_and_is_compiled_once_for_all_sizes(particles):
    traced = []

    def function(batch: ParticleBatch) -> Sums:
        traced.append(list(batch.present))
        return Sums(tf.reduce_sum(batch.images, (1, 2)), batch.optics_group)
    views, compiled, results = Views(particles), BatchFunction(function, ALONE), []
    for rows, batch in prefetched(views, np.arange(120), 50, ALONE):
        results.append(compiled(len(rows), batch))
        assert isinstance(results[-1], Sums) and isinstance(results[-1].total, np.ndarray)
    assert [len(result.group) for result in results] == [50, 50, 20]
    assert traced == [["images", "rotation", "shift_angst", "ctf", "optics_group"]]
    total = np.concatenate([result.total for result in results])
    np.testing.assert_allclose(total, particles.read(np.arange(120)).sum((1, 2)), rtol=1e-3, atol=1e-2)
