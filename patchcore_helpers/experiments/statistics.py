"""Verdicts on paired comparisons: intervals, and the words that follow from them.

A page of results has one **primary** comparison, named before the run: the mean over the categories
of one pair of methods. It is tested by itself, at 5 %. All other differences on the page (single
ratios, single categories, other pairs of methods) are tested together by Holm's procedure, so that
the chance of any false verdict among *them* is at most 5 %. `compare` does this for one pair of
methods; a page with several pairs passes its tables to `correct_over_page`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

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

    A seed counts if both methods finished with it, and its scores are paired with each other,
    whichever other seeds failed.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of tasks with a "seed".
    one, other : mappings
        The other arguments of `collect_scores`. With a seed, they match one task each.

    Returns
    -------
    (labels, scores, scores of the other), or None if the two have no finished seed in common

    Raises
    ------
    InputError
        If several tasks of one seed match, or if the test labels differ.
    """
    outcomes = list(outcomes)
    by_seed = _collect_by_seed(outcomes, **one)
    other_by_seed = _collect_by_seed(outcomes, **other)
    seeds = [seed for seed in by_seed if seed in other_by_seed]
    if not seeds:
        return None
    labels = by_seed[seeds[0]][0]
    found = [(by_seed[seed], other_by_seed[seed]) for seed in seeds]
    if not all(np.array_equal(labels, own_labels) for pair in found for own_labels, _ in pair):
        raise InputError(f"{one}, {other}: tested on different images; compare on one split")
    scores, other_scores = (np.array([pair[k][1] for pair in found]) for k in (0, 1))
    return labels, scores, other_scores


def _collect_by_seed(
    outcomes: Iterable[Outcome], kind: str, **task: Any
) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Labels and scores, each of shape (n,), of the finished task of every seed."""
    found: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for outcome in outcomes:
        if not outcome.finished or not task.items() <= outcome.task.items():
            continue
        if kind not in outcome.scores:
            continue
        seed = outcome.task.get("seed")
        if seed in found:
            raise InputError(f"{task}: several tasks of seed {seed}; say which one to compare")
        found[seed] = np.array(outcome.scores["labels"]), np.array(outcome.scores[kind])
    return found


def completed(outcomes: Iterable[Outcome], entry: str) -> list:
    """The different values of a task's entry among the tasks that finished, in their order."""
    return list(dict.fromkeys(o.task[entry] for o in outcomes if o.finished))


def holm_confidences(p_values: ArrayLike, confidence: float = 0.95) -> np.ndarray:
    """The confidence at which Holm's procedure tests each of several differences.

    The smallest of m p-values is tested at (1 - confidence) / m, the next at
    (1 - confidence) / (m - 1), and so on until one is above its level; that level is kept for all
    that remain. The chance of any false verdict among all of them is then at most 1 - confidence,
    however they depend on each other, as with Bonferroni's correction, which tests all at the first
    level and finds less.

    Parameters
    ----------
    p_values : array of float, shape (m,)
    confidence : float in (0, 1)
        Of all verdicts together.

    Returns
    -------
    float array of shape (m,)
        An interval of this confidence excludes 0 where Holm's procedure finds a difference.

    Notes
    -----
    Holm, Scandinavian Journal of Statistics 6, 1979.

    Examples
    --------
    >>> holm_confidences([0.01, 0.9, 0.03, 0.02], 0.9).round(3)
    array([0.975, 0.9  , 0.95 , 0.967])
    """
    p_values = np.asarray(p_values, dtype=float)
    levels = np.empty(len(p_values))
    n_left = len(p_values)
    is_found = True
    for place in np.argsort(p_values, kind="stable"):
        levels[place] = (1 - confidence) / n_left
        is_found = is_found and p_values[place] <= levels[place]
        if is_found:
            n_left -= 1
    return 1 - levels


