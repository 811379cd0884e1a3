"""`patchcore-course teach`: what it changes, against the same done by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.bank_files import without_images
from helpers.command import tiny_model, write_image
from scipy.ndimage import label
from scipy.spatial.distance import cdist

from patchcore_helpers import PatchCore
from patchcore_helpers.app.teach import HELD_OUT
from patchcore_helpers.data.category import split

pytestmark = pytest.mark.long

RATE = 0.25


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bank of 12 parts, 8 calibration images, 15 new parts and 2 defects, each in its folder."""
    folder = tmp_path_factory.mktemp("teach")
    for name, numbers in {
        "old": range(12),
        "calibration": range(20, 28),
        "new": range(40, 55),
    }.items():
        for number in numbers:
            write_image(folder / f"{name}/{number:03}.png", number)
    for number in (80, 81):
        write_image(folder / f"defects/{number:03}.png", number, defective=True)
    model = tiny_model().fit(images_of(folder / "old"))
    model.calibrate(images_of(folder / "calibration"), RATE).save(folder / "bank")
    return folder


@pytest.fixture
def teach(run, place, tmp_path):
    """Call the command on a copy of the bank: its object, the new model, its messages."""

    def call(*words, bank=None):
        copy = tmp_path / "bank"
        copy.write_bytes((bank or place / "bank").read_bytes())
        status, output, errors = run("teach", copy, *words, "--json")
        assert status == 0 and len(output) == 1, errors
        return json.loads(output[0]), PatchCore.load(copy), errors

    return call


def images_of(folder):
    return sorted(Path(folder).glob("*.png"))


def threshold_by_hand(scores, rate=RATE):
    return sorted(scores)[math.ceil((len(scores) + 1) * (1 - rate)) - 1]


def test_new_images_extend_the_bank_and_the_threshold_follows(teach, place):
    said, model, errors = teach("--normal", place / "new", "--calibration", place / "calibration")
    held_out, taught = split(images_of(place / "new"), round(HELD_OUT * 15), seed=0)
    expected = PatchCore.load(place / "bank").teach(taught)
    np.testing.assert_array_equal(model.bank_.vectors_, expected.bank_.vectors_)
    scores = expected.anomaly_scores([*images_of(place / "calibration"), *held_out])
    assert model.threshold_ == pytest.approx(threshold_by_hand(scores), rel=1e-6)
    assert (said["n_taught"], said["n_held_out"], said["n_rescored"], said["n_kept"]) == (
        12,
        3,
        8,
        0,
    )
    earlier = PatchCore.load(place / "bank")
    assert said["before"]["rows"] == len(earlier.bank_) and said["after"]["rows"] == len(
        model.bank_
    )
    assert said["before"]["threshold"] == earlier.threshold_
    assert said["after"]["threshold"] == model.threshold_
    old_scores = earlier.anomaly_scores(images_of(place / "calibration"))
    assert said["before"]["false_alarms"] == (old_scores > earlier.threshold_).sum()
    assert said["after"]["false_alarms"] == (scores > model.threshold_).sum()
    assert (
        said["before"]["held_out_alarms"]
        == (earlier.anomaly_scores(held_out) > earlier.threshold_).sum()
    )
    assert said["after"]["held_out_alarms"] == (scores[8:] > model.threshold_).sum()
    assert errors[0].startswith("patchcore-course: written: ") and len(errors) == 1


def test_kept_scores_are_never_too_low(teach, place):
    said, model, errors = teach("--normal", place / "new")
    assert (said["n_rescored"], said["n_kept"]) == (0, 8)
    assert "keep the scores of the earlier bank" in errors[1] and "--calibration" in errors[1]
    kept = model.calibration_.scores[:8]
    now = model.anomaly_scores(images_of(place / "calibration"))
    assert (kept >= now - 1e-5).all() and (kept > now + 1e-3).any()
    _, exact, _ = teach("--normal", place / "new", "--calibration", place / "calibration")
    assert model.threshold_ >= exact.threshold_


