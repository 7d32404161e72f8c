"""The environment variables under which Scipion runs from plain pip packages, in one place: demo, tests and
shell use them.

In Python: ``environment.apply(user_data)``. In a shell: ``eval "$(.venv/bin/python tools/environment.py)"``.
Python 3.8, standard library.
"""
import os
import shlex
import shutil
import subprocess
import sys
from typing import Dict

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: child processes of Scipion start "python3" from PATH; on Python 3.11 scipion-app 3.8.3 forgets to import
#: this module itself
SITE_FIX = ("zz_importlib_util.pth", "import importlib.util\n")


def relion_home() -> str:
    """Folder whose ``bin`` holds RELION: RELION_HOME when it is set, else where ``relion_refine`` was found,
    else an empty string."""
    if os.environ.get("RELION_HOME"):
        return os.environ["RELION_HOME"]
    program = shutil.which("relion_refine")
    return os.path.dirname(os.path.dirname(program)) if program else ""


def variables(user_data: str) -> Dict[str, str]:
    """Variables to set, as a dict.

    Parameters
    ----------
    user_data : str, folder that receives Scipion's projects.

    Notes
    -----
    The user's own Scipion is left alone: its home and its local configuration are not read.
    """
    home = os.path.join(ROOT, ".venv", "scipion")
    bin_folder = os.path.join(sys.prefix, "bin")
    path = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p and p != bin_folder]
    values = {
        "PATH": os.pathsep.join([bin_folder] + path),
        "VIRTUAL_ENV": sys.prefix,
        "SCIPION_PYTHON": os.path.join(bin_folder, "python3"),
        "SCIPION_HOME": home,
        "SCIPION_LOCAL_CONFIG": os.path.join(home, "config", "scipion.conf"),
        "SCIPION_USER_DATA": os.path.abspath(user_data),
        "SCIPION_DOMAIN": "pwem",
        "SCIPION_NOTIFY": "False",
        "SCIPION_TEST_NOSYNC": "True",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    if relion_home():
        values["RELION_HOME"] = relion_home()
    return values


def apply(user_data: str) -> None:
    """Set the variables in this process (before anything imports Scipion) and write Scipion's configuration
    once."""
    os.environ.update(variables(user_data))
    os.environ.pop("PYTHONPATH", None)
    os.makedirs(user_data, exist_ok=True)
    configure()


def configure() -> None:
    """Write Scipion's configuration files where they are missing: without hosts.conf no project can be
    created."""
    config = os.path.join(os.environ["SCIPION_HOME"], "config")
    if os.path.exists(os.path.join(config, "hosts.conf")):
        return
    os.makedirs(config, exist_ok=True)
    command = ("import importlib.util, sys; sys.argv[1:] = ['config', '--unattended']; "
               "from scipion.__main__ import main; main()")
    done = subprocess.run([sys.executable, "-c", command], check=False, cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not os.path.exists(os.path.join(config, "hosts.conf")):
        raise RuntimeError("'scipion config --unattended' wrote no hosts.conf in %s:\n%s"
                           % (config, done.stdout))


def fix_site() -> None:
    """Put SITE_FIX among this Python's packages."""
    import sysconfig
    name, text = SITE_FIX
    with open(os.path.join(sysconfig.get_paths()["purelib"], name), "w", encoding="utf-8") as f:
        f.write(text)


def main() -> None:
    """Print the variables as shell exports, with the demo's projects as Scipion's data."""
    user_data = os.environ.get("GMMHET_USER_DATA", os.path.join(ROOT, "demo_out", "scipion"))
    for name, value in variables(user_data).items():
        print("export %s=%s" % (name, shlex.quote(value)))
    print("unset PYTHONPATH")


if __name__ == "__main__":
    main()
