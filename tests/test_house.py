"""Facts about the house: what the package holds, which way imports go, and where the Scipion side can
live."""
import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from documents import pages, text_of

from gmmhet.engine.config import STAGES

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "gmmhet")

#: height of each part; a part may import itself and whatever lies strictly lower
ENGINE_FLOORS = [("config", "rundir", "log", "sampling", "palette"), ("resolution", "latents"), ("imaging",),
                 ("io",), ("particles",), ("gmm", "batching"), ("reconstruction", "simulate"),
                 ("likelihood",), ("model",), ("objective", "inference"), ("initialization",),
                 ("training",), ("latent",), ("validation",), ("stages",), ("cli",)]
SCIPION_FLOORS = [("constants", "bibtex"), ("plugin",), ("convert",), ("protocols",), ("viewers", "wizards")]
ENGINE_FOR_SCIPION = {"gmmhet.engine", "gmmhet.engine.config", "gmmhet.engine.latents",
                      "gmmhet.engine.palette",
                      "gmmhet.engine.resolution", "gmmhet.engine.rundir", "gmmhet.engine.sampling"}
SCIPION_PACKAGES = {"pyworkflow", "pwem", "relion", "scipion", "xmipp3", "eman2"}
PROTOCOLS = ["GmmHetProtFit", "GmmHetProtTrain", "GmmHetProtRefine", "GmmHetProtAnalyze",
             "GmmHetProtReconstruct"]


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
    """Sentences about imports that do not go downwards; `depth` is the position of a part's name in the
    dotted name."""
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
                wrong.append("%s:%d imports %s, which does not lie lower" % (os.path.relpath(path, ROOT),
                                                                             line, name))
    return wrong


def test_imports_inside_the_engine_go_only_downwards():
    assert climbing(ENGINE_MODULES, 2, ENGINE_FLOORS) == []


def test_imports_on_the_scipion_side_go_only_downwards():
    assert climbing(SCIPION_MODULES, 1, SCIPION_FLOORS) == []


def test_climbing_notices_an_import_that_goes_upwards(tmp_path):
    bad = tmp_path / "volumes.py"
    bad.write_text("def f():\n    from gmmhet.engine.training import trainer\n")
    assert "volumes.py:2 imports gmmhet.engine.training" in climbing([("gmmhet.engine.io.volumes", str(bad))],
                                                                     2, ENGINE_FLOORS)[0]


def test_the_engine_names_no_scipion_module():
    wrong = ["%s:%d imports %s" % (dotted, line, name) for dotted, path in ENGINE_MODULES
             for line, name in imports(dotted, path)
             if name.split(".")[0] in SCIPION_PACKAGES
             or (name.startswith("gmmhet.") and not is_engine(name))]
    assert wrong == []


def test_the_scipion_side_names_only_the_foot_of_the_engine_and_no_tensorflow():
    wrong = ["%s:%d imports %s" % (dotted, line, name) for dotted, path in SCIPION_MODULES
             for line, name in imports(dotted, path)
             if (is_engine(name) and name not in ENGINE_FOR_SCIPION)
             or name.split(".")[0] in ("tensorflow", "keras")]
    assert wrong == []


# ---- the rooms

#: no room holds more of the program than this
LARGEST_ROOM = 0.12
#: engine files of more lines than this have a test file of their name
FEW_LINES = 60
#: names that were a dialect of their own; docs/developer.md's glossary says what took their place
RETIRED_WORDS = """
    Beginning Bound Items ahead apart assembled assume at_rest base based begin_in beginning begins_faint
    begins_near brought_to_rest by_item calibrate closed column columns corrected description divergence
    even_pace explains_most faint field found given given_dim hold how_seen items joins judged kept led
    learned levelled likeliest likeliest_sigma looks merged mixed modes_again move_freely of_one
    of_several open_beside own own_base own_dim pace paces populated reader read_in_graph release rest
    scatter seen_change seen_warnings seen_words settle sharpened spread_motion staging straight summed
    told told_from_zero told_together unit unlike varying"""
#: compiled kernels, whose arguments are plain arrays
KERNELS = {"insert_slices", "_draw_tile", "_read_tile", "_outline", "_clip_line"}
MOST_PARAMETERS = 6


def trees(found_modules):
    """Dotted name, path and syntax tree of each module."""
    for dotted, path in found_modules:
        with open(path, encoding="utf-8") as f:
            yield dotted, path, ast.parse(f.read(), path)


def lines_of(path):
    with open(path, encoding="utf-8") as f:
        return len(f.readlines())


def room_of(dotted):
    """'engine.model' of 'gmmhet.engine.model.decoder', 'viewers' of 'gmmhet.viewers.maps'; '' of single
    files."""
    names = dotted.split(".")[1:]
    if names[:1] == ["engine"]:
        return ".".join(names[:2]) if len(names) > 2 else ""
    return names[0] if len(names) > 1 else ""


def test_no_room_holds_too_much_of_the_program():
    sizes = {}
    for dotted, path in ENGINE_MODULES + SCIPION_MODULES:
        sizes[room_of(dotted)] = sizes.get(room_of(dotted), 0) + lines_of(path)
    whole = sum(sizes.values())
    shares = {room: size / whole for room, size in sizes.items() if room}
    assert {room: share for room, share in shares.items() if share > LARGEST_ROOM} == {}


