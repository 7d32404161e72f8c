"""Kill -9 at random moments of `gmmhet train`: does every run, continued with --resume, end like one that was
left alone?

    python bench/kills.py --particles set/particles.star --gmm fit [--kills 20] [--epochs 2] [--seed 1]

Prints, per kill, the moment, what the run had left by then, and by how much its weights and latent points
differ at the end.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from gmmhet.engine.latents import Latents

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: largest difference of a weight, and of z in its standard deviations, that rounding explains
ROUNDING = 1e-3


def start(options, out):
    """The run, or its continuation, in a process of its own; its messages go to a file beside the run's
    folder."""
    command = [sys.executable, "-m", "gmmhet.engine.cli", "train", "--particles", options.particles,
               "--gmm", options.gmm, "--out", out, "--epochs", str(options.epochs), "--latent-steps", "1",
               "--latent-dim", "2", "--gpus", "none", "--resume"]
    with open(out + ".log", "ab") as log:
        return subprocess.Popen(command, env=dict(os.environ, PYTHONPATH=ROOT), stdout=log, stderr=log)


def finish(options, out):
    """Run to the end; seconds."""
    began = time.monotonic()
    if start(options, out).wait():
        with open(out + ".log", encoding="utf-8") as log:
            sys.exit("the run does not go on:\n" + log.read()[-4000:])
    return time.monotonic() - began


def left(out):
    """Names of the files that a killed run left."""
    return sorted(os.path.relpath(os.path.join(where, name), out) for where, _, names in os.walk(out)
                  for name in names)


def differences(first, second):
    """Largest difference of the weights, and of z in standard deviations."""
    with np.load(os.path.join(first, "model",
                              "weights.npz")) as a, np.load(os.path.join(second, "model",
                                                                         "weights.npz")) as b:
        weights = max(np.abs(a[name] - b[name]).max() for name in a.files)
    a, b = (Latents.load(folder).z for folder in (first, second))
    return weights, np.abs(a - b).max() / a.std()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--particles", required=True)
    parser.add_argument("--gmm", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, worst = np.random.default_rng(options.seed), 0.0
    with tempfile.TemporaryDirectory() as folder:
        whole = os.path.join(folder, "whole")
        seconds = finish(options, whole)
        print("left alone: %.1f s" % seconds, flush=True)
        for i, moment in enumerate(rng.uniform(0, seconds, options.kills)):
            out = os.path.join(folder, "killed%02d" % i)
            process = start(options, out)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.wait()
            files = left(out)
            finish(options, out)
            weights, z = differences(whole, out)
            worst = max(worst, weights, z)
            print("killed after %4.1f s (left: %s): weights differ by %.1e, z by %.1e" % (
                moment, ", ".join(files) or "nothing", weights, z), flush=True)
    print("%d of %d runs went on; the largest difference is %.1e" % (options.kills, options.kills, worst))
    return int(worst > ROUNDING)


if __name__ == "__main__":
    sys.exit(main())
