"""Intervals against their definitions, written out; their coverage in simulations."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from patchcore_helpers import InputError
from patchcore_helpers.core.intervals import (
    Interval,
    auroc_interval,
    delong_components,
    grouped_auroc_interval,
    mean_interval,
    newcombe_limits,
    share_interval,
    welch_satterthwaite,
)


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
    if other is None:
        return estimate, *logit_limits(estimate, half), variance**0.5
    return estimate, estimate - half, estimate + half, variance**0.5


def logit_limits(auroc, half_width):
    """The odds of an AUROC, times and divided by exp(half_width / (a (1 - a))), as AUROCs."""
    odds, factor = auroc / (1 - auroc), np.exp(half_width / (auroc * (1 - auroc)))
    return tuple(o / (1 + o) for o in (odds / factor, odds * factor))


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
    symmetric = found.estimate - half, found.estimate + half
    expected = symmetric if paired else logit_limits(found.estimate, half)
    assert (found.low, found.high) == pytest.approx(expected)


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
            assert flat[:5] == pytest.approx(found[:5], nan_ok=True)
            assert flat.images == found.images


def test_seeds_add_variance_only_where_they_differ():
    labels, scores = planted(3, (1, 600), 1000)
    alone = auroc_interval(labels, scores)
    assert auroc_interval(labels, np.repeat(scores, 7, axis=0))[:5] == pytest.approx(alone[:5])
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


def test_the_difference_of_equal_scores_has_no_width_and_no_verdict():
    labels = np.repeat([0, 1], 10)
    for scores in (np.full(20, 0.3), np.full((4, 20), 0.3), np.full((2, 4, 20), 0.3)):
        one = auroc_interval(labels, scores)
        assert one[:3] == (0.5, *newcombe_limits(0.5, 10, 10))
        two = auroc_interval(labels, scores, scores)
        assert (two.estimate, two.low, two.high, two.error) == (0, 0, 0, 0)
        assert two.verdict == two.with_confidence(0.999).verdict == "no difference shown"
        assert two.minimum_detectable_difference() == 0
    _, scores = planted(5, (3, 20), 1000)
    same = auroc_interval(labels, scores, scores)
    assert same[:4] == (0, 0, 0, 0) and same.verdict == "no difference shown"


def test_interval_at_another_confidence_and_its_words():
    found = Interval.from_variance_components(0.1, [(0.0016, 9), (0.0009, 4)])
    assert found.error == pytest.approx(0.05)
    assert found.df == pytest.approx(0.0025**2 / (0.0016**2 / 9 + 0.0009**2 / 4))
    assert found.with_confidence(0.95)[:5] == pytest.approx(found[:5])
    wide = found.with_confidence(0.99)
    assert wide.high - 0.1 == pytest.approx(stats.t.ppf(0.995, found.df) * 0.05)
    assert (found.verdict, wide.verdict) == ("no difference shown",) * 2
    assert Interval.from_variance_components(0.2, [(0.0025, 20)]).verdict == "better"
    assert Interval.from_variance_components(-0.2, [(0.0025, 20)]).verdict == "worse"


def test_minimum_detectable_difference_is_seen_four_times_out_of_five():
    rng, error, df = np.random.default_rng(0), 0.02, 12
    truth = Interval.from_variance_components(0, [(error**2, df)]).minimum_detectable_difference(
        0.95, 0.8
    )
    errors = error * np.sqrt(rng.chisquare(df, 20000) / df)
    estimates = rng.normal(truth, error, 20000)
    seen = estimates - stats.t.ppf(0.975, df) * errors > 0
    assert 0.77 < seen.mean() < 0.83


def test_mean_interval_adds_independent_variances():
    intervals = [
        Interval.from_variance_components(0.8, [(0.01, 5)]),
        Interval.from_variance_components(0.9, [(0.04, 9)]),
        Interval.from_variance_components(1, [(0, 3)]),
    ]
    mean = mean_interval(intervals)
    assert mean.estimate == pytest.approx(0.9)
    assert mean.error == pytest.approx(0.05**0.5 / 3)
    assert mean.df == pytest.approx(0.05**2 / (0.01**2 / 5 + 0.04**2 / 9))
    assert mean_interval(intervals[:1])[:5] == pytest.approx(intervals[0][:5])


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


@pytest.mark.long
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
    assert 0.93 <= one <= 0.975


@pytest.mark.parametrize("levels", [1, 1000])
def test_delongs_components_count_pairs(levels):
    labels, scores = planted(7, (2, 3, 15), levels)
    defective, normal = delong_components(labels, scores)
    assert defective.shape == (3, 8) and normal.shape == (3, 7)
    for seed in range(3):
        by_case = [components(labels, scores[case, seed]) for case in range(2)]
        np.testing.assert_allclose(defective[seed], np.mean([d for d, _ in by_case], axis=0))
        np.testing.assert_allclose(normal[seed], np.mean([n for _, n in by_case], axis=0))


def test_welch_satterthwaite_of_two_samples_is_welchs_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 9), rng.normal(0.5, 3, 14)
    parts = [(sample.var(ddof=1) / len(sample), len(sample) - 1) for sample in (a, b)]
    variance, df = welch_satterthwaite(parts)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert df == pytest.approx(expected.df)
    assert (a.mean() - b.mean()) / variance**0.5 == pytest.approx(expected.statistic)
    assert welch_satterthwaite([(0.0, 5)]) == (0.0, np.inf)


# Close to 1


def binormal(rng, runs, n_defective, n_normal, auroc):
    """Labels, and scores of shape (runs, images) whose true AUROC is known."""
    labels = np.repeat([1, 0], [n_defective, n_normal])
    apart = 2**0.5 * stats.norm.ppf(auroc)
    return labels, rng.normal(size=(runs, len(labels))) + apart * labels


def intervals_of_runs(labels, scores, confidence=0.95):
    """An interval per row of the scores, as `auroc_interval` makes it of one row."""
    found = []
    for defective, normal in zip(*delong_components(labels, scores), strict=True):
        parts = [(part.var(ddof=1) / len(part), len(part) - 1) for part in (defective, normal)]
        images = (len(defective), len(normal))
        found.append(Interval.of_auroc(defective.mean(), parts, images, confidence))
    assert found[0] == auroc_interval(labels, scores[0], confidence=confidence)
    return found


@pytest.mark.long
@pytest.mark.parametrize("n_defective, n_normal", [(5, 10), (14, 8), (10, 20), (40, 40), (60, 60)])
@pytest.mark.parametrize("auroc", [0.8, 0.9, 0.95, 0.98])
def test_coverage_near_one(n_defective, n_normal, auroc):
    rng = np.random.default_rng([n_defective, n_normal, int(100 * auroc)])
    found = intervals_of_runs(*binormal(rng, 2000, n_defective, n_normal, auroc))
    covered = np.mean([interval.low <= auroc <= interval.high for interval in found])
    assert 0.93 <= covered <= 0.998
    assert all(0 <= i.low < i.estimate <= i.high <= 1 and i.low < i.high for i in found)


@pytest.mark.long
def test_the_mean_of_categories_near_one_is_covered():
    rng = np.random.default_rng(0)
    for auroc in (0.95, 0.99):
        parts = [intervals_of_runs(*binormal(rng, 1000, 10, 20, auroc)) for _ in range(3)]
        means = [mean_interval(three) for three in zip(*parts, strict=True)]
        assert 0.93 <= np.mean([mean.low <= auroc <= mean.high for mean in means]) <= 0.998
        assert max(mean.high for mean in means) <= 1


@pytest.mark.long
@pytest.mark.parametrize("images", [20, 40, 100])
@pytest.mark.parametrize("auroc", [0.97, 0.985, 0.995])
def test_verdicts_near_one_are_seldom_false(images, auroc):
    """Two methods that are equally good; their scores are correlated image by image."""
    rng, false = np.random.default_rng([images, int(1000 * auroc)]), 0
    labels, shared = binormal(rng, 1000, images, images, 0.5)
    _, noise = binormal(rng, 2000, images, images, 0.5)
    apart = 2**0.5 * stats.norm.ppf(auroc) * labels
    one, other = (0.7**0.5 * shared + 0.3**0.5 * half + apart for half in np.split(noise, 2))
    for row, other_row in zip(one, other, strict=True):
        false += auroc_interval(labels, row, other_row).verdict != "no difference shown"
    assert false / 1000 < 0.05


def test_newcombes_limits_are_where_the_estimate_is_z_standard_errors_away():
    for auroc, m, n, confidence in ((1, 14, 8, 0.95), (0.9, 5, 10, 0.9), (0.2, 40, 40, 0.99)):
        z = stats.norm.ppf((1 + confidence) / 2)
        for limit in newcombe_limits(auroc, m, n, confidence):
            if limit == 1:
                continue
            # Newcombe 2006, part 2, method 5
            spread = ((m + n) / 2 - 1) * ((1 - limit) / (2 - limit) + limit / (1 + limit))
            variance = limit * (1 - limit) * (1 + spread) / (m * n)
            assert abs(auroc - limit) == pytest.approx(z * variance**0.5, abs=1e-8)
    low, high = newcombe_limits(1, 14, 8)
    assert (low, high) == (pytest.approx(0.804, abs=1e-3), 1)
    assert newcombe_limits(0, 8, 14) == (0, pytest.approx(1 - low))


def test_perfect_separation_is_not_certainty():
    labels = np.repeat([0, 1], [10, 5])
    scores = labels + np.linspace(0, 0.5, 15)
    for perfect in (scores, np.stack([scores, 2 * scores])):
        found = auroc_interval(labels, perfect)
        assert found[:3] == (1, *newcombe_limits(1, 5, 10)) and found.error > 0.05
        assert found.with_confidence(0.99).low == pytest.approx(newcombe_limits(1, 5, 10, 0.99)[0])
        assert auroc_interval(1 - labels, perfect).high == pytest.approx(1 - found.low)
    assert auroc_interval(labels, scores, scores)[:4] == (0, 0, 0, 0)
    apart = auroc_interval(labels, scores, scores**2)
    assert (apart.low, apart.high) == pytest.approx((found.low - 1, 1 - found.low))
    mean = mean_interval([found, found])
    assert mean[:3] == (1, *newcombe_limits(1, 10, 20))
    mixed = np.concatenate([scores, np.roll(scores, 3)])
    both = grouped_auroc_interval(np.tile(labels, 2), mixed, np.repeat([0, 1], 15))
    other = auroc_interval(labels, np.roll(scores, 3))
    assert both.error == pytest.approx((found.error**2 + other.error**2) ** 0.5 / 2)


# Within groups


def in_groups(seed, sizes, levels=1000, seeds=1):
    """Labels, scores, other scores, groups: every group has its own brightness and AUROC."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), [bad + good for bad, good in sizes])
    labels = np.concatenate([np.repeat([1, 0], size) for size in sizes])
    base = rng.normal(size=len(labels)) + labels * rng.uniform(0.5, 1.5, len(sizes))[groups]
    level = 20 * rng.permutation(len(sizes))[groups]
    scores, other = (
        np.round((base + rng.normal(0, 0.5, (seeds, len(labels)))) * levels) / levels + level
        for _ in range(2)
    )
    mixed = rng.permutation(len(labels))
    return labels[mixed], scores[:, mixed], other[:, mixed], groups[mixed]


