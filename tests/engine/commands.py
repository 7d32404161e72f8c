"""How the engine's tests run the command line."""
import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from gmmhet.engine import rundir
from gmmhet.engine.cli import main
from gmmhet.engine.training.column_schedule import LEAD
from gmmhet.engine.training.early_stopping import SURE

#: a train run whose quality does not matter
QUICK = dict(epochs=2, latent_steps=1, latent_dim=2)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def gmmhet(*arguments):
    """Run the command line in this process; returns the exit status."""
    return main([str(a) for a in arguments])


def gmmhet_process(*arguments, **options):
    """Start the command line in its own process."""
    environment = dict(os.environ, PYTHONPATH=ROOT, TF_CPP_MIN_LOG_LEVEL="3")
    return subprocess.Popen([sys.executable, "-m", "gmmhet.engine.cli", *map(str, arguments)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


def simulated(folder, kind, n, snr, **flags):
    """A set of 32 px particles and the model fitted to its map: two folders."""
    extra = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), value)]
    assert gmmhet("simulate", "--out", folder / "set", "--kind", kind, "--n", n, "--box", 32, "--pixel-size", 6, "--snr", snr, *extra) == 0
    assert gmmhet("fit", "--out", folder / "fit", "--map", folder / "set" / "map.mrc", "--n-gaussians", 80, "--steps", 120) == 0
    return folder


def training(folder, **flags):
    """Flags of a train run on a simulated folder."""
    extra = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), value)]
    return ["--particles", folder / "set" / "particles.star", "--gmm", folder / "fit", *extra]


def assert_best_epoch_was_kept(run, epochs):
    """Of a train run of so many epochs: the last of the second part than which none was surely better, or that of the first part."""
    opened, found = round(LEAD[1] * epochs), json.loads((run / rundir.SUMMARY).read_text())
    said = re.search(r"epoch (\d+), the best so far, gains (\S+) by the tighter bound", (run / rundir.LOG).read_text())
    with open(run / rundir.HISTORY, newline="") as file:
        later = [row for row in csv.DictReader(file) if int(row["epoch"]) > opened]
    peak = [float(said[2])] + [float(row["held_out_gain"]) for row in later]
    for i, row in enumerate(later):
        assert np.sign(float(row["behind_best"])) == np.sign(max(peak[:i + 1]) - peak[i + 1])
    fair = [row for row in later if float(row["behind_best"]) <= SURE]
    assert int(said[1]) <= opened
    if fair:
        assert found["best_epoch"] == int(fair[-1]["epoch"])
        assert found["held_out_gain"] == pytest.approx(float(fair[-1]["held_out_gain"]))
    else:
        assert found["best_epoch"] == int(said[1]) and found["held_out_gain"] == pytest.approx(peak[0], rel=1e-3)      # as logged
