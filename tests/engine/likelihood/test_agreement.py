"""How images are observed, and how well projections agree with them, against slow formulas."""
import json

import numpy as np
import pytest
import reference
import tensorflow as tf

from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, inverse_transform, soft_disc, transform
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate

BOX, PIXEL = 24, 3.0
CTF = np.array([[15000, 14000, 20, 300, 2.7, 0.1, 0, 0, 1], [9000, 9000, 0, 200, 2.0, 0.07, 30, 10, 0.8]],
               np.float32)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def agreement(objective="likelihood", scale=0.7, resolution=9.0):
    grid = FourierGrid.to_resolution(BOX, PIXEL, resolution)
    power = np.linspace(2.0, 0.5, grid.m + 2)
    return Agreement(grid, objective, 50.0, NoiseEstimate(power, scale))


def observe(agreement, images, ctf, group=1):
    """Data and transfer of images of one optics group, or of a group each."""
    return agreement.observe(images, ctf, np.broadcast_to(group, len(images)))


def as_complex(coefficients):
    coefficients = np.asarray(coefficients)
    return coefficients[:, 0] + 1j * coefficients[:, 1]


def test_likelihood_equals_the_slow_formula_with_noise_power_scale_ctf_and_mask():
    a = agreement()
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = observe(a, images, CTF)
    found = a.value(data, transfer * plain).numpy()
    kx, ky = reference.half_plane(BOX, PIXEL, a.grid.m)
    for i in range(2):
        seen = reference.transform(images[i] * soft_disc(BOX, PIXEL, 50.0), a.grid.m)
        model = 0.7 * reference.ctf(CTF[i], kx, ky) * as_complex(plain)[i]
        assert found[i] == pytest.approx(reference.log_likelihood(seen, model, a.noise_power[0]), rel=1e-3)


def test_frc_equals_the_slow_formula_on_phase_flipped_images():
    a = agreement("frc")
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = observe(a, images, CTF)
    found = a.value(data, transfer * plain).numpy()
    kx, ky = reference.half_plane(BOX, PIXEL, a.grid.m)
    for i in range(2):
        seen = reference.transform(images[i] * soft_disc(BOX, PIXEL, 50.0), a.grid.m)
        seen *= np.sign(reference.ctf(CTF[i], kx, ky))
        assert found[i] == pytest.approx(reference.frc(seen, as_complex(plain)[i]), abs=1e-4)


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_a_batch_equals_its_particles_one_by_one(objective):
    a = agreement(objective)
    images, plain = noise(2, BOX, BOX), noise(2, 2, *a.grid.shape, seed=1)
    data, transfer = observe(a, images, CTF)
    together = a.value(data, transfer * plain).numpy()
    for i in range(2):
        data, transfer = observe(a, images[i:i + 1], CTF[i:i + 1])
        assert a.value(data, transfer * plain[i:i + 1]).numpy()[0] == pytest.approx(together[i], rel=1e-5)


def test_the_gradient_of_the_likelihood_is_the_whitened_residual():
    a = agreement()
    plain = tf.constant(noise(2, 2, *a.grid.shape, seed=1))
    data, transfer = observe(a, noise(2, BOX, BOX), CTF)
    with tf.GradientTape() as tape:
        tape.watch(plain)
        value = a.value(data, transfer * plain)
    np.testing.assert_allclose(tape.gradient(value, plain),
                               a.grid.weight * transfer * (data - transfer * plain), atol=1e-4)


def test_the_likelihood_of_an_empty_model_is_zero_and_of_the_data_themselves_the_largest():
    a = agreement()
    data, _ = observe(a, noise(2, BOX, BOX), CTF)
    assert not np.any(a.value(data, tf.zeros_like(data)))
    best = a.value(data, data).numpy()
    assert np.all(a.value(data, 0.9 * data).numpy() < best)
    assert np.all(a.value(data, 1.1 * data).numpy() < best) and np.all(best > 0)


def test_frc_of_an_image_with_itself_is_one_and_with_its_negative_minus_one():
    a = agreement("frc")
    data = observe(a, noise(2, BOX, BOX), CTF)[0]
    np.testing.assert_allclose(a.value(data, data), 1, atol=1e-5)
    np.testing.assert_allclose(a.value(data, -data), -1, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-6, 1e-4, 1e4])
