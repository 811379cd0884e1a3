"""Verdicts on paired comparisons: intervals, and the words that follow from them."""

import numpy as np
import pandas as pd

from patchcore_helpers.core.metrics import auroc_interval, mean_interval
from patchcore_helpers.errors import InputError


def gather(outcomes, kind, **task):
    """Labels, shape (n,), and scores, shape (seeds, n), of all finished tasks with these entries.

    Parameters
    ----------
    outcomes : list of Outcome
    kind : str
        Which of the scores.
    **task : entries that the tasks must have

    Returns
    -------
    (labels, scores) or None if no such task finished
    """
    done = (o for o in outcomes if o.finished and kind in o.scores)
    some = [o.scores for o in done if task.items() <= o.task.items()]
    if not some:
        return None
    return np.array(some[0]["labels"]), np.array([scores[kind] for scores in some])


def paired(outcomes, *cases):
    """Labels, and the scores of several cases on the same images and seeds; None if one is missing.

    Parameters
    ----------
    outcomes : list of Outcome
    *cases : dicts, the other arguments of `gather`
    """
    found = [gather(outcomes, **case) for case in cases]
    if None in found:
        return None
    seeds = min(len(scores) for _, scores in found)
    return found[0][0], *(scores[:seeds] for _, scores in found)


def ran(outcomes, entry):
    """The different values of a task's entry among those that gave a result, in their order."""
    return list(dict.fromkeys(o.task[entry] for o in outcomes if o.finished))


def compare(pairs, groups=None, confidence=0.95):
    """Paired differences in image AUROC, one by one and over all.

    The confidence is shared among all rows (Bonferroni), so that the chance of any false verdict
    is at most 1 - `confidence`.

    Parameters
    ----------
    pairs : dict of str to (labels, scores, scores of the other)
        As `auroc_interval` takes them.
    groups : dict of the same kind, optional
        Categories, where `pairs` are several cases on the same images; by default `pairs` are the
        categories. Categories share no images, so the overall mean is taken over them.

    Returns
    -------
    DataFrame
        Columns kind ("case", "category" or "all"), name, difference, low, high, verdict,
        minimum_detectable_difference (the true difference that would have been seen four times out of five).
    """
    if not pairs:
        raise InputError("nothing to compare: nowhere did both run")
    kinds = {"case": pairs, "category": groups} if groups else {"category": pairs}
    found = [(k, name, auroc_interval(*p)) for k, some in kinds.items() for name, p in some.items()]
    found.append(("all", "all", mean_interval([i for k, _, i in found if k == "category"])))
    each = 1 - (1 - confidence) / len(found)
    rows = []
    for kind, name, interval in found:
        wide = interval.at(each)
        rows.append((kind, name, *wide[:3], wide.verdict, wide.minimum_detectable_difference(each)))
    columns = [
        "kind",
        "name",
        "difference",
        "low",
        "high",
        "verdict",
        "minimum_detectable_difference",
    ]
    return pd.DataFrame(rows, columns=columns)


def sentence(comparison, one, other):
    """The verdict on a comparison, in words that follow from its rows."""
    last, single = comparison.iloc[-1], comparison[comparison["kind"] == "category"]
    counts = single["verdict"].value_counts()
    parts = [
        f"{one} is {verdict} in {counts[verdict]} of {len(single)} categories"
        for verdict in ("better", "worse")
        if verdict in counts
    ] or [f"in none of {len(single)} categories is a difference shown"]
    span = f"{last.difference:+.3f} image AUROC, interval {last.low:+.3f} to {last.high:+.3f}"
    verdict = f"{one} is {last.verdict} than {other}"
    if last.verdict == "no difference shown":
        verdict = f"no difference between {one} and {other} is shown"
    return f"Over all, {verdict} ({span}); {', '.join(parts)}."
