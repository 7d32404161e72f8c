"""Finished runs of the five protocols in a project, written by hand in the engine's formats, so that outputs
and viewers have known things to show.

Truth: two states at z[0] = -2 (three in four particles) and +2; ten of the forty Gaussians move 6 Å along y
per unit of z[0]; every tenth particle is held out; particle i gains i / 100 nats.
"""
import json
import os
from typing import Any, Dict, Optional, Tuple, Type

import mrcfile
import numpy as np
from pwem.objects import Acquisition, CTFModel, Particle, SetOfParticles
from pwem.protocols import ProtImportParticles
from pyworkflow.protocol import STATUS_FINISHED
from pyworkflow.utils import makePath

from gmmhet import convert
from gmmhet.engine import rundir
from gmmhet.protocols import (
    GmmHetProtAnalyze,
    GmmHetProtFit,
    GmmHetProtReconstruct,
    GmmHetProtRefine,
    GmmHetProtTrain,
)

NUMBER, BOX, PIXEL_SIZE, STEP = 400, 24, 5.0, 6.0
IDS = 1000 - 2 * np.arange(NUMBER)          # in the engine's files; Scipion's sets hold them in rising order
STATE = np.arange(NUMBER) % 4 == 0
MOVING = np.arange(40) < 10
#: symmetry copies of a particle in the symmetric runs
COPIES = 3

Run = rundir.RunDir


def latent_points() -> np.ndarray:
    """z of every particle, [400, 2]."""
    z = np.random.default_rng(1).normal(0, (0.3, 0.8), (NUMBER, 2))
    z[:, 0] += np.where(STATE, 2.0, -2.0)
    return z


def centers(first: float = 0.0) -> np.ndarray:
    """Centres of the Gaussians at z[0] = `first`, [40, 3] Å."""
    points = np.random.default_rng(0).uniform(-14, 14, (40, 3))
    points[:, 0] += np.where(MOVING, 28.0, -14.0)
    points[MOVING, 1] += STEP * first
    return points


def density(first: float = 0.0) -> np.ndarray:
    """Map of the Gaussians at z[0] = `first`, [24, 24, 24]."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL_SIZE
    lines = [np.exp(-0.5 * ((axis - column[:, None]) / 6.0) ** 2) for column in centers(first).T]
    return np.einsum("nx,ny,nz->zyx", *lines).astype(np.float32)


def write_map(path: str, volume: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume)
        file.voxel_size = PIXEL_SIZE


def write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_fsc(path: str, **curves: np.ndarray) -> None:
    shells = np.arange(1, BOX // 2 + 1)
    rows = np.column_stack([BOX * PIXEL_SIZE / shells, *curves.values()])
    np.savetxt(path, rows, "%.6g", ",", header=",".join(["resolution_angst", *curves]), comments="")


def write_page(path: str) -> None:
    """A picture such as the engine's pages."""
    import matplotlib.image
    matplotlib.image.imsave(path, np.random.default_rng(0).random((60, 100)))


