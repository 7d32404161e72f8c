"""Particles that are all alike, made as they are read, with noise, scale and poses of a real set."""
import numpy as np
import pytest
import tensorflow as tf
from mixed_set import AMPLITUDES, CENTERS, WIDTHS, exact_image, write_mixed

from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import MixtureBatch
from gmmhet.engine.likelihood.conformations import SingleConformation
from gmmhet.engine.likelihood.homogeneous import HomogeneousParticles
from gmmhet.engine.likelihood.noise import ResolutionBand, estimate_noise_and_scale
from gmmhet.engine.particles.particle_set import read_particles

MIXTURE = Mixture(*(np.float32(values) for values in (CENTERS, AMPLITUDES, WIDTHS)))


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    """Two optics groups of 150 particles of 40 px of 3 Å; the second one is black and twice as strong."""
    path, _, _ = write_mixed(tmp_path_factory.mktemp("groups"), (150, 150), ((40, 3.0), (40, 3.0)), noise=3.0,
                             factors=(1.0, -2.0))
    return read_particles(path)


def estimated(particles):
    return estimate_noise_and_scale(particles, MIXTURE, ResolutionBand(7.0), 0, 1)


@pytest.fixture(scope="module")
def likelihood(particles):
    return estimated(particles)


@pytest.fixture(scope="module")
def quiet(likelihood):
    """The same with next to no noise, and known scales."""
    nothing = np.full_like(likelihood.noise_power, 1e-12).tolist()
    return type(likelihood).from_state(dict(likelihood.state(), noise_power=nothing, scale=[1, 1, -2]))


def homogeneous(particles, likelihood, seed=1, poses=None):
    return HomogeneousParticles(particles, SingleConformation(MIXTURE), likelihood, seed, poses)


# ---- noise and scale

def test_homogeneous_images_have_the_noise_and_the_density_scale_of_each_optics_group(particles, likelihood):
    found = estimated(homogeneous(particles, likelihood))
    np.testing.assert_allclose(found.scale[1:], likelihood.scale[1:], rtol=0.05)
    rings = slice(2, likelihood.grid.m + 1)
    for ours, theirs in zip(found.noise_power[1:], likelihood.noise_power[1:]):
        np.testing.assert_allclose(ours[rings], theirs[rings], rtol=0.25)
        assert ours[rings].mean() == pytest.approx(theirs[rings].mean(), rel=0.04)


def test_coloured_noise_keeps_its_colour(particles, likelihood):
    colour = 1 + 20 * np.exp(-np.arange(likelihood.grid.m + 2) / 4.0)
    coloured = dict(likelihood.state(), noise_power=np.tile(colour, (3, 1)).tolist())
    for power in estimated(homogeneous(particles, type(likelihood).from_state(coloured))).noise_power[1:]:
        np.testing.assert_allclose(power[3:-1], colour[3:-1], rtol=0.2)


def test_rings_without_data_get_the_noise_of_the_nearest_one_that_has_some(particles, likelihood):
    power = np.ones_like(likelihood.noise_power)
    power[:, :3], power[:, 3], power[:, -2:] = 0, 9, 0
    gaps = type(likelihood).from_state(dict(likelihood.state(), noise_power=power.tolist(), scale=[1e-9] * 3))
    found = np.abs(np.fft.fft2(homogeneous(particles, gaps).read(np.arange(300)))) ** 2 / 40**2
    radius = np.round(np.hypot(*np.meshgrid(*[np.fft.fftfreq(40) * 40] * 2))).astype(int)
    by_ring = np.bincount(radius.ravel(), found.mean(0).ravel()) / np.bincount(radius.ravel())
    np.testing.assert_allclose(by_ring[:4], 9, rtol=0.2)
    np.testing.assert_allclose(by_ring[4:], 1, rtol=0.2)      # also beyond the target resolution


# ---- pose and conformation

def test_without_noise_a_homogeneous_image_is_the_projection_at_the_particle_s_pose(particles, quiet):
    rows, factors = [3, 200], (1, -2)
    for image, row, factor in zip(homogeneous(particles, quiet).read(rows), rows, factors):
        expected = factor * exact_image(particles.rotation[row], particles.shift_angst[row], 40, 3.0)
        np.testing.assert_allclose(image, expected, atol=0.02 * np.abs(expected).max())


