"""Experiment 2: does it help to prefer patches of high variance when the coreset is chosen?

Solar cells are tested on stretches of files that their banks have not seen (`load_elpv_folds`):
each category is then a few *folds*, and only images of one fold are compared with each other. Every
test image is scored twice: by its worst patch, and by its worst patch *inside* the outermost ring
of patches, where the zeros beyond the border shorten the vectors (see `variance_weights`).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from patchcore_helpers.core.intervals import Interval, auroc_interval, grouped_auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.traps import image_traits
from patchcore_helpers.core.variance_weights import variance_weights
from patchcore_helpers.data.category import Category
from patchcore_helpers.data.elpv import ELPV_NAMES, load_elpv_folds
from patchcore_helpers.experiments import common, statistics
from patchcore_helpers.experiments.common import (
    ImageSettings,
    Patches,
    extract_patches,
    flatten,
    load_images,
    make_extractor,
)
from patchcore_helpers.experiments.grid import Outcome, Row, Task, to_csv
from patchcore_helpers.experiments.statistics import (
    collect_scores,
    paired_scores,
    summarize,
    tabulate_intervals,
)
from patchcore_helpers.files import atomic_write
from patchcore_helpers.validation import check_choice

# fmt: off
SOURCE_COLUMNS = ["category", "method", "compression_ratio", "auroc", "memory_reduction"]
COLUMNS_BY_SEED = [
    *SOURCE_COLUMNS, "seed", "n_folds", "n_train", "n_test", "n_patches", "bank_size", "radius",
    "seconds", "ring_share", "hottest_in_ring", "rank_correlation", "rank_correlation_limit",
    "weight_auroc", "status",
]
COLUMNS = [*SOURCE_COLUMNS, "low", "high", "n_seeds", "n_train", "n_test", "bank_size", "status"]
# fmt: on
TIMINGS = ["seconds"]
PROBE_PATCHES = 10_000  # the coverage radius is measured on about this many training patches
RING = 1  # patches: how far the zeros beyond the border reach into the grid
WHOLE, INSIDE = "all patches", "without the ring"  # where the worst patch of an image is looked for
SCORED = (WHOLE, INSIDE)
WEIGHTLESS = ("v1_random", "k_center")  # their banks show what variance is worth: it had no say


def v1_random(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The source's baseline: patches drawn at random."""
    return random_coreset(flatten(patches), n_centers, random_state=seed)


