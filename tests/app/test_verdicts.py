"""The command predict: a verdict on each image, one by one."""

import csv
import json
import os
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.command import COMMAND, HOSTILE_NAMES, tiny_model, write_image
from PIL import Image

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.app.verdicts import image_paths, judge
from patchcore_helpers.core.bank_file import BankVersionWarning


@pytest.fixture(scope="module")
def bank(user_folder, tmp_path_factory):
    category = load_category(user_folder)
    model = tiny_model(batch_size=4).fit(category.train).calibrate(category.calibration, 0.2)
    model.save(path := tmp_path_factory.mktemp("bank") / "bank.safetensors")
    return path


def test_a_line_per_image(run, bank, user_folder):
    model = PatchCore.load(bank)
    paths = sorted(user_folder.rglob("*.png"))
    status, lines, errors = run("predict", bank, user_folder / "bad", user_folder / "good/003.png")
    assert (status, len(errors)) == (1, 2) and "empty.jpg: cannot be read" in errors[0]
    n_images = len(HOSTILE_NAMES) + 2  # with the empty one and the normal one
    assert errors[1] == f"patchcore-course: 1 of {n_images} images were not read"
    assert [line.split("\t")[2] for line in lines] == [
        *map(str, sorted((user_folder / "bad").glob("*.png"))),
        str(user_folder / "good/003.png"),
    ]
    for line in lines:
        score, verdict, path = line.split("\t")
        assert float(score) == pytest.approx(model.anomaly_scores([path])[0], rel=1e-4)
        assert verdict == ("alarm" if model.anomaly_scores([path])[0] > model.threshold_ else "ok")
    status, again, _ = run("predict", bank, *paths, "--json")
    rows = [json.loads(line) for line in again]
    assert status == 0 and [row["path"] for row in rows] == list(map(str, paths))
    assert {row["path"]: row["verdict"] for row in rows}.items() >= {
        (line.split("\t")[2], line.split("\t")[1]) for line in lines
    }


@pytest.mark.long
def test_no_threshold_no_verdict(run, bank, user_folder, tmp_path):
    model = PatchCore.load(bank)
    del model.threshold_
    model.save(tmp_path / "bare")
    _, lines, _ = run("predict", tmp_path / "bare", user_folder / "good/000.png")
    assert lines[0].split("\t")[1] == "-"
    _, lines, _ = run("predict", tmp_path / "bare", user_folder / "good/000.png", "--json")
    assert json.loads(lines[0])["verdict"] is None


def test_bad_images_do_not_stop_the_rest(run, bank, user_folder, tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"broken")
    images = [tmp_path / "a\nb.png", user_folder / "good/000.png", tmp_path / "none.png"]
    status, lines, errors = run("predict", bank, *images)
    assert (status, len(lines), len(errors)) == (1, 1, 3)
    assert "a\\nb.png: cannot be read" in errors[0] and "none.png: no such image" in errors[1]


def test_heat_maps_and_a_table(run, bank, user_folder, tmp_path):
    status, lines, _ = run("predict", bank, user_folder, "--output", tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open(newline="")))
    n_images = 30 + 2 * len(HOSTILE_NAMES)
    assert status == 1 and len(rows) == len(lines) == n_images
    assert len({row["heatmap"] for row in rows}) == n_images
    for row, line in zip(rows, lines, strict=True):
        assert [row["verdict"], row["path"]] == line.split("\t")[1:]
        with Image.open(tmp_path / "out" / row["heatmap"]) as image:
            height, width = np.asarray(Image.open(row["path"])).shape[:2]
            assert image.size == (2 * width, height)
    assert run("predict", bank, user_folder, "--output", user_folder / "x")[0] == 2
    assert not (user_folder / "x").exists()
    assert sorted(os.listdir(tmp_path)) == ["cwd", "out"]


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_bad_banks(run, user_folder, tmp_path, content):
    if content is not None:
        (tmp_path / "bank").write_bytes(content)
    status, lines, errors = run(
        "predict", tmp_path / "bank", user_folder, "--output", tmp_path / "o"
    )
    assert (status, lines, len(errors)) == (2, [], 1) and str(tmp_path / "bank") in errors[0]
    assert not (tmp_path / "o").exists()


def test_no_images(run, bank, tmp_path):
    status, _, errors = run("predict", bank, tmp_path / "cwd")
    assert status == 2 and "cwd: holds no image" in errors[0]


def test_other_versions_are_said_in_one_line(run, bank, user_folder, monkeypatch):
    monkeypatch.setattr("patchcore_helpers.core.patchcore.version", lambda name: "0.0.1")
    with pytest.warns(BankVersionWarning, match=r"made with torch .* \(here 0\.0\.1\)"):
        PatchCore.load(bank)
    status, lines, errors = run("predict", bank, user_folder / "good/000.png")
    assert (status, len(lines), len(errors)) == (0, 1, 1)
    assert errors[0].startswith("patchcore-course: warning: ") and "timm" in errors[0]
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PatchCore.load(bank)


@pytest.mark.long
@pytest.mark.parametrize("words", ["list", "predict {bank} {folder}/good {folder}/good"])
def test_a_pipe_that_is_closed_early(words, bank, user_folder, tmp_path):
    (tmp_path / "in").symlink_to(user_folder)
    words = words.format(bank=bank, folder=tmp_path / "in").split()
    with subprocess.Popen(
        [COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)


def test_images_are_read_as_they_are_needed(bank, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "patchcore_helpers.app.verdicts.read_image",
        lambda path: opened.append(path) or Image.new("RGB", (8, 8)),
    )
    stream = judge(PatchCore.load(bank), [Path(f"{i}.png") for i in range(1000)])
    assert [next(stream).path.name for _ in range(5)] == [f"{i}.png" for i in range(5)]
    assert len(opened) <= 5 * 4  # five batches: two judged, some more being read or waiting
    stream.close()


def test_image_paths(tmp_path):
    write_image(tmp_path / "a/b/c.JPG", 0)
    write_image(tmp_path / "a/.b/c.png", 0)
    (tmp_path / "a/notes.txt").touch()
    assert list(image_paths([tmp_path / "a"])) == [tmp_path / "a/b/c.JPG"]
    assert list(image_paths(["x.webp"])) == [Path("x.webp")]
