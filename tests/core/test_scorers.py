"""Ways from patch vectors to patch scores, against brute force and against PatchCore."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

from patchcore_helpers import InputError, MemoryBank, PatchCore
from patchcore_helpers.core.feature_cache import fingerprint
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.scorers import (
    BankPerLayer,
    BankScorer,
    ComposedPatchCore,
    MedianOfBanks,
    WithPlace,
    layer_widths,
    seeded_banks,
    soft_distances,
)
from patchcore_helpers.core.turned import TurnedImage, with_turned_copies

ALL_ROWS = MemoryBank(coreset_ratio=1.0)


def patches(seed, images=3, grid=(4, 5), channels=6):
    return np.random.default_rng(seed).normal(size=(images, *grid, channels)).astype(np.float32)


def small(**options):
    options = {"image_size": 64, "coreset_ratio": 0.2, **options}
    return PatchCore("test_resnet", weights="random", **options)


def soft_distance(vector, rows, count, temperature):
    """One patch, by the formula, in double precision."""
    squared = ((rows - vector) ** 2).sum(1)
    nearest = np.argsort(squared)[:count]
    weights = np.exp(-squared[nearest] / temperature)
    return np.linalg.norm(vector - weights @ rows[nearest] / weights.sum())


@pytest.mark.parametrize("count", [2, 5])
def test_the_soft_projection_is_that_of_the_formula(count):
    train, test = patches(0), patches(1, images=2)
    rows = train.reshape(-1, 6).astype(float)
    bank = clone(ALL_ROWS).fit(rows)
    expected = []
    for image in test.astype(float):
        vectors = image.reshape(-1, 6)
        squared = np.sort(cdist(vectors, rows), axis=1)[:, :count] ** 2
        expected += [soft_distance(v, rows, count, np.median(squared)) for v in vectors]
    np.testing.assert_allclose(soft_distances(bank, test, count), expected, rtol=1e-4)
    scorer = BankScorer(ALL_ROWS, soft_rows=count).fit(train)
    np.testing.assert_allclose(scorer.score(test).ravel(), expected, rtol=1e-4)


def test_a_soft_projection_onto_one_row_is_the_nearest_row():
    bank = MemoryBank(coreset_ratio=0.1).fit(patches(0).reshape(-1, 6))
    test = patches(1)
    nearest = bank.distances(test.reshape(-1, 6))
    np.testing.assert_allclose(soft_distances(bank, test, 1), nearest, rtol=1e-5)
    of_one_row = MemoryBank(coreset_ratio=0.001).fit(patches(0).reshape(-1, 6))
    assert len(of_one_row) == 1  # five rows are asked for, and there is one
    nearest = of_one_row.distances(test.reshape(-1, 6))
    np.testing.assert_allclose(soft_distances(of_one_row, test, 5), nearest, rtol=1e-5)


@given(
    arrays(np.float32, (1, 3, 3, 2), elements=st.floats(-9, 9, width=32)),
    st.integers(2, 9),
    st.sampled_from([0.25, 4.0]),
)
def test_a_soft_projection_scales_with_its_vectors_and_stays_finite(test, count, factor):
    rows = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    bank = clone(ALL_ROWS).fit(rows)
    scaled = clone(ALL_ROWS).fit(rows * factor)
    scores = soft_distances(bank, test, count)
    assert np.isfinite(scores).all()
    expected = scores * factor
    np.testing.assert_allclose(
        soft_distances(scaled, test * factor, count), expected, rtol=1e-3, atol=1e-4
    )


def test_a_patch_that_is_in_the_bank_many_times_has_no_distance():
    row = np.ones((1, 2, 2, 3), np.float32)
    scorer = BankScorer(ALL_ROWS, soft_rows=3).fit(row)
    assert np.allclose(scorer.score(row), 0)  # the temperature is 0, too


def test_the_median_is_that_of_banks_fitted_one_by_one():
    train, test = patches(0, images=8), patches(1)
    bank = MemoryBank(coreset_ratio=0.05, random_state=7)
    several = MedianOfBanks(seeded_banks(bank, 3)).fit(train)
    alone = [
        MemoryBank(coreset_ratio=0.05, random_state=seed)
        .fit(train.reshape(-1, 6))
        .distances(test.reshape(-1, 6))
        for seed in (7, 8, 9)
    ]
    np.testing.assert_array_equal(several.score(test).ravel(), np.median(alone, axis=0))
    assert not np.array_equal(alone[0], alone[1])
    assert [len(one) for one in several.banks()] == [8, 8, 8]


def test_each_layer_has_its_bank():
    train, test = patches(0), patches(1)
    expected = np.zeros(test.shape[:3])
    for part in (slice(0, 2), slice(2, 6)):
        rows = train[..., part].reshape(-1, part.stop - part.start)
        scale = np.sqrt((rows**2).sum(1).mean())
        search = NearestNeighbors(n_neighbors=1).fit(rows)
        distances, _ = search.kneighbors(test[..., part].reshape(-1, rows.shape[1]))
        expected += distances.reshape(test.shape[:3]) / scale / 2
    model = BankPerLayer([2, 4], BankScorer(ALL_ROWS)).fit(train)
    np.testing.assert_allclose(model.score(test), expected, rtol=1e-4)

    louder = np.ones(6, np.float32)
    louder[2:] = 100  # no layer outweighs the other by the length of its vectors
    louder_model = BankPerLayer([2, 4], BankScorer(ALL_ROWS)).fit(train * louder)
    np.testing.assert_allclose(louder_model.score(test * louder), expected, rtol=1e-4)
    assert len(model.banks()) == 2
    with pytest.raises(InputError, match=r"widths=\(2, 3\): the patches have 6 channels"):
        BankPerLayer([2, 3]).fit(train)


def test_widths_are_those_that_timm_knows():
    extractor = small().new_extractor()
    stages = extractor.backbone.network.feature_info
    assert layer_widths(extractor) == [
        stages[layer]["num_chs"] for layer in extractor.backbone.layers
    ]


def test_place_can_count_for_nothing_or_for_all():
    train, test = patches(0, grid=(3, 3)), patches(1, grid=(3, 3))
    without = BankScorer(ALL_ROWS).fit(train).score(test)
    nothing = WithPlace(BankScorer(ALL_ROWS), weight=0).fit(train).score(test)
    np.testing.assert_allclose(nothing, without, rtol=1e-5)

    same_place = np.linalg.norm(test[:, None] - train[None], axis=-1).min(1)
    strict = WithPlace(BankScorer(ALL_ROWS), weight=1000).fit(train).score(test)
    np.testing.assert_allclose(strict, same_place, rtol=1e-3)


def test_a_place_counts_as_much_as_it_says():
    train = np.zeros((1, 2, 1, 1), np.float32)
    train[0, 1] = 6  # a spread of 3
    test = train[:, ::-1]  # each patch is where the other belongs: 6 away, or one image side
    for weight, expected in [(0.5, 1.5), (1.5, 4.5), (3.0, 6.0)]:
        model = WithPlace(BankScorer(ALL_ROWS), weight=weight).fit(train)
        np.testing.assert_allclose(model.score(test).ravel(), [expected] * 2, rtol=1e-5)


def test_turned_copies_are_those_of_numpy(photo):
    image = photo(0, size=(20, 30))
    turned = [read_item(copy) for copy in with_turned_copies([image])]
    for quarters, copy in enumerate(turned):
        np.testing.assert_array_equal(np.asarray(copy), np.rot90(image, quarters))
    square = photo(1)
    copies = [square, *(TurnedImage(square, quarters) for quarters in (1, 2, 3))]
    assert len({fingerprint(copy) for copy in copies}) == 4
    as_pixels = Image.fromarray(square)
    assert fingerprint(TurnedImage(square, 1)) == fingerprint(TurnedImage(as_pixels, 1))


def test_composed_of_nothing_new_it_is_patchcore(photos, photo):
    queries = [photo(50), photo(51, defect=True)]
    plain = small(n_neighbors=2, image_score="mean").fit(photos)
    composed = ComposedPatchCore(small(n_neighbors=2, image_score="mean")).fit(photos)
    np.testing.assert_array_equal(composed.anomaly_scores(queries), plain.anomaly_scores(queries))
    np.testing.assert_array_equal(composed.anomaly_maps(queries), plain.anomaly_maps(queries))
    assert composed.summary() == plain.summary()


def test_a_detector_with_turned_copies_knows_turned_images(photos):
    turned = [np.rot90(image).copy() for image in photos[:2]]
    detector = ComposedPatchCore(small(coreset_ratio=1.0), turned_copies=True).fit(photos[:2])
    assert detector.summary()["n_patches"] == 4 * small().fit(photos[:2]).bank_.n_vectors_
    plain = ComposedPatchCore(small(coreset_ratio=1.0)).fit(photos[:2])
    assert detector.anomaly_scores(turned).max() < plain.anomaly_scores(turned).min() / 20


def test_what_cannot_be_is_refused(photos):
    with pytest.raises(InputError, match="needs the metric l2, not cosine"):
        BankScorer(MemoryBank(metric="cosine"), soft_rows=5).fit(patches(0))
    with pytest.raises(InputError, match="soft_rows=0"):
        BankScorer(soft_rows=0).fit(patches(0))
    with pytest.raises(InputError, match="scorers: give at least one"):
        MedianOfBanks([]).fit(patches(0))
    with pytest.raises(InputError, match="n_banks"):
        seeded_banks(MemoryBank(), 0)
    with pytest.raises(InputError, match="only PatchCore itself"):
        ComposedPatchCore(small(image_score="reweighted")).fit(photos)
    for scorer in (BankScorer(), MedianOfBanks([BankScorer()]), BankPerLayer([6]), WithPlace()):
        with pytest.raises(NotFittedError):
            scorer.score(patches(0))
    with pytest.raises(NotFittedError):
        ComposedPatchCore(small()).anomaly_scores(photos)
