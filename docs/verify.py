"""Check that every notebook keeps the form of a lesson, and mend what needs no author.

    python docs/verify.py                            # all notebooks; or some: path, name, number
    python docs/verify.py --fix                      # mend what can be mended
    python docs/verify.py --summaries output --fix   # first take the runs in output/ over

`make verify` does the first, `make readme` the last.

A number in prose comes from a committed run. `docs/runs/<notebook>.json` holds what one run
measured; the line `Time and memory: ...` is made from it, and so is whatever stands between
``<!--=NAME:FORMAT-->`` and ``<!--/-->``, where NAME was recorded by the notebook itself
(``image_auroc``) or by another one (``01_introduction.image_auroc``).
"""

import argparse
import ast
import copy
import itertools
import json
import math
import re
import sys
from pathlib import Path

import nbformat

from patchcore_helpers.course.notebook import find_notebooks, label, read_notebook, tags
from patchcore_helpers.course.parameters import declared_parameters
from patchcore_helpers.course.results import read_summary
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write, sha256

# In this order; sections and interactive parts may alternate once a first section stands.
SKELETON = {
    "# N. Title": r"# \d+\. .+",
    "**The question.**": r"\*\*The question\.\*\* .+",
    "## What you will learn": r"## What you will learn",
    "## Before you start": r"## Before you start",
    "Time and memory: ...": r"Time and memory: .*",
    "the cell tagged `parameters`": None,
    "the cell tagged `setup`": None,
    "## (a section, the first one with a toy)": None,
    "## Try it: ...": r"## Try it: .+",
    "## Exercises": r"## Exercises",
    "## Recap": r"## Recap",
    "## Go further": r"## Go further",
}
TITLE, _, LEARN, _, TIME, PARAMETERS, SETUP, SECTION, TRY, EXERCISES, *_ = SKELETON
MAX_LINES = 15  # of code in a cell, without blank lines and comments
MAX_LINES_TAGGED = {"parameters": 30, "setup": 25}
HIDING = {"Output", "interact", "interact_manual", "interactive", "interactive_output"}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COMMITTED = ("notebook", "seconds", "peak_rss_mb", "cores", "versions", "code_sha256", "results")


def time_line(summary):
    """Say in prose what a run took.

    >>> time_line({"seconds": 112.4, "peak_rss_mb": 1391, "cores": 2})
    'Time and memory: about 2 minutes and 1.4 GB on 2 cores (measured).'
    """
    seconds, memory, cores = (summary[key] for key in ("seconds", "peak_rss_mb", "cores"))
    took = f"{math.ceil(seconds / 10) * 10} seconds"
    if seconds >= 90:
        took = f"{seconds / 60:.0f} minutes"
    room = f"{math.ceil(memory / 50) * 50} MB" if memory < 950 else f"{memory / 1000:.1f} GB"
    where = "1 core" if cores == 1 else f"{cores} cores"
    return f"Time and memory: about {took} and {room} on {where} (measured)."


def render(text, numbers):
    """Put measured numbers between their marks.

    >>> render("It reaches <!--=auroc:.2f-->?<!--/-->.", {"auroc": 0.9712})
    'It reaches <!--=auroc:.2f-->0.97<!--/-->.'
    """

    def put(match):
        try:
            return f"<!--={match[1]}-->{numbers[match[2]]:{match[3]}}<!--/-->"
        except (KeyError, ValueError, TypeError):  # TypeError: it was recorded as None
            return f"<!--={match[1]}-->?<!--/-->"

    return re.sub(r"<!--=(([\w.]+):([^>]*?))-->.*?<!--/-->", put, text, flags=re.DOTALL)


