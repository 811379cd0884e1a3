"""The commands new and predict: a report that opens, and verdicts that come one by one."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from helpers.miniatures import picture
from PIL import Image

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app import cli
from patchcore_helpers.app.report import find_images, heat, new_report, picture_name, verdicts

sys.path.insert(0, str(Path(__file__).parent / "browser"))
COMMAND = shutil.which("patchcore-course", path=Path(sys.executable).parent)
TINY = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "64"]
TINY += ["--coreset-ratio", "0.1", "--precision", "float32"]
HOSTILE = ["a b", "<b>bold", "\"quotes'", "ümläut", "50% #1", "&amp;", "img onerror=alert(1)"]


def tiny(**options):
    options = {"image_size": 64, "coreset_ratio": 0.1, "precision": "float32", **options}
    return PatchCore("test_resnet", weights="random", **options)


def write(path, number, defective=False, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture("mine", number, size, defective)[0]).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 normal images; defects in two folders with the same, hostile file names."""
    folder = tmp_path_factory.mktemp("user") / "my <parts> #1"
    for i in range(30):
        write(folder / f"good/{i:03}.png", i)
    for i, name in enumerate(HOSTILE):
        for kind in ("bad", "<i>crack & dent"):
            write(folder / kind / f"{name}.png", 200 + i, defective=True, size=64 + i)
    (folder / "bad/empty.jpg").touch()
    return folder


def state(folder):
    return {p: (s.st_mtime_ns, s.st_size) for p in folder.rglob("*") if (s := p.stat())}


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):
    """A report by the command, from another directory: its folder and what was printed."""
    cwd, before = tmp_path_factory.mktemp("cwd"), state(folder)
    words = [COMMAND, "new", os.path.relpath(folder, cwd), *TINY]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert state(folder) == before, "the user's folder was changed"
    assert os.listdir(cwd) == [f"{folder.name}_report"]
    return cwd / f"{folder.name}_report", done


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    def call(*words):
        status = cli.main([str(word) for word in words])
        output, errors = capfd.readouterr()
        return status, output.splitlines(), errors.splitlines()

    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return call


