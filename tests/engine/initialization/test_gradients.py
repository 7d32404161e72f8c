"""The encoder's input: gradients of the agreement, what stands beside them, and the file that holds them."""
import os

import numpy as np
import pytest
import tensorflow as tf
from untrained import last_layer, plain_likelihood, settings, untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import BatchFunction, ParticleBatch, Views
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.initialization.gradients import (
    Gradients,
    column_statistics,
    compute_gradients,
    holds_others,
    ids_of,
)
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.particles.particle_set import read_particles

COUNT = 5


@pytest.fixture(scope="module")
def particles(small):
    return read_particles(str(small / "set" / rundir.STAR)).select(np.arange(COUNT))


def fine_model(pixel_size=4.0, **network):
    """A model of images of 24 px; at less than 6 Å a pixel its encoder sees gradients at two resolutions."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 20, (30, 3)).astype(np.float32)
    neutral = Mixture(centers, np.full(30, 50, np.float32), np.full(30, 5, np.float32))
    made = settings(["amplitude", "position"], plain_likelihood(24, pixel_size), smoothness_angst=15.0,
                    network=dict(dict(hidden=(16, 16)), **network))
    return HeterogeneityModel(neutral, np.ones(30, bool), made)


def staged():
    """Positions on top of amplitudes."""
    first, made = untrained(parameters=["amplitude"]), untrained(parameters=["position"])
    return HeterogeneityModel(made.neutral, made.body, made.settings, first)


def batch_of(model, particles, rows=None):
    """Particles with latent points of the earlier stages, as tensors."""
    rows = np.arange(COUNT) if rows is None else np.asarray(rows)
    views = Views(particles, model.settings.symmetry)
    z = np.random.default_rng(3).normal(size=(COUNT, model.copies, model.n_earlier))[rows]
    batch = views.batch(rows)._replace(z=np.float32(z))
    return batch._replace(**{name: tf.constant(values) for name, values in batch.present.items()})


# ---- gradients

def log_likelihood(model, batch, outputs):
    """Log-likelihood [B] of the images where the decoder gives the views these numbers, [B * copies, F]."""
    start = model.starting_mixture(tf.reshape(batch.z, [-1, model.n_earlier]))
    mixture = model.symmetry.assemble(model.deformation.apply(tf.constant(outputs, tf.float32), start))
    observed = model.image_model.observe(batch)
    return model.image_model.log_likelihood(mixture, observed).numpy().astype(float)


@pytest.mark.parametrize("make", [untrained, lambda: untrained("c2"), staged],
                         ids=["plain", "symmetric", "staged"])
def test_features_are_slopes_of_the_log_likelihood_by_the_decoder_s_numbers_of_each_copy(particles, make):
    model = make()
    batch = batch_of(model, particles)
    terms = Gradients(model, model.likelihood)(batch)
    nothing = np.zeros((COUNT * model.copies, model.deformation.n_outputs))
    gradients = terms.features[:, :, :model.deformation.n_outputs].numpy()
    np.testing.assert_allclose(terms.agreement, log_likelihood(model, batch, nothing), rtol=1e-4, atol=1e-3)
    for number in range(0, model.deformation.n_outputs, 7):
        for copy in range(model.copies):
            step = np.zeros((COUNT, model.copies, model.deformation.n_outputs))
            step[:, copy, number] = 0.02
            step = step.reshape(nothing.shape)
            ends = [log_likelihood(model, batch, sign * step) for sign in (1, -1)]
            expected = (ends[0] - ends[1]) / 0.04
            np.testing.assert_allclose(gradients[:, copy, number], expected, rtol=0.02, atol=0.02)


def test_gradients_are_at_the_neutral_model_whatever_the_networks_say(particles):
    model = untrained()
    first = Gradients(model, model.likelihood)(batch_of(model, particles)).features
    kernel = last_layer(model.decoder.network)[0]
    kernel.assign(3 * kernel)
    model.consensus_shift.assign(tf.ones_like(model.consensus_shift))
    np.testing.assert_array_equal(Gradients(model, model.likelihood)(batch_of(model, particles)).features,
                                  first)


def test_gradients_are_the_same_whether_poses_turn_out_to_be_exact_or_not(particles):
    """The motion of the whole stays in them."""
    model = untrained(removes_rigid_motion=True)
    first = Gradients(model, model.likelihood)(batch_of(model, particles)).features
    model.state.removes_rigid_motion = False
    np.testing.assert_array_equal(Gradients(model, model.likelihood)(batch_of(model, particles)).features,
                                  first)


def test_the_latent_point_of_the_earlier_stages_stands_beside_the_gradients(particles):
    model = staged()
    batch = batch_of(model, particles)
    features = Gradients(model, model.likelihood)(batch).features
    assert features.shape == (COUNT, 1, model.encoder.n_features)
    np.testing.assert_array_equal(features[..., model.encoder.n_gradients:], batch.z)
    np.testing.assert_array_equal(model.encoder.z_earlier(features[:, 0]), batch.z[:, 0])


@pytest.mark.parametrize("symmetry", ["c1", "c3"])
def test_a_batch_has_the_gradients_of_its_particles_one_by_one(particles, symmetry):
    model = untrained(symmetry)
    gradients = Gradients(model, model.likelihood, with_pose=True)
    together = gradients(batch_of(model, particles))
    for row in (0, 4):
        for found, expected in zip(gradients(batch_of(model, particles, [row])), together):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found[0], expected[row], atol=1e-3 * scale)


def test_derivatives_by_the_pose_are_those_of_the_forward_model_where_they_are_asked_for(particles):
    model = untrained()
    batch = batch_of(model, particles)
    found = Gradients(model, model.likelihood, with_pose=True)(batch)
    expected = model.image_model.pose_derivatives(model.neutral, model.image_model.observe(batch))
    for one, other in zip((found.slope, found.curvature), expected):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())
    without = Gradients(model, model.likelihood)(batch)
    assert without.slope.shape == without.curvature.shape == (COUNT, 0)


def test_a_finer_training_sees_the_gradient_of_all_rings_and_of_those_up_to_the_first_resolution():
    rng, model = np.random.default_rng(3), fine_model()
    ctf = np.tile(np.float32([15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1, 0]), (2, 1))
    images = rng.normal(size=(2, 24, 24))
    parts = (tf.constant(part, tf.float32) for part
             in (images, [np.eye(3)] * 2, np.zeros((2, 2)), ctf, np.ones(2)))
    batch = ParticleBatch(*parts, z=tf.zeros([2, 1, 0]))
    alone, outputs = fine_model(resolution_levels=1), model.deformation.n_outputs
    both = Gradients(model, model.likelihood)(batch)
    assert (model.resolution_levels, alone.resolution_levels, both.features.shape[2]) == (2, 1, 2 * outputs)
    fine, coarse = both.features[..., :outputs], both.features[..., outputs:]
    for part, agreement in ((fine, model.likelihood), (coarse, model.likelihood.coarse)):
        found = Gradients(alone, agreement)(batch)
        np.testing.assert_allclose(part, found.features, rtol=1e-3, atol=1e-3 * np.abs(found.features).max())
    np.testing.assert_allclose(both.agreement, Gradients(alone, model.likelihood)(batch).agreement, rtol=1e-5)
    assert model.likelihood.coarse.grid.m < model.likelihood.grid.m and np.any(fine != coarse)


# ---- the file

def computed(model, particles, path, z_earlier=None, with_pose=True):
    """What is known of the particles, from a file."""
    views = Views(particles, model.settings.symmetry)
    z = np.zeros((len(views), model.n_earlier), np.float32) if z_earlier is None else z_earlier
    gradients = BatchFunction(Gradients(model, model.likelihood, with_pose), Devices())
    return compute_gradients(str(path), views, z, gradients, Devices())


def test_gradients_of_all_views_are_in_a_file_in_their_order_and_the_rest_beside_it(particles, tmp_path):
    model = untrained("c2")
    found = computed(model, particles, tmp_path / "gradients.npy")
    expected = Gradients(model, model.likelihood, True)(batch_of(model, particles))
    flat = np.reshape(expected.features, (2 * COUNT, -1))
    np.testing.assert_allclose(np.load(tmp_path / "gradients.npy"), flat, atol=1e-4 * np.abs(flat).max())
    np.testing.assert_array_equal(found.features[np.array([7, 0])],
                                  np.load(tmp_path / "gradients.npy")[[7, 0]])
    np.testing.assert_allclose(found.agreement, expected.agreement, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.pose.slope, expected.slope, atol=1e-3 * np.abs(expected.slope).max())
    assert found.pose.curvature.shape == (COUNT, 5, 5)
    np.testing.assert_array_equal(ids_of(str(tmp_path / "gradients.npy")), particles.ids)


def test_a_complete_file_is_kept_and_one_that_was_interrupted_is_not(particles, tmp_path):
    model, path = untrained(), tmp_path / "gradients.npy"
    computed(model, particles, path)
    kept = np.load(path)
    np.save(path, kept + 1)
    np.testing.assert_array_equal(computed(model, particles, path).features[np.arange(COUNT)], kept + 1)
    (values,) = (name for name in os.listdir(tmp_path) if name != "gradients.npy")
    os.remove(tmp_path / values)      # which is written last
    assert ids_of(str(path)) is None
    np.testing.assert_allclose(computed(model, particles, path).features[np.arange(COUNT)], kept, rtol=1e-5)


def test_a_file_of_other_latent_points_of_the_earlier_stages_is_recognised(particles, tmp_path):
    model, path = staged(), tmp_path / "gradients.npy"
    z = np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32)
    assert not holds_others(str(path), z)      # there is none
    computed(model, particles, path, z)
    assert not holds_others(str(path), z) and holds_others(str(path), z + np.float32(1e-6))
    assert not holds_others(str(path), np.zeros((COUNT, 0), np.float32))      # a first stage has no others


class WithOneStrongImage:
    """A set of particles whose image number 3 is a million times as strong."""

    def __init__(self, particles):
        self._particles = particles

    def __getattr__(self, name):
        return getattr(self._particles, name)

    def __len__(self):
        return len(self._particles)

    def read(self, rows):
        return self._particles.read(rows) * np.where(np.asarray(rows) == 3, 1e6, 1)[:, None,
                                                                                    None].astype(np.float32)


def test_a_particle_whose_gradient_is_far_stronger_than_the_others_is_refused_by_its_id(small, tmp_path):
    many = read_particles(str(small / "set" / rundir.STAR)).select(np.arange(40))
    with pytest.raises(ParticleError, match="the image of particle %d is more than 1000 times" % many.ids[3]):
        computed(untrained(), WithOneStrongImage(many), tmp_path / "gradients.npy")
    assert not (tmp_path / "gradients.npy").exists() and ids_of(str(tmp_path / "gradients.npy")) is None


def test_column_statistics_are_those_of_the_given_rows_and_a_constant_column_is_not_divided_by_zero():
    data = np.random.default_rng(0).normal(3, 2, (1000, 4)).astype(np.float32)
    data[:, 3] = 5
    rows = np.arange(0, 1000, 3)
    mean, deviation = column_statistics(data, rows, chunk=64)
    np.testing.assert_allclose(mean, data[rows].mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation[:3], data[rows, :3].std(0), rtol=1e-4)
    assert deviation[3] == 1
