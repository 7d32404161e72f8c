"""Facts about README.md and docs/: what they name exists, and what the code leaves is named.

Their commands are executed by tests/engine/test_docs_commands.py.
"""
import ast
import glob
import os
import re

import documents
import pytest
from documents import FILES, KEYS, NOT_EXECUTED, ROOT, blocks, code, commands, pages, prose, spans, text_of

from gmmhet.engine import config as cfg
from gmmhet.engine import rundir

#: flags of other programs that the documents name: RELION's and EMAN2's
OTHER_FLAGS = {"--auto_refine", "--i", "--ref", "--o", "--multiply_constant", "--dereforig"}
#: what every stage's command line has besides its parameters
ALWAYS = {"--config", "--help", "--version"}
#: first words of a line that make it a command, wherever it stands
PROGRAMS = {"gmmhet", "scipion", "scipion3", "pip", "make", "relion_refine", "e2proc2d.py", "python"}
#: constants of rundir that are rules and not files
RULES = {"DISK_FULL", "FILES", "MAY_DIFFER", "MAY_GROW"}
each_page = pytest.mark.parametrize("page", pages())


def files_below(*folders, ending=".py"):
    """Paths from the checkout's root of all files with an ending below folders."""
    found = [path for folder in folders
             for path in glob.glob(os.path.join(ROOT, folder, "**", "*" + ending), recursive=True)]
    return [os.path.relpath(path, ROOT) for path in sorted(found)]


def is_there(path):
    return os.path.exists(os.path.join(ROOT, path))


def test_the_readme_is_short():
    assert os.path.getsize(os.path.join(ROOT, "README.md")) <= 5000


# ------------------------------------------------------------------ links
def links(page, text):
    """(target, path from the checkout's root, anchor) of every relative link, pictures among them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        path, _, anchor = target.partition("#")
        if not re.match(r"[a-z]+:", target):
            whole = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            yield target, whole, anchor


def broken_links(page, text):
    """Links of a page's text that lead nowhere; pages for developers may still have to be written."""
    return [target for target, path, anchor in links(page, text)
            if not (path in documents.FOR_DEVELOPERS and not is_there(path))
            and (not is_there(path) or anchor and anchor not in documents.anchors(text_of(path)))]


@each_page
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    assert broken_links(page, text_of(page)) == []


def test_a_link_to_a_missing_file_picture_or_heading_is_noticed():
    text = ("[a](nowhere.md) ![b](pictures/none.png) [c](outputs.md#nothing) [d](outputs.md#fit) "
            "[e](https://x.org)")
    assert broken_links("docs/install.md", text) == ["nowhere.md", "pictures/none.png", "outputs.md#nothing"]


def test_every_page_and_picture_can_be_reached_from_the_readme():
    reached, left = set(), ["README.md"]
    while left:
        page = left.pop()
        if page not in reached and is_there(page):
            reached.add(page)
            left += [path for _, path, _ in links(page, text_of(page))] if page.endswith(".md") else []
    assert sorted(set(pages() + files_below("docs", ending=".png")) - reached) == []


def test_pictures_are_small():
    pictures = files_below("docs/pictures", ending="")
    assert pictures and [path for path in pictures if os.path.getsize(os.path.join(ROOT, path)) > 60000] == []


# ------------------------------------------------------------------ flags and stages
def flags_of_stage(stage):
    names = {cfg.flag(field.name) for field in cfg.parameters(cfg.STAGES[stage])}
    return names | {"--no-" + name[2:] for name in names} | ALWAYS


def flags_of_our_programs():
    """Flags of programs in bench/, tools/ and tests/: by add_argument, or compared with sys.argv."""
    found = set()
    for text in map(text_of, files_below("bench", "tools", "tests")):
        found |= set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', text))
        found |= {flag for words in re.findall(r"sys\.argv\[1:\] [!=]= \[(.*)\]", text)
                  for flag in re.findall(r"--[\w-]+", words)}
    return found


def unknown_flags(piece):
    """Flags in a piece of code that its stage, or where it names none any stage or program, does not have."""
    words = documents.words_of(piece)
    flags = [flag for word in words for flag in re.findall(r"(?<![\w-])--[A-Za-z][\w-]*", word)]
    stages = [word for word in (words[1:2] if words[:1] == ["gmmhet"] else words[:1]) if word in cfg.STAGES]
    known = set().union(*(flags_of_stage(stage) for stage in stages or cfg.STAGES))
    known |= set() if stages else OTHER_FLAGS | flags_of_our_programs()
    return [flag for flag in flags if flag not in known]


