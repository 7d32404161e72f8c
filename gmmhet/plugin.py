"""The plugin: where the engine runs, the command that starts it, and how its environment is installed."""
import functools
import importlib.util
import os
import re
import shlex
import sys
from typing import Any, ClassVar, List, Optional

import importlib_metadata
import pwem
import pyworkflow.utils as pwutils

from gmmhet import __version__
from gmmhet.constants import (
    DISTRIBUTION,
    ENGINE_MARK,
    ENV_NAME,
    ENV_PYTHON,
    ENV_READY,
    GMMHET_ENV_ACTIVATION,
    MODEL_FOLDER,
)

PACKAGE = os.path.dirname(os.path.abspath(__file__))


@functools.lru_cache(maxsize=None)
def own_python_has_engine() -> bool:
    """Whether Scipion's own Python can run the engine; looks for TensorFlow without importing it."""
    return importlib.util.find_spec(ENGINE_MARK) is not None


def engine_requirements() -> List[str]:
    """What pip installs into the engine's environment, read from this plugin's own metadata; empty when it
    was not installed by pip."""
    try:
        needed = importlib_metadata.requires(DISTRIBUTION) or []
    except importlib_metadata.PackageNotFoundError:
        return []
    pairs = [requirement.partition(";") for requirement in needed]
    names = [name.strip() for name, _, marker in pairs
             if ("python_version" in marker and "extra" not in marker)
             or name.startswith(("numpy", "mrcfile"))]
    return [re.sub(r"^tensorflow(?=\W|$)", "tensorflow[and-cuda]", name) for name in names]


class Plugin(pwem.Plugin):
    """Heterogeneity of particles as Gaussian mixtures.

    The engine needs TensorFlow. It runs in Scipion's own Python when TensorFlow is there, else in the
    environment that ``GMMHET_ENV_ACTIVATION`` activates (by default the conda environment that ``scipion3
    installb gmmhet`` makes).
    """

    _url = "https://github.com/scipion-em/scipion-em-gmmhet"
    _processingField: ClassVar = ["SPA", "FLEXIBILITY"]

    @classmethod
    def _defineVariables(cls) -> None:
        default = "" if own_python_has_engine() else "conda activate " + cls.getEnvName()
        cls._defineVar(GMMHET_ENV_ACTIVATION, default,
                       description="Shell command that activates the Python environment of the engine (it "
                                   "needs TensorFlow). Empty: the engine runs in Scipion's own Python.")

    def getName(self) -> str:
        """Name of the package; Scipion would take the module of this class."""
        return "gmmhet"

    def getPath(self) -> str:
        """Folder of the package, where Scipion looks for templates; it would ask the module of this class,
        which has none."""
        return PACKAGE

    # ------------------------------------------------- the engine's environment
    @classmethod
    def getEnvName(cls) -> str:
        """Name of the conda environment that ``scipion3 installb gmmhet`` makes."""
        return ENV_NAME % __version__

    @classmethod
    def getEnvActivation(cls) -> str:
        """The command that activates the engine's environment; empty when the engine runs in Scipion's own
        Python."""
        return (cls.getVar(GMMHET_ENV_ACTIVATION) or "").strip()

    @classmethod
    def getEnviron(cls) -> pwutils.Environ:
        """Scipion's environment without PYTHONPATH, which belongs to Scipion's Python only."""
        environ = pwutils.Environ(os.environ)
        environ.pop("PYTHONPATH", None)
        return environ

    @classmethod
    def getEngineCommand(cls, folder: str) -> str:
        """The command line that starts the engine; a stage and its flags follow it.

        Parameters
        ----------
        folder : str, where a link to this package may be made (a run's tmp folder). Its parent goes on
            PYTHONPATH, so that the engine is this version of the package and nothing else of Scipion's Python
            reaches the other environment.
        """
        activation = cls.getEnvActivation()
        python = "python" if activation else shlex.quote(sys.executable)
        parts = [cls.getCondaActivationCmd()] if activation.startswith("conda") else []
        parts += [activation + " &&"] if activation else []
        parts += ["PYTHONPATH=%s" % shlex.quote(link_package(folder)), python, "-m gmmhet.engine.cli"]
        return " ".join(part for part in parts if part)

    @classmethod
    def validateInstallation(cls) -> List[str]:
        """Sentences that say what is missing and which command installs it; cheap, because the menu calls it
        for every protocol."""
        activation = cls.getEnvActivation()
        if not activation:
            if own_python_has_engine():
                return []
            return ["%s is empty, but TensorFlow is not in Scipion's Python (%s). Run: scipion3 pip install "
                    "tensorflow -- or give %s a command that activates an environment with TensorFlow." % (
                        GMMHET_ENV_ACTIVATION, sys.executable, GMMHET_ENV_ACTIVATION)]
        return _environment_problems(activation)

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """Declare the conda environment with the engine's packages (GPU TensorFlow)."""
        needed = engine_requirements()
        if not needed:
            return
        name = cls.getEnvName()
        activate = cls.getCondaActivationCmd()
        packages = " ".join(shlex.quote(requirement) for requirement in needed)
        commands = " && ".join(["%s conda create -y -n %s python=%s" % (activate, name, ENV_PYTHON),
                                "%s conda activate %s" % (activate, name),
                                "python -m pip install " + packages, "touch " + ENV_READY])
        env.addPackage("gmmhet", version=__version__, tar="void.tgz", commands=[(commands, ENV_READY)],
                       neededProgs=[] if activate else ["conda"], default=not own_python_has_engine())

    # ------------------------------------------------- other plugins' tools
    @classmethod
    def getAnnotateSpaceArguments(cls, particles: Any, gpu_id: Optional[str] = None) -> str:
        """Arguments with which the ``annotate_space`` tool of other plugins decodes points of our latent
        space.

        Parameters
        ----------
        particles : SetOfParticlesFlex of 'train heterogeneity'.
        gpu_id : str or None
        """
        server = os.path.join(PACKAGE, "engine", "latent", "annotate_space.py")
        model = os.path.abspath(particles.getFlexInfo().getAttr(MODEL_FOLDER))
        arguments = ["--modelFolder", shlex.quote(model),
                     "--server_functions_path", shlex.quote(server)]
        if cls.getEnvActivation():
            arguments += ["--env_name", cls.getEnvActivation().split()[-1]]
        return " ".join(arguments + ([] if gpu_id is None else ["--gpu_id", str(gpu_id)]))


