"""Facts about the house: what the package holds, which way imports go, and where the Scipion side can live."""
import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from gmmhet.engine.config import STAGES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "gmmhet")

#: height of each part; a part may import itself and whatever lies strictly lower
ENGINE_FLOORS = [("config", "rundir", "log"), ("imaging",), ("io",), ("gmm", "batching"), ("reconstruction", "simulate"), ("likelihood",),
                 ("objective",), ("model",), ("inference",), ("initialization",), ("training",), ("latent",), ("validation",),
                 ("stages",), ("cli",)]
SCIPION_FLOORS = [("constants", "bibtex"), ("plugin",), ("convert",), ("protocols",), ("viewers", "wizards")]
ENGINE_FOR_SCIPION = {"gmmhet.engine", "gmmhet.engine.config", "gmmhet.engine.rundir"}
SCIPION_PACKAGES = {"pyworkflow", "pwem", "relion", "scipion", "xmipp3", "eman2"}
PROTOCOLS = ["GmmHetProtFit", "GmmHetProtTrain", "GmmHetProtRefine", "GmmHetProtAnalyze", "GmmHetProtReconstruct"]


def modules(*folder):
    """Dotted name and path of every module under a folder of the package."""
    for where, _, names in sorted(os.walk(os.path.join(PACKAGE, *folder))):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(where, name)
                dotted = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
                yield re.sub(r"\.__init__$", "", dotted), path


def is_engine(dotted):
    return dotted == "gmmhet.engine" or dotted.startswith("gmmhet.engine.")


ENGINE_MODULES = [m for m in modules() if is_engine(m[0])]
SCIPION_MODULES = [m for m in modules() if not is_engine(m[0])]


def imports(dotted, path):
    """Every module that a file imports, also inside functions: list of (line, absolute dotted name)."""
    with open(path, encoding="utf-8") as f:
        tree = ast.parse(f.read(), path)
    package = dotted.split(".") if path.endswith("__init__.py") else dotted.split(".")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            start = ".".join(base + ([node.module] if node.module else []))
            names = [start + "." + alias.name for alias in node.names]
            # `from package import module` imports the module; `from module import name` only the module
            found += [(node.lineno, n if is_module(n) else start) for n in names]
    return found


def is_module(dotted):
    path = os.path.join(ROOT, *dotted.split("."))
    return os.path.exists(path + ".py") or os.path.isdir(path)


def floor_of(part, floors):
    for height, parts in enumerate(floors):
        if part in parts:
            return height
    return None


def climbing(found_modules, depth, floors):
    """Sentences about imports that do not go downwards; `depth` is the position of a part's name in the dotted name."""
    wrong = []
    for dotted, path in found_modules:
        part = (dotted.split(".") + [None] * 3)[depth]
        if part is None:
            continue
        height = floor_of(part, floors)
        if height is None:
            wrong.append("%s has no floor: give it one in tests/test_house.py" % dotted)
            continue
        for line, name in imports(dotted, path):
            other = (name.split(".") + [None] * 3)[depth]
            if name.split(".")[:depth] != dotted.split(".")[:depth] or other in (None, part):
                continue
            target = floor_of(other, floors)
            if target is not None and target >= height:
                wrong.append("%s:%d imports %s, which does not lie lower" % (os.path.relpath(path, ROOT), line, name))
    return wrong


def test_imports_inside_the_engine_go_only_downwards():
    assert climbing(ENGINE_MODULES, 2, ENGINE_FLOORS) == []


def test_imports_on_the_scipion_side_go_only_downwards():
    assert climbing(SCIPION_MODULES, 1, SCIPION_FLOORS) == []


def test_climbing_notices_an_import_that_goes_upwards(tmp_path):
    bad = tmp_path / "volumes.py"
    bad.write_text("def f():\n    from gmmhet.engine.training import trainer\n")
    assert "volumes.py:2 imports gmmhet.engine.training" in climbing([("gmmhet.engine.io.volumes", str(bad))], 2, ENGINE_FLOORS)[0]


def test_the_engine_names_no_scipion_module():
    wrong = ["%s:%d imports %s" % (dotted, line, name) for dotted, path in ENGINE_MODULES for line, name in imports(dotted, path)
             if name.split(".")[0] in SCIPION_PACKAGES or (name.startswith("gmmhet.") and not is_engine(name))]
    assert wrong == []


def test_the_scipion_side_names_only_config_and_rundir_of_the_engine_and_no_tensorflow():
    wrong = ["%s:%d imports %s" % (dotted, line, name) for dotted, path in SCIPION_MODULES for line, name in imports(dotted, path)
             if (is_engine(name) and name not in ENGINE_FOR_SCIPION) or name.split(".")[0] in ("tensorflow", "keras")]
    assert wrong == []