def test_every_engine_file_of_some_length_has_a_test_file_of_its_name():
    tested = {os.path.relpath(os.path.join(where, name), os.path.join(ROOT, "tests"))
              for where, _, names in os.walk(os.path.join(ROOT, "tests", "engine")) for name in names}
    wanted = {}
    for dotted, path in ENGINE_MODULES:
        if lines_of(path) > FEW_LINES and not path.endswith("__init__.py"):
            *rooms, name = dotted.split(".")[1:]
            wanted[dotted] = os.path.join(*rooms, "test_%s.py" % name)
    assert {dotted: test for dotted, test in wanted.items() if test not in tested} == {}


# ---- one rule for one thing

def test_no_engine_function_takes_many_parameters():
    wrong = []
    for dotted, _, tree in trees(ENGINE_MODULES):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name not in KERNELS:
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                    wrong.append("%s.%s takes %d parameters" % (dotted, node.name, len(names)))
    assert wrong == []


def calls(tree, *names):
    """The calls in a tree of functions of these names."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", None)) in names]


def test_mixtures_are_placed_and_projected_in_one_function():
    programs = [("bench." + name[:-3], os.path.join(ROOT, "bench", name))
                for name in os.listdir(os.path.join(ROOT, "bench")) if name.endswith(".py")]
    wrong = [dotted for dotted, _, tree in trees(ENGINE_MODULES + programs) for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and node.module == "gmmhet.engine.imaging.projection"
             and {"place", "project"} & {alias.name for alias in node.names}]
    assert wrong == []


def test_latent_points_are_opened_in_one_module():
    wrong = []
    for dotted, _, tree in trees(ENGINE_MODULES + SCIPION_MODULES):
        for call in calls(tree, "load", "savez", "write_arrays", "open"):
            if any(isinstance(n, (ast.Name, ast.Attribute))
                   and getattr(n, "id", getattr(n, "attr", "")) == "LATENTS"
                   for n in ast.walk(call)):
                wrong.append(dotted)
    assert set(wrong) <= {"gmmhet.engine.latents"}


@pytest.mark.parametrize("name, home", [
    ("draw_half_sets", "gmmhet.engine.particles.half_sets"), ("PRESETS", "gmmhet.engine.model.settings"),
    ("with_preset", "gmmhet.engine.model.settings"), ("resolution_at", "gmmhet.engine.resolution"),
    ("project_mixture", "gmmhet.engine.imaging.projection"),
    ("linearised", "gmmhet.engine.likelihood.quadratic"), ("Latents", "gmmhet.engine.latents"),
    ("nearest", None), ("nearest_particles", None), ("principal_axes", None)])
def test_a_thing_has_one_home(name, home):
    homes = [dotted for dotted, _, tree in trees(ENGINE_MODULES + SCIPION_MODULES) for node in ast.walk(tree)
             if (isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name)
             or (isinstance(node, ast.Assign) and any(getattr(t, "id", "") == name for t in node.targets))]
    assert len(homes) <= 1 and (home is None or homes == [home]), homes


def test_retired_words_name_nothing():
    wrong = []
    for dotted, _, tree in trees(ENGINE_MODULES):
        for node in ast.walk(tree):
            names = []
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.append(node.name)
            if isinstance(node, ast.ClassDef):
                names += [part.target.id for part in node.body if isinstance(part, ast.AnnAssign)
                          and hasattr(part.target, "id")]
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.append(node.attr)
            wrong += ["%s:%d %s" % (dotted, node.lineno, name) for name in names
                      if name.strip("_") in RETIRED_WORDS.split()]
    assert wrong == []


def run_python(python, code, **environment):
    """Run code in a fresh interpreter that sees this checkout; its output. Fails with what it printed."""
    env = dict(os.environ, PYTHONPATH=ROOT, **environment)
    done = subprocess.run([python, "-W", "ignore", "-c", code], check=False, env=env,
                          cwd=os.path.join(ROOT, "test_out"), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def importing(names, forbidden):
    """Code that imports modules and prints which of the forbidden top-level packages came along."""
    return ("import importlib, sys\nfor name in %r: importlib.import_module(name)\n"
            "print(sorted(set(m.split('.')[0] for m in sys.modules) & set(%r)))"
            % (list(names), sorted(forbidden)))


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
protocols = domain.getProtocols().items()
names = sorted(name for name, cls in protocols if name.startswith("GmmHet") and cls._label)
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
    code = "import sys\nassert sys.version_info[:2] == (3, 8), sys.version\n"
    code += importing(names, ["tensorflow", "umap", "numba"]) + LISTING
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
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                           "-w", str(target), str(source)],
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
    wanted = [line for line in wheel.read(name).decode().splitlines()
              if line.startswith("Requires-Dist: tensorflow")
              and "extra" not in line]
    assert len(wanted) == 1
    assert re.search(r"python_version >= ['\"]3\.10['\"]", wanted[0])


def test_the_documents_explain_every_stage_and_every_protocol():
    text = "".join(text_of(page) for page in pages())
    assert [stage for stage in STAGES if "| `%s` |" % stage not in text] == []
    assert [name for name in PROTOCOLS if "| `%s` |" % name not in text] == []
