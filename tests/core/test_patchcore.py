"""PatchCore against its equations, written out as loops over features extracted separately."""

import math
import os

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_distances

from patchcore_helpers import InputError, MemoryBank, PatchCore, load_category
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.detector import image_scores, smooth_maps
from patchcore_helpers.core.extractor import extract
from patchcore_helpers.core.threshold import (
    conformal_threshold,
    false_alarm_interval,
    recalibrated_threshold,
)
from patchcore_helpers.data.elpv import load_elpv_folds


def make(**options):
    options = {"image_size": 64, "coreset_ratio": 0.1, "precision": "float32", **options}
    return PatchCore("test_resnet", weights="random", **options)


def patches_of(images, size=64):
    """Patch vectors in float64, shape (n, places, channels)."""
    backbone = load_backbone("test_resnet", weights="random")
    patches = extract(images, backbone, size, precision="float32")
    return patches.reshape(len(images), -1, patches.shape[-1]).astype(np.float64)


@pytest.fixture(scope="module")
def queries(photo):
    """Two normal images that no bank has seen, and two defective ones."""
    return [photo(seed, defect=seed > 101) for seed in range(100, 104)]


@pytest.fixture(scope="module")
def fitted(photos):
    """A model that no test may change."""
    return make().fit(photos)


def test_the_bank_holds_the_coreset_of_the_training_patches(photos, fitted):
    patches = patches_of(photos).reshape(8 * 64, -1).astype(np.float32)
    chosen = k_center_greedy(patches, 51, projection=128, random_state=0).indices
    np.testing.assert_array_equal(fitted.bank_.coreset_.indices, chosen)
    np.testing.assert_array_equal(fitted.bank_.vectors_, patches[chosen])
    assert fitted.bank_.n_vectors_ == 512 and fitted.bank_.vectors_.dtype == np.float32
    exact = make(projection=None).fit(photos)
    chosen = k_center_greedy(patches, 51, projection=None, random_state=0).indices
    np.testing.assert_array_equal(exact.bank_.coreset_.indices, chosen)
    for row, (image, i, j) in zip(chosen, exact.origin(np.arange(51)), strict=True):
        assert row == image * 64 + i * 8 + j


@pytest.mark.parametrize("ratio, size", [(1, 512), (1.0, 512), (0.5, 256), (1e-9, 1)])
def test_coreset_ratio(ratio, size, photos):
    assert len(make(coreset_ratio=ratio, sampler="random").fit(photos).bank_.vectors_) == size


@pytest.mark.long
@pytest.mark.parametrize(
    "k, kind", [(1, "max"), (1, "mean"), (1, "top1_percent"), (3, "max"), (1000, "top1_percent")]
)
def test_scores_are_distances_to_the_nearest_rows(k, kind, photos, queries):
    model = make(n_neighbors=k, image_score=kind, image_size=128).fit(photos)
    bank = model.bank_.vectors_.astype(np.float64)
    patch_scores = []
    for image in patches_of(queries, 128):
        nearest = [sorted(np.linalg.norm(bank - patch, axis=1))[:k] for patch in image]
        patch_scores.append([sum(distances) / len(distances) for distances in nearest])
    take = {"max": 1, "mean": 256, "top1_percent": 3}[kind]
    expected = [sum(sorted(scores)[-take:]) / take for scores in patch_scores]

    result = model.detect(queries)
    scores, maps = result.scores, result.patch_scores
    np.testing.assert_array_equal(model.patch_scores(queries), maps)
    np.testing.assert_allclose(maps.reshape(4, 256), patch_scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.anomaly_scores(queries), scores)
    assert maps.shape == (4, 16, 16) and scores.dtype == np.float32
    if kind == "max" and k == 1:
        assert scores[:2].max() < scores[2:].min()


