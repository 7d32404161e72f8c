"""Poses refined against each particle's own conformation."""
import numpy as np
import pytest
from commands import gmmhet
from untrained import settings

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.pose import angular_distance_deg, rotation_from_vector
from gmmhet.engine.inference.pose_refinement import PosePrior, refine_poses
from gmmhet.engine.latents import Latents
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate
from gmmhet.engine.likelihood.forward import ImageModel
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles

NOWHERE = np.zeros((200, 2))


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def disturbed(true):
    """The set with its poses turned by 2 degrees and moved by 2 px (rms)."""
    rng, n = np.random.default_rng(0), len(true)
    turn = rng.normal(size=(n, 3)) / np.sqrt(3) * np.radians(2.0)
    shift = true.shift_angst + rng.normal(size=(n, 2)) / np.sqrt(2) * 2 * true.pixel_size
    return true.with_poses(rotation_from_vector(turn) @ true.rotation, shift)


@pytest.fixture(scope="module")
def true_model(tmp_path_factory):
    """200 particles of 48 px of a rigid phantom, and that phantom as the model, with the noise known."""
    folder = tmp_path_factory.mktemp("rigid") / "set"
    flags = ["--kind", "null", "--n", 200, "--box", 48, "--pixel-size", 4, "--snr", 1]
    assert gmmhet("simulate", "--out", folder, *flags) == 0
    with np.load(folder / rundir.TRUTH) as truth:
        phantom = Mixture(truth["centers"], truth["amplitudes"], truth["widths"])
        noise = NoiseEstimate(np.full(25, float(truth["sigma"]) ** 2), 1.0)
    likelihood = Agreement(FourierGrid.to_resolution(48, 4.0), "likelihood", 1e4, noise)
    made = settings(["position"], likelihood, smoothness_angst=20.0, latent_dim=2)
    model = HeterogeneityModel(phantom, np.ones(len(phantom), bool), made)
    return model, read_particles(str(folder / rundir.STAR))


def errors(rotation, shift, true):
    """rms error of the orientations (degrees) and of the shifts (Å)."""
    angles = angular_distance_deg(np.asarray(rotation, float), true.rotation.astype(float))
    return rms(angles), rms(np.linalg.norm(shift - true.shift_angst, axis=1))


def test_poses_perturbed_by_2_degrees_and_2_px_come_back_with_the_true_model(true_model):
    model, true = true_model
    moved = disturbed(true)
    found = refine_poses(model, Views(moved), NOWHERE, PosePrior(2.0, 8.0), 8, 100)
    before, after = errors(moved.rotation, moved.shift_angst, true), errors(*found.pose, true)
    assert before == (pytest.approx(2, rel=0.1), pytest.approx(8, rel=0.1))
    assert after[0] < 0.6 * before[0] and after[1] < 0.15 * before[1]
    assert np.mean(found.gain > 0) > 0.98


def test_what_is_gained_is_the_log_likelihood_over_that_at_the_given_pose(true_model):
    model, true = true_model
    moved = disturbed(true).select(np.arange(20))
    found = refine_poses(model, Views(moved), NOWHERE[:20], PosePrior(2.0, 8.0), 3, 7)
    image_model = ImageModel(model.likelihood)
    at_given, at_found = (image_model.log_likelihood(model.neutral, image_model.observe(Views(
        moved.with_poses(np.float32(rotation), np.float32(shift))).batch(np.arange(20))))
        for rotation, shift in ((moved.rotation, moved.shift_angst), found.pose))
    np.testing.assert_allclose(found.gain, at_found - at_given, rtol=1e-2, atol=0.5)


def test_poses_do_not_depend_on_how_the_particles_are_shared_into_batches(true_model):
    model, true = true_model
    moved = disturbed(true).select(np.arange(20))
    one, other = (refine_poses(model, Views(moved), NOWHERE[:20], PosePrior(2.0, 8.0), 3, size) for size
                  in (20, 7))
    assert angular_distance_deg(one.pose.rotation, other.pose.rotation).max() < 0.02
    np.testing.assert_allclose(one.pose.shift_angst, other.pose.shift_angst, atol=5e-3)


def test_true_poses_stay_within_what_the_noise_allows(true_model):
    model, true = true_model
    found = refine_poses(model, Views(true), NOWHERE, PosePrior(2.0, 8.0), 2, 100)
    angle, moved = errors(*found.pose, true)
    assert angle < 1.5 and moved < 1.0 and np.all(found.gain >= 0)


def test_a_tight_prior_keeps_the_given_poses(true_model):
    model, true = true_model
    moved = disturbed(true)
    (rotation, shift), _ = refine_poses(model, Views(moved), NOWHERE, PosePrior(0.01, 0.01), 2, 100)
    assert angular_distance_deg(rotation, moved.rotation.astype(float)).max() < 0.5
    assert np.abs(shift - moved.shift_angst).max() < 0.2


def test_the_precision_of_a_prior_is_that_of_angles_in_radians_and_shifts_in_angst():
    expected = np.diag([1 / np.radians(2.0) ** 2] * 3 + [1 / 64] * 2)
    np.testing.assert_allclose(PosePrior(2.0, 8.0).precision, expected, rtol=1e-5)


def test_with_a_trained_model_and_noisy_images_most_of_the_shift_comes_back(hinge, hinge_run):
    true = read_particles(str(hinge / "set" / rundir.STAR)).select(np.arange(300))
    moved, model = disturbed(true), load_model(str(hinge_run))
    z = Latents.load(str(hinge_run)).z[:300]
    found = refine_poses(model, Views(moved), z, PosePrior(2.0, 12.0), 4, 100)
    after, before = (np.median(np.linalg.norm(shift - true.shift_angst, axis=1))
                     for shift in (found.pose.shift_angst, moved.shift_angst))
    assert after < 0.4 * before and found.gain.mean() > 0