def save_summaries(output, runs):
    """Copy from an output folder what is committed of each run: numbers, and what made them.

    Parameters
    ----------
    output, runs : Path
        Folder of a batch (`output`), folder of the committed runs (`docs/runs`).

    Returns
    -------
    list of str
        Notebooks whose runs were copied: those that passed at the default profile, unchanged.
    """
    chosen = {}
    for folder in sorted(Path(output).glob("[0-9][0-9]_*")):
        summary = read_summary(folder)
        if summary and (summary["status"], summary["profile"]) == ("passed", "default"):
            chosen[summary["notebook"]] = {key: summary[key] for key in COMMITTED}
    if not chosen:
        raise InputError(f"{output}: holds no run at the default profile; `patchcore-course run`")
    runs.mkdir(parents=True, exist_ok=True)
    for name, summary in chosen.items():
        atomic_write(runs / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    return list(chosen)


def committed_runs(runs):
    """The committed runs by notebook, and all numbers that they recorded, by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))}
    numbers = {f"{k}.{name}": v for k, run in found.items() for name, v in run["results"].items()}
    return found, numbers


def _links(path):
    """The cell of links to the notebooks before and after this one; empty if there are none."""
    course = sorted(path.parent.glob("[0-9][0-9]_*.ipynb"))
    at = course.index(path) if path in course else None
    before = course[at - 1] if at else None
    after = course[at + 1] if at is not None and at + 1 < len(course) else None
    links = []
    for word, target in (("Previous", before), ("Next", after)):
        if target:
            text = "\n".join(cell["source"] for cell in read_notebook(target)["cells"])
            title = re.search(r"^# (.+)$", text, re.MULTILINE)
            links.append(f"{word}: [{title[1] if title else target.stem}]({target.name})")
    return " | ".join(links)


def tidy(notebook, path, runs):
    """Mend a notebook in place, as far as that needs no author.

    Parameters
    ----------
    notebook : dict
        As in the file, sources as single texts.
    path : Path
    runs : Path
        Folder of the committed runs.

    Returns
    -------
    list of str
        What was wrong, a line each.
    """
    found, (committed, numbers) = [], committed_runs(runs)
    cells, run = notebook["cells"], committed.get(path.stem)
    numbers |= run["results"] if run else {}
    if notebook.get("metadata") != METADATA or notebook.get("nbformat_minor") != 5:
        found.append("its metadata is not just the kernel python3 in notebook format 4.5")
        notebook |= {"metadata": copy.deepcopy(METADATA), "nbformat_minor": 5}
    links = _links(path)
    is_links = cells and cells[-1]["source"].startswith(("Previous: [", "Next: ["))
    if (cells[-1]["source"] if is_links else "") != links:
        found.append(f"its last cell does not link as `{links}`")
        del cells[len(cells) - bool(is_links) :]
        if links:
            cells.append({"cell_type": "markdown", "metadata": {}, "source": links})
    ids = set()
    for number, cell in enumerate(cells, 1):
        where = label(number, cell)
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"{where}: holds outputs or an execution count")
            cell |= {"outputs": [], "execution_count": None}
        if set(cell["metadata"]) - {"tags"}:
            found.append(f"{where}: its metadata holds more than tags")
            cell["metadata"] = {key: v for key, v in cell["metadata"].items() if key == "tags"}
        if not re.fullmatch(r"[\w-]{1,64}", cell.get("id", "")) or cell["id"] in ids:
            found.append(f"{where}: has no id of its own")
            cell["id"] = next(
                new for i in range(99) if (new := sha256(cell["source"], str(i))[:8]) not in ids
            )
        ids.add(cell["id"])
        if cell["cell_type"] == "markdown":
            text = render(cell["source"], numbers)
            if run:
                text = re.sub(rf"^{SKELETON[TIME]}$", time_line(run), text, flags=re.MULTILINE)
            if text != cell["source"]:
                found.append(f"{where}: its numbers are not those of docs/runs/{path.stem}.json")
                cell["source"] = text
    return found


def check(notebook, path, runs):
    """Find what an author has to mend.

    Parameters are those of `tidy`.

    Returns
    -------
    list of str
        The cell, what is wrong and the mend, a line each.
    """
    cells, found = notebook["cells"], []
    marks = list(_marks(cells))
    for mark in SKELETON:
        count = sum(mark == other for other, _, _ in marks)
        if not count:
            found.append(f"there is no {mark}; write it")
        if count > 1 and mark not in (SECTION, TRY):
            found.append(f"there are {count} of {mark}; keep one")
    rank = {mark: i for i, mark in enumerate(SKELETON)} | {TRY: list(SKELETON).index(SECTION)}
    for (before, _, _), (after, where, _) in itertools.pairwise(marks):
        if rank[after] < rank[before]:
            found.append(f"{where}: {after} stands below {before}; move it up")
    first = next((mark for mark in marks if mark[0] in (SECTION, TRY)), None)
    if first and (first[0] == TRY or "toy" not in first[2].lower()):
        found.append(f"{first[1]}: `{first[2]}` comes first; start with a section on a toy")
    title = next((text for mark, _, text in marks if mark == TITLE), "")
    if re.match(r"\d\d_", path.name) and not title.startswith(f"# {int(path.name[:2])}. "):
        found.append(f"the title `{title}` has not the number of the file; mend it")
    everything = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    goals = re.search(rf"^{LEARN}$(.*?)(?=^#|\Z)", everything, re.MULTILINE | re.DOTALL)
    if goals and not 3 <= len(re.findall(r"^- ", goals[1], re.MULTILINE)) <= 5:
        found.append(f"{LEARN}: write three to five points, each behind `- `")
    unmet = re.findall(r"<!--=([^>]*?)-->\?<!--/-->", everything)
    found += [f"no committed run fits the mark `{mark}`; mend either" for mark in unmet]
    found += [
        f"a link leads to {target}, which does not exist; remove it"
        for target in re.findall(r"\]\(([^)#:]+\.ipynb)", everything)
        if not (path.parent / target).is_file()
    ]
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    summary = committed_runs(runs)[0].get(path.stem)
    if not summary or summary["code_sha256"] != sha256(*code):
        found.append(
            f"no run of this code in {runs.name}/{path.stem}.json; `patchcore-course run` it, "
            "then `make readme`"
        )
    if not code or not code[-1].rstrip().endswith("lesson.finish()"):
        found.append("the last code cell has to end with `lesson.finish()`")
    return found + declared_parameters(notebook)[1] + list(_check_code(cells))


def _marks(cells):
    """The landmarks of the skeleton in a notebook's order, as (mark, cell, line)."""
    for number, cell in enumerate(cells, 1):
        where = label(number, cell)
        if cell["cell_type"] == "code":
            for mark, tag in ((PARAMETERS, "parameters"), (SETUP, "setup")):
                if tag in tags(cell):
                    yield mark, where, tag
        elif cell["cell_type"] == "markdown":
            for line in re.sub(r"^```.*?^```", "", cell["source"], flags=re.M | re.S).splitlines():
                known = (m for m, form in SKELETON.items() if form and re.fullmatch(form, line))
                mark = next(known, SECTION if line.startswith("## ") else None)
                if mark:
                    yield mark, where, line


def _check_code(cells):
    """Problems of single code cells."""
    heading, predicted, exercises, explored = "", False, [], True
    for number, cell in enumerate(cells, 1):
        where, source = label(number, cell), cell["source"]
        if cell["cell_type"] != "code":
            for line in source.splitlines():
                if line.startswith("## "):
                    if not explored:
                        yield f"{heading}: calls no explore(...); make it interactive"
                    heading, predicted, explored = line, False, not line.startswith("## Try it")
                predicted |= line.startswith("**Predict first.**")
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            yield f"{where}: {error.msg}; write plain Python, without magics"
            continue
        kind = next((tag for tag in tags(cell) if tag in MAX_LINES_TAGGED), None)
        lines = [li for li in source.splitlines() if li.strip() and not li.lstrip().startswith("#")]
        limit = MAX_LINES_TAGGED.get(kind, MAX_LINES)
        if len(lines) > limit:
            yield f"{where}: {len(lines)} lines of code, over {limit}; split it or use the package"
        if heading.startswith("## Try it") and not predicted:
            yield f"{where}: no **Predict first.** above it; ask before the learner sees"
        if heading == EXERCISES:
            exercises += [tag for tag in tags(cell) if tag.startswith("exercise-")]
        if kind == "setup" and "seed" not in source:
            yield f"{where}: sets no seed; set the one seed here"
        for node in tree.body if kind == "parameters" else ():
            if not isinstance(node, ast.AnnAssign):
                yield f"{where}: `{ast.unparse(node)}` has no type; write name: type = literal"
            elif "#" not in source.splitlines()[node.end_lineno - 1][node.end_col_offset :]:
                yield f"{where}: `{ast.unparse(node)}` has no comment; say why behind it"
        for node in ast.walk(tree):
            name = getattr(node, "attr", getattr(node, "id", None))
            explored |= name == "explore"
            if isinstance(node, ast.Import | ast.ImportFrom) and kind != "setup":
                yield f"{where}: `{ast.unparse(node)}`; move it into the cell tagged `setup`"
            if name in HIDING:
                yield f"{where}: {name} hides errors from batch runs; use explore(...)"
            if name == "show" and isinstance(node, ast.Attribute):
                yield f"{where}: show() has no alternative text; use lesson.figure(..., alt=...)"
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "figure":
                alt = [key.value for key in node.keywords if key.arg == "alt"]
                is_lesson = getattr(node.func.value, "id", "") == "lesson"
                if is_lesson and not (alt and getattr(alt[0], "value", "text").strip()):
                    yield f"{where}: a figure without alternative text; describe it in alt=..."
    if not exercises or len(set(exercises)) < len(exercises):
        yield f"{EXERCISES}: tag one cell `exercise-<name>` for each exercise"


def verify(path, runs, fix=False):
    """Check one notebook; with `fix`, write what could be mended.

    Returns
    -------
    mended, left : list of str
    """
    notebook = read_notebook(path)
    before = copy.deepcopy(notebook)
    mended = tidy(notebook, path, runs)
    try:
        nbformat.validate(nbformat.from_dict(notebook))
    except nbformat.ValidationError as error:
        line = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a notebook ({line}); save it anew in JupyterLab") from None
    if fix and notebook != before:
        atomic_write(path, nbformat.writes(nbformat.from_dict(notebook)) + "\n")
    left = check(notebook, path, runs)
    return (mended, left) if fix else ([], [f"{line} (--fix mends it)" for line in mended] + left)


def main(arguments=None):
    """Check notebooks; returns 0, 1 if something is left to mend, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="path, name or number; none: all")
    add("--fix", action="store_true", help="mend what needs no author")
    add("--summaries", type=Path, metavar="OUTPUT", help="first take over the runs of this folder")
    args = parser.parse_args(arguments)
    n_left = 0
    try:
        paths = find_notebooks(args.notebooks)
        runs = paths[0].parents[1] / "docs" / "runs"
        if args.summaries:
            print("runs taken over:", ", ".join(save_summaries(args.summaries, runs)))
        for path in paths:
            mended, left = verify(path, runs, args.fix)
            n_left += len(left)
            for line in [*(f"mended: {each}" for each in mended), *left]:
                print(f"{path.stem}: {line}")
    except InputError as error:
        print(f"verify: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(paths)} notebooks checked, {n_left or 'nothing'} to mend")
    return 1 if n_left else 0


if __name__ == "__main__":
    sys.exit(main())
