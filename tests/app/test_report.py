"""The command new: a report that opens in a browser and says what its files say."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.command import COMMAND, HOSTILE_NAMES, TINY_OPTIONS, tiny_model, write_image
from PIL import Image
from scipy import ndimage
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.app.report import (
    COLUMNS,
    describe_auroc,
    percent,
    smallest_rate,
    write_report,
)
from patchcore_helpers.data.images import read_image

pytestmark = pytest.mark.long  # a report is made first

N_TEST = 6 + 2 * len(HOSTILE_NAMES)  # a fifth of the normal images, and all defective ones
N_ODD = 24 // 5  # a fifth of the normal images that are left


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
        *("index.html", "scores.csv", "regions.csv", "bank.safetensors", "parameters.yaml")
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
    frames = [tag["class"] for name, tag in page.tags if name == "figure" and "class" in tag]
    assert frames == verdicts
    assert list(rows[0]) == list(COLUMNS)
    assert page.text_in["th"][: len(COLUMNS)] == list(COLUMNS)


def test_regions_are_those_of_the_patch_scores(report, rows):
    """One box or more for an alarm, none for the others, at the place of the highest patch."""
    root, _ = report
    model = PatchCore.load(root / "bank.safetensors")
    with (root / "regions.csv").open(newline="", encoding="utf-8") as file:
        regions = list(csv.DictReader(file))
    alarms = [row["path"] for row in rows if row["verdict"] == "alarm"]
    assert alarms and {region["path"] for region in regions} == set(alarms)
    for path in alarms:
        width, height = read_image(path).size
        (grid,) = model.patch_scores([path])
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        first = next(region for region in regions if region["path"] == path)
        x, y = (column + 0.5) * width / grid.shape[1], (row + 0.5) * height / grid.shape[0]
        assert float(first["left"]) < x < float(first["right"])
        assert float(first["top"]) < y < float(first["bottom"])
        assert float(first["peak"]) == pytest.approx(grid.max(), rel=1e-5)


def test_a_defective_image_in_the_good_folder_is_among_the_odd_ones(tmp_path):
    for i in range(20):
        write_image(tmp_path / f"in/good/{i:03}.png", i)
    write_image(tmp_path / "in/good/dirty.png", 3, defective=True)
    report = write_report(tmp_path / "in", tmp_path / "out", model=tiny_model())
    # The split has put it among the images to learn from; a test image would not be looked at.
    assert "dirty.png" not in (report.output / "scores.csv").read_text("utf-8")
    assert Path(report.suspects[0].image).name == "dirty.png"
    assert len(report.suspects) == 3 and "Good images that look odd" in report.page.read_text(
        "utf-8"
    )


def test_the_nearest_normal_patch_is_named(report, page, user_folder):
    """By brute force: the training image with the vector nearest to the worst patch."""
    root, _ = report
    category = load_category(user_folder).with_calibration(seed=0)
    model = tiny_model().fit(category.train)
    names = [
        text.split("in ")[1].split(", is ")[0] for text in page.text_in["span"] if "why" in text
    ]
    with (root / "scores.csv").open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    kept = model.bank_.vectors_
    for path, name in list(zip(paths, names, strict=True))[:5]:
        (grid,) = model.patch_scores([path])
        vectors = np.asarray(model.extractor_.extract([path])).reshape(grid.size, -1)
        nearest = np.linalg.norm(kept - vectors[grid.argmax()], axis=1).argmin()
        image = model.origin([nearest])[0, 0]
        assert name == Path(category.train[image].source).name


def test_the_commands_on_the_page_name_its_files(report, page):
    root, _ = report
    predict, run = [shlex.split(line) for line in page.text_in["pre"][0].splitlines()]
    assert predict == ["patchcore-course", "predict", str(root / "bank.safetensors"), "IMAGE"]
    assert run == ["patchcore-course", "run", "1", "-f", str(root / "parameters.yaml")]


def test_no_file_name_is_taken_for_html(report, page):
    names = {name for name, _ in page.tags}
    assert not names & {"link", "iframe"} and "b" in names
    scripts = [attributes for name, attributes in page.tags if name == "script"]
    assert scripts == [
        {"type": "application/json", "id": "numbers"},
        {"type": "application/json", "id": "has-regions"},
        {},
    ]
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    figures = [tag for name, tag in page.tags if name == "figure" and "data-name" in tag]
    pictures = [attributes for name, attributes in page.tags if name == "img"]
    for name in HOSTILE_NAMES:
        assert sum(f"bad/{name}.png" in picture["alt"] for picture in pictures) == 1
        assert sum(figure["data-name"] == f"bad/{name}.png" for figure in figures) == 1
        assert page.text.count(f"bad/{name}.png") == 1


def test_the_page_needs_nothing_beside_it(report, page):
    root, _ = report
    sources = [attributes["src"] for name, attributes in page.tags if name == "img"]
    # An image and its reason; the curve; odd images in the good folder.
    assert len(sources) == 2 * N_TEST + 1 + N_ODD
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    links = {attributes["href"] for name, attributes in page.tags if name == "a"}
    assert links == {"scores.csv", "regions.csv"} and all((root / link).exists() for link in links)
    text = (root / "index.html").read_text("utf-8")
    assert text.count("http") == 1 and "http://www.w3.org/2000/svg" in text  # a name, not a place


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
    assert len(widths) == 2 * N_TEST + 1 + N_ODD and min(widths) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (alerts, errors) == ([], [])
    page.close()


@pytest.fixture
def workbench(report, chromium):
    """The report in a tab without a network."""
    context = chromium.new_context(offline=True, viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.goto((report[0] / "index.html").as_uri())
    yield page
    context.close()


def counts_on(page):
    """The numbers of alarms that the page gives: normal, defective, calibration; and the rates."""
    text = page.inner_text("#counts")
    counts = [int(number) for number in re.findall(r"(\d+) of \d+", text)]
    rates = [float(number) / 100 for number in re.findall(r"([\d.]+)\u00a0%", text)]
    return counts, rates


def test_the_threshold_moves_by_keys_and_the_counts_follow(report, workbench, rows):
    page, labels = workbench, [int(row["label"]) for row in rows]
    calibration = json.loads(page.inner_text("#numbers"))["calibration"]
    seen = set()
    page.focus("#threshold")
    for key in ["", *["PageDown"] * 4, *["ArrowRight"] * 3, "Home", "End"]:
        if key:
            page.keyboard.press(key)
        threshold = page.evaluate(
            "document.querySelector('#threshold').getAttribute('aria-valuetext')"
        )
        cards = page.locator("#cards figure:visible")
        shown = {card.get_attribute("data-name"): card for card in cards.all()}
        is_alarm = [card.get_attribute("class") == "alarm" for card in shown.values()]
        (normal, defective, above), (promised, _, least, most) = counts_on(page)
        # Two scores may print alike: the page's own verdicts say on which side they are.
        by_name = map(shown.get, _names(rows))
        verdict = np.array([card.get_attribute("class") == "alarm" for card in by_name], int)
        assert sorted(is_alarm) == sorted(verdict.astype(bool))
        (_, false), (_, found) = confusion_matrix(labels, verdict, labels=[0, 1])
        assert (normal, defective) == (false, found)
        expected = binomtest(above, len(calibration)).proportion_ci(method="exact")
        assert (least, most) == pytest.approx((expected.low, expected.high), abs=1e-3)
        assert promised == pytest.approx((above + 1) / (len(calibration) + 1), abs=1e-3)
        seen.add((threshold, normal, defective))
        # Every alarm has a region on it, and nothing else has.
        for card, alarm in zip(shown.values(), is_alarm, strict=True):
            assert bool(card.locator("rect").count()) == alarm
    assert len(seen) > 4
    page.click("#reset")
    (normal, defective, _), _ = counts_on(page)
    assert normal + defective == sum(row["verdict"] == "alarm" for row in rows)


def _names(rows):
    """What a card calls the image of a row."""
    return [f"{row['kind']}/{Path(row['path']).name}" for row in rows]


def test_cards_are_sorted_filtered_and_paged(workbench, rows):
    page = workbench
    page.select_option("#sort", "lowest")
    cards = page.locator("#cards figure:visible")
    scores = [float(card.get_attribute("data-score")) for card in cards.all()]
    assert scores == sorted(scores) and len(scores) == min(24, N_TEST)
    page.select_option("#filter", "missed")
    missed = sum(row["label"] == "1" and row["verdict"] == "ok" for row in rows)
    assert page.locator("#cards figure:visible").count() == min(missed, 24)
    page.select_option("#filter", "all")
    page.select_option("#kind", "good")
    assert page.locator("#cards figure:visible").count() == sum(
        row["kind"] == "good" for row in rows
    )


def test_expected_alarms_a_day(workbench, rows):
    page = workbench
    page.fill("#parts", "2000")
    page.fill("#prevalence", "5")
    text = page.inner_text("#line")
    (_, defective, _), (promised, *_) = counts_on(page)
    n_defective = sum(row["label"] == "1" for row in rows)
    false_alarms, found = 1990 * promised, 10 * defective / n_defective
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]
    assert numbers[0] == pytest.approx(false_alarms, rel=0.01)
    assert numbers[5] == pytest.approx(found, rel=0.01)
    assert numbers[7] == pytest.approx(100 * found / (found + false_alarms), rel=0.02)


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
    (output / "notes.txt").touch()
    with pytest.raises(InputError, match=r"report: holds 'notes.txt', which this"):
        write_report(user_folder, output, model=tiny_model())
    (output / "notes.txt").unlink()
    (output / "index.html").write_text("old")
    again = write_report(user_folder, output, model=tiny_model(), pictures=3)
    assert again.page == output / "index.html"
    assert again.page.read_text("utf-8") != "old"
    assert len(again.pictures) == 3
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


def test_regions_cover_the_middle_of_what_was_marked(shared, tmp_path):
    """At the default size: for four of five cookies that alarm, a box covers the mask's center."""
    source = shared("cookie")
    shutil.copytree(source / "train/good", tmp_path / "cookies/good")
    shutil.copytree(source / "test/cracked", tmp_path / "cookies/bad")
    report = write_report(tmp_path / "cookies", tmp_path / "out")
    regions = pd.read_csv(report.output / "regions.csv")
    defective = regions[regions["path"].str.contains("/bad/")]
    is_covered = []
    for path, boxes in defective.groupby("path"):
        mask = Image.open(source / f"ground_truth/cracked/{Path(path).stem}_mask.png")
        y, x = ndimage.center_of_mass(np.asarray(mask.convert("L")) > 0)
        is_inside = boxes["left"].le(x) & boxes["right"].gt(x)
        is_inside &= boxes["top"].le(y) & boxes["bottom"].gt(y)
        is_covered.append(is_inside.any())
    assert len(is_covered) > 20 and np.mean(is_covered) >= 0.8