class WrongBy:
    """Poses that are all wrong by the same change, whatever the noise."""

    def __init__(self, *change):
        self.change, self.asked = np.array(change), []

    def draw(self, rows, noise):
        self.asked.append((np.array(rows), noise))
        return np.tile(self.change, (len(rows), 1))


def test_where_poses_are_uncertain_images_are_drawn_at_others(particles, quiet):
    poses = WrongBy(0.1, 0.0, -0.2, 3.0, -6.0)
    given = Pose(particles.rotation[[3, 7]], particles.shift_angst[[3, 7]])
    pose = given.perturbed_exactly(np.tile(poses.change, (2, 1)))
    for i, image in enumerate(homogeneous(particles, quiet, poses=poses).read([3, 7])):
        expected = exact_image(pose.rotation[i], pose.shift_angst[i], 40, 3.0)
        np.testing.assert_allclose(image, expected, atol=0.02 * np.abs(expected).max())


def test_the_noise_of_a_pose_depends_on_seed_and_id_alone(particles, quiet):
    poses = WrongBy(0, 0, 0, 0, 0)
    images = homogeneous(particles, quiet, poses=poses)
    for rows in ([3, 7], [7]):
        images.read(rows)
    homogeneous(particles, quiet, seed=2, poses=poses).read([7])
    (_, together), (_, alone), (_, other) = poses.asked
    np.testing.assert_array_equal(together[1], alone[0])
    assert together.shape == (2, 5) and np.all(together[0] != together[1]) and np.all(other != alone)


class Fading:
    """Of every particle a conformation of its own: all amplitudes times a factor of the row."""

    def at(self, rows):
        factor = 1 + np.asarray(rows, np.float32)[:, None] / 100
        centers = tf.repeat(tf.constant(MIXTURE.centers)[None], len(rows), 0)
        return MixtureBatch(centers, tf.constant(factor * MIXTURE.amplitudes), tf.constant(MIXTURE.widths))


def test_each_particle_is_of_its_own_conformation_where_these_differ(particles, quiet):
    rows = [3, 100]
    found = HomogeneousParticles(particles, Fading(), quiet, 1).read(rows)
    plain = homogeneous(particles, quiet).read(rows)
    for image, same, factor in zip(found, plain, (1.03, 2.0)):
        np.testing.assert_allclose(image, factor * same, atol=1e-3 * np.abs(image).max())


# ---- what an image depends on

def test_a_homogeneous_image_depends_on_seed_and_id_alone(particles, likelihood):
    images, other = (homogeneous(particles, likelihood, seed) for seed in (1, 2))
    together = images.read(np.array([5, 250, 7]))
    tolerance = 1e-5 * np.abs(together).max()
    np.testing.assert_allclose(images.read(np.array([250]))[0], together[1], atol=tolerance)
    part = homogeneous(particles.select([250, 9]), likelihood)
    np.testing.assert_allclose(part.read(np.array([0]))[0], together[1], atol=tolerance)
    assert np.abs(other.read(np.array([5]))[0] - together[0]).max() > 1
    np.testing.assert_allclose(images.with_seed(2).read([5]), other.read([5]), atol=tolerance)
    assert np.abs(together[0] - together[2]).max() > 1


def test_everything_but_the_images_is_that_of_the_real_set(particles, likelihood):
    alike = homogeneous(particles, likelihood)
    assert (len(alike), alike.box, alike.pixel_size, alike.path) == (300, 40, 3.0, particles.path)
    for name in ("ids", "rotation", "shift_angst", "ctf", "half", "sampling"):
        assert getattr(alike, name) is getattr(particles, name)
    assert alike.numbered == particles.numbered
    rows = np.arange(3)
    assert list(alike.image_names(rows)) == list(particles.image_names(rows))
    np.testing.assert_array_equal(alike.finest_frequency(rows), particles.finest_frequency(rows))
