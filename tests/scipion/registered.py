"""Make Scipion see this checkout as an installed plugin, in this process and in those that it starts."""
import json
import os
import sys
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def folder_with_plugin(where: str) -> str:
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


def is_installed() -> bool:
    """Whether pip installed this checkout (editable) in this Python. A copy of the package that was installed
    from elsewhere does not count, nor an egg-info that a build left here: the processes that Scipion starts
    would run other code, or none."""
    import importlib_metadata
    for entry in importlib_metadata.entry_points(group="pyworkflow.plugin"):
        source = entry.dist.read_text("direct_url.json") if entry.name == "gmmhet" else None
        folder = urllib.parse.unquote(urllib.parse.urlparse(json.loads(source)["url"]).path) if source else ""
        if os.path.realpath(folder or os.devnull) == os.path.realpath(ROOT):
            return True
    return False


def register(where: str) -> None:
    """Register the checkout, unless it is installed."""
    if not is_installed():
        folder = folder_with_plugin(where)
        os.environ["PYTHONPATH"] = folder
        sys.path.insert(0, folder)
