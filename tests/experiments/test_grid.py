"""The grid survives a kill, does nothing twice, and drops nothing that went wrong."""

import contextlib
import csv
import io
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from patchcore_helpers import InputError
from patchcore_helpers.experiments import grid
from patchcore_helpers.experiments.grid import Grid, Outcome, Skipped, table, to_csv

COLUMNS = ["number", "value", "part", "status"]
ROOT = Path(__file__).parents[2]

# Run by processes of their own: every task reads the table as it is while the grid runs, and one
# of them kills the process that writes it, once.
FATAL = """
import os, signal, time
from pathlib import Path

from patchcore_helpers.experiments.grid import Grid

COLUMNS = ["number", "value", "part", "status"]
FATAL, REFUSED, KEPT = 8, 2, 3


def rows_so_far(folder):
    text = Path(folder, "results.csv").read_text()
    lines = text.splitlines()
    if not text.endswith("\\n") or lines[0] != ",".join(COLUMNS):
        raise SystemExit("the table is not complete")
    return lines[1:]


def work(number, folder):
    with open(folder + ".log", "a") as file:
        file.write(f"{number} {os.getpid()}\\n")
    rows = rows_so_far(folder)
    killed = Path(folder + ".killed")
    if number == FATAL and not killed.exists():
        while len(rows_so_far(folder)) < 2 * KEPT - 1:  # another worker's results come in
            time.sleep(0.01)
        killed.touch()
        os.kill(int(os.environ["WRITER"]), signal.SIGKILL)
        os._exit(1)
    if number == REFUSED:
        raise ValueError("two\\nis refused")
    return [{"value": number / 7, "part": part} for part in "ab"], {"labels": [0, 1]}


def main(folder, n_jobs, count):
    os.environ["WRITER"] = str(os.getpid())
    tasks = [{"number": number, "folder": folder} for number in range(count)]
    Grid(work, COLUMNS, folder, "results").run(tasks, n_jobs=n_jobs)
"""
COUNT = 12


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "fatal_work.py").write_text(FATAL)
    return folder


def run_main(module, folder, n_jobs):
    script = f"import fatal_work; fatal_work.main({str(folder)!r}, {n_jobs}, {COUNT})"
    environment = os.environ | {"PYTHONPATH": f"{module}:{ROOT}"}
    return subprocess.run([sys.executable, "-c", script], env=environment, timeout=120).returncode


def read(path):
    """The rows of a CSV that must be valid: complete lines, one header, nothing twice, in order."""
    text = path.read_text()
    assert text.startswith(",".join(COLUMNS) + "\n") and text.endswith("\n")
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    assert all(row["status"] == "ok" or row["status"].startswith("failed: ") for row in rows)
    keys = [(int(row["number"]), row["part"]) for row in rows]
    assert keys == sorted(set(keys))
    return rows


def started(folder):
    """How often each task began, and by which processes."""
    lines = [line.split() for line in Path(f"{folder}.log").read_text().splitlines()]
    return Counter(number for number, _ in lines), {int(pid) for _, pid in lines}


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_sigkill_in_mid_grid_and_again(module, tmp_path, n_jobs):
    folder = tmp_path / "out"
    assert run_main(module, folder, n_jobs) == -signal.SIGKILL
    times, workers = started(folder)
    for pid in workers:  # joblib's, which outlive the process that started them
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    rows = read(folder / "results.csv")
    finished = {row["number"] for row in rows if row["status"] == "ok"}
    assert 2 <= len(finished) < COUNT - 1 and set(times) > finished

    assert run_main(module, folder, n_jobs) == 0
    times, _ = started(folder)
    assert {times[number] for number in finished} == {1}
    assert times.keys() == {str(n) for n in range(COUNT)}
    rows = read(folder / "results.csv")
    assert len(rows) == 2 * COUNT - 1
    (refused,) = [row for row in rows if row["status"] != "ok"]
    assert refused["number"] == "2" and refused["value"] == refused["part"] == ""
    assert refused["status"] == "failed: ValueError: two is refused"

    text = (folder / "results.csv").read_text()
    assert run_main(module, folder, 1) == 0
    assert (folder / "results.csv").read_text() == text
    again, _ = started(folder)
    assert again - times == Counter(["2"])  # what failed is tried again, and nothing else


calls = []


def work(number, fail="", scale=1):
    """In this process, or in another one: `calls` is of use for the former."""
    calls.append(number)
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


@pytest.mark.long
def test_workers_give_the_same_in_the_order_of_the_tasks(tmp_path):
    tasks = numbers(4, 0, 3, 1, 2)
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


def test_other_code_or_other_parameters_are_computed_again(tmp_path, monkeypatch):
    run(tmp_path, numbers(1, 2))
    run(tmp_path, numbers(1, 2, scale=2))
    assert calls == [1, 2]
    assert "0.666667" in (tmp_path / "results.csv").read_text()
    run(tmp_path, numbers(1, 2, scale=1))  # said, not left to the default: another task
    assert calls == [1, 2]
    monkeypatch.setattr(grid, "code_hash", lambda: "changed")
    run(tmp_path, numbers(1, 2))
    assert calls == [1, 2]
    monkeypatch.undo()
    run(tmp_path, [dict(reversed(task.items())) for task in numbers(1, 2, scale=2)])
    assert calls == []


def doubled(number):
    return [{"value": 2 * number}], {}


def test_two_functions_of_one_module_do_not_share_results(tmp_path):
    run(tmp_path, numbers(3))
    (outcome,) = Grid(doubled, COLUMNS, tmp_path).run(numbers(3))
    assert outcome.rows == [{"number": 3, "status": "ok", "value": 6}]
    (outcome,) = run(tmp_path, numbers(3))
    assert calls == [] and [row["value"] for row in outcome.rows] == [1, 1]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"null", b"[]", b"3", b"{}", b'{"task": {}, "rows": null}',
     b'{"task": {}, "rows": [{}]}', b'{"task": {}, "rows": []}', b'{"rows": [{"status": "ok"}]}',
     b'{"task": {"number": 9}, "rows": [{"number": 9, "status": "ok"}]}'],
)  # fmt: skip
def test_a_corrupt_row_file_is_ignored(tmp_path, content):
    run(tmp_path, numbers(1, 2))
    text = (tmp_path / "results.csv").read_text()
    path = Grid(work, COLUMNS, tmp_path).result_path({"number": 1})
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
