"""`--roi`: from `new` and `evaluate` into the bank file, and from there into other commands."""

import json

import numpy as np
import pytest
from helpers.command import TINY_OPTIONS, tiny_model, write_image
from PIL import Image

from patchcore_helpers import PatchCore, load_category

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with 30 good parts and 4 with a bright corner, and a mask that leaves it out."""
    folder = tmp_path_factory.mktemp("roi")
    for number in range(30):
        write_image(folder / f"parts/good/{number:03}.png", number)
    for number in range(40, 44):
        path = folder / f"parts/corner/{number:03}.png"
        write_image(path, number)
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:8, :8] = 255
        Image.fromarray(pixels).save(path)
    mask = np.zeros((64, 64), np.uint8)
    mask[12:, :] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture
def bank(run, parts):
    words = ["new", parts / "parts", "--output", "report", *TINY_OPTIONS]
    status, output, errors = run(*words, "--roi", parts / "mask.png", "--false-alarm-rate", "0.2")
    assert status == 0, errors
    assert output[1].startswith("14 normal images to learn from")
    return "report/bank.safetensors"


def scores_of(run, *words):
    status, output, errors = run("predict", *words, "--json")
    return status, [json.loads(line)["score"] for line in output], errors


def test_a_defect_outside_never_alarms(run, parts, bank):
    """Each part with a bright corner has the score of the same part without."""
    plain = []
    for number in range(40, 44):
        write_image(parts / f"plain/{number:03}.png", number)
        plain.append(parts / f"plain/{number:03}.png")
    status, scores, _ = scores_of(run, bank, *sorted((parts / "parts/corner").iterdir()))
    assert status == 0
    assert scores == scores_of(run, bank, *plain)[1]
    model = PatchCore.load(bank)
    without = tiny_model().fit(load_category(parts / "parts").train)
    assert max(scores) < without.anomaly_scores(sorted((parts / "parts/corner").iterdir())).min()
    np.testing.assert_array_equal(model.roi, np.asarray(Image.open(parts / "mask.png")) > 0)


def test_an_image_of_another_size_gets_a_line_and_the_others_are_judged(run, parts, bank):
    good = parts / "parts/good/000.png"
    write_image(parts / "large.png", 1, size=80)
    (parts / "broken.png").write_text("no image")
    images = [good, parts / "large.png", parts / "broken.png", good]
    status, scores, errors = scores_of(run, bank, *images)
    assert status == 1 and len(scores) == 2 and scores[0] == scores[1]
    line = "large.png: has 80x80 pixels, and the mask of the region of interest 64x64"
    assert line in errors[0] and "broken.png" in errors[1]


def test_teach_keeps_to_the_region(run, parts, bank, tmp_path):
    for number in range(60, 70):
        path = tmp_path / f"new/{number}.png"
        write_image(path, number)
    before = PatchCore.load(bank)
    status, _, errors = run("teach", bank, "--normal", tmp_path / "new", "--json")
    assert status == 0, errors
    after = PatchCore.load(bank)
    n_inside = before.inspected_patches().sum()
    assert after.bank_.n_vectors_ - before.bank_.n_vectors_ == 8 * n_inside
    np.testing.assert_array_equal(after.roi, before.roi)


def test_evaluate_measures_inside(run, make_category, tmp_path):
    folder = make_category(tmp_path / "bolt")  # the defect is in rows 20 to 35
    for name, rows in {"with": slice(16, 64), "without": slice(40, 64)}.items():
        mask = np.zeros((64, 64), np.uint8)
        mask[rows] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    words = ("evaluate", folder, *TINY_OPTIONS, "--json")
    plain = json.loads(run(*words)[1][0])
    _, output, errors = run(*words, "--roi", tmp_path / "with.png")
    inside = json.loads(output[0])
    assert inside["n_patches"] < plain["n_patches"] and inside["image_auroc"] == 1
    assert inside["pixel_auroc"] > 0.8 and len(errors) == 1
    _, output, errors = run(*words, "--roi", tmp_path / "without.png")
    outside = json.loads(output[0])
    assert outside["pixel_auroc"] is None and outside["au_pro"] is None
    assert errors == [
        "2 defective images have no defect in the region of interest, and count as defective"
    ]
