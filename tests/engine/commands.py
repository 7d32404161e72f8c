"""How the engine's tests run the command line, and read what it leaves."""
import csv
import gc
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from tensorflow.python.framework import ops

from gmmhet.engine import rundir
from gmmhet.engine.cli import main
from gmmhet.engine.latents import Latents
from gmmhet.engine.training.early_stopping import SURE
from gmmhet.engine.training.parameter_schedule import ParameterSchedule

#: a train run whose quality does not matter: inferring poses would double what there is to compile
QUICK = dict(epochs=2, latent_steps=1, latent_dim=2, pose_errors="none")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def gmmhet(*arguments):
    """Run the command line in this process; returns the exit status. None of the graphs that it made stays:
    TensorFlow keeps for ever what a custom gradient is registered by, 300 MB a training."""
    gradients = ops.gradient_registry._registry
    before = set(gradients)
    try:
        return main([str(a) for a in arguments])
    finally:
        made = set(gradients) - before
        for name in made:
            del gradients[name]
        if made:
            gc.collect()


def gmmhet_process(*arguments, **options):
    """Start the command line in its own process."""
    environment, command = dict(os.environ, PYTHONPATH=ROOT, TF_CPP_MIN_LOG_LEVEL="3"), [sys.executable, "-m"]
    return subprocess.Popen([*command, "gmmhet.engine.cli", *map(str, arguments)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def loaded_by(module):
    """Top-level names of the packages that come along when a module is imported in a fresh interpreter."""
    code = "import sys, %s; print(*{name.split('.')[0] for name in sys.modules})" % module
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ, PYTHONPATH=ROOT), check=True,
                          capture_output=True, text=True)
    return done.stdout.split()


def simulated(folder, kind, n, snr, **flags):
    """A set of 32 px particles and the model fitted to its map: two folders."""
    extra = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), value)]
    folder.mkdir(exist_ok=True)
    assert gmmhet("simulate", "--out", folder / "set", "--kind", kind, "--n", n, "--box", 32,
                  "--pixel-size", 6, "--snr", snr, *extra) == 0
    assert gmmhet("fit", "--out", folder / "fit", "--map", folder / "set" / "map.mrc", "--n-gaussians", 80,
                  "--steps", 120) == 0
    return folder


def training(folder, **flags):
    """Flags of a train run on a simulated folder."""
    extra = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), value)]
    return ["--particles", folder / "set" / "particles.star", "--gmm", folder / "fit", *extra]


def summary(run):
    """summary.json of a run."""
    return json.loads((run / rundir.SUMMARY).read_text())


def history(run):
    """Rows of a train run's history.csv, by the names of its columns."""
    with open(run / rundir.HISTORY, newline="") as file:
        return list(csv.DictReader(file))


def latents(run):
    """Latent points of a train run."""
    return Latents.load(str(run))


def same_latents(first, second):
    """The share of the spread of z by which two train runs of the same particles differ."""
    one, other = latents(first), latents(second)
    np.testing.assert_array_equal(one.ids, other.ids)
    np.testing.assert_array_equal(one.held_out, other.held_out)
    return np.abs(one.z - other.z).max() / one.z.std()


def assert_best_epoch_was_kept(run, epochs):
    """Of a train run of so many epochs: the last of the second part than which none was surely better, or
    that of the first part."""
    opened, found, log = ParameterSchedule(epochs).all_open, summary(run), (run / rundir.LOG).read_text()
    said = re.search(r"epoch (\d+), the best so far, gains (\S+) by the tighter bound", log)
    later = [row for row in history(run) if int(row["epoch"]) > opened]
    peak = [float(said[2])] + [float(row["held_out_gain"]) for row in later]
    for i, row in enumerate(later):
        assert np.sign(float(row["behind_best"])) == np.sign(max(peak[:i + 1]) - peak[i + 1])
    fair = [row for row in later if float(row["behind_best"]) <= SURE]
    assert int(said[1]) <= opened
    if fair:
        assert found["best_epoch"] == int(fair[-1]["epoch"])
        assert found["held_out_gain"] == pytest.approx(float(fair[-1]["held_out_gain"]))
    else:
        assert found["best_epoch"] == int(said[1])
        assert found["held_out_gain"] == pytest.approx(peak[0], rel=1e-3)      # as logged