def test_images_are_known_by_their_content(teach, place, tmp_path):
    """The same folder with everything in it, under other names."""
    folders = ("old", "calibration", "new")
    files = [path for folder in folders for path in images_of(place / folder)]
    (tmp_path / "all").mkdir()
    for number, path in enumerate(files):
        (tmp_path / f"all/x{number:03}.png").write_bytes(path.read_bytes())
    (tmp_path / "all/again.png").write_bytes(files[-1].read_bytes())
    said, _, errors = teach("--normal", tmp_path / "all")
    assert (said["n_taught"] + said["n_held_out"], said["n_known"]) == (15, 21)
    assert said["n_rescored"] == 8
    assert "21 normal images were known to the bank and left out" in errors[1]


def test_a_second_lesson_goes_on_from_the_first(teach, place, run, tmp_path):
    _, first, _ = teach("--normal", place / "new")
    names = first.taught_.names
    assert len(names) == 24 and names[0] == "old/000.png" and names[-1].startswith("new/")
    status, _, errors = run("teach", tmp_path / "bank", "--normal", place / "new")
    assert status == 2 and "all 15 normal images are known to the bank" in errors[0]


def excuses_by_hand(model, path):
    """The rows nearest to the region that depends most on a single image, by brute force."""
    (patches,) = model.extractor_.extract([path])
    distances = cdist(patches.reshape(-1, patches.shape[-1]), model.bank_.vectors_)
    images = model.origin(np.arange(len(model.bank_)))[:, 0]
    grid = np.array([row[images != images[row.argmin()]].min() for row in distances])
    grid = grid.reshape(patches.shape[:2])
    regions, _ = label(grid >= 0.9 * grid.max(), np.ones((3, 3)))
    region = regions == regions[np.unravel_index(grid.argmax(), grid.shape)]
    return distances.argmin(1).reshape(region.shape)[region]


@pytest.fixture(scope="module")
def dirty(place):
    """A bank that has seen one of the two defects among its normal images."""
    images = [*images_of(place / "old"), place / "defects/080.png"]
    model = tiny_model().fit(images).calibrate(images_of(place / "calibration"), RATE)
    model.save(place / "dirty")
    return place / "dirty"


def test_a_missed_defect_names_the_rows_and_images_that_excuse_it(teach, place, dirty, tmp_path):
    before = dirty.read_bytes()
    said, model, errors = teach("--missed", place / "defects", bank=dirty)
    original = PatchCore.load(dirty)
    scores = original.anomaly_scores(images_of(place / "defects"))
    for missed, path, score in zip(
        said["missed"], images_of(place / "defects"), scores, strict=True
    ):
        assert missed["path"] == str(path) and missed["score_before"] == pytest.approx(score)
        expected = excuses_by_hand(original, path) if score <= original.threshold_ else []
        assert {excuse["row"] for excuse in missed["excuses"]} == set(expected)
        assert sum(excuse["n_patches"] for excuse in missed["excuses"]) == len(expected)
    (first, *_) = said["missed"][0]["excuses"]
    assert first["name"].endswith("defects/080.png") and first["image"] == 12
    row = original.bank_.vectors_[first["row"]]
    patches = original.extractor_.extract([place / "defects/080.png"])[0]
    np.testing.assert_allclose(patches[tuple(first["place"])], row, atol=1e-5)
    assert errors == ["patchcore-course: the bank has not changed; nothing was written"]
    assert said["rows_removed"] == 0 and len(model.bank_) == len(original.bank_)
    assert (tmp_path / "bank").read_bytes() == before


