"""The whole chain in a real Scipion project: import, a RELION reconstruction, and the five protocols on top of it."""
import os
import re
import subprocess
import sys
import time

import mrcfile
import numpy as np
import pytest
import synthetic
from pwem.objects import SetOfParticlesFlex
from pyworkflow.protocol.constants import MODE_RESUME
from steps import import_star, launched

from gmmhet.engine import rundir

pytestmark = [pytest.mark.relion, pytest.mark.slow]

NUMBER, BOX, PIXEL_SIZE = 400, 32, 6.0


def connected(project, cls, label, **values):
    """A new protocol; a value (protocol, output name) becomes a pointer."""
    pointers = {name: value for name, value in values.items() if isinstance(value, tuple)}
    plain = {name: value for name, value in values.items() if name not in pointers}
    protocol = project.newProtocol(cls, **plain)
    for name, (source, output) in pointers.items():
        getattr(protocol, name).set(source)
        getattr(protocol, name).setExtended(output)
    protocol.setObjLabel(label)
    return protocol


@pytest.fixture(scope="module")
def gmm(domain):
    """Our protocol classes by name."""
    return {name: cls for name, cls in domain.getProtocols().items() if name.startswith("GmmHetProt")}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Folder of a simulated hinge set."""
    folder = str(tmp_path_factory.mktemp("hinge") / "set")
    command = "-m gmmhet.engine.cli simulate --kind hinge --n %d --box %d --pixel-size %g --snr 0.5 --out" % (NUMBER, BOX, PIXEL_SIZE)
    done = subprocess.run([sys.executable] + command.split() + [folder], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def particles(project, truth):
    return import_star(project, os.path.join(truth, rundir.STAR), "import hinge", PIXEL_SIZE)


@pytest.fixture(scope="module")
def consensus(project, domain, particles):
    cls = domain.getProtocols()["ProtRelionReconstruct"]
    return launched(project, connected(project, cls, "consensus", inputParticles=(particles, "outputParticles"), doCTF=True))


@pytest.fixture(scope="module")
def fit(project, gmm, consensus):
    return launched(project, connected(project, gmm["GmmHetProtFit"], "fit", inputVolume=(consensus, "outputVolume"), steps=150,
                                       useGpu=False, numberOfThreads=2))


@pytest.fixture(scope="module")
def train(project, gmm, particles, fit):
    return launched(project, connected(project, gmm["GmmHetProtTrain"], "train", inputParticles=(particles, "outputParticles"),
                                       inputGaussians=(fit, "outputPseudoAtoms"), vary="position", epochs=6, latentDim=2, useGpu=False,
                                       numberOfThreads=2))


@pytest.fixture(scope="module")
def staged(project, gmm, analyze, train, fit):
    """A further stage on the particles of the first class."""
    with open("first.txt", "w") as file:
        file.write(" ".join(str(number) for number in ids_of(analyze.outputClasses[1])))
    from pwem.protocols import ProtUserSubSet
    subset = launched(project,
                      connected(project, ProtUserSubSet, "first class", inputObject=(train, "outputParticles"), sqliteFile="first.txt,",
                                         outputClassName="SetOfParticlesFlex"))
    name = next(name for name, _ in subset.iterOutputAttributes())
    return launched(project, connected(project, gmm["GmmHetProtTrain"], "staged", inputParticles=(subset, name),
                                       inputGaussians=(fit, "outputPseudoAtoms"),
                                       inputContinue=(train, "outputParticles"), vary="amplitude", epochs=2, latentDim=1, useGpu=False,
                                       numberOfThreads=2))


@pytest.fixture(scope="module")
def refine(project, gmm, train):
    return launched(project, connected(project, gmm["GmmHetProtRefine"], "refine", inputParticles=(train, "outputParticles"), steps=2,
                                       sigmaAngle=3.0, sigmaShift=3.0, useGpu=False, numberOfThreads=2))


@pytest.fixture(scope="module")
def analyze(project, gmm, refine):
    return launched(project, connected(project, gmm["GmmHetProtAnalyze"], "analyze", inputParticles=(refine, "outputParticles"), clusters=2,
                                       points=3, useGpu=False, numberOfThreads=2))


@pytest.fixture(scope="module")
def reconstruct(project, gmm, analyze):
    return launched(project, connected(project, gmm["GmmHetProtReconstruct"], "reconstruct", inputParticles=(analyze, "outputClasses"),
                                       useGpu=False, numberOfThreads=2))


def ids_of(items):
    return sorted(item.getObjId() for item in items)


def parents(project, child):
    """Outputs that an output says it comes from."""
    graph = project.getSourceGraph(True)
    return [node.getName() for node in graph.getNode(str(child.getObjId())).getParents()]


def test_fit_gives_pseudo_atoms_and_the_rendered_map(project, fit, consensus):
    assert fit.outputPseudoAtoms.getPseudoAtoms()
    assert os.path.exists(fit.outputPseudoAtoms.getFileName())
    assert fit.outputVolume.getDim() == (BOX, BOX, BOX)
    assert fit.outputVolume.getSamplingRate() == pytest.approx(PIXEL_SIZE)
    with mrcfile.open(fit.outputVolume.getFileName()) as ours, mrcfile.open(consensus.outputVolume.getFileName(),
                                                                            permissive=True) as theirs:
        assert synthetic.correlation(ours.data, theirs.data) > 0.9


def test_train_gives_every_particle_its_latent_point_under_its_own_id(train, particles):
    with np.load(train.getRunFile(rundir.LATENTS)) as found:
        expected = dict(zip(found["id"].tolist(), found["z"]))
    output = train.outputParticles
    assert isinstance(output, SetOfParticlesFlex)
    assert ids_of(output) == ids_of(particles.outputParticles)
    assert output.hasCTF() and output.hasAlignmentProj()
    for item in output:
        assert np.allclose(item.getZFlex(), expected[item.getObjId()])
        assert item.getFlexInfo().getProgName() == "GMM"


def test_train_keeps_images_alignment_half_sets_and_ctf(train, particles):
    for before, after in zip(particles.outputParticles.iterItems(), train.outputParticles.iterItems()):
        assert after.getLocation() == before.getLocation()
        assert np.array_equal(after.getTransform().getMatrix(), before.getTransform().getMatrix())
        assert after.getCTF().getDefocus() == before.getCTF().getDefocus()


def test_the_trained_set_names_its_model_relative_to_the_project(train):
    folder = train.outputParticles.getFlexInfo().getAttr("modelFolder")
    assert not os.path.isabs(folder)
    assert rundir.missing_run(folder, "train") == ""


def test_a_further_stage_on_a_class_of_trained_particles_keeps_their_latent_points_and_adds_its_own(project, gmm, staged, train, analyze):
    before = {item.getObjId(): item.getZFlex() for item in train.outputParticles}
    assert ids_of(staged.outputParticles) == ids_of(analyze.outputClasses[1])
    for item in staged.outputParticles:
        assert len(item.getZFlex()) == 3 and np.allclose(item.getZFlex()[:2], before[item.getObjId()])
    assert [stage["latent_dimensions"] for stage in staged.getSummary()["stages"]] == [[1, 2], [3, 3]]
    assert "on top of an earlier training" in staged.methods()[0]
    assert train.outputParticles.getObjName() in " ".join(parents(project, staged.outputParticles))
    read = launched(project, connected(project, gmm["GmmHetProtAnalyze"], "read stages", inputParticles=(staged, "outputParticles"),
                                       clusters=2, points=2, useGpu=False, numberOfThreads=2))
    assert len(read.outputClasses[1].getFirstItem().getZFlex()) == 3


def test_training_is_prepared_in_a_step_of_its_own(train):
    assert [step.funcName.get() for step in train.loadSteps()] == ["convertInputStep", "prepareStep", "runEngineStep", "createOutputStep"]


@pytest.mark.parametrize("per_step, pauses", [(50000, []), (2 * NUMBER, [2, 4]), (1, [1, 2, 3, 4, 5])])
def test_training_of_large_sets_pauses_between_epochs(train, monkeypatch, per_step, pauses):
    monkeypatch.setattr(sys.modules[type(train).__module__], "PARTICLES_PER_STEP", per_step)
    assert train._pauses() == pauses


def test_refine_gives_new_alignment_and_keeps_ids_and_latent_points(refine, train):
    before = {item.getObjId(): item.clone() for item in train.outputParticles}
    moved = 0
    for item in refine.outputParticles:
        assert np.array_equal(item.getZFlex(), before[item.getObjId()].getZFlex())
        moved += not np.allclose(item.getTransform().getMatrix(), before[item.getObjId()].getTransform().getMatrix())
    assert ids_of(refine.outputParticles) == sorted(before)
    assert moved > 0.9 * NUMBER


def test_refined_alignment_is_that_of_the_star_file_that_the_engine_wrote(refine, tmp_path):
    from emtable import Table

    from gmmhet import convert
    convert.writeParticles(refine.outputParticles, str(tmp_path / "again.star"))
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    ours, theirs = [{int(row.rlnImageId): [float(getattr(row, name)) for name in names]
                     for row in Table.iterRows(path, tableName="particles")}
                    for path in (str(tmp_path / "again.star"), refine.getRunFile(rundir.STAR))]
    assert sorted(ours) == sorted(theirs)
    for number, values in ours.items():
        difference = np.array(values) - theirs[number]
        difference[:3] = (difference[:3] + 180) % 360 - 180
        assert np.abs(difference).max() < 1e-3


def test_classes_hold_every_particle_once_with_its_own_id(analyze, refine):
    classes = analyze.outputClasses
    assert [item.getObjId() for item in classes] == [1, 2]
    members = [number for item in classes for number in ids_of(item)]
    assert sorted(members) == ids_of(refine.outputParticles)


def test_classes_are_the_clusters_of_the_engine(analyze):
    for item in analyze.outputClasses:
        listed = np.loadtxt(analyze.getRunFile(rundir.cluster_ids(item.getObjId())), dtype=int, ndmin=1)
        assert ids_of(item) == sorted(listed.tolist())


def test_a_class_has_a_map_and_its_particles_have_their_place_in_the_landscape(analyze):
    for item in analyze.outputClasses:
        assert item.getRepresentative().getDim() == (BOX, BOX, BOX)
        assert len(item.getRepresentative().getZFlex()) == 2
        first = item.getFirstItem()
        assert len(first.getZRed()) == 2 and len(first.getZFlex()) == 2
        assert first.getClassId() == item.getObjId()


def test_a_particle_of_a_class_knows_how_probable_the_class_is_by_its_image(analyze):
    with np.load(analyze.getRunFile(rundir.EMBEDDING)) as file:
        known = dict(zip(file["id"].tolist(), file["probability"].max(1).tolist()))
    for item in analyze.outputClasses:
        assert all(particle._gmmProbability.get() == pytest.approx(known[particle.getObjId()], abs=1e-5) for particle in item)
    assert any("By its image" in line for line in analyze._summary())


def test_images_are_looked_at_in_the_orientations_of_refine(analyze):
    with open(analyze.getRunFile(rundir.LOG), encoding="utf-8") as file:
        said, = re.findall(r"(\d+) of the (\d+) particles have another pose", file.read())
    assert int(said[1]) == NUMBER and int(said[0]) > 0.9 * NUMBER


def test_the_maps_of_both_trajectories_come_with_their_latent_points(analyze):
    volumes = [volume.clone() for volume in analyze.outputVolumes]
    assert len(volumes) == 6
    assert len({tuple(volume.getZFlex()) for volume in volumes}) == 6
    assert all(volume.getDim() == (BOX, BOX, BOX) for volume in volumes)


def test_each_class_is_reconstructed_with_half_maps_and_fsc(reconstruct):
    assert reconstruct.outputVolumes.getSize() == 2
    for volume in reconstruct.outputVolumes:
        halves = volume.getHalfMaps().split(",")
        assert len(halves) == 2 and all(os.path.exists(path) for path in halves)
        assert volume.getSamplingRate() == pytest.approx(PIXEL_SIZE)
    assert reconstruct.outputFSCs.getSize() >= 2
    frequency, values = reconstruct.outputFSCs.getFirstItem().getData()
    assert len(frequency) == len(values) >= BOX // 2
    assert max(float(x) for x in frequency) == pytest.approx(1 / (2 * PIXEL_SIZE), rel=0.01)


def test_the_maps_of_the_classes_show_the_molecule(reconstruct, consensus):
    with mrcfile.open(consensus.outputVolume.getFileName(), permissive=True) as file:
        expected = np.array(file.data)
    for volume in reconstruct.outputVolumes:
        with mrcfile.open(volume.getFileName()) as file:
            assert synthetic.correlation(file.data, expected) > 0.6


def test_every_output_says_where_it_comes_from(project, fit, train, refine, analyze, reconstruct):
    for protocol in (fit, train, refine, analyze, reconstruct):
        for name, output in protocol.iterOutputAttributes():
            assert parents(project, output) != ["PROJECT"], "%s of %s" % (name, protocol.getObjLabel())


def test_outputs_survive_reloading_the_project(project, train, analyze):
    from pyworkflow.project import Manager
    again = Manager().loadProject(project.getName())
    loaded = again.getProtocol(train.getObjId())
    assert loaded.outputParticles.getFlexInfo().getAttr("modelFolder") == train.outputParticles.getFlexInfo().getAttr("modelFolder")
    assert again.getProtocol(analyze.getObjId()).outputClasses.getSize() == 2


def test_summaries_and_methods_say_what_was_found(fit, train, refine, analyze, reconstruct):
    for protocol in (fit, train, refine, analyze, reconstruct):
        assert "Not finished" not in " ".join(protocol.summary())
        assert "gmmhet" in " ".join(protocol.methods())


# ------------------------------------------------------------------ a run that is stopped
def test_a_training_that_was_stopped_goes_on_from_its_last_epoch(project, gmm, particles, fit):
    protocol = connected(project, gmm["GmmHetProtTrain"], "stopped", inputParticles=(particles, "outputParticles"),
                         inputGaussians=(fit, "outputPseudoAtoms"), vary="position", epochs=4, patience=4, batchSize=4, latentDim=2,
                         useGpu=False, numberOfThreads=2)
    project.launchProtocol(protocol, wait=False)
    history = protocol.getRunFile(rundir.HISTORY)
    deadline = time.monotonic() + 240
    while not os.path.exists(history):
        assert time.monotonic() < deadline, "the training wrote no history within 240 s"
        time.sleep(0.2)
    project.stopProtocol(protocol)
    assert not rundir.is_finished(protocol.getRunFolder(), "train")
    with open(history) as file:
        before = file.read().splitlines()
    protocol.runMode.set(MODE_RESUME)
    launched(project, protocol)
    with open(history) as file:
        after = file.read().splitlines()
    assert len(after) == 1 + 4
    assert after[:len(before)] == before
    with open(protocol.getRunFile(rundir.LOG)) as file:
        assert "resumed after epoch" in file.read()
    assert protocol.outputParticles.getSize() == NUMBER


# ------------------------------------------------------------------ what other tools do with our outputs
def test_a_subset_by_ids_keeps_ids_latent_points_and_model(project, domain, train, gmm):
    """As a selection in a viewer becomes a run."""
    from pwem.protocols import ProtUserSubSet
    chosen = ids_of(train.outputParticles)[3:40:4]
    with open("chosen.txt", "w") as file:
        file.write(" ".join(str(number) for number in chosen))
    protocol = connected(project, ProtUserSubSet, "subset", inputObject=(train, "outputParticles"), sqliteFile="chosen.txt,",
                         outputClassName="SetOfParticlesFlex")
    output = next(output for _, output in launched(project, protocol).iterOutputAttributes())
    expected = {item.getObjId(): item.getZFlex() for item in train.outputParticles}
    assert ids_of(output) == chosen
    assert all(np.array_equal(item.getZFlex(), expected[item.getObjId()]) for item in output)
    again = gmm["GmmHetProtAnalyze"]()
    again.inputParticles.set(output)
    assert again.validate() == []


def test_a_single_class_and_a_latent_point_can_be_reconstructed(project, gmm, analyze, train):
    z = ",".join("%.6f" % value for value in train.outputParticles.getFirstItem().getZFlex())
    protocol = launched(project, connected(project, gmm["GmmHetProtReconstruct"], "near", inputParticles=(train, "outputParticles"), near=z,
                                           k=100, useGpu=False, numberOfThreads=2))
    assert protocol.outputVolume.hasHalfMaps()
    assert protocol.outputFSCs.getSize() >= 1
    single = gmm["GmmHetProtReconstruct"]()
    single.inputParticles.set(analyze.outputClasses[1])
    assert single.validate() == []
    assert single._classIds() == [0]


ANNOTATE = """
import importlib.util, json, sys
path, folder, template = sys.argv[1:]
spec = importlib.util.spec_from_file_location("loaded_module", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
program = module.HeterogeneityProgramInterface(_path_template=template, _program_loading_params={"modelFolder": folder, "outdir": "x"})
program.decode_state_from_latent([[0.0, 0.0], [1.0, 0.0]])
"""


def test_annotate_space_decodes_our_latent_points_with_the_arguments_we_give_it(train, tmp_path):
    from gmmhet.plugin import Plugin
    words = Plugin.getAnnotateSpaceArguments(train.outputParticles, gpu_id="0").split()
    given = dict(zip(words[::2], words[1::2]))
    assert given["--gpu_id"] == "0" and "--env_name" not in given
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", ANNOTATE, given["--server_functions_path"], given["--modelFolder"],
                           str(tmp_path / "state_{:02d}.mrc")], check=False, env=environ, cwd=str(tmp_path), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    with mrcfile.open(str(tmp_path / "state_01.mrc")) as first, mrcfile.open(str(tmp_path / "state_02.mrc")) as second:
        assert first.data.shape == (BOX, BOX, BOX)
        assert 0.5 < synthetic.correlation(first.data, second.data) < 1
