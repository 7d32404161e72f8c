import json

import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, soft_disc, transform
from gmmhet.engine.losses.agreement import Agreement, estimate_noise

BOX, PIXEL = 24, 3.0
CTF = np.array([[15000, 14000, 20, 300, 2.7, 0.1, 0, 0, 1], [9000, 9000, 0, 200, 2.0, 0.07, 30, 10, 0.8]], np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def agreement(objective="likelihood", scale=0.7, resolution=9.0):
    grid = FourierGrid.to_resolution(BOX, PIXEL, resolution)
    power = np.linspace(2.0, 0.5, grid.m + 2)
    return Agreement(grid, objective, 50.0, power, scale)


def as_complex(coefficients):
    coefficients = np.asarray(coefficients)
    return coefficients[:, 0] + 1j * coefficients[:, 1]


def test_likelihood_equals_the_slow_formula_with_noise_power_scale_ctf_and_mask():
    a = agreement()
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = a.observe(images, CTF)
    found = a.value(data, transfer * plain).numpy()
    kx, ky = reference.half_plane(BOX, PIXEL, a.grid.m)
    for i in range(2):
        seen = reference.transform(images[i] * soft_disc(BOX, PIXEL, 50.0), a.grid.m)
        model = 0.7 * reference.ctf(CTF[i], kx, ky) * as_complex(plain)[i]
        assert found[i] == pytest.approx(reference.log_likelihood(seen, model, a.noise_power), rel=1e-3)


def test_frc_equals_the_slow_formula_on_phase_flipped_images():
    a = agreement("frc")
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = a.observe(images, CTF)
    found = a.value(data, transfer * plain).numpy()
    kx, ky = reference.half_plane(BOX, PIXEL, a.grid.m)
    for i in range(2):
        seen = reference.transform(images[i] * soft_disc(BOX, PIXEL, 50.0), a.grid.m) * np.sign(reference.ctf(CTF[i], kx, ky))
        assert found[i] == pytest.approx(reference.frc(seen, as_complex(plain)[i]), abs=1e-4)


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_a_batch_equals_its_particles_one_by_one(objective):
    a = agreement(objective)
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = a.observe(images, CTF)
    together = a.value(data, transfer * plain).numpy()
    for i in range(2):
        data, transfer = a.observe(images[i:i + 1], CTF[i:i + 1])
        assert a.value(data, transfer * plain[i:i + 1]).numpy()[0] == pytest.approx(together[i], rel=1e-5)


def test_the_gradient_of_the_likelihood_is_the_whitened_residual():
    a = agreement()
    plain = tf.constant(noise(2, 2, *a.grid.shape, seed=1))
    data, transfer = a.observe(noise(2, BOX, BOX), CTF)
    with tf.GradientTape() as tape:
        tape.watch(plain)
        value = a.value(data, transfer * plain)
    np.testing.assert_allclose(tape.gradient(value, plain), a.grid.weight * transfer * (data - transfer * plain), atol=1e-4)


def test_the_likelihood_of_an_empty_model_is_zero_and_of_the_data_themselves_the_largest():
    a = agreement()
    data, _ = a.observe(noise(2, BOX, BOX), CTF)
    assert not np.any(a.value(data, tf.zeros_like(data)))
    best = a.value(data, data).numpy()
    assert np.all(a.value(data, 0.9 * data).numpy() < best) and np.all(a.value(data, 1.1 * data).numpy() < best) and np.all(best > 0)


def test_frc_of_an_image_with_itself_is_one_and_with_its_negative_minus_one():
    a = agreement("frc")
    data = a.observe(noise(2, BOX, BOX), CTF)[0]
    np.testing.assert_allclose(a.value(data, data), 1, atol=1e-5)
    np.testing.assert_allclose(a.value(data, -data), -1, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-6, 1e-4, 1e4])
def test_frc_does_not_depend_on_the_scale_of_image_or_model(factor):
    a = agreement("frc")
    data = a.observe(noise(2, BOX, BOX), CTF)[0]
    model = tf.constant(noise(2, 2, *a.grid.shape, seed=1)) + data
    np.testing.assert_allclose(a.value(data * factor, model), a.value(data, model), rtol=1e-3)
    np.testing.assert_allclose(a.value(data * factor, model * factor), a.value(data, model), rtol=1e-3)


