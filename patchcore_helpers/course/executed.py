"""What papermill lets pass in a notebook that it executed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from patchcore_helpers.course.notebook import is_added_by_papermill, label, tags

TERMINAL_COLORS = re.compile(r"\x1b\[[\d;]*m")


class Failure(NamedTuple):
    """An error in some output: one line that says what to do, and its traceback."""

    line: str
    traceback: str


def check_executed(notebook: Mapping[str, Any]) -> list[str]:
    """Find what is wrong with an executed notebook.

    Besides errors in the outputs of a cell these are what papermill takes for success: cells that
    were not executed, `sys.exit`, tracebacks of threads and callbacks on standard error, and errors
    that a widget has caught (they are in the widget's state, not in an output of the cell).

    Parameters
    ----------
    notebook : dict
        An executed notebook, as `nbformat.read` returns it.

    Returns
    -------
    list of str
        One line for each failure: the cell, what is wrong, and how to fix it. Empty for a
        successful run.
    """
    failures = []
    unexecuted = []
    label_of_execution = {}
    cells = [cell for cell in notebook["cells"] if not is_added_by_papermill(cell)]
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] != "code":
            continue
        where = label(number, cell)
        label_of_execution[str(cell["execution_count"])] = where
        failures += [
            f"{where}: {failure.line}" for failure in _find_errors(cell["outputs"], tags(cell))
        ]
        if cell["execution_count"] is None and cell["source"].strip():
            unexecuted.append(f"{where}: was not executed; remove what skips it, or the cell")

    for failure in _find_errors(notebook["metadata"].get("widgets", {})):
        execution = re.search(r"In\[(\d+)\]", failure.traceback)
        where = label_of_execution.get(execution[1] if execution else "", "some cell")
        failures.append(f"{where}: hidden in a widget: {failure.line}")
    return failures or unexecuted  # after an error, the cells below it are not worth a line


def _find_errors(node: Any, cell_tags: list[str] | None = None) -> Iterator[Failure]:
    """Find outputs that are errors anywhere in a piece of JSON."""
    if isinstance(node, list):
        for item in node:
            yield from _find_errors(item, cell_tags)
    elif not isinstance(node, dict):
        return
    elif node.get("output_type") == "error":
        yield _from_error(node, cell_tags or [])
    elif node.get("output_type") == "stream":
        text = "".join(node["text"]).rstrip()
        if node["name"] == "stderr" and "Traceback (most recent call last)" in text:
            last_line = text.splitlines()[-1]
            yield Failure(
                f"traceback on standard error ({last_line}); fix the thread or callback", text
            )
    else:
        yield from _find_errors(list(node.values()), cell_tags)


def _from_error(output: Mapping[str, Any], cell_tags: list[str]) -> Failure:
    if output["ename"] == "SystemExit":
        fix = "the cells below were left out; remove the exit"
    elif "raises-exception" in cell_tags:
        fix = "the tag `raises-exception` excuses nothing here; make the cell return"
    else:
        fix = "run the notebook in JupyterLab to look into it"
    message = output["evalue"].strip().partition("\n")[0]
    traceback = TERMINAL_COLORS.sub("", "\n".join(output["traceback"]))
    return Failure(f"{output['ename']}: {message}; {fix}", traceback)
