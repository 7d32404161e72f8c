"""Bounds on the evidence, against integrals over z that are done on a grid."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.model.encoder import LOG_STD_OFFSET
from gmmhet.engine.objective.elbo import Elbo
from gmmhet.engine.particles.particle_set import read_particles

FEW = np.arange(6)


@pytest.fixture(scope="module")
def particles(small):
    """A batch of six particles, as tensors."""
    batch = Views(read_particles(str(small / "set" / rundir.STAR))).batch(FEW)
    return batch._replace(**{name: tf.constant(values) for name, values in batch.present.items()})


def batch_of(model, particles, noise, **others):
    """The particles with random features and this noise."""
    features = np.random.default_rng(5).normal(size=(6, model.copies, model.encoder.n_features))
    return particles._replace(features=tf.constant(features, tf.float32),
                              noise=tf.convert_to_tensor(noise, tf.float32), **others)


def noise_of(*shape, seed=3):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def posterior(model, batch):
    """Mean and log standard deviation of the encoder's posterior of the first copy, [B, D] each."""
    return model.encode(batch.features[:, 0])


def log_likelihoods(model, particles, points):
    """Log-likelihood of each image with its copies at latent points [G, copies, D], [B, G]."""
    image_model = model.image_model
    observed = image_model.observe(particles)

    @tf.function(autograph=False)
    def at(point):
        mixture = model.symmetry.assemble(model.mixture(point))
        mixture = mixture._replace(centers=tf.repeat(mixture.centers, 6, 0),
                                   amplitudes=tf.repeat(mixture.amplitudes, 6, 0))
        return image_model.log_likelihood(mixture, observed)
    return np.stack([at(tf.constant(point)).numpy() for point in np.float32(points)], 1).astype(float)


def broad(model):
    """The model with an encoder whose posterior is wide and off the prior's mean, whatever the image."""
    for variable in model.encoder.network.variables:
        variable.assign(tf.zeros_like(variable))
    model.encoder.network.variables[-1].assign(np.repeat([0.3, LOG_STD_OFFSET - 0.1], model.n_stage))
    return model


def evidence(model, particles):
    """Log of the integral of likelihood times prior over a grid of z (one dimension a copy), [B]."""
    axis = np.linspace(-4.5, 4.5, 61 if model.copies == 1 else 25)
    points = np.stack(np.meshgrid(*[axis] * model.copies, indexing="ij"), -1).reshape(-1, model.copies)
    log_p = log_likelihoods(model, particles, points[..., None]) - 0.5 * np.sum(points**2, 1)
    weight = (axis[1] - axis[0]) / np.sqrt(2 * np.pi)
    return tf.reduce_logsumexp(log_p, 1).numpy() + model.copies * np.log(weight)


# ---- how tight they are

