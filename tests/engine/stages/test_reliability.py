"""Runs that are killed, find the disk full or lose their images can be continued; large sets are never held
whole."""
import json
import os
import resource
import shutil
import subprocess
import sys

import mrcfile
import numpy as np
import pytest
from commands import QUICK, ROOT, gmmhet, gmmhet_process, same_latents, summary, training

from gmmhet.engine import rundir
from gmmhet.engine.batching.batches import Views
from gmmhet.engine.likelihood import noise
from gmmhet.engine.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint


def bench(name, *arguments):
    """Output of a program in bench/."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", name), *map(str, arguments)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def small_files(size):
    """For a process of its own: no file can grow beyond `size` bytes, as on a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def test_runs_killed_at_random_moments_end_like_one_left_alone(small):
    files = "--particles", small / "set" / rundir.STAR, "--gmm", small / "fit"
    assert "3 of 3 runs went on" in bench("kills.py", *files, "--kills", 3)


def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_says_so(tmp_path):
    path, values = str(tmp_path / CHECKPOINT), np.arange(1000, dtype=np.float32)
    save_checkpoint(path, dict(model=dict(weights=values)), dict(epoch=1))
    again = ("import sys, numpy; from gmmhet.engine.training.checkpoint import save_checkpoint; "
             "save_checkpoint(sys.argv[1], dict(model=dict(weights=numpy.arange(1000.0))), dict(epoch=2))")
    environment = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run([sys.executable, "-c", again, path], env=environment, check=False,
                          capture_output=True, text=True, preexec_fn=small_files(1000))
    assert ("'%s' cannot be written: File too large. The run is kept as it was before: "
            "make room and continue it with --resume" % path) in done.stderr
    assert os.listdir(tmp_path) == [CHECKPOINT]
    groups, state = load_checkpoint(path)
    assert state == dict(epoch=1)
    np.testing.assert_array_equal(groups["model"]["weights"], values)


def test_a_run_that_finds_the_disk_full_goes_on_when_there_is_room(small, small_run, paused_run, tmp_path):
    out, flags = shutil.copytree(paused_run, tmp_path / "out"), training(small, **QUICK)
    process = gmmhet_process("train", "--out", out, *flags, "--resume", preexec_fn=small_files(200000))
    output = process.communicate()[0]
    assert process.returncode == 1 and "checkpoint.npz' cannot be written: File too large" in output
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert same_latents(small_run, out) < 1e-3


@pytest.mark.parametrize("sample", [1024, 20], ids=["measured for noise", "not"])
def test_one_absurd_image_is_named_before_it_spoils_the_run(small, tmp_path, monkeypatch, capsys, sample):
    monkeypatch.setattr(noise, "SAMPLE", sample)
    shutil.copytree(small / "set", tmp_path / "set")
    chosen, _ = noise.sample(np.ones(120), 1)
    row = np.setdiff1d(np.arange(120), chosen)[0] if sample < 120 else 19
    with mrcfile.mmap(tmp_path / "set" / rundir.STACK, "r+") as file:
        file.data[row, 5:10, 5:10] = 1e22
    flags = ["--particles", tmp_path / "set" / rundir.STAR, "--gmm", small / "fit", "--epochs", 1]
    assert gmmhet("train", "--out", tmp_path / "out", *flags) != 0
    assert "the image of particle %d is more than 1000 times as strong" % (row + 1) in capsys.readouterr().err


@pytest.mark.parametrize("size", [1200, 20000])
def test_a_fit_that_finds_the_disk_full_says_so_and_is_run_again_with_resume(small, tmp_path, size):
    out, flags = tmp_path / "out", ("--map", small / "set" / rundir.MAP, "--resolution", 24, "--steps", 20)
    process = gmmhet_process("fit", "--out", out, *flags, preexec_fn=small_files(size))
    output = process.communicate()[0]
    assert process.returncode == 1
    assert ("error: no room is left to write into --out %s (File too large): make room and run fit again, "
            "with --resume" % out) in output
    assert gmmhet("fit", "--out", out, *flags, "--resume") == 0 and rundir.is_finished(str(out), "fit")


@pytest.mark.parametrize("damage,message", [("cut short", "ended at image"), ("removed", "")])
def test_a_stack_that_is_damaged_during_a_run_stops_it_with_a_sentence_and_it_goes_on_when_it_is_back(
        small, paused_run, small_run, tmp_path, capsys, monkeypatch, damage, message):
    shutil.copytree(small / "set", tmp_path / "set")
    stack, out = tmp_path / "set" / rundir.STACK, shutil.copytree(paused_run, tmp_path / "out")
    flags, batch, calls = training(small, **QUICK), Views.batch, []
    flags[flags.index("--particles") + 1] = tmp_path / "set" / rundir.STAR
    stored = rundir.read_json(out / rundir.CONFIG)      # the run was begun with this file
    (out / rundir.CONFIG).write_text(json.dumps(dict(stored, particles=str(tmp_path / "set" / rundir.STAR))))

    def damaged(self, rows):
        calls.append(len(rows))
        if len(calls) == 2:
            if damage == "cut short":
                os.truncate(stack, stack.stat().st_size // 2)
            else:
                stack.unlink()
                self.particles._cache._open[False].clear()
        return batch(self, rows)
    monkeypatch.setattr(Views, "batch", damaged)
    assert gmmhet("train", "--out", out, *flags, "--resume") == 2
    error = capsys.readouterr().err
    assert "error: stack '%s'" % stack in error and message in error and not (out / rundir.SUMMARY).exists()
    monkeypatch.undo()
    shutil.copy(small / "set" / rundir.STACK, stack)
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert same_latents(small_run, out) < 1e-3


def test_a_finished_run_is_resumed_to_go_further(small, small_run, tmp_path):
    out, flags = shutil.copytree(small_run, tmp_path / "out"), training(small, **dict(QUICK, epochs=3))
    assert gmmhet("train", "--out", out, *flags, "--resume") == 0
    assert summary(out)["epochs"] == 3 and rundir.read_json(out / rundir.CONFIG)["epochs"] == 3
    assert "resumed after epoch 2" in (out / rundir.LOG).read_text()


def test_memory_does_not_grow_with_the_number_of_particles():
    # enough of them that both sizes find something above the noise and train in the same way
    lines = bench("memory.py", "--box", 16, "--gaussians", 60, "--sizes", 4000, 40000).splitlines()
    small, large = (json.loads(line) for line in lines)
    grown = large["above_imports_mb"] - small["above_imports_mb"]
    assert large["images_mb"] + large["features_mb"] > 25 and grown < 5 * large["star_mb"] + 10, lines
