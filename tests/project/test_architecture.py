"""The import contracts hold, and notice what they are there to notice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.long


def lint(folder):
    """What import-linter says of the package in a folder."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as lint; lint()",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [*command, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path):
    """The package and its contracts, to be spoiled."""
    shutil.copytree(ROOT / "patchcore_helpers", tmp_path / "patchcore_helpers")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(folder, module, line):
    path = folder / "patchcore_helpers" / module
    path.write_text(path.read_text() + f"\n\ndef planted():\n    {line}\n")


def test_the_contracts_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout
    assert "2 kept, 0 broken" in done.stdout


def test_a_circle_is_noticed(copy):
    """Between two modules of one room, and hidden in a function."""
    plant(copy, "core/coreset.py", "from patchcore_helpers.core import bank; return bank")
    done = lint(copy)
    assert done.returncode == 1 and "No circles, in any room BROKEN" in done.stdout


def test_an_import_upwards_is_noticed(copy):
    plant(copy, "data/images.py", "from patchcore_helpers.core import bank; return bank")
    done = lint(copy)
    assert done.returncode == 1 and "Rooms import downwards only BROKEN" in done.stdout


def test_a_room_that_no_layer_names_is_noticed(copy):
    (copy / "patchcore_helpers" / "attic.py").write_text("")
    done = lint(copy)
    assert done.returncode == 1 and "attic" in done.stdout
