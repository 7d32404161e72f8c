import gzip
import importlib.util
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.special import softmax

from gmmhet.engine import rundir
from gmmhet.engine.gmm.mixture import Mixture, render
from gmmhet.engine.gmm.regions import region_parts, sample_map
from gmmhet.engine.imaging.ctf import ctf_values
from gmmhet.engine.imaging.fourier import FourierGrid, transform
from gmmhet.engine.imaging.pose import symmetry_matrices
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.imaging.projection import project
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.latents import Latents
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.simulate import oracle
from gmmhet.engine.simulate.images import SimulatedSet, draw_ctf, draw_poses, noisy_images

BENCH = os.path.join(os.path.dirname(__file__), os.pardir, "bench")


def load(name):
    """A module of bench/, which is no package."""
    spec = importlib.util.spec_from_file_location("bench_" + name, os.path.join(BENCH, name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dense_formula_that_speed_is_compared_with_is_the_same_projection():
    speed, grid, rng = load("speed"), FourierGrid.to_resolution(24, 1.0), np.random.default_rng(0)
    mixture = speed.molecule(40, 24, rng)
    xy = tf.constant(mixture.centers[None, :, :2])
    np.testing.assert_allclose(speed.dense(xy, mixture.amplitudes, mixture.widths, grid),
                               project(xy, mixture.amplitudes, mixture.widths, grid), atol=1e-5)


@pytest.mark.parametrize("what, method",
                         [("bare", ""), ("project", "dense"), ("project", "local"), ("step", "dense"),
                          ("step", "local")])
def test_every_row_of_the_speed_table_is_measured(what, method):
    row = load("speed").measure(dict(gaussians=30, box=24, batch=3, seconds=0.0, dense_memory=1.0, what=what,
                                     method=method))
    assert row["cpu"] > 0 and row["wall"] > 0 and row["batch"] == 3


SMALL_ANTIBODY = {"L": (1, 120), "H": (1, 260), "M": (1, 120), "K": (1, 260)}


def write_pdb(path, chains, seed):
    """A made-up model: an alpha and a carbonyl carbon a residue, chains {name: (first, last residue)} as
    straggling rods."""
    rng, lines = np.random.default_rng(seed), []
    for i, (name, (first, last)) in enumerate(chains.items()):
        middle, direction = 40 * rng.normal(size=3), rng.normal(size=3)
        for residue in range(first, last + 1):
            place = middle + 0.4 * (residue
                                    - (first + last)
                                    / 2) * direction / np.linalg.norm(direction) + rng.normal(size=3)
            for atom, off in (("CA", 0.0), ("C ", 1.5)):
                lines.append("ATOM  %5d  %s  ALA %s%4d    %8.3f%8.3f%8.3f  1.00 50.00           C" % (
                    len(lines) % 99999 + 1, atom, name, residue, *(place + off)))
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\nEND\n")


@pytest.fixture(scope="module")
def bench():
    """The modules of the truth benchmark, and a folder with tiny made-up models under the names that it looks
    for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield {name: importlib.import_module(name)
               for name in ("systems", "density", "ceiling", "measures", "truth")}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of such models and of CTF values, for --data."""
    folder = tmp_path_factory.mktemp("models")
    write_pdb(folder / "1hzh.pdb.gz", SMALL_ANTIBODY, 1)
    for number, name in enumerate(("RNA1", "RNA_5S", "prots1")):
        write_pdb(folder / (name + ".pdb.gz"),
                  {letter: (1, 12) for letter in ("AB" if name == "RNA_5S" else "ABCDEFGHIJKLMNOPQRST")},
                  number)
    np.savez(folder / "ctf_made.npz", ctf=draw_ctf(20, np.random.default_rng(0))[:, :6])
    return folder


@pytest.fixture(scope="module")
def maps(models):
    """The same folder with maps for the sets of real density: four states of a molecule of which parts are
    missing, and a map with masks of two bodies; 24 px of 12 Å."""
    def blob(center, width):
        return Mixture(*(np.float32(values) for values in ([center], [9000.0], [width])))
    whole = [blob(center, 22.0) for center in ([0, 0, 0], [40, 0, 0], [-30, 40, 0], [0, -30, 45])]
    drawn = [render(part, 24, 12.0) for part in whole]
    states = dict(vol_1=sum(drawn), vol_2=sum(drawn[:3]), vol_3=sum(drawn[::2]), vol_4=drawn[0] + drawn[3])
    bodies = dict(map=sum(drawn), body1=drawn[1] > 0.4 * drawn[1].max(),
                  body3=drawn[2] > 0.4 * drawn[2].max())
    for folder, named in (("states_10076", states), ("bodies_10180", bodies)):
        (models / folder).mkdir()
        for name, volume in named.items():
            path = models / folder / (name + ".mrc")
            write_map(str(path), np.float32(volume), 12.0)
            (models / folder / (name + ".mrc.gz")).write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return models


@pytest.fixture(scope="module")
def systems(bench, models):
    return {name: bench["systems"].make(name, str(models)) for name in bench["systems"].NAMES}


def test_a_residue_becomes_one_gaussian_with_its_mass_centre_and_second_moment(bench, systems):
    base = systems["igg"].reference
    assert len(base) == 2 * 120 + 2 * 260
    np.testing.assert_allclose(base.amplitudes, 2 * 12.011 / 100, rtol=1e-3)
    np.testing.assert_allclose(base.widths, np.sqrt(3 * 0.75**2 / 3 + bench["systems"].ATOM_WIDTH_ANGST**2),
                               rtol=1e-3)
    np.testing.assert_allclose(np.average(base.centers, axis=0, weights=base.amplitudes), 0, atol=1e-3)


@pytest.mark.parametrize("name, mover",
                         [("igg", 0), ("domains", 0), ("domains", 1), ("mixed", 0), ("c3", 2), ("d3", 4)])
def test_a_domain_turns_as_a_rigid_body_by_its_angle_about_its_axis_and_nothing_else_moves(systems, name,
                                                                                           mover):
    system = systems[name]
    coordinate = np.zeros(1 + len(system.movers))
    coordinate[1 + mover] = 17.0
    before, after, turning = system.reference.centers, system.at(coordinate).centers, system.movers[mover]
    np.testing.assert_array_equal(after[~turning.members], before[~turning.members])
    turn, _ = Rotation.align_vectors(after[turning.members] - turning.pivot,
                                     before[turning.members] - turning.pivot)
    np.testing.assert_allclose(np.degrees(turn.as_rotvec()), 17.0 * turning.axis, atol=0.05)
    np.testing.assert_allclose(turn.apply(before[turning.members] - turning.pivot) + turning.pivot,
                               after[turning.members], atol=1e-3)


def test_fabs_are_the_light_chain_and_the_heavy_chain_up_to_the_hinge_and_share_nothing(systems):
    first, second = (m.members for m in systems["domains"].movers)
    assert first.sum() == second.sum() == 120 + 230 and not (first & second).any()
    np.testing.assert_array_equal(systems["igg"].movers[0].members, first)


@pytest.mark.parametrize("name", ["assembly", "mixed"])
def test_the_states_of_the_ribosome_have_unequal_populations_and_lack_whole_parts(systems, name):
    states, base = systems[name].states, systems[name].reference
    assert [s.population for s in states] == [0.35, 0.25, 0.2, 0.12, 0.08]
    np.testing.assert_array_equal(states[3].absent & states[1].absent, states[1].absent)
    assert not states[0].absent.any() and not (states[1].absent & states[2].absent).any()
    for number, state in enumerate(states):
        shown = systems[name].at(np.array([number, 0.0][:1 + len(systems[name].movers)]))
        np.testing.assert_array_equal(shown.amplitudes == 0, state.absent)
        assert base.amplitudes[state.absent].sum() / base.amplitudes.sum() == pytest.approx(
            [0, 0.07, 0.07, 0.14, 0.14][number], abs=0.06
        )


def test_only_particles_that_have_the_protuberance_tilt_it(systems):
    mixed = systems["mixed"]
    drawn = mixed.draw(2000, np.random.default_rng(0))
    lacking = np.isin(drawn[:, 0],
                      [s for s, state in enumerate(mixed.states)
                       if state.absent[mixed.movers[0].members].any()])
    assert 0.3 < lacking.mean() < 0.45
    assert not drawn[lacking, 1].any() and 3.9 < np.abs(drawn[~lacking, 1]).max() <= 4.0


@pytest.mark.parametrize("group", ["c3", "d3"])
def test_a_symmetric_system_is_symmetric_at_rest_and_one_unit_moves_in_a_particle(systems, group):
    system, turns = systems[group], symmetry_matrices(group)
    count = len(turns)
    rest, first = (system.at(np.r_[0, angle, np.zeros(count - 1)]).centers for angle in (0.0, 20.0))
    for unit, turn in enumerate(turns):
        moved = system.at(np.r_[unit, 20.0 * (np.arange(count) == unit)]).centers
        for expected, found in ((rest, rest), (first, moved)):
            assert cKDTree(expected @ turn.T).query(found)[0].max() < 1e-3
    drawn = system.draw(300, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[:, 1:] != 0, np.arange(count) == drawn[:, :1])


@pytest.mark.parametrize("name", ["igg", "assembly", "mixed", "domains", "c3", "d3"])
def test_the_null_of_a_system_is_the_system_at_rest_with_everything_present(systems, name):
    null = systems[name].null()
    for coordinate in null.draw(5, np.random.default_rng(0)):
        np.testing.assert_array_equal(null.at(coordinate).centers, systems[name].reference.centers)
        np.testing.assert_array_equal(null.at(coordinate).amplitudes, systems[name].reference.amplitudes)


@pytest.mark.parametrize("name", ["igg", "assembly", "mixed", "domains", "c3", "d3"])
def test_components_add_up_to_the_mixture_at_every_grid_point(systems, name):
    system = systems[name]
    coordinates, prior = system.grid(3)
    parts, uses = system.components(coordinates)
    assert prior.sum() == pytest.approx(1) and uses.shape == (len(coordinates), len(parts))
    for coordinate, used in zip(coordinates, uses):
        whole = render(system.at(coordinate), 16, 20.0)
        np.testing.assert_allclose(sum(render(p, 16, 20.0) for p, u in zip(parts, used)
                                       if u), whole, atol=1e-4 * whole.max())


@pytest.fixture(scope="module")
def noisy_domains(bench, systems, tmp_path_factory):
    """60 particles of the system with two domains, noise of variance 1: the scaled system, its particles, the
    true coordinates."""
    system, folder, rng = systems["domains"], tmp_path_factory.mktemp("set"), np.random.default_rng(4)
    rotation, shift = draw_poses(60, 3.0, rng)
    ctf, coordinates = draw_ctf(60, rng), system.draw(60, rng)
    sigma, images = noisy_images(SimulatedSet(system, coordinates, rotation, shift, ctf, 32, 12.0), 2.0, 1)
    write_particles(str(folder / "p.star"), str(folder / "p.mrcs"), (part / sigma for part in images),
                    ParticleMetadata(rotation, shift, ctf), 12.0)
    return system.over(sigma), read_particles(str(folder / "p.star")), coordinates


def test_the_posterior_from_components_is_the_engines(bench, noisy_domains):
    system, particles, _ = noisy_domains
    coarse = SimpleNamespace(grid=lambda: system.grid(5), at=system.at, reference=system.reference)
    measures = bench["measures"]
    coordinates, log_p, _ = measures.likelihoods(system, particles, 5)
    found = softmax(log_p, axis=1)
    expected = oracle.posterior(coarse, particles, 1.0)
    np.testing.assert_array_equal(coordinates, expected[0])
    np.testing.assert_allclose(found, expected[1], atol=0.02)


def test_the_oracle_finds_both_angles_of_each_particle(bench, noisy_domains):
    system, particles, truth = noisy_domains
    measures = bench["measures"]
    coordinates, log_p, _ = measures.likelihoods(system, particles, 15)
    found = measures.estimates(system, coordinates, softmax(log_p, axis=1))
    assert np.sqrt(np.mean((found["angles"] - truth[:, 1:]) ** 2)) < 4.0
    assert not found["state"].any()


def test_the_oracles_evidence_is_over_the_mean_density(bench, noisy_domains, systems):
    system, particles, truth = noisy_domains
    measures, state = bench["measures"], truth[:, 0].astype(int)
    found = measures.evidence(system, *measures.likelihoods(system, particles, 7), state)
    assert found.shape == (60, 2) and np.mean(found[:, 0]) > 3 * np.std(found[:, 0]) / np.sqrt(60)
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-3, atol=1e-2)      # there is one state
    still = measures.evidence(system.null(), *measures.likelihoods(system.null(), particles, 7), state)
    np.testing.assert_allclose(still, 0, atol=1e-2)      # of one mixture alone it is the mean
    there, absent = np.zeros(len(system.reference), bool), system.movers[0].members
    states = replace(system,
                     states=(bench["systems"].State(0.25, there, (0, 1)),
                             bench["systems"].State(0.75, absent, (1,))))
    coordinates, log_p, single = measures.likelihoods(states, particles, 7)
    by_state = measures.evidence(states, coordinates, log_p, single, state)
    np.testing.assert_allclose(by_state[:, 1], found[:, 1], rtol=1e-3,
                               atol=1e-2)      # the state being known, the others say nothing
    assert np.mean(softmax(log_p, axis=1)[:, coordinates[:, 0] == 0].sum(1)) > 0.9


# ---- real density

@pytest.mark.relion
@pytest.mark.parametrize("name", ["states", "bodies"])
def test_slices_of_maps_are_what_relion_projects(bench, maps, name):
    density, rng = bench["density"], np.random.default_rng(1)
    system = density.make(name, str(maps))
    rotation, shift = draw_poses(12, 9.0, rng)
    ctf, coordinates = draw_ctf(12, rng), system.draw(12, rng)
    seen = density.project(system, coordinates, rotation, shift, ctf).images(slice(0, 12))
    grid = FourierGrid.to_resolution(24, 12.0)
    parts, uses = system.components(coordinates)
    drawn = [system.project(part, Pose(rotation, shift), grid) for part in parts]
    expected = sum(np.float32(used)[:, None, None, None] * part for used, part in zip(uses.T, drawn))
    transfer = np.asarray(ctf_values(ctf, grid.kx, grid.ky))[:, None]
    off = grid.weight * (np.asarray(transform(tf.constant(seen), grid)) - transfer * expected) ** 2
    assert np.sum(off) < 1e-5 * np.sum(grid.weight * (transfer * expected) ** 2)


def test_a_body_turns_about_where_it_hangs_on_the_rest_and_its_owner_is_known(bench, maps):
    system = bench["density"].make("bodies", str(maps))
    assert [list(mover.members) for mover in system.movers] == [[False, True, False], [False, False, True]]
    mover = system.movers[0]
    assert 5 < mover.pivot[0] < 45 and mover.axis @ mover.axis == pytest.approx(1)
    assert abs(mover.axis @ (density_middle(system.maps[1], 12.0) - mover.pivot)) < 0.1
    rest, turned = system.true_map([0, 0.0, 0.0], 24, 12.0), system.true_map([0, 12.0, 0.0], 24, 12.0)
    np.testing.assert_allclose(turned.sum(), rest.sum(), rtol=0.01)
    where = np.array([[0.0, 0, 0], [45.0, 0, 0], [-32.0, 45, 0]], np.float32)
    np.testing.assert_array_equal(system.owners(where), [0, 1, 2])
    points, weights = system.points(0)
    assert np.linalg.norm(np.average(points, axis=0, weights=weights) - [40, 0, 0]) < 12
    moved = density_middle(np.maximum(turned - rest, 0), 12.0)
    at_rest = density_middle(system.maps[1], 12.0)
    assert np.dot(mover.turned(at_rest[None], 12.0)[0] - at_rest, moved - at_rest) > 0


def density_middle(volume, pixel_size):
    """Centre of mass of a map, x, y, z in Å."""
    index = np.indices(volume.shape).reshape(3, -1) - len(volume) // 2
    return (index @ volume.ravel() / volume.sum())[::-1] * pixel_size


def test_states_within_a_mask_are_alike_beyond_it_and_the_null_is_their_mean(bench, maps):
    system = bench["density"].make("states", str(maps))
    population = [s.population for s in system.states]
    assert population == pytest.approx([10 / 31, 8 / 31, 7 / 31, 6 / 31])
    volumes = np.stack([system.true_map([s], 24, 12.0) for s in range(4)])
    assert not volumes[:, 0].any() and volumes.std(0).max() > 0.1 * volumes.max()
    null = system.null()
    np.testing.assert_allclose(null.true_map([0], 24, 12.0), np.tensordot(population, volumes, 1), atol=1e-5)
    assert not null.draw(5, np.random.default_rng(0)).any()


def test_the_ceiling_is_1_where_gaussians_can_be_the_truth_and_less_where_they_lie_elsewhere(bench):
    systems, ceiling, rng = bench["systems"], bench["ceiling"], np.random.default_rng(0)
    mixture = Mixture(*(np.float32(v) for v in (rng.normal(0, 15, (40, 3)), np.ones(40), np.full(40, 8.0))))
    mover = systems.Mover(mixture.centers[:, 0] > 10, np.array([10.0, 0, 0]), np.array([0, 0, 1.0]), 20.0)
    lacking = mixture.centers[:, 1] > 15
    states = systems.State(0.6, lacking, (0,)), systems.State(0.4, np.zeros(40, bool), (0,))
    system = systems.System("made up", mixture, (mover,), states)

    class Particles:
        box, pixel_size, ctf = 20, 6.0, draw_ctf(5, rng)

        def __len__(self):
            return len(self.ctf)
    found = ceiling.represented(system, mixture, Particles(), 9)
    assert ceiling.explained_variance(found) > 0.98          # the ridge of least squares takes a little
    rings, grid = found.rings, system.grid(3)[0]
    for part, true in zip(found.components(grid)[0], system.components(grid)[0]):
        own, expected = rings.of_mixture(part), rings.of_mixture(true)
        off, all_of_it = (np.sum(rings.weight * abs(v) ** 2) for v in (own - expected, expected))
        assert off < 0.05 * all_of_it
    elsewhere = replace(mixture, centers=mixture.centers + np.float32([20.0, 0, 0]))
    assert ceiling.explained_variance(ceiling.represented(system, elsewhere, Particles(), 9)) < 0.9


def test_transforms_and_products_of_mixtures_are_those_of_their_maps(bench):
    rng = np.random.default_rng(0)
    mixture = Mixture(*(np.float32(v) for v in (rng.normal(0, 20, (9, 3)), rng.uniform(1, 2, 9),
                                                rng.uniform(8, 12, 9))))
    rings = bench["ceiling"].Rings(24, 8.0, rng.uniform(0.5, 1, 10))
    drawn = [rings.of_map(render(mixture.select([i]), 24, 8.0)) for i in range(9)]
    np.testing.assert_allclose(rings.of_mixture(mixture), sum(drawn), atol=1e-3 * np.abs(sum(drawn)).max())
    unit = np.stack(drawn) / mixture.amplitudes[:, None, None, None]
    gram = np.einsum("izyx,jzyx,zyx->ij", unit, unit.conj(), rings.weight).real
    np.testing.assert_allclose(rings.gram(mixture), gram, atol=0.02 * gram.max())
    np.testing.assert_allclose(rings.products(mixture, drawn[3]), gram[3] * mixture.amplitudes[3],
                               atol=1e-3 * gram.max() * mixture.amplitudes[3])


def test_neighbours_in_z_tell_the_state_where_z_does(bench):
    rng = np.random.default_rng(0)
    state = rng.integers(0, 3, 600)
    accuracy, noise = bench["measures"].neighbour_accuracy, rng.normal(size=(600, 3))
    assert accuracy(np.eye(3)[state] + 0.05 * noise, state) == 1 and accuracy(noise, state) < 0.5


class Turning:
    """A model whose decoded Gaussians are a system's own, turned by the angles z, seen in a frame of its
    own."""

    def __init__(self, system, stiffness=1.0):
        self.system, self.neutral, self.free, self.stiffness = (
            system,
            system.reference,
            np.ones(len(system.reference), bool),
            stiffness,
        )

    def decode(self, z):
        frame = Rotation.from_rotvec([0.1, -0.05, 0.02])
        centers = np.stack([frame.apply(self.system.at([0, *(self.stiffness * angles)]).centers) + 3.0
                            for angles in z])
        return centers, np.tile(self.neutral.amplitudes,
                                (len(z), 1)), np.tile(self.neutral.widths, (len(z), 1))


def test_decoded_motion_is_measured_in_the_frame_of_what_does_not_move(bench, systems):
    system = systems["domains"]
    truth = np.random.default_rng(0).uniform(-15, 15, (40, 2))
    owner = system.owners(system.reference.centers)
    for j, mover in enumerate(system.movers, 1):
        assert np.mean(owner[mover.members] == j) > 0.6
    angles, error, still = bench["measures"].decoded_motion(Turning(system), truth, system, [0, 1], truth)
    half = bench["measures"].decoded_motion(Turning(system, 0.5), truth, system, [0, 1], truth)
    nothing = bench["measures"].decoded_motion(Turning(system, 0.0), truth, system, [0, 1], truth)
    assert (error < 0.3 * still).all() and (half[1] > error).all()
    np.testing.assert_allclose(nothing[1], nothing[2], rtol=1e-3)
    assert min(np.corrcoef(angles[:, k], truth[:, k])[0, 1] for k in (0, 1)) > 0.95
    assert np.abs(nothing[0]).max() < 0.01


def test_the_bias_at_the_ends_is_that_of_the_tenths_chosen(bench):
    truth = np.linspace(-10, 10, 200)
    assert bench["measures"].end_bias(truth, truth, truth) == 0
    assert bench["measures"].end_bias(0 * truth, truth, truth) == pytest.approx(np.abs(truth[:20].mean()))
    assert bench["measures"].end_bias(truth + 2, truth, truth) == pytest.approx(2)


def test_a_true_map_is_centred_and_free_of_aliasing_and_the_region_holds_the_moving_domain(bench, systems):
    system, measures = systems["igg"], bench["measures"]
    blurred = replace(
        system, reference=replace(system.reference, widths=np.full(len(system.reference), 9.0, np.float32))
    )
    found = blurred.true_map([0, 10.0], 32, 9.0)
    np.testing.assert_allclose(found, render(blurred.at([0, 10.0]), 32, 9.0), atol=0.02 * found.max())
    mask, mover = system.region_mask(32, 9.0), system.movers[0]
    inside = sample_map(mask, 9.0, mover.turned(system.reference.centers[mover.members], mover.angle_deg))
    assert inside.min() > 0.5 and mask.mean() < 0.5
    assert measures.mean_fsc(found, found, mask) == pytest.approx(1)


@pytest.mark.parametrize("group, unit", [("c3", 0), ("c3", 2), ("d3", 1), ("d3", 4)])
def test_a_symmetry_copy_is_scored_against_the_unit_that_it_brings_to_the_free_ones_place(bench, systems,
                                                                                          group, unit):
    system, rng, turns = systems[group], np.random.default_rng(0), symmetry_matrices(group)
    count, size = len(turns), len(system.reference) // len(turns)
    coordinates = system.draw(6, rng)
    case = SimpleNamespace(system=system, coordinates=coordinates, oracle=dict(angles=coordinates[:, 1:]))
    latents = Latents(np.repeat(np.arange(1, 7), count), np.tile(np.arange(count), 6),
                      np.zeros((6 * count, 2)))
    free = np.arange(len(system.reference)) // size == unit
    run = dict(latents=latents, model=SimpleNamespace(neutral=system.reference, free=free))
    (found,), row, _, truth, _ = bench["measures"].aligned(case, run)
    assert found == unit
    mover = system.movers[unit]
    for item in range(6 * count):
        # the image is at A S_j
        seen = system.at(coordinates[row[item]]).centers @ turns[latents.copy[item]]
        turned = mover.turned(system.reference.centers[mover.members], truth[item, 0])
        nearest = np.linalg.norm(turned[:, None] - seen[None], axis=-1).min(1)
        assert nearest.max() < 0.01


@pytest.mark.parametrize("name, count", [("igg", 1), ("domains", 2), ("c3", 1)])
def test_the_bodies_that_train_is_told_are_the_domains_that_move_and_of_a_symmetric_set_one(bench, systems,
                                                                                            tmp_path, name,
                                                                                            count):
    system = systems[name]
    system.reference.save(str(tmp_path / rundir.GMM))
    told = bench["truth"].bodies(SimpleNamespace(system=system), str(tmp_path), str(tmp_path))
    parts = region_parts(told["region"], system.reference)
    assert told["rigid"] and told["vary"] == "position" and set(parts) == set(range(count + 1))
    movers = np.array([mover.members for mover in system.movers])
    for body in range(1, count + 1):
        mine = np.argmax(movers[:, parts == body].sum(1))
        assert np.mean(movers[mine][parts == body]) > 0.95
        # the made-up units reach into one another's wedges, the largest part of a unit is in one
        assert np.mean((parts == body)[movers[mine]]) > (1 / 3 if name == "c3" else 0.95)


def test_with_resume_a_benchmark_keeps_whole_fits_and_goes_on_with_its_trainings(bench, systems, tmp_path,
                                                                                 monkeypatch):
    truth, done = bench["truth"], []

    class Stopped(Exception):
        pass

    def stage(config):
        done.append(config)
        if config.stage == "train":
            assert os.path.exists(config.out) == config.resume
            raise Stopped
        os.makedirs(config.out)
        run = rundir.RunDir(config.out)
        run.write_summary(dict(stage=config.stage))
        return run
    monkeypatch.setattr(truth, "run_stage", stage)
    options = SimpleNamespace(resume=False, bodies=False, fit={}, train={})
    case = SimpleNamespace(system=systems["igg"])

    def call():
        done.clear()
        gmm, _ = truth.fitted(case, "p.star", str(tmp_path), 1, options)
        with pytest.raises(Stopped):
            truth.learned(case, "p.star", gmm, str(tmp_path), "default", 1, options)
        return [config.stage for config in done]
    assert call() == ["reconstruct", "fit", "train"] and not done[-1].resume
    os.makedirs(done[-1].out)
    options.resume = True
    assert call() == ["train"] and done[-1].resume
    os.remove(os.path.join(str(tmp_path), "fit", rundir.SUMMARY))        # stopped on the way
    assert call() == ["reconstruct", "fit", "train"] and done[-1].resume
    options.resume = False
    assert call() == ["reconstruct", "fit", "train"] and not done[-1].resume


@pytest.mark.parametrize("flags,told", [
    (["--sets", "mixed", "--continued"], dict(mixed={"ari", "info", "angle_r2"})),
    (["--sets", "c3,null", "--poses", "2deg"],
     dict(c3={"info", "rank", "angle_r2", "unit", "spurious", "null_summaries"})),
    pytest.param(["--sets", "states,bodies"], dict(states={"ari", "neighbours", "ceiling"},
                                                   bodies={"info", "angle_r2", "ceiling", "own"}),
                 marks=pytest.mark.relion)])
def test_the_benchmark_simulates_fits_trains_and_scores(bench, maps, tmp_path, monkeypatch, capsys, flags,
                                                        told):
    monkeypatch.setattr("sys.argv", ["truth.py", "--data", str(maps), "--out", str(tmp_path), "--box", "24",
                                     "--n", "80", "--snr", "4", *flags, "--set-param", "epochs=1",
                                     "latent_steps=1", "fit.n_gaussians=40", "fit.steps=30"])
    bench["truth"].main()
    with open(tmp_path / "results.json", encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    assert [row["set"] for row in rows] == list(told)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + len(rows)
    for row, line in zip(rows, printed[1:]):
        assert told[row["set"]] <= set(row)
        assert all(np.isfinite(row[name]).all() for name in told[row["set"]] - {"spurious", "null_summaries"})
        assert len(row["fsc"]) == 3 and np.isfinite(row["fsc"]).all() and row["fsc"][2] > 0.2
        least = -1 if row["set"] == "bodies" else 0      # 8 particles held out after one epoch
        assert len(row["evidence"]) == 2 and row["evidence"][0] >= least
        assert (row["pose_error_deg"] > 1) == ("2deg" in flags) and line.split()[:4] == [row["set"],
                                                                                         row["poses"],
                                                                                         "default", "1"]


def test_parameters_for_a_stage_are_taken_by_their_kind_and_wrong_ones_refused(bench):
    options = SimpleNamespace(fit={}, train={})
    for item in ("epochs=3", "rigid=False", "smoothness=6", "fit.resolution=18", "vary=position",
                 "fit.n_gaussians=40"):
        bench["truth"].set_parameter(options, item)
    assert options.train == dict(epochs=3, rigid=False, smoothness=6.0,
                                 vary="position") and options.fit == dict(
        resolution=18.0, n_gaussians="40")
    for item, says in (("nonsense=1", "unknown parameter 'nonsense' for stage 'train'"),
                       ("epochs", "expected key=value"),
                       ("fit.epochs=1", "unknown parameter 'epochs' for stage 'fit'"),
                       ("epochs=many", "'epochs' of stage 'train' must be int, got 'many'"),
                       ("rigid=yes", "must be bool, got 'yes'")):
        with pytest.raises(ValueError, match=says):
            bench["truth"].set_parameter(options, item)


@pytest.mark.parametrize("flags,says", [
    (["--presets", "default,nope"], "unknown presets: nope; presets are default, paper"),
    (["--sets", "null"], "names the nulls of other"), (["--seeds", "one"], "argument --seeds: invalid"),
    (["--pose-error", "2"], "argument --pose-error: invalid"),
    (["--set-param", "nonsense=1"], "--set-param nonsense=1: unknown parameter 'nonsense' for stage 'train'"),
    (["--sets", "states"], "states needs RELION"), ([], "holds no ctf_*.npz")])
def test_wrong_options_are_refused_before_anything_is_simulated(bench, tmp_path, monkeypatch, capsys, flags,
                                                                says):
    if flags:
        (tmp_path / "ctf_x.npz").touch()
    monkeypatch.setattr("sys.argv", ["truth.py", "--data", str(tmp_path), *flags])
    monkeypatch.setattr(bench["truth"].shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        bench["truth"].read_options()
    assert stopped.value.code == 2 and says in capsys.readouterr().err
