"""Several products: from folders to reports and one bank, and what the commands make of it."""

import json
import os
import re
from html import escape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import onnxruntime
import pytest
from helpers.command import TINY_OPTIONS, tiny_model, write_image, write_products
from PIL import Image

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.app import products
from patchcore_helpers.core.products import ProductBank
from patchcore_helpers.data.folder import product_folders

pytestmark = pytest.mark.long  # reports are made first

PRODUCTS = ("bolt & nut", "gear", "100% <i>pin")
N_TEST = 5 + 3  # of each product: a fifth of the good images, and the bad ones


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_products(tmp_path_factory.mktemp("user") / "line 7", PRODUCTS)
    Image.new("RGB", (9, 9)).save(folder / "loose.png")
    return folder


@pytest.fixture(scope="module")
def place(folder, tmp_path_factory):
    """The folder of a report on the products."""
    place = tmp_path_factory.mktemp("report") / "report"
    products.write_products(folder, place, make=tiny_model, false_alarm_rate=0.2)
    return place


@pytest.fixture(scope="module")
def alone(folder):
    """A model of each product alone, made by hand, with the same images."""
    models = {}
    for product in PRODUCTS:
        category = load_category(folder / product).with_calibration(seed=0)
        models[product] = tiny_model().fit(category.train)
        models[product].calibrate(category.calibration, 0.2)
    return models


def bad_images(folder, product):
    return sorted((folder / product / "bad").glob("*.png"))


def test_new_makes_a_report_of_each_and_one_bank(run, folder):
    status, lines, errors = run("new", folder, *TINY_OPTIONS, "--false-alarm-rate", "0.2")
    report = f"{folder.name}_report"
    assert (status, os.listdir()) == (0, [report]), errors
    assert lines[0] == os.path.abspath(f"{report}/index.html")
    assert [line.split(": ")[0] for line in lines[1:]] == [*sorted(PRODUCTS), "recognized"]
    assert errors[0] == "1 left out: loose, beside the folders of the products"
    bank = ProductBank.load(f"{report}/bank.safetensors")
    assert bank.products == sorted(PRODUCTS)
    for product in PRODUCTS:
        one = PatchCore.load(f"{report}/products/{product}/bank.safetensors")
        np.testing.assert_array_equal(one.bank_.vectors_, bank.of(product).bank_.vectors_)
        assert one.threshold_ == bank.threshold_of(product)
        page = Path(f"{report}/products/{product}/index.html").absolute()
        assert escape(str(page.parent)) in page.read_text("utf-8"), "names its own place"
    # A second time, the report is replaced.
    assert run("new", folder, *TINY_OPTIONS, "--pictures", "1")[0] == 0


def test_rows_and_thresholds_are_those_of_each_product_alone(place, alone):
    bank = ProductBank.load(place / "bank.safetensors")
    for product, model in alone.items():
        np.testing.assert_array_equal(bank.of(product).bank_.vectors_, model.bank_.vectors_)
        assert bank.threshold_of(product) == pytest.approx(model.threshold_, rel=1e-5)


def test_the_page_links_every_report_and_counts_what_is_recognized(place):
    page = (place / "index.html").read_text("utf-8")
    links = [unquote(link) for link in re.findall(r'href="([^"]*)"', page)]
    assert sorted(links) == sorted(f"products/{product}/index.html" for product in PRODUCTS)
    assert all((place / link).is_file() for link in links)
    assert "<i>pin" not in page
    total = len(PRODUCTS) * N_TEST
    right, of = map(int, re.search(r"on (\d+) of (\d+) test\s+images", page).groups())
    assert (right, of) == (total, total)  # textures that no eye would confuse
    cells = re.findall(r"<td>([^<]*)</td>", page)
    assert cells[1::3] == [str(N_TEST)] * 3 and cells[2::3] == [str(N_TEST)] * 3


