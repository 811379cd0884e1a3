"""CONTRIBUTING.md's picture of the house is true: what is there, and what imports what."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "patchcore_helpers"
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def lines_of_the_house():
    """Line by module, counted from the top."""
    block = re.search(r"```\n(patchcore_helpers/.*?)```", TEXT, re.S)[1]
    found = re.findall(r"^  (\w\S*(?: \w\S*)*)  ", block, re.M)
    return {name.strip("/"): line for line, names in enumerate(found) for name in names.split()}


def inner_imports(source, depth):
    """Modules of the package, by their first name, that a source imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("patchcore_helpers.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level == depth:
                names |= {node.module or a.name for a in node.names}
            elif node.level == 0 and node.module.partition(".")[0] == "patchcore_helpers":
                rest = node.module.partition(".")[2]
                names |= {rest or a.name for a in node.names}
    return {name.removeprefix("patchcore_helpers.").partition(".")[0] for name in names}


HOUSE = lines_of_the_house()
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.stem != "__init__"]


def name_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_is_in_the_picture_and_in_the_flow():
    assert {name_of(path) for path in MODULES} == set(HOUSE)
    flow = set(re.findall(r"\w+", re.search(r"```mermaid\n(.*?)```", TEXT, re.S)[1]))
    left_out = {"errors", "files", "images", "onnx_weights", "autoencoder", "parallel", "cli"}
    assert set(HOUSE) - flow == left_out | {"exercise_cases"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_imports_from_below_its_line(path):
    depth = len(path.relative_to(PACKAGE).parts)
    own = HOUSE[name_of(path)]
    below = {n for n in inner_imports(path.read_text("utf-8"), depth) if HOUSE.get(n, -1) > own}
    assert not below


def test_an_import_from_below_is_seen():
    source = "def f():\n    from .cli import main\n    from patchcore_helpers import lesson\n"
    assert inner_imports(source, 1) == {"cli", "lesson"}
