"""Poses that are wrong: how wrong is found from the images, and what a wrong pose does is not taken for motion."""
import json

import numpy as np
import pytest
import tensorflow as tf
from commands import gmmhet, simulated, training
from scipy.spatial.transform import Rotation

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.pose import random_rotations, symmetry_matrices
from gmmhet.engine.imaging.projection import place, project
from gmmhet.engine.inference.pose_errors import PoseErrors, likeliest_sigma, marginal
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.settings import NETWORKS

PIXEL = 4.0


def drawn(sigma, n=600, latent=0, seed=0):
    """Slopes and curvatures of n linear Gaussian problems whose changes have standard deviations sigma (radians, Å), and the changes."""
    rng, size = np.random.default_rng(seed), latent + 5
    scale = np.array([1.0] * latent + [0.01] * 3 + [0.5] * 2)
    root = rng.normal(size=(n, 20, size)) / scale
    x = rng.normal(size=(n, size)) * np.array([1.0] * latent + [sigma[0]] * 3 + [sigma[1]] * 2)
    slope = np.einsum("bkq,bk->bq", root, np.einsum("bkq,bq->bk", root, x) + rng.normal(size=(n, 20)))
    return slope, np.einsum("bkq,bkp->bqp", root, root), x


@pytest.mark.parametrize("latent", [0, 4])
@pytest.mark.parametrize("sigma", [(0.02, 1.0), (0.005, 3.0)])
def test_the_poses_errors_are_found_from_the_images(sigma, latent):
    slope, curvature, _ = drawn(sigma, latent=latent)
    assert likeliest_sigma(slope, curvature, PIXEL, np.zeros(2)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("latent", [0, 4])
def test_exact_poses_have_no_errors(latent):
    slope, curvature, _ = drawn((0, 0), latent=latent)
    assert np.all(likeliest_sigma(slope, curvature, PIXEL, np.zeros(2)) == 0)


def test_the_marginal_likelihood_is_that_of_a_linear_gaussian_model():
    slope, curvature, _ = drawn((0.02, 1.0), n=3)
    s = np.array([0.02] * 3 + [1.0] * 2)
    covariance = np.linalg.inv(np.diag(s**-2) + curvature)
    wanted = 0.5 * np.einsum("bi,bij,bj->b", slope, covariance, slope) + 0.5 * np.log(np.linalg.det(covariance) / np.prod(s**2))
    np.testing.assert_allclose(marginal(s, slope, curvature), wanted, rtol=1e-6)


def test_the_changes_are_the_posterior_s_means_and_draws_have_its_spread():
    slope, curvature, x = drawn((0.02, 1.0))
    poses = PoseErrors(np.float32(slope), np.float32(curvature), PIXEL, np.arange(600), 1)
    expected = np.linalg.solve(curvature + np.diag(poses.sigmas**-2.0), slope[..., None])[..., 0]
    np.testing.assert_allclose(poses.change, expected, rtol=1e-2, atol=1e-4)
    error = (poses.change - x) / poses.sigmas
    assert np.mean(error**2) < 0.5
    rows = np.zeros(4000, int)
    spread = np.cov(poses.drawn(rows, np.random.default_rng(1).normal(size=(4000, 5))), rowvar=False)
    np.testing.assert_allclose(spread / np.outer(poses.sigmas, poses.sigmas),
                               poses.response(rows[:1])[0] / np.outer(poses.sigmas, poses.sigmas), atol=0.05)


def test_poses_go_back_to_where_they_were_given_when_their_errors_turn_out_to_be_none():
    slope, curvature, _ = drawn((0.02, 1.0))
    poses = PoseErrors(np.float32(slope), np.float32(curvature), PIXEL, np.arange(600), 1)
    poses.assume([0.02, 0.0])
    assert np.all(poses.change[:, :3] != 0) and not poses.change[:, 3:].any()
    poses.assume([0.0, 0.0])
    assert not poses.change.any() and not poses.drawn(np.arange(5), np.ones((5, 5))).any() and not poses.uncertain


# ---- whole runs

@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """600 alike particles with poses wrong by 2 degrees (1.15 each axis) and 3 Å (2.12), trained with and without regard to that."""
    folder = simulated(tmp_path_factory.mktemp("wrong"), "null", 600, 0.3)
    particles, rng = read_particles(str(folder / "set" / rundir.STAR)), np.random.default_rng(0)
    turn = Rotation.from_rotvec(np.radians(2) / np.sqrt(3) * rng.normal(size=(600, 3))).as_matrix()
    star = folder / "wrong.star"
    particles.with_poses(turn @ particles.rotation,
                         particles.shift_angst + 3 / np.sqrt(2) * rng.normal(size=(600, 2))).write_star(str(star))
    flags = training(folder, epochs=15)
    flags[flags.index("--particles") + 1] = star
    for pose_errors in ("auto", "none"):
        assert gmmhet("train", "--out", folder / pose_errors, *flags, "--pose-errors", pose_errors) == 0
    return folder


def summary(folder):
    return json.load(open(folder / rundir.SUMMARY))


def test_wrong_poses_of_alike_particles_do_not_pass_for_motion(wrong):
    found, blind = summary(wrong / "auto"), summary(wrong / "none")
    assert found["verdict"].startswith("Heterogeneity not supported")
    assert found["motion_rms_angst"] < 0.2 * blind["motion_rms_angst"]


def test_how_wrong_the_poses_are_is_said_and_where_they_should_be(wrong):
    found = summary(wrong / "auto")
    assert found["pose_error_deg"] == pytest.approx(1.15, rel=0.3) and found["pose_error_angst"] == pytest.approx(2.12, rel=0.3)
    assert "pose_error_deg" not in summary(wrong / "none")
    with np.load(wrong / "auto" / rundir.LATENTS) as data:
        change = data["pose_change"]
    true, given = (read_particles(str(wrong / path)) for path in ("set/" + rundir.STAR, "wrong.star"))
    off = true.shift_angst - given.shift_angst
    assert np.mean((change[:, 3:] - off) ** 2) < 0.2 * np.mean(off**2)


# ---- symmetry: the copies of a particle make one image

@pytest.mark.parametrize("region", [False, True], ids=["asymmetric unit", "part of it"])
def test_the_image_of_a_symmetric_particle_is_the_sum_of_what_its_copies_say(region):
    rng, grid = np.random.default_rng(0), FourierGrid.to_resolution(32, 4.0)
    unit = rng.normal(0, 8, (20, 3)) + [25, 0, 0]
    turns = symmetry_matrices("c3")
    centers = np.concatenate([unit @ turn.T for turn in turns])
    neutral = Mixture(np.float32(centers), np.tile(rng.uniform(0.5, 2, 20), 3).astype(np.float32), np.full(60, 4.0, np.float32))
    free = asymmetric_unit(neutral.centers, neutral.amplitudes, "c3")
    if region:
        free[np.flatnonzero(free)[5:]] = False
    likelihood = Agreement(grid, "likelihood", 120.0, np.ones(grid.m + 2), 1.0)
    model = HeterogeneityModel(neutral, free, dict(
        NETWORKS["default"], columns=["amplitude", "position"], smoothness=10.0, latent_dim=2, latent_noise=0.1, seed=1, symmetry="c3",
        particles="", whole_unit=not region, likelihood=likelihood.state()))
    model.decoder.variables[-2].assign(rng.normal(0, 0.3, model.decoder.variables[-2].shape))
    z, rotation, shift = (tf.constant(a, tf.float32) for a in (rng.normal(size=(6, 2)), random_rotations(2, rng), np.zeros((2, 2))))

    def image(mixture, rotation, shift):
        return project(place(mixture[0], rotation, shift), mixture[1], mixture[2], grid).numpy()
    items = tf.reshape(tf.einsum("bij,cjk->bcik", rotation, tf.constant(turns, tf.float32)), [6, 3, 3])
    still = tuple(tf.constant(part) for part in (neutral.centers, neutral.amplitudes, neutral.widths))
    change = image(model.mixture(z), items, tf.zeros([6, 2])) - image(still, items, tf.zeros([6, 2]))
    expected = image(still, rotation, shift) + change.reshape(2, 3, *change.shape[1:]).sum(1)
    found = image(model.assembled(model.mixture(z)), rotation, shift)
    assert np.abs(change).max() > 0.01 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
