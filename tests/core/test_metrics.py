"""Metrics against scikit-learn, and AU-PRO against its definition without a shortcut."""

from collections import deque
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError
from patchcore_helpers.core.metrics import (
    Interval,
    au_pro,
    auroc_interval,
    image_auroc,
    mean_interval,
    pixel_auroc,
)


def regions_of(mask):
    """Sets of defect pixels that touch by a side or a corner, by walking from pixel to pixel."""
    left, regions = {tuple(p) for p in np.argwhere(mask)}, []
    while left:
        region, queue = set(), deque([left.pop()])
        while queue:
            i, j = queue.popleft()
            region.add((i, j))
            around = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= around
            queue.extend(around)
        regions.append(region)
    return regions


def au_pro_by_hand(masks, maps, limit=0.3):
    """Every threshold in turn, every region in turn; trapezia up to the limit."""
    regions = [(n, r) for n, mask in enumerate(masks) for r in regions_of(mask)]
    normal = [values[~mask] for mask, values in zip(masks, maps, strict=True)]
    count = sum(map(len, normal))
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(v) for values in maps for v in values.ravel()}, reverse=True):
        false_alarms = sum(int((values >= threshold).sum()) for values in normal)
        overlaps = [sum(maps[n][p] >= threshold for p in r) / len(r) for n, r in regions]
        curve.append((false_alarms / count, sum(overlaps) / len(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 > limit:
            if x0 < limit:
                y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


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


# Intervals


def components(labels, scores):
    """DeLong's structural components, pair by pair: of defective and of normal images."""
    good, bad = ([s for s, label in zip(scores, labels, strict=True) if label == k] for k in (0, 1))
    wins = np.array([[(b > g) + 0.5 * (b == g) for g in good] for b in bad], dtype=float)
    return wins.mean(1), wins.mean(0)


def interval_by_hand(labels, scores, other=None, confidence=0.95):
    """Scores of shape (cases, seeds, n); every sum of squares written out. Returns four numbers."""
    cases, seeds, _ = scores.shape
    sign, blocks = (1,) if other is None else (1, -1), (scores, other)
    total, seed_part, images_part, welch = [0.0] * seeds, 0.0, 0.0, 0.0
    for of in (0, 1):  # defective, then normal images
        v = [
            sum(
                f * components(labels, block[case, seed])[of] / cases
                for f, block in zip(sign, blocks, strict=False)
                for case in range(cases)
            )
            for seed in range(seeds)
        ]
        images = len(v[0])
        per_image = [sum(row[i] for row in v) / seeds for i in range(images)]
        grand, per_seed = sum(per_image) / images, [sum(row) / images for row in v]
        delong = sum((x - grand) ** 2 for x in per_image) / (images - 1) / images
        images_part, welch = images_part + delong, welch + delong**2 / (images - 1)
        if seeds > 1:
            interaction = sum(
                (v[s][i] - per_image[i] - per_seed[s] + grand) ** 2
                for s in range(seeds)
                for i in range(images)
            ) / ((seeds - 1) * (images - 1))
            seed_part -= interaction / images
        total = per_seed
    estimate = sum(total) / seeds
    if seeds > 1:
        seed_part += sum((x - estimate) ** 2 for x in total) / (seeds - 1)
        seed_part = max(0.0, seed_part) / seeds
        welch += seed_part**2 / (seeds - 1)
    variance = images_part + seed_part
    if variance == 0:
        return estimate, estimate, estimate, 0.0
    half = stats.t.ppf((1 + confidence) / 2, variance**2 / welch) * variance**0.5
    return estimate, estimate - half, estimate + half, variance**0.5


def planted(seed, shape, levels):
    """Labels and scores; with few levels there are ties within and between the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [shape[-1] // 2, shape[-1] - shape[-1] // 2]))
    image, effect = rng.normal(size=shape[-1]), rng.normal(0, 0.3, (*shape[:-1], 1))
    scores = image + labels * (1 + effect) + rng.normal(0, 0.5, shape)
    return labels, np.round(scores * levels) / levels


@pytest.mark.parametrize("levels", [1, 1000])
@pytest.mark.parametrize("paired", [False, True])
def test_one_seed_gives_delongs_interval(levels, paired):
    labels, scores = planted(0, (2, 31), levels)
    parts = [np.array(c) for c in components(labels, scores[0])]
    if paired:
        parts = [a - b for a, b in zip(parts, components(labels, scores[1]), strict=True)]
    found = auroc_interval(labels, scores[0], scores[1] if paired else None)
    variance = sum(part.var(ddof=1) / len(part) for part in parts)
    assert found.error**2 == pytest.approx(variance, rel=1e-9) and variance > 0
    estimates = [roc_auc_score(labels, row) for row in scores]
    assert found.estimate == pytest.approx(estimates[0] - paired * estimates[1], abs=1e-12)
    welch = sum((p.var(ddof=1) / len(p)) ** 2 / (len(p) - 1) for p in parts)
    assert found.df == pytest.approx(variance**2 / welch)
    half = stats.t.ppf(0.975, found.df) * variance**0.5
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))


@pytest.mark.parametrize("shape", [(1, 1, 12), (1, 4, 21), (3, 1, 14), (3, 5, 17)])
@pytest.mark.parametrize("levels", [1, 1000])
def test_interval_is_its_definition(shape, levels):
    labels, scores = planted(1, shape, levels)
    _, other = planted(2, shape, levels)
    for rival in (None, other):
        found = auroc_interval(labels, scores, rival, confidence=0.9)
        expected = interval_by_hand(labels, scores, rival, confidence=0.9)
        assert found[:4] == pytest.approx(expected, abs=1e-12)
        if shape[0] == 1:
            flat = auroc_interval(labels, scores[0], None if rival is None else rival[0], 0.9)
            assert flat == pytest.approx(found, nan_ok=True)


def test_seeds_add_variance_only_where_they_differ():
    labels, scores = planted(3, (1, 600), 1000)
    alone = auroc_interval(labels, scores)
    assert auroc_interval(labels, np.repeat(scores, 7, axis=0)) == pytest.approx(alone)
    rng = np.random.default_rng(0)
    shifted = scores + labels * rng.normal(0, 1, (7, 1))
    assert auroc_interval(labels, shifted).error > 2 * alone.error


def test_a_difference_is_paired_image_by_image():
    labels, scores = planted(4, (5, 80), 1000)
    noise = np.random.default_rng(0).normal(0, 0.05, scores.shape)
    difference = auroc_interval(labels, scores, scores + noise)
    assert difference.error < 0.2 * auroc_interval(labels, scores).error
    back = auroc_interval(labels, scores + noise, scores)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))


def test_equal_scores_have_no_width_and_no_verdict():
    labels = np.repeat([0, 1], 10)
    for scores in (np.full(20, 0.3), np.full((4, 20), 0.3), np.full((2, 4, 20), 0.3)):
        one = auroc_interval(labels, scores)
        assert (one.estimate, one.low, one.high) == (0.5, 0.5, 0.5)
        two = auroc_interval(labels, scores, scores)
        assert (two.estimate, two.low, two.high, two.error) == (0, 0, 0, 0)
        assert two.verdict == two.at(0.999).verdict == "no difference shown"
        assert two.minimum_detectable_difference() == 0
    _, scores = planted(5, (3, 20), 1000)
    same = auroc_interval(labels, scores, scores)
    assert same[:4] == (0, 0, 0, 0) and same.verdict == "no difference shown"


def test_interval_at_another_confidence_and_its_words():
    found = Interval.of(0.1, [(0.0016, 9), (0.0009, 4)])
    assert found.error == pytest.approx(0.05)
    assert found.df == pytest.approx(0.0025**2 / (0.0016**2 / 9 + 0.0009**2 / 4))
    assert found.at(0.95) == pytest.approx(found)
    wide = found.at(0.99)
    assert wide.high - 0.1 == pytest.approx(stats.t.ppf(0.995, found.df) * 0.05)
    assert (found.verdict, wide.verdict) == ("no difference shown",) * 2
    assert Interval.of(0.2, [(0.0025, 20)]).verdict == "better"
    assert Interval.of(-0.2, [(0.0025, 20)]).verdict == "worse"


def test_smallest_seen_is_seen_four_times_out_of_five():
    rng, error, df = np.random.default_rng(0), 0.02, 12
    truth = Interval.of(0, [(error**2, df)]).minimum_detectable_difference(0.95, 0.8)
    errors = error * np.sqrt(rng.chisquare(df, 20000) / df)
    estimates = rng.normal(truth, error, 20000)
    seen = estimates - stats.t.ppf(0.975, df) * errors > 0
    assert 0.77 < seen.mean() < 0.83


def test_mean_interval_adds_independent_variances():
    some = [Interval.of(0.8, [(0.01, 5)]), Interval.of(0.9, [(0.04, 9)]), Interval.of(1, [(0, 3)])]
    found = mean_interval(some)
    assert found.estimate == pytest.approx(0.9)
    assert found.error == pytest.approx(0.05**0.5 / 3)
    assert found.df == pytest.approx(0.05**2 / (0.01**2 / 5 + 0.04**2 / 9))
    assert mean_interval(some[:1]) == pytest.approx(some[0])


def test_intervals_refuse_bad_input():
    labels, scores = planted(6, (3, 20), 1000)
    for wrong in (scores[:, :-1], scores.T):
        with pytest.raises(InputError, match="one row per seed of"):
            auroc_interval(labels, wrong)
    with pytest.raises(InputError, match="NaN"):
        auroc_interval(labels, np.where(np.arange(20) == 3, np.nan, scores))
    for few in ([0] * 20, [1] * 20, [0] * 19 + [1], [1] * 19 + [0]):
        with pytest.raises(InputError, match="at least two normal and two defective"):
            auroc_interval(few, scores)


def coverage(runs, aurocs, seed_effect, images=100, seeds=5, noise=0.3, shared=0.7):
    """Shares of simulated runs whose intervals hold the truth: of one AUROC, of a difference.

    A score is an image effect (partly shared by the two methods), plus the distance between the
    classes under this seed for a defective image, plus noise of its own for seed and image.
    """
    rng = np.random.default_rng([int(1000 * x) for x in (*aurocs, seed_effect)])
    spread = (2 * (1 + noise**2)) ** 0.5  # of the difference of two images' scores
    apart = [stats.norm.ppf(a) * (spread**2 + seed_effect**2) ** 0.5 for a in aurocs]
    labels, inside = np.repeat([0, 1], images), np.zeros(2)
    for _ in range(runs):
        common, scores = rng.normal(size=2 * images), []
        for distance in apart:
            image = shared**0.5 * common + (1 - shared) ** 0.5 * rng.normal(size=2 * images)
            effect = distance + seed_effect * rng.normal(size=(seeds, 1))
            scores.append(image + labels * effect + noise * rng.normal(size=(seeds, 2 * images)))
        one, difference = auroc_interval(labels, scores[0]), auroc_interval(labels, *scores)
        inside[0] += one.low <= aurocs[0] <= one.high
        inside[1] += difference.low <= aurocs[0] - aurocs[1] <= difference.high
    return inside / runs


REGIMES = (0.0, 0.05, 0.2)
TRUTHS = ((0.8, 0.8), (0.88, 0.84), (0.95, 0.93))


@pytest.mark.parametrize("seed_effect", REGIMES)
def test_coverage_of_few_simulations(seed_effect):
    found = coverage(300, TRUTHS[1], seed_effect)
    assert ((found >= 0.9) & (found <= 0.99)).all(), found


@pytest.mark.slow
@pytest.mark.parametrize("aurocs", TRUTHS)
@pytest.mark.parametrize("seed_effect", REGIMES)
def test_coverage(seed_effect, aurocs):
    one, difference = coverage(2000, aurocs, seed_effect)
    print(f"seed effect {seed_effect}, AUROC {aurocs}: one {one:.4f}, difference {difference:.4f}")
    assert 0.93 <= difference <= 0.97
    # One AUROC near 1 has a skewed distribution, which a symmetric interval covers a bit less.
    assert (0.93 if aurocs[0] < 0.9 else 0.91) <= one <= 0.97
