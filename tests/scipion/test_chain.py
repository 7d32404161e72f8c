"""The whole chain in a real Scipion project: import, a RELION reconstruction, and the five protocols on top
of it.

The training is stopped once and resumed; on a subset of its particles follows a second stage, and on that
everything else: so every run serves several facts.
"""
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import synthetic
from pwem.objects import SetOfParticlesFlex
from pyworkflow.protocol.constants import MODE_RESUME
from steps import connected, ids_of, import_star, launched

from gmmhet import convert
from gmmhet.engine import rundir

pytestmark = [pytest.mark.relion, pytest.mark.slow]

NUMBER, BOX, PIXEL_SIZE, EPOCHS = 400, 32, 6.0, 6
#: fields of every form of ours
CPU = dict(useGpu=False, numberOfThreads=2)
#: the networks of Chen & Ludtke, exact poses: what trains most quickly (`make demo` has the defaults)
QUICK = dict(preset=1, poseErrors=1, batchSize=32)


@pytest.fixture(scope="module")
def run(project, domain):
    """Function that runs one of our protocols, or of RELION's: name of the class, label, values of the
    form."""
    def launch(name, label, **values):
        values = {**(CPU if name.startswith("Gmm") else {}), **values}
        return launched(project, connected(project, domain.getProtocols()[name], label, **values))
    return launch


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Folder of a simulated hinge set."""
    folder = str(tmp_path_factory.mktemp("hinge") / "set")
    values = "--kind hinge --n %d --box %d --pixel-size %g --snr 0.5 --out" % (NUMBER, BOX, PIXEL_SIZE)
    command = [sys.executable, "-m", "gmmhet.engine.cli", "simulate", *values.split(), folder]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def particles(project, truth):
    return import_star(project, os.path.join(truth, rundir.STAR), "import hinge", PIXEL_SIZE)


@pytest.fixture(scope="module")
def consensus(run, particles):
    return run("ProtRelionReconstruct", "consensus", inputParticles=(particles, "outputParticles"),
               doCTF=True)


@pytest.fixture(scope="module")
def fit(run, consensus):
    return run("GmmHetProtFit", "fit", inputVolume=(consensus, "outputVolume"), steps=150)


def history_of(protocol):
    with open(protocol.getRunFile(rundir.HISTORY)) as file:
        return file.read().splitlines()


@pytest.fixture(scope="module")
def stopped(project, domain, particles, fit):
    """A training that was stopped after its first epochs, and its history until then."""
    protocol = connected(project, domain.getProtocols()["GmmHetProtTrain"], "train",
                         inputParticles=(particles, "outputParticles"),
                         inputGaussians=(fit, "outputPseudoAtoms"),
                         vary="position", epochs=EPOCHS, patience=EPOCHS, latentDim=2, **QUICK, **CPU)
    project.launchProtocol(protocol, wait=False)
    deadline = time.monotonic() + 240
    while not os.path.exists(protocol.getRunFile(rundir.HISTORY)):
        assert time.monotonic() < deadline, "the training wrote no history within 240 s"
        time.sleep(0.1)
    project.stopProtocol(protocol)
    assert not rundir.is_finished(protocol.getRunFolder(), "train")
    return protocol, history_of(protocol)


@pytest.fixture(scope="module")
def train(project, stopped):
    protocol, _ = stopped
    protocol.runMode.set(MODE_RESUME)
    return launched(project, protocol)


@pytest.fixture(scope="module")
def subset(run, train):
    """Every second trained particle, as a selection in a viewer becomes a run: the protocol and its output's
    name."""
    with open("subset.txt", "w") as file:
        file.write(" ".join(str(number) for number in ids_of(train.outputParticles)[1::2]))
    protocol = run("ProtUserSubSet", "subset", inputObject=(train, "outputParticles"),
                   sqliteFile="subset.txt,",
                   outputClassName="SetOfParticlesFlex")
    return protocol, next(name for name, _ in protocol.iterOutputAttributes())


@pytest.fixture(scope="module")
def staged(run, train, subset, fit):
    """A further stage on the subset."""
    return run("GmmHetProtTrain", "staged", inputParticles=subset, inputGaussians=(fit, "outputPseudoAtoms"),
               inputContinue=(train, "outputParticles"), vary="amplitude", epochs=2, latentDim=1, **QUICK)


@pytest.fixture(scope="module")
def refine(run, staged):
    return run("GmmHetProtRefine", "refine", inputParticles=(staged, "outputParticles"), steps=2,
               sigmaAngle=3.0,
               sigmaShift=3.0)


@pytest.fixture(scope="module")
def analyze(run, refine):
    return run("GmmHetProtAnalyze", "analyze", inputParticles=(refine, "outputParticles"), clusters=2,
               points=3)


@pytest.fixture(scope="module")
def reconstruct(run, analyze):
    return run("GmmHetProtReconstruct", "reconstruct", inputParticles=(analyze, "outputClasses"))


def parents(project, child):
    """Outputs that an output says it comes from."""
    graph = project.getSourceGraph(True)
    return [node.getName() for node in graph.getNode(str(child.getObjId())).getParents()]


def test_fit_gives_pseudo_atoms_and_the_map_of_the_model(fit, consensus):
    assert fit.outputPseudoAtoms.getPseudoAtoms()
    assert os.path.exists(fit.outputPseudoAtoms.getFileName())
    assert fit.outputVolume.getDim() == (BOX, BOX, BOX)
    assert fit.outputVolume.getSamplingRate() == pytest.approx(PIXEL_SIZE)
    ours, theirs = [synthetic.read_map(protocol.outputVolume.getFileName())
                    for protocol in (fit, consensus)]
    assert synthetic.correlation(ours, theirs) > 0.9


# ------------------------------------------------------------------ train
def test_a_training_that_was_stopped_goes_on_from_its_last_epoch(stopped, train):
    _, before = stopped
    after = history_of(train)
    assert len(after) == 1 + EPOCHS
    assert after[:len(before)] == before
    with open(train.getRunFile(rundir.LOG)) as file:
        assert "resumed after epoch" in file.read()
    assert train.outputParticles.getSize() == NUMBER


def test_train_gives_every_particle_its_latent_point_under_its_own_id(train, particles):
    with np.load(train.getRunFile(rundir.LATENTS)) as latents:
        expected = dict(zip(latents["id"].tolist(), latents["z"]))
    output = train.outputParticles
    assert isinstance(output, SetOfParticlesFlex)
    assert ids_of(output) == ids_of(particles.outputParticles)
    assert output.hasCTF() and output.hasAlignmentProj()
    for item in output:
        assert np.allclose(item.getZFlex(), expected[item.getObjId()])
        assert item.getFlexInfo().getProgName() == "GMM"


def test_train_keeps_images_alignment_and_ctf(train, particles):
    for before, after in zip(particles.outputParticles.iterItems(), train.outputParticles.iterItems()):
        assert after.getLocation() == before.getLocation()
        assert np.array_equal(after.getTransform().getMatrix(), before.getTransform().getMatrix())
        assert after.getCTF().getDefocus() == before.getCTF().getDefocus()


def test_the_trained_set_names_its_model_relative_to_the_project(train):
    folder = train.outputParticles.getFlexInfo().getAttr("modelFolder")
    assert not os.path.isabs(folder)
    assert rundir.missing_run(folder, "train") == ""


def test_training_is_prepared_in_a_step_of_its_own(train):
    names = [step.funcName.get() for step in train.loadSteps()]
    assert names == ["convertInputStep", "prepareStep", "runEngineStep", "createOutputStep"]


@pytest.mark.parametrize("per_step, pauses", [(50000, []), (2 * NUMBER, [2, 4]), (1, list(range(1, EPOCHS)))])
def test_training_of_large_sets_pauses_between_epochs(train, monkeypatch, per_step, pauses):
    monkeypatch.setattr(sys.modules[type(train).__module__], "PARTICLES_PER_STEP", per_step)
    assert train._pauses() == pauses


def test_a_subset_by_ids_keeps_ids_latent_points_and_model(subset, train, domain):
    protocol, name = subset
    output = getattr(protocol, name)
    expected = {item.getObjId(): item.getZFlex() for item in train.outputParticles}
    assert ids_of(output) == sorted(expected)[1::2]
    assert all(np.array_equal(item.getZFlex(), expected[item.getObjId()]) for item in output)
    for cls in ("GmmHetProtRefine", "GmmHetProtAnalyze"):
        following = domain.getProtocols()[cls]()
        following.inputParticles.set(output)
        assert following.validate() == []


def test_a_further_stage_on_a_subset_keeps_the_latent_points_and_adds_its_own(project, staged, subset, train):
    before = {item.getObjId(): item.getZFlex() for item in train.outputParticles}
    protocol, name = subset
    assert ids_of(staged.outputParticles) == ids_of(getattr(protocol, name))
    for item in staged.outputParticles:
        assert len(item.getZFlex()) == 3 and np.allclose(item.getZFlex()[:2], before[item.getObjId()])
    assert [stage["latent_dimensions"] for stage in staged.getSummary()["stages"]] == [[1, 2], [3, 3]]
    assert "on top of an earlier training" in staged.methods()[0]
    assert train.outputParticles.getObjName() in " ".join(parents(project, staged.outputParticles))


# ------------------------------------------------------------------ refine
def test_refine_gives_new_alignment_and_keeps_ids_and_latent_points(refine, staged):
    before = {item.getObjId(): item.clone() for item in staged.outputParticles}
    moved = 0
    for item in refine.outputParticles:
        earlier = before[item.getObjId()]
        assert np.array_equal(item.getZFlex(), earlier.getZFlex())
        moved += not np.allclose(item.getTransform().getMatrix(), earlier.getTransform().getMatrix())
    assert ids_of(refine.outputParticles) == sorted(before)
    assert moved > 0.9 * len(before)


def test_refined_alignment_is_that_of_the_star_file_that_the_engine_wrote(refine, tmp_path):
    convert.write_particles(refine.outputParticles, str(tmp_path / "again.star"))
    ours, theirs = [convert.read_poses(path)
                    for path in (str(tmp_path / "again.star"), refine.getRunFile(rundir.STAR))]
    assert sorted(ours) == sorted(theirs)
    for number, pose in ours.items():
        difference = np.array(pose) - theirs[number]
        difference[:3] = (difference[:3] + 180) % 360 - 180
        assert np.abs(difference).max() < 1e-3


# ------------------------------------------------------------------ analyze
def test_classes_hold_every_particle_once_with_its_own_id(analyze, refine):
    classes = analyze.outputClasses
    assert [item.getObjId() for item in classes] == [1, 2]
    members = [number for item in classes for number in ids_of(item)]
    assert sorted(members) == ids_of(refine.outputParticles)


def test_classes_are_the_clusters_of_the_engine(analyze):
    for item in analyze.outputClasses:
        ids = np.loadtxt(analyze.getRunFile(rundir.cluster_ids(item.getObjId())), dtype=int, ndmin=1)
        assert ids_of(item) == sorted(ids.tolist())


def test_a_class_has_a_map_and_its_particles_have_their_place_in_the_landscape(analyze):
    for item in analyze.outputClasses:
        assert item.getRepresentative().getDim() == (BOX, BOX, BOX)
        assert len(item.getRepresentative().getZFlex()) == 3
        first = item.getFirstItem()
        assert len(first.getZRed()) == 2 and len(first.getZFlex()) == 3
        assert first.getClassId() == item.getObjId()


def test_a_particle_of_a_class_knows_how_probable_the_class_is_by_its_image(analyze):
    with np.load(analyze.getRunFile(rundir.EMBEDDING)) as file:
        expected = dict(zip(file["id"].tolist(), file["probability"].max(1).tolist()))
    for item in analyze.outputClasses:
        probabilities = {particle.getObjId(): particle._gmmProbability.get() for particle in item}
        assert probabilities == pytest.approx({number: expected[number] for number in probabilities},
                                              abs=1e-5)
    assert any("by its image" in line for line in analyze._summary())


def test_images_are_compared_in_the_orientations_of_refine(analyze, refine):
    with open(analyze.getRunFile(rundir.LOG), encoding="utf-8") as file:
        (changed, number), = re.findall(r"(\d+) of the (\d+) particles have another pose", file.read())
    assert int(number) == refine.outputParticles.getSize() and int(changed) > 0.9 * int(number)


def test_the_maps_of_both_trajectories_come_with_their_latent_points(analyze):
    volumes = [volume.clone() for volume in analyze.outputVolumes]
    assert len(volumes) == 6
    assert len({tuple(volume.getZFlex()) for volume in volumes}) == 6
    assert all(volume.getDim() == (BOX, BOX, BOX) for volume in volumes)


def test_a_class_can_be_trained_on_and_reconstructed(analyze, train, fit, domain):
    single, further = [domain.getProtocols()[name]() for name in ("GmmHetProtReconstruct", "GmmHetProtTrain")]
    for protocol in (single, further):
        protocol.inputParticles.set(analyze.outputClasses[1])
    further.inputGaussians.set(fit.outputPseudoAtoms)
    further.inputContinue.set(train.outputParticles)
    assert single.validate() == [] and further.validate() == []
    assert single._classIds() == [0]


# ------------------------------------------------------------------ reconstruct
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
    expected = synthetic.read_map(consensus.outputVolume.getFileName())
    for volume in reconstruct.outputVolumes:
        assert synthetic.correlation(synthetic.read_map(volume.getFileName()), expected) > 0.6


def test_the_particles_near_a_latent_point_can_be_reconstructed(run, train):
    z = ",".join("%.6f" % value for value in train.outputParticles.getFirstItem().getZFlex())
    protocol = run("GmmHetProtReconstruct", "near", inputParticles=(train, "outputParticles"), near=z, k=100)
    assert protocol.outputVolume.hasHalfMaps()
    assert protocol.outputFSCs.getSize() >= 1


# ------------------------------------------------------------------ all protocols
def test_every_output_says_where_it_comes_from(project, fit, train, staged, refine, analyze, reconstruct):
    for protocol in (fit, train, staged, refine, analyze, reconstruct):
        for name, output in protocol.iterOutputAttributes():
            assert parents(project, output) != ["PROJECT"], "%s of %s" % (name, protocol.getObjLabel())


def test_outputs_survive_reloading_the_project(project, train, analyze):
    from pyworkflow.project import Manager
    again = Manager().loadProject(project.getName())
    ours, theirs = [protocol.outputParticles.getFlexInfo().getAttr("modelFolder")
                    for protocol in (train, again.getProtocol(train.getObjId()))]
    assert ours == theirs
    assert again.getProtocol(analyze.getObjId()).outputClasses.getSize() == 2


def test_summaries_and_methods_describe_the_runs(fit, train, refine, analyze, reconstruct):
    for protocol in (fit, train, refine, analyze, reconstruct):
        assert "Not finished" not in " ".join(protocol.summary())
        assert "gmmhet" in " ".join(protocol.methods())


# ------------------------------------------------------------------ what other tools do with our outputs
ANNOTATE = """
import importlib.util, json, sys
path, folder, template = sys.argv[1:]
spec = importlib.util.spec_from_file_location("loaded_module", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
parameters = {"modelFolder": folder, "outdir": "x"}
program = module.HeterogeneityProgramInterface(_path_template=template, _program_loading_params=parameters)
program.decode_state_from_latent([[0.0, 0.0], [1.0, 0.0]])
"""


def test_annotate_space_decodes_our_latent_points_with_the_arguments_we_give_it(train, tmp_path):
    from gmmhet.plugin import Plugin
    words = Plugin.getAnnotateSpaceArguments(train.outputParticles, gpu_id="0").split()
    options = dict(zip(words[::2], words[1::2]))
    assert options["--gpu_id"] == "0" and "--env_name" not in options
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ANNOTATE, options["--server_functions_path"], options["--modelFolder"],
               str(tmp_path / "state_{:02d}.mrc")]
    done = subprocess.run(command, check=False, env=environ, cwd=str(tmp_path), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    first, second = [synthetic.read_map(str(tmp_path / ("state_%02d.mrc" % i))) for i in (1, 2)]
    assert first.shape == (BOX, BOX, BOX)
    assert 0.5 < synthetic.correlation(first, second) < 1
