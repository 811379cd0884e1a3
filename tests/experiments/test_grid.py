"""The grid survives a kill, does nothing twice, and drops nothing that went wrong."""

import contextlib
import csv
import io
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from patchcore_helpers import InputError
from patchcore_helpers.experiments import grid
from patchcore_helpers.experiments.grid import Grid, Outcome, Skipped, table, to_csv

COLUMNS = ["number", "value", "part", "status"]

# Run by processes of their own: a task says when it begins, and takes a while.
SLOW = """
import os, sys, time

from patchcore_helpers.experiments.grid import Grid

COLUMNS = ["number", "value", "part", "status"]


def work(number, pause, log):
    with open(log, "a") as file:
        file.write(f"{number}\\n")
    time.sleep(pause)
    if number == 4:
        raise ValueError("four\\nis refused")
    return [{"value": number / 7, "part": part} for part in "ab"], {"labels": [0, 1]}


def main(folder, n_jobs, count):
    tasks = [{"number": n, "pause": 0.15, "log": folder + ".log"} for n in range(count)]
    Grid(work, COLUMNS, folder, "results").run(tasks, n_jobs=n_jobs)
"""
COUNT = 12


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "slow_work.py").write_text(SLOW)
    return folder


def start(module, folder, n_jobs):
    script = f"import slow_work; slow_work.main({str(folder)!r}, {n_jobs}, {COUNT})"
    environment = os.environ | {"PYTHONPATH": str(module)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment)


def read(path):
    """The rows of a CSV that must be valid: whole lines, one header, nothing twice, in order."""
    text = path.read_text()
    assert text.startswith(",".join(COLUMNS) + "\n") and text.endswith("\n")
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    assert all(row["status"] == "ok" or row["status"].startswith("failed: ") for row in rows)
    keys = [(int(row["number"]), row["part"]) for row in rows]
    assert keys == sorted(set(keys))
    return rows


def poll(process, path, enough=lambda rows: False):
    """Read the CSV again and again until the process has ended, or there is enough in it."""
    rows, reads = [], 0
    end = time.monotonic() + 120
    while process.poll() is None and not enough(rows):
        assert time.monotonic() < end, "waited in vain"
        if path.exists():
            before = [row for row in rows if row["status"] == "ok"]
            rows, reads = read(path), reads + 1
            assert all(row in rows for row in before)
        time.sleep(0.002)
    return rows, reads


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_sigkill_in_mid_grid_and_again(module, tmp_path, n_jobs):
    folder = tmp_path / "out"
    first = start(module, folder, n_jobs)
    try:
        rows, reads = poll(first, folder / "results.csv", lambda rows: len(rows) >= 9)
        tree = psutil.Process(first.pid).children(recursive=True)
    finally:
        first.kill()  # SIGKILL
        first.wait()
    for process in tree:  # joblib's
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(tree, 10)
    assert first.returncode == -9 and 9 <= len(rows) < 2 * COUNT - 1 and reads > 5
    finished = {row["number"] for row in read(folder / "results.csv") if row["status"] == "ok"}
    started = Counter((tmp_path / "out.log").read_text().split())
    assert len(finished) >= 4 and set(started) > finished

    again = start(module, folder, n_jobs)
    _, reads = poll(again, folder / "results.csv")
    assert again.wait() == 0 and reads > 5
    started = Counter((tmp_path / "out.log").read_text().split())
    assert {started[number] for number in finished} == {1}
    assert started.keys() == {str(n) for n in range(COUNT)}
    rows = read(folder / "results.csv")
    assert len(rows) == 2 * COUNT - 1
    (refused,) = [row for row in rows if row["status"] != "ok"]
    assert refused["number"] == "4" and refused["value"] == refused["part"] == ""
    assert refused["status"] == "failed: ValueError: four is refused"

    last = start(module, folder, 1)
    assert last.wait(120) == 0
    text = (folder / "results.csv").read_text()
    assert read(folder / "results.csv") == rows
    now = Counter((tmp_path / "out.log").read_text().split())
    assert now - started == Counter(["4"])  # what failed is tried again, and nothing else

    elsewhere = tmp_path / "whole"
    assert start(module, elsewhere, 3 - n_jobs).wait(120) == 0
    assert (elsewhere / "results.csv").read_text() == text


calls = []


def work(number, fail="", wait=0.0, scale=1):
    """In this process, or in another one: `calls` is of use for the former."""
    calls.append(number)
    time.sleep(wait)
    if fail == "skip":
        raise Skipped("not here;\nfetch it")
    if fail == "refuse":
        raise InputError("a bad   number")
    if fail == "exit":
        raise KeyError
    if fail and not Path(fail).exists():
        raise OSError(28, "No space left on device", fail)
    rows = [{"value": np.float64(scale * number) / 3, "part": part} for part in "ab"]
    return rows, {"labels": np.array([0, 1]), "mean": [np.float32(0.5), number]}


def run(folder, tasks, **options):
    calls.clear()
    return Grid(work, COLUMNS, folder).run(tasks, **options)


def numbers(*values, **more):
    return [{"number": n, **more} for n in values]


def test_a_second_run_computes_nothing(tmp_path):
    tasks = numbers(3, 1, 2)
    first = run(tmp_path, tasks)
    text = (tmp_path / "results.csv").read_text()
    assert calls == [3, 1, 2]
    second = run(tmp_path, tasks)
    assert calls == [] and (tmp_path / "results.csv").read_text() == text
    for a, b, task in zip(first, second, tasks, strict=True):
        assert a.task == b.task == task and a.finished and b.finished
        assert a.rows == b.rows
        assert np.array_equal(a.scores["labels"], b.scores["labels"])
        assert np.allclose(a.scores["mean"], b.scores["mean"])
    run(tmp_path, numbers(2, 5, 3))
    assert calls == [5]
    assert [line[0] for line in (tmp_path / "results.csv").read_text().split()] == list("n225533")


