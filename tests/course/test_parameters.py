"""Parameters are checked before anything runs."""

import re
from pathlib import Path

import pytest
from helpers.notebooks import PARAMETERS, make_notebook, parse, run, write_notebook

from patchcore_helpers.course import notebook as notebook_module
from patchcore_helpers.course.jobs import plan
from patchcore_helpers.course.notebook import find_notebooks
from patchcore_helpers.course.parameters import declared_parameters
from patchcore_helpers.errors import InputError

INVALID = {
    "none": (["n = 1", "n"], r"^no cell is tagged `parameters`; tag"),
    "two": ([PARAMETERS, PARAMETERS], r"^more than one cell is tagged"),
    "left over": (
        [PARAMETERS, ("papermill-error-cell-tag", "assert n == 0")],
        r"cell 2 \(id \w+, `assert n == 0`\): left over from an earlier run; remove the cell",
    ),
    "stale": (
        [("parameters", "n: int = 1  # a number\ndouble = 2 * n  # of it"), "double"],
        r"cell 1 \(id \w+, `n: int .*\): `double = 2 \* n`: .* move it to the next cell",
    ),
    "no value": ([("parameters", "n: int")], r"`n: int`: not a name and a literal"),
    "mistyped": (
        [("parameters", 'n: int = "one"  # a number'), "n"],
        r"cell 1 .*`n: int = 'one'`: the value is not of its declared type",
    ),
    "uncheckable": (
        [("parameters", "n: Number = 1  # a number"), "n"],
        r"cell 1 .*`n: Number = 1`: Number cannot be checked; use float, bool, int,",
    ),
    "no code": ([("parameters", "n: int =")], r"cell 1 .*: invalid syntax; write one `name: type"),
}

DECLARED = """
n: int = 1  # a number
ratio: float = 0.5  # of something
name: str = "x=y"  # of somebody
some: list[float] = [1.0]  # numbers
maybe: int | None = None  # or nothing
flag: bool = False  # yes or no
data_dir: str = "data"  # a folder
"""


@pytest.fixture
def lesson(tmp_path):
    return write_notebook(tmp_path / "04_exp1_lesson.ipynb", [("parameters", DECLARED), "n"])


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_declaration_is_one_line(name):
    cells, message = INVALID[name]
    (problem,) = declared_parameters(make_notebook(cells))[1]
    assert re.search(message, problem), problem


