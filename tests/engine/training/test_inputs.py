"""What a training is given: what is refused before anything is computed, and with which sentence."""
from types import SimpleNamespace

import numpy as np
import pytest
from commands import QUICK, gmmhet, training

from gmmhet.engine import rundir
from gmmhet.engine.config import ConfigError, TrainConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.training.inputs import (
    FEWEST_PARTICLES,
    SYMMETRY_DOUBT,
    NeutralModel,
    check_particles,
    check_symmetry,
    chosen_particles,
    free_gaussians,
    half_sets,
    hold_out,
    load_neutral,
    parse_parameters,
)


def config(**values):
    return TrainConfig(**values)


# ---- parameters

def test_parameters_are_named_in_any_order_with_any_spaces():
    assert parse_parameters("amplitude, position") == ("amplitude", "position")
    assert parse_parameters("width") == ("width",) and parse_parameters("position,amplitude,") == (
        "position", "amplitude")


@pytest.mark.parametrize("vary", ["", " , ", "shape", "position,shape"])
def test_another_parameter_or_none_is_refused_with_those_that_there_are(vary):
    message = "--vary must name some of amplitude, position, width, comma-separated, got '%s'" % vary
    with pytest.raises(ConfigError, match=message):
        parse_parameters(vary)


# ---- the neutral model

@pytest.fixture(scope="module")
def particles(small):
    return read_particles(str(small / "set" / rundir.STAR))


def like(particles, **changes):
    """What a fit's sampling is compared with."""
    return SimpleNamespace(**{**dict(box=particles.box, pixel_size=particles.pixel_size), **changes})


def test_the_neutral_model_comes_with_the_resolution_that_it_was_fitted_to(small, particles):
    neutral = load_neutral(str(small / "fit"), particles, False)
    assert len(neutral.mixture) == 80 and 12 < neutral.resolution_angst < 20


def test_a_neutral_model_of_another_sampling_is_used_in_angstroms_only_when_asked_for(small, particles):
    folder = str(small / "fit")
    same = load_neutral(folder, particles, False).mixture
    for change, message in (
            (dict(pixel_size=5.0), "has 32 px of 6.0000 Å, the particle set has 32 px of 5.0000 Å: "),
            (dict(box=40), "has 32 px of 6.0000 Å, the particle set has 40 px of 6.0000 Å: ")):
        with pytest.raises(ConfigError, match=message):
            load_neutral(folder, like(particles, **change), False)
        rescaled = load_neutral(folder, like(particles, **change), True).mixture
        np.testing.assert_array_equal(rescaled.centers, same.centers)


def test_a_folder_that_holds_no_finished_fit_is_refused(small, particles):
    with pytest.raises(ConfigError, match="--gmm: '.*set' is not a finished 'fit' run: it lacks "):
        load_neutral(str(small / "set"), particles, False)


# ---- what may vary

@pytest.fixture(scope="module")
def hinge_fit(small, particles):
    return load_neutral(str(small / "fit"), particles, False).mixture


def test_without_a_region_all_may_vary_and_with_one_what_is_inside_each_part_by_its_number(hinge_fit):
    both = ("amplitude", "position")
    assert free_gaussians(config(), both, hinge_fit).astype(bool).all()
    body = free_gaussians(config(region="sphere:17,0,41,25;sphere:-17,0,-41,20"), both, hinge_fit)
    for number, (center, radius) in enumerate((([17, 0, 41], 25), ([-17, 0, -41], 20)), 1):
        inside = np.linalg.norm(hinge_fit.centers - center, axis=1) <= radius
        np.testing.assert_array_equal(body == number, inside)


def symmetric_mixture(group="c2", count=30):
    """Copies of random Gaussians by a point group."""
    unit = np.random.default_rng(0).normal(0, 20, (count, 3)) + [40, 0, 0]
    centers = np.concatenate([unit @ turn.T for turn in symmetry_matrices(group)]).astype(np.float32)
    return Mixture(centers, np.ones(len(centers), np.float32), np.full(len(centers), 6, np.float32))


def test_of_a_symmetric_particle_one_asymmetric_unit_varies():
    mixture = symmetric_mixture("c3")
    body = free_gaussians(config(symmetry="C3"), ("position",), mixture)
    assert body.sum() == 30
    turned = np.concatenate([mixture.centers[body > 0] @ turn.T for turn in symmetry_matrices("c3")])
    distance = np.linalg.norm(turned[:, None] - mixture.centers[None], axis=-1).min(0)
    assert distance.max() < 1e-3      # and its copies are the whole


def test_a_region_of_a_symmetric_particle_that_holds_its_own_copies_is_refused(hinge_fit):
    with pytest.raises(ConfigError, match="lie where c2 turns another part of it"):
        free_gaussians(config(symmetry="c2", region="sphere:0,0,0,999"), ("position",), hinge_fit)