def k_center(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """Plain greedy k-center, the method that PatchCore uses."""
    return k_center_greedy(flatten(patches), n_centers, random_state=seed)


def v2_variance(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The source's proposal: k-center weighted by the variance across the training images."""
    return variance_weighted_k_center(patches, n_centers, random_state=seed)


def v2_even_border(patches: np.ndarray, n_centers: int, seed: int) -> Coreset:
    """The same, with the weights of the outermost ring taken over from the patches inside it."""
    return variance_weighted_k_center(patches, n_centers, random_state=seed, border_ring=RING)


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
    "v2_even_border": v2_even_border,
    "v2_neighborhood": v2_neighborhood,
    "v2_literal": v2_literal,
}

# What the methods are called in words. The keys above follow the names of the source's files.
PLAIN_NAMES = {
    "v1_random": "random",
    "k_center": "k-center",
    "v2_variance": "variance-weighted",
    "v2_even_border": "variance-weighted, border evened out",
    "v2_neighborhood": "neighborhood-weighted",
    "v2_literal": "spread-weighted",
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
    split : "stretch" or "random"
        How solar cells are split; other categories have a split of their own. With "stretch", every
        fold has `max_train` training images, and `max_test` is shared evenly among the folds.
    n_folds : int, from 2
        Stretches of files, each of which is the test of one fold.
    """

    backbone: str = "efficientnet_lite0"
    methods: Sequence[str] = ("v1_random", "k_center", "v2_variance", "v2_literal")
    ratios: Sequence[float] = (0.005, 0.01, 0.05)
    n_folds: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for method in self.methods:
            check_choice(method, "methods", tuple(METHODS))


def make_tasks(settings: Settings, categories: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """One task per category and seed; each serves all methods and ratios. See `run_task`."""
    return common.make_tasks(settings, category=categories, seed=seeds)


def score_name(method: str, ratio: float, scored: str = WHOLE) -> str:
    """The key of an outcome's scores by one method at one ratio.

    Examples
    --------
    >>> score_name("k_center", 0.05), score_name("k_center", 0.05, INSIDE)
    ('k_center 0.05', 'k_center 0.05 without the ring')
    """
    name = f"{method} {ratio:g}"
    return name if scored == WHOLE else f"{name} {scored}"


def load_folds(settings: Settings, category: str) -> list[Category]:
    """The images of a category, in as many folds as the split has: one, but for solar cells."""
    if settings.split != "stretch" or category not in ELPV_NAMES:
        return [load_images(settings, category)]
    folds = load_elpv_folds(category, settings.n_folds)
    test_per_fold = math.ceil(settings.max_test / settings.n_folds)
    return [fold.limit(settings.max_train, test_per_fold) for fold in folds]


def run_task(
    settings: Settings | Mapping[str, Any], category: str, seed: int
) -> tuple[list[Row], dict[str, list]]:
    """Choose one order of patches per method, and score the test images at every ratio.

    The score is PatchCore's: the largest distance of a patch to its nearest one in the bank. Every
    fold has a bank of its own; a row holds the means over the folds.

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
        The test images' labels, their folds under "groups", and their scores by `score_name`.
    """
    settings = Settings.of(settings)
    measured = []
    extractor = make_extractor(settings, settings.backbone)
    for number, images in enumerate(load_folds(settings, category)):
        patches = extract_patches(extractor, images)
        rows, scores = measure_fold(settings, patches, seed)
        scores["groups"] = np.full(len(images.test), number)
        measured.append((rows, scores))
    all_scores = [scores for _, scores in measured]
    joined = {
        name: np.concatenate([scores[name] for scores in all_scores]).tolist()
        for name in all_scores[0]
    }
    return join_rows([rows for rows, _ in measured]), joined


def join_rows(by_fold: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows of several folds as one: the means, but the sum of the test images and of the seconds.

    Examples
    --------
    >>> row = {"method": "k_center", "auroc": 0.8, "n_test": 10, "seconds": 1.0}
    >>> join_rows([[row], [{**row, "auroc": 0.9}]])
    [{'method': 'k_center', 'auroc': 0.85, 'n_test': 20, 'seconds': 2.0, 'n_folds': 2}]
    """
    sums = ("n_test", "seconds")
    joined = []
    for same in zip(*by_fold, strict=True):
        row = dict(same[0])
        for name in row:
            values = [fold[name] for fold in same if fold.get(name) is not None]
            if name in sums:
                row[name] = sum(values)
            elif values and not isinstance(values[0], str):
                mean = float(np.mean(values))
                row[name] = round(mean) if isinstance(values[0], int) else round(mean, 12)
        joined.append({**row, "n_folds": len(by_fold)})
    return joined


def measure_fold(
    settings: Settings, patches: Patches, seed: int
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows and scores of one bank for each method; see `run_task`."""
    train = flatten(patches.train)
    ratios = sorted(settings.ratios)
    sizes = [max(1, round(ratio * len(train))) for ratio in ratios]
    probe = train[:: max(1, len(train) // PROBE_PATCHES)]
    weights = variance_weights(patches.train)
    in_ring = ring_of(patches.train.shape[1:3])
    labels = patches.images.labels
    counts = {
        "n_train": len(patches.train),
        "n_test": len(patches.test),
        "n_patches": len(train),
    }
    rows: list[Row] = []
    scores = {"labels": labels}
    for method in settings.methods:
        start = time.perf_counter()
        chosen = METHODS[method](patches.train, sizes[-1], seed).indices
        seconds = time.perf_counter() - start
        bank = train[chosen]
        radii = nested_min_distances(probe, bank, sizes).max(axis=1)
        distances = nested_distances(bank, patches.test, sizes)
        picked_in_ring = in_ring.ravel()[chosen % in_ring.size]
        for i, ratio in enumerate(ratios):
            scores[score_name(method, ratio)] = distances[i].max(axis=(1, 2))
            scores[score_name(method, ratio, INSIDE)] = inside(distances[i]).max(axis=(1, 2))
            rows.append(
                {
                    "method": method,
                    "compression_ratio": ratio,
                    "auroc": image_auroc(labels, scores[score_name(method, ratio)]),
                    "memory_reduction": len(train) / sizes[i],
                    "bank_size": sizes[i],
                    "radius": float(radii[i]),
                    "seconds": seconds,
                    "ring_share": float(picked_in_ring[: sizes[i]].mean()),
                    "hottest_in_ring": hottest_in_ring(distances[i][labels == 0]),
                    **counts,
                }
            )
        if method in WEIGHTLESS:
            rows[-1].update(usefulness(weights[chosen], bank, patches.test, labels))
    return rows, scores


def ring_of(grid: tuple[int, int]) -> np.ndarray:
    """Which patches of a grid are in its outermost ring, bool of shape (rows, columns)."""
    in_ring = np.ones(grid, bool)
    inside(in_ring[None])[:] = False
    return in_ring


def inside(maps: np.ndarray) -> np.ndarray:
    """Maps of shape (images, rows, columns) without their outermost ring; a view.

    Grids that are nothing but a ring stay as they are.
    """
    if min(maps.shape[1:3]) <= 2 * RING:
        return maps
    return maps[:, RING:-RING, RING:-RING]


def hottest_in_ring(distances: np.ndarray) -> float:
    """Share of images whose largest distance is in the outermost ring; (images, rows, columns)."""
    return float(np.mean(distances.max(axis=(1, 2)) > inside(distances).max(axis=(1, 2))))


def nested_distances(bank: np.ndarray, test: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Distances to the nearest of the first rows of a bank, at each of these sizes.

    Parameters
    ----------
    bank : array of shape (rows, channels)
    test : array of shape (images, rows, columns, channels)
    sizes : increasing sequence of int

    Returns
    -------
    array of shape (sizes, images, rows, columns)
    """
    distances = nested_min_distances(flatten(test), bank, sizes)
    return distances.reshape(len(sizes), *test.shape[:3])


def usefulness(
    weights: np.ndarray, bank: np.ndarray, test: np.ndarray, labels: np.ndarray
) -> dict[str, float | None]:
    """Does the weight of a bank row say whether the row is useful?

    A row decides an image if it is the nearest row of the image's worst patch. A bank has many more
    rows than there are test images, so most rows decide none and are tied. With so many ties not
    even weights in perfect order reach a rank correlation of 1.

    Parameters
    ----------
    weights : array of shape (rows,)
    bank : array of shape (rows, channels)
    test : array of shape (images, rows, columns, channels)
    labels : array of 0 and 1, shape (images,)

    Returns
    -------
    dict
        - rank_correlation: Spearman's, of the weight and the number of images that a row decides;
        - rank_correlation_limit: the largest that this correlation could be, for weights in the
          order of these numbers;
        - weight_auroc: the chance that a row which decides a defective image weighs more than a row
          which decides none; ties count half.

        None where all weights, or all numbers of images, are equal, or no such row exists.
    """
    distances, nearest = ExactIndex().fit(bank).query(flatten(test))
    worst_patch = distances.reshape(len(test), -1).argmax(axis=1)
    deciding_rows = nearest.reshape(len(test), -1)[np.arange(len(test)), worst_patch]
    counts = np.bincount(deciding_rows, minlength=len(bank))
    names = ("rank_correlation", "rank_correlation_limit", "weight_auroc")
    if np.ptp(weights) == 0 or np.ptp(counts) == 0:
        return dict.fromkeys(names)

    decides_defective = np.bincount(deciding_rows[labels == 1], minlength=len(bank)) > 0
    asked = decides_defective | (counts == 0)
    in_order = spearmanr(np.sort(weights), np.sort(counts)).statistic
    values = (
        float(spearmanr(weights, counts).statistic),
        float(in_order),
        image_auroc(decides_defective[asked].astype(int), weights[asked]),
    )
    return dict(zip(names, values, strict=True))


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
        interval = interval_within_folds(*collected, folds_of(outcomes, category))
        row = seeds.iloc[0].to_dict()
        row["auroc"] = interval.estimate
        row["low"] = max(0.0, interval.low)
        row["high"] = min(1.0, interval.high)
        row["interval"] = interval
        row["n_seeds"] = len(seeds)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*COLUMNS, "interval"])


def overview(outcomes: Sequence[Outcome], floor: pd.DataFrame) -> pd.DataFrame:
    """Image AUROC of every category and method, means over ratios and seeds, beside the floor.

    Parameters
    ----------
    outcomes : sequence of Outcome
    floor : DataFrame
        What `floor_table` returned.
    """
    rows = rows_by_seed(outcomes)
    sizes = rows.groupby("category", sort=False)[["n_folds", "n_test"]].first()
    aurocs = rows.pivot_table("auroc", "category", "method", sort=False)
    floor_aurocs = floor.set_index("category")["auroc"].rename("darkest point")
    return sizes.join(aurocs.rename(columns=PLAIN_NAMES)).join(floor_aurocs)


def write_results(outcomes: Sequence[Outcome], folder: str | Path) -> None:
    """Write results_all_methods.csv into a folder; the empty string writes nothing."""
    if folder:
        rows = results_table(outcomes).to_dict("records")
        atomic_write(Path(folder) / "results_all_methods.csv", to_csv(rows, COLUMNS))


def results_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The content of results_all_methods.csv: the mean table, then what failed and why."""
    means = mean_table(outcomes)[COLUMNS].to_dict("records")
    failures = [row for outcome in outcomes if not outcome.finished for row in outcome.rows]
    return pd.DataFrame([*means, *failures], columns=COLUMNS)


def folds_of(outcomes: Sequence[Outcome], category: str) -> np.ndarray | None:
    """The fold of every test image of a category; None if there is only one."""
    collected = collect_scores(outcomes, "groups", category=category)
    if collected is None:
        return None
    folds = collected[1][0]
    return folds if np.ptp(folds) else None


def interval_within_folds(
    labels: np.ndarray,
    scores: np.ndarray,
    folds: np.ndarray | None,
    other: np.ndarray | None = None,
) -> Interval:
    """`auroc_interval`, or where there are folds, the mean of their AUROCs.

    Folds have banks of their own, so images of different folds are not compared.
    """
    if folds is None:
        return auroc_interval(labels, scores, other)
    return grouped_auroc_interval(labels, scores, folds, other)


def compare(
    outcomes: Sequence[Outcome], one: str, other: str, scored: str = WHOLE, cases: bool = True
) -> pd.DataFrame:
    """Paired differences in image AUROC between two methods, `one` minus `other`.

    Parameters
    ----------
    outcomes : sequence of Outcome
    one, other : str
        Methods.
    scored : "all patches" or "without the ring"
        Where the worst patch of an image is looked for.
    cases : bool
        Whether each ratio of a category is a row of its own.

    Returns
    -------
    DataFrame
        As `statistics.compare` returns it: a row for each category and ratio, for each category
        over its ratios, and for all categories.

    Raises
    ------
    InputError
        If there is no pair.
    """
    by_case: list[tuple[str, str, Interval]] = []
    by_category: list[tuple[str, str, Interval]] = []
    for category, rows in rows_by_seed(outcomes).groupby("category", sort=False):
        folds = folds_of(outcomes, str(category))
        pairs = {}
        for ratio in rows["compression_ratio"].unique():
            kinds = [
                {"kind": score_name(method, ratio, scored), "category": category}
                for method in (one, other)
            ]
            pair = paired_scores(outcomes, *kinds)
            if pair is not None:
                pairs[ratio] = pair
        for ratio, (labels, scores, other_scores) in pairs.items():
            interval = interval_within_folds(labels, scores, folds, other_scores)
            by_case.append(("case", f"{category} at {ratio:.2%}", interval))
        if pairs:
            labels, scores, other_scores = map(np.array, zip(*pairs.values(), strict=True))
            interval = interval_within_folds(labels[0], scores, folds, other_scores)
            by_category.append(("category", str(category), interval))
    return tabulate_intervals([*(by_case if cases else []), *by_category])


def compare_all(
    outcomes: Sequence[Outcome],
    pairs: Sequence[tuple[str, str]],
    primary: tuple[str, str],
    with_cases: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:
    """All comparisons of a page, corrected for the number of all of them.

    Each pair is compared twice, by all patches and without the outermost ring.

    Parameters
    ----------
    outcomes : sequence of Outcome
    pairs : sequence of (one, other)
        Methods.
    primary : (one, other)
        The pair whose mean over the categories, by all patches, is the primary comparison.
    with_cases : sequence of (one, other)
        The pairs whose single ratios are on the page as well, by all patches.

    Returns
    -------
    DataFrame
        As `statistics.correct_over_page` returns it, with the columns one, other and scored.
    """
    tables = {}
    described = {}
    for scored in SCORED:
        for one, other in pairs:
            key = f"{one} - {other}, {scored}"
            cases = scored == WHOLE and (one, other) in with_cases
            tables[key] = compare(outcomes, one, other, scored, cases)
            described[key] = {"one": one, "other": other, "scored": scored}
    page = statistics.correct_over_page(tables, primary=f"{primary[0]} - {primary[1]}, {WHOLE}")
    words = pd.DataFrame([described[key] for key in page["comparison"]])
    return pd.concat([page, words], axis=1)


def of_pair(page: pd.DataFrame, one: str, other: str, scored: str = WHOLE) -> pd.DataFrame:
    """The rows of one comparison of `compare_all`, as `summarize` takes them."""
    return page[(page["one"] == one) & (page["other"] == other) & (page["scored"] == scored)]


def floor_table(settings: Settings, categories: Sequence[str]) -> pd.DataFrame:
    """What a score that looks for no defect reaches on the same test images.

    The score is minus the darkest point of the image after a blur, see `image_traits`.

    Returns
    -------
    DataFrame
        A row for each category that can be loaded, with the columns category, auroc, low, high.
    """
    rows = []
    for category in categories:
        folds = load_folds(settings, category)
        labels = np.concatenate([fold.labels for fold in folds])
        numbers = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
        samples = [sample for fold in folds for sample in fold.test]
        darkness = -image_traits(samples)["darkest point"].to_numpy()
        groups = numbers if len(folds) > 1 else None
        interval = interval_within_folds(labels, darkness, groups)
        rows.append((category, *interval[:3]))
    return pd.DataFrame(rows, columns=["category", "auroc", "low", "high"])


def selection_seconds(outcomes: Sequence[Outcome]) -> pd.Series:
    """Median seconds that each method took to choose the largest coreset."""
    return rows_by_seed(outcomes).groupby("method", sort=False)["seconds"].median()


def usefulness_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Means over the seeds of what `usefulness` returns, by category and method."""
    columns = ["weight_auroc", "rank_correlation", "rank_correlation_limit"]
    rows = rows_by_seed(outcomes).dropna(subset=columns)
    return rows.groupby(["category", "method"], sort=False)[columns].mean().reset_index()


def ring_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """How much of the bank, and how many hottest patches, lie in the outermost ring, by method.

    Returns
    -------
    DataFrame
        Means over categories, ratios and seeds; columns method, ring_share (of the picks) and
        hottest_in_ring (share of normal test images whose largest distance is there).
    """
    groups = rows_by_seed(outcomes).groupby("method", sort=False)
    return groups[["ring_share", "hottest_in_ring"]].mean().reset_index()


def summary(
    outcomes: Sequence[Outcome],
    comparisons: pd.DataFrame,
    one: str = "v2_variance",
    other: str = "v1_random",
) -> str:
    """The text of exp2_summary.txt: overall, by category, by ratio; all computed.

    Parameters
    ----------
    outcomes : sequence of Outcome
    comparisons : DataFrame
        What `compare_all` returned.
    one, other : str
        The pair of methods that is told.
    """
    comparison = of_pair(comparisons, one, other)
    means = mean_table(outcomes)
    names = PLAIN_NAMES[one], PLAIN_NAMES[other]
    lines = [
        f"Experiment 2: {one} ({names[0]}) against {other} ({names[1]})",
        f"{len(comparisons)} comparisons in all, intervals corrected for their number",
        "",
        summarize(comparison, *names),
    ]
    for title, column in (("By category", "category"), ("By ratio", "compression_ratio")):
        aurocs = means.pivot_table("auroc", column, "method", sort=False).round(4)
        lines += ["", f"{title}, mean image AUROC", aurocs.to_string()]
    did_not_run = [row["status"] for o in outcomes if not o.finished for row in o.rows]
    return "\n".join([*lines, "", *did_not_run]).rstrip() + "\n"


def picks_and_hottest(
    patches: Patches, methods: Sequence[str], ratio: float, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Where the rows of each method's bank come from, and where normal test images score highest.

    Returns
    -------
    picks : dict of method to int array of shape (rows of the bank,)
        Places on the grid: row * columns + column.
    hottest : dict of method to int array of shape (normal test images,)
    """
    train = flatten(patches.train)
    n_rows = max(1, round(ratio * len(train)))
    n_places = int(np.prod(patches.train.shape[1:3]))
    normal = patches.test[patches.images.labels == 0]
    picks, hottest = {}, {}
    for method in methods:
        chosen = METHODS[method](patches.train, n_rows, seed).indices
        distances = nested_distances(train[chosen], normal, [n_rows])[0]
        picks[method] = chosen % n_places
        hottest[method] = distances.reshape(len(normal), -1).argmax(axis=1)
    return picks, hottest


def printed_aurocs(
    outcomes: Sequence[Outcome], n_per_class: int, seed: int
) -> tuple[list[np.ndarray], int]:
    """AUROCs of single banks on a few of their test images, as a table would print them.

    Parameters
    ----------
    outcomes : sequence of Outcome
    n_per_class : int
        Test images of each class; fewer, if there are fewer.
    seed : int
        Of the choice of the images.

    Returns
    -------
    tables : list of float arrays
        One for each category of up to three: an AUROC for each method and ratio, to four decimals.
    n_per_class : int
        How many images there were.
    """
    random = np.random.default_rng(seed)
    by_category = {o.task["category"]: o.scores for o in outcomes if o.finished}
    chosen = list(by_category.values())[:3]
    counts = [np.bincount(np.array(scores["labels"])).min() for scores in chosen]
    n_images = int(min([n_per_class, *counts]))
    tables = []
    for scores in chosen:
        labels = np.array(scores["labels"])
        rows = np.concatenate(
            [random.permutation(np.flatnonzero(labels == label))[:n_images] for label in (0, 1)]
        )
        aurocs = [
            image_auroc(labels[rows], np.array(values)[rows])
            for name, values in scores.items()
            if name not in ("labels", "groups") and not name.endswith(INSIDE)
        ]
        tables.append(np.round(np.array(aurocs, float), 4))
    return tables, n_images


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
        scores_by_size = nested_distances(bank, patches.test, sizes).max(axis=(2, 3))
        aurocs = [image_auroc(patches.images.labels, scores) for scores in scores_by_size]
        results[exponent] = Picks(coreset.indices, aurocs)
    return results
