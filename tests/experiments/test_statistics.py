"""Verdicts follow from planted outcomes, and every interval from the numbers written out."""

import numpy as np
import pytest
from scipy import stats

from patchcore_helpers import InputError
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.experiments.grid import Outcome
from patchcore_helpers.experiments.statistics import (
    bonferroni_confidence,
    collect_scores,
    compare,
    completed,
    paired_scores,
    summarize,
)

LABELS = np.repeat([0, 1], 60)


def scores(seed, apart, seeds=5):
    """Scores under several seeds; the same `seed` means the same images."""
    image = np.random.default_rng(seed).normal(size=len(LABELS))
    noise = np.random.default_rng([seed, int(100 * apart)]).normal(0, 0.2, (seeds, len(LABELS)))
    return image + apart * LABELS + noise


def pairs(*apart):
    """A category per pair of distances between the classes, of one and of the other method."""
    return {
        f"c{i}": (LABELS, scores(i, one), scores(i, other)) for i, (one, other) in enumerate(apart)
    }


CASES = {
    "better": (
        [(3, 1)] * 3,
        "Over all, A is better than B (+",
        "A is better in 3 of 3 categories.",
    ),
    "worse": ([(1, 3)] * 3, "Over all, A is worse than B (-", "A is worse in 3 of 3 categories."),
    "no difference shown": (
        [(1.5, 1.51)] * 3,
        "Over all, no difference between A and B is shown (",
        "in none of 3 categories is a difference shown.",
    ),
    "some better": (
        [(3, 1), (3, 1), (1.5, 1.51)],
        "Over all, A is better than B (+",
        "A is better in 2 of 3 categories.",
    ),
    "both": (
        [(3, 1), (1, 3), (1.5, 1.51)],
        "Over all, no difference between A and B is shown (",
        "A is better in 1 of 3 categories, A is worse in 1 of 3 categories.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_summary_and_table_follow_from_the_scores(case):
    apart, start, end = CASES[case]
    table = compare(pairs(*apart))
    assert table["kind"].tolist() == ["category"] * 3 + ["all"]
    assert table["name"].tolist() == ["c0", "c1", "c2", "all"]
    expected = [
        "better" if a > b + 1 else "worse" if b > a + 1 else "no difference shown" for a, b in apart
    ]
    assert table["verdict"].tolist()[:3] == expected
    overall = {"some better": "better", "both": "no difference shown"}.get(case, case)
    assert table["verdict"].iloc[-1] == overall
    text = summarize(table, "A", "B")
    assert text.startswith(start) and text.endswith(end), text
    last = table.iloc[-1]
    assert f"({last.difference:+.3f} image AUROC, interval {last.low:+.3f} to" in text


def test_confidence_is_shared_among_all_rows():
    categories = pairs((1.4, 1.2), (1.5, 1.2), (1.3, 1.3), (1.1, 1.4))
    table = compare(categories, confidence=0.9)
    parts = [auroc_interval(*pair) for pair in categories.values()]
    variance = sum(p.error**2 for p in parts) / 16
    df = variance**2 / sum((p.error**2 / 16) ** 2 / p.df for p in parts)
    expected = [(p.estimate, p.error, p.df) for p in parts]
    expected.append((np.mean([p.estimate for p in parts]), variance**0.5, df))
    for (estimate, error, freedom), row in zip(expected, table.itertuples(), strict=True):
        half = stats.t.ppf(1 - 0.1 / 5 / 2, freedom) * error  # five rows share 10 %
        assert (row.difference, row.low, row.high) == pytest.approx(
            (estimate, estimate - half, estimate + half)
        )
        power = stats.t.ppf(0.8, freedom) * error
        assert row.minimum_detectable_difference == pytest.approx(half + power)


def test_a_difference_can_get_lost_among_many_comparisons():
    def verdict(count):
        return compare(pairs((1.5, 1.44), *[(1.2, 1.2)] * count))["verdict"][0]

    alone = auroc_interval(*pairs((1.5, 1.44))["c0"])
    assert alone.verdict == verdict(0) == "better"
    assert alone.with_confidence(1 - 0.05 / 202).verdict == verdict(200) == "no difference shown"


def test_cases_on_the_same_images_do_not_count_twice():
    categories = pairs((2, 1.2), (1.9, 1.2))
    cases = {f"{name} at {i}": pair for name, pair in categories.items() for i in range(3)}
    table = compare(cases, categories)
    assert table["kind"].tolist() == ["case"] * 6 + ["category"] * 2 + ["all"]
    alone = compare(categories).iloc[-1]
    assert table.iloc[-1].difference == pytest.approx(alone.difference)
    ratio = (table.iloc[-1].high - table.iloc[-1].low) / (alone.high - alone.low)
    assert 1 < ratio < 1.6  # wider for nine comparisons instead of three, not narrower for six
    assert summarize(table, "A", "B").endswith("A is better in 2 of 2 categories.")


def test_nothing_to_compare():
    with pytest.raises(InputError, match=r"nothing to compare: .* no finished category"):
        compare({})


def outcome(method, seed, values=(0.1, 0.2), status="ok", kind="mean"):
    task = {"method": method, "seed": seed, "ratios": [0.1, 0.2]}
    scores = {"labels": [0, 1], kind: list(values)}
    return Outcome(task, [{**task, "status": status}], scores, finished=status == "ok")


def test_scores_are_collected_from_what_finished_and_nothing_else():
    outcomes = [
        outcome("a", 0, (1, 2)),
        outcome("b", 0, (3, 4)),
        outcome("a", 1, status="failed: x"),
        outcome("a", 2, (5, 6)),
        outcome("a", 3, (7, 8), kind="max"),
        outcome("c", 0, status="skipped: y"),
    ]
    labels, scores_of_a = collect_scores(outcomes, "mean", method="a")
    assert labels.tolist() == [0, 1] and scores_of_a.tolist() == [[1, 2], [5, 6]]
    assert collect_scores(outcomes, "mean", method="a", seed=2)[1].tolist() == [[5, 6]]
    assert collect_scores(outcomes, "max", method="a")[1].tolist() == [[7, 8]]
    assert collect_scores(outcomes, "mean")[1].tolist() == [[1, 2], [3, 4], [5, 6]]
    for nothing in ({"method": "c"}, {"method": "a", "seed": 1}, {"other": 1}):
        assert collect_scores(outcomes, "mean", **nothing) is None
    assert completed(outcomes, "method") == ["a", "b"] and completed(outcomes, "seed") == [0, 2, 3]


def test_pairs_have_as_many_seeds_as_both_methods():
    outcomes = [
        outcome("a", 0, (1, 2)),
        outcome("a", 1, (5, 6)),
        outcome("b", 0, (3, 4)),
        outcome("c", 0, status="failed: x"),
    ]
    one, other, absent = ({"kind": "mean", "method": name} for name in "abc")
    labels, scores_of_a, scores_of_b = paired_scores(outcomes, one, other)
    assert labels.tolist() == [0, 1]
    assert scores_of_a.tolist() == [[1, 2]] and scores_of_b.tolist() == [[3, 4]]
    assert paired_scores(outcomes, one, absent) is None
    assert paired_scores(outcomes, absent, other) is None


def test_bonferroni_shares_the_chance_of_an_error():
    assert 1 - bonferroni_confidence(0.95, 10) == pytest.approx(0.005)
    assert bonferroni_confidence(0.9, 1) == pytest.approx(0.9)
