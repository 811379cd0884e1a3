"""Check that notebooks are as they are committed: no outputs, and no typed results.

    python docs/verify.py                            # all notebooks; or some: path, name, number
    python docs/verify.py --fix                      # correct what needs no author
    python docs/verify.py --summaries output --fix   # first copy the runs in output/

`make verify` does the first, `make readme` the last.

A number that was measured is printed by the page's own run: `lesson.say("... {image_auroc:.3f}")`.
So Markdown cells hold no decimals and no percentages, except the values of parameters, numbers of
the literature (in cells tagged `cites`) and definitions and toy arithmetic (tagged `defines`). Only
the line `Time and memory: ...` comes from a committed run, `docs/runs/<notebook>.json`.
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
FOLDED = "hide-input"  # the tag of a cell whose code is bookkeeping
NUMBERS_ALLOWED = {"cites", "defines"}  # tags of cells that hold numbers which nobody measured here
PREDICTION = "**Predict first.**"
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
    """The committed runs by notebook."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))}


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


def cell_metadata(cell):
    """The metadata that a cell is committed with: its tags, and whether JupyterLab folds it.

    >>> cell_metadata({"metadata": {"tags": ["hide-input"], "scrolled": True}})
    {'tags': ['hide-input'], 'jupyter': {'source_hidden': True}}
    """
    metadata = {key: value for key, value in cell["metadata"].items() if key == "tags"}
    if FOLDED in tags(cell):
        metadata["jupyter"] = {"source_hidden": True}
    return metadata


def fix_cells(notebook):
    """Cells hold no outputs and no metadata but tags; each has an id."""
    ids = set()
    for number, cell in enumerate(notebook["cells"], 1):
        where = label(number, cell)
        if cell.get("outputs") or cell.get("execution_count") is not None:
            cell |= {"outputs": [], "execution_count": None}
            yield f"{where}: holds outputs or an execution count"
        if cell["metadata"] != cell_metadata(cell):
            cell["metadata"] = cell_metadata(cell)
            yield f"{where}: its metadata is not just its tags, and that it is folded"
        if not re.fullmatch(r"[\w-]{1,64}", cell.get("id", "")) or cell["id"] in ids:
            candidates = (sha256(cell["source"], str(attempt))[:8] for attempt in count())
            cell["id"] = next(candidate for candidate in candidates if candidate not in ids)
            yield f"{where}: has no id, or that of another cell"
        ids.add(cell["id"])


def fix_time(notebook, path, runs):
    """The time and memory that a notebook promises are those of its committed run."""
    run = committed_runs(runs).get(path.stem)
    if not run:
        return
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "markdown":
            continue
        text = re.sub(r"^Time and memory: .*$", time_line(run), cell["source"], flags=re.MULTILINE)
        if text != cell["source"]:
            cell["source"] = text
            yield f"{label(number, cell)}: its time is not that of docs/runs/{path.stem}.json"


# --- what an author has to fix ---


def check_links(notebook, path):
    """Links to notebooks that do not exist."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for target in re.findall(r"\]\(([^)#:]+\.ipynb)", cell["source"]):
            if not (path.parent / target).is_file():
                yield f"a link leads to {target}, which does not exist; remove it"


# What is no number of prose: code, formulas, links, identifiers of papers, sections of papers.
NOT_PROSE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|arXiv[: ]\d{4}\.\d{4,5}(v\d+)?|"
    r"(and|or|arXiv|,) \d{4}\.\d{5}|[Ss]ections? \d+(\.\d+)*|^Time and memory: .*$",
    re.DOTALL | re.MULTILINE,
)
MEASURED = re.compile(r"(?<![\w.])\d*\.\d+(?!\.?\d)(?: ?%)?|(?<![\w.])\d+ ?%")


def typed_numbers(text, parameters=()):
    """Decimals and percentages in prose that are not the value of a parameter.

    >>> typed_numbers("It reaches .957, that is 8 % more, with `0.5` in arXiv 2106.08265.")
    ['.957', '8 %']
    >>> typed_numbers("A bank of 1 %, of 0.01.", [0.01])
    []
    """
    known = {float(value) for value in parameters} | {100 * float(value) for value in parameters}
    numbers = MEASURED.findall(NOT_PROSE.sub(" ", text))
    return [
        number
        for number in numbers
        if not any(math.isclose(float(number.rstrip(" %")), value) for value in known)
    ]


def parameter_values(notebook):
    """The numbers among the default values of the parameters."""
    values = []
    for cell in notebook["cells"]:
        if "parameters" in tags(cell):
            with suppress(SyntaxError):  # `declared_parameters` reports it
                tree = ast.parse(cell["source"])
                constants = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
                values += [value for value in constants if type(value) in (int, float)]
    return values


def check_numbers(notebook):
    """Measured numbers that somebody typed into a Markdown cell."""
    parameters = parameter_values(notebook)
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "markdown" or NUMBERS_ALLOWED.intersection(tags(cell)):
            continue
        typed = typed_numbers(cell["source"], parameters)
        if typed:
            yield (
                f"{label(number, cell)}: has typed numbers ({', '.join(typed[:3])}); print what "
                "was measured with lesson.say, or tag the cell `cites` or `defines`"
            )
        if "committed run" in cell["source"] or "<!--=" in cell["source"]:
            yield f"{label(number, cell)}: speaks of another run; print this run's numbers"


def check_predictions(notebook):
    """A prediction is answered before its section ends."""
    asked = None
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "code":
            asked = None if "lesson.answer(" in cell["source"] else asked
            continue
        is_new_section = re.match(r"#+ ", cell["source"])
        if asked and (is_new_section or PREDICTION in cell["source"]):
            yield f"{asked}: no lesson.answer follows the prediction"
            asked = None
        if PREDICTION in cell["source"]:
            asked = label(number, cell)
    if asked:
        yield f"{asked}: no lesson.answer follows the prediction"


BOOKKEEPING = ("lesson.record(", "lesson.say(", "lesson.answer(", "exercises.quiz(")


def check_folding(notebook):
    """Bookkeeping is in cells of its own, which pages fold."""
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] == "code" and FOLDED not in tags(cell):
            for call in BOOKKEEPING:
                if call in cell["source"]:
                    yield (
                        f"{label(number, cell)}: {call}...) is bookkeeping; move it to a cell "
                        f"tagged `{FOLDED}`"
                    )


def check_run(notebook, path, runs):
    """The committed numbers come from this very code."""
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    summary = committed_runs(runs).get(path.stem)
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
        *fix_time(notebook, path, runs),
    ]
    try:
        nbformat.validate(nbformat.from_dict(notebook))
    except nbformat.ValidationError as error:
        raise InputError(f"{path}: not a notebook ({error.message}); save it again") from None
    if fix and notebook != before:
        atomic_write(path, nbformat.writes(nbformat.from_dict(notebook)) + "\n")
    problems = [
        *check_links(notebook, path),
        *check_numbers(notebook),
        *check_predictions(notebook),
        *check_folding(notebook),
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
