"""The forward model against a slow NumPy, and what physics says of it."""
import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.batching.batches import ParticleBatch
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc
from gmmhet.engine.imaging.pose import random_rotations, rotation_from_vector
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate
from gmmhet.engine.likelihood.forward import ImageModel

BOX, PIXEL, DISC, B, N = 24, 3.0, 50.0, 3, 5
#: 10th: of the second particle the images are phase-flipped
CTF = np.array([[15000, 14000, 20, 300, 2.7, 0.1, 0, 0, 1, 0],
                [9000, 9000, 0, 200, 2.0, 0.07, 30, 10, 0.8, 1],
                [12000, 12500, 70, 300, 2.7, 0.1, 0, 50, 1, 0]], np.float32)
GROUPS, SCALE = (3, 7), (0.7, 0.5, -1.2)
GRID = FourierGrid.to_resolution(BOX, PIXEL, 9.0)
POWER = np.stack([np.linspace(2.0, 0.5, GRID.m + 2), np.full(GRID.m + 2, 3.0),
                  np.linspace(0.7, 4, GRID.m + 2)])
#: noise and scale of each particle, by its group; of the last one's nothing is known but what all have
ROWS, OF_PARTICLE = (2, 1, 0), np.array([7, 3, 99])


def image_model(objective="likelihood"):
    return ImageModel(Agreement(GRID, objective, DISC, NoiseEstimate(POWER, SCALE, GROUPS)))


def batch(count=B):
    """Random images at random poses."""
    rng = np.random.default_rng(0)
    images, rotation = rng.normal(0, 2, (B, BOX, BOX)), random_rotations(B, rng)
    shift = rng.normal(0, 4, (B, 2))
    floats = (tf.constant(values[:count], tf.float32) for values in (images, rotation, shift, CTF))
    return ParticleBatch(*floats, tf.constant(OF_PARTICLE[:count]))


def mixtures():
    """Mixtures of the particles, each of its own."""
    rng = np.random.default_rng(1)
    parts = rng.normal(0, 9, (B, N, 3)), rng.uniform(300, 900, (B, N)), rng.uniform(4, 7, (B, N))
    return MixtureBatch(*(tf.constant(part, tf.float32) for part in parts))


def single():
    centers, amplitudes, widths = (part[0].numpy() for part in mixtures())
    return Mixture(centers, amplitudes, widths)


def one(parts, i):
    """Row i of every array."""
    return type(parts)(*(None if values is None else values[i:i + 1] for values in parts))


def slow_prediction(mixture, rotation, shift, i):
    """Scale times CTF times projection, complex [2m+1, m+1], before whitening."""
    centers, amplitudes, widths = (np.asarray(part, float) for part in mixture)
    xy = (centers @ np.asarray(rotation, float).T)[:, :2] + shift
    kx, ky = reference.half_plane(BOX, PIXEL, GRID.m)
    return SCALE[ROWS[i]] * reference.ctf(CTF[i], kx, ky) * reference.project(xy, amplitudes, widths, BOX,
                                                                              PIXEL, GRID.m)


def slow_data(i):
    """Transform of the masked image, complex [2m+1, m+1]."""
    return reference.transform(batch().images[i].numpy().astype(float) * soft_disc(BOX, PIXEL, DISC), GRID.m)


def slow_log_likelihood(i, rotation=None, shift=None, mixture=None):
    particle = batch()
    rotation = particle.rotation[i] if rotation is None else rotation
    shift = particle.shift_angst[i] if shift is None else shift
    mixture = [part[i] for part in mixtures()] if mixture is None else mixture
    return reference.log_likelihood(slow_data(i), slow_prediction(mixture, rotation, shift, i),
                                    POWER[ROWS[i]])


def as_complex(values):
    values = np.asarray(values)
    return values[:, 0] + 1j * values[:, 1]


# ---- against the slow NumPy

def test_a_prediction_is_density_scale_and_ctf_over_the_noise_times_the_projection():
    model = image_model()
    found = as_complex(model.predict(mixtures(), model.observe(batch())))
    ring, copies = reference.rings(GRID.m)
    for i in range(B):
        expected = slow_prediction([part[i] for part in mixtures()], batch().rotation[i],
                                   batch().shift_angst[i], i)
        expected = np.where(copies > 0, expected / np.sqrt(POWER[ROWS[i]][np.minimum(ring, GRID.m + 1)]),
                            found[i])
        np.testing.assert_allclose(found[i], expected, atol=2e-5 * np.abs(expected).max())


