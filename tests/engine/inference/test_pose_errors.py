"""Poses that are wrong: how wrong is found from the images, and what they do is not taken for motion."""
import json

import numpy as np
import pytest
import tensorflow as tf
from commands import gmmhet, simulated, training
from scipy.spatial.transform import Rotation
from untrained import untrained

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.inference.pose_errors import (
    JointDerivatives,
    PoseErrors,
    estimate_sigma,
    log_marginal,
    row_chunks,
)
from gmmhet.engine.likelihood.quadratic import Quadratic
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles

PIXEL = 4.0


def drawn(sigma, n=600, latent=0, seed=0):
    """Linear Gaussian problems whose changes have standard deviations sigma (radians, Å), and the changes."""
    rng, size = np.random.default_rng(seed), latent + 5
    scale = np.array([1.0] * latent + [0.01] * 3 + [0.5] * 2)
    root = rng.normal(size=(n, 20, size)) / scale
    x = rng.normal(size=(n, size)) * np.array([1.0] * latent + [sigma[0]] * 3 + [sigma[1]] * 2)
    data = np.einsum("bkq,bq->bk", root, x) + rng.normal(size=(n, 20))
    return Quadratic(np.einsum("bkq,bk->bq", root, data), np.einsum("bkq,bkp->bqp", root, root)), x


def pose_errors(derivatives, learned=None):
    single = Quadratic(*(np.float32(values) for values in derivatives))
    return PoseErrors(single, PIXEL, np.arange(len(single.slope)) if learned is None else learned, 1)


