"""README.md and docs/ as the tests of the documents read them.

Pages, headings, code, commands, and the tables of docs/outputs.md.
"""
import glob
import os
import re
import shlex

from gmmhet.engine import rundir

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: a line of a fenced block of shell commands that says why the tests do not execute it
NOT_EXECUTED = "# not executed in the tests: "
#: pages for developers: links, flags and files of theirs are looked at, their commands are not executed
FOR_DEVELOPERS = ("docs/benchmarks.md", "docs/developer.md", "docs/method.md")
FENCED = r"^```(\w*)\n(.*?)^```$"


def pages():
    """Paths of all documents from the checkout's root: README.md first."""
    found = sorted(glob.glob(os.path.join(ROOT, "docs", "**", "*.md"), recursive=True))
    return ["README.md"] + [os.path.relpath(path, ROOT) for path in found]


def text_of(page):
    """Text of a page, or of another file of the checkout."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def blocks(text):
    """(language, code) of every fenced block."""
    return re.findall(FENCED, text, re.MULTILINE | re.DOTALL)


def prose(text):
    """The text without its fenced blocks."""
    return re.sub(FENCED, "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text):
    """Code between backticks in prose."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def lines_of(block):
    """Lines of a fenced block, those that go on behind a backslash joined."""
    return block.replace("\\\n", " ").splitlines()


def code(text):
    """Every piece of code of a page: lines of its blocks, and spans."""
    return [line for _, block in blocks(text) for line in lines_of(block)] + spans(text)


def commands(text):
    """Lines of the page's blocks of shell commands that the tests execute."""
    executed = [block for language, block in blocks(text) if language == "sh" and NOT_EXECUTED not in block]
    lines = [line for block in executed for line in lines_of(block)]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def words_of(command):
    """Words of a shell command; of a piece of code that is none, apart by blanks."""
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return command.split()


def anchors(text):
    """What links to headings of a page may name, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def sections(text):
    """Title -> text of every section of the second level; what stands before the first is ''."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2]))


def first_column(text, heading):
    """Code in the first cells of all tables whose first column is called `heading`."""
    tables = re.findall(r"^\| %s \|.*\n\|[-|]+\n((?:\|.*\n)*)" % heading, text, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


OUTPUTS = sections(text_of("docs/outputs.md"))
#: stage -> keys of its summary.json in docs/outputs.md, nested ones with dots, NAME for any name
KEYS = {stage: first_column(OUTPUTS.get(stage, ""), "key") for stage in rundir.FILES}
#: stage -> files and folders in docs/outputs.md, with those that every stage leaves
FILES = {stage: [name.rstrip("/") for name in first_column(OUTPUTS[""] + OUTPUTS.get(stage, ""), "file")]
         for stage in rundir.FILES}


def numbered(name):
    """A file's name with NN for the number that it holds: ``point_03.mrc`` -> ``point_NN.mrc``."""
    return re.sub(r"(?<=_)\d+(?=[._])", "NN", name)


def unknown_keys(summary, known, above=""):
    """Keys of a summary that are not among the `known` ones, with dots.

    Lists of dicts are looked into. What has no known key below it is taken as a whole.
    """
    missing = []
    for key, value in summary.items():
        path = above + key
        if path not in known and any(name.startswith(above + "NAME") for name in known):
            path = above + "NAME"
        below = any(name.startswith(path + ".") for name in known)
        if path not in known and not below:
            missing.append(above + key)
        for part in (value if isinstance(value, list) else [value]) if below else []:
            missing += unknown_keys(part, known, path + ".")
    return missing
