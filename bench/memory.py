"""Peak memory of `gmmhet train` for sets of several sizes: does it grow with the number of particles?

    python bench/memory.py [--sizes 20000 200000] [--box 64] [--folder DIR]

Each set has as many images on disk as particles. A few thousand are simulated and lie evenly in a sparse
stack; the others are empty, which costs the same to read, to hold and to compute. One epoch is trained with
the default networks. The peak is the kernel's (VmHWM), less that of the interpreter with everything imported.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIMULATED = 2000

MEASURE = """
import json, sys
import gmmhet.engine.stages.train
from gmmhet.engine.cli import main
def peak():      # most memory that this process has held, MB
    with open("/proc/self/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024
imported = peak()
status = main(sys.argv[1:])
print(json.dumps(dict(imported=imported, peak=peak())))
sys.exit(status)
"""


def engine(*arguments, code=None):
    """Run the engine in its own process; its last line of output."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "gmmhet.engine.cli"]), *map(str, arguments)]
    done = subprocess.run(command, env=dict(os.environ, PYTHONPATH=ROOT), capture_output=True, text=True,
                          check=False)
    if done.returncode:
        sys.exit("%s failed:\n%s%s" % (" ".join(command[:4]), done.stdout, done.stderr[-4000:]))
    return done.stdout.splitlines()[-1] if done.stdout else ""


def sparse_set(folder, source, n, box):
    """A star file of n particles and their stack, in which the simulated images of `source` recur at equal
    distances."""
    header = np.fromfile(os.path.join(source, "particles.mrcs"), np.uint8, 1024)
    header[8:12] = np.frombuffer(np.int32(n).tobytes(), np.uint8)
    images = np.memmap(os.path.join(source, "particles.mrcs"), np.float32, "r", 1024, (SIMULATED, box, box))
    step = n // SIMULATED
    with open(os.path.join(folder, "particles.mrcs"), "wb") as stack:
        stack.write(header.tobytes())
        for i, image in enumerate(images):
            stack.seek(1024 + i * step * image.nbytes)
            stack.write(image.tobytes())
        stack.truncate(1024 + n * images[0].nbytes)
    with open(os.path.join(source, "particles.star"), encoding="utf-8") as star:
        lines = star.read().splitlines()
    first = next(i for i, line in enumerate(lines) if "@" in line)
    rows = [line.split() for line in lines[first:first + SIMULATED]]
    labels = [line.split()[0] for line in lines[:first] if line.startswith("_")][-len(rows[0]):]
    name, number = labels.index("_rlnImageName"), labels.index("_rlnImageId")
    with open(os.path.join(folder, "particles.star"), "w", encoding="utf-8") as star:
        star.write("\n".join(lines[:first]) + "\n")
        for i in range(n):
            row = list(rows[(i // step) % SIMULATED])
            row[name], row[number] = "%06d@particles.mrcs" % (i + 1), str(i + 1)
            star.write(" ".join(row) + "\n")


def measure(folder, n, box, resolution, source, fit):
    """Peak memory (MB) above the imported interpreter's, and the interpreter's, of one epoch on n
    particles."""
    place = os.path.join(folder, "n%d" % n)
    os.makedirs(place)
    sparse_set(place, source, n, box)
    star, out = os.path.join(place, "particles.star"), os.path.join(place, "run")
    told = json.loads(engine("train", "--particles", star, "--gmm", fit, "--out", out, "--epochs", 1,
                             "--latent-dim", 1,
                             "--latent-steps", 0, "--resolution", resolution, "--gpus", "none", code=MEASURE))
    return dict(particles=n, above_imports_mb=told["peak"] - told["imported"], imports_mb=told["imported"],
                images_mb=n * box * box * 4 / 2**20,
                features_mb=os.path.getsize(os.path.join(out, "work", "gradients.npy")) / 2**20,
                star_mb=os.path.getsize(os.path.join(place, "particles.star")) / 2**20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20000, 200000],
                        help="numbers of particles, multiples of %d" % SIMULATED)
    parser.add_argument("--box", type=int, default=64, help="px")
    parser.add_argument("--gaussians", type=int, default=100, help="Gaussians of the neutral model")
    parser.add_argument("--resolution", type=float, default=48,
                        help="Å; coarse is quick, and as telling about the number of particles")
    parser.add_argument("--folder",
                        help="an empty or new folder for the sets (default: a temporary one, removed at the "
                             "end)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, fit = os.path.join(folder, "source"), os.path.join(folder, "fit")
        engine("simulate", "--out", source, "--kind", "hinge", "--n", SIMULATED, "--box", options.box,
               "--pixel-size", 256 / options.box,
               "--snr", 0.1)
        engine("fit", "--out", fit, "--map", os.path.join(source, "map.mrc"), "--n-gaussians",
               options.gaussians, "--steps", 60)
        for n in options.sizes:
            found = measure(folder, n, options.box, options.resolution, source, fit)
            print(json.dumps({name: round(value, 1) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
