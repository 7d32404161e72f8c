"""Bounds on the evidence, against integrals over z that are done on a grid."""
import numpy as np
import pytest
import tensorflow as tf
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.model.encoder import LOG_STD_OFFSET
from gmmhet.engine.objective.elbo import Bound

FEW, NOTHING = np.arange(6), [np.zeros((6, 0), np.float32)] * 2


@pytest.fixture(scope="module")
def particles(small):
    found = read_particles(str(small / "set" / rundir.STAR)).select(FEW)
    return [tf.constant(part) for part in (found.read(FEW), found.rotation, found.shift_angst, found.ctf)]


def features_of(model):
    return np.float32(np.random.default_rng(5).normal(size=(6, model.copies, model.gradients)))


def noise_of(*shape, seed=3):
    return np.float32(np.random.default_rng(seed).normal(size=shape))


def agreements(model, particles, points):
    """Log-likelihood of each image with its copies at latent points [G, copies, D], [B, G]."""
    images, rotation, shift, ctf = particles
    data, transfer = model.likelihood.observe(images, ctf)

    @tf.function(autograph=False)
    def at(own):
        centers, amplitudes, widths = model.assembled(model.mixture(own))
        drawn = project(place(tf.repeat(centers, 6, 0), rotation, shift), tf.repeat(amplitudes, 6, 0), widths, model.likelihood.grid)
        return model.likelihood.value(data, transfer * drawn)
    return np.stack([at(tf.constant(own)).numpy() for own in np.float32(points)], 1).astype(float)


def broad(model):
    """The model with an encoder whose posterior is wide and off the prior's mean, whatever the image."""
    for variable in model.encoder.variables:
        variable.assign(tf.zeros_like(variable))
    model.encoder.variables[-1].assign(np.repeat([0.3, LOG_STD_OFFSET - 0.1], model.own_dim))
    return model


def evidence(model, particles):
    """Log of the integral of likelihood times prior over a grid of z (one dimension a copy), [B]."""
    axis = np.linspace(-4.5, 4.5, 61 if model.copies == 1 else 25)
    points = np.stack(np.meshgrid(*[axis] * model.copies, indexing="ij"), -1).reshape(-1, model.copies)
    log_p = agreements(model, particles, points[..., None]) - 0.5 * np.sum(points**2, 1)
    weight = (axis[1] - axis[0]) / np.sqrt(2 * np.pi)
    return tf.reduce_logsumexp(log_p, 1).numpy() + model.copies * np.log(weight)


@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_several_draws_come_closer_to_the_evidence_from_below(particles, symmetry):
    model = broad(untrained(symmetry, latent_dim=1, amplitude=100.0))
    bound, features, exact = Bound(model, model.likelihood, 0.0), features_of(model), evidence(model, particles)

    @tf.function(autograph=False)
    def several(e):
        value, divergence, *_ = bound.of_several(None, *particles, features, e, *NOTHING)
        return value - divergence

    @tf.function(autograph=False)
    def single(e):
        value, divergence, *_ = bound.of_one(None, *particles, features, e, *NOTHING)
        return value - divergence

    def mean_of(draws):
        return np.mean([several(tf.constant(noise_of(6, model.copies, draws, 2, seed=s))).numpy() for s in range(240 // draws)], 0)
    one = np.mean([single(tf.constant(noise_of(6, model.copies, 1, seed=s))).numpy() for s in range(240)], 0)
    few, many = mean_of(3), mean_of(60)
    gap = (exact - one).mean()
    assert one.mean() < few.mean() < many.mean() < exact.mean() + 0.05
    assert (exact - many).mean() < 0.2 * gap
    assert mean_of(1).mean() == pytest.approx(one.mean(), abs=0.25 * gap)


def test_draws_are_chosen_as_often_as_their_weights_say(particles):
    model = untrained(latent_dim=1, amplitude=60.0)
    bound, features, noise = Bound(model, model.likelihood, 0.0), features_of(model), noise_of(6, 1, 3, 2)
    mean, log_std = (part.numpy() for part in model.encode(tf.constant(features[:, 0])))
    drawn = mean[:, None] + np.exp(log_std[:, None]) * noise[:, 0, :, :1]
    log_w = np.stack([agreements(model, particles, drawn[b][:, None])[b]
                      for b in range(6)]) + np.sum(0.5 * (noise[:, 0, :, :1] ** 2 - drawn**2), -1)
    weights = tf.nn.softmax(log_w, 1).numpy()
    counts = np.zeros((6, 3))
    for u in (np.arange(100) + 0.5) / 100:
        noise[:, 0, 0, 1] = -np.sqrt(2) * tf.math.erfcinv(tf.constant(2 * u, tf.float32)).numpy()
        own = bound.of_several(None, *particles, features, noise, *NOTHING)[3].numpy()
        counts += np.abs(drawn[..., 0] - own) < 1e-5
    np.testing.assert_allclose(counts / 100, weights, atol=0.02)
    assert np.ptp(weights.argmax(1)) > 0


def test_the_change_of_pose_is_that_of_the_draw_that_was_chosen(particles):
    model = untrained(latent_dim=1)
    bound, features, noise = Bound(model, model.likelihood, 0.0), features_of(model), noise_of(6, 1, 3, 2)
    precision = np.float32([400, 400, 400, 1, 1])
    response = np.tile(np.diag(0.2 / precision), (6, 1, 1))
    *_, change, own = bound.of_several(precision, *particles, features, noise, tf.zeros([6, 5]), response)
    mean, log_std = model.encode(tf.constant(features[:, 0]))
    same = ((own - mean) / tf.exp(log_std)).numpy()[:, None]
    alone, _, expected, _ = bound.of_one(precision, *particles, features, same, tf.zeros([6, 5]), response)
    np.testing.assert_allclose(change, expected, atol=1e-5)
    assert np.abs(change).max() > 1e-3
    learned, _ = bound.learned(precision, *particles, features, own, change)
    log_q = -0.5 * np.sum(same[:, 0] ** 2, 1) - np.sum(log_std, 1)
    cost = 0.5 * np.sum(precision * change.numpy() ** 2, 1)
    np.testing.assert_allclose(learned, alone + cost + log_q, rtol=1e-4, atol=1e-2)


def test_what_is_learned_moves_the_decoder_and_draws_the_encoder_to_the_chosen_draw(particles):
    model = untrained(latent_dim=1)
    bound, features, own = Bound(model, model.likelihood, 0.0), features_of(model), tf.constant(noise_of(6, 1))
    with tf.GradientTape(persistent=True) as tape:
        raised, _ = bound.learned(None, *particles, features, own, NOTHING[0])
        mean, _ = model.encode(tf.constant(features[:, 0]))
        distance = tf.reduce_sum((own - mean) ** 2)
    towards = [-g for g in tape.gradient(distance, model.encoder.trainable_variables)]
    found = tape.gradient(raised, model.encoder.trainable_variables)
    assert sum(float(tf.reduce_sum(a * b)) for a, b in zip(found, towards)) > 0
    assert all(np.any(g) for g in tape.gradient(raised, model.decoder.trainable_variables))


def test_the_paper_s_networks_and_its_objective_take_one_draw():
    assert Bound(untrained(), untrained().likelihood, 0.0).by_several
    assert not Bound(untrained(variational=False), untrained().likelihood, 0.0).by_several
    assert not Bound(untrained(draws=1), untrained().likelihood, 0.0).by_several
