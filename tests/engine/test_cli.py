"""Every refusal of the command line: exit status 2, its sentence, and nothing left behind. Plus the rules of
--help and --config."""
import json
import os
import shutil
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
from commands import QUICK, ROOT, gmmhet, training

from gmmhet.engine import config as cfg
from gmmhet.engine import rundir
from gmmhet.engine.io.volumes import write_map
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles


@pytest.fixture
def refused(tmp_path, capsys):
    """Run a stage that must be refused with a sentence before it makes its folder."""
    def call(stage, *flags, says):
        out = tmp_path / "refused"
        try:
            status = gmmhet(stage, "--out", out, *flags)
        except SystemExit as end:                                           # argparse
            status = end.code
        told = capsys.readouterr().err
        assert status == 2 and says in told and "Traceback" not in told, told
        assert not (out / rundir.CONFIG).exists()
    return call


def copied(small, folder, change):
    """A copy of the small set whose star file went through `change` (text to text)."""
    shutil.copytree(small / "set", folder)
    star = folder / rundir.STAR
    star.write_text(change(star.read_text()))
    return star


def particles_of(folder, n, box, pixel_size, change=None):
    """A set of empty images with random poses; `change` edits the images."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, box, box)).astype(np.float32)
    if change:
        change(images)
    ctf = np.tile([15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1], (n, 1))
    from gmmhet.engine.imaging.pose import random_rotations
    write_particles(str(folder / rundir.STAR), str(folder / rundir.STACK), [images],
                    ParticleMetadata(random_rotations(n, rng), np.zeros((n, 2)), ctf), pixel_size)
    return folder / rundir.STAR


# ---- the parser

@pytest.mark.parametrize("stage", list(cfg.STAGES))
def test_help_names_every_flag_and_does_not_import_tensorflow(stage):
    code = ("import sys; from gmmhet.engine.cli import main\ntry:\n    main(['%s', '--help'])\nexcept "
            "SystemExit as end:\n    assert end.code == 0\nassert 'tensorflow' not in sys.modules and "
            "'pyworkflow' not in sys.modules" % stage)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=ROOT))
    assert done.returncode == 0, done.stderr
    assert all(cfg.flag(f.name) in done.stdout for f in cfg.parameters(cfg.STAGES[stage]))


@pytest.mark.parametrize("arguments,says", [
    (["fit", "--out", "x", "--mpa", "a"], "unrecognized arguments: --mpa"),
    (["fti"], "invalid choice: 'fti'"),
    (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    (["train", "--epochs", "2.5"], "argument --epochs: invalid int value: '2.5'"),
    (["train", "--learning-rate", "fast"], "argument --learning-rate: invalid float value: 'fast'"),
    (["train", "--objective", "l2"], "argument --objective: invalid choice: 'l2'"),
    (["train", "--out"], "argument --out: expected one argument"),
])
def test_wrong_flags_end_with_status_2_and_name_the_flag(arguments, says, capsys):
    with pytest.raises(SystemExit) as end:
        gmmhet(*arguments)
    assert end.value.code == 2 and says in capsys.readouterr().err


def test_a_list_that_starts_with_a_negative_number_is_a_value_and_not_a_flag(refused, small_run):
    refused("reconstruct", "--model", small_run, "--near", "-0.5,1,2",
            says="--near must have 2 numbers, one per latent dimension, got 3 ('-0.5,1,2')")


def test_without_out_a_stage_is_refused(capsys):
    assert gmmhet("simulate", "--n", 2) == 2
    assert "error: simulate needs --out" in capsys.readouterr().err


def test_values_out_of_range_are_all_told_at_once(refused, capsys):
    refused("simulate", "--box", 8, "--n", 1,
            says="error: --n must be at least 2, got 1.\n--box must be at least 16 px, got 8.")
    refused("simulate", "--snr", "nan", says="--snr must be a finite number, got nan.")


# ---- --config

def test_the_json_of_a_run_repeats_it_exactly(small, tmp_path):
    assert gmmhet("simulate", "--config", small / "set" / rundir.CONFIG, "--out", tmp_path / "again") == 0
    first, second = (read_particles(str(folder / rundir.STAR))
                     for folder in (small / "set", tmp_path / "again"))
    for name in ("ids", "rotation", "shift_angst", "ctf", "half"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.read(np.arange(120)), second.read(np.arange(120)))
    with np.load(small / "set" / rundir.TRUTH) as a, np.load(tmp_path / "again" / rundir.TRUTH) as b:
        assert all(np.array_equal(a[k], b[k]) for k in a.files)
    stored = json.load(open(tmp_path / "again" / rundir.CONFIG))
    assert stored == {**json.load(open(small / "set" / rundir.CONFIG)), "out": str(tmp_path / "again")}


def test_flags_win_over_the_json(refused, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(dict(n=50, box=64)))
    refused("simulate", "--config", tmp_path / "run.json", "--box", 4,
            says="--box must be at least 16 px, got 4.")


@pytest.mark.parametrize("text,says", [
    ('{"boxx": 64}', "unknown parameter 'boxx' for stage 'simulate'; did you mean 'box'?"),
    ('{"box": "64"}', "parameter 'box' of stage 'simulate' must be int, got '64'"),
    ('{"box": 64', "cannot be read as JSON"),
    ('[64]', "must hold one JSON object of parameters, got list"),
    ('{"snr": NaN}', "--snr must be a finite number, got nan."),
])
def test_bad_json_is_refused_with_its_sentence(refused, tmp_path, text, says):
    (tmp_path / "run.json").write_text(text)
    refused("simulate", "--config", tmp_path / "run.json", says=says)


def test_a_json_file_that_does_not_exist_is_refused(refused, tmp_path):
    refused("fit", "--config", tmp_path / "no.json",
            says="no.json cannot be read as JSON: [Errno 2] No such file")


# ---- run folders

def test_a_folder_that_holds_another_run_is_refused_and_left_alone(small, capsys):
    before = (small / "fit" / rundir.CONFIG).read_text()
    assert gmmhet("fit", "--out", small / "fit", "--map", small / "set" / rundir.MAP) == 2
    assert "already holds a run: choose another folder, or add --resume" in capsys.readouterr().err
    assert (small / "fit" / rundir.CONFIG).read_text() == before


def test_resuming_with_other_parameters_is_refused_with_both_values(small_run, small, capsys):
    assert gmmhet("train", "--out", small_run, *training(small, **{**QUICK, 'latent_dim': 7}),
                  "--resume") == 2
    message = "was started with other parameters: latent_dim (2 in the run, 7 now); give the same, or another"
    assert message in capsys.readouterr().err


def test_resuming_a_finished_run_does_nothing_and_says_so(small_run, small, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in small_run.iterdir()}
    assert gmmhet("train", "--out", small_run, *training(small, **QUICK), "--resume") == 0
    assert "already holds a finished 'train' run: nothing to do" in capsys.readouterr().err
    assert {p.name: p.stat().st_mtime_ns for p in small_run.iterdir()} == before


def test_resuming_another_stage_s_folder_is_refused(small, capsys):
    assert gmmhet("train", "--out", small / "fit", *training(small), "--resume") == 2
    assert "holds a run of another stage" in capsys.readouterr().err


def test_the_log_holds_what_was_said_while_a_run_was_checked(small, tmp_path):
    star, ids = small / "set" / rundir.STAR, tmp_path / "ids.txt"
    ids.write_text("\n".join(str(i) for i in [*range(1, 41), 7]))
    assert gmmhet("reconstruct", "--out", tmp_path / "a", "--particles", star, "--ids", ids) == 0
    before, _ = (tmp_path / "a" / rundir.LOG).read_text().split("gmmhet reconstruct, seed 1")
    assert "names 1 ids more than once; each particle is taken once." in before


# ---- input files

def test_missing_inputs_are_named_with_their_flags(refused, small, tmp_path):
    refused("train", says="train needs --particles and --gmm; see gmmhet train --help")
    refused("train", "--particles", tmp_path / "no.star", "--gmm", tmp_path / "no",
            says="--particles %s does not exist." % (tmp_path / "no.star"))
    refused("fit", says="give --map or --particles (exactly one)")
    refused("fit", "--map", small / "set" / rundir.MAP, "--particles", small / "set" / rundir.STAR,
            says="give --map or --particles (exactly one)")
    refused("fit", "--map", small / "set" / rundir.MAP, "--mask", tmp_path / "no.mrc",
            says="--mask %s does not exist." % (tmp_path / "no.mrc"))
    refused("refine", says="refine needs --model")
    refused("score", says="score needs --model and --truth")
    refused("analyze", says="analyze needs --model")
    refused("decode", says="decode needs --model and --z")


def test_a_folder_that_is_no_run_of_the_right_stage_is_refused(refused, small):
    star = small / "set" / rundir.STAR
    refused("train", "--particles", star, "--gmm", small / "set",
            says="is not a finished 'fit' run: it lacks gmm.npz, gmm.cif, gmm.mrc, fsc.csv")
    refused("train", "--particles", star, "--gmm", star,
            says="is not a folder: expected the --out folder of a 'fit' run")
    refused("refine", "--particles", star, "--model", small / "fit",
            says="is not a finished 'train' run: it lacks latents.npz, model, history.csv")
    refused("score", "--model", small / "fit", "--truth", small / "set", says="--model: ")
    refused("train", *training(small), "--continue-from", small / "fit",
            says="--continue-from: '%s' is not a finished 'train' run" % (small / "fit"))


def test_particles_without_alignment_are_refused(refused, small, tmp_path):
    star = copied(small, tmp_path / "bad", lambda text: text.replace("_rlnAngleTilt", "_rlnSomethingElse"))
    refused("train", "--particles", star, "--gmm", small / "fit",
            says="particles without projection alignment (missing columns: rlnAngleTilt)")


def test_particles_whose_stack_is_missing_are_refused(refused, small, tmp_path):
    star = copied(small, tmp_path / "bad", lambda text: text.replace("particles.mrcs", "gone.mrcs"))
    refused("train", "--particles", star, "--gmm", small / "fit",
            says="1 of 1 image stacks are missing, the first is 'gone.mrcs'")


def test_an_empty_set_is_refused(refused, small, tmp_path):
    star = copied(small, tmp_path / "bad",
                  lambda text: "\n".join(line for line in text.splitlines() if "@" not in line) + "\n")
    refused("train", "--particles", star, "--gmm", small / "fit", says="particles.star")


def test_too_few_particles_are_refused_with_their_number(refused, small, tmp_path):
    star = particles_of(tmp_path / "bad", 9, 32, 6.0)
    refused("train", "--particles", star, "--gmm", small / "fit",
            says="holds 9 particles; at least 10 are needed to train")


def test_map_and_particles_of_different_pixel_size_are_refused_with_both_numbers(refused, small, tmp_path):
    star = particles_of(tmp_path / "bad", 12, 32, 5.5)
    refused("train", "--particles", star, "--gmm", small / "fit",
            says="the map of the neutral model has 32 px of 6.0000 Å, the particle set has 32 px of 5.5000 "
                 "Å: rescale")


def test_map_and_particles_of_different_box_are_refused_with_both_numbers(refused, small, tmp_path):
    star = particles_of(tmp_path / "bad", 12, 36, 6.0)
    refused("train", "--particles", star, "--gmm", small / "fit",
            says="the map of the neutral model has 32 px of 6.0000 Å, the particle set has 36 px of 6.0000 "
                 "Å: rescale")


def test_a_mask_of_another_box_is_refused_with_both_sizes(refused, small, tmp_path):
    write_map(str(tmp_path / "mask.mrc"), np.ones((30, 30, 30), np.float32), 6.0)
    refused("fit", "--map", small / "set" / rundir.MAP, "--mask", tmp_path / "mask.mrc",
            says="--mask mask.mrc has 30 px of 6.0000 Å, the map has 32 px of 6.0000 Å: make them the same")


def test_nan_pixels_are_refused_naming_the_particle(small, tmp_path, capsys):
    def spoil(images):
        images[4, 3, 3] = np.nan
    star = particles_of(tmp_path / "bad", 12, 32, 6.0, spoil)
    assert gmmhet("train", "--out", tmp_path / "out", "--particles", star, "--gmm", small / "fit") == 2
    assert "the image of particle id 5 (000005@%s) holds NaN or infinite pixels" % (
        tmp_path / "bad" / rundir.STACK) in capsys.readouterr().err


def test_particles_of_black_contrast_give_what_their_white_inverses_give_and_it_is_said_aloud(
        small, small_run, tmp_path, capsys):
    folder = tmp_path / "black"
    shutil.copytree(small / "set", folder)
    with mrcfile.open(folder / rundir.STACK, "r+") as file:
        file.set_data(-file.data)
    assert gmmhet("train", "--out", tmp_path / "out", *training(small, **QUICK), "--particles",
                  folder / rundir.STAR) == 0
    message = "the particles' contrast is black: they agree with the inverted map (density scale -"
    assert message in capsys.readouterr().err
    summary = [json.load(open(run / rundir.SUMMARY)) for run in (tmp_path / "out", small_run)]
    assert [s["contrast"] for s in summary] == ["black", "white"]
    assert summary[0]["scale"] == pytest.approx(summary[1]["scale"], rel=1e-4)
    black, white = (np.load(run / rundir.LATENTS)["z"] for run in (tmp_path / "out", small_run))
    assert np.abs(black - white).max() < 1e-3 * white.std()


@pytest.mark.parametrize("flags,says", [
    (["--vary", "shape"], "must name some of amplitude, position, width, comma-separated, got 'shape'"),
    (["--vary", ","], "--vary must name some of amplitude, position, width, comma-separated, got ','"),
    (["--symmetry", "i"], "symmetry must be cN or dN (such as c3 or d2), got 'i'"),
    (["--region", "sphere:1,2,3"], "region 'sphere:1,2,3' must be 'sphere:x,y,z,radius', four numbers in Å"),
    (["--region", "sphere:900,0,0,5"], "selects none of the 80 Gaussians"),
    (["--region", "arm.mrc"], "region 'arm.mrc' is neither an existing file nor 'sphere:x,y,z,radius'"),
    (["--rigid"], ("--rigid: a molecule that moves as one body only changes its pose. Name the parts that "
                   "move with --region")),
    (["--rigid", "--vary", "amplitude", "--region", "sphere:17,0,41,25"],
     "--vary amplitude lets none move: add position"),
])
def test_what_may_vary_is_checked_before_training(refused, small, flags, says):
    refused("train", *training(small), *flags, says=says)


@pytest.mark.parametrize("count", ["many", "3", "-5", "2.5", ""])
def test_a_number_of_gaussians_is_auto_or_at_least_4(refused, small, count):
    refused("fit", "--map", small / "set" / rundir.MAP, "--n-gaussians=" + count,
            says="--n-gaussians must be 'auto' or a whole number from 4, got '%s'" % count)


def test_more_gaussians_than_the_map_has_voxels_for_are_refused_with_both_numbers(small, tmp_path, capsys):
    assert gmmhet("fit", "--out", tmp_path / "out", "--map", small / "set" / rundir.MAP, "--n-gaussians",
                  30000) == 2
    message = "fewer than the 30000 Gaussians asked for: lower --threshold or --n-gaussians"
    assert message in capsys.readouterr().err


def test_a_folder_whose_input_was_refused_can_be_used_again(small, tmp_path):
    assert gmmhet("fit", "--out", tmp_path / "out", "--map", small / "set" / rundir.MAP, "--n-gaussians",
                  30000) == 2
    assert gmmhet("fit", "--out", tmp_path / "out", "--map", small / "set" / rundir.MAP, "--n-gaussians", 20,
                  "--steps", 5) == 0


def test_an_inverted_map_is_refused(small, tmp_path, capsys):
    write_map(str(tmp_path / "map.mrc"), -np.ones((32, 32, 32), np.float32), 6.0)
    assert gmmhet("fit", "--out", tmp_path / "out", "--map", tmp_path / "map.mrc") == 2
    assert "the map holds no positive density: is its contrast inverted" in capsys.readouterr().err


def test_a_map_with_nan_is_refused(refused, tmp_path):
    volume = np.ones((16, 16, 16), np.float32)
    volume[3, 4, 5] = np.nan
    with mrcfile.new_mmap(tmp_path / "map.mrc", (16, 16, 16), mrc_mode=2) as file:
        file.data[:] = volume
        file.voxel_size = 4.0
    refused("fit", "--map", tmp_path / "map.mrc", says="NaN")


def test_particles_without_a_latent_point_are_refused_with_their_number(refused, small_run, tmp_path):
    star = particles_of(tmp_path / "more", 130, 32, 6.0)
    refused("refine", "--model", small_run, "--particles", star,
            says="10 of 130 particles have no latent point")


def test_refining_particles_of_another_size_is_refused_with_both(refused, small_run, tmp_path):
    star = particles_of(tmp_path / "other", 12, 36, 6.0)
    refused("refine", "--model", small_run, "--particles", star,
            says="has 36 px of 6.0000 Å, the model has 32 px of 6.0000 Å: give the particles that the model "
                 "was")


def test_continuing_from_a_model_of_another_shape_is_refused_before_any_long_work(refused, small, small_run):
    refused("train", *training(small), "--continue-from", small_run, "--latent-dim", 2, "--smoothness", 20,
            says="was trained with --smoothness 12.0, this run has 20.0: give the same")


def test_scoring_particles_that_the_truth_does_not_know_is_refused(refused, small_run, tmp_path, small):
    folder = tmp_path / "truth"
    shutil.copytree(small / "set", folder)
    with np.load(folder / rundir.TRUTH) as data:
        kept = {k: (v[:100] if v.ndim and len(v) == 120 else v) for k, v in data.items()}
    np.savez(folder / rundir.TRUTH, **kept)
    refused("score", "--model", small_run, "--truth", folder,
            says="20 particles of --model %s are not in --truth %s, the first is id 101" % (
                small_run, folder))


# ---- what a stage leaves

def test_a_stage_leaves_its_files_its_parameters_its_summary_and_its_log(small, small_run):
    for folder, stage in ((small / "set", "simulate"), (small / "fit", "fit"), (small_run, "train")):
        assert rundir.missing_run(str(folder), stage) == ""
        assert json.load(open(folder / rundir.SUMMARY))["stage"] == stage
        assert cfg.from_dict(cfg.STAGES[stage], json.load(open(folder / rundir.CONFIG))).out == str(folder)
        assert "gmmhet %s, seed 1" % stage in (folder / rundir.LOG).read_text()


def test_the_particles_of_a_run_stay_as_they_were(small, small_run):
    before = read_particles(str(small / "set" / rundir.STAR))
    assert len(before) == 120 and before.box == 32 and before.pixel_size == 6.0


def test_without_arguments_the_stages_are_listed(capsys):
    assert gmmhet() == 2
    told = capsys.readouterr().err
    assert all(name in told for name in cfg.STAGES)
