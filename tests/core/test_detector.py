"""The contract that every detector keeps in full."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from patchcore_helpers import Autoencoder, InputError, PatchCore, StripPatchCore
from patchcore_helpers.core.detector import AnomalyResult, Detector, Frame
from patchcore_helpers.core.threshold import conformal_threshold

NETWORK = {"backbone": "test_resnet", "weights": "random", "precision": "float32"}
DETECTORS = {
    "PatchCore": lambda: PatchCore(image_size=64, coreset_ratio=0.1, **NETWORK),
    "StripPatchCore": lambda: StripPatchCore(
        PatchCore(coreset_ratio=0.1, sigma=2.0, **NETWORK),
        piece=64,
        context=32,
        border_margin=(8, 8),
    ),
    "Autoencoder": lambda: Autoencoder(image_size=32, width=4, latent=4, epochs=2),
}


@pytest.fixture(params=DETECTORS)
def make(request):
    return DETECTORS[request.param]


@pytest.fixture(scope="module")
def queries(photo):
    return [photo(seed, defect=seed > 101) for seed in range(100, 104)]


@pytest.mark.long
def test_every_method_agrees_with_detect(make, photos, queries):
    model = make()
    assert isinstance(model, Detector) and model.fit(photos) is model
    result = model.detect(queries)
    assert result.scores.shape == (4,) and result.scores.dtype == np.float32
    np.testing.assert_array_equal(model.anomaly_scores(queries), result.scores)
    batches = list(model.detect_batches(queries))
    np.testing.assert_array_equal(AnomalyResult.join(batches).scores, result.scores)
    for grid, expected in zip(model.patch_scores(queries), result.patch_scores, strict=True):
        np.testing.assert_array_equal(grid, expected)
    maps = model.anomaly_maps(queries)
    assert len(maps) == 4
    for values, expected in zip(maps, model.to_maps(result), strict=True):
        np.testing.assert_array_equal(values, expected)
        assert values.dtype == np.float32
        assert values.shape == (model.metric_size or queries[0].shape[:2])
    chosen = result.select([2, 0])
    np.testing.assert_array_equal(chosen.scores, result.scores[[2, 0]])
    np.testing.assert_array_equal(model.to_maps(chosen)[0], maps[2])


@pytest.mark.long
def test_threshold_and_verdicts(make, photos, queries, photo):
    model = make().fit(photos)
    normal = [photo(seed) for seed in range(200, 219)]
    with pytest.raises(NotFittedError, match="set a threshold first"):
        model.predict(queries)
    assert model.calibrate(normal) is model
    assert model.threshold_ == conformal_threshold(model.anomaly_scores(normal), 0.05)
    verdicts = model.predict(queries)
    np.testing.assert_array_equal(verdicts, model.anomaly_scores(queries) > model.threshold_)
    assert not hasattr(model.fit(photos), "threshold_")


def test_score_is_the_image_auroc(make, photos, queries):
    model = make().fit(photos)
    labels = [0, 0, 1, 1]
    assert model.score(queries, labels) == roc_auc_score(labels, model.anomaly_scores(queries))


def test_what_a_table_needs(make, photos):
    summary = make().fit(photos).summary()
    assert list(summary) == ["backbone", "image_size", "coreset_ratio", "n_patches", "bank_size"]


def test_not_fitted_and_no_images(make, photos):
    for name in ("detect", "patch_scores", "anomaly_scores", "anomaly_maps", "calibrate"):
        with pytest.raises(NotFittedError):
            getattr(make(), name)(photos[:2])
    model = make()
    with pytest.raises(InputError, match="no images"):
        model.fit([])
    with pytest.raises(InputError, match="no images"):
        model.fit(photos).detect([])


def test_results_of_images_of_different_sizes():
    frames = [Frame(4, width, 0, 0, 4, width, (0, 0), 1) for width in (5, 6, 7)]
    grids = [np.full((4, width), width, np.float32) for width in (5, 6, 7)]
    parts = [
        AnomalyResult(np.array([n], np.float32), [grid], [frame])
        for n, (grid, frame) in enumerate(zip(grids, frames, strict=True))
    ]
    joined = AnomalyResult.join(parts)
    assert len(joined) == 3 and joined.scores.tolist() == [0, 1, 2]
    chosen = joined.select(np.array([2, 1]))
    assert [grid.shape for grid in chosen.patch_scores] == [(4, 7), (4, 6)]
    assert chosen.frames == [frames[2], frames[1]]


@pytest.mark.long
def test_measuring_needs_no_notebook():
    """The core must not load what only a page in a browser needs."""
    code = "import sys, patchcore_helpers.core.evaluation; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
