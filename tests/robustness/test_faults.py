"""The fault pass in small; and that it notices a promise that is broken."""

import os
import time
from pathlib import Path

import faults
import pytest
from faults import BrokenPromise, Ended, Ground, Process, Unable
from PIL import Image

TABLE = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp("ground"), kills=2 * len(faults.KILLED), files=60)


def test_the_committed_table_has_the_rows_of_the_code():
    lines = TABLE.read_text("utf-8").splitlines()
    assert lines[0].startswith("Made by `tests/faults.py --kills ")
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in rows] == list(faults.FAULTS), "run `make faults`"
    assert {row[-1] for row in rows} <= {"yes |", "skipped |"}


@pytest.mark.parametrize(
    "name",
    [
        "SIGKILL in prepare",
        "corrupt cache files: cut short, bits flipped, empty, another array, random bytes",
        "fuzzed image files through the reader (PNG, JPEG, TIFF, BMP, WebP, GIF; bombs)",
        "fuzzed bank files through predict",
    ],
)
def test_rows_in_small(name, ground):
    (row,) = faults.try_faults(ground, [name])
    assert row.holds == "yes", row
    assert (
        row.count
        == {"SIG": 2, "corr": 4, "fuzzed i": 60, "fuzzed b": 18}[
            next(
                start for start in ("SIG", "corr", "fuzzed i", "fuzzed b") if name.startswith(start)
            )
        ]
    )


def write_slowly(path, hidden=""):
    """Not as the package does: a file of two halves with a pause between them."""
    for half in ("first", " second"):
        with open(path, "a" if half == " second" else "w") as file:
            file.write(half)
        time.sleep(0.3)
    if hidden:
        Path(hidden).touch()


@pytest.mark.parametrize("trace", [False, True])
def test_a_kill_that_leaves_half_or_litter_is_noticed(trace, ground):
    path = ground.new_folder() / "file"
    work = (write_slowly, str(path), str(path.with_name(".file.part")) if trace else "")

    def whole():
        text = path.read_text() if path.exists() else "first second"
        faults.hold(trace or text == "first second", "half a file")

    with pytest.raises(BrokenPromise, match="stay for good" if trace else "half a file"):
        ground.killings("save", work, lambda _: path.unlink(missing_ok=True), whole, lambda _: 0)


def test_another_result_after_kills_is_noticed(ground):
    results = iter(range(9))
    work = (write_slowly, str(ground.new_folder() / "file"))
    with pytest.raises(BrokenPromise, match="another result"):
        ground.killings("save", work, lambda _: None, lambda: None, lambda _: next(results))


def test_a_process_that_hangs_is_ended_and_noticed(tmp_path):
    process = Process((time.sleep, 600), tmp_path)
    with pytest.raises(BrokenPromise, match="hung"):
        process.end(0.5)
    assert process.process.exitcode == -9


def test_the_reader_notices_a_hang_and_goes_on(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (3, 2)).save(tmp_path / "good.png")
    reader = faults.Reader(3)
    try:
        assert reader.ask(tmp_path / "pipe.png")[0] == "hung for 3 s"
        reader.seconds = 60
        assert reader.ask(tmp_path / "good.png")[0] == "read"
    finally:
        reader.close()


ERROR = "patchcore-course: error: a: b\n"


@pytest.mark.parametrize(
    ("status", "errors"),
    [(0, ERROR), (1, ERROR), (-11, ERROR), (2, ""), (2, ERROR * 2), (2, "sorry\n"),
     (2, f"Traceback (most recent call last):\n{ERROR}"), (2, f"note\n{ERROR}")],
)  # fmt: skip
def test_what_is_not_clean(status, errors):
    faults.is_clean(Ended(2, "", f"patchcore-course: warning: c\n{ERROR}", 0), (2,), "x")
    with pytest.raises(BrokenPromise):
        faults.is_clean(Ended(status, "", errors, 0), (2,), "x")


def unable(_):
    raise Unable("nothing to mount")


CASES = {
    "good": lambda _: (3, "all | well"),
    "broken": lambda _: faults.hold(False, "lost a file"),
    "error": lambda _: 1 / 0,
    "unable": unable,
}


def test_the_table_says_what_does_not_hold():
    rows = faults.try_faults(None, faults=CASES)
    assert [(row.count, row.holds) for row in rows] == [
        *((3, "yes"), (0, "no"), (0, "no"), (0, "skipped"))
    ]
    assert "lost a file" in rows[1].text and "ZeroDivisionError" in rows[2].text
    text = faults.to_markdown(rows, "make faults")
    assert text.startswith("Made by `make faults`") and "| good | 3 | all \\| well | yes |" in text


@pytest.mark.parametrize(("name", "status"), [("good", 0), ("unable", 0), ("broken", 1)])
def test_the_command_ends_with_1_if_a_row_does_not_hold(
    name, status, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(faults, "FAULTS", {name: CASES[name]})
    words = [
        "--kills",
        "1",
        "--files",
        "2",
        "--seed",
        "5",
        "--markdown",
        str(tmp_path / "table.md"),
    ]
    assert faults.main(words) == status
    assert capsys.readouterr().out.startswith("seed 5\n")
    assert f"| {name} |" in (tmp_path / "table.md").read_text()
    assert faults.main([*words, "--only", "nothing"]) == 0


def test_every_kill_falls_to_a_stage():
    for kills in (1, 7, 40):
        ground = Ground.__new__(Ground)
        ground.kills = kills
        assert sum(map(ground.share, faults.KILLED)) == kills