def test_rows_are_removed_only_when_told_to(teach, place, dirty):
    words = ("--missed", place / "defects", "--calibration", place / "calibration")
    said, model, _ = teach(*words, "--remove", bank=dirty)
    original = PatchCore.load(dirty)
    excused = {excuse["row"] for missed in said["missed"] for excuse in missed["excuses"]}
    assert said["rows_removed"] == len(excused) > 0
    stays = [row for row in range(len(original.bank_)) if row not in excused]
    np.testing.assert_array_equal(model.bank_.vectors_, original.bank_.vectors_[stays])
    np.testing.assert_array_equal(
        model.origin(np.arange(len(stays))), original.origin(np.array(stays))
    )
    scores = model.anomaly_scores(images_of(place / "calibration"))
    assert model.threshold_ == pytest.approx(threshold_by_hand(scores), rel=1e-6)
    first = said["missed"][0]
    assert (first["verdict_before"], first["verdict_after"]) == ("ok", "alarm")
    assert first["score_after"] == pytest.approx(
        model.anomaly_scores([place / "defects/080.png"])[0], rel=1e-6
    )


def test_after_a_removal_kept_scores_do_not_count(run, place, dirty, tmp_path):
    bank = tmp_path / "bank"
    bank.write_bytes(dirty.read_bytes())
    status, output, errors = run("teach", bank, "--missed", place / "defects", "--remove")
    assert (status, output, len(errors)) == (2, [], 1)
    assert "too few" in errors[0] and "--calibration FOLDER" in errors[0]
    assert bank.read_bytes() == dirty.read_bytes()


def test_text_says_what_json_says(run, place, dirty, tmp_path):
    words = ["teach", dirty, "--missed", place / "defects", "--normal", place / "new"]
    words += ["--calibration", place / "calibration", "--output", tmp_path / "out"]
    said = json.loads(run(*words, "--json")[1][0])
    status, output, _ = run(*words)
    assert status == 0
    assert output[0].split() == f"normal images {said['n_taught']} taught, 3 held out".split()
    assert output[2].split() == [
        "rows",
        str(said["before"]["rows"]),
        "->",
        str(said["after"]["rows"]),
    ]
    assert output[3].split()[1] == f"{said['before']['threshold']:.6g}"
    assert "old" in output[7] or "defects/080.png, patch in row" in output[7]
    assert run(*words)[1] == output  # the bank itself has stayed as it was


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "random"}, "chosen at random"),
        (
            {"coreset_ratio": 1.0, "index": {"kind": "ivf_pq", "m": 4, "bits": 4, "n_clusters": 1}},
            "holds only ivf_pq codes",
        ),
    ],
)
def test_banks_that_cannot_be_taught(run, place, tmp_path, options, message):
    model = tiny_model(**options).fit(images_of(place / "old"))
    model.calibrate(images_of(place / "calibration"), RATE).save(tmp_path / "bank")
    refused(run, place, tmp_path / "bank", message)


def test_banks_that_do_not_know_their_images_or_have_no_threshold(run, place, tmp_path):
    without_images(place / "bank", tmp_path / "earlier")
    assert PatchCore.load(tmp_path / "earlier").threshold_ > 0  # it is still read
    refused(run, place, tmp_path / "earlier", "patchcore-course new FOLDER")
    tiny_model().fit(images_of(place / "old")).save(tmp_path / "uncalibrated")
    refused(run, place, tmp_path / "uncalibrated", "has no calibration images")


def refused(run, place, bank, message):
    before = bank.read_bytes()
    status, output, errors = run("teach", bank, "--normal", place / "new")
    assert (status, output, len(errors)) == (2, [], 1)
    assert str(bank) in errors[0] and message in errors[0]
    assert bank.read_bytes() == before


def test_an_image_that_cannot_be_read_leaves_the_bank_alone(run, place, tmp_path):
    (tmp_path / "new").mkdir()
    for path in images_of(place / "new"):
        (tmp_path / "new" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "new/broken.png").write_bytes(b"no image")
    bank = tmp_path / "bank"
    bank.write_bytes((place / "bank").read_bytes())
    status, output, errors = run("teach", bank, "--normal", tmp_path / "new")
    assert (status, output, len(errors)) == (2, [], 1) and "broken.png" in errors[0]
    assert bank.read_bytes() == (place / "bank").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "cwd", "new"]
