"""How fast and how large a training step is, beside the bare matrix product and the paper's dense formula, in
one run.

    python bench/speed.py [--gaussians 512,2048,8192,20000] [--boxes 64,128,256] [--batch 32] [--seconds 1]

Every row is a process of its own, on made-up particles and a made-up molecule that uses every Fourier ring.
Columns: CPU milliseconds per particle; particles per second; memory above what the process held before (MB).
Rows:

    bare       three batched products [2m+2, N] [N, 2m+2], as a projection by matrix product and its two
               gradients need at the least
    project    value and gradients (positions, amplitudes) of the projector: local, separable, dense
    step       the whole training step: observation, encoder, decoder, projection, agreement, gradients,
               optimizer; with each projector

'dense' is the paper's formula, each Gaussian a full image, written plainly in TensorFlow; it takes as many
particles at once as fit into --dense-memory. `of bare` is bare's CPU time over the row's, `of dense` the
dense row's over the row's. At N=2,048 and 128 px the step is also compared with EMAN2's programs: their CPU
times, measured on a machine whose bare product ran at 106 GFLOP/s, scaled by the rate found here.
"""
import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from gmmhet.engine.batching.batches import ParticleBatch
from gmmhet.engine.batching.devices import Devices
from gmmhet.engine.config import TrainConfig
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.imaging import projection
from gmmhet.engine.imaging.ctf import CTF_COLUMNS
from gmmhet.engine.imaging.fourier import FourierGrid
from gmmhet.engine.imaging.pose import random_rotations
from gmmhet.engine.imaging.pose_change import Pose
from gmmhet.engine.likelihood.agreement import Agreement, NoiseEstimate
from gmmhet.engine.model.heterogeneity_model import HeterogeneityModel
from gmmhet.engine.model.settings import ModelSettings
from gmmhet.engine.objective.description_length import DescriptionLength
from gmmhet.engine.objective.elbo import Elbo
from gmmhet.engine.training.optimizer_step import Objective, OptimizerStep, StepKind

PROJECTORS = ("local", "separable", "dense")
#: GFLOP/s of [256 x 2048] [2048 x 130] where EMAN2 was timed, and CPU ms per particle there (N = 2,048, 128
#: px, batch 32; refine: 8)
EMAN2_RATE = 106.0
EMAN2 = {"e2gmm_refine (dense)": 290.0, "e2gmm_refine_new": 27.0, "e2gmm_refine_jax": 33.0,
         "e2gmm_refine_point (no width)": 9.0}


def dense(xy, amplitudes, widths, grid):
    """Projections with every Gaussian a full image: exp(-2 pi^2 s^2 k^2 - 2 pi i k.x), then the sum over
    Gaussians."""
    kx, ky = grid.kx, grid.ky
    damping = tf.exp(-2 * np.pi**2 * widths[..., None, None] ** 2 * (kx**2 + ky**2)) * amplitudes[..., None,
                                                                                                  None]
    phase = 2 * np.pi * (kx * xy[..., 0, None, None] + ky * xy[..., 1, None, None])
    images = tf.reduce_sum(tf.stack([damping * tf.cos(phase), -damping * tf.sin(phase)], 2), 1)
    return images / (grid.pixel_size**2 * grid.box)


def timed(call, seconds):
    """Least CPU and wall seconds of a call, after one to warm up, over about `seconds`."""
    call()
    cpu, wall, started = [], [], time.monotonic()
    while time.monotonic() - started < seconds or len(cpu) < 3:
        c, w = time.process_time(), time.monotonic()
        call()
        cpu.append(time.process_time() - c)
        wall.append(time.monotonic() - w)
    return min(cpu), min(wall)


def memory(field):
    """VmHWM or VmRSS of this process, MB."""
    with open("/proc/self/status", encoding="utf-8") as f:
        return int(next(line for line in f if line.startswith(field)).split()[1]) / 1024