def test_frc_does_not_depend_on_the_scale_of_image_or_model(factor):
    a = agreement("frc")
    data = observe(a, noise(2, BOX, BOX), CTF)[0]
    model = tf.constant(noise(2, 2, *a.grid.shape, seed=1)) + data
    np.testing.assert_allclose(a.value(data * factor, model), a.value(data, model), rtol=1e-3)
    np.testing.assert_allclose(a.value(data * factor, model * factor), a.value(data, model), rtol=1e-3)


def test_frc_and_its_gradient_are_finite_for_an_empty_model():
    a = agreement("frc")
    data = observe(a, noise(2, BOX, BOX), CTF)[0]
    model = tf.zeros_like(data)
    with tf.GradientTape() as tape:
        tape.watch(model)
        value = a.value(data, model)
    assert not np.any(value) and np.all(np.isfinite(tape.gradient(value, model)))


def test_whitened_noise_has_unit_variance_where_the_power_is_the_noises():
    grid = FourierGrid.to_resolution(BOX, PIXEL)
    a = Agreement(grid, "likelihood", 1e4, NoiseEstimate(np.full(grid.m + 2, 9.0), 1.0))
    data = observe(a, 3 * noise(200, BOX, BOX), np.repeat(CTF[:1], 200, 0))[0]
    assert np.sum(grid.weight * data**2) / (200 * grid.weight.sum()) == pytest.approx(1, rel=0.02)


def test_what_lies_outside_the_mask_does_not_count():
    a, images = agreement(), noise(2, BOX, BOX)
    other = images + 100 * (soft_disc(BOX, PIXEL, 50.0) == 0)
    np.testing.assert_array_equal(observe(a, images, CTF)[0], observe(a, other, CTF)[0])


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_an_agreement_comes_back_from_its_json(objective):
    a = agreement(objective)
    b = Agreement.from_state(json.loads(json.dumps(a.state())))
    data, transfer = observe(a, noise(2, BOX, BOX), CTF)
    model = transfer * noise(2, 2, *a.grid.shape, seed=1)
    np.testing.assert_array_equal(a.value(data, model),
                                  b.value(observe(b, noise(2, BOX, BOX), CTF)[0], model))
    assert (b.objective, b.mask_diameter_angst, b.grid) == (objective, a.mask_diameter_angst, a.grid)
    np.testing.assert_array_equal(b.scale, a.scale)


# ---- optics groups, contrast, limits

def with_flip(ctf, value):
    """CTF parameters [B, 10], which say whether the images are phase-flipped."""
    return np.concatenate([ctf, np.full((len(ctf), 1), value)], axis=1).astype(np.float32)


def grouped(objective="likelihood", **options):
    """An agreement of optics groups 3 and 7, and each one's own agreement for all."""
    grid = FourierGrid.to_resolution(BOX, PIXEL, 9.0)
    power = np.array([np.linspace(2, 0.5, grid.m + 2), np.full(grid.m + 2, 3.0),
                      np.linspace(0.7, 4, grid.m + 2)])
    scale = [1.0, 0.5, -1.2]
    alone = [Agreement(grid, objective, 50.0, NoiseEstimate(power[i], scale[i]), **options) for i in range(3)]
    return Agreement(grid, objective, 50.0, NoiseEstimate(power, scale, (3, 7)), **options), alone


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_particles_have_noise_scale_and_contrast_of_their_group_and_of_an_unknown_one_those_of_all(objective):
    together, alone = grouped(objective)
    images, plain = noise(5, BOX, BOX), noise(5, 2, *together.grid.shape, seed=1)
    ctf = np.repeat(CTF[:1], 5, 0)
    data, transfer = observe(together, images, ctf, [7, 3, 7, 1, 99])
    found = together.value(data, transfer * plain).numpy()
    for i, row in enumerate([2, 1, 2, 0, 0]):
        own, ctf_times = observe(alone[row], images[i:i + 1], ctf[i:i + 1])
        np.testing.assert_allclose(data[i], own[0], rtol=1e-5, atol=1e-6)
        expected = alone[row].value(own, ctf_times * plain[i:i + 1])[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)


