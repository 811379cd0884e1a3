"""Check that notebooks are as they are committed: no outputs, and no stale numbers.

    python docs/verify.py                            # all notebooks; or some: path, name, number
    python docs/verify.py --fix                      # correct what needs no author
    python docs/verify.py --summaries output --fix   # first copy the runs in output/

`make verify` does the first, `make readme` the last.

A number in prose comes from a committed run. `docs/runs/<notebook>.json` holds what one run
measured; the line `Time and memory: ...` is made from it, and so is whatever is between
``<!--=NAME:FORMAT-->`` and ``<!--/-->``, where NAME was recorded by the notebook itself
(``image_auroc``) or by another one (``01_introduction.image_auroc``).
"""

import argparse
import ast
import copy
import json
import math
import re
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import nbformat

from patchcore_helpers.course.notebook import find_notebooks, label, read_notebook, tags
from patchcore_helpers.course.parameters import declared_parameters
from patchcore_helpers.course.results import read_summary
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write, sha256

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

    def fill(match):
        try:
            return f"<!--={match[1]}-->{numbers[match[2]]:{match[3]}}<!--/-->"
        except (KeyError, ValueError, TypeError):  # TypeError: it was recorded as None
            return f"<!--={match[1]}-->?<!--/-->"

    return re.sub(r"<!--=(([\w.]+):([^>]*?))-->.*?<!--/-->", fill, text, flags=re.DOTALL)


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
    committed = {}
    for folder in sorted(Path(output).glob("[0-9][0-9]_*")):
        summary = read_summary(folder)
        if summary and (summary["status"], summary["profile"]) == ("passed", "default"):
            committed[summary["notebook"]] = {key: summary[key] for key in COMMITTED}
    if not committed:
        raise InputError(f"{output}: holds no run at the default profile; `patchcore-course run`")
    runs.mkdir(parents=True, exist_ok=True)
    for name, summary in committed.items():
        atomic_write(runs / f"{name}.json", json.dumps(summary, indent=1) + "\n")
    return list(committed)


def committed_runs(runs):
    """The committed runs by notebook, and all numbers that they recorded, by name."""
    by_notebook = {path.stem: json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))}
    numbers = {}
    for notebook, run in by_notebook.items():
        for name, value in run["results"].items():
            numbers[f"{notebook}.{name}"] = value
    return by_notebook, numbers


# --- what a script can fix: each function changes the notebook and yields what was wrong ---


def fix_metadata(notebook):
    if notebook.get("metadata") != METADATA or notebook.get("nbformat_minor") != 5:
        notebook |= {"metadata": copy.deepcopy(METADATA), "nbformat_minor": 5}
        yield "its metadata is not just the kernel python3 in notebook format 4.5"


def fix_links(notebook, path):
    """The last cell leads to the notebooks before and after this one."""
    cells = notebook["cells"]
    links = _links(path)
    has_links = cells[-1]["source"].startswith(("Previous: [", "Next: ["))
    if (cells[-1]["source"] if has_links else "") == links:
        return
    if has_links:
        del cells[-1]
    if links:
        cells.append({"cell_type": "markdown", "metadata": {}, "source": links})
    yield f"its last cell does not link as `{links}`"


def _links(path):
    course = sorted(path.parent.glob("[0-9][0-9]_*.ipynb"))
    if path not in course:
        return ""
    number = course.index(path)
    links = []
    for word, neighbors in (("Previous", course[:number][-1:]), ("Next", course[number + 1 :][:1])):
        for target in neighbors:
            text = "\n".join(cell["source"] for cell in read_notebook(target)["cells"])
            title = re.search(r"^# (.+)$", text, re.MULTILINE)
            links.append(f"{word}: [{title[1] if title else target.stem}]({target.name})")
    return " | ".join(links)


def fix_cells(notebook):
    """Cells hold no outputs and no metadata but tags; each has an id."""
    ids = set()
    for number, cell in enumerate(notebook["cells"], 1):
        where = label(number, cell)
        if cell.get("outputs") or cell.get("execution_count") is not None:
            cell |= {"outputs": [], "execution_count": None}
            yield f"{where}: holds outputs or an execution count"
        if set(cell["metadata"]) - {"tags"}:
            cell["metadata"] = {key: v for key, v in cell["metadata"].items() if key == "tags"}
            yield f"{where}: its metadata holds more than tags"
        if not re.fullmatch(r"[\w-]{1,64}", cell.get("id", "")) or cell["id"] in ids:
            candidates = (sha256(cell["source"], str(attempt))[:8] for attempt in count())
            cell["id"] = next(candidate for candidate in candidates if candidate not in ids)
            yield f"{where}: has no id, or that of another cell"
        ids.add(cell["id"])


