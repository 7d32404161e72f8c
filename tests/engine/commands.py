"""How the engine's tests run the command line."""
import os
import subprocess
import sys

from gmmhet.engine.cli import main

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