def test_the_log_likelihood_equals_the_slow_one_of_masked_images():
    model = image_model()
    found = model.log_likelihood(mixtures(), model.observe(batch()))
    np.testing.assert_allclose(found, [slow_log_likelihood(i) for i in range(B)], rtol=1e-3)


def test_the_residual_is_prediction_less_data_over_the_noise_and_its_squares_give_the_log_likelihood():
    model, (ring, copies) = image_model(), reference.rings(GRID.m)
    observed = model.observe(batch())
    residual, value = model.residual(mixtures(), observed), model.log_likelihood(mixtures(), observed)
    for i in range(B):
        predicted = slow_prediction([part[i] for part in mixtures()], batch().rotation[i],
                                    batch().shift_angst[i], i)
        whitening = np.sqrt(copies / POWER[ROWS[i]][np.minimum(ring, GRID.m + 1)])
        expected = whitening * (predicted - slow_data(i))
        expected = np.stack([expected.real, expected.imag]).ravel()
        np.testing.assert_allclose(residual[i], expected, atol=1e-4 * np.abs(expected).max())
    empty = 0.5 * np.sum(model.residual(mixtures()._replace(amplitudes=tf.zeros([B, N])),
                                        observed).numpy() ** 2, 1)
    np.testing.assert_allclose(value, empty - 0.5 * np.sum(residual.numpy() ** 2, 1), rtol=1e-4)


def test_by_the_mean_correlation_an_image_is_compared_ring_by_ring_with_its_phases_flipped():
    model = image_model("frc")
    found = model.log_likelihood(mixtures(), model.observe(batch()))
    kx, ky = reference.half_plane(BOX, PIXEL, GRID.m)
    for i in range(B):
        centers, amplitudes, widths = (part[i].numpy() for part in mixtures())
        rotation, shift = (values[i].numpy() for values in batch().pose)
        xy = (centers @ rotation.T)[:, :2] + shift
        plain = reference.project(xy, amplitudes, widths, BOX, PIXEL, GRID.m)
        flipped = slow_data(i) * np.sign(reference.ctf(CTF[i], kx, ky)) * np.sign(SCALE[ROWS[i]])
        assert found[i].numpy() == pytest.approx(reference.frc(flipped, plain), abs=1e-4)


def test_the_slope_of_the_log_likelihood_in_centers_and_amplitudes_equals_finite_differences():
    model, particle = image_model(), one(batch(), 0)
    observed, mixture = model.observe(particle), one(mixtures(), 0)
    with tf.GradientTape() as tape:
        tape.watch(mixture)
        value = model.log_likelihood(mixture, observed)
    slopes, parts = tape.gradient(value, mixture), [np.asarray(part[0], float) for part in mixture]
    for number, (slope, step) in enumerate(zip(slopes, (0.01, 0.1, 0.01))):
        def at(moved, number=number):
            return slow_log_likelihood(0,
                                       mixture=[*parts[:number], parts[number] + moved, *parts[number + 1:]])
        expected = reference.central_differences(at, np.zeros(parts[number].shape), step)
        np.testing.assert_allclose(slope[0], expected, atol=2e-3 * np.abs(expected).max())


# ---- a change of pose

def test_the_derivatives_by_the_pose_equal_finite_differences_of_the_slow_log_likelihood():
    """The curvature is that of least squares: squares of the slopes of the residuals."""
    model, particle, steps = image_model(), batch(), np.array([1e-3] * 3 + [0.02] * 2)
    slope, curvature = model.pose_derivatives(mixtures(), model.observe(particle))
    ring, copies = reference.rings(GRID.m)
    for i in range(B):
        rotation, shift = (values[i].numpy().astype(float) for values in particle.pose)
        weight = copies / POWER[ROWS[i]][np.minimum(ring, GRID.m + 1)]

        def pose(change, rotation=rotation, shift=shift):
            return rotation_from_vector(change[None, :3])[0] @ rotation, shift + change[3:]

        def value(change, i=i, pose=pose):
            return slow_log_likelihood(i, *pose(change))

        def predicted(change, i=i, pose=pose):
            return slow_prediction([part[i] for part in mixtures()], *pose(change), i)
        ends = [(step * direction, step) for step, direction in zip(steps, np.eye(5))]
        expected = np.array([(value(end) - value(-end)) / (2 * step) for end, step in ends])
        np.testing.assert_allclose(slope[i], expected, atol=0.02 * np.abs(expected).max())
        rows = np.stack([(predicted(end) - predicted(-end)) / (2 * step) for end, step in ends])
        squares = np.einsum("qyx,pyx,yx->qp", rows, rows.conj(), weight).real
        root = np.sqrt(np.diag(squares))
        np.testing.assert_allclose(curvature[i] / np.outer(root, root), squares / np.outer(root, root),
                                   atol=0.02)