@each_page
def test_every_flag_is_one_of_its_stage(page):
    found = {piece: unknown_flags(piece) for piece in code(text_of(page))}
    assert {piece: flags for piece, flags in found.items() if flags} == {}


def test_a_flag_of_no_stage_or_of_another_stage_is_noticed():
    assert unknown_flags("--clusters 4") == [] and unknown_flags("--clutsers 4") == ["--clutsers"]
    assert unknown_flags("gmmhet train --clusters 4") == ["--clusters"] == unknown_flags("fit --clusters")


@each_page
def test_every_stage_exists(page):
    called = r"(?:^|\s)gmmhet ([a-z_]+)(?=\s|$)"
    assert {stage for piece in code(text_of(page)) for stage in re.findall(called, piece)} <= set(cfg.STAGES)


# ------------------------------------------------------------------ commands
def unmarked_commands(text):
    """Lines that are commands in blocks that are not marked as shell commands."""
    return [line for language, block in blocks(text) if language != "sh" for line in block.splitlines()
            if line.strip() and line.split()[0].rpartition("/")[2] in PROGRAMS]


@pytest.mark.parametrize("page", [page for page in pages() if page not in documents.FOR_DEVELOPERS])
def test_commands_stand_in_blocks_that_the_tests_execute_or_that_say_why_not(page):
    text = text_of(page)
    assert unmarked_commands(text) == []
    marked = [block for _, block in blocks(text) if NOT_EXECUTED.strip() in block]
    assert [block for block in marked if not re.search(NOT_EXECUTED + r"\S", block)] == []
    assert {line.split()[0] for line in commands(text)} <= {"gmmhet", "printf"}


# ------------------------------------------------------------------ summaries
def engine_nodes():
    """Every node of the syntax of every module of the engine."""
    for path in files_below("gmmhet/engine"):
        yield from ast.walk(ast.parse(text_of(path)))


def words_in_the_engine():
    """Every constant and every name of a keyword argument in the engine: keys of summaries are among them."""
    nodes = list(engine_nodes())
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return constants | {node.arg for node in nodes if isinstance(node, ast.keyword)}


