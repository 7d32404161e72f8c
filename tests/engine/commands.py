"""How the engine's tests run the command line."""
import csv
import os
import re
import subprocess
import sys

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


def counted_gains(run, epochs):
    """What the best epoch of a train run was chosen by, {epoch: held-out gain}: the best of the first part, measured again by the bound of
    the second, and those of the second."""
    opened = round(LEAD[1] * epochs)
    said = re.search(r"epoch (\d+), the best so far, gains (\S+) by the tighter bound", (run / rundir.LOG).read_text())
    with open(run / rundir.HISTORY, newline="") as file:
        rows = [(int(row["epoch"]), float(row["held_out_gain"])) for row in csv.DictReader(file)]
    assert int(said[1]) <= opened
    return {int(said[1]): float(said[2]), **{epoch: gain for epoch, gain in rows if epoch > opened}}
