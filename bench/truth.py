"""What fit and train recover of systems whose truth is known, beside what anybody could (the oracle).

    python bench/truth.py --data DIR [--sets igg,assembly,mixed,domains,c3,d3,states,bodies,null]
                          [--box 64] [--n 10000] [--seeds 1] [--poses true,2deg,relion]
                          [--presets default,paper] [--bodies] [--continued] [--refine] [--out DIR]
                          [--set-param key=value ...] [--resume]

DIR holds 1hzh.pdb.gz (an IgG), the 50S cut into RNA*.pdb.gz and prots*.pdb.gz, and ctf_*.npz (CTF values of
real particles). Sets of atomic models are simulated in a box of 384 Å; all are reconstructed with the poses
that are given, fitted and trained. Simulated sets, poses and the oracle's answer are kept in --out.

Sets of atomic models: igg, one Fab turns by ±25°; assembly, the 50S in five states; mixed, the same and the
central protuberance tilts by 8° from end to end in the particles that have it (two stages: amplitudes, then
positions in a neutral model of those particles); domains, an IgG with both Fabs turning; c3, one unit of
three moves; d3, one of six. Sets of real density, in folders of their own in DIR: states, ten maps of a
ribosome along its assembly; bodies, a spliceosome of which two bodies turn. Their images are RELION's
projections of the maps, in the maps' own box, and their consensus is relion_reconstruct's. null: each of the
others again with all its particles at rest. The oracle knows the true poses, whatever poses the run was
given, and looks at the rings up to fit.resolution. With --bodies train is told which Gaussians belong to what
can move, and moves each such domain as a rigid body (not assembly).

Columns, in which a/b is ours, then the oracle's figure: info, R2 of the angle from z as a fraction of the
oracle's; rank, same for the first axis' rank correlation; ARI, same for the adjusted Rand index of the states
with the clusters of analyze, as many as states; near, share of the particles whose state is that of most of
their 25 neighbours in z, as a fraction of those whose state the oracle names; unit, same for which unit
moves, taken as the one whose image is least that of the largest of three clusters of analyze; angle, R2 of
the angle that decoded Gaussians show, no regression, as a fraction of the oracle's; rms, its error in
degrees; end, bias in degrees at the two ends of the population: ours where the tenths at the ends are chosen
by the decoded angle, ours where by the true one, and the oracle's there; coord, error of the moving Gaussians
in Å, then the oracle's and that of a model at rest; FSC, mean inside the moving region, with the true map of
one state, of the consensus, of the tenth of the particles nearest to that state in z, and of those truly
nearest; evidence, nats a held-out particle over a single model, ours and the oracle's over the mean density
(in the second stage of the mixed set of each particle's own state); ceiling, evidence that the fitted
Gaussians could have at best, share of what differs in the maps that they can express, and share of the
particles whose state they then name; own, share of the squared displacement along the first localised
direction of each mover that is this mover's; null, spurious motion in Å (amplitude where only that varies)
and as a share of the real set's; verdicts of the real set and of the null; seconds of fit and training;
particles trained on a second.
"""
import argparse
import ast
import contextlib
import dataclasses
import glob
import json
import os
import shutil
import subprocess
import sys
import time

import density
import numpy as np
from ceiling import explained_variance, represented
from measures import (
    estimates,
    evidence,
    evidence_scores,
    likelihoods,
    motion_scores,
    own_motion,
    region_fsc,
    rms,
    spurious,
    state_scores,
)
from scipy.spatial.transform import Rotation
from scipy.special import softmax
from systems import NAMES, make

from gmmhet.engine import rundir
from gmmhet.engine.config import (
    AnalyzeConfig,
    FitConfig,
    ReconstructConfig,
    RefineConfig,
    TrainConfig,
    from_dict,
)
from gmmhet.engine.gmm.mixture import Mixture
from gmmhet.engine.gmm.regions import asymmetric_unit
from gmmhet.engine.imaging.pose import angular_distance_deg
from gmmhet.engine.latents import Latents
from gmmhet.engine.log import progress
from gmmhet.engine.model.saved import load_model
from gmmhet.engine.model.settings import PRESETS
from gmmhet.engine.particles.metadata import ParticleMetadata, write_particles
from gmmhet.engine.particles.particle_set import read_particles
from gmmhet.engine.simulate.images import CHUNK, SimulatedSet, draw_poses, noisy_images
from gmmhet.engine.stages.runner import run_stage

