"""The plugin: menu, template, where the engine runs, and the command that starts it."""
import json
import os
import subprocess
import sys

import pytest
from inputs import NAMES, PROTOCOLS

from gmmhet import plugin
from gmmhet.engine import config


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
    assert {path[0] for path, _ in menu["Flexibility Hub"]} == {"Landscape estimation", "Data analysis",
                                                                "Map reconstruction"}


def test_scipion_shows_both_trees_with_our_protocols(domain):
    from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig

    def values(node):
        own = [node.value] if getattr(node, "value", None) else []
        return own + [value for child in node.childs for value in values(child)]
    trees = ProtocolTreeConfig.load(domain, os.path.join(os.path.dirname(sys.modules["pwem"].__file__),
                                                         "protocols.conf"))
    for tree in ("Protocols SPA", "Flexibility Hub"):
        assert set(NAMES) <= set(values(trees[tree]))


def test_the_plugin_has_logo_templates_and_references(domain):
    import gmmhet
    module = domain.getPlugins()["gmmhet"]
    assert os.path.exists(os.path.join(plugin.PACKAGE, gmmhet._logo))
    assert module._pluginInstance.getName() == "gmmhet"
    assert [template.name for template in module._pluginInstance.getTemplates()] == ["gmmhet_landscape"]
    assert "Chen2021" in module._bibtex and "McInnes2018" in module._bibtex


def test_the_template_makes_the_whole_workflow_with_our_defaults(domain, project, tmp_path):
    star = tmp_path / "run_data.star"
    star.touch()
    (template,) = domain.getPlugins()["gmmhet"]._pluginInstance.getTemplates()
    template.replaceEnvVariables()
    template.parseContent()
    for alias, value in (("star", str(star)), ("pixel", "4.0"), ("voltage", "200")):
        template.setParamValue(alias, value)
    protocols = {protocol.getClassName(): protocol
                 for protocol in project.loadProtocols(template.createTemplateFile()).values()}
    assert set(NAMES) <= set(protocols)
    assert protocols["ProtImportParticles"].starFile.get() == str(star)
    assert protocols["ProtImportParticles"].samplingRate.get() == 4.0
    for cls in PROTOCOLS:
        assert config.from_dict(cls._config, protocols[cls.__name__]._formValues()) == cls._config()
    pointers = [protocols["GmmHetProtTrain"].inputGaussians,
                protocols["GmmHetProtReconstruct"].inputParticles]
    assert [pointer.getUniqueId() for pointer in pointers] == [
        "%d.outputPseudoAtoms" % protocols["GmmHetProtFit"].getObjId(),
        "%d.outputClasses" % protocols["GmmHetProtAnalyze"].getObjId()]


# ------------------------------------------------------------------ where the engine runs
@pytest.fixture
def activation(monkeypatch):
    """Function that sets GMMHET_ENV_ACTIVATION and whether TensorFlow is in Scipion's Python."""
    def choose(command, own):
        monkeypatch.setitem(plugin.Plugin._vars, "GMMHET_ENV_ACTIVATION", command)
        monkeypatch.setattr(plugin, "own_python_has_engine", lambda: own)
        plugin._environment_problems.cache_clear()
    yield choose
    plugin._environment_problems.cache_clear()


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
    (text,) = plugin.Plugin.validateInstallation()
    assert "Run: scipion3 installb gmmhet" in text and "environment_ready" in text


def test_source_is_refused_because_the_shell_has_none(activation):
    activation("source /opt/env/bin/activate", False)
    assert "Write: . /opt/env/bin/activate" in plugin.Plugin.validateInstallation()[0]


def test_an_activation_script_that_does_not_exist_is_named(activation, tmp_path):
    activation(". %s/bin/activate" % tmp_path, False)
    assert "'%s/bin/activate' does not exist" % tmp_path in plugin.Plugin.validateInstallation()[0]


def test_an_activated_environment_gets_this_package_and_nothing_else_of_scipions_python(activation, tmp_path):
    """The command is run: a stand-in environment whose 'python' reports what it can see."""
    (tmp_path / "bin").mkdir()
    script = '#!/bin/sh\necho "$PYTHONPATH"; ls "$PYTHONPATH"; echo "$@"\n'
    (tmp_path / "bin" / "python").write_text(script)
    (tmp_path / "bin" / "python").chmod(0o755)
    (tmp_path / "activate").write_text("PATH=%s/bin:$PATH\n" % tmp_path)
    activation(". %s/activate" % tmp_path, False)
    assert plugin.Plugin.validateInstallation() == []
    command = plugin.Plugin.getEngineCommand(str(tmp_path / "run folder"))
    environ = dict(plugin.Plugin.getEnviron())
    assert "PYTHONPATH" not in environ
    out = subprocess.run(["/bin/sh", "-c", command + " fit --config a.json"], check=True, env=environ,
                         capture_output=True, text=True).stdout
    assert out.splitlines() == [str(tmp_path / "run folder" / "python"), "gmmhet",
                                "-m gmmhet.engine.cli fit --config a.json"]


def test_the_engine_starts_with_the_command_and_says_which_stages_it_has(tmp_path):
    command = plugin.Plugin.getEngineCommand(str(tmp_path)) + " --help"
    out = subprocess.run(["/bin/sh", "-c", command], check=True, env=dict(plugin.Plugin.getEnviron()),
                         cwd=str(tmp_path), capture_output=True, text=True).stdout
    assert all(stage in out for stage in config.STAGES)


def test_binaries_declare_a_conda_environment_with_the_engines_packages(monkeypatch):
    monkeypatch.setattr(plugin, "engine_requirements", lambda: ["numpy", "tensorflow[and-cuda]>=2.18"])
    declared = {}

    class Environment:
        def addPackage(self, name, **options):
            declared.update(options, name=name)
    plugin.Plugin.defineBinaries(Environment())
    ((command, target),) = declared["commands"]
    assert "conda create -y -n gmmhet-" in command and "'tensorflow[and-cuda]>=2.18'" in command
    assert command.endswith("touch " + target)


def test_requirements_of_the_environment_are_those_of_the_package_with_gpu_tensorflow(monkeypatch):
    needed = ["scipion-em>=3.11", "numpy", "mrcfile>=1.4", 'tensorflow>=2.18; python_version >= "3.10"',
              'h5py; python_version >= "3.10"', 'pytest; extra == "dev"',
              'tensorflow[and-cuda]>=2.18; python_version >= "3.10" and extra == "gpu"']
    monkeypatch.setattr(plugin.importlib_metadata, "requires", lambda name: needed)
    assert plugin.engine_requirements() == ["numpy", "mrcfile>=1.4", "tensorflow[and-cuda]>=2.18", "h5py"]
