"""The command new: a report that opens in a browser and says what its files say."""

import csv
import os
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from helpers.command import COMMAND, HOSTILE_NAMES, TINY_OPTIONS, tiny_model, write_image

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app.report import (
    COLUMNS,
    describe_auroc,
    percent,
    smallest_rate,
    write_report,
)

pytestmark = pytest.mark.long  # a report is made first

N_TEST = 6 + 2 * len(HOSTILE_NAMES)  # a fifth of the normal images, and all defective ones


def state(folder):
    """Time of change and size of everything in a folder."""
    files = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in files.items()}


@pytest.fixture(scope="module")
def report(user_folder, tmp_path_factory):
    """A report by the command, from another directory: its folder and what was printed."""
    cwd = tmp_path_factory.mktemp("cwd")
    before = state(user_folder)
    words = [COMMAND, "new", os.path.relpath(user_folder, cwd), *TINY_OPTIONS]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert state(user_folder) == before, "the user's folder was changed"
    assert os.listdir(cwd) == [f"{user_folder.name}_report"]
    return cwd / f"{user_folder.name}_report", done


class Page(HTMLParser):
    """The tags of a page, with their attributes; all its text; the text in tags of each name."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.text = ""
        self.text_in = {}
        self.innermost = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.text_in.setdefault(tag, []).append("")
        self.innermost = tag

    def handle_endtag(self, tag):
        self.innermost = None

    def handle_data(self, data):
        self.text += data
        if self.innermost:
            self.text_in[self.innermost][-1] += data


@pytest.fixture
def page(report):
    return Page((report[0] / "index.html").read_text("utf-8"))


@pytest.fixture
def rows(report):
    """The rows of scores.csv."""
    with (report[0] / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_a_report_holds(report, rows, user_folder):
    root, done = report
    files = {path.name for path in root.iterdir()} - {".patchcore-course"}
    assert files == {
        *("index.html", "scores.csv", "heatmaps", "bank.safetensors", "parameters.yaml")
    }
    category = load_category(user_folder)
    n_train, n_calibration = len(category.train), len(category.calibration)
    n_defective = category.labels.sum()
    page, images, results = done.stdout.splitlines()
    assert page == str(root / "index.html")
    assert images == (
        f"{n_train} normal images to learn from, {n_calibration} for the threshold, "
        f"{N_TEST - n_defective} normal and {n_defective} defective ones to test"
    )
    assert f"at most {percent(1 / (n_calibration + 1))} false alarms" in results
    assert "AUROC" in results
    assert f"{n_calibration} normal images for the threshold are too few" in done.stderr
    assert "1 left out: empty files" in done.stderr

    model = PatchCore.load(root / "bank.safetensors")
    scores = dict(
        zip(
            [str(sample.image) for sample in category.test],
            model.anomaly_scores(category.test),
            strict=True,
        )
    )
    assert {row["path"] for row in rows} == scores.keys()
    ranked = [float(row["score"]) for row in rows]
    assert ranked == sorted(ranked, reverse=True) and len(rows) == N_TEST
    for row in rows:
        assert float(row["score"]) == pytest.approx(scores[row["path"]], rel=1e-5)
        assert row["verdict"] == ("alarm" if float(row["score"]) > model.threshold_ else "ok")
        assert (row["label"] == "0") == (row["kind"] == "good")
    # The rate that 10 images can promise is that of their highest score.
    highest = model.anomaly_scores(category.calibration).max()
    assert model.threshold_ == pytest.approx(highest, rel=1e-5)


def test_the_smallest_rate_is_what_calibrate_accepts(photos):
    model = tiny_model(image_size=32).fit(photos[:3])
    for n in (1, 4):
        model.calibrate(photos[3 : 3 + n], smallest_rate(n))
        with pytest.raises(InputError, match="too few"):
            model.calibrate(photos[3 : 3 + n], 0.99 * smallest_rate(n))


def test_the_page_says_what_the_table_says(page, rows):
    verdicts = [text.split(", ")[1] for text in page.text_in["b"] if text[0].isdigit()]
    assert verdicts == [row["verdict"] for row in rows]
    assert {"alarm", "ok"} == set(verdicts)
    frames = [attributes["class"] for name, attributes in page.tags if name == "figure"]
    assert frames == verdicts
    assert list(rows[0]) == list(COLUMNS)
    assert page.text_in["th"][: len(COLUMNS)] == list(COLUMNS)


def test_the_commands_on_the_page_name_its_files(report, page):
    root, _ = report
    predict, run = [shlex.split(line) for line in page.text_in["pre"][0].splitlines()]
    assert predict == ["patchcore-course", "predict", str(root / "bank.safetensors"), "IMAGE"]
    assert run == ["patchcore-course", "run", "1", "-f", str(root / "parameters.yaml")]


def test_no_file_name_is_taken_for_html(page):
    names = {name for name, _ in page.tags}
    assert not names & {"script", "i", "link", "iframe"} and "b" in names
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    pictures = [attributes for name, attributes in page.tags if name == "img"]
    assert all(picture.keys() <= {"src", "alt", "loading"} for picture in pictures)
    for name in HOSTILE_NAMES:
        assert page.text.count(f"bad/{name}.png") == 1
        assert sum(f"bad/{name}.png" in picture["alt"] for picture in pictures) == 1


def test_every_picture_is_there_and_nothing_comes_from_elsewhere(report, page):
    root, _ = report
    sources = [unquote(attributes["src"]) for name, attributes in page.tags if name == "img"]
    saved = [f"heatmaps/{path.name}" for path in (root / "heatmaps").iterdir()]
    assert len(sources) == N_TEST
    assert sorted(sources) == sorted(saved)
    assert "http" not in (root / "index.html").read_text("utf-8")


@pytest.mark.parametrize("width", [1400, 400])
def test_the_report_opens_in_a_browser(report, chromium, width):
    page = chromium.new_page(viewport={"width": width, "height": 700})
    alerts, errors = [], []
    page.on("dialog", lambda dialog: alerts.append(dialog.message))
    page.on("requestfailed", lambda request: errors.append(request.url))
    page.goto((report[0] / "index.html").as_uri())
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == N_TEST and min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (alerts, errors) == ([], [])
    page.close()


def test_parameters_are_those_of_notebook_1(report, user_folder):
    from patchcore_helpers.course.jobs import Job
    from patchcore_helpers.course.notebook import find_notebooks

    text = (report[0] / "parameters.yaml").read_text("utf-8")
    values = yaml.safe_load(text)
    n_calibration = len(load_category(user_folder).calibration)
    assert values == {
        "category": str(user_folder),
        "backbone": "test_resnet",
        "image_size": 64,
        "coreset_ratio": 0.1,
        "false_alarm_rate": 1 / (n_calibration + 1),
        "seed": 0,
    }
    (path,) = find_notebooks(["1"])
    job = Job(path, "default")
    for name, value in values.items():
        job.set(name, value, "parameters.yaml", False)
    assert job.failures == []
    # The notebook splits the folder as the report did.
    category = load_category(values["category"], seed=0).with_calibration(seed=0)
    assert len(category.calibration) == n_calibration
    assert "Not a parameter of notebook 1: weights = 'random'" in text


def test_an_earlier_report_is_replaced_and_nothing_else(report, user_folder, tmp_path):
    output = tmp_path / "report"
    shutil.copytree(report[0], output)
    (output / "heatmaps/99999_old.png").touch()
    with pytest.raises(InputError, match=r"report: holds 'heatmaps/99999_old.png', which this"):
        write_report(user_folder, output, model=tiny_model())
    (output / "heatmaps/99999_old.png").unlink()
    (output / "index.html").write_text("old")
    again = write_report(user_folder, output, model=tiny_model(), pictures=3)
    assert again.page == output / "index.html"
    assert again.page.read_text("utf-8") != "old"
    assert len(list((output / "heatmaps").iterdir())) == len(again.pictures) == 3
    assert f"pictures of the 3 highest of {N_TEST}; all are in scores.csv" in again.notes
    assert os.listdir(tmp_path) == ["report"]


@pytest.mark.parametrize("output", ["user", "user/thesis.txt"])
def test_a_folder_with_other_files_is_refused(output, user_folder, tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user/thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds 'thesis\.txt', which|is not a folder"):
        write_report(user_folder, tmp_path / output, model=tiny_model())
    assert (tmp_path / "user/thesis.txt").read_text() == "x"


def test_never_into_the_users_folder(user_folder, tmp_path, monkeypatch):
    before = state(user_folder)
    (tmp_path / "link").symlink_to(user_folder)
    for output in (user_folder, user_folder / "report", tmp_path / "link/report"):
        with pytest.raises(InputError, match="is left alone; choose another --output"):
            write_report(user_folder, output, model=tiny_model())
    monkeypatch.chdir(user_folder)
    with pytest.raises(InputError, match="is left alone"):
        write_report(".", model=tiny_model())
    assert state(user_folder) == before


def test_a_report_that_fails_leaves_nothing(user_folder, tmp_path, monkeypatch):
    shutil.copytree(user_folder / "good", tmp_path / "in/good")
    (tmp_path / "in/good/000.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"000\.png: cannot be read as an image"):
        write_report(tmp_path / "in", tmp_path / "out", model=tiny_model())
    monkeypatch.setattr("patchcore_helpers.app.report.render_page", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(user_folder, tmp_path / "out", model=tiny_model())
    assert os.listdir(tmp_path) == ["in"]


def test_only_normal_images_and_another_name(tmp_path):
    for i in range(8):
        write_image(tmp_path / f"in/fine/{i}.png", i)
    with pytest.raises(InputError, match="--good NAME"):
        write_report(tmp_path / "in", tmp_path / "out", model=tiny_model())
    model = tiny_model(image_size=(64, 96))
    report = write_report(tmp_path / "in", tmp_path / "out", good="fine", model=model)
    assert "0 defective" in report.images
    assert "no AUROC" in report.results
    assert len(report.notes) == 1
    assert "<b>no AUROC</b>" in report.page.read_text("utf-8")
    text = report.parameters.read_text("utf-8")
    values = yaml.safe_load(text)
    assert values["category"] == f"{tmp_path / 'in'}::fine" and "image_size" not in values
    assert "needs normal and defective" in text and "image_size = (64, 96)" in text
    report_again = load_category(values["category"])
    assert len(report_again.train) + len(report_again.calibration) + len(report_again.test) == 8


BAD_OPTIONS = {
    "nowhere": "nowhere: no such folder",
    "{folder} --false-alarm-rate 0": "false_alarm_rate=0.0: give a share",
    "{folder} --false-alarm-rate nan": "false_alarm_rate=nan: give a share",
    "{folder} --pictures -1": "pictures=-1: give a whole number",
    "{folder} --good bod": "has no sub-folder named bod",
    "{folder} --seed -1": "seed=-1: give a whole number",
    "{folder} --metric l1": "metric='l1': choose one of",
}


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_bad_words_for_new(words, tmp_path, run):
    for i in range(4):
        write_image(tmp_path / f"in/good/{i}.png", i)
    status, lines, errors = run("new", *TINY_OPTIONS, *words.format(folder=tmp_path / "in").split())
    assert (status, lines, len(errors)) == (2, [], 1) and BAD_OPTIONS[words] in errors[0]
    assert os.listdir() == [] and sorted(os.listdir(tmp_path)) == ["cwd", "in"]


def test_the_cookies(shared, tmp_path):
    source = shared("cookie")
    shutil.copytree(source / "train/good", tmp_path / "cookies/good")
    shutil.copytree(source / "test/good", tmp_path / "cookies/good/more")
    shutil.copytree(source / "test/cracked", tmp_path / "cookies/bad")
    report = write_report(tmp_path / "cookies", tmp_path / "out", model=PatchCore(image_size=128))
    n_images = sum(path.is_file() for path in (tmp_path / "cookies").rglob("*"))
    assert sum(int(word) for word in report.images.split() if word.isdigit()) == n_images
    assert float(report.results.split("AUROC ")[1].split()[0]) > 0.8


def test_a_perfect_auroc_has_an_interval_and_few_images_have_none():
    labels = np.repeat([0, 1], [10, 5])
    found = describe_auroc(labels, labels + np.linspace(0, 0.5, 15))
    assert found.result == "image AUROC 1.000 (95 % 0.717 to 1.000)"
    found = describe_auroc(labels[:11], np.arange(11.0))
    assert found.result == "image AUROC 1.000" and "too few for an interval" in found.remark
    assert describe_auroc(labels[:10], np.arange(10.0)).result == "no AUROC"