def test_workers_give_the_same_in_the_order_of_the_tasks(tmp_path):
    tasks = [{"number": n, "wait": 0.05 * (5 - n)} for n in range(5)]  # the last ends first
    tasks[3]["fail"] = "refuse"
    found = {n_jobs: run(tmp_path / str(n_jobs), tasks, n_jobs=n_jobs) for n_jobs in (1, 2)}
    one, two = ((tmp_path / str(n) / "results.csv").read_text() for n in (1, 2))
    assert one == two and one.count("\n") == 10
    assert [o.task for o in found[2]] == tasks
    assert [o.rows for o in found[1]] == [o.rows for o in found[2]]


@pytest.mark.parametrize(
    ("fail", "status"),
    [
        ("skip", "skipped: not here; fetch it"),
        ("refuse", "failed: a bad number"),
        ("exit", "failed: KeyError: KeyError"),
        ("/nowhere", "failed: OSError: [Errno 28] No space left on device: '/nowhere'"),
    ],
)
def test_what_did_not_run_is_a_row_with_its_reason(tmp_path, fail, status):
    tasks = [{"number": 1}, {"number": 2, "fail": fail}]
    good, bad = run(tmp_path, tasks)
    assert good.finished and not bad.finished and bad.scores == {}
    assert bad.rows == [{**tasks[1], "status": status}]
    written = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [row["status"] for row in written] == ["ok", "ok", status]
    assert written[2] == {"number": "2", "value": "", "part": "", "status": status}
    frame = table([good, bad], COLUMNS)
    assert list(frame.columns) == COLUMNS and frame["value"].isna().tolist() == [False, False, True]
    run(tmp_path, tasks)
    assert calls == [2]


def test_what_failed_is_tried_again_and_takes_its_place(tmp_path):
    tasks = [{"number": 1, "fail": str(tmp_path / "ready")}, {"number": 2}]
    first, _ = run(tmp_path / "out", tasks)
    assert first.rows[0]["status"].startswith("failed: ")
    (tmp_path / "ready").touch()
    first, second = run(tmp_path / "out", tasks)
    assert calls == [1] and first.finished and second.finished
    run(tmp_path / "out", tasks)
    assert calls == []
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [(row["number"], row["status"]) for row in rows] == [("1", "ok")] * 2 + [("2", "ok")] * 2


def test_other_code_or_other_parameters_are_computed_anew(tmp_path, monkeypatch):
    run(tmp_path, numbers(1, 2))
    run(tmp_path, numbers(1, 2, scale=2))
    assert calls == [1, 2]
    assert "0.666667" in (tmp_path / "results.csv").read_text()
    run(tmp_path, numbers(1, 2, scale=1))  # said, not left to the default: another task
    assert calls == [1, 2]
    monkeypatch.setattr(grid, "_code", lambda: "changed")
    run(tmp_path, numbers(1, 2))
    assert calls == [1, 2]
    monkeypatch.undo()
    run(tmp_path, [dict(reversed(task.items())) for task in numbers(1, 2, scale=2)])
    assert calls == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"null", b"[]", b"3", b"{}", b'{"task": {}, "rows": null}',
     b'{"task": {}, "rows": [{}]}', b'{"task": {}, "rows": []}', b'{"rows": [{"status": "ok"}]}',
     b'{"task": {"number": 9}, "rows": [{"number": 9, "status": "ok"}]}'],
)  # fmt: skip
def test_a_corrupt_row_file_is_ignored(tmp_path, content):
    run(tmp_path, numbers(1, 2))
    text = (tmp_path / "results.csv").read_text()
    path = Grid(work, COLUMNS, tmp_path)._path({"number": 1})
    path.write_bytes(content)
    run(tmp_path, numbers(1, 2))
    assert calls == [1] and (tmp_path / "results.csv").read_text() == text
    run(tmp_path, numbers(1, 2))
    assert calls == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"file.*: cannot be written \(.+\)"):
            run(folder, numbers(1))
        assert calls == []
    (tmp_path / "out" / "results.csv").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path / "out", numbers(1))


def test_without_a_folder_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(grid.tempfile, "tempdir", None)
    one = Grid(work, COLUMNS)
    assert [outcome.finished for outcome in one.run(numbers(1, 2))] == [True, True]
    del one
    assert list(tmp_path.iterdir()) == []


def test_csv_has_its_columns_in_their_order_and_no_others():
    rows = [{"b": 1, "z": 5, "a": 1 / 3}, {"a": None, "b": 'x, "y"\n'}, {"a": float("nan")}]
    assert to_csv(rows, ["a", "b", "c"]) == 'a,b,c\n0.333333,1,\n,"x, ""y""\n",\nnan,,\n'
    assert to_csv([], ["a", "b"]) == "a,b\n"


def test_no_result_at_all():
    failed = Outcome({"number": 1}, [{"number": 1, "status": "failed: for a reason"}])
    with pytest.raises(InputError, match=r"no task .* a result; the first: failed: for a reason"):
        table([failed, failed], COLUMNS)
    with pytest.raises(InputError, match="no task"):
        table([], COLUMNS)


def test_progress_is_shown_only_when_asked_for(tmp_path, capsys):
    run(tmp_path, numbers(1))
    assert capsys.readouterr() == ("", "")
    run(tmp_path, numbers(1, 2), progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "2/2" in err
