"""Metrics against scikit-learn, and AU-PRO against its definition without a shortcut."""

import numpy as np
import pytest
from helpers.au_pro import au_pro_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError
from patchcore_helpers.core.metrics import au_pro, image_auroc, pixel_auroc, region_overlaps


@settings(deadline=None, max_examples=200)
@given(data=st.data(), limit=st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_au_pro_is_its_definition(data, limit):
    shape = (
        data.draw(st.integers(1, 3)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(1, 6)),
    )
    masks = data.draw(hnp.arrays(bool, shape))
    ties = st.integers(0, 3).map(float)
    scores = data.draw(st.sampled_from([ties, st.floats(-1, 1, width=32)]))
    maps = data.draw(hnp.arrays(np.float32, shape, elements=scores))
    result = au_pro(masks, maps, limit)
    if not masks.any() or masks.all():
        assert result is None
    else:
        assert result == pytest.approx(au_pro_by_hand(masks, maps, limit), abs=1e-9)
        assert 0 <= result <= 1
        assert au_pro(masks, 4 * maps.astype(float), limit) == result


def test_au_pro_of_larger_maps_with_several_regions():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 24, 20), bool)
    masks[0, 2:10, 2:10] = masks[0, 15, 3] = masks[1, 5:7] = masks[1, 8, 9] = True
    masks[1, 9, 10] = True  # touches the one above by a corner: one region
    for spread in (0, 1):
        maps = masks + rng.normal(size=masks.shape)
        maps = np.round(maps, spread)
        assert au_pro(masks, maps) == pytest.approx(au_pro_by_hand(masks, maps))
    assert 0.2 < au_pro(masks, maps) < 0.95


def test_every_region_weighs_the_same_whatever_its_size():
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :10, :10] = masks[0, 15, 15] = True
    only_large, only_small = masks.astype(float), masks.astype(float)
    only_large[0, 15, 15], only_small[0, :10, :10] = -1, -1
    for maps in (only_large, only_small):
        assert au_pro(masks, maps) == pytest.approx(au_pro_by_hand(masks, maps))
        assert au_pro(masks, maps) == pytest.approx(0.5)


def test_au_pro_extremes():
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 2:5, 2:5] = True
    assert au_pro(mask, mask.astype(float)) == pytest.approx(1)
    assert au_pro(mask, -mask.astype(float)) == 0
    assert au_pro(mask, np.zeros(mask.shape)) == pytest.approx(0.15)  # the diagonal up to 0.3


def test_au_pro_of_maps_of_different_sizes_and_of_8_bit_maps():
    rng = np.random.default_rng(1)
    masks = [rng.random((5, 7)) > 0.7, rng.random((4, 3)) > 0.7]
    maps = [rng.integers(0, 4, mask.shape).astype(np.uint8) for mask in masks]
    expected = au_pro_by_hand(masks, [m.astype(int) for m in maps])
    assert au_pro(masks, maps) == pytest.approx(expected)
    pixels = [np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps)]
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(*pixels))


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(int, st.integers(0, 30), elements=st.integers(0, 1)).flatmap(
        lambda labels: st.tuples(
            st.just(labels),
            hnp.arrays(np.float32, len(labels), elements=st.sampled_from([0, 0.5, 1, 2, 3])),
        )
    )
)
def test_image_auroc_is_the_share_of_pairs_in_order(pair):
    labels, scores = pair
    good, bad = scores[labels == 0], scores[labels == 1]
    if not len(good) or not len(bad):
        assert image_auroc(labels, scores) is None
    else:
        wins = (bad[:, None] > good).mean() + (bad[:, None] == good).mean() / 2
        assert image_auroc(labels, scores) == pytest.approx(wins)
        assert image_auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
        assert type(image_auroc(labels.astype(bool), scores)) is float


def test_pixel_auroc():
    rng = np.random.default_rng(0)
    masks, maps = rng.random((3, 8, 9)) > 0.8, rng.random((3, 8, 9)).astype(np.float32)
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(masks, maps) == pytest.approx(expected)
    assert pixel_auroc(list(masks), list(maps)) == pytest.approx(expected)
    assert pixel_auroc(np.zeros_like(masks), maps) is None
    assert pixel_auroc(np.ones_like(masks), maps) is None


@pytest.mark.parametrize("metric", [pixel_auroc, au_pro])
def test_maps_that_do_not_belong_to_the_masks(metric):
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 1, 1] = True
    for maps in (
        np.zeros((2, 6, 4)),
        np.zeros((1, 4, 12)),
        np.zeros((2, 4, 5)),
        np.zeros((3, 4, 6)),
    ):
        with pytest.raises(InputError, match="must have the same shape"):
            metric(mask, maps)
    maps = np.zeros(mask.shape)
    maps[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        metric(mask, maps)


def test_bad_input():
    with pytest.raises(InputError, match=r"labels \(3,\) and scores \(2,\)"):
        image_auroc([0, 1, 1], [1, 2])
    with pytest.raises(InputError, match="NaN"):
        image_auroc([0, 1], [1, np.nan])
    for limit in (0, -0.1, 1.5, np.nan):
        with pytest.raises(InputError, match="limit="):
            au_pro(np.ones((1, 2, 2), bool), np.ones((1, 2, 2)), limit)


def test_region_overlaps_add_up_to_au_pro_and_pixel_auroc():
    rng = np.random.default_rng(3)
    masks = np.zeros((4, 40, 40), bool)
    masks[0, 3:20, 5:30] = masks[1, 4:6, 4:6] = masks[1, 30, 30] = masks[2, 10:14, 0:9] = True
    maps = rng.normal(size=masks.shape) + masks
    regions = region_overlaps(masks, maps)
    assert regions["image"].tolist() == [0, 1, 1, 2]
    assert regions["pixels"].tolist() == [17 * 25, 4, 1, 36]
    # Up to the last step before the limit, which is one normal pixel wide.
    assert regions["overlap"].mean() == pytest.approx(au_pro(masks, maps), abs=1 / 1000)
    by_pixel = np.average(regions["pixel_auroc"], weights=regions["pixels"])
    assert by_pixel == pytest.approx(pixel_auroc(masks, maps))


def test_region_overlaps_of_one_region_by_hand():
    mask = np.array([[[1, 1, 0, 0, 0, 0]]], bool)
    values = np.array([[[5.0, 2.5, 1.0, 2.0, 3.0, 4.0]]])  # 0 and 2 of 4 normal pixels are hotter
    regions = region_overlaps(mask, values, limit=1.0)
    assert regions["overlap"].tolist() == [pytest.approx((1 + 0.5) / 2)]
    assert region_overlaps(mask, values, limit=0.5)["overlap"].tolist() == [pytest.approx(0.5)]
    with pytest.raises(InputError, match="limit"):
        region_overlaps(mask, values, limit=0)