def test_declarations_are_read_as_python(lesson):
    (job,) = plan(parse(lesson))
    assert not job.failures and not job.parameters
    assert {p.name: p.annotation for p in job.declared.values()} == {
        "n": "int",
        "ratio": "float",
        "name": "str",
        "some": "list[float]",
        "maybe": "int | None",
        "flag": "bool",
        "data_dir": "str",
    }
    assert job.declared["name"].default == "x=y"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "3", 3),
        ("ratio", "1", 1.0),
        ("ratio", "1e-3", 0.001),
        ("name", "04", "04"),
        ("name", "no", "no"),
        ("some", "[1, 2e-3]", [1, 0.002]),
        ("maybe", "null", None),
        ("maybe", "4", 4),
        ("flag", "true", True),
        ("data_dir", "here", str(Path("here").absolute())),
    ],
)
def test_values_are_read_as_their_declared_type(lesson, name, text, value):
    (job,) = plan(parse(lesson, "-p", name, text))
    assert job.parameters == {name: value}
    assert type(job.parameters[name]) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "ratoi", "1"], "-p ratoi 1: no parameter ratoi in 04_exp1_lesson; did you mean ra"),
        (["-p", "zzz", "1"], "-p zzz 1: no parameter zzz in .*; there are: data_dir, flag,"),
        (["-p", "n", "1.5"], "-p n 1.5: 1.5 is not of type int, as 04_exp1_lesson declares"),
        (["-p", "n", "true"], "True is not of type int"),
        (["-p", "n", "[1"], r"'\[1' is not of type int"),
        (["-p", "ratio", "much"], "'much' is not of type float"),
        (["-p", "flag", "1"], "1 is not of type bool"),
        (["-p", "some", "[1, x]"], r"\[1, 'x'\] is not of type list\[float\]"),
        (["-p", "maybe", "x"], r"'x' is not of type int \| None"),
        (["-p", "output_dir", "x"], "the runner chooses output_dir; use --output DIR"),
        (["--scheduler", "tcp://a:1"], "--scheduler tcp://a:1: no parameter scheduler in"),
        (["-f", "missing.yaml"], "missing.yaml: cannot be read as a parameter file"),
        (["nowhere.ipynb"], "nowhere.ipynb: no such notebook; give an .ipynb file or one of:"),
        (["99"], "99: no such notebook"),
    ],
)
def test_invalid_arguments(lesson, tmp_path, words, message):
    with pytest.raises(InputError, match=message) as caught:
        run(lesson, *words, "--output", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ratoi: 1", "no parameter ratoi in 04_exp1_lesson; did you mean ratio"),
        ("n: many", "'many' is not of type int"),
        ("name: 4", "4 is not of type str"),
        ("- n", "not a parameter file"),
        ("n: [", "cannot be read as a parameter file"),
    ],
)
def test_invalid_parameter_files(lesson, content, message):
    file = lesson.parent / "configs" / "fast" / "04_exp1_lesson.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    for words in (["--profile", "fast"], ["-f", file]):
        with pytest.raises(InputError, match=message):
            plan(parse(lesson, *words))
    assert plan(parse(lesson))[0].parameters == {}  # another profile does not read it


def test_profiles(lesson):
    configs = lesson.parent / "configs"
    (configs / "full").mkdir(parents=True)
    (configs / "exp1_config.yaml").write_text("n: 7\nratio: 1e-2")
    assert plan(parse(lesson, "--profile", "full"))[0].parameters == {"n": 7, "ratio": 0.01}
    assert plan(parse(lesson, "--profile", "fast"))[0].parameters == {}
    (configs / "full" / "04_exp1_lesson.yaml").write_text("n: 8")
    (job,) = plan(parse(lesson, "--profile", "full", "-p", "flag", "yes"))
    assert job.parameters == {"n": 8, "flag": True}


def test_several_notebooks_share_a_parameter(lesson):
    other = write_notebook(lesson.parent / "other.ipynb", [PARAMETERS])
    jobs = plan(parse(lesson, other, "-p", "n", "3", "-p", "ratio", "0.1"))
    assert [job.parameters for job in jobs] == [{"n": 3, "ratio": 0.1}, {"n": 3}]


def test_two_notebooks_of_one_name(lesson):
    twin = write_notebook(lesson.parent / "twin" / lesson.name, [PARAMETERS])
    with pytest.raises(InputError, match="has the same name; run them separately"):
        plan(parse(lesson, twin))
    assert len(plan(parse(lesson, lesson))) == 1


def test_numbers_and_names(lesson, monkeypatch):
    monkeypatch.setattr(notebook_module, "notebooks_folder", lambda: lesson.parent)
    write_notebook(lesson.parent / "notes.ipynb", [PARAMETERS])
    for name in ("4", "04", "04_exp1_lesson", "04_exp1_lesson.ipynb"):
        assert find_notebooks([name]) == [lesson]
    assert find_notebooks() == [lesson]


def test_files_that_are_not_notebooks(tmp_path):
    for name, content in {"a.ipynb": "{", "b.ipynb": '{"cells": 1}', "c.ipynb": ""}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=rf"{name}: not a notebook \(.*save it again"):
            plan(parse(tmp_path / name))


@pytest.mark.parametrize("word", ["--timeout=0", "--timeout=inf", "-j=0", "--profile=quick"])
def test_invalid_options(word, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(word)
    assert caught.value.code == 2