def test_cosine_scores_are_those_of_scikit_learn(photos, queries):
    model = make(metric="cosine", n_neighbors=2).fit(photos)
    rows = patches_of(photos).reshape(512, -1)[model.bank_.coreset_.indices]
    for image, scores in zip(patches_of(queries), model.detect(queries).patch_scores, strict=True):
        nearest = np.sort(cosine_distances(image, rows), axis=1)[:, :2]
        np.testing.assert_allclose(scores.ravel(), nearest.mean(1), rtol=1e-3, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("ratio", [0.1, 5 / 512])
def test_reweighted_scores_are_equation_7(metric, ratio, photos, queries):
    model = make(image_score="reweighted", metric=metric, coreset_ratio=ratio).fit(photos)
    patches, bank = patches_of(queries), patches_of(photos).reshape(512, -1)
    bank = bank[model.bank_.coreset_.indices]

    def d(a, b):
        if metric == "cosine":
            return 1 - sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))
        return math.sqrt(sum((a - b) ** 2))

    expected = []
    for image in patches:
        pairs = [(d(p, m), i, j) for i, p in enumerate(image) for j, m in enumerate(bank)]
        nearest = [min(pair for pair in pairs if pair[1] == i) for i in range(len(image))]
        s, i, j = max(nearest)  # s* = d(m_test*, m*)
        around = sorted(range(len(bank)), key=lambda row, j=j: d(bank[row], bank[j]))[:9]  # N_b(m*)
        total = sum(math.exp(d(image[i], bank[row])) for row in around)
        expected.append((1 - math.exp(d(image[i], bank[j])) / total) * s)
    np.testing.assert_allclose(model.anomaly_scores(queries), expected, rtol=1e-3)
    assert (
        model.anomaly_scores(queries) < 0.95 * model.detect(queries).patch_scores.max((1, 2))
    ).all()


def test_reweighting_of_far_patches_does_not_overflow(photos, queries):
    model = make(image_score="reweighted").fit(photos)
    vectors = model.bank_.vectors_
    model.bank_ = MemoryBank(coreset_ratio=1.0).fit(vectors + 1000)
    assert np.isfinite(model.anomaly_scores(queries)).all()
    model.bank_ = MemoryBank(coreset_ratio=1.0).fit(vectors[:1])
    peak = model.patch_scores(queries).max((1, 2))
    # A bank of one row has no neighbors to ask.
    np.testing.assert_array_equal(model.anomaly_scores(queries), peak)


@pytest.mark.long
@pytest.mark.parametrize("size", [64, (64, 96), (50, 70)])
@pytest.mark.parametrize("sigma", [0, 2.5])
def test_maps_are_resized_and_smoothed_one_by_one(size, sigma, photos, queries):
    model = make(image_size=size, sigma=sigma).fit(photos)
    maps = model.anomaly_maps(queries)
    patch_scores = model.patch_scores(queries)
    shape = (size, size) if size == 64 else size
    assert maps.shape == (4, *shape) and maps.dtype == np.float32
    for values, scores in zip(maps, patch_scores, strict=True):
        large = torch.nn.functional.interpolate(
            torch.from_numpy(scores)[None, None], shape, mode="bilinear", align_corners=False
        )[0, 0].numpy()
        expected = gaussian_filter(large.astype(float), sigma) if sigma else large
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_a_map_points_at_the_defect(fitted, queries):
    for values in fitted.anomaly_maps(queries[2:]):
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert 16 <= row < 40 and 20 <= column < 44


def test_smoothing_keeps_the_sum_of_an_inner_spot():
    spot = np.zeros((1, 40, 40), np.float32)
    spot[0, 20, 20] = 1
    smooth = smooth_maps(spot, (40, 40), 4.0)[0]
    assert smooth.sum() == pytest.approx(1, abs=1e-3)
    assert smooth[20, 20] == pytest.approx(1 / (2 * np.pi * 16), rel=0.01)
    assert smooth[20, 24] / smooth[20, 20] == pytest.approx(np.exp(-0.5), rel=0.01)


@pytest.mark.parametrize("places, count", [(1, 1), (99, 1), (150, 2), (784, 8), (1024, 10)])
def test_top_1_percent_takes_at_least_one_patch(places, count):
    scores = np.random.default_rng(0).permutation(places).astype(float).reshape(1, 1, places)
    expected = np.mean(np.arange(places)[-count:])
    assert image_scores(scores, "top1_percent") == pytest.approx(expected)