def test_optics_groups_work_in_a_compiled_function_of_any_batch():
    together, _ = grouped()
    compiled = tf.function(together.observe, reduce_retracing=True)
    for count in (1, 3):
        images, ctf, group = noise(count, BOX, BOX), np.repeat(CTF[:1], count, 0), np.full(count, 7)
        found = compiled(images, tf.constant(ctf), tf.constant(group))
        for eager, graph in zip(together.observe(images, ctf, group), found):
            np.testing.assert_allclose(eager, graph, atol=1e-5)


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_black_images_agree_as_their_white_inverses(objective):
    white, black = agreement(objective, scale=0.7), agreement(objective, scale=-0.7)
    images, plain = noise(2, BOX, BOX), noise(2, 2, *white.grid.shape, seed=1)
    values = [a.value(data, transfer * plain) for a, sign in ((white, 1), (black, -1))
              for data, transfer in [observe(a, sign * images, CTF)]]
    np.testing.assert_allclose(*values, rtol=1e-5)
    assert (white.contrast, black.contrast) == ("white", "black")
    assert black.figures() == dict(scale=0.7, contrast="black")


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_phase_flipped_images_are_not_flipped_again(objective):
    a = agreement(objective)
    kx, ky = a.grid.kx, a.grid.ky
    plain = noise(2, 2, *a.grid.shape, seed=1)
    images = noise(2, BOX, BOX)
    full = FourierGrid.to_resolution(BOX, PIXEL)
    flip = np.sign(ctf_values(CTF, full.kx, full.ky))[:, None]
    # a mask acts before or after flipping, which differs
    disc_free = Agreement(a.grid, objective, 1e4, NoiseEstimate(a.noise_power[0], 0.7))
    kept = inverse_transform(transform(images, full), full)
    flipped = inverse_transform(transform(images, full) * flip, full)
    data, transfer = observe(disc_free, kept, with_flip(CTF, 0))
    own, own_transfer = observe(disc_free, flipped, with_flip(CTF, 1))
    np.testing.assert_allclose(disc_free.value(own, own_transfer * plain),
                               disc_free.value(data, transfer * plain), rtol=1e-3, atol=1e-4)
    if objective == "likelihood":
        np.testing.assert_allclose(own_transfer, np.abs(transfer), atol=1e-6)
    assert np.any(ctf_values(CTF, kx, ky) < 0)


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_rings_below_the_first_and_rings_without_data_count_for_nothing(objective):
    grid, first = FourierGrid.to_resolution(BOX, PIXEL, 9.0), 3
    power = np.ones(grid.m + 2)
    power[7:] = 0
    a = Agreement(grid, objective, 50.0, NoiseEstimate(power, 1.0), first_ring=first)
    data, transfer = observe(a, noise(2, BOX, BOX), CTF)
    model = noise(2, 2, *grid.shape, seed=1)
    outside = (grid.shell < first) | (grid.shell >= 7)
    assert not np.any(np.asarray(data)[:, :, outside])
    other = np.where(outside, 5 * model + 1, model)
    changed = other if objective == "likelihood" else np.where(grid.shell < first, other, model)
    np.testing.assert_allclose(a.value(data, transfer * model),
                               a.value(data, transfer * changed), rtol=1e-5)
    with tf.GradientTape() as tape:
        plain = tf.constant(model)
        tape.watch(plain)
        value = a.value(data, transfer * plain)
    gradient = tape.gradient(value, plain).numpy()
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[:, :, outside])
    assert np.any(gradient[:, :, ~outside])


def test_the_ring_correlation_is_the_mean_over_the_rings_from_the_first():
    grid, a = FourierGrid.to_resolution(BOX, PIXEL, 9.0), {}
    for first in (1, 4):
        a[first] = Agreement(grid, "frc", 50.0, NoiseEstimate(np.ones(grid.m + 2), 1.0), first_ring=first)
    data = observe(a[1], noise(1, BOX, BOX), CTF[:1])[0]
    model = tf.constant(noise(1, 2, *grid.shape, seed=1))
    low = Agreement(FourierGrid(BOX, PIXEL, 3), "frc", 50.0, NoiseEstimate(np.ones(5), 1.0))
    part = (slice(None), slice(None), slice(grid.m - 3, grid.m + 4), slice(0, 4))
    three = float(low.value(data[part], model[part])[0])
    beyond = float(a[4].value(data, model)[0])
    together = (3 * three + (grid.m - 3) * beyond) / grid.m
    assert float(a[1].value(data, model)[0]) == pytest.approx(together, rel=1e-4)