def molecule(count, box, rng):
    """A ball of Gaussians, 0.35 of the box in radius, as wide as a fit to 2 px makes them; 1 Å pixels."""
    direction = rng.normal(size=(count, 3))
    radius = 0.35 * box * rng.uniform(size=(count, 1)) ** (1 / 3)
    centers = direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius
    widths = 2 * 0.35 * np.exp(rng.normal(0, 0.2, count))
    return Mixture(np.float32(centers), np.ones(count, np.float32), np.float32(widths))


def bare(count, grid, batch):
    """Three batched products of the shapes of the matrix-product projector."""
    waves = tf.constant(np.random.default_rng(0).normal(size=(batch, count, 2 * grid.m + 2)), tf.float32)

    @tf.function
    def products():
        image = tf.matmul(waves, waves, transpose_a=True)
        slopes = tf.matmul(waves, image), tf.matmul(waves, image, transpose_b=True)
        return [tf.reduce_sum(part) for part in (image, *slopes)]
    return products


@contextlib.contextmanager
def projector(method):
    """Images are formed by this projector while functions are compiled; without one as the engine chooses."""
    kept = projection.project
    if method:
        projection.project = dense if method == "dense" else functools.partial(kept, method=method)
    try:
        yield
    finally:
        projection.project = kept


def projection_gradients(count, grid, batch):
    """Value and gradients of the projector."""
    rng = np.random.default_rng(0)
    mixture, pose = molecule(count, grid.box, rng), Pose(*map(tf.constant, random_poses(batch, rng)))
    centers, amplitudes = tf.tile(tf.constant(mixture.centers)[None], [batch, 1, 1]), tf.ones([batch, count])
    moving = projection.MixtureBatch(centers, amplitudes, tf.constant(mixture.widths))
    upstream = tf.constant(rng.normal(size=(batch, 2) + grid.shape), tf.float32)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch([centers, amplitudes])
            value = tf.reduce_sum(upstream * projection.project_mixture(moving, pose, grid))
        return tape.gradient(value, [centers, amplitudes])
    return gradients


def random_poses(batch, rng):
    """Rotations [B, 3, 3] and shifts [B, 2]."""
    return np.float32(random_rotations(batch, rng)), np.float32(rng.normal(0, 2, (batch, 2)))


def step(count, grid, batch):
    """One whole training step, default settings, by all rings and one draw of z."""
    rng, config = np.random.default_rng(0), TrainConfig(epochs=1)
    agreement = Agreement(grid, "likelihood", 0.9 * grid.box, NoiseEstimate(np.ones(grid.m + 2), 1.0))
    settings = ModelSettings(tuple(config.vary.split(",")), agreement.state(), config.latent_dim,
                             config.smoothness, removes_rigid_motion=True)
    model = HeterogeneityModel(molecule(count, grid.box, rng), np.ones(count, bool), settings)
    elbo, description = Elbo(model, agreement, config.amplitude_cost), DescriptionLength(model)
    objective = Objective(elbo, elbo, description, model.settings.network.description_weight, batch)
    optimizer_step = OptimizerStep(model, objective, None, config, 1, Devices())
    ctf = dict.fromkeys(CTF_COLUMNS, 0.0)
    ctf.update(defocus_u_angst=15000, defocus_v_angst=15000, voltage_kv=300, cs_mm=2.7,
               amplitude_contrast=0.1, scale=1)
    arrays = ParticleBatch(
        rng.normal(size=(batch, grid.box, grid.box)), *random_poses(batch, rng),
        np.tile(list(ctf.values()), (batch, 1)), np.ones(batch),
        features=rng.normal(size=(batch, 1, model.encoder.n_features)),
        noise=rng.normal(size=(batch, 1, config.latent_dim)), weight=np.full(batch, 1 / batch))
    tensors = ParticleBatch(**{name: tf.constant(a, tf.float32) for name, a in arrays.present.items()})
    return lambda: optimizer_step(StepKind(False, False, False), batch, tensors, 1.0)


