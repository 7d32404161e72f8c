"""The refine stage: which errors of the poses it expects, and what it writes."""
import numpy as np
import pytest
from commands import gmmhet, summary

from gmmhet.engine import rundir
from gmmhet.engine.config import RefineConfig
from gmmhet.engine.imaging.pose import angular_distance_deg, rotation_from_vector
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.stages.refine import expected_errors


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def disturbed(true):
    """The set with its poses turned by 2 degrees and moved by 2 px (rms)."""
    rng, n = np.random.default_rng(0), len(true)
    turn = rng.normal(size=(n, 3)) / np.sqrt(3) * np.radians(2.0)
    shift = true.shift_angst + rng.normal(size=(n, 2)) / np.sqrt(2) * 2 * true.pixel_size
    return true.with_poses(rotation_from_vector(turn) @ true.rotation, shift)


def errors(pose, true):
    """rms error of the orientations (degrees) and of the shifts (Å)."""
    angles = angular_distance_deg(np.asarray(pose.rotation, float), true.rotation.astype(float))
    return rms(angles), rms(np.linalg.norm(pose.shift_angst - true.shift_angst, axis=1))


@pytest.fixture(scope="module")
def perturbed(hinge, tmp_path_factory):
    """300 particles whose poses were turned by 2 degrees and moved by 2 px (rms), written as a star file; and
    the true set."""
    true = read_particles(str(hinge / "set" / rundir.STAR)).select(np.arange(300))
    path = tmp_path_factory.mktemp("perturbed") / rundir.STAR
    disturbed(true).write_star(str(path))
    return path, true


# ---- what is expected

@pytest.mark.parametrize("asked,found,expected", [
    ((0.0, 0.0), (1.2, 0.8), (1.2, 0.8)), ((2.0, 0.0), (1.2, 0.8), (2.0, 0.8)),
    ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)), ((0.0, 5.0), (), (3.0, 5.0)), ((1.0, 1.0), (0.5, 0.5), (1.0, 1.0))])
def test_errors_of_poses_are_those_asked_for_else_those_that_training_found(tmp_path, asked, found, expected):
    rundir.RunDir(str(tmp_path)).write_summary(dict(zip(("pose_error_deg", "pose_error_angst"), found)))
    config = RefineConfig(model=str(tmp_path), sigma_angle=asked[0], sigma_shift=asked[1])
    np.testing.assert_array_equal(expected_errors(config, None, None), expected)


def test_what_training_found_is_of_the_poses_it_had(hinge, hinge_run, perturbed):
    model, found = load_model(str(hinge_run)), summary(hinge_run)
    of_training = found["pose_error_deg"], found["pose_error_angst"]
    for path, expected in ((hinge / "set" / rundir.STAR, of_training), (perturbed[0], (3, 3))):
        config = RefineConfig(model=str(hinge_run), particles=str(path))
        np.testing.assert_array_equal(expected_errors(config, model, read_particles(str(path))), expected)


# ---- the stage

def test_poses_without_errors_that_the_images_show_are_kept(hinge, hinge_run, tmp_path):
    found = summary(hinge_run)
    assert found["pose_error_deg"] == found["pose_error_angst"] == 0
    assert gmmhet("refine", "--out", tmp_path / "out", "--model", hinge_run) == 0
    new, old = (read_particles(str(folder / rundir.STAR)) for folder in (tmp_path / "out", hinge / "set"))
    assert errors(new, old) == (pytest.approx(0, abs=0.01), pytest.approx(0, abs=0.01))
    assert "they are kept as they are" in (tmp_path / "out" / rundir.LOG).read_text()


def test_the_stage_writes_new_poses_by_id_and_keeps_every_other_column(hinge_run, perturbed, tmp_path):
    path, true = perturbed
    assert gmmhet("refine", "--out", tmp_path / "out", "--model", hinge_run, "--particles", path,
                  "--steps", 2, "--sigma-shift", 12) == 0
    new, old = read_particles(str(tmp_path / "out" / rundir.STAR)), read_particles(str(path))
    assert rundir.missing_run(str(tmp_path / "out"), "refine") == ""
    for name in ("ids", "half", "ctf"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    np.testing.assert_array_equal(new.read(np.arange(5)), true.read(np.arange(5)))
    turned = angular_distance_deg(new.rotation.astype(float), old.rotation.astype(float))
    with np.load(tmp_path / "out" / rundir.POSES) as poses:
        np.testing.assert_array_equal(poses["id"], new.ids)
        away = angular_distance_deg(poses["rotation"].astype(float), new.rotation.astype(float))
        np.testing.assert_allclose(poses["shift_angst"], new.shift_angst, atol=1e-3)
        np.testing.assert_allclose(poses["angle_change_deg"], turned, atol=0.1)
    assert away.max() < 0.1
    written = summary(tmp_path / "out")
    assert written["angle_change_rms_deg"] == pytest.approx(rms(turned), abs=0.05) and written["gain"] > 0
    assert written["sigma_shift_angst"] == 12 and written["particles"] == 300