EDGE_ANGST, SHIFT_ANGST = 384.0, 6.0
#: sets of mixtures, and of real density
ALL_NAMES = (*NAMES, *density.NAMES)
#: parameters of training that a set needs; all others are defaults
TRAINING = {"mixed": dict(vary="amplitude")}
COLUMNS = (("set", 8), ("poses", 11), ("preset", 7), ("seed", 4), ("info", 11), ("rank", 11), ("ARI", 11),
           ("near", 11), ("unit", 11), ("angle", 11), ("rms°", 10), ("end°", 14), ("coord Å", 14),
           ("FSC", 14), ("evidence", 11), ("ceiling", 14), ("own", 9), ("null", 12), ("verdict", 9),
           ("s fit", 6), ("s train", 7), ("1/s", 5))


def real_ctf(folder, n, rng):
    """CTF parameters [n, 9] of real particles, drawn at random."""
    with np.load(min(glob.glob(os.path.join(folder, "ctf_*.npz")))) as data:
        table = data["ctf"]
    chosen = table[rng.integers(0, len(table), n)]
    return np.concatenate([chosen, np.zeros((n, 2)), np.ones((n, 1))], 1).astype(np.float32)


@dataclasses.dataclass
class Case:
    """A simulated set: its folder, system (scaled so that the noise has variance 1), true coordinates, poses,
    and the oracle's answer."""

    folder: str
    system: object
    coordinates: np.ndarray
    rotation: np.ndarray
    shift_angst: np.ndarray
    oracle: dict

    def path(self, *names):
        return os.path.join(self.folder, *names)