def compare(
    pairs: Mapping[str, Pair],
    categories: Mapping[str, Pair] | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Paired differences in image AUROC between two methods, one by one and in the mean.

    The row "all", the mean over the categories, is the primary comparison; the other rows are
    corrected for their number by Holm's procedure. If a page shows the tables of several pairs of
    methods, correct over all of them: `correct_over_page`.

    Parameters
    ----------
    pairs : mapping of str to (labels, scores, scores of the other)
        As `auroc_interval` takes them.
    categories : mapping of the same kind, optional
        Needed where `pairs` holds several cases on the same images; by default `pairs` are the
        categories. Categories share no images, so the mean is taken over them.
    confidence : float in (0, 1)
        Of the primary comparison, and of all other rows together.

    Returns
    -------
    DataFrame
        Columns kind ("case", "category" or "all"), name, difference, low, high, verdict,
        minimum_detectable_difference (the true difference that such a run shows four times out of
        five), error (standard), df (its degrees of freedom), p_value (uncorrected), confidence (at
        which the row is tested: low and high are the ends of this interval).

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
    return tabulate_intervals(intervals, confidence)


def tabulate_intervals(
    intervals: Sequence[tuple[str, str, Interval]], confidence: float = 0.95
) -> pd.DataFrame:
    """The table of `compare`, from differences that are estimated already.

    Parameters
    ----------
    intervals : sequence of (kind, name, Interval)
        Kind is "case" or "category"; the row "all" is the mean over the categories.
    confidence : float in (0, 1)
        As `compare` takes it.

    Raises
    ------
    InputError
        If there is no category.
    """
    by_category = [interval for kind, _, interval in intervals if kind == "category"]
    if not by_category:
        raise InputError("nothing to compare: the two methods share no finished category")
    rows = [
        (kind, name, *interval[:5])
        for kind, name, interval in [*intervals, ("all", "all", mean_interval(by_category))]
    ]
    table = pd.DataFrame(rows, columns=["kind", "name", "difference", "low", "high", "error", "df"])
    return correct_over_page({"": table}, primary="", confidence=confidence).drop(
        columns="comparison"
    )


def correct_over_page(
    tables: Mapping[str, pd.DataFrame], primary: str, confidence: float = 0.95
) -> pd.DataFrame:
    """Several comparisons of one page, corrected for the number of all their rows.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        What `compare` returned for each pair of methods; the key names the pair, such as
        "v2_variance - k_center". What `compare` corrected is corrected anew.
    primary : str
        The key of the primary comparison. Its row "all" is tested by itself; choose it before the
        results are known.
    confidence : float in (0, 1)
        Of the primary row, and of all other rows together.

    Returns
    -------
    DataFrame
        The column comparison (the key), and those of `compare`. The rows of one key, such as
        ``table[table["comparison"] == key]``, are what `summarize` takes.

    Raises
    ------
    InputError
        If there is no table of that name.

    Examples
    --------
    >>> labels, rng = np.repeat([0, 1], 50), np.random.default_rng(0)
    >>> a, b, c = (rng.normal(labels * apart, 1, (3, 100)) for apart in (2, 1, 1))
    >>> a_against_b = compare({"tiles": (labels, a, b)})
    >>> c_against_b = compare({"tiles": (labels, c, b)})
    >>> page = correct_over_page({"a - b": a_against_b, "c - b": c_against_b}, primary="a - b")
    >>> page[["comparison", "name", "verdict", "confidence"]].round(3)
      comparison   name              verdict  confidence
    0      a - b  tiles               better       0.983
    1      a - b    all               better       0.950
    2      c - b  tiles  no difference shown       0.975
    3      c - b    all  no difference shown       0.975
    """
    if primary not in tables:
        raise InputError(f"primary={primary!r}: choose one of {', '.join(tables)}")
    rows = pd.concat(
        [table.assign(comparison=key) for key, table in tables.items()], ignore_index=True
    )
    intervals = [
        Interval.from_variance_components(difference, [(error**2, df)])
        for difference, error, df in zip(rows["difference"], rows["error"], rows["df"], strict=True)
    ]
    p_values = np.array([interval.p_value for interval in intervals])
    is_primary = ((rows["comparison"] == primary) & (rows["kind"] == "all")).to_numpy()
    confidences = np.full(len(rows), confidence)
    confidences[~is_primary] = holm_confidences(p_values[~is_primary], confidence)

    corrected = [
        interval.with_confidence(at) for interval, at in zip(intervals, confidences, strict=True)
    ]
    return pd.DataFrame(
        {
            "comparison": rows["comparison"],
            "kind": rows["kind"],
            "name": rows["name"],
            "difference": rows["difference"],
            "low": [interval.low for interval in corrected],
            "high": [interval.high for interval in corrected],
            "verdict": [interval.verdict for interval in corrected],
            "minimum_detectable_difference": [
                interval.minimum_detectable_difference(at)
                for interval, at in zip(corrected, confidences, strict=True)
            ],
            "error": rows["error"],
            "df": rows["df"],
            "p_value": p_values,
            "confidence": confidences,
        }
    )


def summarize(comparison: pd.DataFrame, one: str, other: str) -> str:
    """The verdict on a comparison, in words that follow from its rows.

    Parameters
    ----------
    comparison : DataFrame
        What `compare` returned, or the rows of one comparison of `correct_over_page`.
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
