"""Files and folders that are whole or not there, and what killed writers leave behind."""

import os
import subprocess
import sys

import psutil
import pytest

from patchcore_helpers.errors import InputError
from patchcore_helpers.files import MANIFEST, atomic_directory, atomic_write, temporary_sibling

KILLED = """
import os, signal, sys
from pathlib import Path
from patchcore_helpers import files
path, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "file":
    files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    files.atomic_write(path, "new")
replace = os.replace
def between(source, target):
    replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
with files.atomic_directory(path) as folder:
    (folder / "a.txt").write_text("new")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    files.os.replace = between
"""


def killed(path, moment):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), moment])
    assert done.returncode == -9


def make(path, text):
    with atomic_directory(path) as folder:
        (folder / "a.txt").write_text(text)


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a [1].txt"
    path.write_text("old")
    killed(path, "file")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    atomic_write(path, "newer")
    assert path.read_text() == "newer" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["writing", "swapping"])
def test_a_folder_outlives_a_kill(moment, tmp_path):
    path = tmp_path / "report"
    make(path, "old")
    killed(path, moment)
    assert path.exists() == (moment == "writing")
    with pytest.raises(ZeroDivisionError), atomic_directory(path):
        assert (path / "a.txt").read_text() == "old"  # back, before the work begins
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == ["report"] and (path / "a.txt").read_text() == "old"
    make(path, "newer")
    assert os.listdir(tmp_path) == ["report"] and (path / "a.txt").read_text() == "newer"


def test_what_others_are_writing_stays(tmp_path):
    path = tmp_path / "a.txt"
    own = temporary_sibling(path)
    ours = own.name.rpartition("-")[0]  # this process is alive
    dead = next(n for n in range(2**20, 2**22) if not psutil.pid_exists(n))
    keep = [own, tmp_path / ".a.txt.other-machine-1-0.part", tmp_path / f".b.txt{ours[6:]}-0.part"]
    for each in keep:
        each.touch()
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead}-"))
    left.touch()
    assert temporary_sibling(path) != own and not left.exists()
    assert all(each.exists() for each in keep)


def test_a_folder_made_here_keeps_foreign_files(tmp_path):
    make(tmp_path / "report", "old")
    (tmp_path / "report/mine.txt").touch()
    with pytest.raises(InputError, match=r"report: holds 'mine\.txt', which this command"):
        make(tmp_path / "report", "new")
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"a.txt", "mine.txt", MANIFEST}
