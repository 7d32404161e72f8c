import numpy as np
import pytest

from gmmhet.engine.batching.batches import Items, check_strength, prefetched
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.initialization.gradients import column_statistics
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.stages.train import bootstrap_interval
from gmmhet.engine.training.inputs import hold_out


def test_images_far_stronger_than_all_others_are_refused_by_id_and_strong_ones_are_not():
    ids, strength = np.arange(1, 101), np.random.default_rng(0).lognormal(0, 1, 100)
    check_strength(ids, strength)
    check_strength(ids, np.where(ids % 20 == 1, strength, 1e-6))      # most are blank
    strength[[6, 19, 40]] = 1e5, np.inf, np.nan
    with pytest.raises(ParticleError, match="the image of particle 7, 20, 41 is more than 1000 times as strong as most, or overflows"):
        check_strength(ids, strength)


@pytest.fixture(scope="module")
def particles(small):
    return read_particles(str(small / "set" / "particles.star"))


def test_without_symmetry_an_item_is_a_particle(particles):
    items = Items(particles)
    assert len(items) == 120 and not items.copy.any()
    np.testing.assert_array_equal(items.ids, particles.ids)
    images, rotation, shift, ctf = items.batch(np.array([5, 2]))
    np.testing.assert_array_equal(images, particles.read(np.array([5, 2])))
    np.testing.assert_array_equal(rotation, particles.rotation[[5, 2]])
    np.testing.assert_array_equal(shift, particles.shift_angst[[5, 2]])
    np.testing.assert_array_equal(ctf, particles.ctf[[5, 2]])


def test_with_symmetry_a_particle_is_taken_once_per_equivalent_orientation_with_the_same_image(particles):
    items = Items(particles, "c3")
    assert len(items) == 360
    np.testing.assert_array_equal(items.ids[:6], np.repeat(particles.ids[:2], 3))
    np.testing.assert_array_equal(items.copy[:6], [0, 1, 2] * 2)
    np.testing.assert_array_equal(items.of([1, 4]), [[3, 4, 5], [12, 13, 14]])
    np.testing.assert_allclose(items.rotation(items.of([1])[0]), particles.rotation[1] @ symmetry_matrices("c3"), atol=1e-6)
    features = np.arange(360)
    for chosen, batch in prefetched(items, np.array([7, 2]), 8, features):
        np.testing.assert_array_equal(batch[0], particles.read(chosen))
        np.testing.assert_array_equal(batch[4], features[items.of(chosen)][..., None])


@pytest.mark.parametrize("size", [1, 7, 120, 500])
def test_prefetched_batches_hold_every_item_once_in_order_with_its_features(particles, size):
    order = np.random.default_rng(0).permutation(120)
    features, seen = np.arange(240).reshape(120, 2), []
    for chosen, batch in prefetched(Items(particles), order, size, features):
        np.testing.assert_array_equal(batch[4], features[chosen][:, None])
        assert len(batch[0]) == len(chosen) <= size
        seen.extend(chosen)
    np.testing.assert_array_equal(seen, order)


def test_nothing_to_read_gives_no_batches(particles):
    assert list(prefetched(Items(particles), np.array([], int), 8)) == []


@pytest.mark.parametrize("fraction,expected", [(0.1, 12), (0.001, 1), (0.9, 108)])
def test_a_fraction_of_the_particles_is_held_out_at_random_by_seed(fraction, expected):
    held = hold_out(120, fraction, 1)
    assert held.sum() == expected
    np.testing.assert_array_equal(held, hold_out(120, fraction, 1))
    assert not np.array_equal(held, hold_out(120, fraction, 2))


def test_column_statistics_are_those_of_the_given_rows_and_a_constant_column_is_not_divided_by_zero():
    data = np.random.default_rng(0).normal(3, 2, (1000, 4)).astype(np.float32)
    data[:, 3] = 5
    rows = np.arange(0, 1000, 3)
    mean, deviation = column_statistics(data, rows, chunk=64)
    np.testing.assert_allclose(mean, data[rows].mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation[:3], data[rows, :3].std(0), rtol=1e-4)
    assert deviation[3] == 1


def test_the_bootstrap_interval_holds_the_mean_and_shrinks_with_more_particles():
    values = np.random.default_rng(0).normal(1, 1, 4000)
    few, many = (bootstrap_interval(v, 1) for v in (values[:100], values))
    assert few[0] < values[:100].mean() < few[1] and many[1] - many[0] == pytest.approx(4 * 1 / np.sqrt(4000), rel=0.15)
    assert few[1] - few[0] > 4 * (many[1] - many[0])
