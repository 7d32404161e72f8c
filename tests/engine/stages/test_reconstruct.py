import json
import os

import numpy as np
import pytest
import starfile
from relion_images import BOX, HAS_RELION, NO_RELION, PIXEL_SIZE, blobs, density, projection, run

from gmmhet.engine import rundir
from gmmhet.engine.config import ReconstructConfig, TrainConfig, to_json
from gmmhet.engine.imaging.fsc import fsc_curve, masked_fsc_curve, soft_sphere
from gmmhet.engine.imaging.pose import random_rotations, symmetry_matrices
from gmmhet.engine.io.errors import ParticleError
from gmmhet.engine.io.volumes import read_map, write_map
from gmmhet.engine.latents import Latents
from gmmhet.engine.log import log
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.reconstruction.selection import ReconstructError
from gmmhet.engine.stages.reconstruct import execute, prepare

N = 120
TURN = symmetry_matrices("c2")[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Noisy particles: ids 1001 .. 1060 show one phantom, ids 1061 .. 1120 another; half sets known."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rotation, shift, ctf = random_rotations(N, rng), rng.normal(size=(N, 2)) * 3, np.empty((N, 9))
    ctf[:] = 0, 0, 0, 300, 0, 1, 0, 0, 1      # 1 everywhere
    images = np.stack([projection(rotation[i], shift[i], *blobs(seed=i // 60)) for i in range(N)])
    images += 0.5 * images.std() * rng.normal(size=images.shape)
    write_particles(str(folder / "p.star"), str(folder / "p.mrcs"), [images],
                    ParticleMetadata(rotation, shift, ctf, half=np.arange(N) % 2 + 1,
                                     ids=1001 + np.arange(N)), PIXEL_SIZE)
    return folder


def train_run(folder, data, z, copy=None, ids=None, symmetry="c1"):
    """What a finished train run leaves, as far as reconstruct reads it."""
    os.makedirs(folder / rundir.MODEL)
    config = TrainConfig(particles=str(data / "p.star"), symmetry=symmetry)
    (folder / rundir.CONFIG).write_text(to_json(config))
    (folder / rundir.HISTORY).write_text("epoch\n")
    (folder / rundir.SUMMARY).write_text('{"epochs": 1}')
    copy = np.zeros(len(z), int) if copy is None else copy
    Latents(1001 + np.arange(N) if ids is None else ids, copy, z).save(str(folder))
    return str(folder)


def reconstruct(folder, **flags):
    """Run the stage; returns its summary and its folder's names."""
    plan, done = prepare(ReconstructConfig(out=str(folder), **flags)), rundir.RunDir(str(folder))
    return execute(plan, done.create()), done


def test_all_particles_give_every_file_of_the_stage(tmp_path, data):
    summary, done = reconstruct(tmp_path / "r", particles=str(data / "p.star"))
    assert all(os.path.exists(done(name)) for name in rundir.FILES["reconstruct"])
    assert json.loads(json.dumps(summary)) == summary
    assert [summary[key] for key in ("particles", "half1", "half2", "symmetry")] == [N, 60, 60, "c1"]
    assert summary["fsc_threshold"] == 0.143 and 2 * PIXEL_SIZE <= summary["resolution_angst"] < 40
    maps = [read_map(done(name)) for name in (rundir.MAP, rundir.HALF1, rundir.HALF2)]
    assert all(pixel_size == PIXEL_SIZE and len(array) == BOX for array, pixel_size in maps)
    table = np.genfromtxt(done(rundir.FSC), delimiter=",", names=True)
    assert table.dtype.names == ("resolution_angst", "fsc_unmasked", "fsc_masked")
    np.testing.assert_allclose(table["fsc_unmasked"], fsc_curve(maps[1][0], maps[2][0])[1:], atol=1e-4)
    np.testing.assert_allclose(table["fsc_masked"],
                               masked_fsc_curve(maps[1][0], maps[2][0], soft_sphere(BOX))[1:], atol=1e-4)


def test_a_list_of_ids_reconstructs_those_particles_only(tmp_path, data):
    (tmp_path / "ids.txt").write_text("\n".join(str(i) for i in [*range(1061, 1121), 1070]) + "\n")
    summary, done = reconstruct(tmp_path / "r", particles=str(data / "p.star"), ids=str(tmp_path / "ids.txt"))
    assert summary["particles"] == 60 and "the 60 ids of" in summary["chosen"]
    np.testing.assert_array_equal(read_particles(done(rundir.STAR)).ids, np.arange(1061, 1121))
    found, _ = read_map(done(rundir.MAP))
    right, other = (fsc_curve(found, density(*blobs(seed=s)))[2:8].mean() for s in (1, 0))
    assert right > 0.85 and right > other + 0.3


def test_near_takes_the_k_particles_around_a_latent_point(tmp_path, data):
    z = np.stack([np.repeat([-1.0, 1.0], 60) + 0.01 * np.arange(N) / N, np.zeros(N)], axis=1)
    model = train_run(tmp_path / "t", data, z)
    summary, done = reconstruct(tmp_path / "r", model=model, near="-1,0", k=40)
    np.testing.assert_array_equal(read_particles(done(rundir.STAR)).ids, np.arange(1001, 1041))
    assert summary["chosen"] == "the 40 particles nearest to z = -1, 0"


def test_particles_take_the_orientation_of_their_symmetry_copy(tmp_path, data):
    ids = np.repeat(1001 + np.arange(60), 2)
    z = np.tile([[5.0], [0.0]], (60, 1))      # copy 1 of every particle lies at z = 0
    model = train_run(tmp_path / "t", data, z, np.tile([0, 1], 60), ids, symmetry="c2")
    _, done = reconstruct(tmp_path / "r", model=model, near="0", k=60)
    original = read_particles(str(data / "p.star")).select(np.arange(60))
    np.testing.assert_allclose(read_particles(done(rundir.STAR)).rotation, original.rotation @ TURN,
                               atol=1e-5)
    centers, amplitudes, widths = blobs()
    assert fsc_curve(read_map(done(rundir.MAP))[0],
                     density(centers @ TURN, amplitudes, widths))[2:8].mean() > 0.85


def test_a_list_may_name_the_symmetry_copy_of_each_id(tmp_path, data):
    model = train_run(tmp_path / "t", data, np.zeros((N, 1)), symmetry="c2")
    (tmp_path / "ids.txt").write_text("# id copy\n1001 1\n1002 0\n")
    _, done = reconstruct(tmp_path / "r", model=model, ids=str(tmp_path / "ids.txt"))
    original = read_particles(str(data / "p.star"))
    np.testing.assert_allclose(read_particles(done(rundir.STAR)).rotation,
                               [original.rotation[0] @ TURN, original.rotation[1]], atol=1e-5)
    (tmp_path / "ids.txt").write_text("1001 2\n1002 0\n")
    with pytest.raises(ReconstructError, match="symmetry copies must be 0 to 1 for c2, got 2"):
        reconstruct(tmp_path / "s", model=model, ids=str(tmp_path / "ids.txt"))
    with pytest.raises(ReconstructError, match="names symmetry copies: give --model"):
        reconstruct(tmp_path / "s", particles=str(data / "p.star"), ids=str(tmp_path / "ids.txt"))


def without_halves(data, tmp_path, rows):
    """The data's star with the half sets of some rows removed."""
    blocks = starfile.read(data / "p.star")
    blocks["particles"].loc[rows, "rlnRandomSubset"] = 0
    blocks["particles"]["rlnImageName"] = blocks["particles"]["rlnImageName"].str.replace("@", "@%s/" % data)
    starfile.write(blocks, tmp_path / "nohalf.star", float_format=None)
    return str(tmp_path / "nohalf.star")


def test_unknown_half_sets_are_drawn_by_the_seed_and_written(tmp_path, data):
    star = without_halves(data, tmp_path, np.arange(N))
    halves = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        summary, done = reconstruct(tmp_path / out, particles=star, seed=seed)
        halves.append(read_particles(done(rundir.STAR)).half)
        assert summary["half_sets"] == "drawn at random with seed %d" % seed
        assert summary["half1"] == summary["half2"] == 60
    assert np.array_equal(halves[0], halves[1]) and not np.array_equal(halves[0], halves[2])


def test_known_half_sets_stay_beside_drawn_ones(tmp_path, data):
    star = without_halves(data, tmp_path, np.arange(10))
    summary, done = reconstruct(tmp_path / "r", particles=star)
    assert summary["half_sets"] == ("rlnRandomSubset, and for 10 particles without it drawn at random with "
                                    "seed 1")
    np.testing.assert_array_equal(read_particles(done(rundir.STAR)).half[10:], np.arange(10, N) % 2 + 1)


def test_a_mask_that_fits_is_used(tmp_path, data):
    write_map(str(tmp_path / "m.mrc"), soft_sphere(BOX, 8, 3), PIXEL_SIZE)
    summary, done = reconstruct(tmp_path / "r", particles=str(data / "p.star"), mask=str(tmp_path / "m.mrc"))
    halves = [read_map(done(name))[0] for name in (rundir.HALF1, rundir.HALF2)]
    table = np.genfromtxt(done(rundir.FSC), delimiter=",", names=True)
    np.testing.assert_allclose(table["fsc_masked"], masked_fsc_curve(*halves, soft_sphere(BOX, 8, 3))[1:],
                               atol=1e-4)
    assert summary["fsc_mask"].endswith("m.mrc")


class TestBadInput:
    def refused(self, tmp_path, message, error=ReconstructError, **flags):
        with pytest.raises(error, match=message):
            reconstruct(tmp_path / "refused", **flags)
        assert not os.path.exists(tmp_path / "refused")

    def test_flags_that_contradict_or_lack_each_other(self, tmp_path, data):
        star = str(data / "p.star")
        self.refused(tmp_path, "--ids and --near both choose particles", particles=star, ids="x", near="0")
        self.refused(tmp_path, "--near needs --model", particles=star, near="0")
        self.refused(tmp_path, "--particles is missing")
        self.refused(tmp_path, "--model: '.*data.*' is not a finished 'train' run: it lacks latents.npz",
                     particles=star, model=str(data))
        self.refused(tmp_path, "symmetry must be cN or dN .*, got 'oct'", error=ValueError, particles=star,
                     symmetry="oct")

    @pytest.mark.parametrize("content, error, message", [
        ("", ParticleError, "ids.txt holds no ids: expected one particle id"),
        ("# nothing\n\n", ParticleError, "ids.txt holds no ids"),
        ("1001\nabc\n", ParticleError, "must hold one whole number per line .*, got for example 'abc'"),
        ("1001\n1002 0\n", ParticleError, "got for example '1002 0'"),
        ("1001\n1002.5\n", ParticleError, "got for example '1002.5'"),
        ("1001\n5\n", ParticleError, r"1 ids are not in .*p.star \(ids 1001 to 1120\): 5"),
        ("1001\n1003\n", ReconstructError,
         r"half set 2 of the subset has no particles \(the other has 2\): .* choose a larger subset"),
    ])
    def test_a_list_of_ids_that_cannot_be_used(self, tmp_path, data, content, error, message):
        (tmp_path / "ids.txt").write_text(content)
        self.refused(tmp_path, message, error, particles=str(data / "p.star"), ids=str(tmp_path / "ids.txt"))

    def test_a_latent_point_that_cannot_be_used(self, tmp_path, data):
        model = train_run(tmp_path / "t", data, np.zeros((N, 2)))
        self.refused(tmp_path, r"--near must have 2 numbers, one per latent dimension, got 3 \('1,2,3'\)",
                     model=model, near="1,2,3")
        self.refused(tmp_path, "--near must be comma-separated numbers, got 'a,b'", model=model, near="a,b")

    def test_a_model_whose_particles_moved_away(self, tmp_path, data):
        model = train_run(tmp_path / "t", tmp_path / "gone", np.zeros((N, 2)))
        self.refused(tmp_path, r"are not where they were \('.*gone.p.star'\): name their star file",
                     model=model, near="0,0")

    def test_a_mask_that_does_not_fit(self, tmp_path, data):
        star, mask = str(data / "p.star"), str(tmp_path / "m.mrc")
        write_map(mask, np.ones((16,) * 3), 8.0)
        self.refused(tmp_path, "m.mrc has 16 px of 8.0000 Å, the particle set has 32 px of 4.0000 Å: rescale",
                     particles=star, mask=mask)
        write_map(mask, np.full((BOX,) * 3, 3.0), PIXEL_SIZE)
        self.refused(tmp_path, "must have values from 0 to 1 and not only 0, got 3 to 3", particles=star,
                     mask=mask)


@pytest.mark.skipif(not HAS_RELION, reason=NO_RELION)
@pytest.mark.relion
def test_relion_makes_the_same_half_maps_from_the_star_of_the_subset(tmp_path, data):
    _, done = reconstruct(tmp_path / "r", particles=without_halves(data, tmp_path, np.arange(N)))
    for half, name in ((1, rundir.HALF1), (2, rundir.HALF2)):
        run(tmp_path, "relion_reconstruct", "--i", "r/particles.star", "--o", "relion.mrc", "--ctf",
            "--subset", half)
        theirs, _ = read_map(str(tmp_path / "relion.mrc"))
        assert masked_fsc_curve(read_map(done(name))[0], theirs, soft_sphere(BOX, 12, 4))[:13].min() > 0.9


def test_a_subset_keeps_its_ids_where_the_input_had_none(tmp_path, data):
    particles = read_particles(str(data / "p.star"))
    particles.ids = np.arange(1, N + 1)
    particles.select(np.array([5, 80, 100])).write_star(str(tmp_path / "subset.star"))
    assert read_particles(str(tmp_path / "subset.star")).ids.tolist() == [6, 81, 101]


def inverted(folder, data):
    """A copy of the particles with black contrast; returns its star file."""
    particles = read_particles(str(data / "p.star"))
    write_particles(str(folder / "black.star"), str(folder / "black.mrcs"), [-particles.read(np.arange(N))],
                    ParticleMetadata(particles.rotation, particles.shift_angst, particles.ctf,
                                     half=particles.half, ids=particles.ids), PIXEL_SIZE)
    return str(folder / "black.star")


def test_a_map_of_black_particles_is_said_to_be_black_with_what_to_do(tmp_path, data, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    summary, _ = reconstruct(tmp_path / "r", particles=inverted(tmp_path, data))
    assert summary["contrast"] == "black"
    assert "the map's density is negative: the particles' contrast is black" in caplog.text
    assert "--multiply_constant -1" in caplog.text
    assert reconstruct(tmp_path / "white", particles=str(data / "p.star"))[0]["contrast"] == "white"


def test_with_a_model_of_black_particles_the_maps_are_white(tmp_path, data, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    model = train_run(tmp_path / "model", data, np.arange(N, dtype=np.float32)[:, None])
    with open(tmp_path / "model" / rundir.SUMMARY, "w", encoding="utf-8") as f:
        json.dump(dict(epochs=1, contrast="black"), f)
    flags = dict(model=model, near="0", k=80)
    white = reconstruct(tmp_path / "w", particles=inverted(tmp_path, data), **flags)
    train_run(tmp_path / "plain", data, np.arange(N, dtype=np.float32)[:, None])
    plain = reconstruct(tmp_path / "p", particles=str(data / "p.star"),
                        **dict(flags, model=str(tmp_path / "plain")))
    for name in (rundir.MAP, rundir.HALF1, rundir.HALF2):
        np.testing.assert_allclose(read_map(white[1](name))[0], read_map(plain[1](name))[0], atol=1e-5)
    assert white[0]["contrast"] == "black" and "negative" not in caplog.text
