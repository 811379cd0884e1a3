"""Evaluation: what is measured on which images, and what comes out on real ones."""

import json
import time

import numpy as np
import pytest
import torch
from helpers.au_pro import au_pro_by_hand
from PIL import Image
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.core import evaluation
from patchcore_helpers.data.folder import load_folder

KEYS = [
    *("category", "backbone", "image_size", "coreset_ratio", "n_train", "n_test"),
    *("n_patches", "bank_size", "image_auroc", "pixel_auroc", "au_pro"),
    *("fit_seconds", "score_seconds", "peak_rss_mb"),
]


def make(**options):
    options = {"image_size": 64, "coreset_ratio": 0.1, **options}
    return PatchCore("test_resnet", weights="random", **options)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_masks_are_those_of_the_files_at_the_models_size(tmp_path, make_category):
    category = load_folder(make_category(tmp_path, size=(120, 80)))
    masks = evaluation.ground_truth_masks(category, (60, 20))
    assert len(masks) == 6 and masks[5] is None
    assert all(mask.shape == (60, 20) and mask.dtype == bool for mask in masks[:5])
    assert not any(mask.any() for mask in masks[:3])
    expected = np.zeros((60, 20), bool)
    expected[10:18, 6:10] = True  # 20:36 of 120 rows, 24:40 of 80 columns
    np.testing.assert_array_equal(masks[3], expected)


def test_regions_that_vanish_are_counted(tmp_path, make_category):
    category = load_folder(make_category(tmp_path, size=(120, 80)))
    assert evaluation.vanished_regions(category, (60, 20)) == (0, 2)
    with_mask = next(sample for sample in category.test if sample.label and sample.has_mask)
    mask = np.zeros((120, 80), np.uint8)
    mask[1::2, 2] = 255  # pixels of their own; column 2 is seen at a width of 20, 0 is not
    mask[100:120, 0] = 255
    Image.fromarray(mask).save(with_mask.mask_path)
    before = sum(s.label and s.has_mask for s in category.test) - 1
    # At half the height the odd rows are seen; at a third rows 1, 4, 7 and so on: 20 odd ones.
    assert evaluation.vanished_regions(category, (60, 20)) == (1, 61 + before)
    assert evaluation.vanished_regions(category, (40, 20)) == (41, 61 + before)
    assert evaluation.vanished_regions(category, None) == (0, 61 + before)
    # A region of the shrunk masks is a region that has not vanished.
    shrunk = evaluation.ground_truth_masks(category, (60, 20))[category.test.index(with_mask)]
    assert shrunk[:, 0].sum() == 60


@pytest.mark.long
def test_results(tmp_path, make_category):
    category = load_folder(make_category(tmp_path / "bolt", train=5, size=(96, 72)))
    model = make(image_size=(64, 48), sigma=1)
    start = time.perf_counter()
    results, inspection = evaluation.evaluate(category, model)
    elapsed = time.perf_counter() - start
    assert list(results) == KEYS
    assert json.loads(json.dumps(results, allow_nan=False)) == results | {"image_size": [64, 48]}
    expected = {
        "category": "bolt",
        "backbone": "test_resnet",
        "coreset_ratio": 0.1,
        "n_train": 5,
        "n_test": 6,
        "n_patches": 5 * 8 * 6,
        "bank_size": 24,
    }
    assert expected.items() <= results.items()
    assert 0 < results["fit_seconds"] + results["score_seconds"] <= elapsed + 0.002
    assert 100 < results["peak_rss_mb"] < 100_000

    np.testing.assert_array_equal(inspection.scores, model.anomaly_scores(category.test))
    labels = [0, 0, 0, 1, 1, 1]
    assert results["image_auroc"] == roc_auc_score(labels, inspection.scores)
    mask = np.zeros((96, 72), np.uint8)
    mask[20:36, 24:40] = 255
    small = np.array(Image.fromarray(mask).resize((48, 64), Image.Resampling.NEAREST)) > 0
    known = np.stack([np.zeros_like(small)] * 3 + [small] * 2)  # the last defect has no mask
    maps = model.anomaly_maps(category.test)[:5]
    pixel = roc_auc_score(known.ravel(), maps.ravel())
    assert results["pixel_auroc"] == pytest.approx(pixel)
    assert results["au_pro"] == pytest.approx(au_pro_by_hand(known, maps))
    assert results["au_pro"] > 0.5


@pytest.mark.parametrize("defects", [0, 1])
def test_without_masks_there_are_no_pixel_metrics(defects, tmp_path, make_category):
    category = load_folder(make_category(tmp_path, defects=defects))
    results, _ = evaluation.evaluate(category, make())
    assert results["pixel_auroc"] is None and results["au_pro"] is None
    assert (results["image_auroc"] is None) == (defects == 0)


def test_a_wrong_mask_is_said_before_anything_is_fitted(tmp_path, make_category):
    folder = make_category(tmp_path)
    Image.new("L", (64, 63)).save(folder / "ground_truth/spot/001_mask.png")
    model = make()
    with pytest.raises(InputError, match=r"001_mask\.png: mask is 64x63 but its image is 64x64"):
        evaluation.evaluate(load_folder(folder), model)
    assert not hasattr(model, "memory_bank_")


# Real images


@pytest.mark.long
def test_cookies(shared, two_threads):
    folder = shared("cookie")
    category = load_folder(folder)
    assert len(category.train) == 31 and category.labels.tolist() == [1] * 32 + [0] * 14
    masks = [sample.mask() for sample in category.test]
    assert all(0 < mask.mean() < 0.5 for mask in masks[:32]) and not any(
        m.any() for m in masks[32:]
    )
    results, _ = evaluation.evaluate(category, PatchCore())
    assert results["image_auroc"] >= 0.98
    assert results["pixel_auroc"] >= 0.97
    assert 0.5 < results["au_pro"] <= 1


@pytest.mark.long
def test_some_solar_cells(two_threads):
    category = load_category("elpv/mono").limit(train=40, test=50)
    results, _ = evaluation.evaluate(category, PatchCore())
    assert results["image_auroc"] >= 0.9
    assert results["pixel_auroc"] is None and results["n_patches"] == 40 * 32 * 32


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, seed, least",
    [("mono", 0, 0.94), ("mono", 1, 0.94), ("mono", 2, 0.94), ("poly", 0, 0.87)],
)
def test_all_solar_cells(name, seed, least, two_threads):
    category = load_category(f"elpv/{name}", seed=seed)
    results, _ = evaluation.evaluate(category, PatchCore(random_state=seed))
    assert results["image_auroc"] >= least
    assert (results["n_train"], results["bank_size"]) == (200, 2048)