def test_the_same_call_twice_gives_the_same_scores(photos, queries, fitted):
    again = make().fit(photos)
    np.testing.assert_array_equal(again.bank_.vectors_, fitted.bank_.vectors_)
    np.testing.assert_array_equal(again.anomaly_scores(queries), fitted.anomaly_scores(queries))
    np.testing.assert_array_equal(again.anomaly_maps(queries), again.anomaly_maps(queries))
    other = make(random_state=1).fit(photos)
    assert other.bank_.coreset_.indices.tolist() != fitted.bank_.coreset_.indices.tolist()


def test_fit_returns_itself_and_forgets_the_first_fit(photos, queries, fitted):
    model = make()
    assert model.fit([photo[::-1] for photo in photos[:4]]) is model
    assert model.calibrate(queries[:2], 0.5) is model
    first = model.anomaly_scores(queries)
    model.fit(photos)
    assert not hasattr(model, "threshold_") and model.bank_.n_vectors_ == 512
    np.testing.assert_array_equal(model.bank_.vectors_, fitted.bank_.vectors_)
    np.testing.assert_array_equal(model.anomaly_scores(queries), fitted.anomaly_scores(queries))
    assert not np.array_equal(first, model.anomaly_scores(queries))


def test_a_fit_that_fails_leaves_the_first_one_whole(photos, queries, tmp_path, fitted):
    model = make().fit(photos).calibrate(queries[:2], 0.5)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"bad\.png"):
        model.fit([*photos[:3], tmp_path / "bad.png"])
    np.testing.assert_array_equal(model.anomaly_scores(queries), fitted.anomaly_scores(queries))
    assert model.predict(queries).shape == (4,)


def test_scikit_learn_conventions(photos):
    model = make(n_neighbors=2, image_size=(64, 96))
    parameters = model.get_params()
    assert parameters["n_neighbors"] == 2 and parameters["image_size"] == (64, 96)
    model.fit(photos[:2])
    assert model.get_params() == parameters
    copy = clone(model)
    assert copy.get_params() == parameters and not hasattr(copy, "bank_")
    assert copy.set_params(metric="cosine").metric == "cosine"
    assert "n_neighbors=2" in repr(model)


@pytest.mark.parametrize(
    "method", ["detect", "patch_scores", "anomaly_scores", "anomaly_maps", "calibrate", "predict"]
)
def test_nothing_works_before_fit(method, photos):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(photos)


def test_predict_asks_for_a_threshold_first(fitted, queries):
    with pytest.raises(NotFittedError, match=r"set a threshold first: call calibrate\(normal"):
        fitted.predict(queries)


def test_streaming_gives_the_same_scores_batch_by_batch(photos, queries):
    for kind in ("max", "reweighted"):
        model = make(batch_size=3, image_score=kind).fit(photos)
        parts = list(model.detect_batches(queries + photos[:3]))
        assert [len(part.scores) for part in parts] == [3, 3, 1]
        whole = model.detect(queries + photos[:3])
        for name in ("scores", "patch_scores"):
            batches = [getattr(part, name) for part in parts]
            np.testing.assert_array_equal(np.concatenate(batches), getattr(whole, name))


def test_no_images(fitted):
    for call in (fitted.anomaly_scores, fitted.anomaly_maps, make().fit):
        with pytest.raises(InputError, match="no images"):
            call([])


def test_calibrated_predictions(photos, queries, photo):
    normal = [photo(seed) for seed in range(200, 209)]
    model = make().fit(photos).calibrate(normal, 0.1)
    assert model.threshold_ == model.anomaly_scores(normal).max()  # rank ceil(10 * 0.9) of 9
    assert model.predict(queries).tolist()[2:] == [1, 1]
    assert not model.predict(normal).any()  # the threshold itself is still normal
    np.testing.assert_array_equal(
        model.predict(queries), model.anomaly_scores(queries) > model.threshold_
    )