def measure(case):
    """One row, in this process: dict with cpu and wall (ms per particle) and memory (MB)."""
    count, box, what, method = case["gaussians"], case["box"], case["what"], case["method"]
    grid, batch = FourierGrid.to_resolution(box, 1.0), case["batch"]
    if method == "dense":
        # value, phase, damping, both waves and their gradients: about ten full images per Gaussian
        image = 4 * grid.shape[0] * grid.shape[1] * count * 10
        batch = min(batch, int(case["dense_memory"] * 2**30 // image))
        if not batch:
            sys.exit("%s dense left out: one particle takes about %.0f GB" % (what, image / 2**30))
    tf.linalg.matmul(tf.ones([256, 256]), tf.ones([256, 256]))
    before = memory("VmRSS")
    if what == "rate":
        a, b = tf.random.normal([256, 2048]), tf.random.normal([2048, 130])
        cpu, wall = timed(lambda: [tf.matmul(a, b) for _ in range(50)], case["seconds"])
        flops = 50 * 2 * 256 * 2048 * 130
        return dict(rate=flops / wall / 1e9, rate_cpu=flops / cpu / 1e9)
    with projector(method):
        call = dict(bare=bare, project=projection_gradients, step=step)[what](count, grid, batch)
        cpu, wall = timed(call, case["seconds"])
    return dict(cpu=cpu / batch * 1e3, wall=wall / batch * 1e3, memory=memory("VmHWM") - before, batch=batch)


def run(case):
    """`measure` in a process of its own; None when it died (memory)."""
    done = subprocess.run([sys.executable, __file__, "--case", json.dumps(case)], capture_output=True,
                          text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        print("(%s)" % (done.stderr.strip().splitlines() or ["killed"])[-1])
    return json.loads(lines[-1]) if lines else None


def table(args):
    """Print all rows."""
    common = dict(batch=args.batch, seconds=args.seconds, dense_memory=args.dense_memory)
    rate = run(dict(common, gaussians=1, box=64, what="rate", method=""))
    cores = len(os.sched_getaffinity(0))
    print("bare product [256 x 2048] [2048 x 130]: %.0f GFLOP/s on %d cores, %.0f per core-second; batch %d"
          % (rate["rate"], cores, rate["rate_cpu"], args.batch))
    for box in args.boxes:
        for count in args.gaussians:
            print("\nN = %d, %d px\n%-20s %10s %12s %9s %9s %9s" % (count, box, "", "CPU ms", "particles/s",
                                                                    "MB", "of bare", "of dense"))
            rows = {}
            projectors = PROJECTORS[:2] if args.no_dense else PROJECTORS
            for what, method in [("bare", "")] + [(w, m) for w in ("project", "step") for m in projectors]:
                rows[what, method] = run(dict(common, gaussians=count, box=box, what=what, method=method))
            for (what, method), row in rows.items():
                if row:
                    reference = rows.get((what, "dense"))
                    print("%-20s %10.3f %12.0f %9.0f %9.2f %9s" % (
                        ("%s %s" % (what, method)).strip(), row["cpu"], 1e3 / row["wall"], row["memory"],
                        rows["bare", ""]["cpu"] / row["cpu"], "%.1f" % (reference["cpu"] / row["cpu"])
                        if reference else ""), flush=True)
            if (count, box) == (2048, 128) and rows["step", "local"]:
                speed = rate["rate_cpu"] * 2 / EMAN2_RATE
                print("EMAN2's CPU time over that of 'step local', scaled to this machine's product: "
                      + ", ".join(
                    "%s %.1f" % (name, ms / speed / rows["step", "local"]["cpu"])
                    for name, ms in EMAN2.items()))


def whole_numbers(text):
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=whole_numbers, default=[512, 2048, 8192, 20000])
    parser.add_argument("--boxes", type=whole_numbers, default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each row, at least")
    parser.add_argument("--dense-memory", type=float, default=6.0, help="GB that the dense formula may take")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense formula out")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        print(json.dumps(measure(json.loads(chosen.case))))
    else:
        table(chosen)