def keys_of(node):
    """Keys of a dict display or of a call with keywords: dict of key to the node of its value."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values)
        return {key.value: value for key, value in pairs if isinstance(key, ast.Constant)}
    keywords = node.keywords if isinstance(node, ast.Call) else []
    return {keyword.arg: keyword.value for keyword in keywords if keyword.arg}


def is_summary(node):
    return isinstance(node, ast.Name) and node.id == "summary"


def targets_of(assignment):
    """What an assignment assigns to, tuples taken apart."""
    for target in assignment.targets:
        yield from target.elts if isinstance(target, ast.Tuple) else [target]


def written_keys():
    """(stage, key) of what the engine puts into summaries, wherever in its code.

    Keys of every dict with a key `stage` of a constant value, and what is assigned to or updated into a name
    `summary` (stage None: of any). What comes in by ** and what is nested is seen by test_docs_commands.py.
    """
    found = set()
    for node in engine_nodes():
        stage = keys_of(node).get("stage")
        if isinstance(stage, ast.Constant):
            found |= {(stage.value, key) for key in keys_of(node)}
        for target in targets_of(node) if isinstance(node, ast.Assign) else []:
            if is_summary(target):
                found |= {(None, key) for key in keys_of(node.value)}
            if isinstance(target, ast.Subscript) and is_summary(target.value):
                found.add((None, ast.literal_eval(target.slice)))
        function = getattr(node, "func", None)
        if isinstance(function, ast.Attribute) and function.attr == "update" and is_summary(function.value):
            found |= {(None, key) for key in keys_of(node)}
    return found


def test_the_scan_finds_keys_of_every_stage_and_those_that_come_later():
    found = written_keys()
    assert {stage for stage, _ in found} == {None, *cfg.STAGES}
    later = ("verdict", "half_sets", "populations", "pose_error_deg", "contrast")
    assert {("train", "held_out_evidence"), *((None, key) for key in later)} <= found


def test_every_key_that_the_engine_writes_is_explained():
    explained = dict(KEYS, **{"": [key for keys in KEYS.values() for key in keys]})
    assert [(stage, key) for stage, key in written_keys() if key not in explained[stage or ""]] == []


def test_every_key_that_is_explained_is_one_that_the_engine_writes():
    words = words_in_the_engine() | {"NAME"}
    assert [key for keys in KEYS.values() for key in keys if not set(key.split(".")) <= words] == []


@pytest.mark.parametrize("stage", KEYS)
def test_a_key_is_explained_once(stage):
    assert KEYS[stage] and sorted(KEYS[stage]) == sorted(set(KEYS[stage]))


def test_unknown_keys_are_found_at_every_depth():
    known = {"a", "b", "b.x", "c", "c.NAME.r2", "d", "d.z"}
    summary = dict(a=dict(whole=1), b=dict(x=1, y=2), c=dict(any=dict(r2=1, p=2)), d=[dict(z=1, w=2)], e=1)
    assert documents.unknown_keys(summary, known) == ["b.y", "c.NAME.p", "d.w", "e"]


# ------------------------------------------------------------------ files
def files_of_runs():
    """Names of all files and folders of runs, numbers as NN.

    The constants of rundir, and its functions with the endings and names that their docstrings list.
    """
    known = set()
    for name, value in vars(rundir).items():
        if name.isupper() and name not in RULES:
            known |= {value} if isinstance(value, str) else set(value)
    known |= {rundir.cluster_ids(1), rundir.cluster_map(1), rundir.trajectory("NAME")}
    known |= {rundir.point(1, ending) for ending in re.findall(r"``([^`]+)``", rundir.point.__doc__)}
    known |= set(re.findall(r"\b(motion\.\w+|z\.txt)\b", rundir.trajectory.__doc__))
    return {documents.numbered(name) for name in known}


def test_every_file_of_a_run_is_explained_and_every_file_explained_is_one_of_a_run():
    assert {name for names in FILES.values() for name in names} == files_of_runs()


@pytest.mark.parametrize("stage", rundir.FILES)
def test_the_files_that_a_stage_must_leave_are_in_its_section(stage):
    assert stage in documents.OUTPUTS and set(rundir.FILES[stage]) <= set(FILES[stage])


@each_page
def test_files_of_this_repository_that_are_named_exist(page):
    folders = r"(?:bench|docs|tests|tools|gmmhet/(?:engine|protocols|viewers))/[\w./-]+\.\w+"
    ours = r"(?<![\w./])(%s|pyproject\.toml|MANIFEST\.in|constraints[\w-]*\.txt|setup\.py)(?![\w/])" % folders
    named = {name for piece in code(text_of(page)) for name in re.findall(ours, piece)}
    assert sorted(name for name in named if not is_there(name)) == []


# ------------------------------------------------------------------ Scipion
def labels():
    """Labels of all fields and buttons of our forms and viewers, with and without brackets at their end."""
    pytest.importorskip("pyworkflow", reason="Scipion is not installed")
    from gmmhet.protocols.form import field_label
    found = {field_label(field) for cls in cfg.STAGES.values() for field in cfg.parameters(cls)}
    written = [label for path in files_below("gmmhet/protocols", "gmmhet/viewers")
               for label in re.findall(r'label="([^"]+)"', text_of(path))]
    found |= {label + end for label in written for end in ("", " (optional)")}
    return found | {re.sub(r" \([^)]*\)$", "", label) for label in found}


def bold(text):
    return set(re.findall(r"\*\*([^*\n]+)\*\*", text))


def test_fields_and_buttons_that_the_documents_name_are_in_the_forms_and_viewers():
    """They are bold in the tutorial for Scipion, and in lines of the guide that say "in Scipion"."""
    named = bold(prose(text_of("docs/tutorial-scipion.md"))) - {"bold"}
    for page in pages():
        lines = prose(text_of(page)).splitlines() if page.startswith("docs/guide") else []
        named |= set().union(*(bold(line) for line in lines if re.search(r"\b[Ii]n Scipion", line)))
    assert len(named) > 30 and sorted(named - labels()) == []


def test_attributes_of_particles_that_the_documents_name_are_those_that_the_plugin_sets():
    from gmmhet import constants
    named = {span for page in pages() for span in spans(text_of(page)) if span.startswith("_gmm")}
    assert named == {value for value in vars(constants).values() if str(value).startswith("_gmm")}
