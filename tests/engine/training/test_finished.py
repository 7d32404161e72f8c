"""What a finished train run was of: its particles, by id, at the sampling of its model."""
import numpy as np
import pytest
from commands import latents

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.pose import rotation_from_vector
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.training.finished import have_other_poses, latents_of, particles_of


@pytest.fixture(scope="module")
def particles(small):
    return read_particles(str(small / "set" / rundir.STAR))


@pytest.fixture(scope="module")
def model(small_run):
    return load_model(str(small_run))


def test_the_particles_of_a_run_are_those_that_its_model_names(small_run, model, particles):
    found = particles_of(str(small_run), model)
    np.testing.assert_array_equal(found.ids, particles.ids)
    np.testing.assert_array_equal(found.rotation, particles.rotation)


def test_another_file_of_some_of_them_may_be_given(small_run, model, particles, tmp_path):
    particles.select(np.array([5, 2, 80])).write_star(str(tmp_path / rundir.STAR))
    found = particles_of(str(small_run), model, str(tmp_path / rundir.STAR))
    assert found.ids.tolist() == particles.ids[[5, 2, 80]].tolist()
    np.testing.assert_allclose(latents_of(str(small_run), found), latents(small_run).z[[5, 2, 80]])


def test_particles_of_another_sampling_are_refused_with_both(small_run, model, monkeypatch):
    monkeypatch.setattr(model.likelihood, "grid", FourierGrid(32, 5.0, 10))
    message = "has 32 px of 6.0000 Å, the model has 32 px of 5.0000 Å: give the"
    with pytest.raises(ConfigError, match=message):
        particles_of(str(small_run), model)


def test_particles_that_the_run_has_no_latent_point_for_are_refused(small_run, particles):
    numbered = particles.select(np.arange(5))
    numbered.ids = numbered.ids + 117
    message = "2 of 5 particles have no latent point in .*, the first is id 121: give the"
    with pytest.raises(ConfigError, match=message):
        latents_of(str(small_run), numbered)


def test_a_pose_is_another_one_where_it_is_turned_or_moved_by_more_than_writing_does(particles):
    given = particles.select(np.arange(4))
    turned = np.zeros((4, 3))
    turned[1, 2], turned[3, 0] = np.radians(0.5), np.radians(0.001)
    shift = given.shift_angst + np.array([[0, 0], [0, 0], [0.5, 0], [0, 0.001]])
    moved = given.with_poses(rotation_from_vector(turned) @ given.rotation.astype(float), shift)
    assert have_other_poses(moved, given).tolist() == [False, True, True, False]
