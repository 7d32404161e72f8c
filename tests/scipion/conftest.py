"""A Scipion that knows this plugin, a project, and particles made by RELION, for the tests of the Scipion side."""
import os
import shutil
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

pytest.importorskip("pyworkflow", reason="Scipion is not installed")

import synthetic
from registered import register
from steps import import_star, run_relion

WORK = os.path.join(ROOT, "test_out", "scipion_tests")
register(WORK)


@pytest.fixture(scope="session")
def domain():
    """Scipion's domain with all plugins loaded."""
    from pyworkflow import Config
    found = Config.getDomain()
    found.getPlugins()
    found.getObjects()
    found.getProtocols()
    return found


@pytest.fixture(scope="session")
def project(domain):
    """A new Scipion project; the working folder is the project's, as for every Scipion process. GMMHET_KEEP_PROJECT=1 leaves it."""
    from pyworkflow.project import Manager
    before, manager = os.getcwd(), Manager()
    made = manager.createProject("gmmhet_tests_%d" % os.getpid())
    os.chdir(made.path)
    yield made
    os.chdir(before)
    if not os.environ.get("GMMHET_KEEP_PROJECT"):
        manager.deleteProject(made.getName())


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Folder with particles.star (RELION 3.1), particles.mrcs and map.mrc of a molecule without any symmetry, projected by RELION."""
    if shutil.which("relion_project") is None:
        pytest.skip("RELION is not installed: apt-get install relion")
    folder = str(tmp_path_factory.mktemp("phantom"))
    synthetic.write_map(os.path.join(folder, "map.mrc"))
    synthetic.write_star(os.path.join(folder, "wanted.star"))
    run_relion("relion_project --i map.mrc --ang wanted.star --o projected --ctf --angpix %g" % synthetic.PIXEL_SIZE, folder)
    synthetic.finish_star(folder, "projected", "particles")
    return folder


@pytest.fixture(scope="session")
def imported(project, phantom):
    """The import protocol of the phantom's star file, finished; its output is `outputParticles`."""
    return import_star(project, os.path.join(phantom, "particles.star"), "import phantom")
