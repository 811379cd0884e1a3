"""Experiment 2: does it help to prefer patches of high variance when the coreset is chosen?"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from patchcore_helpers.core.coreset import (
    Coreset,
    k_center_greedy,
    random_coreset,
    variance_weighted_k_center,
)
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.index import ExactIndex
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.variance_weights import variance_weights
from patchcore_helpers.experiments import common, statistics
from patchcore_helpers.experiments.common import ImageSettings, Patches, flatten, load_patches
from patchcore_helpers.experiments.grid import Outcome, Row, Task
from patchcore_helpers.experiments.statistics import collect_scores, paired_scores, summarize

# fmt: off
SOURCE_COLUMNS = ["category", "method", "compression_ratio", "auroc", "memory_reduction"]
COLUMNS_BY_SEED = [
    *SOURCE_COLUMNS, "seed", "n_train", "n_test", "n_patches", "bank_size", "radius", "seconds",
    "rank_correlation", "status",
]
COLUMNS = [*SOURCE_COLUMNS, "low", "high", "n_seeds", "n_train", "n_test", "bank_size", "status"]
# fmt: on
TIMINGS = ["seconds"]
PROBE_PATCHES = 10_000  # the coverage radius is measured on about this many training patches


def v1_random(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The source's baseline: patches drawn at random."""
    return random_coreset(flatten(patches), n_centers, random_state=seed)