def test_a_perfect_auroc_has_an_interval_and_few_images_have_none():
    labels = np.repeat([0, 1], [10, 5])
    found = describe_auroc(labels, labels + np.linspace(0, 0.5, 15))
    assert found.result == "image AUROC 1.000 (95 % 0.717 to 1.000)"
    found = describe_auroc(labels[:11], np.arange(11.0))
    assert found.result == "image AUROC 1.000" and "too few for an interval" in found.remark
    assert describe_auroc(labels[:10], np.arange(10.0)).result == "no AUROC"


def test_a_tuned_report_names_its_settings(user_folder, tmp_path, run):
    words = ("new", user_folder, *TINY_OPTIONS, "--tune", "--output", tmp_path / "tuned")
    status, _, errors = run(*words)
    assert status == 0, errors
    chosen = next(line for line in errors if line.startswith("chosen in"))
    score = chosen.split('"')[1] if '"' in chosen else "max"
    assert PatchCore.load(tmp_path / "tuned/bank.safetensors").image_score == score


@pytest.mark.parametrize(
    ("typed", "size"), [((), (160, 416)), (("--image-size", "64"), 64), (("--tune",), None)]
)
def test_photographs_that_are_not_square_keep_their_shape(typed, size, tmp_path, run):
    for number in range(24):
        path = tmp_path / f"wide/good/{number:02}.png"
        write_image(path, number, size=160)
        Image.open(path).crop((0, 48, 160, 112)).save(path)
    options = [*TINY_OPTIONS[:4], *TINY_OPTIONS[6:]]  # no size
    status, _, errors = run(
        "new", tmp_path / "wide", *options, *typed, "--output", tmp_path / "out"
    )
    assert status == 0, errors
    if size is not None:
        assert PatchCore.load(tmp_path / "out/bank.safetensors").image_size == size
    is_told = any("image size 160x416, in the shape of the images" in line for line in errors)
    assert is_told == (typed == ())
