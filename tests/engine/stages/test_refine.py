import numpy as np
import pytest
import tensorflow as tf
from commands import gmmhet

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Items
from gmmhet.engine.config import RefineConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.pose import angular_distance_deg, rotation_from_vector
from gmmhet.engine.imaging.pose_change import small_rotation
from gmmhet.engine.inference.least_squares import refine
from gmmhet.engine.inference.pose_refinement import refine_poses
from gmmhet.engine.io.particles import read_particles
from gmmhet.engine.likelihood.agreement import Agreement
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.model.settings import NETWORKS
from gmmhet.engine.stages.refine import prior


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_small_rotations_equal_the_exact_ones_and_have_a_finite_gradient_at_zero():
    vectors = np.random.default_rng(0).normal(0, 0.5, (20, 3)).astype(np.float32)
    np.testing.assert_allclose(small_rotation(tf.constant(vectors)), rotation_from_vector(vectors), atol=1e-5)
    zero = tf.zeros([1, 3])
    with tf.GradientTape() as tape:
        tape.watch(zero)
        value = small_rotation(zero)[0, 1, 0]
    np.testing.assert_allclose(small_rotation(zero)[0], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, zero), [[0, 0, 1]], atol=1e-4)


def test_levenberg_marquardt_ends_at_the_closed_form_of_a_linear_problem_with_a_prior():
    rng = np.random.default_rng(0)
    design, data = rng.normal(size=(6, 30, 3)).astype(np.float32), rng.normal(size=(6, 30)).astype(np.float32)
    mean, precision = np.float32([0.5, -1, 0]), np.diag([1.0, 4.0, 9.0]).astype(np.float32)
    x, cost, alone, curvature = refine(lambda x: tf.einsum("bkq,bq->bk", design, x) - data, tf.zeros([6, 3]), tf.constant(mean),
                                       tf.constant(precision), 6, tf.constant([0.1, 0.1, 0.1]))
    normal = np.einsum("bkq,bkp->bqp", design, design)
    expected = np.linalg.solve(normal + precision, (np.einsum("bkq,bk->bq", design, data) + precision @ mean)[..., None])[..., 0]
    np.testing.assert_allclose(x, expected, atol=2e-3)
    np.testing.assert_allclose(curvature, normal, rtol=1e-2, atol=0.1)
    residual = np.einsum("bkq,bq->bk", design, expected) - data
    np.testing.assert_allclose(alone, 0.5 * np.sum(residual**2, 1), rtol=1e-3)
    assert np.all(cost >= alone)


def test_levenberg_marquardt_never_ends_worse_than_it_starts():
    start = tf.constant(np.random.default_rng(0).normal(0, 3, (50, 2)).astype(np.float32))

    def residual(x):
        return tf.stack([1 - x[:, 0], 10 * (x[:, 1] - x[:, 0] ** 2)], 1)    # Rosenbrock's valley
    _, _, after, _ = refine(residual, start, tf.zeros(2), 1e-9 * tf.eye(2), 10, tf.constant([1e-3, 1e-3]))
    before = 0.5 * np.sum(residual(start).numpy() ** 2, 1)
    assert np.all(after <= before + 1e-4) and np.median(after) < 0.01 * np.median(before)


def disturbed(true):
    """The set with its poses turned by 2 degrees and moved by 2 px (rms)."""
    rng, n = np.random.default_rng(0), len(true)
    turn = rng.normal(size=(n, 3)) / np.sqrt(3) * np.radians(2.0)
    shift = true.shift_angst + rng.normal(size=(n, 2)) / np.sqrt(2) * 2 * true.pixel_size
    return true.with_poses(rotation_from_vector(turn) @ true.rotation, shift)


@pytest.fixture(scope="module")
def perturbed(hinge, tmp_path_factory):
    """300 particles whose poses were turned by 2 degrees and moved by 2 px (rms), written as a star file; and the true set."""
    true = read_particles(str(hinge / "set" / rundir.STAR)).select(np.arange(300))
    moved = disturbed(true)
    path = tmp_path_factory.mktemp("perturbed") / rundir.STAR
    moved.write_star(str(path))
    return path, true


@pytest.fixture(scope="module")
def true_model(tmp_path_factory):
    """200 particles of 48 px of a rigid phantom, and that phantom itself as the model, with the noise known."""
    folder = tmp_path_factory.mktemp("rigid") / "set"
    assert gmmhet("simulate", "--out", folder, "--kind", "null", "--n", 200, "--box", 48, "--pixel-size", 4, "--snr", 1) == 0
    with np.load(folder / rundir.TRUTH) as truth:
        phantom = Mixture(truth["centers"], truth["amplitudes"], truth["widths"])
        noise = float(truth["sigma"]) ** 2
    likelihood = Agreement(FourierGrid.to_resolution(48, 4.0), "likelihood", 1e4, np.full(25, noise), 1.0)
    model = HeterogeneityModel(phantom, np.ones(len(phantom), bool), dict(
        NETWORKS["default"], columns=["position"], smoothness=20.0, latent_dim=2, latent_noise=0.1, seed=1, symmetry="c1", particles="",
        likelihood=likelihood.state()))
    return model, read_particles(str(folder / rundir.STAR))


def errors(rotation, shift, true):
    """rms error of the orientations (degrees) and of the shifts (Å)."""
    return rms(angular_distance_deg(np.asarray(rotation, float), true.rotation.astype(float))), rms(
        np.linalg.norm(shift - true.shift_angst, axis=1))