def k_center(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """Plain greedy k-center, the method that PatchCore uses."""
    return k_center_greedy(flatten(patches), n_centers, random_state=seed)


def v2_variance(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The source's proposal: k-center weighted by the variance across the training images."""
    return variance_weighted_k_center(patches, n_centers, random_state=seed)


def v2_neighborhood(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The same with the variance in a patch's neighborhood."""
    return variance_weighted_k_center(
        patches, n_centers, random_state=seed, variance="neighborhood"
    )


def v2_literal(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The same with the variance that the source's code took: across one vector's dimensions."""
    return variance_weighted_k_center(patches, n_centers, random_state=seed, variance="dimensions")


# Each takes patches of shape (images, rows, columns, channels), a number of centers and a seed.
METHODS: dict[str, Callable[[np.ndarray, int, int], Coreset]] = {
    "v1_random": v1_random,
    "k_center": k_center,
    "v2_variance": v2_variance,
    "v2_neighborhood": v2_neighborhood,
    "v2_literal": v2_literal,
}


@dataclass(frozen=True)
class Settings(ImageSettings):
    """Which coresets are compared, on which features; the rest: `ImageSettings`.

    Parameters
    ----------
    backbone : str
    methods : sequence of str
        Keys of `METHODS`.
    ratios : sequence of float
        Shares of the training patches that are kept.
    """

    backbone: str = "efficientnet_lite0"
    methods: Sequence[str] = ("v1_random", "k_center", "v2_variance", "v2_literal")
    ratios: Sequence[float] = (0.005, 0.01, 0.05)


def make_tasks(settings: Settings, categories: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """One task per category and seed; each serves all methods and ratios. See `run_task`."""
    return common.make_tasks(settings, category=categories, seed=seeds)


def score_name(method: str, ratio: float) -> str:
    """The key of an outcome's scores by one method at one ratio.

    >>> score_name("k_center", 0.05)
    'k_center 0.05'
    """
    return f"{method} {ratio:g}"


def run_task(
    settings: Settings | Mapping[str, Any], category: str, seed: int
) -> tuple[list[Row], dict[str, list]]:
    """Choose one order of patches per method, and score the test images at every ratio.

    The score is PatchCore's: the largest distance of a patch to its nearest one in the bank.

    Parameters
    ----------
    settings : Settings or dict
        As an object, or as a task of the grid holds them.
    category : str
    seed : int
        Seed of the coresets.

    Returns
    -------
    rows : list of dict
        One per method and ratio.
    scores : dict of str to list
        The test images' labels, and their scores by `score_name`.
    """
    settings = Settings.of(settings)
    patches = load_patches(settings, settings.backbone, category)
    train = flatten(patches.train)
    ratios = sorted(settings.ratios)
    sizes = [max(1, round(ratio * len(train))) for ratio in ratios]
    probe = train[:: max(1, len(train) // PROBE_PATCHES)]
    weights = variance_weights(patches.train)
    labels = patches.images.labels
    counts = {
        "n_train": len(patches.train),
        "n_test": len(patches.test),
        "n_patches": len(train),
    }
    rows: list[Row] = []
    scores: dict[str, list] = {"labels": labels.tolist()}
    for method in settings.methods:
        start = time.perf_counter()
        chosen = METHODS[method](patches.train, sizes[-1], seed).indices
        seconds = time.perf_counter() - start
        bank = train[chosen]
        radii = nested_min_distances(probe, bank, sizes).max(axis=1)
        scores_by_size = nested_scores(bank, patches.test, sizes)
        for i, ratio in enumerate(ratios):
            scores[score_name(method, ratio)] = scores_by_size[i].tolist()
            rows.append(
                {
                    "method": method,
                    "compression_ratio": ratio,
                    "auroc": image_auroc(labels, scores_by_size[i]),
                    "memory_reduction": len(train) / sizes[i],
                    "bank_size": sizes[i],
                    "radius": float(radii[i]),
                    "seconds": seconds,
                    **counts,
                }
            )
        rows[-1]["rank_correlation"] = usefulness(weights[chosen], bank, patches.test)
    return rows, scores


def nested_scores(bank: np.ndarray, test: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Image scores by the first rows of a bank, at each of these sizes.

    Parameters
    ----------
    bank : array of shape (rows, channels)
    test : array of shape (images, rows, columns, channels)
    sizes : increasing sequence of int

    Returns
    -------
    array of shape (sizes, images)
    """
    distances = nested_min_distances(flatten(test), bank, sizes)
    return distances.reshape(len(sizes), len(test), -1).max(axis=2)


def usefulness(weights: np.ndarray, bank: np.ndarray, test: np.ndarray) -> float | None:
    """Spearman's correlation of a bank row's weight with how often it decides an image.

    A row decides an image if it is the nearest row of the image's worst patch.

    Parameters
    ----------
    weights : array of shape (rows,)
    bank : array of shape (rows, channels)
    test : array of shape (images, rows, columns, channels)

    Returns
    -------
    float or None
        None if all weights, or all counts, are equal.
    """
    distances, nearest = ExactIndex().fit(bank).query(flatten(test))
    worst_patch = distances.reshape(len(test), -1).argmax(axis=1)
    deciding_rows = nearest.reshape(len(test), -1)[np.arange(len(test)), worst_patch]
    counts = np.bincount(deciding_rows, minlength=len(bank))
    if np.ptp(weights) == 0 or np.ptp(counts) == 0:
        return None
    return float(spearmanr(weights, counts).statistic)


def rows_by_seed(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The rows of all tasks that finished, one per category, method, ratio and seed."""
    rows = [row for outcome in outcomes if outcome.finished for row in outcome.rows]
    return pd.DataFrame(rows, columns=COLUMNS_BY_SEED)


def mean_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Means over the seeds, one row per category, method and ratio.

    Returns
    -------
    DataFrame
        `COLUMNS`, and the Interval itself.
    """
    rows = []
    groups = rows_by_seed(outcomes).groupby(["category", "method", "compression_ratio"], sort=False)
    for (category, method, ratio), seeds in groups:
        collected = collect_scores(outcomes, score_name(method, ratio), category=category)
        assert collected is not None  # the rows of these tasks are there
        interval = auroc_interval(*collected)
        row = seeds.iloc[0].to_dict()
        row["auroc"] = interval.estimate
        row["low"] = max(0.0, interval.low)
        row["high"] = min(1.0, interval.high)
        row["interval"] = interval
        row["n_seeds"] = len(seeds)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, "interval"])


def results_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The content of results_all_methods.csv: the mean table, then what failed and why."""
    means = mean_table(outcomes)[COLUMNS].to_dict("records")
    failures = [row for outcome in outcomes if not outcome.finished for row in outcome.rows]
    return pd.DataFrame([*means, *failures], columns=COLUMNS)


def compare(outcomes: Sequence[Outcome], one: str, other: str) -> pd.DataFrame:
    """Paired differences in image AUROC between two methods, `one` minus `other`.

    For each category and ratio, for each category over its ratios, and over all categories; see
    `statistics.compare`.
    """
    cases = {}
    categories = {}
    for category, rows in rows_by_seed(outcomes).groupby("category", sort=False):
        pairs = {}
        for ratio in rows["compression_ratio"].unique():
            kinds = [{"kind": score_name(m, ratio), "category": category} for m in (one, other)]
            pair = paired_scores(outcomes, *kinds)
            if pair is not None:
                pairs[f"{category} at {ratio:.2%}"] = pair
        cases.update(pairs)
        if pairs:
            labels, scores, other_scores = zip(*pairs.values(), strict=True)
            categories[category] = labels[0], np.array(scores), np.array(other_scores)
    return statistics.compare(cases, categories)


def selection_seconds(outcomes: Sequence[Outcome]) -> pd.Series:
    """Median seconds that each method took to choose the largest coreset."""
    return rows_by_seed(outcomes).groupby("method", sort=False)["seconds"].median()


def correlations(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Mean and range over seeds of `usefulness`, by method and category."""
    rows = rows_by_seed(outcomes).dropna(subset="rank_correlation")
    groups = rows.groupby(["method", "category"], sort=False)["rank_correlation"]
    return groups.agg(["mean", "min", "max"]).reset_index()


def summary(outcomes: Sequence[Outcome], one: str = "v2_variance", other: str = "v1_random") -> str:
    """The text of exp2_summary.txt: over all, by category, by ratio; all computed."""
    comparison = compare(outcomes, one, other)
    means = mean_table(outcomes)
    lines = [
        f"Experiment 2: {one} against {other}",
        f"{len(comparison)} comparisons, intervals corrected for their number",
        "",
        summarize(comparison, one, other),
    ]
    for title, column in (("By category", "category"), ("By ratio", "compression_ratio")):
        aurocs = means.pivot_table("auroc", column, "method", sort=False).round(4)
        lines += ["", f"{title}, mean image AUROC", aurocs.to_string()]
    lines += ["", "All comparisons", comparison.round(4).to_string(index=False)]
    did_not_run = [row["status"] for o in outcomes if not o.finished for row in o.rows]
    return "\n".join([*lines, "", *did_not_run]).rstrip() + "\n"


@dataclass(frozen=True)
class Picks:
    """What weighted k-center chooses with one exponent of the weights.

    Attributes
    ----------
    rows : int array of shape (largest size,)
        Rows of the training patches in the order in which they were chosen.
    aurocs : list of float
        Image AUROC at every bank size.
    """

    rows: np.ndarray
    aurocs: list


def picks_by_exponent(
    patches: Patches, exponents: Sequence[float], sizes: Sequence[int], seed: int = 0
) -> dict[float, Picks]:
    """Weighted k-center with several exponents: what is chosen, and the AUROC at every size.

    Parameters
    ----------
    patches : Patches
    exponents : sequence of float
        0 is plain k-center.
    sizes : increasing sequence of int
        Bank sizes, rows.
    seed : int
    """
    results = {}
    for exponent in exponents:
        coreset = variance_weighted_k_center(
            patches.train, sizes[-1], exponent=exponent, random_state=seed
        )
        bank = flatten(patches.train)[coreset.indices]
        scores_by_size = nested_scores(bank, patches.test, sizes)
        aurocs = [image_auroc(patches.images.labels, scores) for scores in scores_by_size]
        results[exponent] = Picks(coreset.indices, aurocs)
    return results
