"""Images of a phantom: by formula, with noise of the variance that is asked for."""
import numpy as np
import pytest
import reference

from gmmhet.engine.gmm.mixture import render
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.simulate.images import (
    SimulatedSet,
    consensus_map,
    draw_ctf,
    draw_poses,
    family_mixtures,
    noisy_images,
)
from gmmhet.engine.simulate.phantom import ASSEMBLY_STATES, make_phantom


def phantom(kind):
    return make_phantom(kind, 60.0, 6.0, 20.0, 1)


def hinge_set(n, rng):
    p = phantom("hinge")
    return SimulatedSet(p, p.draw(n, rng), *draw_poses(n, 4.0, rng), draw_ctf(n, rng), 33, 6.0)


def test_an_image_is_the_projection_of_its_own_mixture_multiplied_by_the_ctf():
    simulated = hinge_set(3, np.random.default_rng(0))
    images, k = simulated.images(slice(None)), np.fft.fftfreq(33, 6.0)
    transfer = np.asarray(ctf_values(simulated.ctf, k[None, :], k[:, None]))
    for i in range(3):
        mixture = simulated.family.at(simulated.coordinates[i])
        xy = (mixture.centers @ simulated.rotation[i].T)[:, :2] + simulated.shift_angst[i]
        plain = reference.image_of(xy, mixture.amplitudes, mixture.widths, 33, 6.0)
        expected = np.fft.ifft2(np.fft.fft2(plain) * transfer[i]).real
        assert np.corrcoef(images[i].ravel(), expected.ravel())[0, 1] > 0.999


def test_mixtures_are_those_of_each_coordinate_in_its_order():
    p, coordinates = phantom("assembly"), np.array([[3, 0], [0, 0]])
    centers, amplitudes = family_mixtures(p, coordinates)
    for i, coordinate in enumerate(coordinates):
        np.testing.assert_array_equal(centers[i], p.at(coordinate).centers)
        np.testing.assert_array_equal(amplitudes[i], p.at(coordinate).amplitudes)


def test_the_same_seed_gives_the_same_noise_and_chunks_come_in_order():
    simulated = hinge_set(70, np.random.default_rng(0))
    (sigma, first), (again, second) = noisy_images(simulated, 0.5, 3), noisy_images(simulated, 0.5, 3)
    chunks = list(first)
    assert sigma == again and [len(chunk) for chunk in chunks] == [64, 6]
    np.testing.assert_array_equal(np.concatenate(chunks), np.concatenate(list(second)))


def test_the_consensus_map_is_the_mean_of_the_states():
    p = phantom("assembly")
    expected = sum(share * render(p.at((s, 0)), 24, 8.0) for s, (share, _) in enumerate(ASSEMBLY_STATES))
    np.testing.assert_allclose(consensus_map(p, 24, 8.0), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("snr", [0.1, 4.0])
def test_the_noise_has_the_variance_that_the_signal_to_noise_ratio_asks_for(snr):
    p, n, rng = phantom("null"), 100, np.random.default_rng(0)
    rotation, shift = draw_poses(n, 4.0, rng)
    simulated = SimulatedSet(p, p.draw(n, rng), rotation, shift, draw_ctf(n, rng), 32, 6.0)
    sigma, chunks = noisy_images(simulated, snr, 1)
    images, signal = np.concatenate(list(chunks)), simulated.images(slice(None))
    assert len(images) == n
    assert (images - signal).std() == pytest.approx(sigma, rel=0.01)
    assert signal.var() / sigma**2 == pytest.approx(snr, rel=0.01)
    assert (images - signal).std(axis=(1, 2)).std() < 0.1 * sigma