@pytest.mark.parametrize("levels", [1, 1000])
@pytest.mark.parametrize("weights", ["equal", "pairs"])
def test_grouped_auroc_counts_pairs_of_one_group(levels, weights):
    labels, scores, other, groups = in_groups(1, [(7, 5), (4, 9), (3, 0), (0, 4), (6, 6)], levels)
    wins, pairs = np.zeros(5), np.zeros(5)
    for i, j in np.ndindex(len(labels), len(labels)):
        if groups[i] == groups[j] and labels[i] > labels[j]:
            pairs[groups[i]] += 1
            wins[groups[i]] += (scores[0, i] > scores[0, j]) + 0.5 * (scores[0, i] == scores[0, j])
    kept = pairs > 0
    by_group = wins[kept] / pairs[kept]
    expected = by_group.mean() if weights == "equal" else wins.sum() / pairs.sum()
    found = grouped_auroc_interval(labels, scores[0], groups, weights=weights)
    assert found.estimate == pytest.approx(expected)
    assert found.images == (17, 20)

    share = {"equal": np.full(3, 1 / 3), "pairs": pairs[kept] / pairs.sum()}[weights]
    alone = [
        auroc_interval(labels[groups == g], scores[:, groups == g], other[:, groups == g])
        for g in np.flatnonzero(kept)
    ]
    paired = grouped_auroc_interval(labels, scores, groups, other, weights=weights)
    assert paired.estimate == pytest.approx(share @ [a.estimate for a in alone])
    assert paired.error**2 == pytest.approx(share**2 @ [a.error**2 for a in alone])
    back = grouped_auroc_interval(labels, other, groups, scores, weights=weights)
    assert (back.low, back.high) == pytest.approx((-paired.high, -paired.low))