def link_package(folder: str) -> str:
    """Make ``folder/python/gmmhet`` point to this package; the absolute path to put on PYTHONPATH."""
    root = os.path.abspath(os.path.join(folder, "python"))
    link = os.path.join(root, "gmmhet")
    os.makedirs(root, exist_ok=True)
    if os.path.islink(link) and os.readlink(link) != PACKAGE:
        os.remove(link)
    if not os.path.islink(link):
        os.symlink(PACKAGE, link)
    return root


@functools.lru_cache(maxsize=None)
def _environment_problems(activation: str) -> List[str]:
    """Sentences about an activation command that cannot work, judged from files alone."""
    if activation == "conda activate " + Plugin.getEnvName():
        ready = os.path.join(pwem.Config.EM_ROOT, Plugin.getEnvName(), ENV_READY)
        if not os.path.exists(ready):
            return ["The engine's environment is not installed ('%s' is missing). Run: scipion3 installb "
                    "gmmhet -- or set %s in Scipion's configuration to a command that activates an "
                    "environment with TensorFlow." % (ready, GMMHET_ENV_ACTIVATION)]
        return []
    words = shlex.split(activation)
    if words[0] == "source":
        return ["%s is '%s', but the shell that starts programs knows no 'source'. Write: . %s" % (
            GMMHET_ENV_ACTIVATION, activation, " ".join(words[1:]))]
    path = os.path.expanduser(words[-1])
    if os.sep in path and not os.path.exists(path):
        return ["%s is '%s', but '%s' does not exist. Correct it in Scipion's configuration, or run: "
                "scipion3 installb gmmhet -- and remove the variable."
                % (GMMHET_ENV_ACTIVATION, activation, path)]
    return []
