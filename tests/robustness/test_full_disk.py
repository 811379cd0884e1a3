"""What is written to a full disk is refused in one line, and nothing half is left behind."""

import json
import resource
import subprocess
import sys

import nbformat
import pytest
from helpers.processes import run_apart
from helpers.writers import (
    contents,
    unfinished,
    write_bank,
    write_cache,
    write_grid,
    write_prepared,
)

pytestmark = pytest.mark.long
# A writer, and sizes of the largest file at which it fails.
LIMITS = [
    (write_bank, 0),
    (write_bank, 5000),
    (write_grid, 0),
    (write_grid, 50),
    (write_prepared, 0),
    (write_prepared, 1000),
]


@pytest.mark.parametrize(("writer", "limit"), LIMITS)
def test_no_room(writer, limit, tmp_path):
    folder, whole = tmp_path / "result", tmp_path / "whole"
    for target in (whole, folder):
        target.mkdir()
    ended = run_apart(writer, whole)
    assert ended.status == 0, ended
    ended = run_apart(writer, folder, largest_file=limit)
    assert ended.status == 2, ended
    assert ended.err.count("\n") == 1 and ended.err.startswith("error: ") and not ended.out
    assert not unfinished(tmp_path)
    expected = contents(whole)
    for name, content in contents(folder).items():
        assert (
            expected[name].startswith(content)
            if name.endswith(".csv")
            else (content == expected[name])
        )
    assert run_apart(writer, folder).status == 0
    assert contents(folder) == expected


@pytest.mark.parametrize("limit", [0, 5000])
def test_no_room_for_the_cache(limit, tmp_path):
    """The cache only saves time: the work goes on without it, with the same scores."""
    ended = run_apart(write_cache, tmp_path, largest_file=limit)
    assert ended.status == 0, ended
    assert ended.err.count("features are not kept") == 1
    assert not contents(tmp_path) and not unfinished(tmp_path)


CELLS = [
    'output_dir: str = ""  # where to write\nn: int = 6  # a number',
    "from patchcore_helpers.course.lesson import Lesson\nlesson = Lesson('small', output_dir)",
    "lesson.record(n=n)\nlesson.finish()",
]


@pytest.mark.notebooks
@pytest.mark.parametrize("limit", [0, 2000])
def test_no_room_for_the_outputs_of_a_notebook(limit, tmp_path):
    """The run fails without a traceback, and succeeds once there is room."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.metadata["kernelspec"] = kernel
    nbformat.write(notebook, tmp_path / "small.ipynb")
    command = [sys.executable, "-m", "patchcore_helpers.app.cli", "run", "small.ipynb"]

    def run(limit):
        sizes = (limit, resource.RLIM_INFINITY)
        return subprocess.run(
            [*command, "--output", "out"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, sizes),
        )

    done = run(limit)
    assert done.returncode in (1, 2) and "Traceback" not in done.stdout + done.stderr, done
    assert not (tmp_path / "out" / "small").exists()
    done = run(resource.RLIM_INFINITY)
    assert done.returncode == 0, done
    summary = json.loads((tmp_path / "out" / "small" / "summary.json").read_text())
    assert summary["status"] == "passed" and summary["results"]["n"] == 6
