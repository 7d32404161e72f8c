"""Finished runs of the five protocols in a project, written by hand in the engine's formats, so that viewers have known things to show.

Truth: two states at z[0] = -2 (three in four particles) and +2; ten of the forty Gaussians move 6 Å along y per unit of z[0]; every tenth
particle is held out; particle i gains i / 100 nats.
"""
import json
import os

import mrcfile
import numpy as np
from pwem.objects import Acquisition, AtomStructFlex, CTFModel, Particle, SetOfParticles
from pyworkflow.protocol import STATUS_FINISHED
from pyworkflow.utils import makePath

from gmmhet import convert
from gmmhet.constants import GMM_FOLDER, PROGRAM
from gmmhet.engine import rundir
from gmmhet.protocols import GmmHetProtAnalyze, GmmHetProtFit, GmmHetProtReconstruct, GmmHetProtRefine, GmmHetProtTrain
from gmmhet.protocols.protocol_base import markFlex

NUMBER, BOX, PIXEL_SIZE, STEP = 400, 24, 5.0, 6.0
IDS = 1000 - 2 * np.arange(NUMBER)          # in the engine's files; Scipion's sets hold them in rising order
STATE = np.arange(NUMBER) % 4 == 0
MOVING = np.arange(40) < 10


def latent_points():
    """z of every particle, [400, 2]."""
    z = np.random.default_rng(1).normal(0, (0.3, 0.8), (NUMBER, 2))
    z[:, 0] += np.where(STATE, 2.0, -2.0)
    return z


def centers(first=0.0):
    """Centres of the Gaussians at z[0] = `first`, [40, 3] Å."""
    found = np.random.default_rng(0).uniform(-14, 14, (40, 3))
    found[:, 0] += np.where(MOVING, 28.0, -14.0)
    found[MOVING, 1] += STEP * first
    return found


def density(first=0.0):
    """Map of the Gaussians at z[0] = `first`, [24, 24, 24]."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL_SIZE
    lines = [np.exp(-0.5 * ((axis - column[:, None]) / 6.0) ** 2) for column in centers(first).T]
    return np.einsum("nx,ny,nz->zyx", *lines).astype(np.float32)


def write_map(path, volume):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume)
        file.voxel_size = PIXEL_SIZE


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def write_fsc(path, **curves):
    shells = np.arange(1, BOX // 2 + 1)
    rows = np.column_stack([BOX * PIXEL_SIZE / shells] + list(curves.values()))
    np.savetxt(path, rows, "%.6g", ",", header=",".join(["resolution_angst", *curves]), comments="")


def falling(half):
    """An FSC that crosses one half at shell `half`."""
    return 1 / (1 + np.exp((np.arange(1, BOX // 2 + 1) - half) / 0.8))


def new(project, cls, label, **values):
    """A protocol with its folders, neither run nor started."""
    protocol = project.newProtocol(cls, **values)
    protocol.setObjLabel(label)
    project.saveProtocol(protocol)
    makePath(protocol._getExtraPath(), protocol._getTmpPath(), protocol._getLogsPath())
    return protocol


def finish(project, protocol):
    """Mark a protocol as finished, as the project window shows it."""
    protocol.setStatus(STATUS_FINISHED)
    protocol.initTime.set("2026-01-01 12:00:00.0")
    protocol.endTime.set("2026-01-01 12:01:00.0")
    project._storeProtocol(protocol)
    return protocol


def folder_of(protocol, summary, config=None, *number):
    """Make a run folder with its summary and config; returns the function that names its files."""
    folder = protocol.getRunFolder(*number)
    makePath(folder)
    write_text(os.path.join(folder, rundir.SUMMARY), json.dumps(summary))
    write_text(os.path.join(folder, rundir.CONFIG), json.dumps(config or {}))
    return rundir.RunDir(folder, resume=True)


def particles(path):
    """A set of particles with alignment and CTF at `path`."""
    found = SetOfParticles(filename=path)
    acquisition = Acquisition(voltage=300, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=1)
    found.setAcquisition(acquisition)
    found.setSamplingRate(PIXEL_SIZE)
    found.setAlignmentProj()
    found.setHasCTF(True)
    found.setDim((BOX, BOX, 1))
    rng = np.random.default_rng(4)
    angles = np.column_stack([rng.uniform(-179, 179, NUMBER), np.degrees(np.arccos(rng.uniform(-1, 1, NUMBER))), np.zeros(NUMBER)])
    for row in np.argsort(IDS):
        item = Particle(location=(int(row) + 1, "particles.mrcs"))
        item.setObjId(int(IDS[row]))
        item.setSamplingRate(PIXEL_SIZE)
        item.setAcquisition(acquisition)
        item.setCTF(CTFModel(defocusU=10000.0 + 10 * int(IDS[row]), defocusV=10000.0, defocusAngle=0.0))
        convert.setAlignment(item, tuple(angles[row]) + (0.0, 0.0), PIXEL_SIZE)
        found.append(item)
    found.write()
    return found


def fit_run(project):
    protocol = new(project, GmmHetProtFit, "fit Gaussians")
    run = folder_of(protocol, dict(stage="fit", gaussians=40, resolution_angst=15.0, mean_fsc=0.97))
    np.savez(run(rundir.GMM), centers=np.float32(centers()), amplitudes=np.ones(40, np.float32), widths=np.full(40, 6, np.float32))
    write_text(run(rundir.GMM_CIF), "data_gmm\n")
    write_text(run(rundir.SHOW), 'open "gmm.mrc"\n')
    write_map(run(rundir.GMM_MAP), density())
    write_fsc(run(rundir.FSC), fsc=falling(9))
    atoms = AtomStructFlex(filename=run(rundir.GMM_CIF), pseudoatoms=True, progName=PROGRAM)
    markFlex(atoms, protocol.getRunFolder(), GMM_FOLDER)
    protocol._defineOutputs(outputPseudoAtoms=atoms)
    return finish(project, protocol)


def write_page(path):
    """A picture such as the engine's pages."""
    import matplotlib.image
    matplotlib.image.imsave(path, np.random.default_rng(0).random((60, 100)))