class Page(HTMLParser):
    """The tags of a page, with their attributes; all its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_what_a_report_holds(report, folder):
    root, done = report
    files = {p.name for p in root.iterdir()} - {".patchcore-course"}
    assert files == {
        *("index.html", "scores.csv", "heatmaps", "bank.safetensors", "parameters.yaml")
    }
    page, images, result = done.stdout.splitlines()
    assert page == str(root / "index.html")
    assert images.startswith(
        "14 normal images to learn from, 10 for the threshold, 6 normal and 14"
    )
    assert "at most 9.09 % false alarms" in result and "AUROC" in result
    assert "10 normal images for the threshold are too few" in done.stderr
    assert "1 left out: empty files" in done.stderr

    rows = list(csv.DictReader((root / "scores.csv").open(newline="")))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True) and len(rows) == 20
    category = load_category(folder)
    model = PatchCore.load(root / "bank.safetensors")
    own = dict(
        zip((str(s.image) for s in category.test), model.anomaly_scores(category.test), strict=True)
    )
    for row in rows:
        assert float(row["score"]) == pytest.approx(own[row["path"]], rel=1e-5)
        assert row["verdict"] == ("alarm" if float(row["score"]) > model.threshold_ else "ok")
        assert (row["label"] == "0") == (row["kind"] == "good")
    assert model.threshold_ == pytest.approx(
        model.anomaly_scores(category.calibration).max(), rel=1e-5
    )


def test_nothing_in_a_page_comes_from_a_file_name(report):
    root, _ = report
    page = Page((root / "index.html").read_text("utf-8"))
    names = {name for name, _ in page.tags}
    assert not names & {"script", "i", "link", "iframe"} and "b" in names
    assert not any(key.startswith("on") for _, given in page.tags for key in given)
    assert all(given.keys() <= {"src", "alt", "loading"} for n, given in page.tags if n == "img")
    pictures = [given for name, given in page.tags if name == "img"]
    assert len(pictures) == 20
    sources = [unquote(given["src"]) for given in pictures]
    assert len(set(sources)) == 20 and all((root / source).is_file() for source in sources)
    assert sorted(sources) == sorted(f"heatmaps/{p.name}" for p in (root / "heatmaps").iterdir())
    for name in HOSTILE:
        assert page.text.count(f"bad/{name}.png") == 1
        assert sum(f"bad/{name}.png" in given["alt"] for given in pictures) == 1
    assert "http" not in (root / "index.html").read_text("utf-8")


def test_the_report_opens_in_a_browser(report, chromium):
    page = chromium.new_page(viewport={"width": 900, "height": 700})
    alerts, errors = [], []
    page.on("dialog", lambda dialog: alerts.append(dialog.message))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto((report[0] / "index.html").as_uri())
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 20 and min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    assert (alerts, errors) == ([], [])
    page.get_by_text("scores.csv").last.wait_for()
    page.close()


def test_parameters_are_those_of_notebook_1(report, folder):
    from patchcore_helpers.course import runner

    root, _ = report
    values = yaml.safe_load((root / "parameters.yaml").read_text("utf-8"))
    assert values == {
        "category": str(folder),
        "backbone": "test_resnet",
        "image_size": 64,
        "coreset_ratio": 0.1,
        "false_alarm_rate": 1 / 11,
        "seed": 0,
    }
    (path,) = runner.find_notebooks(["1"])
    job = runner.Job(path, "default")
    for name, value in values.items():
        job.set(name, value, "parameters.yaml", False)
    assert job.failures == []
    category = load_category(values["category"], seed=0).with_calibration(seed=0)
    assert len(category.calibration) == 10
    assert "Not a parameter of notebook 1: weights = 'random'" in (
        root / "parameters.yaml"
    ).read_text("utf-8")


def test_a_report_again_and_files_of_others(report, folder, tmp_path):
    shutil.copytree(report[0], tmp_path / "own")
    (tmp_path / "own/heatmaps/99999_old.png").touch()
    with pytest.raises(InputError, match=r"own: holds 'heatmaps/99999_old.png', which this"):
        new_report(folder, tmp_path / "own", model=tiny())
    (tmp_path / "own/heatmaps/99999_old.png").unlink()
    (tmp_path / "own/index.html").write_text("old")
    page, _, notes = new_report(folder, tmp_path / "own", model=tiny(), pictures=3)
    assert page.read_text("utf-8") == (tmp_path / "own/index.html").read_text("utf-8") != "old"
    assert len(list((tmp_path / "own/heatmaps").iterdir())) == 3
    assert "pictures of the 3 highest of 20; all are in scores.csv" in notes
    assert os.listdir(tmp_path) == ["own"]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("x")
    for output in ("theirs", "theirs/thesis.txt"):
        with pytest.raises(InputError, match=r"holds 'thesis\.txt', which|is not a folder"):
            new_report(folder, tmp_path / output, model=tiny())
    assert (tmp_path / "theirs/thesis.txt").read_text() == "x"


def test_never_into_the_users_folder(folder, tmp_path, monkeypatch):
    before = state(folder)
    (tmp_path / "link").symlink_to(folder)
    for output in (folder, folder / "report", tmp_path / "link/report"):
        with pytest.raises(InputError, match="is left alone; give another --output"):
            new_report(folder, output, model=tiny())
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match="is left alone"):
        new_report(".", model=tiny())
    assert state(folder) == before


def test_a_report_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    write(tmp_path / "in/good/0.png", 0)
    shutil.copytree(folder / "good", tmp_path / "in/good", dirs_exist_ok=True)
    (tmp_path / "in/good/000.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"000\.png: cannot be read as an image"):
        new_report(tmp_path / "in", tmp_path / "out", model=tiny())
    monkeypatch.setattr("patchcore_helpers.app.report._page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        new_report(folder, tmp_path / "out", model=tiny())
    assert os.listdir(tmp_path) == ["in"]


def test_only_normal_images_and_another_name(tmp_path):
    for i in range(8):
        write(tmp_path / f"in/fine/{i}.png", i)
    with pytest.raises(InputError, match="--good NAME"):
        new_report(tmp_path / "in", tmp_path / "out", model=tiny())
    page, summary, notes = new_report(
        tmp_path / "in", tmp_path / "out", good="fine", model=tiny(image_size=(64, 96))
    )
    assert "no AUROC" in summary[1] and "0 defective" in summary[0] and len(notes) == 1
    text = (tmp_path / "out/parameters.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    assert values["category"] == f"{tmp_path / 'in'}::fine" and "image_size" not in values
    assert "needs normal and defective" in text and "image_size = (64, 96)" in text
    assert len(load_category(values["category"]).train) == 4
    assert "<b>no AUROC</b>" in page.read_text("utf-8")


BAD = {
    "nowhere": "nowhere: no such folder",
    "{folder} --false-alarm-rate 0": "false_alarm_rate=0.0: give a share",
    "{folder} --false-alarm-rate nan": "false_alarm_rate=nan: give a share",
    "{folder} --good bod": "has no sub-folder named bod",
    "{folder} --seed -1": "seed=-1: give a whole number",
    "{folder} --metric l1": "metric='l1': choose one of",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_words_for_new(words, tmp_path, run):
    for i in range(4):
        write(tmp_path / f"in/good/{i}.png", i)
    status, lines, errors = run("new", *TINY, *words.format(folder=tmp_path / "in").split())
    assert (status, lines, len(errors)) == (2, [], 1) and BAD[words] in errors[0]
    assert os.listdir() == [] and sorted(os.listdir(tmp_path)) == ["cwd", "in"]


def test_the_cookies(shared, tmp_path):
    source = shared("cookie")
    shutil.copytree(source / "train/good", tmp_path / "cookies/good")
    shutil.copytree(source / "test/good", tmp_path / "cookies/good/more")
    shutil.copytree(source / "test/cracked", tmp_path / "cookies/bad")
    _, summary, _ = new_report(
        tmp_path / "cookies", tmp_path / "out", model=PatchCore(image_size=128)
    )
    assert "21 normal images to learn from, 15 for the threshold, 9 normal and 32" in summary[0]
    assert float(summary[1].split("AUROC ")[1].split()[0]) > 0.8


# Verdicts


@pytest.fixture(scope="module")
def bank(folder, tmp_path_factory):
    category = load_category(folder)
    model = tiny(batch_size=4).fit(category.train).calibrate(category.calibration, 0.2)
    model.save(path := tmp_path_factory.mktemp("bank") / "bank.safetensors")
    return path


def test_a_line_per_image(run, bank, folder):
    model = PatchCore.load(bank)
    paths = sorted(folder.rglob("*.png"))
    status, lines, errors = run("predict", bank, folder / "bad", folder / "good/003.png")
    assert (status, len(errors)) == (1, 2) and "empty.jpg: cannot be read" in errors[0]
    assert errors[1] == "patchcore-course: 1 of 9 images were not read"
    assert [line.split("\t")[2] for line in lines] == [
        *map(str, sorted((folder / "bad").glob("*.png"))),
        str(folder / "good/003.png"),
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


def test_no_threshold_no_verdict(run, bank, folder, tmp_path):
    model = PatchCore.load(bank)
    del model.threshold_
    model.save(tmp_path / "bare")
    _, lines, _ = run("predict", tmp_path / "bare", folder / "good/000.png")
    assert lines[0].split("\t")[1] == "-"
    _, lines, _ = run("predict", tmp_path / "bare", folder / "good/000.png", "--json")
    assert json.loads(lines[0])["verdict"] is None


def test_bad_images_do_not_stop_the_rest(run, bank, folder, tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"broken")
    images = [tmp_path / "a\nb.png", folder / "good/000.png", tmp_path / "none.png"]
    status, lines, errors = run("predict", bank, *images)
    assert (status, len(lines), len(errors)) == (1, 1, 3)
    assert "a\\nb.png: cannot be read" in errors[0] and "none.png: no such image" in errors[1]


def test_heat_maps_and_a_table(run, bank, folder, tmp_path):
    status, lines, _ = run("predict", bank, folder, "--output", tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open(newline="")))
    assert status == 1 and len(rows) == len(lines) == 44
    assert len({row["heatmap"] for row in rows}) == 44
    for row in rows:
        with Image.open(tmp_path / "out" / row["heatmap"]) as image:
            height, width = np.asarray(Image.open(row["path"])).shape[:2]
            assert image.size == (2 * width, height)
    assert run("predict", bank, folder, "--output", folder / "x")[0] == 2
    assert not (folder / "x").exists()
    assert sorted(os.listdir(tmp_path)) == ["cwd", "out"]


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_bad_banks(run, folder, tmp_path, content):
    if content is not None:
        (tmp_path / "bank").write_bytes(content)
    status, lines, errors = run("predict", tmp_path / "bank", folder, "--output", tmp_path / "o")
    assert (status, lines, len(errors)) == (2, [], 1) and str(tmp_path / "bank") in errors[0]
    assert not (tmp_path / "o").exists()


def test_no_images(run, bank, tmp_path):
    status, _, errors = run("predict", bank, tmp_path / "cwd")
    assert status == 2 and "cwd: holds no image" in errors[0]


def test_other_versions_are_said_in_one_line(run, bank, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("patchcore_helpers.core.patchcore.version", lambda name: "0.0.1")
    with pytest.warns(UserWarning, match=r"made with torch .* \(here 0\.0\.1\)"):
        PatchCore.load(bank)
    status, lines, errors = run("predict", bank, folder / "good/000.png")
    assert (status, len(lines), len(errors)) == (0, 1, 1)
    assert errors[0].startswith("patchcore-course: warning: ") and "timm" in errors[0]
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PatchCore.load(bank)


@pytest.mark.parametrize("words", ["list", "predict {bank} {folder}/good {folder}/good"])
def test_a_reader_that_has_seen_enough(words, bank, folder, tmp_path):
    (tmp_path / "in").symlink_to(folder)
    words = words.format(bank=bank, folder=tmp_path / "in").split()
    with subprocess.Popen(
        [COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 141)


def test_images_are_read_as_they_are_needed(bank, folder, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "patchcore_helpers.app.report.read_image",
        lambda path: opened.append(path) or Image.new("RGB", (8, 8)),
    )
    stream = verdicts(PatchCore.load(bank), [Path(f"{i}.png") for i in range(1000)])
    assert [next(stream)[0].name for _ in range(5)] == [f"{i}.png" for i in range(5)]
    assert len(opened) <= 5 * 4
    stream.close()


def test_find_images(tmp_path, folder):
    write(tmp_path / "a/b/c.JPG", 0)
    write(tmp_path / "a/.b/c.png", 0)
    (tmp_path / "a/notes.txt").touch()
    assert list(find_images([tmp_path / "a"])) == [tmp_path / "a/b/c.JPG"]
    assert list(find_images(["x.webp"])) == [Path("x.webp")]


def test_heat_lies_where_the_map_is_high():
    values = np.zeros((32, 32))
    values[8:16, 20:28] = 1
    both = np.asarray(heat(Image.new("RGB", (64, 64), (90, 90, 90)), values, (0.1, 1)), int)
    assert both.shape == (64, 128, 3) and (both[:, :64] == 90).all()
    changed = np.abs(both[:, 64:] - 90).sum(2) > 60
    rows, columns = np.nonzero(changed)
    assert 14 <= rows.min() < rows.max() <= 33 and 38 <= columns.min() < columns.max() <= 57
    assert heat(Image.new("L", (4000, 1000)), values, (0, 0)).size == (840, 105)


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 300, "\udcff", "..", ""])
def test_names_of_pictures(name):
    made = picture_name(3, Path("folder") / f"{name}.png")
    assert made.startswith("00003_") and len(made.encode()) < 120
    assert Path(made).name == made and made.isprintable()
