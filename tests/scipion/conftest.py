"""A Scipion that knows this plugin, a project, particles made by RELION, and runs written by hand, for the
tests of the Scipion side."""
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


@pytest.fixture(scope="session", autouse=True)
def domain():
    """Scipion's domain with all plugins loaded: a protocol knows its plugin only then."""
    from pyworkflow import Config
    result = Config.getDomain()
    result.getPlugins()
    result.getObjects()
    result.getProtocols()
    return result


@pytest.fixture(scope="session")
def project(domain):
    """A new Scipion project; the working folder is the project's, as for every Scipion process.
    GMMHET_KEEP_PROJECT=1 leaves it."""
    from pyworkflow.project import Manager
    before, manager = os.getcwd(), Manager()
    new = manager.createProject("gmmhet_tests_%d" % os.getpid())
    os.chdir(new.path)
    yield new
    os.chdir(before)
    if not os.environ.get("GMMHET_KEEP_PROJECT"):
        manager.deleteProject(new.getName())


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Folder with particles.star (RELION 3.1), particles.mrcs and map.mrc of a molecule without any symmetry,
    projected by RELION."""
    if shutil.which("relion_project") is None:
        pytest.skip("RELION is not installed: apt-get install relion")
    folder = str(tmp_path_factory.mktemp("phantom"))
    synthetic.write_map(os.path.join(folder, "map.mrc"))
    synthetic.write_star(os.path.join(folder, "wanted.star"))
    run_relion("relion_project --i map.mrc --ang wanted.star --o projected --ctf --angpix %g"
               % synthetic.PIXEL_SIZE, folder)
    synthetic.finish_star(folder, "projected", "particles")
    return folder


@pytest.fixture(scope="session")
def imported(project, phantom):
    """The import protocol of the phantom's star file, finished; its output is `outputParticles`."""
    return import_star(project, os.path.join(phantom, "particles.star"), "import phantom")


@pytest.fixture(scope="session")
def runs(project):
    """Finished runs of the five protocols, written by hand: dict of name to protocol."""
    import finished_runs
    return finished_runs.all_runs(project)


@pytest.fixture(scope="session")
def symmetric(project, runs):
    """A training with symmetry c3, written by hand."""
    import finished_runs
    return finished_runs.symmetric_train_run(project, runs)


# ------------------------------------------------------------------ inputs of forms, which no test changes
@pytest.fixture(scope="session")
def particles(tmp_path_factory):
    """Three particles with alignment, CTF and acquisition."""
    from inputs import particle_set
    return particle_set(str(tmp_path_factory.mktemp("particles") / "particles.sqlite"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Three trained particles, and their model."""
    from inputs import finished_run, particle_set
    from pwem.objects import SetOfParticlesFlex

    from gmmhet.protocols.protocol_base import mark_flex
    folder = tmp_path_factory.mktemp("trained")
    result = particle_set(str(folder / "particles.sqlite"), SetOfParticlesFlex)
    mark_flex(result, finished_run(str(folder / "train"), "train"))
    return result


@pytest.fixture
def gaussians(tmp_path):
    """Pseudo-atoms of a neutral model, whose run is in the folder 'fit' of the test."""
    from inputs import finished_run
    from pwem.objects import AtomStructFlex

    from gmmhet.constants import GMM_FOLDER
    from gmmhet.protocols.protocol_base import mark_flex
    atoms = AtomStructFlex(filename="gmm.cif")
    mark_flex(atoms, finished_run(str(tmp_path / "fit"), "fit"), GMM_FOLDER)
    return atoms