def test_a_shift_of_the_pose_is_a_phase_ramp_of_the_prediction():
    model = image_model()
    observed = model.observe(batch())
    shifted = observed.pose._replace(shift_angst=observed.pose.shift_angst + [2.0, -3.5])
    found, before = (as_complex(model.predict(mixtures(), observed, pose)) for pose in (shifted, None))
    kx, ky = reference.half_plane(BOX, PIXEL, GRID.m)
    expected = before * np.exp(-2j * np.pi * (kx * 2.0 - ky * 3.5))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(before).max())


def test_a_molecule_and_its_pose_turned_against_each_other_give_the_same_prediction():
    model, turn = image_model(), random_rotations(1, np.random.default_rng(2))[0].astype(np.float32)
    observed, mixture = model.observe(batch()), mixtures()
    turned = mixture._replace(centers=mixture.centers @ turn.T)
    pose = Pose(observed.pose.rotation @ turn.T, observed.pose.shift_angst)
    before = model.predict(mixture, observed).numpy()
    np.testing.assert_allclose(model.predict(turned, observed, pose), before,
                               atol=1e-4 * np.abs(before).max())


def test_no_change_of_the_pose_leaves_it_as_it_is():
    observed = image_model().observe(batch())
    same = observed.pose.perturbed(tf.zeros([B, 5]))
    for found, expected in zip(same, observed.pose):
        np.testing.assert_allclose(found, expected, atol=1e-6)


# ---- batches

@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_a_batch_equals_its_images_one_by_one(objective):
    model = image_model(objective)
    observed = model.observe(batch())
    value, residual = model.log_likelihood(mixtures(), observed), model.residual(mixtures(), observed)
    derivatives = model.pose_derivatives(mixtures(), observed)
    for i in range(B):
        alone, mixture = model.observe(one(batch(), i)), one(mixtures(), i)
        np.testing.assert_allclose(model.log_likelihood(mixture, alone)[0], value[i], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.residual(mixture, alone)[0], residual[i], atol=1e-4)
        for found, expected in zip(model.pose_derivatives(mixture, alone), derivatives):
            np.testing.assert_allclose(found[0], expected[i], atol=1e-3 * np.abs(expected[i]).max())


def test_one_mixture_for_all_is_the_same_as_a_copy_of_it_for_each():
    model = image_model()
    observed, mixture = model.observe(batch()), single()
    parts = mixture.centers, mixture.amplitudes, mixture.widths
    each = MixtureBatch(*(tf.repeat(tf.constant(part)[None], B, 0) for part in parts))
    expected = model.log_likelihood(each, observed)
    np.testing.assert_allclose(model.log_likelihood(mixture, observed), expected, rtol=1e-5)
    np.testing.assert_allclose(model.log_likelihood(each._replace(widths=mixture.widths), observed), expected,
                               rtol=1e-5)


def test_repeated_observations_are_each_image_several_times_in_a_row():
    model = image_model()
    observed = model.observe(batch())
    twice = observed.repeated(2)
    again = MixtureBatch(*(tf.repeat(part, 2, 0) for part in mixtures()))
    expected = np.repeat(model.log_likelihood(mixtures(), observed), 2)
    np.testing.assert_allclose(model.log_likelihood(again, twice), expected, rtol=1e-5)


def test_the_forward_model_works_in_a_compiled_function_of_any_batch():
    model = image_model()

    @tf.function(reduce_retracing=True, autograph=False)
    def compiled(particles, mixture):
        return model.residual(mixture, model.observe(particles))
    for count in (1, 2, 3):
        part = MixtureBatch(*(values[:count] for values in mixtures()))
        expected = model.residual(part, model.observe(batch(count)))
        np.testing.assert_allclose(compiled(batch(count), part), expected, atol=1e-4)
