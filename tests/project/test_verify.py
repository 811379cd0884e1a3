"""Every rule of docs/verify.py is seen to fail once, on the template with one thing broken."""

import argparse
import json
import re
from pathlib import Path

import nbformat
import pytest
import verify

from patchcore_helpers.course import runner
from patchcore_helpers.course.notebook import find_notebooks, read_notebook
from patchcore_helpers.course.results import MADE_BY
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256

TEMPLATE = Path(__file__).parents[2] / "notebooks" / "template" / "lesson_template.ipynb"
NAMES = ("01_first", "02_second", "03_third")


def command(*words):
    return verify.main([str(word) for word in words])


def cell(notebook, name):
    return next(c for c in notebook["cells"] if c.get("id") == name)


def save(path, notebook):
    path.write_text(json.dumps(notebook), encoding="utf-8")


def commit_run(path, **summary):
    """Pretend that the notebook was run as it stands."""
    runs = path.parents[1] / "docs" / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    code = [c["source"] for c in read_notebook(path)["cells"] if c["cell_type"] == "code"]
    run = {"seconds": 41, "peak_rss_mb": 512, "cores": 2, "code_sha256": sha256(*code)}
    run["results"] = {"mean_patch_score": 0.0371}
    (runs / f"{path.stem}.json").write_text(json.dumps(run | summary))
    return runs


@pytest.fixture
def course(tmp_path):
    """Three notebooks that pass."""
    (tmp_path / "notebooks").mkdir()
    paths = [tmp_path / "notebooks" / f"{name}.ipynb" for name in NAMES]
    for number, path in enumerate(paths, 1):
        notebook = read_notebook(TEMPLATE)
        cell(notebook, "title")["source"] = f"# {number}. Lesson {number}\n\n**The question.** Why?"
        save(path, notebook)
        commit_run(path)
    assert command(*paths, "--fix") == 0
    return paths


def problems(path):
    return verify.verify(path, path.parents[1] / "docs" / "runs")[1]


def test_good_notebooks_pass_and_are_left_alone(course, capsys):
    before = [path.read_bytes() for path in course]
    assert command(*course) == 0 and command(*course, "--fix") == 0
    assert [path.read_bytes() for path in course] == before
    assert capsys.readouterr().out == "3 notebooks checked, nothing to mend\n" * 2
    for path in course:
        nbformat.validate(nbformat.read(path, 4))


def test_the_course_itself():
    for path in find_notebooks():
        assert problems(path) == [], path.name


def swap(notebook, one, other):
    cells = notebook["cells"]
    i, j = (next(k for k, c in enumerate(cells) if c["id"] == name) for name in (one, other))
    cells[i], cells[j] = cells[j], cells[i]


def edit(name, old, new):
    def change(notebook):
        assert old in cell(notebook, name)["source"]
        cell(notebook, name)["source"] = cell(notebook, name)["source"].replace(old, new)

    return change


def setting(name, **values):
    return lambda notebook: cell(notebook, name).update(values)


LONG = "\n\n".join(["x = 1  # long", "# a comment does not count"] * 16)