@pytest.mark.parametrize("latent", [0, 4])
@pytest.mark.parametrize("sigma", [(0.02, 1.0), (0.005, 3.0)])
def test_the_poses_errors_are_found_from_the_images(sigma, latent):
    derivatives, _ = drawn(sigma, latent=latent)
    assert estimate_sigma(derivatives, PIXEL, np.zeros(2)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("latent", [0, 4])
def test_exact_poses_have_no_errors(latent):
    derivatives, _ = drawn((0, 0), latent=latent)
    assert np.all(estimate_sigma(derivatives, PIXEL, np.zeros(2)) == 0)


def test_the_marginal_likelihood_is_that_of_a_linear_gaussian_model():
    derivatives, _ = drawn((0.02, 1.0), n=3)
    slope, curvature = derivatives
    s = np.array([0.02] * 3 + [1.0] * 2)
    covariance = np.linalg.inv(np.diag(s**-2) + curvature)
    wanted = 0.5 * np.einsum("bi,bij,bj->b", slope, covariance, slope)
    wanted += 0.5 * np.log(np.linalg.det(covariance) / np.prod(s**2))
    np.testing.assert_allclose(log_marginal(s, derivatives), wanted, rtol=1e-6)


def test_the_changes_are_the_posterior_s_means_and_draws_have_its_spread():
    derivatives, x = drawn((0.02, 1.0))
    poses = pose_errors(derivatives)
    inverse = derivatives.curvature + np.diag(poses.sigmas**-2.0)
    expected = np.linalg.solve(inverse, derivatives.slope[..., None])[..., 0]
    np.testing.assert_allclose(poses.change, expected, rtol=1e-2, atol=1e-4)
    error = (poses.change - x) / poses.sigmas
    assert np.mean(error**2) < 0.5
    rows, units = np.zeros(4000, int), np.outer(poses.sigmas, poses.sigmas)
    spread = np.cov(poses.draw(rows, np.random.default_rng(1).normal(size=(4000, 5))), rowvar=False)
    np.testing.assert_allclose(spread / units, poses.response(rows[:1])[0] / units, atol=0.05)
    np.testing.assert_allclose(poses.response(rows[:1])[0] / units, np.linalg.inv(inverse[0]) / units,
                               atol=1e-3)


def test_the_log_volume_is_what_the_posterior_is_narrower_than_the_prior():
    derivatives, _ = drawn((0.02, 1.0))
    poses, rows = pose_errors(derivatives), np.array([3, 7])
    narrower = derivatives.curvature[rows] + np.diag(poses.sigmas**-2.0)
    expected = 0.5 * np.log(np.linalg.det(narrower) * np.prod(poses.sigmas**2))
    np.testing.assert_allclose(poses.log_volume(rows), expected, rtol=1e-4)


def test_particles_that_are_not_learned_from_say_nothing_of_the_errors():
    true, others = drawn((0.02, 1.0), n=300)[0], drawn((0.1, 9.0), n=300)[0]
    both = Quadratic(*(np.concatenate(values) for values in zip(true, others)))
    poses = pose_errors(both, np.arange(300))
    assert set(poses.sample) <= set(range(300))
    np.testing.assert_allclose(poses.sigma, (0.02, 1.0), rtol=0.15)
    assert np.all(poses.change[300:] != 0)      # but they have poses too


def test_poses_go_back_to_where_they_were_given_when_their_errors_turn_out_to_be_none():
    poses = pose_errors(drawn((0.02, 1.0))[0])
    first = poses.first_sigma.copy()
    np.testing.assert_allclose(poses.precision, poses.sigmas**-2.0, rtol=1e-5)
    poses.set_sigma([0.02, 0.0])
    assert np.all(poses.change[:, :3] != 0) and not poses.change[:, 3:].any() and poses.uncertain
    np.testing.assert_allclose(poses.precision, [2500] * 3 + [0] * 2, rtol=1e-5)
    poses.set_sigma([0.0, 0.0])
    assert not poses.change.any() and not poses.draw(np.arange(5), np.ones((5, 5))).any()
    assert not poses.uncertain
    np.testing.assert_array_equal(poses.first_sigma, first)      # which is of one model for all particles


def test_errors_are_estimated_anew_by_latent_point_and_pose_together():
    """What z explains is no error of poses, though without z it looks like one."""
    joint, _ = drawn((0.005, 0.5), latent=2)
    poses = pose_errors(drawn((0.02, 1.0))[0])
    poses.re_estimate(joint)
    assert poses.sigma == pytest.approx((0.005, 0.5), rel=0.25)


def test_rows_in_chunks_are_all_rows_once():
    assert [(part.start, part.stop) for part in row_chunks(5000)] == [(0, 2048), (2048, 4096), (4096, 6144)]
    derivatives, _ = drawn((0.02, 1.0), n=3000)
    s, few = np.array([0.02] * 3 + [1.0] * 2), Quadratic(*(values[2500:2510] for values in derivatives))
    np.testing.assert_allclose(log_marginal(s, derivatives)[2500:2510], log_marginal(s, few), rtol=1e-9)


@pytest.mark.parametrize("symmetry", ["c1", "c2"])
def test_joint_derivatives_are_those_of_the_log_likelihood_by_z_of_all_copies_and_the_pose(small, symmetry):
    model, rng, rows = untrained(symmetry, latent_dim=1), np.random.default_rng(0), np.arange(3)
    model.encoder.axes.assign(rng.normal(0, 0.3, model.encoder.axes.shape))
    views = Views(read_particles(str(small / "set" / rundir.STAR)), symmetry)
    features = rng.normal(size=(3, model.copies, model.encoder.n_features))
    batch = views.batch(rows)._replace(features=tf.constant(features, tf.float32),
                                       pose_change=tf.constant(rng.normal(0, 0.02, (3, 5)), tf.float32))
    slope, curvature = (values.numpy() for values in JointDerivatives(model, model.likelihood)(batch))
    observed, latent = model.image_model.observe(batch), model.copies
    z = model.encode(tf.reshape(batch.features, [3 * model.copies, -1])).mean
    assert np.ptp(z) > 0.1
    here = np.concatenate([z.numpy().reshape(3, latent), batch.pose_change], 1).astype(np.float32)
    steps = np.array([0.005] * latent + [2e-3] * 3 + [0.3] * 2, np.float32)

    def at(q):
        mixture = model.symmetry.assemble(model.mixture(tf.reshape(q[:, :latent], [-1, 1])))
        pose = observed.pose.perturbed(tf.constant(q[:, latent:]))
        return [made(mixture, observed, pose).numpy().astype(float)
                for made in (model.image_model.log_likelihood, model.image_model.residual)]
    ends = [(at(here + step), at(here - step)) for step in np.diag(steps)]
    jacobian = np.stack([(up[1] - down[1]) / (2 * step) for (up, down), step in zip(ends, steps)], 1)
    by_value = np.stack([(up[0] - down[0]) / (2 * step) for (up, down), step in zip(ends, steps)], 1)
    squares = np.einsum("bqk,bpk->bqp", jacobian, jacobian)
    root = np.sqrt(np.einsum("bqq->bq", squares))
    units = root[:, :, None] * root[:, None]
    np.testing.assert_allclose(curvature / units, squares / units, atol=0.05)
    # the slope where z is 0 and poses are as given
    expected = by_value + np.einsum("bqp,bp->bq", squares, here)
    np.testing.assert_allclose(slope / root, expected / root, atol=0.05 * np.abs(expected / root).max())


# ---- whole runs

@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """600 alike particles with poses wrong by 2 degrees (1.15 each axis) and 3 Å (2.12), trained with and
    without regard to it."""
    folder = simulated(tmp_path_factory.mktemp("wrong"), "null", 600, 0.3)
    particles, rng = read_particles(str(folder / "set" / rundir.STAR)), np.random.default_rng(0)
    turn = Rotation.from_rotvec(np.radians(2) / np.sqrt(3) * rng.normal(size=(600, 3))).as_matrix()
    shift = particles.shift_angst + 3 / np.sqrt(2) * rng.normal(size=(600, 2))
    star = folder / "wrong.star"
    particles.with_poses(turn @ particles.rotation, shift).write_star(str(star))
    flags = training(folder, epochs=15)
    flags[flags.index("--particles") + 1] = star
    for flag in ("auto", "none"):
        assert gmmhet("train", "--out", folder / flag, *flags, "--pose-errors", flag) == 0
    return folder


def summary(folder):
    return json.loads((folder / rundir.SUMMARY).read_text())


def test_wrong_poses_of_alike_particles_do_not_pass_for_motion(wrong):
    found, blind = summary(wrong / "auto"), summary(wrong / "none")
    assert found["verdict"].startswith("Heterogeneity not supported")
    assert found["motion_rms_angst"] < 0.2 * blind["motion_rms_angst"]


def test_how_wrong_the_poses_are_is_said_and_where_they_should_be(wrong):
    found = summary(wrong / "auto")
    assert found["pose_error_deg"] == pytest.approx(1.15, rel=0.3)
    assert found["pose_error_angst"] == pytest.approx(2.12, rel=0.3)
    assert "pose_error_deg" not in summary(wrong / "none")
    with np.load(wrong / "auto" / rundir.LATENTS) as data:
        change = data["pose_change"]
    true, given = (read_particles(str(wrong / path)) for path in ("set/" + rundir.STAR, "wrong.star"))
    off = true.shift_angst - given.shift_angst
    assert np.mean((change[:, 3:] - off) ** 2) < 0.2 * np.mean(off**2)


def test_an_overall_rigid_motion_stays_with_poses_that_stay_uncertain(wrong):
    model = load_model(str(wrong / "auto"))
    assert model.settings.removes_rigid_motion and model.state.removes_rigid_motion
