"""predict on a line: a watched folder, paths from a pipe, thresholds, and models without torch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers.command import COMMAND, WITHOUT_TORCH, tiny_model, write_image

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app.follow import Arrivals, VerdictLog
from patchcore_helpers.core.threshold import conformal_threshold


@pytest.fixture(scope="module")
def model(user_folder):
    category = load_category(user_folder)
    return tiny_model(batch_size=16).fit(category.train).calibrate(category.calibration, 0.2)


@pytest.fixture(scope="module")
def bank(model, tmp_path_factory):
    model.save(path := tmp_path_factory.mktemp("bank") / "bank.safetensors")
    return path


# The log


def test_a_verdict_that_was_cut_short_is_forgotten(tmp_path):
    path = tmp_path / "log.jsonl"
    with VerdictLog(path) as log:
        log.add({"path": "a.png", "score": 1.0})
        log.add({"path": "b.png", "score": 2.0})
    whole = path.read_bytes()
    for length in range(len(whole) + 1):  # wherever a process is killed
        path.write_bytes(whole[:length])
        with VerdictLog(path) as log:
            n_lines = whole[:length].count(b"\n")
            assert log.paths == set(["a.png", "b.png"][:n_lines])
            log.add({"path": "c.png"})
        lines = path.read_text().splitlines()
        assert [json.loads(line)["path"] for line in lines] == [
            *["a.png", "b.png"][:n_lines],
            "c.png",
        ]


@pytest.mark.parametrize(
    "content", [b"a diary\n", b"a diary", b'{"score": 1}\n', b"[1]\n", b"\xff\n"]
)
def test_another_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"line 1 is not a verdict.*choose another --log"):
        VerdictLog(path)
    assert path.read_bytes() == content


def test_two_processes_do_not_write_one_log(tmp_path):
    with VerdictLog(tmp_path / "log"), pytest.raises(InputError, match="another process"):
        VerdictLog(tmp_path / "log")
    with VerdictLog(tmp_path / "log"):
        pass


# The folder


def test_a_file_waits_until_it_no_longer_changes(tmp_path):
    arrivals = Arrivals(tmp_path, judged=set())
    path = tmp_path / "a.png"
    path.write_bytes(b"half")
    assert arrivals.complete(0.0) == []
    path.write_bytes(b"the whole")
    assert arrivals.complete(0.9) == []
    assert arrivals.complete(1.8) == []  # unchanged for 0.9 seconds
    assert arrivals.complete(1.95) == [path]
    arrivals.judged.add(str(path))
    assert arrivals.complete(5.0) == []


def follow(bank, folder, log, idle):
    words = ["predict", bank, folder, "--follow", "--log", log, "--idle", idle, "--json"]
    return subprocess.Popen(
        [COMMAND, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for_lines(log, count, process):
    """Until the log has so many lines."""
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.long
@pytest.mark.parametrize("n_files", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_file_has_one_verdict_however_often_it_is_killed(bank, model, tmp_path, n_files):
    folder, log = tmp_path / "line", tmp_path / "log.jsonl"
    folder.mkdir()

    def bursts():
        for number in range(n_files):
            write_image(folder / f"{number % 7}/{number:05}.png", number, number % 5 == 0)
            if number % 40 == 39:
                time.sleep(0.5)

    writer = threading.Thread(target=bursts)
    writer.start()
    for share in (0.2, 0.6):
        process = follow(bank, folder, log, 600)
        wait_for_lines(log, share * n_files, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    writer.join()
    process = follow(bank, folder, log, 2)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    paths = sorted(str(path.resolve()) for path in folder.rglob("*.png"))
    assert sorted(row["path"] for row in rows) == paths and len(paths) == n_files
    some = rows[:: n_files // 10]
    scores = model.anomaly_scores([row["path"] for row in some])
    np.testing.assert_allclose([row["score"] for row in some], scores, rtol=1e-4)
    for row, score in zip(some, scores, strict=True):
        assert row["verdict"] == ("alarm" if score > model.threshold_ else "ok")


@pytest.mark.long
def test_a_damaged_file_gets_its_one_line_and_the_others_go_on(run, bank, tmp_path, monkeypatch):
    monkeypatch.setattr("patchcore_helpers.app.follow.PATIENCE", 0.5)
    folder = tmp_path / "line"
    write_image(folder / "good.png", 1)
    (folder / "damaged.png").write_bytes(b"\x89PNG but no more")
    log = tmp_path / "log.jsonl"
    words = ["predict", bank, folder, "--follow", "--log", log, "--idle", 1]
    status, lines, errors = run(*words)
    assert (status, len(lines), len(errors)) == (1, 1, 1) and "damaged.png" in errors[0]
    verdicts = {row["path"][-8:]: row["verdict"] for row in map(json.loads, log.open())}
    assert verdicts["aged.png"] == "unreadable" and verdicts["good.png"] in ("ok", "alarm")
    before = log.read_bytes()
    assert run(*words) == (0, [], [])  # all of them have their verdict
    assert log.read_bytes() == before


# Thresholds, and paths from a pipe


@pytest.mark.long
def test_the_threshold_that_is_given_counts(run, bank, user_folder):
    image = user_folder / "good/003.png"
    score = json.loads(run("predict", bank, image, "--json")[1][0])["score"]
    for threshold, word in ((score * 1.01, "ok"), (score * 0.99, "alarm")):
        (line,) = run("predict", bank, image, "--json", "--threshold", threshold)[1]
        assert json.loads(line)["verdict"] == word


@pytest.mark.long
def test_normal_images_set_the_threshold_of_a_rate(run, bank, model, user_folder, tmp_path):
    normal = [tmp_path / f"new/{number}.png" for number in range(25)]
    for number, path in enumerate(normal):
        write_image(path, 500 + number)
    expected = conformal_threshold(model.anomaly_scores(normal), 0.1)
    words = ["predict", bank, user_folder / "bad", "--normal", tmp_path / "new", "--json"]
    _, lines, errors = run(*words, "--false-alarm-rate", 0.1)
    assert f"threshold {expected:.6g}, from 25 normal images" in errors[0]
    for row in map(json.loads, lines):
        assert row["verdict"] == ("alarm" if row["score"] > expected else "ok")


@pytest.mark.long
def test_paths_come_from_standard_input_and_are_answered_at_once(bank, user_folder):
    paths = sorted(map(str, (user_folder / "good").glob("*.png")))[:3]
    process = subprocess.Popen(
        [COMMAND, "predict", str(bank), "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for path in paths:  # the next one only when the last one has been answered
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["path"] == path
    rest, _ = process.communicate()
    assert (rest, process.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([".", "--follow"], "--follow, --log: belong together"),
        (["--log", "log", "."], "--follow, --log: belong together"),
        ([".", "..", "--follow", "--log", "log"], "--follow: watches one folder, not 2"),
        (["--follow", "--log", "log"], "the following arguments are required: IMAGE"),
        ([".", "--threshold", "nan"], "--threshold nan: give a finite number"),
        ([".", "--threshold", "1", "--normal", "."], "--threshold: --normal sets it"),
        ([".", "--false-alarm-rate", "0.1"], "--false-alarm-rate: needs normal images"),
        ([".", "--idle", "3"], "--idle 3.0: give seconds"),
        (["-", "a.png"], "-: stands alone"),
        (["nowhere", "--follow", "--log", "log"], "nowhere: no such folder"),
        ([".", "--normal", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, bank, words, said):
    status, lines, errors = run("predict", bank, *words)
    assert (status, lines, len(errors)) == (2, [], 1) and said in errors[0]
    assert os.listdir() == []


# Exported models


@pytest.mark.long
def test_an_exported_model_judges_as_the_bank_does_without_torch(bank, user_folder, tmp_path):
    graph = tmp_path / "model.onnx"
    exported = subprocess.run(
        [
            COMMAND,
            "export",
            str(bank),
            "--output",
            str(graph),
            "--images",
            str(user_folder / "good"),
        ],
        capture_output=True,
        text=True,
    )
    assert exported.returncode == 0, exported.stderr
    paths = sorted(map(str, user_folder.rglob("*.png")))
    answers = []
    for program, judge in (([COMMAND], bank), ([sys.executable, "-c", WITHOUT_TORCH], graph)):
        done = subprocess.run(
            [*program, "predict", str(judge), *paths, "--json"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        answers.append([json.loads(line) for line in done.stdout.splitlines()])
    ours, theirs = answers
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    assert [row["path"] for row in theirs] == paths
    assert [row["verdict"] for row in ours] == [row["verdict"] for row in theirs]
    assert {row["verdict"] for row in ours} == {"ok", "alarm"}
    scores = [[row["score"] for row in rows] for rows in answers]
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_options_of_banks_are_refused_for_exported_models(run, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    status, _, errors = run("predict", tmp_path / "model.onnx", ".", "--engine", "torch")
    assert status == 2 and "--engine: is for memory banks" in errors[0]


def test_a_bank_is_loaded_as_before(bank, model):
    assert PatchCore.load(bank).threshold_ == model.threshold_
