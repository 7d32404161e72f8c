"""Scipion on Python 3.8, where TensorFlow cannot be, with the engine in another environment: forms,
validation and a real run."""
import glob
import json
import os
import subprocess
import sys

import pytest
import synthetic
from registered import folder_with_plugin

NAMES = ["GmmHetProtAnalyze", "GmmHetProtFit", "GmmHetProtReconstruct", "GmmHetProtRefine", "GmmHetProtTrain"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FORMS = """
import json, sys
from pyworkflow import Config
protocols = Config.getDomain().getProtocols()
said = {name: [len(dict(cls().getDefinition().iterParams())), cls().validate()]
        for name, cls in protocols.items() if name in %r}
loaded = [name for name in ("tensorflow", "numba") if name in sys.modules]
print(json.dumps({"python": sys.version_info[:2], "said": said, "loaded": loaded}))
"""

FIT = """
import json, os, sys
from pyworkflow import Config
Config.getDomain().getProtocols()
from pyworkflow.project import Manager
from pwem.protocols import ProtImportVolumes
from gmmhet.protocols import GmmHetProtFit
manager = Manager()
project = manager.createProject("fit_on_python38")
os.chdir(project.path)
maps = project.newProtocol(ProtImportVolumes, filesPath=%r, samplingRate=%r)
project.launchProtocol(maps, wait=True)
fit = project.newProtocol(GmmHetProtFit, steps=20, useGpu=False, numberOfThreads=2)
fit.inputVolume.set(maps)
fit.inputVolume.setExtended("outputVolume")
project.launchProtocol(fit, wait=True)
log = "".join(open(path).read()[-3000:] for path in fit.getLogPaths()[:2] if os.path.exists(path))
found = {"error": fit.getErrorMessage(), "log": log, "summary": fit.getSummary()}
if hasattr(fit, "outputPseudoAtoms"):
    found.update(atoms=os.path.exists(fit.outputPseudoAtoms.getFileName()), box=fit.outputVolume.getDim()[0],
                 pixel_size=fit.outputVolume.getSamplingRate())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python38(tmp_path_factory):
    """Function that runs code on a Python 3.8 that has Scipion, in a Scipion home of its own, and reads the
    JSON that it prints last."""
    named = [os.environ.get("GMMHET_PY38", ""), os.path.join(ROOT, ".venv38", "bin", "python"),
             *sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.8*/bin/python"))), "python3.8"]
    python = next((path for path in named if path and has_scipion(path)), None)
    if python is None:
        pytest.skip("no Python 3.8 with Scipion was found: name one in GMMHET_PY38")
    home = str(tmp_path_factory.mktemp("home38"))
    environ = dict(os.environ, PYTHONPATH=folder_with_plugin(home), SCIPION_PYTHON=python,
                   SCIPION_USER_DATA=os.path.join(home, "data"),
                   PATH=os.path.dirname(python) + os.pathsep + os.environ["PATH"])

    def run(code, **variables):
        done = subprocess.run([python, "-W", "ignore", "-c", code], check=False,
                              env=dict(environ, **variables), cwd=home,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])
    return run


def has_scipion(python):
    """Whether `python` is a Python 3.8 that can import pwem."""
    code = "import sys, pwem; sys.exit(sys.version_info[:2] != (3, 8))"
    try:
        return subprocess.run([python, "-c", code], check=False, capture_output=True,
                              env=dict(os.environ, PYTHONPATH="")).returncode == 0
    except OSError:
        return False


def test_forms_and_validation_work_without_the_engine(python38):
    found = python38(FORMS % NAMES)
    assert found["python"] == [3, 8] and found["loaded"] == []
    assert sorted(found["said"]) == NAMES
    for fields, problems in found["said"].values():
        assert fields > 8
        assert any("scipion3 installb gmmhet" in problem for problem in problems)
        assert not any("Traceback" in problem for problem in problems)


def test_a_fit_runs_with_the_engine_in_another_environment(python38, tmp_path):
    if not os.path.exists(os.path.join(sys.prefix, "bin", "activate")):
        pytest.skip("the tests' own Python is no virtual environment that can be activated")
    synthetic.write_map(str(tmp_path / "map.mrc"))
    found = python38(FIT % (str(tmp_path / "map.mrc"), synthetic.PIXEL_SIZE),
                     GMMHET_ENV_ACTIVATION=". %s/bin/activate" % sys.prefix)
    assert found["error"] == "", found["log"]
    assert found["atoms"] and found["box"] == synthetic.BOX
    assert found["pixel_size"] == pytest.approx(synthetic.PIXEL_SIZE)
    assert found["summary"]["stage"] == "fit"