def train_run(project, fit):
    protocol = new(project, GmmHetProtTrain, "train heterogeneity", latentDim=2)
    protocol.inputGaussians.set(fit)
    protocol.inputGaussians.setExtended("outputPseudoAtoms")
    source = particles(protocol._getExtraPath("source.sqlite"))
    convert.writeParticles(source, protocol._starFile())
    run = folder_of(protocol, dict(stage="train", epochs=4, best_epoch=2), dict(particles=protocol._starFile()))
    makePath(run(rundir.MODEL))
    write_text(run(rundir.HISTORY), "epoch,training_gain,held_out_gain,divergence,seconds\n" + "".join(
        "%d,%g,%g,1.0,2.0\n" % row for row in ((1, 1.0, 0.8), (2, 2.0, 1.5), (3, 2.6, 1.6), (4, 3.0, 1.4))))
    gain = IDS / 100.0
    np.savez(run(rundir.LATENTS), id=IDS, copy=np.zeros(NUMBER, int), z=latent_points(), z_std=np.full((NUMBER, 2), 0.3),
             agreement=100 + gain, neutral_agreement=np.full(NUMBER, 100.0), held_out=np.arange(NUMBER) % 10 == 0)
    write_page(run(rundir.EVIDENCE))
    output = protocol._flexParticles(source)
    markFlex(output, protocol.getRunFolder())
    latents = convert.readLatents(run(rundir.LATENTS))
    for item, found in convert.join(source.iterItems(), latents, "latent point"):
        output.append(protocol._latentItem(item, found))
    protocol._defineOutputs(outputParticles=output)
    return finish(project, protocol)


def refine_run(project, train):
    protocol = new(project, GmmHetProtRefine, "refine orientations")
    from_output(protocol.inputParticles, train, "outputParticles")
    run = folder_of(protocol, dict(stage="refine", particles=NUMBER, sigma_angle_deg=1.0, sigma_shift_angst=2.0))
    rng = np.random.default_rng(5)
    angle, shift = np.abs(rng.normal(0, 2, (2, NUMBER)))
    np.savez(run(rundir.POSES), id=IDS, angle_change_deg=angle, shift_change_angst=shift, gain=angle + rng.normal(0, 0.3, NUMBER))
    return finish(project, protocol)


def from_output(pointer, protocol, name):
    pointer.set(protocol)
    pointer.setExtended(name)


def analyze_run(project, train):
    protocol = new(project, GmmHetProtAnalyze, "analyze landscape")
    from_output(protocol.inputParticles, train, "outputParticles")
    directions = {"pc1": dict(motion_rms_angst=9.0, amplitude_rms=0.02), "pc2": dict(motion_rms_angst=0.4, amplitude_rms=0.01)}
    run = folder_of(protocol, dict(stage="analyze", latent_dim=2, embedding="pca", clusters=[300, 100], trajectories=["pc1"],
                                   directions=directions), dict(model=train.getRunFolder()))
    z = latent_points()
    np.savez(run(rundir.EMBEDDING), id=IDS, copy=np.zeros(NUMBER, int), xy=np.float32(z), label=np.where(STATE, 2, 1),
             explained=np.array([0.9, 0.1]), centers=np.array([[-2.0, 0.0], [2.0, 0.0]]))
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


def reconstruct_run(project, source, output, label):
    protocol = new(project, GmmHetProtReconstruct, label)
    from_output(protocol.inputParticles, source, output)
    for number in protocol._classIds():
        run = folder_of(protocol, dict(stage="reconstruct", particles=100), None, number)
        for name in (rundir.MAP, rundir.HALF1, rundir.HALF2):
            write_map(run(name), density(2.0 if number == 2 else -2.0))
        write_fsc(run(rundir.FSC), fsc_unmasked=falling(6), fsc_masked=falling(8 - number))
    return finish(project, protocol)


def all_runs(project):
    """The five protocols, and the reconstruction of classes as 'classes': dict of name to protocol."""
    fit = fit_run(project)
    train = train_run(project, fit)
    refine, analyze = refine_run(project, train), analyze_run(project, train)
    return dict(fit=fit, train=train, refine=refine, analyze=analyze,
                reconstruct=reconstruct_run(project, train, "outputParticles", "reconstruct particles"),
                classes=reconstruct_run(project, analyze, "outputClasses", "reconstruct classes"))