@pytest.mark.parametrize("given", [False, True])
def test_predict_says_score_verdict_product_and_path(run, folder, place, alone, given):
    for product in PRODUCTS:
        paths = bad_images(folder, product)
        words = ["--product", product] if given else []
        status, lines, errors = run("predict", place / "bank.safetensors", *paths, *words)
        assert (status, errors, len(lines)) == (0, [], len(paths))
        for line, path in zip(lines, paths, strict=True):
            score, verdict, found, name = line.split("\t")
            expected = alone[product].anomaly_scores([path])[0]
            assert float(score) == pytest.approx(expected, rel=1e-4)
            assert verdict == ("alarm" if expected > alone[product].threshold_ else "ok")
            assert (found, name) == (product, str(path))


def test_predict_by_a_given_product_that_is_another(run, folder, place, alone):
    (path, *_) = bad_images(folder, PRODUCTS[0])
    words = ["predict", place / "bank.safetensors", path, "--product", PRODUCTS[1], "--json"]
    _, (line,), _ = run(*words)
    verdict = json.loads(line)
    assert verdict["product"] == PRODUCTS[1]
    assert verdict["score"] == pytest.approx(alone[PRODUCTS[1]].anomaly_scores([path])[0], rel=1e-4)
    assert verdict["threshold"] == pytest.approx(alone[PRODUCTS[1]].threshold_, rel=1e-5)
    assert (verdict["verdict"], bool(verdict["regions"])) == ("alarm", True)


def test_heat_maps_and_a_table_name_the_product(run, folder, place, tmp_path):
    words = ["predict", place / "bank.safetensors", *bad_images(folder, "gear")]
    assert run(*words, "--output", tmp_path / "out")[0] == 0
    header, *rows = (tmp_path / "out/scores.csv").read_text().splitlines()
    assert header == "path,score,verdict,heatmap,product"
    assert [row.rpartition(",")[2] for row in rows] == ["gear"] * 3
    assert len(os.listdir(tmp_path / "out/heatmaps")) == 3


def test_a_threshold_is_set_for_one_product(run, folder, place):
    words = ["predict", place / "bank.safetensors", *bad_images(folder, "gear")]
    _, lines, _ = run(*words, "--product", "gear", "--threshold", "1e9")
    assert [line.split("\t")[1] for line in lines] == ["ok"] * 3
    good = folder / "gear" / "good"
    status, _, errors = run(*words, "--product", "gear", "--normal", good)
    assert status == 0 and "from 24 normal images" in errors[0]
    for option in (["--threshold", "1"], ["--normal", good]):
        status, lines, errors = run(*words, *option)
        assert (status, lines, len(errors)) == (2, [], 1)
        assert "holds several products" in errors[0] and "--product NAME" in errors[0]


def test_follow_logs_product_and_threshold(run, folder, place, tmp_path, alone):
    (tmp_path / "incoming").mkdir()
    (path, *_) = bad_images(folder, "gear")
    (tmp_path / "incoming/1.png").write_bytes(path.read_bytes())
    (tmp_path / "incoming/2.png").write_bytes(bad_images(folder, PRODUCTS[0])[0].read_bytes())
    words = ["predict", place / "bank.safetensors", tmp_path / "incoming", "--follow"]
    assert run(*words, "--log", tmp_path / "log", "--idle", "0")[0] == 0
    for line in (tmp_path / "log").read_text().splitlines():
        verdict = json.loads(line)
        product = "gear" if verdict["path"].endswith("1.png") else PRODUCTS[0]
        assert verdict["product"] == product and len(verdict["model"]) == 64
        assert verdict["threshold"] == pytest.approx(alone[product].threshold_, rel=1e-5)


def test_export_of_one_product(run, folder, place, alone, tmp_path):
    words = ["export", place / "bank.safetensors", "--images", folder / "gear"]
    status, _, errors = run(*words, "--output", tmp_path / "x.onnx")
    assert status == 2 and "--product NAME" in errors[0] and not os.listdir(tmp_path / "cwd")
    status, _, errors = run(*words, "--output", tmp_path / "x.onnx", "--product", "gear")
    assert status == 0, errors
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    (path, *_) = bad_images(folder, "gear")
    image = np.asarray(Image.open(path).convert("RGB"))[None]
    (score,) = session.run(["score"], {"image": image})[0]
    assert score == pytest.approx(alone["gear"].anomaly_scores([path])[0], rel=1e-3)