def simulate(folder, system, options, seed):
    """Make a set, or take the one that an earlier call left in the folder."""
    truth, star = os.path.join(folder, rundir.TRUTH), os.path.join(folder, rundir.STAR)
    if not os.path.exists(truth):
        os.makedirs(folder, exist_ok=True)
        rng = np.random.default_rng([seed, 1])
        rotation, shift = draw_poses(options.n, SHIFT_ANGST, rng)
        ctf, half = real_ctf(options.data, options.n, rng), 1 + rng.permutation(options.n) % 2
        coordinates = system.draw(options.n, rng)
        if isinstance(system, density.MapSystem):
            pixel_size = system.pixel_size
            made = density.project(system, coordinates, rotation, shift, ctf)
        else:
            pixel_size = EDGE_ANGST / options.box
            made = SimulatedSet(system, coordinates, rotation, shift, ctf, options.box, pixel_size)
        sigma, chunks = noisy_images(made, signal_to_noise(system, options), seed)
        write_particles(star, os.path.join(folder, rundir.STACK),
                        (chunk / np.float32(sigma)
                         for chunk in progress(chunks, -(-options.n // CHUNK), "images")),
                        ParticleMetadata(rotation, shift, ctf, half=half), pixel_size)
        with rundir.whole_file(truth) as file:
            np.savez(file, coordinates=coordinates, rotation=rotation, shift_angst=shift, sigma=sigma)
    with np.load(truth) as data:
        known, coordinates = system.over(float(data["sigma"])), data["coordinates"]
        resolution = float(options.fit.get("resolution", 0))
        kept = os.path.join(folder, "oracle_%g.npz" % resolution)
        answer = answered(known, star, coordinates, resolution, kept)
        return Case(folder, known, coordinates, data["rotation"], data["shift_angst"], answer)


def signal_to_noise(system, options):
    """Signal to noise of a set: what is asked for, else its own."""
    return options.snr or density.SNR.get(system.name.split()[0], 0.04 if options.box <= 64 else 0.01)


def answered(system, star, coordinates, resolution, path=None):
    """What a system that knows itself says of the particles by the rings up to a resolution (Å; 0 for all):
    state, angles and evidence of each (see `estimates` and `evidence`); kept in the file `path`."""
    if path is None or not os.path.exists(path):
        grid, log_p, single = likelihoods(system, read_particles(star), resolution_angst=resolution)
        answer = dict(estimates(system, grid, softmax(log_p, axis=1)),
                      evidence=evidence(system, grid, log_p, single, coordinates[:, 0].astype(int)))
        if path is None:
            return answer
        with rundir.whole_file(path) as file:
            np.savez(file, **answer)
    with np.load(path) as data:
        return dict(data)


def ceiling(case, star, run):
    """What the neutral Gaussians of a run could express of the truth at best: evidence of the particles held
    out, share of the variance and, of several states, share of the particles whose state they name."""
    particles, model = read_particles(star), run["model"]
    family = represented(case.system, model.neutral, particles, model.likelihood.grid.m)
    resolution = run["summary"]["resolution_angst"]
    answer = answered(family, case.path(rundir.STAR), case.coordinates, resolution)
    row = np.unique(run["latents"].ids[run["latents"].held_out]) - 1
    found = [float(answer["evidence"][row, 0].mean()), explained_variance(family)]
    if len(case.system.states) > 1:
        found.append(float(np.mean(answer["state"] == case.coordinates[:, 0])))
    return found


def pose_name(poses, options):
    """The poses that are asked for, with the errors that they start with, for names of files and folders."""
    return poses if poses == "true" else "%s_%g_%g" % (poses, *options.pose_error)


def posed(case, poses, options, seed):
    """Star file of the particles with the poses that are asked for; kept from an earlier call."""
    if poses == "true":
        return case.path(rundir.STAR)
    star, (degrees, pixels) = case.path("poses_%s.star" % pose_name(poses, options)), options.pose_error
    if not os.path.exists(star):
        particles, rng = read_particles(case.path(rundir.STAR)), np.random.default_rng([seed, 5])
        turns = Rotation.from_rotvec(rng.normal(0, np.radians(degrees) / np.sqrt(3),
                                                (len(particles), 3))).as_matrix()
        shift = case.shift_angst + rng.normal(0, pixels * particles.pixel_size / np.sqrt(2),
                                              (len(particles), 2))
        particles = particles.with_poses(turns @ case.rotation.astype(float), shift)
        if poses == "relion":
            particles = refined_by_relion(particles, case, options)
        particles.write_star(star)
    return star


def refined_by_relion(particles, case, options):
    """Local 3D auto-refinement from given poses and their consensus map, both by RELION; a minute a thousand
    particles of 64 px on a free core."""
    folder = case.path("relion")
    os.makedirs(folder, exist_ok=True)
    start, reference = os.path.join(folder, "start.star"), os.path.join(folder, "start.mrc")
    particles.write_star(start)
    symmetry = ["--sym", case.system.symmetry.upper()]
    commands = [["relion_reconstruct", "--i", start, "--o", reference, "--ctf", *symmetry],
                ["mpirun", "--oversubscribe", "-n", "3", "relion_refine_mpi", "--auto_refine",
                 "--split_random_halves",
                 "--o", os.path.join(folder, "run"), "--i", start, "--ref", reference, "--ini_high", "25",
                 "--ctf",
                 "--particle_diameter", "%g" % (0.9 * EDGE_ANGST), "--flatten_solvent",
                 "--zero_mask", "--norm", "--scale", "--healpix_order", "4",
                 "--auto_local_healpix_order", "4", "--sigma_ang", "%g" % options.pose_error[0],
                 "--offset_range", "5",
                 "--offset_step", "2", "--pad", "1", "--pool", "30", "--dont_combine_weights_via_disc",
                 "--preread_images", *symmetry]]
    called(commands, os.path.join(folder, rundir.LOG), OMPI_ALLOW_RUN_AS_ROOT="1",
           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    found = read_particles(os.path.join(folder, "run_data.star"))
    rows = found.rows_of(particles.ids)
    return particles.with_poses(found.rotation[rows], found.shift_angst[rows])


def fresh(path):
    """The path of a run that is to be made again."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def train(case, star, gmm, out, preset, seed, options, **flags):
    """A train run; its folder, summary and figures of time."""
    began, resume = time.monotonic(), options.resume and os.path.exists(out)
    run = run_stage(TrainConfig(particles=star, gmm=gmm, out=out if resume else fresh(out), seed=seed,
                                preset=preset, resume=resume, **{**flags, **options.train}))
    with open(run(rundir.HISTORY), encoding="utf-8") as f:
        rows = [line.split(",") for line in f.read().split()]
    seconds = sum(float(row[rows[0].index("seconds")]) for row in rows[1:])
    latents = Latents.load(out)
    trained = len(rows[1:]) * len(latents)
    return dict(folder=out, model=load_model(out), latents=latents, summary=run.read_summary(),
                epochs=len(rows) - 1, seconds=time.monotonic() - began, per_second=trained / seconds)


def fitted(case, star, folder, seed, options):
    """Consensus map of the particles and the neutral model of it; seconds of the fit."""
    out, began = os.path.join(folder, "fit"), time.monotonic()
    if options.resume and os.path.exists(os.path.join(out, rundir.SUMMARY)):
        return out, time.monotonic() - began
    if isinstance(case.system, density.MapSystem):
        consensus = reconstructed_by_relion(star, fresh(os.path.join(folder, "consensus")))
    else:
        consensus = run_stage(ReconstructConfig(particles=star, out=fresh(os.path.join(folder, "consensus")),
                                                symmetry=case.system.symmetry, seed=seed))(rundir.MAP)
    began = time.monotonic()
    run_stage(FitConfig(map=consensus, out=fresh(out), seed=seed, **options.fit))
    return out, time.monotonic() - began


def reconstructed_by_relion(star, folder):
    """Path of the map that RELION makes of particles at their poses."""
    os.makedirs(folder)
    path, own = os.path.join(folder, rundir.MAP), os.path.join(folder, rundir.STAR)
    read_particles(star).write_star(own)                              # names the stack from where we are
    called([["relion_reconstruct", "--i", own, "--o", path, "--ctf"]], os.path.join(folder, rundir.LOG))
    return path


def called(commands, log, **environment):
    """Run commands one after another, with what they say in the file `log`; ends the program when one
    fails."""
    with open(log, "wb") as file:
        for command in commands:
            if subprocess.run(command, check=False, stdout=file, stderr=file,
                              env=dict(os.environ, **environment)).returncode:
                sys.exit("%s failed: see %s" % (command[0], log))


def learned(case, star, gmm, folder, preset, seed, options):
    """The train runs of a set: one, or two for the mixed set, whose second one moves the protuberance in the
    particles that kept it."""
    name = case.system.name.split()[0]
    told = bodies(case, gmm, folder) if options.bodies and case.system.movers and name != "mixed" else {}
    first = train(case, star, gmm, os.path.join(folder, "train_" + preset), preset, seed, options,
                  symmetry=case.system.symmetry, **TRAINING.get(name, {}), **told)
    if not case.system.name.startswith("mixed"):
        return [first]
    return [first, second_stage(case, star, gmm, first, folder, preset, seed, options)]


def bodies(case, gmm, folder):
    """Flags of a training that moves every mover as a rigid body; of a symmetric set the one in the
    asymmetric unit."""
    neutral, group = Mixture.load(os.path.join(gmm, rundir.GMM)), case.system.symmetry
    owner = case.system.owners(neutral.centers) * (asymmetric_unit(neutral.centers, neutral.amplitudes, group)
                                   if group != "c1" else 1)
    mass = np.bincount(owner, neutral.amplitudes, 1 + len(case.system.movers))[1:]
    files = []
    for number in range(1, 1 + len(mass)) if group == "c1" else [1 + np.argmax(mass)]:
        files.append(os.path.join(folder, "body_%d.txt" % number))
        np.savetxt(files[-1], 1 + np.flatnonzero(owner == number), "%d")
    return dict(vary="position", region=";".join(files), rigid=True)


def second_stage(case, star, gmm, first, folder, preset, seed, options):
    """Positions of the protuberance, on the particles whose decoded model has at least half of it: from a
    neutral model of their own, or with --continued from what the first stage found of each."""
    mine = case.system.owners(first["model"].neutral.centers) == 1
    z = first["latents"].z
    mass = np.concatenate([first["model"].decode(z[i:i + 256])[1][:, mine].sum(1)
                           for i in range(0, len(z), 256)])
    kept = np.sort(first["latents"].ids[mass > 0.5 * np.percentile(mass, 95)])
    folder = os.path.join(folder, ("continued_" if options.continued else "subset_") + preset)
    os.makedirs(folder, exist_ok=True)
    region = os.path.join(folder, "region.txt")
    flags = dict(vary="position", region=region, rigid=options.bodies)
    if options.continued:
        flags.update(ids=os.path.join(folder, "ids.txt"), continue_from=first["folder"])
        np.savetxt(flags["ids"], kept, "%d")
    else:
        particles, star = read_particles(star), case.path(os.path.basename(star)[:-5]
                                                          + "_subset_%s.star" % preset)
        particles.select(particles.rows_of(kept)).write_star(star)
        gmm, _ = fitted(case, star, folder, seed, options)
    np.savetxt(region,
               1 + np.flatnonzero(
                   case.system.owners(Mixture.load(os.path.join(gmm, rundir.GMM)).centers) == 1), "%d")
    return train(case, star, gmm, os.path.join(folder, "train"), preset, seed, options, **flags)


def landscape(case, run):
    """What analyze reads from a run: the arrays of its embedding.npz. Clusters: one a state; of a symmetric
    set rest and two ends."""
    clusters = len(case.system.states) if case.system.symmetry == "c1" else 3
    found = run_stage(AnalyzeConfig(model=run["folder"], clusters=clusters, points=2,
                                    out=fresh(run["folder"] + "_read")))
    with np.load(found(rundir.EMBEDDING)) as data:
        return dict(data)


def localised(case, run):
    """Share of the motion along the first localised direction of each mover that is the mover's own."""
    owner, shares = case.system.owners(run["model"].neutral.centers), []
    for number in range(1, 1 + len(case.system.movers)):
        region = run["folder"] + "_body_%d.txt" % number
        np.savetxt(region, 1 + np.flatnonzero(owner == number), "%d")
        out = fresh("%s_motion_%d" % (run["folder"], number))
        found = run_stage(AnalyzeConfig(model=run["folder"], points=2, assign_by="latent", line="motion1",
                                        motion_region=region, out=out))
        with np.load(found(rundir.DIRECTIONS)) as data:
            line = list(data["names"]).index("motion1")
            origin, reach, vector = (data[name][line] for name in ("origins", "percentiles", "vectors"))
        ends = origin + reach[:, None] * vector                                                     # [2, D]
        shares.append(own_motion(run["model"], ends, owner == number))
    return shares


def measured(case, star, poses, gmm, fit_seconds, preset, seed, options, null):
    """One row of the table; `null` is the null's Case and its train runs, or None."""
    folder = os.path.dirname(gmm)
    runs = learned(case, star, gmm, folder, preset, seed, options)
    particles = read_particles(star)
    row = dict(set=case.system.name, poses=poses, preset=preset, seed=seed, particles=len(particles),
               box=particles.box, snr=signal_to_noise(case.system, options),
               epochs=[r["epochs"] for r in runs], gaussians=len(runs[0]["model"].neutral),
               pose_error_deg=rms(angular_distance_deg(case.rotation.astype(float),
                                                       particles.rotation.astype(float))),
               pose_error_angst=rms(np.linalg.norm(particles.shift_angst - case.shift_angst, axis=1)),
               fit_seconds=fit_seconds,
               train_seconds=sum(r["seconds"] for r in runs), particles_per_second=runs[0]["per_second"],
               summaries=[r["summary"] for r in runs])
    shown = None
    if len(case.system.states) > 1:
        runs[0]["landscape"] = landscape(case, runs[0])
    if len(case.system.states) > 1 and case.system.symmetry == "c1":
        found, shown = state_scores(case, runs[0])
        row.update(found)
    if case.system.movers:
        found, shown = motion_scores(case, runs[-1])
        row.update(found)
    row["evidence"] = evidence_scores(case, runs[-1], len(runs) > 1)
    if len(runs) == 1 and case.system.symmetry == "c1":
        row["ceiling"] = ceiling(case, star, runs[0])
    if isinstance(case.system, density.MapSystem) and case.system.movers:
        row["own"] = localised(case, runs[0])
    row["fsc"] = region_fsc(case, star, runs[-1], shown)
    if null:
        row.update(spurious=spurious(null, runs, case.system.name),
                   null_summaries=[r["summary"] for r in null])
    return row, runs


def said(row):
    """A row as the table prints it."""
    def share(name):
        return "%.3f/%.3f" % (row[name][0] / row[name][1], row[name][1]) if name in row else "-"

    def plain(name, form="%.2f"):
        return "/".join(form % v for v in row[name]) if row.get(name) else "-"

    def verdicts(name):
        return "/".join("yes" if s["verdict"].startswith("Heterogeneity supported") else "no"
                        for s in row[name]) if name in row else "-"
    null = "-"
    if "spurious" in row:
        s = row["spurious"]
        null = "%.2g %s %.1f%%" % (s["null"], s["of"][:3], 100 * s["null"] / s["real"])
    cells = [row["set"], row["poses"], row["preset"], row["seed"],
             share("info"), share("rank"), share("ari"), share("neighbours"), share("unit"),
             share("angle_r2"), plain("angle_rms_deg"), plain("end_bias_deg"),
             plain("coordinate_error_angst"), plain("fsc").replace("0.", "."), plain("evidence", "%.3g"),
             plain("ceiling", "%.3g").replace("0.", "."), plain("own"), null,
             verdicts("summaries") + "|" + verdicts("null_summaries"), "%.0f" % row["fit_seconds"],
             "%.0f" % row["train_seconds"], "%.0f" % row["particles_per_second"]]
    return " ".join("%-*s" % (width, cell) for (_, width), cell in zip(COLUMNS, cells))


def refined(case, run, out):
    """Star file with the poses that the refine stage finds for a run."""
    return run_stage(RefineConfig(model=run["folder"], particles=run["model"].particles_path,
                                  out=fresh(out)))(rundir.STAR)


def rows_of(name, seed, options, report):
    """All rows of a set: every kind of poses, every preset, and each again with poses refined by the engine
    where asked."""
    system = (density.make if name in density.NAMES else make)(name, options.data)
    box, snr = getattr(system, "box", options.box), signal_to_noise(system, options)
    folder = os.path.join(options.out, "%s_%dpx_n%d_snr%g_seed%d" % (name, box, options.n, snr, seed))
    cases = [simulate(os.path.join(folder, "real"), system, options, seed)]
    if options.null:
        cases.append(simulate(os.path.join(folder, "null"), system.null(), options, seed))
    for poses in options.poses:
        stars = [posed(case, poses, options, seed) for case in cases]
        for preset in options.presets:
            for again in range(2 if options.refine and system.symmetry == "c1" else 1):
                label, kept_in = (words + again * "+refine" for words in (poses, pose_name(poses, options)))
                models = [fitted(case, star, case.path(kept_in), seed, options)
                          for case, star in zip(cases, stars)]
                null = learned(cases[1], stars[1], models[1][0], cases[1].path(kept_in), preset, seed,
                               options) if options.null else None
                row, runs = measured(cases[0], stars[0], label, *models[0], preset, seed, options, null)
                report(row)
                if again == 0 and options.refine and system.symmetry == "c1":
                    stars = [refined(case, found[0], case.path(kept_in, "refine_" + preset))
                             for case, found in zip(cases, [runs, null])]


def read_options():
    """Command-line options; parameters of --set-param go to the train stage, those written fit.key=value to
    the fit stage."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the atomic models and CTF values")
    parser.add_argument("--sets", default=",".join(NAMES + ("null",)),
                        help="which sets, comma-separated (default: %(default)s)")
    parser.add_argument("--box", type=int, default=64, help="box in pixels")
    parser.add_argument("--n", type=int, default=10000, help="particles of a set")
    parser.add_argument("--snr", type=float, default=0.0,
                        help="signal to noise; 0 takes 0.04, or 0.01 above 64 px")
    parser.add_argument("--seeds", default="1", type=whole_numbers, help="seeds, comma-separated")
    parser.add_argument("--poses", default="true", help="some of true, 2deg, relion, comma-separated")
    parser.add_argument("--pose-error", default="2,2", type=two_numbers,
                        help="rms error of the poses 2deg and relion start with, in degrees and pixels")
    parser.add_argument("--presets", default="default", help="presets of train, comma-separated")
    parser.add_argument("--bodies", action="store_true",
                        help="tell train which Gaussians can move, and that they do so as rigid bodies")
    parser.add_argument("--continued", action="store_true",
                        help="the second stage of the mixed set goes on from the first, without a neutral "
                             "model of its own")
    parser.add_argument("--refine", action="store_true",
                        help="refine the poses after training, then fit and train again (not c3, d3)")
    parser.add_argument("--out", default="bench_out",
                        help="folder that keeps the simulated sets, the runs and results.json")
    parser.add_argument("--set-param", nargs="*", action="extend", default=[], metavar="KEY=VALUE",
                        help="parameters of train, or fit.KEY of fit; may be given several times")
    parser.add_argument("--resume", action="store_true",
                        help="go on with the fits and trainings that an earlier call of the same options "
                        "left in --out; the seconds are then those of what was left to do")
    options = parser.parse_args()
    for name in ("sets", "poses", "presets"):
        setattr(options, name, getattr(options, name).split(","))
    unknown = [*(v for v in options.sets if v not in (*ALL_NAMES, "null")),
               *(v for v in options.poses if v not in ("true", "2deg", "relion"))]
    if unknown:
        parser.error("unknown sets or poses: %s; sets are %s, null; poses are true, 2deg, relion"
                     % (", ".join(unknown), ", ".join(ALL_NAMES)))
    if not set(options.presets) <= set(PRESETS):
        parser.error("unknown presets: %s; presets are %s" % (", ".join(set(options.presets) - set(PRESETS)),
                                                              ", ".join(PRESETS)))
    if options.sets == ["null"]:
        parser.error("--sets null names the nulls of other sets: name these too")
    for name in set(options.sets) & set(density.NAMES):
        if not shutil.which("relion_project"):
            parser.error("--sets %s needs RELION (relion_project), which is not here" % name)
    if not glob.glob(os.path.join(options.data, "ctf_*.npz")):
        parser.error("--data %s holds no ctf_*.npz, the CTF values of real particles" % options.data)
    if "relion" in options.poses and not shutil.which("relion_refine_mpi"):
        parser.error("--poses relion needs RELION (relion_refine_mpi), which is not here")
    options.null, options.sets = "null" in options.sets, [v for v in options.sets if v != "null"]
    options.fit, options.train = {}, {}
    for item in options.set_param:
        try:
            set_parameter(options, item)
        except ValueError as error:
            parser.error("--set-param %s: %s" % (item, error))
    return options


def two_numbers(text):
    """'2,0.5' to two floats."""
    first, second = (float(part) for part in text.split(","))
    return first, second


def whole_numbers(text):
    """'1,2,3' to ints."""
    return [int(part) for part in text.split(",")]


def set_parameter(options, item):
    """Take 'key=value' into the parameters of train, 'fit.key=value' into those of fit.

    Raises
    ------
    ValueError
        when there is no such parameter, or the value is not of its kind.
    """
    key, separator, text = item.partition("=")
    if not separator:
        raise ValueError("expected key=value")
    stage, cls = (options.fit, FitConfig) if key.startswith("fit.") else (options.train, TrainConfig)
    name, value = key.removeprefix("fit."), text
    if not isinstance(getattr(cls, name, None), str):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
    stage[name] = getattr(from_dict(cls, {name: value}), name)


def main():
    options, results = read_options(), []
    print(" ".join("%-*s" % (width, name) for name, width in COLUMNS), flush=True)

    def report(row):
        results.append(row)
        print(said(row), flush=True)
        with open(os.path.join(options.out, "results.json"), "w", encoding="utf-8") as f:
            json.dump(dict(command=sys.argv[1:], rows=results), f, indent=1, ensure_ascii=False)

    for name in options.sets:
        for seed in options.seeds:
            rows_of(name, int(seed), options, report)


if __name__ == "__main__":
    main()