def test_agreements_saved_before_there_were_optics_groups_are_read():
    a = agreement()
    old = dict(a.state(), noise_power=a.noise_power[0].tolist(), scale=float(a.scale[0]))
    del old["groups"], old["first_ring"]
    b = Agreement.from_state(json.loads(json.dumps(old)))
    for first, second in zip(observe(a, noise(2, BOX, BOX), CTF), observe(b, noise(2, BOX, BOX), CTF)):
        np.testing.assert_array_equal(first, second)


def test_an_agreement_of_several_groups_comes_back_from_its_json():
    a, _ = grouped(first_ring=2)
    b = Agreement.from_state(json.loads(json.dumps(a.state())))
    assert (b.groups, b.first_ring) == ((3, 7), 2)
    assert a.figures()["scale_of_optics_group"] == {"3": 0.5, "7": 1.2}
    for first, second in zip(*(observe(made, noise(2, BOX, BOX), CTF, [3, 7]) for made in (a, b))):
        np.testing.assert_array_equal(first, second)


def test_rows_of_noise_and_scale_must_fit_the_groups():
    with pytest.raises(ValueError, match="one for each of the 2 optics groups, got 1 and 1"):
        Agreement(FourierGrid.to_resolution(BOX, PIXEL), "likelihood", 50.0,
                  NoiseEstimate(np.ones(13), 1.0, (3, 7)))


@pytest.mark.parametrize("objective", ["likelihood", "frc"])
def test_to_a_resolution_only_the_rings_up_to_it_count(objective):
    fine, images = agreement(objective), noise(2, BOX, BOX)
    coarse = fine.to_resolution(18.0)
    assert coarse.grid.m == 4 and fine.grid.m == 8
    plain = noise(2, 2, *fine.grid.shape, seed=1)
    data, transfer = observe(fine, images, CTF)
    # the same frequencies on the smaller grid
    inner = (slice(None), slice(None), slice(4, 13), slice(0, 5))
    part, part_transfer = observe(coarse, images, CTF)
    np.testing.assert_allclose(part * coarse.grid.weight, (data.numpy()[inner]) * coarse.grid.weight,
                               atol=1e-4)
    found = coarse.value(part, part_transfer * plain[inner]).numpy()
    holds = tf.constant((fine.grid.shell <= 4).astype(np.float32))
    if objective == "likelihood":
        np.testing.assert_allclose(found, fine.value(data * holds, transfer * plain * holds).numpy(),
                                   rtol=1e-4)
    else:
        np.testing.assert_allclose(found, 2 * fine.value(data * holds, transfer * plain * holds).numpy(),
                                   rtol=1e-3)
    assert fine.to_resolution(9.0) is fine and fine.to_resolution(5.0) is fine


def test_of_a_resolution_that_leaves_an_optics_group_without_rings_all_are_kept():
    grid = FourierGrid.to_resolution(BOX, PIXEL, 9.0)
    late = Agreement(grid, "likelihood", 50.0, NoiseEstimate(np.ones(grid.m + 2), 1.0), first_ring=6)
    assert late.to_resolution(18.0) is late and late.to_resolution(11.0).grid.m == 7
    power = np.ones((3, grid.m + 2))
    power[2, :6] = 0
    # group 2 has data from ring 6 on
    mixed = Agreement(grid, "likelihood", 50.0, NoiseEstimate(power, np.ones(3), (1, 2)))
    assert mixed.to_resolution(18.0) is mixed and mixed.to_resolution(11.0).groups == (1, 2)


@pytest.mark.parametrize("first_ring,m", [(1, 10), (5, 10), (6, 23)])
def test_coarse_are_the_rings_that_training_starts_from_where_they_are_an_octave(first_ring, m):
    whole = Agreement(FourierGrid.to_resolution(48, 2.5, 5.0), "likelihood", 100.0,
                      NoiseEstimate(np.ones(25), 1.0), first_ring=first_ring)
    assert whole.coarse.grid.m == m
