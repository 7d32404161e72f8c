import numpy as np
import pytest

from gmmhet.engine.imaging.fsc import fsc_curve, masked_fsc_curve, soft_sphere


def noise(box, seed):
    return np.random.default_rng(seed).normal(size=(box, box, box))


def slow_fsc(a, b):
    """Over the whole transform, one voxel at a time in spirit."""
    box = len(a)
    k = np.fft.fftfreq(box, 1 / box)
    square = k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2
    shell = np.rint(np.sqrt(square)).astype(int)
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    return [np.sum(fa[shell == s] * fb[shell == s].conj()).real
            / np.sqrt(np.sum(np.abs(fa[shell == s]) ** 2) * np.sum(np.abs(fb[shell == s]) ** 2))
            for s in range(box // 2 + 1)]


@pytest.mark.parametrize("box", [12, 15])
def test_fsc_equals_the_slow_sum_over_the_whole_transform(box):
    a, b = noise(box, 0), noise(box, 1) + 0.5 * noise(box, 0)
    np.testing.assert_allclose(fsc_curve(a, b), slow_fsc(a, b), atol=1e-6)


def test_fsc_of_a_map_with_itself_is_one_and_with_its_negative_minus_one():
    a = noise(16, 0)
    np.testing.assert_allclose(fsc_curve(a, a), 1, atol=1e-6)
    np.testing.assert_allclose(fsc_curve(a, -2 * a), -1, atol=1e-6)


def test_fsc_of_independent_noise_is_zero_within_its_standard_error():
    box = 48
    fsc = fsc_curve(noise(box, 0), noise(box, 1))
    # 2 pi s^2 independent terms in a shell
    standard_error = 1 / np.sqrt(2 * np.pi * np.arange(1, box // 2 + 1) ** 2)
    assert np.all(np.abs(fsc[1:]) < 4 * standard_error) and abs(fsc[8:].mean()) < 0.01


def test_fsc_of_signal_plus_equal_noise_is_one_half():
    signal = 1 * noise(48, 0)
    fsc = fsc_curve(signal + noise(48, 1), signal + noise(48, 2))
    assert np.mean(fsc[8:]) == pytest.approx(0.5, abs=0.02)


def test_fsc_is_zero_where_a_map_has_no_signal():
    assert not np.any(fsc_curve(np.zeros((8, 8, 8)), noise(8, 0)))


def test_masked_fsc_sees_only_what_the_mask_keeps():
    mask = soft_sphere(32, 6, 4)
    inside, other = noise(32, 0), noise(32, 1)
    a, b = np.where(mask > 0, inside, other), np.where(mask > 0, inside, noise(32, 2))
    np.testing.assert_allclose(masked_fsc_curve(a, b, mask), 1, atol=1e-6)
    assert fsc_curve(a, b)[4:].max() < 0.5


def test_maps_and_masks_of_different_shape_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"cubes of one size, got \[8, 8, 8\] and \[6, 6, 6\]"):
        fsc_curve(np.zeros((8, 8, 8)), np.zeros((6, 6, 6)))
    with pytest.raises(ValueError, match=r"mask must have the maps' shape \[8, 8, 8\], got \[6, 6, 6\]"):
        masked_fsc_curve(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), np.zeros((6, 6, 6)))


def test_soft_sphere_is_one_inside_zero_outside_and_half_on_the_middle_of_its_edge():
    mask = soft_sphere(32, 8, 4)
    line = mask[16, 16, 16:]
    assert np.all(line[:9] == 1) and np.all(line[12:] == 0) and line[10] == pytest.approx(0.5)
    assert mask[0, 0, 0] == 0 and soft_sphere(32)[16, 16, 0] == 0 and soft_sphere(32)[16, 16, 16] == 1