def test_a_rigid_body_of_fewer_gaussians_than_can_be_turned_is_refused(hinge_fit, tmp_path):
    (tmp_path / "arm.txt").write_text("1 2 3 4 5")
    (tmp_path / "two.txt").write_text("7 9")
    region = "%s;%s" % (tmp_path / "arm.txt", tmp_path / "two.txt")
    message = "--rigid: body 2 of --region .* holds 2 of the Gaussians, and a body needs 3"
    with pytest.raises(ConfigError, match=message):
        free_gaussians(config(region=region, rigid=True), ("position",), hinge_fit)
    free_gaussians(config(region=region), ("position",), hinge_fit)      # which may bend


@pytest.mark.parametrize("values,parameters,message", [
    (dict(vary="amplitude", region="sphere:17,0,41,25"), ("amplitude",),
     "--rigid says how positions move, and --vary amplitude lets none move: add position"),
    (dict(), ("position",), "--rigid: a molecule that moves as one body only changes its pose")])
def test_rigid_bodies_that_could_not_move_as_such_are_refused(hinge_fit, values, parameters, message):
    with pytest.raises(ConfigError, match=message):
        free_gaussians(config(rigid=True, **values), parameters, hinge_fit)


def test_what_was_refused_leaves_no_folder(small, tmp_path, capsys):
    flags = training(small, **dict(QUICK, symmetry="c2", region="sphere:0,0,0,999"))
    assert gmmhet("train", "--out", tmp_path / "out", *flags) == 2 and not (tmp_path / "out").exists()
    assert "lie where c2 turns another part of it" in capsys.readouterr().err


def test_a_symmetry_that_the_neutral_model_lacks_is_doubted(small, particles):
    hinge = load_neutral(str(small / "fit"), particles, False)
    assert check_symmetry("c1", hinge) == dict(warnings=[])
    fits = check_symmetry("c2", NeutralModel(symmetric_mixture("c2"), 20.0))
    assert fits["warnings"] == [] and fits["symmetry_correlation"] > 0.99
    lacks = check_symmetry("c2", hinge)
    assert lacks["symmetry_correlation"] < SYMMETRY_DOUBT
    doubt, = lacks["warnings"]
    assert doubt.startswith("The neutral model does not look c2: turned by it, it correlates with itself by")


# ---- particles

def test_too_few_particles_are_refused_with_the_file_that_names_them(particles, tmp_path):
    run, few = rundir.RunDir(str(tmp_path)), particles.select(np.arange(FEWEST_PARTICLES - 1))
    with pytest.raises(ConfigError, match="some.txt holds 9 particles; at least 10 are needed to train"):
        check_particles(run, config(particles="set.star", ids="some.txt"), few)
    check_particles(run, config(particles="set.star"), particles.select(np.arange(FEWEST_PARTICLES)))


def test_particles_are_chosen_by_id_and_all_without_a_list(small, tmp_path):
    star, ids = str(small / "set" / rundir.STAR), tmp_path / "ids.txt"
    ids.write_text("7\n3\n100\n")
    assert chosen_particles(config(particles=star, ids=str(ids))).ids.tolist() == [3, 7, 100]
    assert len(chosen_particles(config(particles=star))) == 120


@pytest.mark.parametrize("lines,says", [
    ("1\n2\n99999\n", "1 ids are not in "),
    ("1 0\n2 1\n3 2\n", ("names symmetry copies ('2 1'), but training takes every particle at all of its "
                         "orientations: leave the second column out")),
    ("one\n", "must hold one whole number per line"), ("1\n1e30\n", "got for example '1e30'"),
    ("1\n\x00\ufffd\n",
     "must hold one whole number per line (or two: id and symmetry copy), got for example '\\x00\\ufffd'"),
    ("", "holds no ids: expected one particle id"),
    ("1\n2\n3\n", "3 particles; at least 10 are needed to train")])
def test_a_list_of_ids_that_cannot_be_used_is_refused(small, tmp_path, capsys, lines, says):
    (tmp_path / "ids.txt").write_text(lines)
    assert gmmhet("train", "--out", tmp_path / "out", *training(small, ids=tmp_path / "ids.txt")) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("fraction,expected", [(0.1, 12), (0.001, 1), (0.9, 108), (1.0, 119)])
def test_a_fraction_of_the_particles_is_held_out_at_random_by_seed(fraction, expected):
    held = hold_out(120, fraction, 1)
    assert held.sum() == expected
    np.testing.assert_array_equal(held, hold_out(120, fraction, 1))
    assert not np.array_equal(held, hold_out(120, fraction, 2))


# ---- half sets

def test_half_sets_are_those_of_the_star_file_or_random_where_it_has_none(particles):
    np.testing.assert_array_equal(half_sets(particles, 1), particles.half)
    unknown = particles.with_half(np.zeros(120))
    drawn = half_sets(unknown, 1)
    assert sorted(set(drawn)) == [1, 2] and np.sum(drawn == 1) == 60 and np.any(np.diff(drawn, 2))
    np.testing.assert_array_equal(drawn, half_sets(unknown, 1))


def test_half_sets_too_small_to_train_are_refused(particles):
    few = particles.select(np.arange(12)).with_half([1] * 8 + [2] * 4)
    message = "has half sets of 8 and 4 particles; at least 10 each are needed to train"
    with pytest.raises(ConfigError, match=message):
        half_sets(few, 1)