def test_groups_alone_are_no_evidence():
    labels = np.tile(np.repeat([0, 1], [45, 5]), 2)
    labels[50:] = 1 - labels[50:]
    groups = np.repeat([0, 1], 50)
    only_the_group = groups + np.random.default_rng(0).normal(0, 1e-3, 100)
    assert auroc_interval(labels, only_the_group).low > 0.8
    found = grouped_auroc_interval(labels, only_the_group, groups)
    assert found.low < 0.5 < found.high


def test_one_group_is_no_group():
    labels, scores = planted(8, (4, 31), 1000)
    _, other = planted(9, (4, 31), 1000)
    for rival in (None, other):
        one = grouped_auroc_interval(labels, scores, np.zeros(31), rival)
        assert one[:5] == pytest.approx(auroc_interval(labels, scores, rival)[:5])


def test_seeds_are_shared_by_the_groups():
    """The same seeds run in every group: what they do to all of them does not average out."""
    labels, scores, _, groups = in_groups(2, [(40, 40)] * 4, seeds=6)
    effect = np.linspace(-0.5, 0.5, 6)[:, None]
    turned = np.array([1, -1, 1, -1])[groups]  # lifts two groups, lowers the other two
    steady, shared, opposed = (
        grouped_auroc_interval(labels, scores + labels * by, groups).error
        for by in (0, effect, effect * turned)
    )
    assert shared > 1.5 * steady and opposed < 1.1 * steady


