"""Ensembles of detectors, against sums by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core.detector import AnomalyResult, Detector
from patchcore_helpers.core.ensemble import Ensemble, mean_rank, resized


class Brightness(Detector):
    """Scores an image by how far its mean is from that of the training images."""

    def __init__(self, factor=1.0, batch_size=2, size=(8, 8), grid=(2, 2)):
        self.factor = factor
        self.batch_size = batch_size
        self.size = size
        self.grid = grid

    def fit(self, images, y=None):
        self.seen_ = list(images)
        self.mean_ = np.mean(images)
        return self

    def detect_batches(self, images):
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            scores = self.factor * np.abs(np.mean(batch, axis=(1, 2)) - self.mean_)
            grids = scores[:, None, None] * np.ones((1, *self.grid))
            yield AnomalyResult(scores, grids)

    def to_maps(self, result):
        return np.asarray(result.patch_scores)

    @property
    def metric_size(self):
        return self.size

    def summary(self):
        return dict(
            backbone="none",
            image_size=8,
            coreset_ratio=None,
            n_patches=1,
            bank_size=len(self.seen_),
        )


IMAGES = list(np.random.default_rng(0).normal(size=(10, 8, 8)))
QUERIES = list(np.random.default_rng(1).normal(size=(5, 8, 8)))


def test_scores_are_standardized_by_images_that_no_bank_has_seen():
    model = Ensemble([Brightness()], held_out=0.3, random_state=4).fit(IMAGES)
    (detector,) = model.detectors_
    assert len(detector.seen_) == 10  # in the end, all images are used
    order = np.random.default_rng(4).permutation(10)
    held_out, others = order[:3], order[3:]
    mean = np.mean([IMAGES[i] for i in others])
    normal = np.abs([IMAGES[i].mean() - mean for i in held_out])
    distances = np.abs([query.mean() - np.mean(IMAGES) for query in QUERIES])
    expected = (distances - normal.mean()) / normal.std(ddof=1)
    np.testing.assert_allclose(model.anomaly_scores(QUERIES), expected, rtol=1e-5)


def test_the_unit_of_a_detector_does_not_matter():
    even = Ensemble([Brightness(), Brightness()]).fit(IMAGES).detect(QUERIES)
    uneven = Ensemble([Brightness(), Brightness(1000.0)]).fit(IMAGES).detect(QUERIES)
    np.testing.assert_allclose(uneven.scores, even.scores, rtol=1e-5)
    np.testing.assert_allclose(uneven.patch_scores, even.patch_scores, rtol=1e-4)


def test_two_networks_are_the_mean_of_both(photos, photo):
    queries = [photo(50), photo(51, defect=True), photo(52)]
    options = dict(weights="random", image_size=64, coreset_ratio=0.3)
    parts = [PatchCore(name, **options) for name in ("test_resnet", "efficientnet_lite0")]
    model = Ensemble(parts, random_state=1).fit(photos)
    scores, maps = [], []
    for part, (image_unit, patch_unit) in zip(parts, model.units_, strict=True):
        alone = part.fit(photos).detect(queries)
        scores.append((alone.scores - image_unit.mean) / image_unit.spread)
        maps.append((alone.patch_scores - patch_unit.mean) / patch_unit.spread)
    np.testing.assert_allclose(model.anomaly_scores(queries), np.mean(scores, axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        model.patch_scores(queries), np.mean(maps, axis=0), rtol=1e-3, atol=1e-4
    )
    assert model.anomaly_maps(queries).shape == (3, 64, 64)
    assert model.summary()["backbone"] == "test_resnet + efficientnet_lite0"
    assert model.calibrate(photos, 0.2).predict(queries).shape == (3,)


def test_the_finest_grid_is_kept():
    model = Ensemble([Brightness(grid=(2, 2)), Brightness(grid=(4, 6))]).fit(IMAGES)
    assert model.patch_scores(QUERIES).shape == (5, 4, 6)
    flat = np.full((1, 3, 3), 2.5)
    np.testing.assert_allclose(resized(flat, (6, 5)), np.full((1, 6, 5), 2.5))


def test_mean_ranks_are_those_of_pandas():
    scores = np.random.default_rng(0).integers(0, 4, (3, 20))  # with ties
    expected = pd.DataFrame(scores).rank(axis=1, pct=True).mean(axis=0)
    np.testing.assert_allclose(mean_rank(scores), expected)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=9, unique=True))
def test_ranks_do_not_ask_by_how_much(scores):
    scores = np.array(scores)
    np.testing.assert_array_equal(mean_rank([scores]), mean_rank([np.argsort(np.argsort(scores))]))


@pytest.mark.parametrize(
    ("model", "images", "reason"),
    [
        (Ensemble([]), IMAGES, "detectors: give at least one"),
        (Ensemble([Brightness()]), IMAGES[:3], "3 images: an ensemble needs at least 4"),
        (Ensemble([Brightness()], held_out=0), IMAGES, "held_out"),
        (Ensemble([Brightness(), Brightness(size=(4, 4))]), IMAGES, "the same image_size"),
        (Ensemble([Brightness(), Brightness(batch_size=3)]), IMAGES, "the same batch_size"),
    ],
)
def test_what_cannot_be_is_refused(model, images, reason):
    with pytest.raises(InputError, match=reason):
        model.fit(images).anomaly_scores(QUERIES)
