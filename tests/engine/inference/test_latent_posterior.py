"""Latent points with the decoder fixed: posteriors and evidence against integrals that are done on a grid."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import FeaturedViews, Views
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.inference.latent_posterior import gaussian_prior, infer_latents, unit_prior
from gmmhet.engine.inference.pose_errors import PoseErrors, log_marginal
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.particles.particle_set import read_particles

COUNT = 12


class Decoded:
    """What a model decodes at latent points [n * copies, D], as `Conformations`."""

    def __init__(self, model, z):
        self._model, self._z = model, z.reshape(-1, model.copies, z.shape[1])

    def at(self, rows):
        z = self._z[rows].reshape(-1, self._z.shape[2])
        return self._model.symmetry.assemble(self._model.mixture(tf.constant(z, tf.float32)))


@pytest.fixture(scope="module")
def real(small):
    return read_particles(str(small / "set" / rundir.STAR)).select(np.arange(COUNT))


def points(model, seed=4):
    return np.random.default_rng(seed).normal(size=(COUNT * model.copies,
                                                    model.latent_dim)).astype(np.float32)


def inputs(model, particles, z=None, poses=None):
    """Images of what the model decodes at z (or of the neutral mixture), with random features."""
    conformations = SingleConformation(model.neutral) if z is None else Decoded(model, z)
    views = Views(HomogeneousParticles(particles, conformations, model.likelihood, 1, poses),
                  model.settings.symmetry)
    features = np.random.default_rng(5).normal(size=(len(views), model.encoder.n_features)).astype(np.float32)
    if z is not None and model.n_earlier:
        features[:, model.encoder.n_gradients:] = z[:, :model.n_earlier]
    return FeaturedViews(views, features)


def inferred(model, given, steps=6, poses=None, prior=None):
    return infer_latents(model, given, prior or unit_prior(model.n_stage), steps, Devices(), poses)


def on_grid(model, views, axis):
    """Log-likelihoods [n, G] of the images with all of them at each point of an axis of z."""
    observed = model.image_model.observe(views.batch(np.arange(COUNT)))

    @tf.function(autograph=False)
    def at(point):
        return model.image_model.log_likelihood(model.mixture(tf.fill([COUNT, 1], point)), observed)
    return np.stack([at(tf.constant(point, tf.float32)).numpy() for point in axis], 1).astype(float)


# ---- priors

def test_the_prior_of_latent_points_is_the_normal_distribution_that_describes_them():
    z = np.random.default_rng(0).normal(size=(500, 3)) @ np.array([[2, 0.3, 0], [0, 1, 0],
                                                                   [0, 0, 0.5]]) + [1, 2, 3]
    prior = gaussian_prior(z)
    np.testing.assert_allclose(prior.mean, z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.inv(prior.precision), np.cov(z, rowvar=False), rtol=1e-2, atol=1e-2)
    one = gaussian_prior(z[:, :1])
    assert one.precision.shape == (1, 1) and one.precision[0, 0] == pytest.approx(1 / z[:, 0].var(), rel=1e-2)
    np.testing.assert_array_equal(unit_prior(3).precision, np.eye(3))
    assert not unit_prior(3).mean.any()


# ---- posterior and evidence

@pytest.mark.parametrize("amplitude", [60.0, 200.0])
def test_mean_variance_and_evidence_are_the_integrals_over_z(real, amplitude):
    model = untrained(latent_dim=1, amplitude=amplitude)
    given, axis = inputs(model, real, points(model)), np.linspace(-5, 5, 401)
    found = inferred(model, given, 10)
    log_p = on_grid(model, given.views, axis) - 0.5 * axis**2
    weight = np.exp(log_p - log_p.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    mean = weight @ axis
    deviation = np.sqrt(weight @ axis**2 - mean**2)
    evidence = np.log(np.exp(log_p - log_p.max(1, keepdims=True)).sum(1)) + log_p.max(1)
    evidence += np.log((axis[1] - axis[0]) / np.sqrt(2 * np.pi))
    off = np.abs(found.z[:, 0] - mean) / deviation
    assert np.median(off) < 0.1 and np.mean(off < 0.35) > 0.8
    ratio = np.sqrt(found.z_covariance[:, 0, 0]) / deviation
    assert np.median(np.abs(ratio - 1)) < 0.15
    assert np.median(np.abs(found.evidence - evidence)) < 0.3



def test_agreements_are_those_at_the_posterior_s_mean_at_the_neutral_model_and_at_the_prior_s_mean(real):
    model = untrained()
    model.consensus_shift.assign(np.random.default_rng(1).normal(0, 0.05, (40, 4)))
    z = points(model)
    given = inputs(model, real, z)
    found = inferred(model, given)
    observed = model.image_model.observe(given.views.batch(np.arange(COUNT)))

    def at(mixture):
        return model.image_model.log_likelihood(mixture, observed).numpy()
    np.testing.assert_allclose(found.agreement, at(model.mixture(found.z)), rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(found.neutral_agreement, at(model.neutral), rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(found.static_agreement, at(model.mixture(tf.zeros([COUNT, 2]))), rtol=1e-3,
                               atol=0.05)
    np.testing.assert_array_equal(found.neutral_evidence, found.neutral_agreement)      # poses are exact
    np.testing.assert_array_equal(found.static_evidence, found.static_agreement)
    assert not found.pose_change.any()


def test_latent_points_are_drawn_to_the_mean_of_their_prior(real):
    model = untrained(latent_dim=1, amplitude=3.0)      # images tell next to nothing
    prior = gaussian_prior(np.random.default_rng(0).normal(1.5, 0.4, (500, 1)))
    found = inferred(model, inputs(model, real, points(model)), prior=prior)
    np.testing.assert_allclose(found.z, 1.5, atol=0.1)
    np.testing.assert_allclose(found.z_covariance, 0.16, atol=0.03)
    np.testing.assert_allclose(found.evidence, found.static_evidence, atol=0.3)


def test_without_steps_latent_points_are_the_encoder_s_means(real):
    model = untrained()
    model.encoder.axes.assign(np.random.default_rng(1).normal(0, 0.3, model.encoder.axes.shape))
    given = inputs(model, real, points(model))
    found = inferred(model, given, 0)
    np.testing.assert_allclose(found.z, model.encode(given.features).mean, rtol=1e-5, atol=1e-6)
    assert np.ptp(found.z) > 0.1 and np.all(np.linalg.eigvalsh(found.z_covariance) > 0)


def test_particles_have_their_posteriors_whatever_others_are_beside_them(real):
    model = untrained("c2", latent_dim=1)
    given = inputs(model, real, points(model))
    together, rows = inferred(model, given), np.array([7, 2])
    of_rows = given.views.of(rows).ravel()
    few = OfImages(Views(real.select(rows), "c2"), given.views.particles.read(rows))
    for found, expected in zip(inferred(model, FeaturedViews(few, given.features[of_rows])), together):
        np.testing.assert_allclose(found, expected[of_rows], rtol=2e-3, atol=2e-3)


class OfImages:
    """Views of particles with other images."""

    def __init__(self, views, images):
        self._views, self._images = views, images

    def __getattr__(self, name):
        return getattr(self._views, name)

    def __len__(self):
        return len(self._views)

    def batch(self, rows):
        return self._views.batch(rows)._replace(images=self._images[rows])


def test_copies_of_a_particle_have_latent_points_of_their_own_and_one_agreement(real):
    model = untrained("c2", latent_dim=1, amplitude=300.0)
    z = points(model)
    found = inferred(model, inputs(model, real, z), 10)
    assert found.z.shape == (2 * COUNT, 1) and found.z_covariance.shape == (2 * COUNT, 1, 1)
    for name in ("agreement", "evidence", "neutral_evidence", "static_agreement"):
        values = getattr(found, name)
        np.testing.assert_array_equal(values[::2], values[1::2])
    assert np.corrcoef(found.z[:, 0], z[:, 0])[0, 1] > 0.8 and not np.allclose(found.z[::2], found.z[1::2])


def test_the_latent_point_of_earlier_stages_stays_and_the_figures_are_of_this_stage(real):
    first = untrained(parameters=["amplitude"], latent_dim=3)
    made = untrained(parameters=["position"], latent_dim=1)
    model = HeterogeneityModel(made.neutral, made.body, made.settings, first)
    for own, other in zip(model.decoder.network.variables, made.decoder.network.variables):
        own.assign(other)
    z = points(model)
    given = inputs(model, real, z)
    found = inferred(model, given)
    np.testing.assert_array_equal(found.z[:, :3], z[:, :3])
    assert found.z.shape == (COUNT, 4) and found.z_covariance.shape == (COUNT, 1, 1)
    observed = model.image_model.observe(given.views.batch(np.arange(COUNT)))
    before = model.image_model.log_likelihood(model.unchanged_mixture(tf.constant(z[:, :3])), observed)
    np.testing.assert_allclose(found.neutral_agreement, before, rtol=1e-3, atol=0.05)


# ---- poses that are uncertain

class Wrong:
    """Poses that are wrong by normal changes with these standard deviations, as `PosePosterior`."""

    def __init__(self, sigma):
        self.sigma = np.repeat(sigma, [3, 2])

    def draw(self, rows, noise):
        return noise * self.sigma


@pytest.fixture(scope="module")
def misplaced(real):
    """A model whose z does nothing, images of its neutral mixture at poses that are a little wrong, their
    errors, what is inferred, and what would right the poses."""
    model = untrained(amplitude=2000.0)
    for variable in model.decoder.network.variables:
        variable.assign(tf.zeros_like(variable))
    wrong = Wrong((0.01, 0.5))
    given = inputs(model, real, poses=wrong)
    observed = model.image_model.observe(given.views.batch(np.arange(COUNT)))
    derivatives = model.image_model.pose_derivatives(model.neutral, observed)
    poses = PoseErrors(Quadratic(*(values.numpy() for values in derivatives)), model.pixel_size,
                       np.arange(COUNT), 1)
    poses.set_sigma(np.array([0.01, 0.5]))
    poses.first_sigma = poses.sigma
    noise = np.stack([np.random.default_rng([1, 17, int(i)]).standard_normal(5) for i in real.ids])
    return model, given, poses, inferred(model, given, poses=poses), wrong.draw(None, noise)


def test_a_single_model_is_compared_at_its_best_pose_and_its_evidence_is_over_all_poses(misplaced):
    model, given, poses, found, _ = misplaced
    observed = model.image_model.observe(given.views.batch(np.arange(COUNT)))
    at_given = model.image_model.log_likelihood(model.neutral, observed).numpy()
    derivatives = Quadratic(*(v.numpy() for v in model.image_model.pose_derivatives(model.neutral, observed)))
    expected = at_given + log_marginal(poses.sigmas, derivatives)
    np.testing.assert_allclose(found.neutral_evidence - at_given, expected - at_given, rtol=0.15, atol=1.0)
    np.testing.assert_allclose(found.static_evidence, found.neutral_evidence, atol=0.1)
    np.testing.assert_allclose(found.evidence, found.neutral_evidence, atol=0.5)      # z says nothing
    assert np.all(found.neutral_agreement >= at_given - 0.1)


def test_the_change_of_pose_is_found_with_the_latent_point(misplaced):
    _, _, poses, found, change = misplaced
    before, after = (np.mean(((change - guess) / poses.sigmas) ** 2) for guess
                     in (np.zeros(5), found.pose_change))
    assert after < 0.3 * before

    np.testing.assert_allclose(found.z, 0, atol=0.05)


def test_without_uncertain_poses_nothing_is_found_of_them(misplaced):
    model, given, *_ = misplaced
    exact = PoseErrors(Quadratic(np.zeros((COUNT, 5)), np.tile(np.eye(5), (COUNT, 1, 1))), 6.0,
                       np.arange(COUNT), 1)
    exact.set_sigma(np.zeros(2))
    exact.first_sigma = np.zeros(2)
    found, plain = inferred(model, given, 0, exact), inferred(model, given, 0)
    for one, other in zip(found, plain):
        np.testing.assert_array_equal(one, other)
    assert not found.pose_change.any()