@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_several_draws_come_closer_to_the_evidence_from_below(particles, symmetry):
    model = broad(untrained(symmetry, latent_dim=1, amplitude=100.0))
    elbo, exact = Elbo(model, model.likelihood, 0.0), evidence(model, particles)

    @tf.function(autograph=False)
    def several(noise):
        return elbo.importance_weighted(batch_of(model, particles, noise)).bound

    @tf.function(autograph=False)
    def single(noise):
        return elbo.elbo(batch_of(model, particles, noise)).bound

    def mean_of(draws):
        noise = [tf.constant(noise_of(6, model.copies, draws, 2, seed=s)) for s in range(240 // draws)]
        return np.mean([several(values).numpy() for values in noise], 0)
    one = np.mean([single(tf.constant(noise_of(6, model.copies, 1, seed=s))).numpy() for s in range(240)], 0)
    few, many = mean_of(3), mean_of(24)
    gap = (exact - one).mean()
    assert one.mean() < few.mean() < many.mean() < exact.mean() + 0.05
    assert (exact - many).mean() < 0.2 * gap
    assert mean_of(1).mean() == pytest.approx(one.mean(), abs=0.25 * gap)


# ---- by one draw

def test_the_bound_by_one_draw_is_log_likelihood_less_divergence_each_by_the_plain_formula(particles):
    model, noise = untrained(), noise_of(6, 1, 2)
    batch = batch_of(model, particles, noise)
    terms = Elbo(model, model.likelihood, 0.0).elbo(batch)
    mean, log_std = (part.numpy().astype(float) for part in posterior(model, batch))
    z = mean + np.exp(log_std) * noise[:, 0]
    expected = [log_likelihoods(model, particles, z[b][None, None])[b, 0] for b in range(6)]
    kl = [sum(0.5 * (m * m + np.exp(2 * s) - 1) - s for m, s in zip(*row)) for row in zip(mean, log_std)]
    np.testing.assert_allclose(terms.log_likelihood, expected, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(terms.kl, kl, rtol=1e-4)
    np.testing.assert_allclose(terms.bound, terms.log_likelihood - terms.kl, rtol=1e-6)


@pytest.mark.parametrize("symmetry", ["c1", "c3"])
def test_a_batch_has_the_bounds_of_its_particles_one_by_one(particles, symmetry):
    model = untrained(symmetry)
    elbo = Elbo(model, model.likelihood, 5.0)
    one, several = (batch_of(model, particles, noise_of(6, model.copies, *shape)) for shape in ((2,), (3, 3)))
    together = elbo.elbo(one), elbo.importance_weighted(several)

    def row(batch, b):
        return batch._replace(**{name: values[b:b + 1] for name, values in batch.present.items()})
    for b in (0, 5):
        alone = elbo.elbo(row(one, b)), elbo.importance_weighted(row(several, b))
        for found, expected in zip(alone, together):
            np.testing.assert_allclose(found.bound[0], expected.bound[b], rtol=1e-4, atol=1e-2)
            np.testing.assert_allclose(found.kl[0], expected.kl[b], rtol=1e-4)
        np.testing.assert_allclose(alone[0].penalty[0], together[0].penalty[b], rtol=1e-4)


def test_by_the_mean_correlation_nothing_is_integrated_out(particles):
    model = untrained()
    terms = Elbo(model, model.likelihood.by("frc"), 5.0).elbo(batch_of(model, particles, noise_of(6, 1, 2)))
    assert not np.any(terms.kl) and not np.any(terms.penalty) and np.all(np.abs(terms.log_likelihood) < 1)


@pytest.mark.parametrize("gate", [0.0, 0.25, 1.0])
def test_amplitudes_that_change_are_paid_for_as_far_as_positions_may_vary(particles, gate):
    model = untrained()
    model.state.gates.assign([1.0, gate])
    batch = batch_of(model, particles, noise_of(6, 1, 2))
    terms = Elbo(model, model.likelihood, 5.0).elbo(batch)
    mean, log_std = posterior(model, batch)
    amplitudes = model.decode(mean + tf.exp(log_std) * batch.noise[:, 0]).amplitudes
    changed = np.abs(amplitudes - model.neutral.amplitudes).sum(1) / model.neutral.amplitudes.sum()
    np.testing.assert_allclose(terms.penalty, gate * 5.0 * changed, rtol=1e-3)


def test_widths_that_differ_are_paid_for(particles):
    model = untrained(parameters=["width"])
    batch = batch_of(model, particles, noise_of(6, 1, 2))
    terms = Elbo(model, model.likelihood, 5.0).elbo(batch)
    mean, log_std = posterior(model, batch)
    widths = model.decode(mean + tf.exp(log_std) * batch.noise[:, 0]).widths
    np.testing.assert_allclose(terms.penalty, widths.std(1) / widths.mean(), rtol=1e-3)


# ---- by several

def test_the_bound_by_several_draws_is_the_mean_of_their_weights(particles):
    model, noise = untrained(latent_dim=1), noise_of(6, 1, 3, 2)
    batch = batch_of(model, particles, noise)
    _, log_w = weights_of(model, particles, batch)
    found = Elbo(model, model.likelihood, 0.0).importance_weighted(batch)
    expected = tf.reduce_logsumexp(log_w, 1) - np.log(3)
    np.testing.assert_allclose(found.bound, expected, rtol=1e-4, atol=2e-2)


def weights_of(model, particles, batch):
    """Draws of z [B, S, 1] and log p(image, z) / q(z), up to a constant that counts for nothing, [B, S]."""
    noise = batch.noise[:, 0, :, :1].numpy().astype(float)
    mean, log_std = (part.numpy()[:, None].astype(float) for part in posterior(model, batch))
    drawn = mean + np.exp(log_std) * noise
    log_p = np.stack([log_likelihoods(model, particles, drawn[b][:, None])[b] for b in range(6)])
    return drawn, log_p + np.sum(0.5 * (noise**2 - drawn**2) + log_std, -1)


def test_draws_are_chosen_as_often_as_their_weights_say(particles):
    model, noise = untrained(latent_dim=1, amplitude=60.0), noise_of(6, 1, 3, 2)
    elbo = Elbo(model, model.likelihood, 0.0)
    drawn, log_w = weights_of(model, particles, batch_of(model, particles, noise))
    weights, counts = tf.nn.softmax(log_w, 1).numpy(), np.zeros((6, 3))

    @tf.function(autograph=False)
    def chosen_by(noise):
        return elbo.importance_weighted(batch_of(model, particles, noise)).z_stage
    for u in (np.arange(100) + 0.5) / 100:
        noise[:, 0, 0, 1] = -np.sqrt(2) * tf.math.erfcinv(tf.constant(2 * u, tf.float32)).numpy()
        chosen = chosen_by(tf.constant(noise)).numpy()
        counts += np.abs(drawn[..., 0] - chosen) < 1e-5
    np.testing.assert_allclose(counts / 100, weights, atol=0.02)
    assert np.ptp(weights.argmax(1)) > 0


def test_the_change_of_pose_is_that_of_the_draw_that_was_chosen(particles):
    model, precision = untrained(latent_dim=1), np.float32([400, 400, 400, 1, 1])
    elbo, response = Elbo(model, model.likelihood, 0.0), np.tile(np.diag(0.2 / precision), (6, 1, 1))
    poses = dict(pose_change=tf.zeros([6, 5]), pose_response=tf.constant(response, tf.float32))
    batch = batch_of(model, particles, noise_of(6, 1, 3, 2), **poses)
    several = elbo.importance_weighted(batch, precision)
    mean, log_std = posterior(model, batch)
    same = ((several.z_stage - mean) / tf.exp(log_std)).numpy()[:, None]
    one = elbo.elbo(batch_of(model, particles, same, **poses), precision)
    np.testing.assert_allclose(several.pose_change, one.pose_change, atol=1e-5)
    assert np.abs(several.pose_change).max() > 1e-3
    learned = elbo.wake_sleep(batch, several, True)
    log_q = -0.5 * np.sum(same[:, 0] ** 2, 1) - np.sum(log_std, 1)
    cost = 0.5 * np.sum(precision * several.pose_change.numpy() ** 2, 1)
    np.testing.assert_allclose(learned.reward, one.log_likelihood + cost + log_q, rtol=1e-4, atol=1e-2)


def test_the_best_pose_is_a_gauss_newton_step_from_the_last_one(particles):
    """By slopes from finite differences of the log-likelihood less the prior's cost."""
    model, precision = untrained(latent_dim=1), np.float32([400, 400, 400, 1, 1])
    change = tf.constant(np.random.default_rng(2).normal(0, 0.02, (6, 5)), tf.float32)
    response = tf.constant(np.tile(np.diag(0.1 / precision), (6, 1, 1)), tf.float32)
    batch = batch_of(model, particles, noise_of(6, 1, 1), pose_change=change, pose_response=response)
    terms = Elbo(model, model.likelihood, 0.0).elbo(batch, precision)
    mean, log_std = posterior(model, batch)
    mixture = model.mixture(mean + tf.exp(log_std) * batch.noise[:, 0])
    observed = model.image_model.observe(batch)

    def value(change):
        at_pose = model.image_model.log_likelihood(mixture, observed, observed.pose.perturbed(change))
        return at_pose.numpy().astype(float) - 0.5 * np.sum(precision * change.numpy() ** 2, 1)
    slope = np.stack([(value(change + step) - value(change - step)) / (2 * np.abs(step).sum())
                      for step in np.float32(np.diag([3e-3] * 3 + [0.1] * 2))], 1)
    expected = change + np.einsum("bij,bj->bi", response, slope)
    np.testing.assert_allclose(terms.pose_change, expected, atol=0.05 * np.abs(expected - change).max())
    np.testing.assert_allclose(terms.log_likelihood, value(terms.pose_change), rtol=1e-4, atol=1e-2)


def test_what_is_learned_moves_the_decoder_and_draws_the_encoder_to_the_chosen_draw(particles):
    model = untrained(latent_dim=1)
    elbo, chosen = Elbo(model, model.likelihood, 0.0), tf.constant(noise_of(6, 1))
    batch = batch_of(model, particles, noise_of(6, 1, 3, 2))
    several = elbo.importance_weighted(batch)._replace(z_stage=chosen)
    with tf.GradientTape(persistent=True) as tape:
        reward = elbo.wake_sleep(batch, several, False).reward
        distance = tf.reduce_sum((chosen - posterior(model, batch).mean) ** 2)
    encoder, decoder = (network.trainable_variables for network
                        in (model.encoder.network, model.decoder.network))
    towards, found = [-g for g in tape.gradient(distance, encoder)], tape.gradient(reward, encoder)
    assert sum(float(tf.reduce_sum(a * b)) for a, b in zip(found, towards)) > 0
    assert all(np.any(g) for g in tape.gradient(reward, decoder))


def test_the_paper_s_networks_and_its_objective_take_one_draw():
    def several(agreement=None, **network):
        model = untrained(network=network)
        return Elbo(model, agreement or model.likelihood, 0.0).takes_several_draws
    assert several()
    assert not several(variational=False)
    assert not several(draws=1)
    assert not several(untrained().likelihood.by("frc"))