@pytest.mark.long
@pytest.mark.parametrize("weights", ["equal", "pairs"])
@pytest.mark.parametrize(
    "sizes", [[(5, 10)] * 3, [(40, 3), (20, 20), (2, 40), (9, 1)], [(30, 30)] * 5]
)
def test_coverage_within_groups(sizes, weights):
    rng = np.random.default_rng(len(sizes))
    aurocs = rng.permutation(np.linspace(0.85, 0.97, len(sizes)))
    pairs = np.prod(sizes, axis=1)
    truth = aurocs.mean() if weights == "equal" else aurocs @ pairs / pairs.sum()
    runs, inside = 1000, 0
    parts = [binormal(rng, runs, *size, auroc) for size, auroc in zip(sizes, aurocs, strict=True)]
    labels = np.concatenate([part for part, _ in parts])
    groups = np.repeat(np.arange(len(sizes)), [sum(size) for size in sizes])
    for scores in np.concatenate([part for _, part in parts], axis=1):
        found = grouped_auroc_interval(labels, scores, groups, weights=weights)
        inside += found.low <= truth <= found.high
    print(sizes, weights, inside / runs)
    assert 0.93 <= inside / runs <= 0.995


def test_groups_refuse_bad_input():
    labels, scores, _, groups = in_groups(3, [(3, 4), (2, 2)])
    with pytest.raises(InputError, match=r"groups \(10,\): give one for each of \(11,\) labels"):
        grouped_auroc_interval(labels, scores, groups[1:])
    with pytest.raises(InputError, match="no group has both normal and defective images"):
        grouped_auroc_interval(labels, scores, labels)
    with pytest.raises(InputError, match="weights='images': choose one of equal, pairs"):
        grouped_auroc_interval(labels, scores, groups, weights="images")
    with pytest.raises(InputError, match="a group with two images of each class"):
        grouped_auroc_interval([0, 1, 0, 1], [1, 2, 3, 4], [0, 0, 1, 1])
    with pytest.raises(InputError, match="NaN"):
        grouped_auroc_interval(labels, scores * np.nan, groups)


@pytest.mark.parametrize("total", [1, 7, 60])
def test_the_interval_of_a_share_is_that_of_the_exact_test(total):
    counts = np.arange(total + 1)
    low, high = share_interval(counts, total, 0.9)
    for count in counts:
        expected = stats.binomtest(int(count), total).proportion_ci(0.9, method="exact")
        assert (low[count], high[count]) == pytest.approx((expected.low, expected.high))
