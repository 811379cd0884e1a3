"""Verdicts follow from planted outcomes, and every interval from the numbers written out."""

import numpy as np
import pytest
from scipy import stats

from patchcore_helpers import InputError
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.experiments.grid import Outcome
from patchcore_helpers.experiments.statistics import (
    collect_scores,
    compare,
    completed,
    correct_over_page,
    holm_confidences,
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


def holm_by_hand(p_values, alpha):
    """Which hypotheses Holm's procedure rejects, as his paper words it."""
    order, rejected = sorted(range(len(p_values)), key=p_values.__getitem__), set()
    for k, i in enumerate(order):
        if p_values[i] > alpha / (len(p_values) - k):
            break
        rejected.add(i)
    return [i in rejected for i in range(len(p_values))]


@pytest.mark.parametrize("seed", range(20))
def test_holms_confidences_reject_what_holms_procedure_rejects(seed):
    rng = np.random.default_rng(seed)
    p_values = (rng.uniform(size=9) ** 4).tolist()
    confidences = holm_confidences(p_values, 0.9)
    rejected = [p <= 1 - c + 1e-12 for p, c in zip(p_values, confidences, strict=True)]
    assert rejected == holm_by_hand(p_values, 0.1)
    assert confidences.max() == pytest.approx(1 - 0.1 / 9)  # the first is Bonferroni's


def test_a_mean_is_tested_by_itself_and_the_rest_by_holm():
    categories = pairs((1.4, 1.2), (1.5, 1.2), (1.3, 1.3), (1.1, 1.4))
    table = compare(categories, confidence=0.9)
    parts = [auroc_interval(*pair) for pair in categories.values()]
    variance = sum(p.error**2 for p in parts) / 16
    df = variance**2 / sum((p.error**2 / 16) ** 2 / p.df for p in parts)
    expected = [(p.estimate, p.error, p.df) for p in parts]
    expected.append((np.mean([p.estimate for p in parts]), variance**0.5, df))
    p_values = [2 * stats.t.sf(abs(e) / max(error, 1e-99), f) for e, error, f in expected]
    assert table["p_value"].tolist() == pytest.approx(p_values)
    levels = [*(1 - holm_confidences(p_values[:4], 0.9)), 0.1]
    for (estimate, error, freedom), level, row in zip(
        expected, levels, table.itertuples(), strict=True
    ):
        half = stats.t.ppf(1 - level / 2, freedom) * error
        assert (row.difference, row.low, row.high) == pytest.approx(
            (estimate, estimate - half, estimate + half)
        )
        power = stats.t.ppf(0.8, freedom) * error
        assert row.minimum_detectable_difference == pytest.approx(half + power)


def test_all_pairs_of_a_page_are_counted():
    """The old correction shared 5 % among the rows of one table, whatever else was on the page."""
    names = ["a - b", "c - b", "d - b"]
    differences = [(1.5, 1.44), (1.2, 1.2), (1.2, 1.2)]
    tables = {
        name: compare(pairs(first, (1.2, 1.2), (1.2, 1.2)))
        for name, first in zip(names, differences, strict=True)
    }
    page = correct_over_page(tables, primary="c - b")
    assert len(page) == 12 and page["comparison"].tolist() == np.repeat(names, 4).tolist()
    primary = page[(page["comparison"] == "c - b") & (page["kind"] == "all")]
    assert primary["confidence"].tolist() == [0.95]
    others = page.drop(primary.index)
    assert others["confidence"].tolist() == pytest.approx(holm_confidences(others["p_value"]))
    assert others["confidence"].max() == pytest.approx(1 - 0.05 / 11)
    excludes_0 = (page["low"] > 0) | (page["high"] < 0)
    assert (excludes_0 == (page["verdict"] != "no difference shown")).all()
    again = correct_over_page({"c - b": page[page["comparison"] == "c - b"]}, "c - b")
    alone = tables["c - b"]
    assert again[alone.columns].equals(alone)  # corrected anew, not twice
    with pytest.raises(InputError, match="primary='x': choose one of a - b, c - b, d - b"):
        correct_over_page(tables, "x")


@pytest.mark.long
def test_false_verdicts_of_a_page_without_any_difference():
    """Three methods against a fourth in two categories, all equally good: 400 pages."""
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 30)
    n_pages, false_primary, false_other = 400, 0, 0
    for _ in range(n_pages):
        methods = rng.normal(size=(4, 2, 60)) + rng.normal(size=(2, 60)) + labels
        tables = {
            str(k): compare({str(c): (labels, methods[k, c], methods[3, c]) for c in (0, 1)})
            for k in range(3)
        }
        page = correct_over_page(tables, primary="0")
        shown = page["verdict"] != "no difference shown"
        is_primary = (page["comparison"] == "0") & (page["kind"] == "all")
        false_primary += shown[is_primary].any()
        false_other += shown[~is_primary].any()
    limit = stats.binom.ppf(0.999, n_pages, 0.05)
    assert false_primary <= limit and false_other <= limit


def test_a_difference_can_get_lost_among_many_comparisons():
    def verdict(count):
        return compare(pairs((1.5, 1.44), *[(1.2, 1.2)] * count))["verdict"][0]

    alone = auroc_interval(*pairs((1.5, 1.44))["c0"])
    assert alone.verdict == verdict(0) == "better"
    assert alone.with_confidence(1 - 0.05 / 201).verdict == verdict(200) == "no difference shown"


def test_cases_on_the_same_images_do_not_count_twice():
    categories = pairs((2, 1.2), (1.9, 1.2))
    cases = {f"{name} at {i}": pair for name, pair in categories.items() for i in range(3)}
    table = compare(cases, categories)
    assert table["kind"].tolist() == ["case"] * 6 + ["category"] * 2 + ["all"]
    last = compare(categories).iloc[-1]
    assert table.iloc[-1].equals(last)  # the primary row pays nothing for the others
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


def test_pairs_have_the_seeds_that_both_methods_finished():
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


def test_seeds_are_paired_by_their_value_not_by_their_place():
    outcomes = [
        outcome("a", 0, status="failed: x"),
        outcome("a", 1, (5, 6)),
        outcome("a", 2, (7, 8)),
        outcome("b", 2, (70, 80)),
        outcome("b", 0, (30, 40)),
        outcome("b", 1, (50, 60)),
    ]
    one, other = ({"kind": "mean", "method": name} for name in "ab")
    _, scores_of_a, scores_of_b = paired_scores(outcomes, one, other)
    assert (10 * scores_of_a).tolist() == scores_of_b.tolist() == [[50, 60], [70, 80]]
    assert paired_scores(outcomes[:2] + outcomes[3:5], one, other) is None


def test_pairs_that_are_none_are_refused():
    one, other = ({"kind": "mean", "method": name} for name in "ab")
    twice = [outcome("a", 0), outcome("a", 0), outcome("b", 0)]
    with pytest.raises(InputError, match="several tasks of seed 0; say which"):
        paired_scores(twice, one, other)
    elsewhere = outcome("b", 0)
    elsewhere.scores["labels"] = [1, 0]
    with pytest.raises(InputError, match="tested on different images; compare on one split"):
        paired_scores([outcome("a", 0), elsewhere], one, other)