BY_HAND = {  # a change, and what the author is told
    "title": (edit("title", "# 2. ", "# 3. "), "the title `# 3. Lesson 2` has not the number"),
    "no title": (edit("title", "# 2. ", "## "), r"there is no # N. Title; write it"),
    "no question": (edit("title", "**The question.** ", ""), r"there is no \*\*The question.\*\*"),
    "no goals": (edit("goals", "## What you will learn", ""), "there is no ## What you will learn"),
    "two goals": (edit("goals", "- when it misleads.", ""), "write three to five points"),
    "six goals": (edit("goals", "- what a", "- a\n- b\n- c\n- what a"), "three to five points"),
    "no start": (edit("before", "## Before you start", ""), "there is no ## Before you start"),
    "no time": (edit("before", "Time and memory", "Takes"), "there is no Time and memory: ..."),
    "no parameters": (setting("parameters", metadata={}), "no cell is tagged `parameters`; tag"),
    "no setup": (setting("setup", metadata={}), "there is no the cell tagged `setup`"),
    "no toy": (edit("toy", "toy", "thing"), r"cell 6 .* start with a section on a toy"),
    "no sections": (
        lambda notebook: [
            edit("toy", "## A toy", "a toy")(notebook),
            edit("real", "##", "")(notebook),
        ],
        r"there is no ## \(a section",
    ),
    "no try": (edit("try", "Try it: ", ""), "there is no ## Try it: ...; write it"),
    "no exercises": (edit("exercises", "## Exercises", ""), "there is no ## Exercises; write it"),
    "no recap": (edit("recap", "## Recap", ""), "there is no ## Recap; write it"),
    "no further": (edit("further", "## Go further", ""), "there is no ## Go further; write it"),
    "two recaps": (edit("recap", "- One", "## Recap\n- One"), "there are 2 of ## Recap; keep one"),
    "order": (
        lambda notebook: swap(notebook, "recap", "exercises"),
        r"cell \d+ \(id exercises, `## Exercises`\): ## Exercises stands below ## Recap; move it",
    ),
    "setup first": (
        lambda notebook: swap(notebook, "setup", "parameters"),
        "the cell tagged `parameters` stands below the cell tagged `setup`",
    ),
    "untyped": (
        edit("parameters", "seed: int", "seed"),
        "`seed = 0` has no type; write name: type",
    ),
    "uncommented": (
        edit("parameters", "# of every random choice", ""),
        "`seed: int = 0` has no com",
    ),
    "mistyped": (edit("parameters", "int = 0", "int = 0.5"), "value is not of its declared type"),
    "stale": (
        edit("parameters", "= 0 ", "= 2 * n_patches "),
        "would go stale; move it to the next",
    ),
    "no seed": (edit("setup", "(seed)", "(0)"), r"cell 5 \(id setup, .*\): sets no seed"),
    "import": (
        edit("toy-numbers", "bank =", "import os\nbank ="),
        r"`import os`; move it into the ce",
    ),
    "hidden import": (
        edit("try-explore", "    patch =", "    from os import sep\n    patch ="),
        "`from os import sep`",
    ),
    "long": (
        edit("toy-numbers", "bank =", LONG + "\nbank ="),
        "20 lines of code, over 15; split it",
    ),
    "magic": (edit("toy-numbers", "bank =", "%time\nbank ="), "write plain Python, without magics"),
    "no prediction": (edit("try", "**Predict first.**", ""), r"no \*\*Predict first.\*\* above it"),
    "not interactive": (
        edit("try-explore", "explore(", "dict("),
        "calls no explore.*make it intera",
    ),
    "hiding": (
        edit("try-explore", "explore(", "interact("),
        "interact hides errors from batch runs",
    ),
    "output": (
        edit("toy-numbers", "bank =", "w.Output()\nbank ="),
        "Output hides errors from batch",
    ),
    "no alt": (
        edit("real-figure", 'alt="The patches', 'a="The patches'),
        "a figure without alternative tex",
    ),
    "empty alt": (
        edit("real-figure", "The patches of the bank, scattered over a square.", " "),
        "a figure without alternative text; describe it",
    ),
    "show": (
        edit("real-figure", "lesson.figure", "plt.show()\nlesson.figure"),
        "use lesson.figure",
    ),
    "no exercise": (setting("exercise-answer", metadata={}), "tag one cell `exercise-<name>`"),
    "unfinished": (edit("finish", "lesson.finish()", "1"), "has to end with `lesson.finish"),
    "dead link": (
        edit("recap", "- One", "- [x](07_none.ipynb)"),
        "leads to 07_none.ipynb, which does",
    ),
    "other code": (
        edit("real-numbers", "100", "101"),
        "no run of this code in runs/02_second.json",
    ),
    "unknown number": (
        edit("reading", "mean_patch_score:", "auroc:"),
        "no committed run fits the mar",
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_what_an_author_has_to_mend(course, name, capsys):
    change, message = BY_HAND[name]
    notebook = read_notebook(course[1])
    change(notebook)
    save(course[1], notebook)
    if name != "other code":
        commit_run(course[1])
    assert command(*course, "--fix") == 1
    out = capsys.readouterr().out
    assert re.search(rf"(?m)^02_second: .*{message}", out), out


def stray_output(notebook):
    output = {"output_type": "stream", "name": "stdout", "text": "1"}
    cell(notebook, "toy-numbers").update(outputs=[output], execution_count=3)


BY_ITSELF = {  # a change, and what --fix says and does
    "outputs": (stray_output, "holds outputs or an execution count"),
    "count": (setting("toy-numbers", execution_count=1), "holds outputs or an execution count"),
    "kernel": (
        lambda notebook: notebook["metadata"]["kernelspec"].update(name="my-env"),
        "its metadata is not just the kernel python3",
    ),
    "widgets": (
        lambda notebook: notebook["metadata"].update(widgets={}),
        "its metadata is not just",
    ),
    "no id": (lambda notebook: cell(notebook, "recap").pop("id"), "has no id of its own"),
    "cell metadata": (
        setting("recap", metadata={"scrolled": True}),
        "metadata holds more than tags",
    ),
    "time": (
        edit("before", "50 seconds", "5 seconds"),
        "its numbers are not those of docs/runs/02_second.json",
    ),
    "number": (edit("reading", "0.037", "0.370"), "its numbers are not those of docs/runs/"),
    "no links": (
        lambda notebook: notebook["cells"].pop(),
        "its last cell does not link as `Previous",
    ),
}


@pytest.mark.parametrize("name", BY_ITSELF)
def test_what_fix_mends(course, name, capsys):
    good, notebook = read_notebook(course[1]), read_notebook(course[1])
    change, message = BY_ITSELF[name]
    change(notebook)
    save(course[1], notebook)
    assert command(*course) == 1
    assert message in (out := capsys.readouterr().out) and "(--fix mends it)" in out
    assert command(*course, "--fix") == 0
    assert command(*course) == 0
    mended = read_notebook(course[1])
    for before, after in zip(good["cells"], mended["cells"], strict=True):
        if name in ("no id", "no links"):
            before["id"] = after["id"]
    assert mended == good


def test_twice_the_same_id_is_mended_and_stays(course):
    notebook = read_notebook(course[1])
    cell(notebook, "recap")["id"] = "title"
    save(course[1], notebook)
    assert command(course[1], "--fix") == 0
    once = course[1].read_bytes()
    save(course[1], notebook)
    assert command(course[1], "--fix") == 0
    assert course[1].read_bytes() == once


def test_links_follow_the_files(course):
    def links():
        return [read_notebook(path)["cells"][-1]["source"] for path in course]

    assert links() == [
        "Next: [2. Lesson 2](02_second.ipynb)",
        "Previous: [1. Lesson 1](01_first.ipynb) | Next: [3. Lesson 3](03_third.ipynb)",
        "Previous: [2. Lesson 2](02_second.ipynb)",
    ]
    course.pop(1).unlink()
    assert command(*course) == 1
    assert command(*course, "--fix") == 0
    assert links() == [
        "Next: [3. Lesson 3](03_third.ipynb)",
        "Previous: [1. Lesson 1](01_first.ipynb)",
    ]
    course.pop(1).unlink()
    assert command(*course, "--fix") == 0
    assert links() == ["lesson.finish()"]


def test_a_number_may_come_from_another_notebook(course):
    notebook = read_notebook(course[1])
    edit("recap", "- One", "- <!--=01_first.mean_patch_score:.1%-->?<!--/-->")(notebook)
    save(course[1], notebook)
    assert command(*course) == 1 and command(*course, "--fix") == 0
    mended = cell(read_notebook(course[1]), "recap")["source"]
    assert "- <!--=01_first.mean_patch_score:.1%-->3.7%<!--/-->" in mended


def test_nothing_but_a_run_at_the_default_profile_is_committed(tmp_path):
    runs, output = tmp_path / "runs", tmp_path / "output"
    good = dict.fromkeys(verify.COMMITTED) | {"made_by": MADE_BY, "status": "passed"}
    for name, change in {
        "01_good": {"profile": "default"},
        "02_fast": {"profile": "fast"},
        "03_changed": {"profile": "default, changed"},
        "04_failed.failed": {"profile": "default", "status": "failed"},
        "05_foreign": {"profile": "default", "made_by": "me"},
    }.items():
        (output / name).mkdir(parents=True)
        summary = good | {"notebook": name} | change
        (output / name / "summary.json").write_text(json.dumps(summary))
    assert verify.save_summaries(output, runs) == ["01_good"]
    assert [path.name for path in runs.iterdir()] == ["01_good.json"]
    assert set(json.loads((runs / "01_good.json").read_text())) == set(verify.COMMITTED)
    with pytest.raises(InputError, match="holds no run at the default profile"):
        verify.save_summaries(tmp_path / "nothing", runs)


@pytest.mark.notebooks
def test_from_the_template_to_a_committed_lesson(tmp_path, capsys):
    """Copy, run, take the run over, render: what CONTRIBUTING tells an author to do."""
    path = tmp_path / "notebooks" / "01_lesson.ipynb"
    path.parent.mkdir()
    path.write_bytes(TEMPLATE.read_bytes())
    assert command(path) == 1
    parser = argparse.ArgumentParser()
    runner.add_arguments(parser)
    out = str(tmp_path / "out")
    assert runner.command(parser.parse_args([str(path), "--output", out])) == 0
    assert command(path, "--summaries", out, "--fix") == 0
    assert command(path) == 0, capsys.readouterr().out
    text = path.read_text()
    assert "(measured)." in text and "-->?<!--/-->" not in text
    summary = json.loads((tmp_path / "docs" / "runs" / "01_lesson.json").read_text())
    assert f"{summary['results']['mean_patch_score']:.3f}<!--/-->" in text
