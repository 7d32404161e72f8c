"""The oracle: Bayes' rule with everything known."""
import numpy as np
import pytest

from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.simulate.images import SimulatedSet, draw_ctf, draw_poses, noisy_images
from gmmhet.engine.simulate.oracle import estimates, posterior, truths
from gmmhet.engine.simulate.phantom import make_phantom


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Particles of a mixed phantom: the set, the noise, and the particles as they are read."""
    folder, rng, n = tmp_path_factory.mktemp("set"), np.random.default_rng(0), 40
    phantom = make_phantom("mixed", 60.0, 6.0, 20.0, 1)
    found = SimulatedSet(phantom, phantom.draw(n, rng), *draw_poses(n, 4.0, rng), draw_ctf(n, rng), 32, 6.0)
    sigma, chunks = noisy_images(found, 1.0, 1)
    write_particles(str(folder / "p.star"), str(folder / "p.mrcs"), chunks,
                    ParticleMetadata(found.rotation, found.shift_angst, found.ctf), 6.0)
    return found, sigma, read_particles(str(folder / "p.star"))


def test_the_posterior_is_bayes_rule_with_the_likelihood_of_white_noise(simulated):
    found, sigma, particles = simulated
    coordinates, probability = posterior(found.family, particles, sigma, batch_size=7)
    assert probability.shape == (40, len(coordinates))
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
    prior, grid, rows = found.family.grid()[1], FourierGrid.to_resolution(32, 6.0), np.arange(4)
    data = transform(particles.read(rows), grid).numpy()
    log_p = []
    for coordinate in coordinates:
        at = SimulatedSet(found.family, np.tile(coordinate, (40, 1)), found.rotation, found.shift_angst,
                          found.ctf, 32, 6.0)
        distance = data - at.transforms(slice(0, 4)).numpy()
        log_p.append(-0.5 * np.sum(grid.weight / sigma**2 * distance**2, axis=(1, 2, 3)))
    joint = np.log(prior)[:, None] + np.array(log_p)
    expected = np.exp(joint - joint.max(0)) / np.exp(joint - joint.max(0)).sum(0)
    np.testing.assert_allclose(probability[:4], expected.T, atol=2e-3)


def test_where_images_are_clear_the_estimates_are_the_truth(simulated):
    found, sigma, particles = simulated
    estimate = estimates(found.family, *posterior(found.family, particles, sigma))
    truth = truths(found.family, found.coordinates)
    assert np.mean(estimate["state"] == truth["state"]) == 1
    arm = np.isfinite(truth["angle"])
    assert np.array_equal(arm, found.family.has_arm(truth["state"])) and arm.sum() > 5
    error = np.abs(estimate["angle"] - truth["angle"])[arm]      # some views do not show the angle
    assert np.median(error) < 2


@pytest.mark.parametrize("kind, names",
                         [("hinge", {"angle"}), ("assembly", {"state"}), ("mixed", {"state", "angle"}),
                                         ("c3", {"unit_angles", "unit"}), ("d2", {"unit_angles", "unit"}),
                          ("null", set())])
def test_an_oracle_that_is_sure_gives_the_truth_under_the_same_names(kind, names):
    phantom = make_phantom(kind, 60.0, 6.0, 20.0, 1)
    coordinates, _ = phantom.grid(5)
    truth, estimate = truths(phantom, coordinates), estimates(phantom, coordinates, np.eye(len(coordinates)))
    assert set(truth) == set(estimate) == names
    for name in names:
        known = np.isfinite(truth[name])
        np.testing.assert_allclose(np.asarray(estimate[name], float)[known], truth[name][known], atol=1e-9)
