"""Menu, forms, validation and the command that starts the engine: everything that happens before a protocol runs."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import synthetic
from pwem.objects import AtomStruct, AtomStructFlex, SetOfParticles, SetOfParticlesFlex, Volume, VolumeMask
from pyworkflow.protocol.constants import LEVEL_ADVANCED

from gmmhet import plugin
from gmmhet.engine import config, rundir
from gmmhet.protocols import GmmHetProtAnalyze, GmmHetProtFit, GmmHetProtReconstruct, GmmHetProtRefine, GmmHetProtTrain
from gmmhet.protocols import protocol_base as base
from gmmhet.protocols.form import fieldName, wordsOfForm

PROTOCOLS = [GmmHetProtFit, GmmHetProtTrain, GmmHetProtRefine, GmmHetProtAnalyze, GmmHetProtReconstruct]
NAMES = [cls.__name__ for cls in PROTOCOLS]
each_protocol = pytest.mark.parametrize("cls", PROTOCOLS, ids=NAMES)


# ------------------------------------------------------------------ menu
def protocols_below(nodes, path=()):
    """(path of texts, protocol) of every leaf of a menu tree."""
    for node in nodes:
        if node.get("tag") == "protocol":
            yield path, node["value"]
        else:
            yield from protocols_below(node.get("children", []), (*path, node["text"]))


@pytest.fixture(scope="module")
def menu():
    """Our menu file: dict of tree name to leaves."""
    import configparser
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read(os.path.join(plugin.PACKAGE, "protocols.conf"))
    return {name: list(protocols_below(json.loads(tree))) for name, tree in parser.items("PROTOCOLS")}


def test_the_menu_lists_the_five_protocols_under_spa_heterogeneity(menu):
    assert menu["Protocols SPA"] == [(("3D", "Analysis", "Heterogeneity"), name) for name in NAMES]


def test_the_menu_lists_the_five_protocols_in_the_flexibility_hub(menu):
    assert sorted(name for _, name in menu["Flexibility Hub"]) == sorted(NAMES)
    assert {path[0] for path, _ in menu["Flexibility Hub"]} == {"Landscape estimation", "Data analysis", "Map reconstruction"}


def test_scipion_shows_both_trees_with_our_protocols(domain):
    from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig

    def values(node):
        found = [node.value] if getattr(node, "value", None) else []
        return found + [value for child in node.childs for value in values(child)]
    trees = ProtocolTreeConfig.load(domain, os.path.join(os.path.dirname(sys.modules["pwem"].__file__), "protocols.conf"))
    for tree in ("Protocols SPA", "Flexibility Hub"):
        assert set(NAMES) <= set(values(trees[tree]))


def test_the_plugin_has_logo_templates_and_references(domain):
    import gmmhet
    module = domain.getPlugins()["gmmhet"]
    assert os.path.exists(os.path.join(plugin.PACKAGE, gmmhet._logo))
    assert module._pluginInstance.getName() == "gmmhet"
    assert [template.name for template in module._pluginInstance.getTemplates()] == ["gmmhet_landscape"]
    assert "Chen2021" in module._bibtex and "McInnes2018" in module._bibtex


def test_the_template_makes_the_whole_workflow_with_our_defaults(domain, project, phantom):
    (template,) = domain.getPlugins()["gmmhet"]._pluginInstance.getTemplates()
    template.replaceEnvVariables()
    template.parseContent()
    for alias, value in (("star", os.path.join(phantom, "particles.star")), ("pixel", "4.0"), ("voltage", "200")):
        template.setParamValue(alias, value)
    made = {protocol.getClassName(): protocol for protocol in project.loadProtocols(template.createTemplateFile()).values()}
    assert set(NAMES) <= set(made)
    assert made["ProtImportParticles"].starFile.get() == os.path.join(phantom, "particles.star")
    assert made["ProtImportParticles"].samplingRate.get() == 4.0
    for cls in PROTOCOLS:
        assert config.from_dict(cls._config, made[cls.__name__]._formValues()) == cls._config()
    assert made["GmmHetProtTrain"].inputGaussians.getUniqueId() == "%d.outputPseudoAtoms" % made["GmmHetProtFit"].getObjId()
    assert made["GmmHetProtReconstruct"].inputParticles.getUniqueId() == "%d.outputClasses" % made["GmmHetProtAnalyze"].getObjId()


# ------------------------------------------------------------------ forms
@each_protocol
def test_every_parameter_has_a_field_or_is_left_out_on_purpose(cls):
    form = dict(cls().getDefinition().iterParams())
    left_out = base.SET_BY_SCIPION + cls._fromInputs + cls._notShown
    for field in config.parameters(cls._config):
        assert (fieldName(field.name) in form) != (field.name in left_out), field.name


@each_protocol
def test_what_is_left_out_are_parameters_of_the_stage(cls):
    assert set(cls._fromInputs + cls._notShown) <= {field.name for field in config.parameters(cls._config)}


@each_protocol
def test_an_untouched_form_gives_the_defaults_of_the_engine(cls):
    given = config.from_dict(cls._config, cls()._formValues())
    assert given == cls._config()


@each_protocol
def test_expert_parameters_are_advanced_and_the_others_are_not(cls):
    form = cls().getDefinition()
    for field in cls._shownParameters():
        assert (form.getParam(fieldName(field.name)).expertLevel.get() == LEVEL_ADVANCED) == field.metadata["expert"]


@each_protocol
def test_the_input_tab_is_small(cls):
    section = cls().getDefinition().getSection("Input")
    assert sum(1 for name, param in section.iterParams() if param.label.get()) <= 13


@each_protocol
def test_labels_units_and_helps_come_from_the_parameters(cls):
    form = cls().getDefinition()
    for field in cls._shownParameters():
        param = form.getParam(fieldName(field.name))
        assert param.help.get() == wordsOfForm(field.metadata["help"], cls._config)
        assert field.metadata["unit"] in param.label.get()


@each_protocol
def test_no_field_hides_an_attribute_of_scipions_protocol(cls):
    from pwem.protocols import EMProtocol
    taken = set(dir(EMProtocol()))
    assert [fieldName(field.name) for field in cls._shownParameters() if fieldName(field.name) in taken] == []


def test_a_help_text_names_labels_instead_of_flags():
    assert wordsOfForm("needs --motion-region, not --else", config.AnalyzeConfig) == "needs *Motion region*, not --else"


def test_the_protocol_that_only_the_cpu_runs_has_no_gpu_field():
    protocol = GmmHetProtReconstruct()
    assert not protocol.allowsGpu() and not protocol.usesGpu()
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("cls", PROTOCOLS[:-1], ids=NAMES[:-1])
def test_threads_and_gpus_can_be_chosen(cls):
    protocol = cls(numberOfThreads=3, gpuList="1", useGpu=True)
    assert protocol.getBinThreads() == 3
    assert protocol.usesGpu() and protocol.getGpuList() == [1]
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == "1"
    protocol.useGpu.set(False)
    assert protocol._engineEnviron()["CUDA_VISIBLE_DEVICES"] == ""


@each_protocol
def test_a_changed_parameter_changes_the_arguments_of_the_steps(cls):
    protocol = cls()
    before = protocol._settings()
    protocol.seed.set(2)
    assert protocol._settings() != before
    assert json.loads(before)["parameters"]["seed"] == 1


@each_protocol
def test_every_output_that_is_promised_has_a_class(cls):
    from pwem.objects import EMObject
    assert cls._possibleOutputs and all(issubclass(kind, EMObject) for kind in cls._possibleOutputs.values())


# ------------------------------------------------------------------ validation
def finished_run(folder, stage):
    """A folder that looks like a finished run."""
    os.makedirs(str(folder), exist_ok=True)
    for name in rundir.FILES[stage] + (rundir.SUMMARY,):
        with open(os.path.join(str(folder), name), "w") as file:
            file.write("{\"figure\": 1}")
    return str(folder)


def particles_in(path, cls=SetOfParticles, number=3):
    """A small set with alignment, CTF and acquisition."""
    from pwem.objects import CTFModel, Particle, ParticleFlex
    made = cls(filename=str(path))
    made.setSamplingRate(2.0)
    made.setHasCTF(True)
    made.setAlignmentProj()
    made._firstDim.set((64, 64, 1))
    for i in range(number):
        item = (ParticleFlex if cls is SetOfParticlesFlex else Particle)()
        item.setLocation(i + 1, "stack.mrcs")
        ctf = CTFModel()
        ctf.setStandardDefocus(12000.0, 11000.0, 10.0)
        item.setCTF(ctf)
        item.setTransform(_identity())
        SetOfParticles.__base__.__base__.append(made, item)     # SetOfImages would open the stack
    made.write()
    return made


def _identity():
    from pwem.objects import Transform
    transform = Transform()
    transform.setMatrix(np.eye(4))
    return transform


@pytest.fixture
def trained(tmp_path):
    """Trained particles, their model and their Gaussians."""
    made = particles_in(tmp_path / "flex.sqlite", SetOfParticlesFlex)
    base.markFlex(made, finished_run(tmp_path / "train", "train"))
    return made


@pytest.fixture
def gaussians(tmp_path):
    made = AtomStructFlex(filename="gmm.cif")
    base.markFlex(made, finished_run(tmp_path / "fit", "fit"), "gmmFolder")
    return made


def problems_of(cls, **values):
    """What validation says; pointers are given as objects."""
    protocol = cls()
    for name, value in values.items():
        getattr(protocol, name).set(value)
    return " ".join(protocol.validate())


def a_map(path, pixel_size=synthetic.PIXEL_SIZE, cls=Volume):
    synthetic.write_map(str(path), pixel_size)
    volume = cls(location=str(path))
    volume.setSamplingRate(pixel_size)
    return volume


@pytest.mark.parametrize("cls, name", [(GmmHetProtTrain, "Particles"), (GmmHetProtRefine, "Trained particles"),
                                       (GmmHetProtAnalyze, "Trained particles"), (GmmHetProtReconstruct, "Particles or classes")])
def test_an_empty_form_is_refused_with_the_name_of_the_field(cls, name):
    assert "*%s* cannot be EMPTY." % name in problems_of(cls)


def test_fit_wants_a_map_or_particles(tmp_path):
    assert "Give a consensus map or particles." in problems_of(GmmHetProtFit)
    both = problems_of(GmmHetProtFit, inputVolume=a_map(tmp_path / "map.mrc"), inputParticles=particles_in(tmp_path / "p.sqlite"))
    assert "not both" in both


def test_fit_accepts_a_map(tmp_path):
    assert problems_of(GmmHetProtFit, inputVolume=a_map(tmp_path / "map.mrc")) == ""


def test_fit_refuses_a_mask_of_another_pixel_size_with_the_numbers(tmp_path):
    said = problems_of(GmmHetProtFit, inputVolume=a_map(tmp_path / "map.mrc"), inputMask=a_map(tmp_path / "mask.mrc", 2.0, VolumeMask))
    assert "The mask is 32 px of 2 Å, the map 32 px of 4 Å" in said


def test_fit_takes_an_atomic_model_beside_the_map_and_hands_its_file_to_the_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = dict(inputVolume=a_map(tmp_path / "map.mrc"), inputAtoms=AtomStruct(filename="model.cif"))
    assert problems_of(GmmHetProtFit, **inputs) == ""
    protocol = GmmHetProtFit(workingDir="Runs/1")
    for name, value in inputs.items():
        getattr(protocol, name).set(value)
    assert protocol._inputValues()["atoms"] == "model.cif"
    protocol.inputAtoms.set(None)
    assert protocol._inputValues()["atoms"] == ""


def test_fit_refuses_pseudo_atoms_for_an_atomic_model(tmp_path):
    said = problems_of(GmmHetProtFit, inputVolume=a_map(tmp_path / "map.mrc"), inputAtoms=AtomStruct(filename="x.cif", pseudoatoms=True))
    assert "The atomic model holds pseudo-atoms, which have neither chains nor residues" in said


def test_a_symmetry_that_is_no_point_group_of_ours_is_refused_with_its_label(tmp_path, gaussians):
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians,
                       symmetry="tetrahedral")
    assert "*Symmetry* must be cN or dN (such as c3 or d2), got 'tetrahedral'." in said


def test_train_accepts_good_input(tmp_path, gaussians):
    assert problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians) == ""


@pytest.mark.parametrize("field, value, said", [
    ("learningRate", 5.0, "*Learning rate* must be at most 1.0, got 5.0"), ("latentDim", 0, "*Latent dim* must be at least 1, got 0"),
    ("vary", "position,color", "*Vary* must name some of amplitude, position, width, separated by commas, got 'position,color'"),
    ("heldOut", 2.0, "*Held out* must be at most 0.9, got 2.0")])
def test_a_value_out_of_range_is_refused_with_its_label(tmp_path, gaussians, field, value, said):
    assert said in problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians,
                               **{field: value})


def test_train_refuses_pseudo_atoms_that_are_not_ours(tmp_path):
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=AtomStructFlex(filename="x.cif"))
    assert "was not made by the 'fit' protocol of gmmhet" in said


def test_train_refuses_a_fit_whose_files_are_gone(tmp_path, gaussians):
    os.remove(str(tmp_path / "fit" / "gmm.npz"))
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians)
    assert "it lacks gmm.npz" in said


def test_train_refuses_particles_without_alignment(tmp_path, gaussians):
    particles = particles_in(tmp_path / "p.sqlite")
    particles.setAlignment("None")
    assert "no projection alignment (their alignment is 'None')" in problems_of(GmmHetProtTrain, inputParticles=particles,
                                                                                inputGaussians=gaussians)


def test_train_refuses_an_empty_set(tmp_path, gaussians):
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite", number=0), inputGaussians=gaussians)
    assert "The set of particles is empty" in said


@pytest.mark.parametrize("pixel_size, box, rescale, refused", [(2.0, 64, False, False), (4.0, 32, False, True), (2.0, 60, False, True),
                                                               (4.0, 32, True, False)])
def test_train_refuses_gaussians_of_another_grid_with_the_numbers(tmp_path, gaussians, pixel_size, box, rescale, refused):
    with open(str(tmp_path / "fit" / rundir.SUMMARY), "w") as file:
        json.dump({"pixel_size": pixel_size, "box": box}, file)
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians, rescaleMap=rescale)
    expected = "The Gaussians were fitted to a map of %d px of %.4g Å, the particles have 64 px of 2 Å" % (box, pixel_size)
    assert (expected in said) == refused and bool(said) == refused


def test_train_refuses_a_region_given_twice(tmp_path, gaussians):
    said = problems_of(GmmHetProtTrain, inputParticles=particles_in(tmp_path / "p.sqlite"), inputGaussians=gaussians,
                       region="sphere:0,0,0,20", inputRegion=a_map(tmp_path / "mask.mrc", cls=VolumeMask))
    assert "A region is given twice, as text ('sphere:0,0,0,20') and as a mask" in said


def test_train_warns_of_few_particles(tmp_path):
    protocol = GmmHetProtTrain()
    protocol.inputParticles.set(particles_in(tmp_path / "p.sqlite"))
    assert "There are only 3 particles" in protocol.warnings()[0]


def test_a_phase_shift_that_is_the_amplitude_contrast_of_eman_is_doubted(tmp_path):
    particles = particles_in(tmp_path / "p.sqlite", number=1000)
    particles.getAcquisition().setAmplitudeContrast(0.1)
    protocol = GmmHetProtTrain()
    protocol.inputParticles.set(particles)
    assert protocol.warnings() == []
    item = particles.getFirstItem().clone()
    item.getCTF().setPhaseShift(float(np.degrees(np.arcsin(0.1))))
    particles.getFirstItem = lambda: item
    assert "The phase shift of the particles (5.74°) is that of their amplitude contrast (0.1)" in protocol.warnings()[0]


@pytest.mark.parametrize("cls", [GmmHetProtRefine, GmmHetProtAnalyze])
def test_flex_particles_of_another_program_are_refused_with_its_name(cls, tmp_path):
    other = particles_in(tmp_path / "p.sqlite", SetOfParticlesFlex)
    other.getFlexInfo().setProgName("Zernike3D")
    assert "was not made by the 'train' protocol of gmmhet (program 'Zernike3D')" in problems_of(cls, inputParticles=other)


@pytest.mark.parametrize("cls", [GmmHetProtRefine, GmmHetProtAnalyze, GmmHetProtReconstruct])
def test_trained_particles_are_accepted(cls, trained):
    assert problems_of(cls, inputParticles=trained) == ""


def test_analyze_refuses_localised_motion_without_a_region(trained):
    said = problems_of(GmmHetProtAnalyze, inputParticles=trained, line="pc1,motion1")
    assert "*Line* asks for a localised motion ('pc1,motion1'), which needs a motion region" in said


def test_reconstruct_refuses_a_latent_point_for_particles_without_one(tmp_path):
    said = problems_of(GmmHetProtReconstruct, inputParticles=particles_in(tmp_path / "p.sqlite"), near="0,0")
    assert "was not made by the 'train' protocol" in said


def test_analyze_cites_umap_only_when_it_is_used():
    protocol = GmmHetProtAnalyze()
    assert protocol._citations() == ["Chen2021"]
    protocol.embedding.set(1)
    assert protocol._citations() == ["Chen2021", "McInnes2018"]


# ------------------------------------------------------------------ summary
def test_a_summary_before_the_run_says_that_it_is_not_finished():
    assert GmmHetProtFit()._summary() == ["Not finished yet."]


def test_a_summary_gives_the_figures_that_the_run_has_with_their_units():
    found = {"angle_change_rms_deg": 1.234, "shift_change_rms_angst": None, "gain": 0.5, "seed": 1}
    assert base.figureLines(found, GmmHetProtRefine._figures) == ["Orientations changed by *1.23°* rms",
                                                                  "Agreement rose by *0.5* nats a particle"]
    assert base.figureLines({"clusters": [7, 5]}, GmmHetProtAnalyze._figures) == ["Particles per class: *7, 5*"]


# ------------------------------------------------------------------ a run that was stopped
@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A fit whose engine only notes how it was started: (protocol, list of requests)."""
    monkeypatch.chdir(tmp_path)
    protocol, requests = GmmHetProtFit(workingDir="Runs/1"), []
    os.makedirs(protocol._getExtraPath())
    os.makedirs(protocol._getTmpPath())
    protocol.inputVolume.set(a_map(tmp_path / "map.mrc"))

    def note(program, arguments, env):
        requests.append(rundir.read_json(arguments.split("--config ")[1]))
        os.makedirs(protocol.getRunFolder(), exist_ok=True)
        with open(protocol.getRunFile(rundir.CONFIG), "w") as file:
            json.dump(requests[-1], file)
    monkeypatch.setattr(protocol, "runJob", note)
    return protocol, requests


