"""What holds for PatchCore whatever its settings: conventions of scikit-learn, refusals."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core.backbones import REGISTRY, load_backbone
from patchcore_helpers.core.bank import METRICS
from patchcore_helpers.core.coreset import SAMPLERS
from patchcore_helpers.core.index import INDEXES, make_index
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import IMAGE_SCORES, as_rows


def of_backbone(name):
    """A model with the backbone's own weights where the installation has them, else random."""
    recipe = REGISTRY[name]
    size = 70 if "patch14" in recipe.timm_name else 64
    weights = None if recipe.package else "random"
    return PatchCore(name, weights=weights, image_size=size, precision="float32", batch_size=4)


def small(**options):
    options = {"image_size": 64, "coreset_ratio": 0.5, "precision": "float32", **options}
    return PatchCore("test_resnet", weights="random", **options)


def index_of(kind):
    if "_pq" not in kind:
        return kind
    return {"kind": kind, "m": 4, "bits": 4, "n_clusters": 4}


CASES = [
    *[pytest.param(lambda n=n: of_backbone(n), id=f"backbone {n}") for n in REGISTRY],
    *[pytest.param(lambda n=n: small(sampler=n), id=f"sampler {n}") for n in SAMPLERS],
    *[pytest.param(lambda n=n: small(index=index_of(n)), id=f"index {n}") for n in INDEXES],
    *[pytest.param(lambda n=n: small(image_score=n), id=f"score {n}") for n in IMAGE_SCORES],
    *[pytest.param(lambda n=n: small(metric=n), id=f"metric {n}") for n in METRICS],
]


@pytest.mark.long
@pytest.mark.parametrize("make", CASES)
def test_the_contract(make, photo, photos, tmp_path):
    model = make()
    parameters = model.get_params()
    assert clone(model).get_params() == parameters
    assert PatchCore().set_params(**parameters).get_params() == parameters
    for method in ("anomaly_scores", "predict", "anomaly_maps", "calibrate", "detect"):
        with pytest.raises(NotFittedError, match=r"not fitted|calibrate"):
            getattr(model, method)(photos[:2])
    with pytest.raises(NotFittedError):
        model.save(tmp_path / "bank")
    assert list(tmp_path.iterdir()) == [] and vars(model).keys() == parameters.keys()

    queries = [photo(50), photo(51, defect=True)]
    assert model.fit(photos[:3]) is model and model.get_params() == parameters
    scores = model.anomaly_scores(queries)
    assert scores.shape == (2,) and scores.dtype == np.float32 and np.isfinite(scores).all()
    size = parameters["image_size"]
    assert model.anomaly_maps(queries).shape == (2, size, size)
    with pytest.raises(NotFittedError, match="set a threshold first: call calibrate"):
        model.predict(queries)
    assert set(model.calibrate(photos[3:5], 0.4).predict(queries)) <= {0, 1}
    model.save(tmp_path / "bank")
    loaded = PatchCore.load(tmp_path / "bank")
    np.testing.assert_array_equal(loaded.anomaly_scores(queries), scores)
    assert loaded.get_params() == {**parameters, "precision": "float32"}

    first = model.bank_.n_vectors_
    assert model.fit(photos[5:7]) is model and not hasattr(model, "threshold_")
    assert model.bank_.n_vectors_ == first * 2 // 3
    fresh = make().fit(photos[5:7])
    np.testing.assert_array_equal(model.anomaly_scores(queries), fresh.anomaly_scores(queries))

    vectors = as_rows(model.extractor_.extract(queries))
    with pytest.raises(InputError, match=r"1 channels, but the memory bank has \d+"):
        model.bank_.index_.query(vectors[:, :1])
    model.bank_.index_ = make_index("exact").fit(vectors[:40, :9])
    with pytest.raises(InputError, match=r"\d+ channels, but the memory bank has 9"):
        model.anomaly_scores(queries)


def test_every_backbone_says_its_layers():
    for name, recipe in REGISTRY.items():
        if recipe.package:
            assert load_backbone(name).layers == recipe.layers


# Cross-validation: X is a list of images, y their labels. `fit` looks at all of X and not at y, so
# the training part of every split must hold normal images only; a PredefinedSplit sees to that.


@pytest.fixture(scope="module")
def labeled(photo):
    normal = [photo(seed) for seed in range(10)]
    defective = [photo(seed, defect=True) for seed in range(20, 24)]
    images = np.empty(14, object)  # scikit-learn picks rows of an array by their numbers
    images[:] = [*normal, *defective]
    return images, np.repeat([0, 1], [10, 4])


class NormalFolds(PredefinedSplit):
    """Normal images take turns; defective ones are in the test part of every fold."""

    def __init__(self, labels, folds=2):
        self.labels = np.asarray(labels)
        fold = np.full(len(self.labels), -1)
        fold[self.labels == 0] = np.arange((self.labels == 0).sum()) % folds
        super().__init__(fold)

    def split(self, X=None, y=None, groups=None):
        for _, test in super().split():
            train = np.setdiff1d(np.flatnonzero(self.labels == 0), test)
            yield train, np.concatenate([test, np.flatnonzero(self.labels == 1)])


def test_cross_validation_on_image_auroc(labeled):
    images, labels = labeled
    folds = NormalFolds(labels)
    scores = cross_val_score(small(), images, labels, cv=folds)
    for (train, test), score in zip(folds.split(), scores, strict=True):
        assert not labels[train].any() and labels[test].sum() == 4 and len(train) == 5
        by_hand = small().fit(list(images[train])).anomaly_scores(list(images[test]))
        assert score == image_auroc(labels[test], by_hand) > 0.9


def test_grid_search_over_settings(labeled):
    images, labels = labeled
    grid = {"n_neighbors": [1, 3], "image_score": ["max", "mean"]}
    search = GridSearchCV(small(), grid, cv=NormalFolds(labels), refit=False)
    search.fit(images, labels)
    assert len(search.cv_results_["params"]) == 4 and search.best_score_ > 0.9
    best = small(**search.best_params_).fit(images[labels == 0])
    assert best.score(images[[0, *range(10, 14)]], [0, 1, 1, 1, 1]) == 1


def test_fit_uses_what_it_is_given_and_no_labels(labeled, photos):
    images, labels = labeled
    model = small().fit(images, labels)
    assert model.bank_.n_vectors_ == 14 * 64
    np.testing.assert_array_equal(
        small().fit(images, 1 - labels).bank_.vectors_, model.bank_.vectors_
    )
    before = [photo.copy() for photo in photos]
    small().fit(photos).anomaly_scores(photos)
    assert all(np.array_equal(a, b) for a, b in zip(before, photos, strict=True))
