"""The package stays small enough to be read: lines without docstrings and blank lines."""

import ast
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "patchcore_helpers"
CORE = ("coreset.py", "neighbours.py", "features.py", "patchcore.py")  # the method itself
SKIPPED = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(path):
    """How many lines of a module hold code or a comment; docstrings count for nothing."""
    with tokenize.open(path) as file:
        tree = ast.parse(file.read())
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    used = set()
    with open(path, "rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in SKIPPED | {tokenize.ENCODING}:
                used.update(range(token.start[0], token.end[0] + 1))
    return len(used - docstrings)


def check_budget(paths, limit):
    counts = {path.name: lines_of(path) for path in paths}
    total = sum(counts.values())
    assert total < limit, f"{total} lines, the limit is {limit}: {counts}"


def test_the_method_stays_under_1000_lines():
    check_budget([PACKAGE / name for name in CORE], 1000)


def test_the_package_stays_under_6000_lines():
    check_budget(PACKAGE.rglob("*.py"), 6000)


MODULE = '''"""Of the module,
in two lines."""

# A comment counts.
text = """not a docstring:

three lines"""


class Thing:
    """Of a class."""

    def method(self):
        """Of a method,

        in three lines."""
        return (  # behind code
            1
        )

    async def other(self):
        "Of another."
        """Not the first statement, so not a docstring."""
'''


def test_what_counts(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    assert lines_of(path) == 1 + 3 + 1 + 1 + 3 + 1 + 1
    path.write_text('"""Nothing else."""\n\n\n')
    assert lines_of(path) == 0


def test_a_module_that_is_too_long_is_seen(tmp_path):
    path = tmp_path / "long.py"
    path.write_text('"""Words.\n\n' + "words\n" * 5000 + '"""\n' + "x = 1\n\n" * 999)
    check_budget([path], 1000)
    path.write_text(path.read_text() + "# one more\n")
    with pytest.raises(AssertionError, match=r"1000 lines, the limit is 1000: \{'long.py': 1000\}"):
        check_budget([path], 1000)