def fix_numbers(notebook, path, runs):
    """Numbers in prose are those of the committed runs."""
    by_notebook, numbers = committed_runs(runs)
    run = by_notebook.get(path.stem)
    numbers |= run["results"] if run else {}
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "markdown":
            continue
        text = render(cell["source"], numbers)
        if run:
            text = re.sub(r"^Time and memory: .*$", time_line(run), text, flags=re.MULTILINE)
        if text != cell["source"]:
            cell["source"] = text
            where = label(number, cell)
            yield f"{where}: its numbers are not those of docs/runs/{path.stem}.json"


# --- what an author has to fix ---


def check_prose(notebook, path):
    """Marks that no run fits, and links to notebooks that do not exist."""
    cells = notebook["cells"]
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    for mark in re.findall(r"<!--=([^>]*?)-->\?<!--/-->", text):
        yield f"no committed run fits the mark `{mark}`; correct the mark, or record the number"
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)", text):
        if not (path.parent / target).is_file():
            yield f"a link leads to {target}, which does not exist; remove it"


def check_run(notebook, path, runs):
    """The committed numbers come from this very code."""
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    summary = committed_runs(runs)[0].get(path.stem)
    if not summary or summary["code_sha256"] != sha256(*code):
        yield (
            f"no run of this code in {runs.name}/{path.stem}.json; `patchcore-course run` it, "
            "then `make readme`"
        )


def check_parameters(notebook):
    """Parameters are literals of a declared type, each with a comment that says what it does."""
    yield from declared_parameters(notebook)[1]
    for number, cell in enumerate(notebook["cells"], 1):
        if "parameters" not in tags(cell):
            continue
        where, lines = label(number, cell), cell["source"].splitlines()
        with suppress(SyntaxError):  # `declared_parameters` has reported it
            for node in ast.parse(cell["source"]).body:
                if not isinstance(node, ast.AnnAssign):
                    yield f"{where}: `{ast.unparse(node)}` has no type; write name: type = literal"
                elif "#" not in lines[node.end_lineno - 1][node.end_col_offset :]:
                    yield f"{where}: `{ast.unparse(node)}` has no comment; say why behind it"


def verify(path, runs, fix=False):
    """Check one notebook; with `fix`, write what a script can fix.

    Returns
    -------
    fixed, problems : list of str
    """
    notebook = read_notebook(path)
    before = copy.deepcopy(notebook)
    if not notebook["cells"]:
        raise InputError(f"{path}: has no cells; start from notebooks/template")
    fixed = [
        *fix_metadata(notebook),
        *fix_links(notebook, path),
        *fix_cells(notebook),
        *fix_numbers(notebook, path, runs),
    ]
    try:
        nbformat.validate(nbformat.from_dict(notebook))
    except nbformat.ValidationError as error:
        raise InputError(f"{path}: not a notebook ({error.message}); save it again") from None
    if fix and notebook != before:
        atomic_write(path, nbformat.writes(nbformat.from_dict(notebook)) + "\n")
    problems = [
        *check_prose(notebook, path),
        *check_run(notebook, path, runs),
        *check_parameters(notebook),
    ]
    if not fix:
        problems = [f"{line} (--fix corrects it)" for line in fixed] + problems
        fixed = []
    return fixed, problems


def main(arguments=None):
    """Check notebooks; returns 0, 1 if problems are left, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NOTEBOOK", help="path, name or number; none: all")
    add("--fix", action="store_true", help="correct what needs no author")
    add("--summaries", type=Path, metavar="OUTPUT", help="first copy the runs of this folder")
    args = parser.parse_args(arguments)
    n_problems = 0
    try:
        paths = find_notebooks(args.notebooks)
        runs = paths[0].parents[1] / "docs" / "runs"
        if args.summaries:
            print("runs copied:", ", ".join(save_summaries(args.summaries, runs)))
        for path in paths:
            fixed, problems = verify(path, runs, args.fix)
            n_problems += len(problems)
            for line in [*(f"fixed: {line}" for line in fixed), *problems]:
                print(f"{path.stem}: {line}")
    except InputError as error:
        print(f"verify: error: {error}", file=sys.stderr)
        return 2
    print(f"{len(paths)} notebooks checked, {n_problems or 'no'} problems")
    return 1 if n_problems else 0


if __name__ == "__main__":
    sys.exit(main())
