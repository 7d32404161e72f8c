"""Which particles a reconstruction takes, by id and symmetry copy."""
import os

import numpy as np
import pytest

from gmmhet.engine import rundir
from gmmhet.engine.config import ReconstructConfig, TrainConfig, to_json
from gmmhet.engine.imaging.pose import random_rotations, symmetry_matrices
from gmmhet.engine.latents import Latents
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.reconstruction.selection import ReconstructError, of_training, read_subset, select

IDS = np.array([7, 3, 9, 5, 1])


@pytest.fixture
def star(tmp_path):
    """Five blank particles whose ids are out of order."""
    rng = np.random.default_rng(0)
    write_particles(str(tmp_path / "p.star"), str(tmp_path / "p.mrcs"), [np.zeros((5, 8, 8))],
                    ParticleMetadata(random_rotations(5, rng), np.zeros((5, 2)),
                                     np.tile([1e4, 1e4, 0, 300, 2.7, 0.1, 0, 0, 1], (5, 1)), ids=IDS), 2.0)
    return str(tmp_path / "p.star")


@pytest.fixture
def model(star, tmp_path):
    """What a finished train run of four of them with symmetry c2 leaves, as far as it is read here: z = (id,
    copy)."""
    folder = tmp_path / "train"
    os.makedirs(folder / rundir.MODEL)
    (folder / rundir.CONFIG).write_text(to_json(TrainConfig(particles=star, symmetry="c2")))
    (folder / rundir.HISTORY).write_text("epoch\n")
    (folder / rundir.SUMMARY).write_text('{"epochs": 1}')
    ids, copy = np.repeat(IDS[:4], 2), np.tile([0, 1], 4)
    Latents(ids, copy, np.stack([ids, copy], 1).astype(np.float32)).save(str(folder))
    return str(folder)


def test_all_particles_are_taken_and_of_a_model_alone_those_of_its_training(star, model):
    whole, description = read_subset(ReconstructConfig(particles=star))
    assert whole.ids.tolist() == IDS.tolist() and description == "all particles"
    of_model, _ = read_subset(ReconstructConfig(model=model))
    assert of_model.ids.tolist() == IDS[:4].tolist() == of_training(whole, model).ids.tolist()


def test_the_nearest_particles_come_by_rising_id_each_at_its_nearest_copy(model):
    found = select(ReconstructConfig(model=model, near="8.1, 0.8", k=3))
    assert found.ids.tolist() == [5, 7, 9] and found.copy.tolist() == [1, 1, 1]
    assert found.text == "the 3 particles nearest to z = 8.1, 0.8"
    assert select(ReconstructConfig(model=model, near="4 0", k=2)).copy.tolist() == [0, 0]


def test_more_particles_than_there_are_are_all_of_them(model):
    found = select(ReconstructConfig(model=model, near="0,0", k=100))
    assert found.ids.tolist() == [3, 5, 7, 9] and found.text.startswith("the 4 particles nearest")


def test_a_particle_takes_the_orientation_of_its_copy(star, model):
    plain = read_particles(star)
    found, _ = read_subset(ReconstructConfig(model=model, near="9,1", k=2))
    turn = symmetry_matrices("c2")[1]
    np.testing.assert_allclose(found.rotation, plain.rotation[plain.rows_of([7, 9])] @ turn, atol=1e-6)


@pytest.mark.parametrize("near, says", [
    ("1,2,3", "--near must have 2 numbers, one per latent dimension, got 3"),
    ("1,nan", "must be comma-separated numbers"),
    ("here", "must be comma-separated numbers, got 'here'")])
def test_a_point_that_is_none_of_the_latent_space_is_refused(model, near, says):
    with pytest.raises(ReconstructError, match=says):
        select(ReconstructConfig(model=model, near=near))
