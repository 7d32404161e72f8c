"""A Scipion that knows this plugin, a project, and particles made by RELION, for the tests of the Scipion side."""
import os
import shutil
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

pytest.importorskip("pyworkflow", reason="Scipion is not installed")

import synthetic
from registered import register

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


def run_relion(command, folder):
    """Run a RELION program in `folder`."""
    done = subprocess.run(command.split(), check=False, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="session")
def imported(project, phantom):
    """The import protocol of the phantom's star file, finished; its output is `outputParticles`."""
    return import_star(project, os.path.join(phantom, "particles.star"), "import phantom")


def import_star(project, star, label, pixel_size=synthetic.PIXEL_SIZE):
    """Import a star file through Scipion and the RELION plugin."""
    from pwem.protocols import ProtImportParticles
    protocol = project.newProtocol(ProtImportParticles, importFrom=ProtImportParticles.IMPORT_FROM_RELION, starFile=star,
                                   voltage=300.0, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=10000,
                                   samplingRate=pixel_size)
    protocol.setObjLabel(label)
    return launched(project, protocol)


def launched(project, protocol):
    """Run a protocol to its end; fails with the end of its log."""
    project.launchProtocol(protocol, wait=True)
    if not protocol.isFinished():
        logs = [open(path, errors="replace").read()[-4000:] for path in protocol.getLogPaths()[:2] if os.path.exists(path)]
        pytest.fail("%s: %s\n%s" % (protocol.getObjLabel(), protocol.getErrorMessage(), "\n".join(logs)))
    return protocol
