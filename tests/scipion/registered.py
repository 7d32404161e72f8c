"""Make Scipion see this checkout as an installed plugin, in this process and in those that it starts."""
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def folder_with_plugin(where):
    """A folder for PYTHONPATH that holds the package and the entry point, and nothing else."""
    folder = os.path.join(where, "python")
    info = os.path.join(folder, "scipion_em_gmmhet-0.dist-info")
    os.makedirs(info, exist_ok=True)
    for name, text in (("METADATA", "Metadata-Version: 2.1\nName: scipion-em-gmmhet\nVersion: 0\n"),
                       ("entry_points.txt", "[pyworkflow.plugin]\ngmmhet = gmmhet\n")):
        with open(os.path.join(info, name), "w", encoding="utf-8") as file:
            file.write(text)
    link = os.path.join(folder, "gmmhet")
    if not os.path.islink(link):
        os.symlink(os.path.join(ROOT, "gmmhet"), link)
    return folder


def is_installed():
    """Whether pip installed the plugin in this Python; an egg-info that a build left in the checkout does not count, because the
    processes that Scipion starts do not see it."""
    import importlib_metadata
    return any(entry.name == "gmmhet" and os.path.realpath(str(entry.dist.locate_file(""))) != os.path.realpath(ROOT)
               for entry in importlib_metadata.entry_points(group="pyworkflow.plugin"))


def register(where):
    """Register the checkout, unless it is installed."""
    if not is_installed():
        folder = folder_with_plugin(where)
        os.environ["PYTHONPATH"] = folder
        sys.path.insert(0, folder)
