"""How the engine's tests run the command line."""
import csv
import json
import os
import re
import subprocess
import sys

import pytest

from gmmhet.engine import rundir
from gmmhet.engine.cli import main
from gmmhet.engine.training.heterogeneity import LEAD

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
    """Of a train run of so many epochs: the best of the first part, by the bound of the second, or a better one of the second."""
    opened, found = round(LEAD[1] * epochs), json.loads((run / rundir.SUMMARY).read_text())
    said = re.search(r"epoch (\d+), the best so far, gains (\S+) by the tighter bound", (run / rundir.LOG).read_text())
    with open(run / rundir.HISTORY, newline="") as file:
        later = {int(row["epoch"]): float(row["held_out_gain"]) for row in csv.DictReader(file) if int(row["epoch"]) > opened}
    first, again, then = int(said[1]), float(said[2]), max(later.values())
    assert first <= opened
    if again > then:
        assert found["best_epoch"] == first and found["held_out_gain"] == pytest.approx(again, rel=1e-3)      # as the log rounds it
    else:
        assert found["best_epoch"] == max(later, key=later.get) and found["held_out_gain"] == pytest.approx(then)
