"""Verdicts on paired comparisons: intervals, and the words that follow from them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from patchcore_helpers.core.intervals import Interval, auroc_interval, mean_interval
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments.grid import Outcome

LabelsAndScores = tuple[np.ndarray, np.ndarray]  # shapes (n,) and (seeds, n)
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # labels, scores of one method and of the other


def collect_scores(outcomes: Iterable[Outcome], kind: str, **task: Any) -> LabelsAndScores | None:
    """Labels and scores of all finished tasks with these entries, one row per seed.

    Parameters
    ----------
    outcomes : iterable of Outcome
    kind : str
        Which of a task's scores, such as "mean" or "k_center 0.01".
    **task
        Entries that a task must have to be collected.

    Returns
    -------
    labels : int array of shape (n,)
    scores : float array of shape (seeds, n)
        Instead of both, None if no such task finished.
    """
    matching = [
        outcome.scores
        for outcome in outcomes
        if outcome.finished and kind in outcome.scores and task.items() <= outcome.task.items()
    ]
    if not matching:
        return None
    labels = np.array(matching[0]["labels"])
    return labels, np.array([scores[kind] for scores in matching])


def paired_scores(
    outcomes: Iterable[Outcome], one: Mapping[str, Any], other: Mapping[str, Any]
) -> Pair | None:
    """Labels, and the scores of two methods on the same images and seeds.

    Parameters
    ----------
    outcomes : iterable of Outcome
    one, other : mappings
        The other arguments of `collect_scores`.

    Returns
    -------
    (labels, scores, scores of the other), or None if one of the two did not run
    """
    outcomes = list(outcomes)
    collected = collect_scores(outcomes, **one)
    collected_other = collect_scores(outcomes, **other)
    if collected is None or collected_other is None:
        return None
    labels, scores = collected
    _, other_scores = collected_other
    n_seeds = min(len(scores), len(other_scores))
    return labels, scores[:n_seeds], other_scores[:n_seeds]


def completed(outcomes: Iterable[Outcome], entry: str) -> list:
    """The different values of a task's entry among the tasks that finished, in their order."""
    return list(dict.fromkeys(o.task[entry] for o in outcomes if o.finished))


def bonferroni_confidence(confidence: float, n_comparisons: int) -> float:
    """The confidence of each of several intervals that holds for all of them together.

    Examples
    --------
    >>> round(bonferroni_confidence(0.95, 5), 4)
    0.99
    """
    return 1 - (1 - confidence) / n_comparisons


def compare(
    pairs: Mapping[str, Pair],
    categories: Mapping[str, Pair] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Paired differences in image AUROC, one by one and over all.

    The confidence is shared among all rows (Bonferroni), so that the chance of any false verdict
    is at most 1 - `confidence`.

    Parameters
    ----------
    pairs : mapping of str to (labels, scores, scores of the other)
        As `auroc_interval` takes them.
    categories : mapping of the same kind, optional
        Needed where `pairs` holds several cases on the same images; by default `pairs` are the
        categories. Categories share no images, so the overall mean is taken over them.
    confidence : float in (0, 1)
        Of all rows together.

    Returns
    -------
    DataFrame
        Columns kind ("case", "category" or "all"), name, difference, low, high, verdict,
        minimum_detectable_difference (the true difference that such a run shows four times out of
        five).

    Raises
    ------
    InputError
        If there is no pair.
    """
    if not pairs:
        raise InputError("nothing to compare: the two methods share no finished category")
    cases = pairs if categories else {}
    by_category = {name: auroc_interval(*p) for name, p in (categories or pairs).items()}

    intervals: list[tuple[str, str, Interval]] = []
    intervals += [("case", name, auroc_interval(*pair)) for name, pair in cases.items()]
    intervals += [("category", name, interval) for name, interval in by_category.items()]
    intervals.append(("all", "all", mean_interval(list(by_category.values()))))

    shared_confidence = bonferroni_confidence(confidence, len(intervals))
    rows = []
    for kind, name, interval in intervals:
        corrected = interval.with_confidence(shared_confidence)
        rows.append(
            {
                "kind": kind,
                "name": name,
                "difference": corrected.estimate,
                "low": corrected.low,
                "high": corrected.high,
                "verdict": corrected.verdict,
                "minimum_detectable_difference": corrected.minimum_detectable_difference(
                    shared_confidence
                ),
            }
        )
    return pd.DataFrame(rows)


def summarize(comparison: pd.DataFrame, one: str, other: str) -> str:
    """The verdict on a comparison, in words that follow from its rows.

    Parameters
    ----------
    comparison : DataFrame
        What `compare` returned.
    one, other : str
        What the two methods are called.
    """
    overall = comparison.iloc[-1]
    categories = comparison[comparison["kind"] == "category"]
    counts = categories["verdict"].value_counts()

    verdict = f"{one} is {overall.verdict} than {other}"
    if overall.verdict == "no difference shown":
        verdict = f"no difference between {one} and {other} is shown"
    numbers = (
        f"{overall.difference:+.3f} image AUROC, interval {overall.low:+.3f} to {overall.high:+.3f}"
    )
    by_category = [
        f"{one} is {word} in {counts[word]} of {len(categories)} categories"
        for word in ("better", "worse")
        if word in counts
    ]
    if not by_category:
        by_category = [f"in none of {len(categories)} categories is a difference shown"]
    return f"Over all, {verdict} ({numbers}); {', '.join(by_category)}."
