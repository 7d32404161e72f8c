"""Facts about how the Scipion side is written: order of a protocol's methods, types, sizes and tests."""
import ast
import os
import re

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.join(os.path.dirname(os.path.dirname(HERE)), "gmmhet")
FOLDERS = ("", "protocols", "viewers")
FILES = [os.path.join(PACKAGE, folder, name) for folder in FOLDERS
         for name in sorted(os.listdir(os.path.join(PACKAGE, folder))) if name.endswith(".py")]
PROTOCOL_FILES = [path for path in FILES if os.path.basename(path).startswith("protocol_")]
SECTIONS = ["DEFINE", "INSERT", "STEPS", "INFO", "UTILS"]
#: Scipion's methods, and where the order puts them
SECTION_OF = {"_defineParams": "DEFINE", "_addInputs": "DEFINE", "_insertAllSteps": "INSERT",
              "_insertEngineSteps": "INSERT", "_validate": "INFO", "_warnings": "INFO", "_summary": "INFO",
              "_methods": "INFO", "_citations": "INFO", "_inputProblems": "INFO", "_inputValues": "UTILS"}
MOST_LINES, MOST_PARAMETERS, FEW_LINES = 60, 6, 60


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def functions(path):
    """Every function and method of a file, those inside of others too: (name, syntax tree)."""
    return [(node.name, node) for node in ast.walk(ast.parse(text_of(path)))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def arguments(node):
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def name_of(path):
    return os.path.relpath(path, PACKAGE)


@pytest.mark.parametrize("path", PROTOCOL_FILES, ids=name_of)
def test_methods_of_a_protocol_stand_in_the_order_of_the_sections(path):
    section, order, misplaced = "", [], []
    for line in text_of(path).splitlines():
        mark = re.match(r"    # -{66} (\w+)$", line)
        method = re.match(r"    def (\w+)\(", line)
        if mark:
            section = mark[1]
            order.append(section)
        if method:
            expected = "STEPS" if method[1].endswith("Step") else SECTION_OF.get(method[1], section)
            misplaced += [method[1]] if expected != section else []
    assert order == [name for name in SECTIONS if name in order]
    assert {"DEFINE", "STEPS", "INFO", "UTILS"} <= set(order)
    assert misplaced == []


def test_every_function_is_annotated():
    lacking = ["%s: %s" % (name_of(path), name) for path in FILES for name, node in functions(path)
               if node.returns is None or any(argument.annotation is None for argument in arguments(node))]
    assert lacking == []


def test_functions_are_short_and_take_few_parameters():
    large = ["%s: %s" % (name_of(path), name) for path in FILES for name, node in functions(path)
             if node.end_lineno - node.lineno >= MOST_LINES or len(arguments(node)) > MOST_PARAMETERS]
    assert large == []


def test_a_file_of_some_length_has_a_test_file_of_its_name_or_tests_that_name_what_it_holds():
    tests = {name: text_of(os.path.join(HERE, name)) for name in os.listdir(HERE) if name.startswith("test_")}
    code = "\n".join(tests.values())
    lacking = []
    for path in FILES:
        module = os.path.basename(path)[:-len(".py")]
        own = [node.name for node in ast.parse(text_of(path)).body
               if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]
        has_test = "test_%s.py" % module in tests or any(re.search(r"\b%s\b" % name, code) for name in own)
        if text_of(path).count("\n") > FEW_LINES and not has_test:
            lacking.append(name_of(path))
    assert lacking == []
