"""The benchmark of the ideas since 2022: its intervals, its features, and its page."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import report, since
from patchcore_helpers import PatchCore
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.data.elpv import load_elpv

ROOT = Path(__file__).parents[2]


def make_split(seed, numbers, n_defective=30, gain=0.5):
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [len(numbers) - n_defective, n_defective])
    own, other = random.normal(labels, 1), random.normal(labels, 1)
    scores = {"idea": own + gain * labels, since.DEFAULT: other}
    return {"labels": labels, "numbers": np.asarray(numbers), "scores": scores}


@pytest.mark.skipif(not (report.RESULTS / "since.csv").exists(), reason="not measured yet")
def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert since.describe(since.read_results()) in page, "stale: run `python -m benchmarks.since`"


def test_on_one_split_it_is_the_paired_interval_of_delong():
    split = make_split(0, np.arange(80))
    expected = auroc_interval(split["labels"], split["scores"]["idea"], split["scores"]["default"])
    np.testing.assert_allclose(since.interval_over_splits([split], "idea")[:5], expected[:5])


def test_the_same_split_twice_is_no_more_evidence_than_once():
    split = make_split(0, np.arange(80))
    once = since.interval_over_splits([split], "idea")
    twice = since.interval_over_splits([split] * 4, "idea")
    np.testing.assert_allclose(twice[:4], once[:4])


def test_splits_without_a_common_image_are_independent():
    splits = [make_split(seed, np.arange(80) + 100 * seed) for seed in range(8)]
    alone = [since.interval_over_splits([split], "idea") for split in splits]
    together = since.interval_over_splits(splits, "idea")
    assert together.estimate == pytest.approx(np.mean([one.estimate for one in alone]))
    of_images = np.sqrt(np.mean([one.error**2 for one in alone]) / 8)
    of_splits = np.std([one.estimate for one in alone], ddof=1) / np.sqrt(8)
    assert together.error == pytest.approx(np.hypot(of_images, of_splits), rel=0.1)


@pytest.mark.long
def test_features_of_all_cells_serve_every_split():
    category = load_elpv("elpv/mono", 3).limit(6, 3)
    cells = [*category.test[::-1], *category.train]
    small = PatchCore(image_size=64, coreset_ratio=0.1)
    features = since.CellFeatures(cells, [small])
    shared = PatchCore(image_size=64, coreset_ratio=0.1, cache=features).fit(category.train)
    alone = small.fit(category.train)
    np.testing.assert_allclose(
        shared.anomaly_scores(category.test), alone.anomaly_scores(category.test), rtol=1e-5
    )
    assert isinstance(features, FeatureCache)