def test_a_stopped_run_is_resumed(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, True]
    assert requests[0]["map"].endswith("map.mrc") and requests[0]["out"] == "Runs/1/extra/fit"


def test_a_run_whose_parameters_changed_starts_afresh(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    with open(protocol.getRunFile("left_over.txt"), "w"):
        pass
    protocol.steps.set(7)
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, False]
    assert not os.path.exists(protocol.getRunFile("left_over.txt"))


def test_threads_may_change_when_a_run_is_resumed(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    protocol.numberOfThreads.set(1)
    protocol._runEngine()
    assert [request["resume"] for request in requests] == [False, True]
    assert requests[1]["threads"] == 1


def test_a_finished_run_is_not_started_again(stopped):
    protocol, requests = stopped
    protocol._runEngine()
    finished_run(protocol.getRunFolder(), "fit")
    protocol._runEngine()
    assert len(requests) == 1


# ------------------------------------------------------------------ where the engine runs
@pytest.fixture
def activation(monkeypatch):
    """Function that sets GMMHET_ENV_ACTIVATION and whether TensorFlow is in Scipion's Python."""
    def choose(command, own):
        monkeypatch.setitem(plugin.Plugin._vars, "GMMHET_ENV_ACTIVATION", command)
        monkeypatch.setattr(plugin, "ownPythonHasEngine", lambda: own)
        plugin._missingEnvironment.cache_clear()
    yield choose
    plugin._missingEnvironment.cache_clear()


def test_with_tensorflow_the_engine_runs_in_scipions_own_python(activation, tmp_path):
    activation("", True)
    command = plugin.Plugin.getEngineCommand(str(tmp_path))
    assert command == "PYTHONPATH=%s %s -m gmmhet.engine.cli" % (tmp_path / "python", sys.executable)
    assert plugin.Plugin.validateInstallation() == []


def test_without_tensorflow_the_message_says_how_to_get_it(activation):
    activation("", False)
    assert "scipion3 pip install tensorflow" in plugin.Plugin.validateInstallation()[0]


def test_a_missing_conda_environment_is_said_with_the_command_that_makes_it(activation):
    activation("conda activate " + plugin.Plugin.getEnvName(), False)
    (said,) = plugin.Plugin.validateInstallation()
    assert "Run: scipion3 installb gmmhet" in said and "environment_ready" in said


def test_source_is_refused_because_the_shell_has_none(activation):
    activation("source /opt/env/bin/activate", False)
    assert "Write: . /opt/env/bin/activate" in plugin.Plugin.validateInstallation()[0]


def test_an_activation_script_that_does_not_exist_is_named(activation, tmp_path):
    activation(". %s/bin/activate" % tmp_path, False)
    assert "'%s/bin/activate' does not exist" % tmp_path in plugin.Plugin.validateInstallation()[0]


def test_an_activated_environment_gets_this_package_and_nothing_else_of_scipions_python(activation, tmp_path):
    """The command is run: a stand-in environment whose 'python' reports what it can see."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho \"$PYTHONPATH\"; ls \"$PYTHONPATH\"; echo \"$@\"\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "activate").write_text("PATH=%s/bin:$PATH\n" % tmp_path)
    activation(". %s/activate" % tmp_path, False)
    assert plugin.Plugin.validateInstallation() == []
    command = plugin.Plugin.getEngineCommand(str(tmp_path / "run folder"))
    environ = dict(plugin.Plugin.getEnviron())
    assert "PYTHONPATH" not in environ
    out = subprocess.run(["/bin/sh", "-c", command + " fit --config a.json"], check=True, env=environ, capture_output=True,
                         text=True).stdout
    assert out.splitlines() == [str(tmp_path / "run folder" / "python"), "gmmhet", "-m gmmhet.engine.cli fit --config a.json"]


def test_the_engine_starts_with_the_command_and_says_which_stages_it_has(tmp_path):
    command = plugin.Plugin.getEngineCommand(str(tmp_path)) + " --help"
    out = subprocess.run(["/bin/sh", "-c", command], check=True, env=dict(plugin.Plugin.getEnviron()), cwd=str(tmp_path),
                         capture_output=True, text=True).stdout
    assert all(stage in out for stage in config.STAGES)


def test_binaries_declare_a_conda_environment_with_the_engines_packages(monkeypatch):
    monkeypatch.setattr(plugin, "engineRequirements", lambda: ["numpy", "tensorflow[and-cuda]>=2.18"])
    declared = {}

    class Environment:
        def addPackage(self, name, **options):
            declared.update(options, name=name)
    plugin.Plugin.defineBinaries(Environment())
    ((command, target),) = declared["commands"]
    assert "conda create -y -n gmmhet-" in command and "'tensorflow[and-cuda]>=2.18'" in command
    assert command.endswith("touch " + target)


def test_requirements_of_the_environment_are_those_of_the_package_with_gpu_tensorflow(monkeypatch):
    needed = ["scipion-em>=3.11", "numpy", "mrcfile>=1.4", 'tensorflow>=2.18; python_version >= "3.10"', 'h5py; python_version >= "3.10"',
              'tensorflow[and-cuda]>=2.18; python_version >= "3.10" and extra == "gpu"', 'pytest; extra == "dev"']
    monkeypatch.setattr(plugin.importlib_metadata, "requires", lambda name: needed)
    assert plugin.engineRequirements() == ["numpy", "mrcfile>=1.4", "tensorflow[and-cuda]>=2.18", "h5py"]