def test_teach_changes_one_product_and_leaves_the_others(run, folder, place, tmp_path):
    copy = tmp_path / "bank"
    copy.write_bytes((place / "bank.safetensors").read_bytes())
    write_products(tmp_path / "new", ["gear"], n_good=30, n_bad=0)
    words = ["teach", copy, "--normal", tmp_path / "new/gear/good"]
    status, _, errors = run(*words)
    assert status == 2 and "--product NAME" in errors[0]
    status, _, errors = run(*words, "--product", "gear", "--calibration", folder / "gear")
    assert status == 0, errors
    before, after = ProductBank.load(place / "bank.safetensors"), ProductBank.load(copy)
    # By hand: the report's own bank of the product is taught the same.
    one = tmp_path / "one"
    one.write_bytes((place / "products/gear/bank.safetensors").read_bytes())
    assert run("teach", one, *words[2:], "--calibration", folder / "gear")[0] == 0
    expected = PatchCore.load(one)
    np.testing.assert_array_equal(after.of("gear").bank_.vectors_, expected.bank_.vectors_)
    assert after.threshold_of("gear") == expected.threshold_
    assert len(after.of("gear").taught_) > len(before.of("gear").taught_)
    for product in set(PRODUCTS) - {"gear"}:
        vectors = after.of(product).bank_.vectors_
        np.testing.assert_array_equal(vectors, before.of(product).bank_.vectors_)
        assert after.threshold_of(product) == before.threshold_of(product)


def make_folders(folder, names):
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("names", "good", "expected"),
    [
        (["good", "bad"], None, []),
        (["OK", "bolt/good"], None, []),
        (["train/good", "test/good"], None, []),
        (["train/normal", "test/good"], None, []),
        (["ground_truth/good", "bolt/good"], None, []),
        (["bad", "worse"], None, []),
        (["bolt/good", "nut/Normal"], None, ["bolt", "nut"]),
        (["bolt/train/good", "bolt/test/good", "nut/bad"], None, ["bolt", "nut"]),
        (["bolt/good", ".hidden/good"], None, ["bolt"]),
        (["bolt/fine", "nut/fine"], None, []),
        (["bolt/fine", "nut/fine"], "Fine", ["bolt", "nut"]),
        (["fine", "bolt/good"], "fine", []),
        (["bolt/good", "nut/good"], ".", []),
        (["a/bolt/good"], None, []),
    ],
)
def test_which_folders_are_of_several_products(tmp_path, names, good, expected):
    folder = make_folders(tmp_path / "folder", names)
    assert [path.name for path in product_folders(folder, good=good)] == expected


def test_a_region_of_interest_is_that_of_all_products(run, folder, tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["new", folder, *TINY_OPTIONS, "--roi", tmp_path / "mask.png", "--output", "out"]
    status, _, errors = run(*words)
    assert status == 0, errors
    write_image(tmp_path / "wide.png", 1, size=80)
    (path, *_) = bad_images(folder, "gear")
    status, lines, errors = run("predict", "out/bank.safetensors", path, tmp_path / "wide.png")
    assert (status, len(lines)) == (1, 1) and "wide.png" in errors[0]
    assert lines[0].split("\t")[2] == "gear"


def test_nothing_is_written_if_one_product_is_bad(run, tmp_path):
    folder = write_products(tmp_path / "line", ["bolt", "nut"], n_good=5)
    for path in sorted((folder / "nut/good").glob("*.png")):
        path.write_bytes(b"broken")
    status, lines, errors = run("new", folder, *TINY_OPTIONS)
    assert (status, lines, os.listdir()) == (2, [], []) and "nut" in errors[-1]