def falling_fsc(half: float) -> np.ndarray:
    """An FSC that crosses one half at shell `half`."""
    return 1 / (1 + np.exp((np.arange(1, BOX // 2 + 1) - half) / 0.8))


# ------------------------------------------------------------------ protocols
def new(project: Any, cls: Type, label: str, inputs: Optional[Dict[str, Tuple[Any, str]]] = None,
        **values: Any) -> Any:
    """A protocol with its folders, neither run nor started; `inputs` are pointers: name to (protocol, output
    name)."""
    protocol = project.newProtocol(cls, **values)
    protocol.setObjLabel(label)
    for name, (source, output) in (inputs or {}).items():
        getattr(protocol, name).set(source)
        getattr(protocol, name).setExtended(output)
    project.saveProtocol(protocol)
    makePath(protocol._getExtraPath(), protocol._getTmpPath(), protocol._getLogsPath())
    return protocol


def finish(project: Any, protocol: Any) -> Any:
    """Mark a protocol as finished, as the project window shows it."""
    protocol.setStatus(STATUS_FINISHED)
    protocol.initTime.set("2026-01-01 12:00:00.0")
    protocol.endTime.set("2026-01-01 12:01:00.0")
    project._storeProtocol(protocol)
    return protocol


def folder_of(protocol: Any, summary: Dict[str, Any], config: Optional[Dict[str, Any]] = None,
              *number: int) -> Run:
    """Make a run folder with its summary and config; the function that names its files."""
    folder = protocol.getRunFolder(*number)
    makePath(folder)
    write_text(os.path.join(folder, rundir.SUMMARY), json.dumps(summary))
    write_text(os.path.join(folder, rundir.CONFIG), json.dumps(config or {}))
    return Run(folder, resume=True)


# ------------------------------------------------------------------ runs
def import_run(project: Any) -> Any:
    """An import whose particles have alignment and CTF; their images do not exist."""
    protocol = new(project, ProtImportParticles, "import particles")
    acquisition = Acquisition(voltage=300, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=1)
    particles = SetOfParticles.create(protocol._getPath())
    particles.setAcquisition(acquisition)
    particles.setSamplingRate(PIXEL_SIZE)
    particles.setAlignmentProj()
    particles.setHasCTF(True)
    particles.setDim((BOX, BOX, 1))
    rng = np.random.default_rng(4)
    rot, tilt = rng.uniform(-179, 179, NUMBER), np.degrees(np.arccos(rng.uniform(-1, 1, NUMBER)))
    for row in np.argsort(IDS):
        item = Particle(location=(int(row) + 1, "particles.mrcs"))
        item.setObjId(int(IDS[row]))
        item.setSamplingRate(PIXEL_SIZE)
        item.setAcquisition(acquisition)
        item.setCTF(CTFModel(defocusU=10000.0 + 10 * int(IDS[row]), defocusV=10000.0, defocusAngle=0.0))
        convert.set_alignment(item, convert.RelionPose(rot[row], tilt[row], 0.0, 0.0, 0.0), PIXEL_SIZE)
        particles.append(item)
    protocol._defineOutputs(outputParticles=particles)
    return finish(project, protocol)


def fit_run(project: Any, source: Any) -> Any:
    protocol = new(project, GmmHetProtFit, "fit Gaussians", dict(inputParticles=(source, "outputParticles")))
    run = folder_of(protocol, dict(stage="fit", gaussians=40, resolution_angst=15.0, mean_fsc=0.97))
    np.savez(run(rundir.GMM), centers=np.float32(centers()), amplitudes=np.ones(40, np.float32),
             widths=np.full(40, 6, np.float32))
    write_text(run(rundir.GMM_CIF), "data_gmm\n")
    write_text(run(rundir.SHOW), 'open "gmm.mrc"\n')
    write_map(run(rundir.GMM_MAP), density())
    write_fsc(run(rundir.FSC), fsc=falling_fsc(9))
    protocol.createOutputStep("")
    return finish(project, protocol)


def train_run(project: Any, source: Any, fit: Any) -> Any:
    protocol = new(project, GmmHetProtTrain, "train heterogeneity",
                   dict(inputParticles=(source, "outputParticles"),
                        inputGaussians=(fit, "outputPseudoAtoms")),
                   latentDim=2)
    protocol.convertInputStep("")
    run = folder_of(protocol, dict(stage="train", epochs=4, best_epoch=2),
                    dict(particles=protocol._starFile()))
    makePath(run(rundir.MODEL))
    write_text(run(rundir.HISTORY), "epoch,training_gain,held_out_gain,divergence,seconds\n" + "".join(
        "%d,%g,%g,1.0,2.0\n" % row for row in ((1, 1.0, 0.8), (2, 2.0, 1.5), (3, 2.6, 1.6), (4, 3.0, 1.4))))
    gain = IDS / 100.0
    np.savez(run(rundir.LATENTS), id=IDS, copy=np.zeros(NUMBER, int), z=latent_points(),
             z_std=np.full((NUMBER, 2), 0.3), agreement=100 + gain, neutral_agreement=np.full(NUMBER, 100.0),
             held_out=np.arange(NUMBER) % 10 == 0)
    write_page(run(rundir.EVIDENCE))
    protocol.createOutputStep("")
    return finish(project, protocol)


def refine_run(project: Any, train: Any) -> Any:
    protocol = new(project, GmmHetProtRefine, "refine orientations",
                   dict(inputParticles=(train, "outputParticles")))
    run = folder_of(protocol,
                    dict(stage="refine", particles=NUMBER, sigma_angle_deg=1.0, sigma_shift_angst=2.0))
    rng = np.random.default_rng(5)
    angle, shift = np.abs(rng.normal(0, 2, (2, NUMBER)))
    np.savez(run(rundir.POSES), id=IDS, angle_change_deg=angle, shift_change_angst=shift,
             gain=angle + rng.normal(0, 0.3, NUMBER))
    return finish(project, protocol)


def analyze_run(project: Any, train: Any) -> Any:
    protocol = new(project, GmmHetProtAnalyze, "analyze landscape",
                   dict(inputParticles=(train, "outputParticles")))
    directions = {"pc1": dict(motion_rms_angst=9.0, amplitude_rms=0.02),
                  "pc2": dict(motion_rms_angst=0.4, amplitude_rms=0.01)}
    summary = dict(stage="analyze", latent_dim=2, embedding="pca", clusters=[300, 100], trajectories=["pc1"],
                   directions=directions)
    run = folder_of(protocol, summary, dict(model=train.getRunFolder()))
    z = latent_points()
    np.savez(run(rundir.EMBEDDING), id=IDS, copy=np.zeros(NUMBER, int), xy=np.float32(z),
             label=np.where(STATE, 2, 1), explained=np.array([0.9, 0.1]),
             centers=np.array([[-2.0, 0.0], [2.0, 0.0]]))
    np.savez(run(rundir.DIRECTIONS), names=np.array(["pc1", "pc2"]))
    write_page(run(rundir.LANDSCAPE))
    for label, first in ((1, -2.0), (2, 2.0)):
        write_map(run(rundir.cluster_map(label)), density(first))
    makePath(run(rundir.trajectory("pc1")))
    write_text(run(rundir.trajectory("pc1"), rundir.SHOW), 'open "point_01.mrc"\n')
    values = np.linspace(-2, 2, 5)
    np.savetxt(run(rundir.trajectory("pc1"), "z.txt"), np.column_stack([values, 0 * values]))
    for i, first in enumerate(values, 1):
        write_map(run(rundir.trajectory("pc1"), rundir.point(i, ".mrc")), density(first))
        np.savez(run(rundir.trajectory("pc1"), rundir.point(i, ".npz")), centers=centers(first))
    protocol.createOutputStep("")
    return finish(project, protocol)


def reconstruct_run(project: Any, source: Any, output: str, label: str) -> Any:
    protocol = new(project, GmmHetProtReconstruct, label, dict(inputParticles=(source, output)))
    for number in protocol._classIds():
        run = folder_of(protocol, dict(stage="reconstruct", particles=100), None, number)
        for name in (rundir.MAP, rundir.HALF1, rundir.HALF2):
            write_map(run(name), density(2.0 if number == 2 else -2.0))
        write_fsc(run(rundir.FSC), fsc_unmasked=falling_fsc(6), fsc_masked=falling_fsc(8 - number))
    protocol.createOutputStep("")
    return finish(project, protocol)


def all_runs(project: Any) -> Dict[str, Any]:
    """The five protocols, and the reconstruction of classes as 'classes': dict of name to protocol."""
    source = import_run(project)
    fit = fit_run(project, source)
    train = train_run(project, source, fit)
    refine, analyze = refine_run(project, train), analyze_run(project, train)
    return dict(fit=fit, train=train, refine=refine, analyze=analyze,
                reconstruct=reconstruct_run(project, train, "outputParticles", "reconstruct particles"),
                classes=reconstruct_run(project, analyze, "outputClasses", "reconstruct classes"))


# ------------------------------------------------------------------ runs with symmetry c3
def symmetric_rows() -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, copies and latent points of every particle and copy, not in order: z = (id, copy)."""
    number, copy = [grid.ravel() for grid in np.meshgrid(IDS, np.arange(COPIES))]
    order = np.random.default_rng(5).permutation(len(number))
    return number[order], copy[order], np.stack([number, copy], 1)[order].astype(float)


def symmetric_train_run(project: Any, runs: Dict[str, Any]) -> Any:
    """A training in which agreement is the id, that of the neutral model the copy, and ids that four divides
    are held out."""
    source = runs["train"].inputParticles.getObjValue()
    protocol = new(project, GmmHetProtTrain, "train with c3",
                   dict(inputParticles=(source, "outputParticles"),
                        inputGaussians=(runs["fit"], "outputPseudoAtoms")), latentDim=2, symmetry="c3")
    run = folder_of(protocol, dict(stage="train", epochs=3))
    makePath(run(rundir.MODEL))
    write_text(run(rundir.HISTORY), "epoch\n")
    number, copy, z = symmetric_rows()
    np.savez(run(rundir.LATENTS), id=number, copy=copy, z=z, agreement=number + 0.0,
             neutral_agreement=copy + 0.0,
             held_out=number % 4 == 0)
    protocol.createOutputStep("")
    return protocol


def symmetric_analysis(project: Any, train: Any, without: int = 0) -> Any:
    """An analysis, its output not yet made, in which copy 0 is in class 1, copy 1 in class 2, and copy 2 in
    class 1 for ids that four divides, in none for others; `without` is an id that it lacks."""
    protocol = new(project, GmmHetProtAnalyze, "analyze c3", dict(inputParticles=(train, "outputParticles")))
    run = folder_of(protocol, dict(stage="analyze"))
    number, copy, z = symmetric_rows()
    label = np.where(copy == 1, 2, np.where((copy == 0) | (number % 4 == 0), 1, 0))
    rows = number != without
    np.savez(run(rundir.EMBEDDING), id=number[rows], copy=copy[rows], label=label[rows], xy=z[rows],
             centers=np.array([[1.0, 2.0], [3.0, 4.0]]))
    for cluster in (1, 2):
        write_map(run(rundir.cluster_map(cluster)), density())
    return protocol