@pytest.mark.parametrize("n", [1, 9, 19, 20, 37, 99, 188])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 1 / 3])
def test_conformal_threshold_is_the_smallest_that_keeps_the_rate(n, rate):
    scores = np.random.default_rng(n).permutation(n) + 1.0
    # A new score falls with equal chance into each of the n + 1 gaps between the scores.
    keeps = [t for t in range(1, n + 1) if (n + 1 - t) / (n + 1) <= rate + 1e-12]
    if keeps:
        assert conformal_threshold(scores, rate) == min(keeps)
    else:
        with pytest.raises(InputError, match=f"{n} normal images are too few") as caught:
            conformal_threshold(scores, rate)
        enough = int(str(caught.value).split("at least ")[1].split(",")[0])
        assert conformal_threshold(np.arange(enough), rate) == enough - 1
        with pytest.raises(InputError):
            conformal_threshold(np.arange(enough - 1), rate)


def test_the_false_alarm_rate_is_kept_on_new_images():
    rng = np.random.default_rng(0)
    alarms = [rng.gamma(2) > conformal_threshold(rng.gamma(2, size=39), 0.1) for _ in range(6000)]
    assert np.mean(alarms) == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 6000))


def rates_of_splits(scores, n, rate, splits, seed=0):
    """The false-alarm rates observed on what random calibration sets of n leave over."""
    rng, observed = np.random.default_rng(seed), []
    for _ in range(splits):
        mixed = rng.permutation(scores)
        observed.append(np.mean(mixed[n:] > conformal_threshold(mixed[:n], rate)))
    return np.array(observed)


@settings(max_examples=25)
@given(
    n=st.integers(19, 120),
    rate=st.sampled_from([0.05, 0.1, 0.3]),
    n_new=st.integers(5, 300),
    seed=st.integers(0, 2**31),
    draw=st.sampled_from(["normal", "exponential", "standard_cauchy", "uniform"]),
)
def test_observed_false_alarms_lie_in_the_interval(n, rate, n_new, seed, draw):
    rng, runs = np.random.default_rng(seed), 400
    scores = getattr(rng, draw)(size=(runs, n + n_new))
    observed = [np.mean(row[n:] > conformal_threshold(row[:n], rate)) for row in scores]
    mean, low, high = false_alarm_interval(n, rate, n_new=n_new)
    inside = np.mean([low <= value <= high for value in observed])
    assert inside >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / runs)
    error = np.std(observed) / math.sqrt(runs)
    assert abs(np.mean(observed) - mean) <= 4.5 * error + 1e-9 and mean <= rate + 1e-9
    narrow = false_alarm_interval(n, rate)
    assert narrow.mean == mean and 0 < narrow.low < mean < narrow.high < 1


def test_the_actual_rate_is_beta_distributed():
    rng = np.random.default_rng(0)
    # Of uniform scores, a share 1 - t lies above t.
    actual = [1 - conformal_threshold(rng.uniform(size=59), 0.1) for _ in range(20_000)]
    mean, low, high = false_alarm_interval(59, 0.1, confidence=0.8)
    assert np.mean(actual) == pytest.approx(mean, abs=0.001) and mean == pytest.approx(0.1)
    np.testing.assert_allclose(np.quantile(actual, [0.1, 0.9]), [low, high], rtol=0.02)


@pytest.mark.long
def test_the_promise_on_solar_cells_of_the_modules_in_the_bank():
    category = load_category("elpv/mono")
    model = PatchCore(image_size=128, projection=64, cache=True).fit(category.train)
    held_out = [s for s in category.test if s.label == 0] + category.calibration
    scores, n, rate, splits = model.anomaly_scores(held_out), 99, 0.05, 200
    observed = rates_of_splits(scores, n, rate, splits)
    error = observed.std() / math.sqrt(splits)
    assert observed.mean() <= rate + 3 * error
    mean, low, high = false_alarm_interval(n, rate)
    assert low <= observed.mean() <= high and observed.mean() == pytest.approx(mean, abs=3 * error)
    _, low, high = false_alarm_interval(n, rate, n_new=len(scores) - n)
    assert np.mean((low <= observed) & (observed <= high)) >= 0.9
    many = rates_of_splits(scores, n, rate, 5000)
    assert many.mean() == pytest.approx(mean, abs=3 * many.std() / math.sqrt(5000))