def test_frc_and_its_gradient_are_finite_for_an_empty_model():
    a = agreement("frc")
    data = a.observe(noise(2, BOX, BOX), CTF)[0]
    model = tf.zeros_like(data)
    with tf.GradientTape() as tape:
        tape.watch(model)
        value = a.value(data, model)
    assert not np.any(value) and np.all(np.isfinite(tape.gradient(value, model)))


def test_whitened_noise_has_unit_variance_where_the_power_is_the_noises():
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    a = Agreement(grid, "likelihood", 1e4, np.full(grid.m + 2, 9.0), 1.0)
    data = a.observe(3 * noise(200, BOX, BOX), np.repeat(CTF[:1], 200, 0))[0]
    assert np.sum(grid.weight * data**2) / (200 * grid.weight.sum()) == pytest.approx(1, rel=0.02)


def test_what_lies_outside_the_mask_does_not_count():
    a, images = agreement(), noise(2, BOX, BOX)
    other = images + 100 * (soft_disc(BOX, PIXEL, 50.0) == 0)
    np.testing.assert_array_equal(a.observe(images, CTF)[0], a.observe(other, CTF)[0])


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_an_agreement_comes_back_from_its_json(objective):
    a = agreement(objective)
    b = Agreement.from_state(json.loads(json.dumps(a.state())))
    data, transfer = a.observe(noise(2, BOX, BOX), CTF)
    model = transfer * noise(2, 2, *a.grid.shape, seed=1)
    np.testing.assert_array_equal(a.value(data, model), b.value(b.observe(noise(2, BOX, BOX), CTF)[0], model))
    assert (b.objective, b.scale, b.mask_diameter_angst, b.grid) == (objective, a.scale, a.mask_diameter_angst, a.grid)


def simulated(n, diameter, power_of, scale, seed=0):
    """Masked images of a blob with coloured noise, as transforms; and the blob's CTF-multiplied transforms."""
    grid, rng = FourierGrid.to_resolution(BOX, PIXEL), np.random.default_rng(seed)
    index = np.fft.fftfreq(BOX, 1 / BOX)
    ring = np.hypot(index[:, None], index[None])
    blob = np.float32(reference.image_of([(5, -4), (-8, 3)], [900, 700], [5, 4], BOX, PIXEL))
    ctf = np.repeat(CTF[:1], n, 0)
    model = np.asarray(transform(np.repeat(blob[None], n, 0), grid)) * ctf_values(ctf, grid.kx, grid.ky).numpy()[:, None]
    white = rng.normal(size=(n, BOX, BOX))
    images = np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power_of(ring))).real
    from gmmhet.engine.imaging.fourier import inverse_transform
    images = (images + scale * inverse_transform(model, grid).numpy()).astype(np.float32)
    disc = soft_disc(BOX, PIXEL, diameter)
    return np.asarray(transform(images * disc, grid)), model, grid, float(np.mean(disc**2))


def test_noise_and_scale_are_recovered_from_images_and_their_projections():
    power, scale = estimate_noise(*simulated(400, 1e4, lambda r: 4.0 - 0.2 * r, 1.7))
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    assert scale == pytest.approx(1.7, rel=0.02)
    np.testing.assert_allclose(power[2:grid.m + 1], 4.0 - 0.2 * np.arange(2, grid.m + 1), rtol=0.06)
    assert power[0] == power[1] and power[-1] == power[grid.m] and len(power) == grid.m + 2


def test_a_mask_does_not_bias_the_noise_of_the_unmasked_image():
    power, _ = estimate_noise(*simulated(400, 54.0, lambda r: 4.0 + 0 * r, 0.0))
    np.testing.assert_allclose(power[2:-1], 4.0, rtol=0.05)


def test_inverted_contrast_shows_as_a_negative_scale():
    data, model, grid, share = simulated(100, 1e4, lambda r: 1.0 + 0 * r, 1.0)
    assert estimate_noise(-data, model, grid, share)[1] == pytest.approx(-1, rel=0.05)


def test_images_without_noise_and_signal_are_refused():
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    empty = np.zeros((3, 2, *grid.shape), np.float32)
    with pytest.raises(ValueError, match="no signal and no noise in some Fourier ring: are the images constant"):
        estimate_noise(empty, empty + 1, grid, 1.0)
