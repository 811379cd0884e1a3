"""What papermill lets pass in an executed notebook is found, each with one line."""

import re

import nbformat
import pytest
from helpers.notebooks import PARAMETERS, make_notebook

from patchcore_helpers.course.executed import check_executed

# As ipywidgets and IPython leave it: the error is in the state of an Output widget.
TRACEBACK = [
    "\x1b[31mZeroDivisionError\x1b[39m            Traceback (most recent call last)",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[2]\x1b[39m\x1b[32m, line 1\x1b[39m\n 1 / 0",
]


def error(name, message, traceback=()):
    return nbformat.v4.new_output("error", ename=name, evalue=message, traceback=list(traceback))


def stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def executed(cells, outputs=None, widgets=()):
    """A notebook whose cells have been executed; outputs by the index of the cell."""
    notebook = make_notebook(cells)
    for index, cell in enumerate(notebook.cells):
        cell.execution_count = index + 1
        cell.outputs = (outputs or {}).get(index, [])
    if widgets:
        state = {str(number): {"state": each} for number, each in enumerate(widgets)}
        mime = "application/vnd.jupyter.widget-state+json"
        notebook.metadata.widgets = {mime: {"state": state, "version_major": 2}}
    return notebook


def hidden_in_widget(traceback):
    output = error("ZeroDivisionError", "division by zero", traceback)
    return executed(
        [PARAMETERS, "with out:\n    1 / 0"],
        widgets=[{"_model_name": "LayoutModel"}, {"_model_name": "Output", "outputs": [output]}],
    )


FAILING = {
    "an error": (
        executed([PARAMETERS, "{}[6]"], {1: [error("KeyError", "6\nsecond line")]}),
        r"cell 2 \(id \w+, `{}\[6\]`\): KeyError: 6; run the notebook in JupyterLab to look into",
    ),
    "an exit": (
        executed([PARAMETERS, "raise SystemExit"], {1: [error("SystemExit", "0")]}),
        r"cell 2 \(.*\): SystemExit: 0; the cells below were left out; remove the exit",
    ),
    "an excuse": (
        executed([PARAMETERS, ("raises-exception", "{}[7]")], {1: [error("KeyError", "7")]}),
        r"cell 2 \(.*\): KeyError: 7; the tag `raises-exception` excuses nothing here",
    ),
    "a thread": (
        executed(
            [PARAMETERS, "thread.start()"],
            {1: [stream("stderr", "Traceback (most recent call last):\n  ...\nKeyError: 5\n")]},
        ),
        r"cell 2 \(.*\): traceback on standard error \(KeyError: 5\); fix the thread or callback",
    ),
    "a widget": (
        hidden_in_widget(TRACEBACK),
        r"cell 2 \(id \w+, `with out:`\): hidden in a widget: ZeroDivisionError: division by zero",
    ),
    "a widget of no cell": (
        hidden_in_widget([]),
        r"some cell: hidden in a widget: ZeroDivisionError",
    ),
    "a printed error in an output of papermill's own": (
        executed(
            [("papermill-error-cell-tag", "see below"), PARAMETERS, "1 / 0"],
            {2: [error("ZeroDivisionError", "division by zero")]},
        ),
        r"cell 2 \(id \w+, `1 / 0`\): ZeroDivisionError",  # counted as in the author's file
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failure_is_one_line(name):
    notebook, message = FAILING[name]
    (line,) = check_executed(notebook)
    assert re.match(message, line), line


def test_cells_that_were_not_executed():
    notebook = executed([PARAMETERS, "n", "\n", "n + 1"])
    for cell in notebook.cells[1:]:
        cell.execution_count = None
    lines = check_executed(notebook)
    assert [line.partition(" (id")[0] for line in lines] == ["cell 2", "cell 4"]
    assert all("was not executed; remove what skips it, or the cell" in line for line in lines)
    notebook.cells[0].outputs = [error("SystemExit", "0")]
    (line,) = check_executed(notebook)  # the cells below an error are not worth a line
    assert "SystemExit" in line


def test_a_good_notebook_passes():
    harmless = [
        stream("stderr", "a warning"),
        stream("stdout", "Traceback (most recent call last)"),
    ]
    widgets = [{"_model_name": "OutputModel", "outputs": harmless}]
    notebook = executed([PARAMETERS, "n"], {1: harmless}, widgets)
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    assert check_executed(notebook) == []