def test_poses_perturbed_by_2_degrees_and_2_px_come_back_with_the_true_model(true_model):
    model, true = true_model
    moved = disturbed(true)
    rotation, shift, gain = refine_poses(model, Items(moved), np.zeros((200, 2)), 2.0, 8.0, 8, 100)
    before, after = errors(moved.rotation, moved.shift_angst, true), errors(rotation, shift, true)
    assert before == (pytest.approx(2, rel=0.1), pytest.approx(8, rel=0.1))
    assert after[0] < 0.6 * before[0] and after[1] < 0.15 * before[1]
    assert np.mean(gain > 0) > 0.98


def test_true_poses_stay_within_what_the_noise_allows(true_model):
    model, true = true_model
    rotation, shift, gain = refine_poses(model, Items(true), np.zeros((200, 2)), 2.0, 8.0, 2, 100)
    angle, moved = errors(rotation, shift, true)
    assert angle < 1.5 and moved < 1.0 and np.all(gain >= 0)


def test_a_tight_prior_keeps_the_given_poses(true_model):
    model, true = true_model
    moved = disturbed(true)
    rotation, shift, _ = refine_poses(model, Items(moved), np.zeros((200, 2)), 0.01, 0.01, 2, 100)
    assert angular_distance_deg(rotation, moved.rotation.astype(float)).max() < 0.5 and np.abs(shift - moved.shift_angst).max() < 0.2


def test_with_a_trained_model_and_noisy_images_most_of_the_shift_comes_back(hinge_run, perturbed):
    path, true = perturbed
    moved, model = read_particles(str(path)), load_model(str(hinge_run))
    with np.load(hinge_run / rundir.LATENTS) as data:
        z = data["z"][:300]
    _, shift, gain = refine_poses(model, Items(moved), z, 2.0, 12.0, 4, 100)
    error = np.linalg.norm(shift - true.shift_angst, axis=1)
    assert np.median(error) < 0.4 * np.median(np.linalg.norm(moved.shift_angst - true.shift_angst, axis=1)) and gain.mean() > 0


@pytest.mark.parametrize("asked,found,expected", [
    ((0.0, 0.0), (1.2, 0.8), (1.2, 0.8)), ((2.0, 0.0), (1.2, 0.8), (2.0, 0.8)), ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    ((0.0, 5.0), (), (3.0, 5.0)), ((1.0, 1.0), (0.5, 0.5), (1.0, 1.0))])
def test_errors_of_poses_are_those_asked_for_else_those_that_training_found(tmp_path, asked, found, expected):
    rundir.RunDir(str(tmp_path)).write_summary(dict(zip(("pose_error_deg", "pose_error_angst"), found)))
    config = RefineConfig(model=str(tmp_path), sigma_angle=asked[0], sigma_shift=asked[1])
    np.testing.assert_array_equal(prior(config, None, None), expected)


def test_what_training_found_is_of_the_poses_it_had(hinge, hinge_run, perturbed):
    model, (moved, _) = load_model(str(hinge_run)), perturbed
    same = RefineConfig(model=str(hinge_run), particles=str(hinge / "set" / rundir.STAR))
    found = rundir.read_json(str(hinge_run / rundir.SUMMARY))
    np.testing.assert_array_equal(prior(same, model, read_particles(same.particles)), (found["pose_error_deg"], found["pose_error_angst"]))
    other = RefineConfig(model=str(hinge_run), particles=str(moved))
    np.testing.assert_array_equal(prior(other, model, read_particles(str(moved))), (3, 3))


def test_poses_without_errors_that_the_images_show_are_kept(hinge, hinge_run, tmp_path):
    found = rundir.read_json(str(hinge_run / rundir.SUMMARY))
    assert found["pose_error_deg"] == found["pose_error_angst"] == 0
    assert gmmhet("refine", "--out", tmp_path / "out", "--model", hinge_run) == 0
    new, old = read_particles(str(tmp_path / "out" / rundir.STAR)), read_particles(str(hinge / "set" / rundir.STAR))
    assert errors(new.rotation, new.shift_angst, old) == (pytest.approx(0, abs=0.01), pytest.approx(0, abs=0.01))
    assert "they are kept as they are" in (tmp_path / "out" / rundir.LOG).read_text()


def test_the_stage_writes_new_poses_by_id_and_keeps_every_other_column(hinge, hinge_run, perturbed, tmp_path):
    path, true = perturbed
    assert gmmhet("refine", "--out", tmp_path / "out", "--model", hinge_run, "--particles", path, "--steps", 2, "--sigma-shift", 12) == 0
    new, old = read_particles(str(tmp_path / "out" / rundir.STAR)), read_particles(str(path))
    assert rundir.missing_run(str(tmp_path / "out"), "refine") == ""
    for name in ("ids", "half", "ctf"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    np.testing.assert_array_equal(new.read(np.arange(5)), true.read(np.arange(5)))
    with np.load(tmp_path / "out" / rundir.POSES) as poses:
        np.testing.assert_array_equal(poses["id"], new.ids)
        assert angular_distance_deg(poses["rotation"].astype(float), new.rotation.astype(float)).max() < 0.1
        np.testing.assert_allclose(poses["shift_angst"], new.shift_angst, atol=1e-3)
        np.testing.assert_allclose(poses["angle_change_deg"], angular_distance_deg(new.rotation.astype(float), old.rotation.astype(float)),
                                   atol=0.1)