@pytest.mark.long
def test_the_promise_does_not_travel_to_other_stretches_but_can_be_made_again():
    """Held-out files of solar cells: far more false alarms than promised, until recalibrated."""
    fold = load_elpv_folds("elpv/mono")[4]
    model = PatchCore(image_size=128, cache=True).fit(fold.train)
    normal = model.anomaly_scores([s for s in fold.test if s.label == 0])
    threshold = conformal_threshold(model.anomaly_scores(fold.calibration), 0.05)
    expected = false_alarm_interval(len(fold.calibration), 0.05, n_new=len(normal))
    assert np.mean(normal > threshold) > expected.high
    rates = rates_of_splits(normal, 20, 0.05, 500)
    assert rates.mean() <= 0.05 + 3 * rates.std() / math.sqrt(500)
    assert recalibrated_threshold(normal[:20], 0.05) == conformal_threshold(normal[:20], 0.05)


def test_too_few_images_of_a_new_group_keep_the_promise_by_never_alarming():
    scores = np.random.default_rng(0).normal(size=25)
    for k in range(26):
        for rate in (0.04, 0.05, 0.1):
            if k >= 1 / rate - 1 - 1e-9:
                expected = conformal_threshold(scores[:k], rate)
            else:
                expected = math.inf
            assert recalibrated_threshold(scores[:k], rate) == expected
    with pytest.raises(InputError, match="false_alarm_rate=0"):
        recalibrated_threshold(scores, 0)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"n": 18}, "18 normal images are too few"),
        ({"n": 99, "rate": 1}, "false_alarm_rate=1"),
        ({"n": 99, "confidence": 1}, "confidence=1: give a share"),
        ({"n": 99, "n_new": 0}, "n_new=0: give a whole"),
    ],
)
def test_intervals_that_cannot_be(given, message):
    with pytest.raises(InputError, match=message):
        false_alarm_interval(**given)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, math.nan])
def test_bad_rates(rate):
    with pytest.raises(InputError, match="false_alarm_rate="):
        conformal_threshold(np.arange(100), rate)


BAD = [
    *[("coreset_ratio", value) for value in (0, 2, -0.1, math.nan, math.inf, "0.1", None)],
    *[("n_neighbors", value) for value in (0, -1, 1.5, None)],
    *[("sigma", value) for value in (-1, math.nan, math.inf, None)],
    *[("batch_size", value) for value in (0, 2.0)],
    ("sampler", "greedy"),
    ("image_score", "median"),
    ("metric", "l1"),
    *[("index", value) for value in ("ivf", None, {"kind": "hnsw", "m": 8})],
    ("aggregation", "sum"),
    ("neighborhood", 2),
    ("precision", "float16"),
    ("image_size", 0),
    ("projection", 0),
    *[("random_state", value) for value in (-1, 2**32, 0.5, None)],
]


@pytest.mark.parametrize("name, value", BAD)
def test_bad_parameters_are_named(name, value, photos):
    with pytest.raises(InputError, match=name) as caught:
        make(**{name: value}).fit(photos[:2])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, value", [("n_neighbors", 0), ("image_score", "median"), ("index", "ivf")]
)
def test_bad_parameters_set_after_fit_are_named_too(name, value, photos, queries):
    model = make().fit(photos[:2]).set_params(**{name: value})
    with pytest.raises(InputError, match=name):
        model.anomaly_scores(queries)


def test_features_that_are_not_finite(photos):
    model = make()
    extractor = model.new_extractor()
    torch.nn.init.constant_(extractor.backbone.network.conv1[0].weight, math.nan)
    model.new_extractor = lambda: extractor
    with pytest.raises(InputError, match="features of test_resnet: holds NaN"):
        model.fit(photos)


# Saved banks


SETTINGS = [
    {},
    {"image_size": (64, 96), "layers": (1, 2), "metric": "cosine", "image_score": "reweighted"},
    {"n_neighbors": 3, "aggregation": "paper", "sigma": 0, "image_score": "top1_percent"},
    {"image_size": np.int64(64), "layers": np.array([1, 3]), "n_neighbors": np.int64(2)},
    {"coreset_ratio": np.float32(0.25), "random_state": np.int64(3), "layers": [2]},
]


