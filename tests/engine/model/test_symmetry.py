"""Symmetric particles: how whole ones are made of copies that vary each in its own way."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import last_layer, plain_likelihood, settings

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit
from gmmhet.engine.imaging.pose import random_rotations, symmetry_matrices
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch, project_mixture
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.symmetry import SymmetryCopies


def trimer(seed=0):
    """A mixture of c3, 20 Gaussians a unit."""
    rng = np.random.default_rng(seed)
    unit, amplitudes = rng.normal(0, 8, (20, 3)) + [25, 0, 0], rng.uniform(0.5, 2, 20)
    centers = np.float32(np.concatenate([unit @ turn.T for turn in symmetry_matrices("c3")]))
    return Mixture(centers, np.float32(np.tile(amplitudes, 3)), np.full(60, 4.0, np.float32))


def varying(neutral, part=False):
    """Gaussians of one asymmetric unit, or five of them."""
    free = asymmetric_unit(neutral.centers, neutral.amplitudes, "c3")
    if part:
        free[np.flatnonzero(free)[5:]] = False
    return free


def repeated(neutral, count):
    """`count` times the same mixture, as a batch."""
    return MixtureBatch(*(tf.repeat(tf.constant(part)[None], count, 0) for part in (
        neutral.centers, neutral.amplitudes, neutral.widths)))


@pytest.mark.parametrize("part", [False, True], ids=["asymmetric unit", "part of it"])
def test_the_image_of_a_symmetric_particle_is_the_sum_of_what_its_copies_say(part):
    rng, neutral, likelihood = np.random.default_rng(0), trimer(), plain_likelihood(32, 4.0, 120.0)
    made = settings(["amplitude", "position"], likelihood, smoothness_angst=10.0, latent_dim=2, symmetry="c3",
                    whole_unit=not part)
    model = HeterogeneityModel(neutral, varying(neutral, part), made)
    kernel = last_layer(model.decoder.network)[0]
    kernel.assign(rng.normal(0, 0.3, kernel.shape))
    z = tf.constant(rng.normal(size=(6, 2)), tf.float32)
    pose = Pose(tf.constant(random_rotations(2, rng), tf.float32), tf.zeros([2, 2]))
    views = tf.einsum("bij,cjk->bcik", pose.rotation, model.symmetry.rotations)
    view, still = Pose(tf.reshape(views, [6, 3, 3]), tf.zeros([6, 2])), repeated(neutral, 1)

    def image(mixture, pose):
        return project_mixture(MixtureBatch(*(tf.constant(p) for p in mixture)), pose,
                               likelihood.grid).numpy()
    change = image(model.mixture(z), view) - image([part[0] for part in still], view)
    of_copies = change.reshape(2, 3, *change.shape[1:]).sum(1)
    expected = image([part[0] for part in still], pose) + of_copies
    found = image(model.symmetry.assemble(model.mixture(z)), pose)
    assert np.abs(change).max() > 0.01 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("part", [False, True], ids=["asymmetric unit", "part of it"])
def test_a_particle_whose_copies_are_all_neutral_is_the_neutral_one(part):
    neutral, grid = trimer(), plain_likelihood(32, 4.0).grid
    copies = SymmetryCopies("c3", neutral, varying(neutral, part), not part)
    whole = copies.assemble(repeated(neutral, 3))
    pose = Pose(tf.constant(random_rotations(1, np.random.default_rng(1)), tf.float32), tf.ones([1, 2]))
    expected = project_mixture(repeated(neutral, 1), pose, grid).numpy()
    np.testing.assert_allclose(project_mixture(whole, pose, grid), expected,
                               atol=1e-4 * np.abs(expected).max())


def test_each_copy_is_turned_to_its_place_by_hand():
    neutral, rng = trimer(), np.random.default_rng(2)
    free = varying(neutral, True)
    copies = SymmetryCopies("c3", neutral, free, False)
    parts = [rng.normal(size=(6, 60, *shape)).astype(np.float32) for shape in ((3,), (), ())]
    centers, amplitudes, widths = parts
    found = copies.assemble(MixtureBatch(*map(tf.constant, parts)))
    static, moving = len(copies.static_part.amplitudes), free.sum()
    for particle in range(2):
        for copy, turn in enumerate(symmetry_matrices("c3")):
            rows = slice(static + copy * moving, static + (copy + 1) * moving)
            own = 3 * particle + copy
            np.testing.assert_allclose(found.centers[particle, rows], centers[own, free] @ turn.T, atol=1e-5)
            np.testing.assert_array_equal(found.amplitudes[particle, rows], amplitudes[own, free])
            np.testing.assert_array_equal(found.widths[particle, rows], widths[own, free])
        np.testing.assert_array_equal(found.centers[particle, :static], copies.static_part.centers)


def test_widths_that_are_the_same_for_all_stay_so():
    neutral = trimer()
    copies, batch = SymmetryCopies("c3", neutral, varying(neutral), True), repeated(neutral, 6)
    alike = copies.assemble(batch._replace(widths=tf.constant(neutral.widths)))
    assert alike.widths.shape == (60,) and copies.assemble(batch).widths.shape == (2, 60)
    np.testing.assert_array_equal(alike.widths, copies.assemble(batch).widths[0])


def test_particles_are_assembled_as_they_are_one_by_one():
    neutral, rng = trimer(), np.random.default_rng(3)
    copies = SymmetryCopies("c3", neutral, varying(neutral, True), False)
    parts = repeated(neutral, 6)
    batch = MixtureBatch(*(part + tf.constant(rng.normal(size=part.shape), tf.float32) for part in parts))
    together = copies.assemble(batch)
    for particle in range(2):
        alone = copies.assemble(MixtureBatch(*(part[3 * particle:3 * particle + 3] for part in batch)))
        for one, all_of_them in zip(alone, together):
            np.testing.assert_array_equal(one[0], all_of_them[particle])


def test_without_symmetry_a_particle_is_its_mixture():
    neutral = trimer()
    copies, batch = SymmetryCopies("c1", neutral, varying(neutral, True), False), repeated(neutral, 2)
    assert copies.copies == 1 and copies.assemble(batch) is batch and copies.asymmetric_unit(batch) is batch
    assert len(copies.static_part.amplitudes) == 0


def test_beside_a_whole_unit_there_is_nothing_and_beside_a_part_the_neutral_mixture_less_its_copies():
    neutral = trimer()
    assert len(SymmetryCopies("c3", neutral, varying(neutral), True).static_part.amplitudes) == 0
    static = SymmetryCopies("c3", neutral, varying(neutral, True), False).static_part
    assert len(static.amplitudes) == 60 + 3 * 5 and np.all(static.amplitudes[60:] < 0)
    of_copies = 3 * neutral.amplitudes[varying(neutral, True)].sum()
    assert static.amplitudes.sum() == pytest.approx(neutral.amplitudes.sum() - of_copies, rel=1e-5)


def test_a_group_that_is_neither_cyclic_nor_dihedral_is_refused():
    with pytest.raises(ValueError, match=r"symmetry must be cN or dN \(such as c3 or d2\), got 'o'"):
        SymmetryCopies("o", trimer(), np.ones(60, bool), True)
