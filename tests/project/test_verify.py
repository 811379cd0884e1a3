"""Every rule of docs/verify.py is seen to fail once, on the template with one thing broken."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import verify
from verify import find_notebooks, read_notebook

from patchcore_helpers.app import cli
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


def commit_run(path):
    """Pretend that the notebook was run as it is."""
    runs = path.parents[1] / "docs" / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    code = [c["source"] for c in read_notebook(path)["cells"] if c["cell_type"] == "code"]
    run = {"seconds": 41, "peak_rss_mb": 512, "cores": 2, "code_sha256": sha256(*code)}
    run["results"] = {"mean_patch_score": 0.0371}
    (runs / f"{path.stem}.json").write_text(json.dumps(run))


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


def test_good_notebooks_pass_and_are_left_alone(course, capsys):
    before = [path.read_bytes() for path in course]
    assert command(*course) == 0 and command(*course, "--fix") == 0
    assert [path.read_bytes() for path in course] == before
    assert capsys.readouterr().out == "3 notebooks checked, no problems\n" * 2
    for path in course:
        nbformat.validate(nbformat.read(path, 4))


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_the_course_itself(path):
    runs = path.parents[1] / "docs" / "runs"
    assert verify.verify(path, runs) == ([], [])


def edit(name, old, new):
    def change(notebook):
        assert old in cell(notebook, name)["source"]
        cell(notebook, name)["source"] = cell(notebook, name)["source"].replace(old, new)

    return change


def move(notebook, name, before):
    moved = cell(notebook, name)
    notebook["cells"].remove(moved)
    notebook["cells"].insert(notebook["cells"].index(cell(notebook, before)), moved)


def setting(name, **values):
    return lambda notebook: cell(notebook, name).update(values)


FOR_AN_AUTHOR = {  # a change, and what the author is told
    "no parameters": (setting("parameters", metadata={}), "no cell is tagged `parameters`; tag"),
    "untyped": (edit("parameters", "seed: int", "seed"), "`seed = 0` has no type; write name: "),
    "uncommented": (
        edit("parameters", "# of every random choice", ""),
        "`seed: int = 0` has no comment",
    ),
    "mistyped": (edit("parameters", "int = 0", "int = 0.5"), "value is not of its declared type"),
    "computed": (edit("parameters", "= 0 ", "= 2 * n_patches "), "would go stale; move it to the"),
    "dead link": (
        edit("recap", "Recap", "Recap [x](07_none.ipynb)"),
        "leads to 07_none.ipynb, which",
    ),
    "typed decimal": (edit("reading", "its own", "its own, .957"), r"has typed numbers \(\.957\)"),
    "typed share": (edit("toy", "Start", "In 12 % of cases, start"), r"has typed numbers \(12 %\)"),
    "other run": (edit("reading", "So the", "In the committed run the"), "speaks of another run"),
    "no answer": (
        edit("try-answer", "lesson.answer(", "lesson.print("),
        "no lesson.answer follows the prediction",
    ),
    "answer too late": (
        lambda notebook: move(notebook, "try-answer", before="finish"),
        "no lesson.answer follows the prediction",
    ),
    "unfolded": (setting("recap-numbers", metadata={}), r"lesson.say\(...\) is bookkeeping; move"),
    "other code": (edit("real-numbers", "100", "101"), "no run of this code in runs/02_second"),
}


@pytest.mark.parametrize("name", FOR_AN_AUTHOR)
def test_what_an_author_has_to_fix(course, name, capsys):
    change, message = FOR_AN_AUTHOR[name]
    notebook = read_notebook(course[1])
    change(notebook)
    save(course[1], notebook)
    if name != "other code":
        commit_run(course[1])
    assert command(*course, "--fix") == 1
    out = capsys.readouterr().out
    assert re.search(rf"(?m)^02_second: .*{message}", out), out


def add_output(notebook):
    output = {"output_type": "stream", "name": "stdout", "text": "1"}
    cell(notebook, "toy-numbers").update(outputs=[output], execution_count=3)


FOR_THE_SCRIPT = {  # a change, and what is said about it
    "outputs": (add_output, "holds outputs or an execution count"),
    "count": (setting("toy-numbers", execution_count=1), "holds outputs or an execution count"),
    "kernel": (
        lambda notebook: notebook["metadata"]["kernelspec"].update(name="my-env"),
        "its metadata is not just the kernel python3",
    ),
    "widgets": (lambda n: n["metadata"].update(widgets={}), "its metadata is not just"),
    "no id": (lambda notebook: cell(notebook, "recap").pop("id"), "has no id, or that of another"),
    "cell metadata": (setting("recap", metadata={"scrolled": True}), "is not just its tags"),
    "not folded": (
        setting("recap-numbers", metadata={"tags": ["hide-input"]}),
        "is not just its tags, and that it is folded",
    ),
    "time": (edit("before", "50 seconds", "5 seconds"), "its time is not that of docs/runs/02_"),
    "no links": (lambda notebook: notebook["cells"].pop(), "does not link as `Previous"),
}


@pytest.mark.parametrize("name", FOR_THE_SCRIPT)
def test_what_the_script_fixes(course, name, capsys):
    good, notebook = read_notebook(course[1]), read_notebook(course[1])
    change, message = FOR_THE_SCRIPT[name]
    change(notebook)
    save(course[1], notebook)
    assert command(*course) == 1
    out = capsys.readouterr().out
    assert message in out and "(--fix corrects it)" in out
    assert command(*course, "--fix") == 0
    assert command(*course) == 0
    fixed = read_notebook(course[1])
    for before, after in zip(good["cells"], fixed["cells"], strict=True):
        if name in ("no id", "no links"):
            before["id"] = after["id"]
    assert fixed == good


def test_an_id_that_is_there_twice(course):
    notebook = read_notebook(course[1])
    cell(notebook, "recap")["id"] = "title"
    contents = []
    for _ in range(2):  # the new id is the same every time
        save(course[1], notebook)
        assert command(course[1], "--fix") == 0
        contents.append(course[1].read_bytes())
    assert contents[0] == contents[1]


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


@pytest.mark.parametrize("tag", ["cites", "defines"])
def test_numbers_that_nobody_measured_here_are_tagged(course, tag):
    notebook = read_notebook(course[1])
    edit("reading", "its own", "its own, .957")(notebook)
    cell(notebook, "reading")["metadata"] = {"tags": [tag]}
    save(course[1], notebook)
    assert command(course[1]) == 0


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("0.95 and .9, 12.5 % and 5%", ["0.95", ".9", "12.5 %", "5%"]),
        ("`0.95`, $p = 0.5$, $$x = .5$$, [x](a_0.5.png), arXiv 2106.08265, version 1.2.3", []),
        ("256 pixels, CVPR 2022, section 3.2, Eq. 7, 1,000 parts", []),
        ("a bank of 1 %, or 0.01, and half of it", []),
        ("```\n0.5\n```", []),
    ],
)
def test_what_counts_as_a_typed_number(text, typed):
    assert verify.typed_numbers(text, [0.01]) == typed


def test_only_a_run_at_the_default_profile_is_committed(tmp_path):
    runs, output = tmp_path / "runs", tmp_path / "output"
    good = dict.fromkeys(verify.COMMITTED)
    good |= {"made_by": "patchcore-course run", "status": "passed"}
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
    """Copy, run, copy the run, fill in the numbers: what CONTRIBUTING tells an author to do."""
    path = tmp_path / "notebooks" / "01_lesson.ipynb"
    path.parent.mkdir()
    path.write_bytes(TEMPLATE.read_bytes())
    assert command(path) == 1
    out = str(tmp_path / "out")
    assert cli.main(["run", str(path), "--output", out]) == 0
    assert command(path, "--summaries", out, "--fix") == 0
    assert command(path) == 0, capsys.readouterr().out
    assert "(measured)." in path.read_text()
    summary = json.loads((tmp_path / "docs" / "runs" / "01_lesson.json").read_text())
    assert 0 < summary["results"]["mean_patch_score"] < 1
    page = (tmp_path / "out" / "01_lesson" / "01_lesson.html").read_text()
    assert f"{summary['results']['mean_patch_score']:.3f}</strong>" in page