def run_python(python, code, **environment):
    """Run code in a fresh interpreter that sees this checkout; its output. Fails with what it printed."""
    env = dict(os.environ, PYTHONPATH=ROOT, **environment)
    done = subprocess.run([python, "-W", "ignore", "-c", code], check=False, env=env, cwd=os.path.join(ROOT, "test_out"),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def importing(names, forbidden):
    """Code that imports modules and prints which of the forbidden top-level packages came along."""
    return ("import importlib, sys\nfor name in %r: importlib.import_module(name)\n"
            "print(sorted(set(m.split('.')[0] for m in sys.modules) & set(%r)))" % (list(names), sorted(forbidden)))


def test_importing_the_whole_engine_loads_no_scipion():
    names = [dotted for dotted, _ in ENGINE_MODULES]
    assert run_python(sys.executable, importing(names, SCIPION_PACKAGES)).strip() == "[]"


def test_importing_the_whole_scipion_side_loads_no_tensorflow():
    names = [dotted for dotted, _ in SCIPION_MODULES] + sorted(ENGINE_FOR_SCIPION)
    assert run_python(sys.executable, importing(names, ["tensorflow", "keras"])).splitlines()[-1] == "[]"


LISTING = """
import sys
import pyworkflow
domain = pyworkflow.Config.getDomain()
domain.registerPlugin("gmmhet")
names = sorted(name for name, cls in domain.getProtocols().items() if name.startswith("GmmHet") and cls._label)
print("FOUND", ",".join(names))
print("TENSORFLOW", "tensorflow" in sys.modules)
"""


def test_scipion_lists_the_five_protocols_without_tensorflow():
    out = run_python(sys.executable, LISTING)
    assert "FOUND " + ",".join(sorted(PROTOCOLS)) in out
    assert "TENSORFLOW False" in out


def python38():
    """The Python 3.8 that has Scipion: GMMHET_PY38, else the one that tools/setup38.sh made; None without."""
    for path in (os.environ.get("GMMHET_PY38"), os.path.join(ROOT, ".venv38", "bin", "python")):
        if path and os.path.exists(path):
            return path
    return None


def test_the_scipion_side_lists_its_protocols_on_python_38():
    python = python38()
    if python is None:
        pytest.skip("no Python 3.8 with Scipion: run tools/setup38.sh, or name one in GMMHET_PY38")
    names = [dotted for dotted, _ in SCIPION_MODULES] + sorted(ENGINE_FOR_SCIPION)
    own = {"SCIPION_PYTHON": python, "PATH": os.path.dirname(python) + os.pathsep + os.environ["PATH"]}
    code = "import sys\nassert sys.version_info[:2] == (3, 8), sys.version\n" + importing(names, ["tensorflow", "umap", "numba"]) + LISTING
    out = run_python(python, code, **own)
    assert "[]" in out.splitlines()
    assert "FOUND " + ",".join(sorted(PROTOCOLS)) in out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the checkout stays clean."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), str(source))
    shutil.copytree(PACKAGE, str(source / "gmmhet"), ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target), str(source)],
                          check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    (path,) = target.glob("*.whl")
    with zipfile.ZipFile(str(path)) as archive:
        yield archive


def test_the_wheel_holds_every_module_and_the_menu_logo_and_templates(wheel):
    wanted = {os.path.relpath(path, ROOT) for _, path in ENGINE_MODULES + SCIPION_MODULES}
    wanted |= {"gmmhet/protocols.conf", "gmmhet/logo.png"}
    templates = ["gmmhet/templates/" + name for name in os.listdir(os.path.join(PACKAGE, "templates"))]
    assert templates, "gmmhet/templates is empty"
    assert (wanted | set(templates)) - set(wheel.namelist()) == set()


def test_the_wheel_registers_the_plugin_and_the_command(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(name).decode()
    assert "[pyworkflow.plugin]\ngmmhet = gmmhet" in text
    assert "gmmhet = gmmhet.engine.cli:main" in text


def test_the_wheel_asks_for_tensorflow_only_where_python_can_have_it(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    wanted = [line for line in wheel.read(name).decode().splitlines() if line.startswith("Requires-Dist: tensorflow")
              and "extra" not in line]
    assert len(wanted) == 1
    assert re.search(r"python_version >= ['\"]3\.10['\"]", wanted[0])


def test_the_readme_names_every_stage_and_every_protocol():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        text = f.read()
    assert [stage for stage in STAGES if "| `%s` |" % stage not in text] == []
    assert [name for name in PROTOCOLS if name not in text] == []
    assert sorted(set(re.findall(r"gmmhet ([a-z]+) --", text)) - set(STAGES)) == []