@pytest.mark.long
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("threshold", [False, True])
def test_saved_and_loaded(settings, threshold, photos, queries, tmp_path):
    model = make(**settings).fit(photos)
    if threshold:
        model.calibrate(queries[:2], 0.5)
    model.save(tmp_path / "bank.safetensors")
    assert os.listdir(tmp_path) == ["bank.safetensors"]
    loaded = PatchCore.load(str(tmp_path / "bank.safetensors"))
    np.testing.assert_array_equal(loaded.bank_.vectors_, model.bank_.vectors_)
    np.testing.assert_array_equal(loaded.anomaly_scores(queries), model.anomaly_scores(queries))
    np.testing.assert_array_equal(loaded.anomaly_maps(queries), model.anomaly_maps(queries))
    assert loaded.bank_.n_vectors_ == model.bank_.n_vectors_
    assert hasattr(loaded, "threshold_") == threshold
    if threshold:
        assert loaded.threshold_ == model.threshold_
        np.testing.assert_array_equal(loaded.predict(queries), model.predict(queries))
    loaded.save(tmp_path / "again")
    np.testing.assert_array_equal(
        PatchCore.load(tmp_path / "again").anomaly_scores(queries), model.anomaly_scores(queries)
    )
    loaded.fit(photos)
    np.testing.assert_array_equal(loaded.anomaly_scores(queries), model.anomaly_scores(queries))


def test_a_loaded_bank_knows_its_images(fitted, tmp_path):
    fitted.save(tmp_path / "bank")
    rows = np.arange(len(fitted.bank_))
    np.testing.assert_array_equal(
        PatchCore.load(tmp_path / "bank").origin(rows), fitted.origin(rows)
    )


@pytest.fixture
def bank(fitted, tmp_path):
    fitted.save(tmp_path / "bank")
    return tmp_path / "bank"


def refuse(path, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        PatchCore.load(path, **options)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9999])
def test_a_truncated_bank(share, bank):
    content = bank.read_bytes()
    bank.write_bytes(content[: int(share * len(content))])
    refuse(bank, "not a memory bank of this package")


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_flipped_bit_in_the_bank(place, bank):
    content = bytearray(bank.read_bytes())
    content[int(place * len(content))] ^= 1
    bank.write_bytes(content)
    refuse(bank, "damaged|not a memory bank")


def test_what_is_not_a_bank(tmp_path, bank):
    refuse(tmp_path / "none", "no such memory bank file")
    refuse(tmp_path, "no such memory bank file")
    (tmp_path / "text").write_text("hello " * 100)
    refuse(tmp_path / "text", "not a memory bank")
    safetensors.torch.save_file({"other": torch.zeros(2, 2)}, bank)
    refuse(bank, "not a memory bank")


def test_a_bank_made_with_other_weights(tmp_path, photos):
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = timm.create_model("test_resnet").state_dict()
        safetensors.torch.save_file(state, tmp_path / "weights")
        if seed == 1:
            model = PatchCore("test_resnet", weights=tmp_path / "weights", image_size=64)
            model.fit(photos[:2]).save(tmp_path / "own bank")
            assert b"pytest" not in (tmp_path / "own bank").read_bytes()[:4096]
            loaded = PatchCore.load(tmp_path / "own bank", weights=tmp_path / "weights")
            np.testing.assert_array_equal(
                loaded.anomaly_scores(photos), model.anomaly_scores(photos)
            )
    refuse(tmp_path / "own bank", "made with a custom weights file; name it: weights=FILE")
    refuse(tmp_path / "own bank", "other weights of test_resnet", weights=tmp_path / "weights")


def test_a_bank_that_cannot_be_written_leaves_nothing(fitted, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in ("file/bank", "folder", "missing/bank"):
        with pytest.raises(InputError, match=f"{path}: cannot be written .* choose another path"):
            fitted.save(tmp_path / path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_saving_needs_a_fit(tmp_path):
    with pytest.raises(NotFittedError):
        make().save(tmp_path / "bank")
