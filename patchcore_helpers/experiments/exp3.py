"""Experiment 3: how small and how fast can the memory bank get before detection suffers?"""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.evaluation import median_seconds
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.index import Index, IndexRefused, make_index
from patchcore_helpers.core.index.faiss_indexes import IVFIndex
from patchcore_helpers.core.intervals import (
    Interval,
    auroc_interval,
    grouped_auroc_interval,
    mean_interval,
)
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.data.category import Category
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments import common
from patchcore_helpers.experiments.common import ImageSettings, flatten, load_patches
from patchcore_helpers.experiments.grid import Outcome, Row, Task

# fmt: off
COLUMNS = [
    "category", "search_method", "pq_bits", "nprobe", "image_auroc", "memory_mb",  # the source's
    "search_time_ms", "speedup", "memory_reduction", "accuracy_loss_percent",
    "speedup_over_flat", "resident_mb", "resident_reduction", "recall_at_1",
    "difference", "low", "high", "build_seconds",
    "bank_size", "times_fewer_rows", "n_test", "n_clusters", "m", "seed", "index_seed", "status",
]
COSTS = [
    "memory_mb", "resident_mb", "search_time_ms", "memory_reduction", "resident_reduction",
    "speedup_over_flat",
]
MEASURES = [
    *COSTS, "image_auroc", "speedup", "accuracy_loss_percent", "recall_at_1", "difference",
    "build_seconds",
]
# fmt: on
TIMINGS = ["search_time_ms", "speedup", "speedup_over_flat", "build_seconds"]
EXACT_METHODS = ["sklearn", "flat"]  # of the whole bank; "exact" is that of a smaller one
CLAIMS = {
    "speed-up over scikit-learn": ("100 to 160 times", "speedup"),
    "memory, as bytes of the file": ("8 times less", "memory_reduction"),
    "accuracy loss (%)": ("below 5 %", "accuracy_loss_percent"),
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings(ImageSettings):
    """The bank and the indexes that search it; the rest: `ImageSettings`.

    Parameters
    ----------
    backbone : str
    bank_ratio : float
        Share of the training patches in the bank, by greedy k-center.
    bits : sequence of int
        Bits per code of a product quantizer.
    nprobes : increasing sequence of int
        Clusters that a query visits.
    n_clusters : int
        Inverted lists.
    m : int
        Parts that a vector is cut into.
    n_threads : int
        Threads of every library while it is timed.
    smaller_banks : increasing sequence of int
        How many times fewer rows the smaller banks have.
    index_seeds : int
        How often the smallest kind of index is trained, each time with another seed.
    """

    image_size: int = 256
    backbone: str = "efficientnet_lite0"
    bank_ratio: float = 0.1
    bits: Sequence[int] = (4, 8, 16)
    nprobes: Sequence[int] = (1, 4, 8, 16)
    n_clusters: int = 100
    m: int = 8
    n_threads: int = 1
    smaller_banks: Sequence[int] = (8, 16, 32, 64)
    index_seeds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bits", "nprobes", "smaller_banks"):  # tuples, so that settings have a hash
            object.__setattr__(self, name, tuple(getattr(self, name)))


def make_tasks(settings: Settings, categories: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """One task per category and seed; each serves all indexes. See `run_task`."""
    return common.make_tasks(settings, category=categories, seed=seeds)


@contextmanager
def log_to(folder: str | Path, timestamp: str) -> Iterator[logging.Logger]:
    """Write the experiment's log to ``exp3_<timestamp>.log``; without a folder, to nowhere."""
    path: str | Path = os.devnull
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"exp3_{timestamp}.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class BankAndQueries:
    """What is searched, and what it is searched for.

    Attributes
    ----------
    images : Category
    bank : float32 array of shape (rows, channels)
    queries : float32 array of shape (test images, rows, columns, channels)
    n_threads : int
        Threads of a search while it is timed.
    """

    images: Category
    bank: np.ndarray
    queries: np.ndarray
    n_threads: int

    @cached_property
    def exact(self) -> "Reference":
        """What exact search of the whole bank answers; searched once."""
        return search_exactly(self.bank, self.queries, self.images.labels, self.n_threads)


@lru_cache(maxsize=1)
def load_bank(settings: Settings, category: str, seed: int) -> BankAndQueries:
    """A bank of training patches, chosen by greedy k-center, and the test images' patches.

    The last one is kept, with its exact search: a notebook and its first task need the same.
    """
    patches = load_patches(settings, settings.backbone, category)
    train = flatten(patches.train)
    size = max(1, round(settings.bank_ratio * len(train)))
    bank = train[k_center_greedy(train, size, random_state=seed).indices]
    return BankAndQueries(patches.images, bank, patches.test, settings.n_threads)


@dataclass(frozen=True)
class Variant:
    """An index of the experiment, over the whole bank or over its first rows.

    A bank is in greedy order, so its first rows are the smaller coreset of the same greedy run.

    Attributes
    ----------
    options : dict
        As `make_index` takes them.
    nprobes : sequence of int, or of one None
        Clusters visited, one after the other with the same index; None where there are none.
    times_fewer_rows : int
        The index holds the first 1 / `times_fewer_rows` of the bank.
    n_seeds : int
        How often it is trained, each time with another seed.
    """

    options: dict[str, Any]
    nprobes: Sequence[int | None] = (None,)
    times_fewer_rows: int = 1
    n_seeds: int = 1

    def rows_of(self, bank: np.ndarray) -> np.ndarray:
        """The rows of the bank that this index holds."""
        return bank[: max(1, len(bank) // self.times_fewer_rows)]


def index_sweep(settings: Settings) -> Iterator[Variant]:
    """What is compared with exact search of the whole bank.

    - smaller banks, searched exactly: the rival that needs no codes;
    - IVF-PQ by bits and nprobe, the published sweep;
    - two kinds of code on banks of several sizes, so that rows and bits can be traded;
    - codes that only propose rows, while the true distances decide among them.
    """
    for fewer in settings.smaller_banks:
        yield Variant({"kind": "exact"}, times_fewer_rows=fewer)
    for bits in settings.bits:
        options = {"kind": "ivf_pq", "bits": bits, "m": settings.m}
        yield Variant(options | {"n_clusters": settings.n_clusters}, settings.nprobes)
    several = settings.nprobes[1:2] or settings.nprobes
    for fewer in (1, *settings.smaller_banks[::2]):
        # The number of clusters follows the square root of the number of rows.
        lists = {"n_clusters": max(1, round(settings.n_clusters / fewer**0.5))}
        # Codes of four bits are half as long, so a vector can be cut into more parts.
        fast = {"kind": "ivf_pq_fast", "m": 5 * settings.m // 2, **lists}
        nprobes = settings.nprobes[: 2 if fewer == 1 else 1]
        yield Variant(fast, nprobes, fewer, settings.index_seeds)
        yield Variant({"kind": "ivf_sq8", **lists}, several, fewer)
    lists = {"n_clusters": settings.n_clusters}
    refined = {"kind": "ivf_pq_refined", "m": settings.m, "bits": 4, **lists}
    yield Variant(refined, settings.nprobes[:1])


def search_milliseconds(
    index: Index, patches: np.ndarray, n_threads: int, repeats: int = 5
) -> float:
    """Median milliseconds of a search on `n_threads` threads; a first one is not counted."""
    with threadpool_limits(n_threads):
        return 1000 * median_seconds(index.query, flatten(patches), repeats=repeats)


def search_images(index: Index, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Search the nearest row of every patch.

    Returns
    -------
    patch_scores : float32 array of shape (images, rows, columns)
        Distances to the nearest rows; the largest one of an image is its score.
    nearest : int array of shape (images * rows * columns,)
        Rows of the bank.
    """
    distances, rows = index.query(flatten(queries), k=1)
    return distances.reshape(queries.shape[:-1]), rows[:, 0]


@dataclass(frozen=True)
class Reference:
    """What exact search answers: every index is measured against it.

    Attributes
    ----------
    labels : int array of shape (images,)
    queries : float32 array of shape (images, rows, columns, channels)
    patch_scores : float32 array of shape (images, rows, columns)
    nearest : int array of shape (images * rows * columns,)
    n_threads : int
        Threads of a search while it is timed.
    """

    labels: np.ndarray
    queries: np.ndarray
    patch_scores: np.ndarray
    nearest: np.ndarray
    n_threads: int

    @property
    def scores(self) -> np.ndarray:
        """Image scores, shape (images,)."""
        return self.patch_scores.max(axis=(1, 2))

    def every(self, step: int) -> "Reference":
        """The same of every so many images."""
        nearest = self.nearest.reshape(self.patch_scores.shape)[::step].ravel()
        return Reference(
            self.labels[::step],
            self.queries[::step],
            self.patch_scores[::step],
            nearest,
            self.n_threads,
        )


def search_exactly(
    bank: np.ndarray, queries: np.ndarray, labels: np.ndarray, n_threads: int = 1
) -> Reference:
    """Search the whole bank exactly."""
    patch_scores, nearest = search_images(make_index("exact").fit(bank), queries)
    return Reference(labels, queries, patch_scores, nearest, n_threads)


@dataclass(frozen=True)
class IndexResult:
    """What an index answers, and what it costs.

    Attributes
    ----------
    measures : dict
        Image AUROC, its difference from exact search's with an interval, recall at 1, and bytes.
    patch_scores : float32 array of shape (images, rows, columns)
    """

    measures: Row
    patch_scores: np.ndarray


def measure_index(index: Index, reference: Reference) -> IndexResult:
    """Search with an index and compare it with exact search."""
    patch_scores, nearest = search_images(index, reference.queries)
    scores = patch_scores.max(axis=(1, 2))
    interval = auroc_interval(reference.labels, scores, reference.scores)
    measures = {
        "image_auroc": image_auroc(reference.labels, scores),
        "memory_mb": index.nbytes / 1e6,
        "resident_mb": index.resident_bytes / 1e6,
        "recall_at_1": float(np.mean(nearest == reference.nearest)),
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
    }
    return IndexResult(measures, patch_scores)


def run_task(
    settings: Settings | Mapping[str, Any], category: str, seed: int
) -> tuple[list[Row], dict[str, list]]:
    """Search one bank in every way, beside exact search by scikit-learn and by FAISS flat.

    Parameters
    ----------
    settings : Settings or dict
        As an object, or as a task of the grid holds them.
    category : str
    seed : int
        Seed of the coreset, and the first one of the training of an index.

    Returns
    -------
    rows : list of dict
        One per index, seed of the index and nprobe; scikit-learn first, FAISS flat second. An index
        that this bank is too small for has a status instead of numbers.
    scores : dict of str to list
        The test images' "labels", their "groups" if they have any, their scores by "exact" search,
        and by every index under its `index_label`: one list per seed of the index.
    """
    settings = Settings.of(settings)
    data = load_bank(settings, category, seed)
    reference = data.exact
    scores: dict[str, list] = {
        "labels": reference.labels.tolist(),
        "exact": reference.scores.tolist(),
    }
    if data.images.groups is not None:
        scores["groups"] = data.images.groups.tolist()
    rows = [_exact_row(kind, data.bank, reference) for kind in EXACT_METHODS]
    for variant in index_sweep(settings):
        for row, image_scores in _measure_variant(data.bank, reference, variant, seed):
            rows.append(row)
            _log_row(category, row)
            if image_scores is not None:
                scores.setdefault(index_label(row), []).append(image_scores.tolist())
    _compare_with_exact_search(rows)
    return [{"n_test": len(data.queries)} | row for row in rows], scores


def _exact_row(kind: str, bank: np.ndarray, reference: Reference) -> Row:
    """Exact search by a library; its answers are those of the reference."""
    index = make_index(kind).fit(bank)
    return {
        "search_method": kind,
        "times_fewer_rows": 1,
        "bank_size": len(bank),
        "image_auroc": image_auroc(reference.labels, reference.scores),
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "recall_at_1": 1.0,
        "search_time_ms": search_milliseconds(
            index, reference.queries[0], reference.n_threads, repeats=3
        ),
        "memory_mb": index.nbytes / 1e6,
        "resident_mb": index.resident_bytes / 1e6,
    }


def _measure_variant(
    bank: np.ndarray, reference: Reference, variant: Variant, seed: int
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """A row per seed and nprobe of an index, with its image scores; without, if it cannot run."""
    options = variant.options
    stored = variant.rows_of(bank)
    row: Row = {
        "search_method": options["kind"],
        "pq_bits": options.get("bits"),
        "m": options.get("m"),
        "n_clusters": options.get("n_clusters"),
        "times_fewer_rows": variant.times_fewer_rows,
        "bank_size": len(stored),
    }
    for index_seed in range(seed, seed + variant.n_seeds):
        row["index_seed"] = index_seed
        start = time.perf_counter()
        try:
            with threadpool_limits(reference.n_threads):  # it is timed, as a search is
                index = make_index(options, index_seed).fit(stored)
        except IndexRefused as error:
            for nprobe in variant.nprobes:
                yield {**row, "nprobe": nprobe, "status": f"skipped: {error}"}, None
            return
        row["build_seconds"] = time.perf_counter() - start
        row["pq_bits"] = getattr(index, "bits", None)  # fast-scan's need not be in the options
        for nprobe in variant.nprobes:
            if isinstance(index, IVFIndex) and nprobe is not None:
                index.nprobe = nprobe
            result = measure_index(index, reference)
            time_of_one = search_milliseconds(index, reference.queries[0], reference.n_threads)
            image_scores = result.patch_scores.max(axis=(1, 2))
            measures = {**result.measures, "search_time_ms": time_of_one}
            yield {**row, "nprobe": nprobe, **measures}, image_scores


def _log_row(category: str, row: Row) -> None:
    if "status" in row:
        log.info("%s, %s: %s", category, row["search_method"], row["status"])
        return
    log.info(
        "%s, %s, bits %s, nprobe %s: AUROC %.4f, %.2f ms, %.3f MB",
        category,
        row["search_method"],
        row["pq_bits"],
        row["nprobe"],
        row["image_auroc"],
        row["search_time_ms"],
        row["memory_mb"],
    )


def _compare_with_exact_search(rows: Iterable[Row]) -> None:
    """Add to every row with results how much faster, smaller and worse than exact search it is."""
    measured = [row for row in rows if "status" not in row]
    sklearn, flat = measured[:2]
    for row in measured:
        row["speedup"] = sklearn["search_time_ms"] / row["search_time_ms"]
        row["speedup_over_flat"] = flat["search_time_ms"] / row["search_time_ms"]
        row["memory_reduction"] = flat["memory_mb"] / row["memory_mb"]
        row["resident_reduction"] = flat["resident_mb"] / row["resident_mb"]
        lost = sklearn["image_auroc"] - row["image_auroc"]
        row["accuracy_loss_percent"] = 100 * lost / sklearn["image_auroc"]


def index_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that hold an index with results (neither exact search nor a skip)."""
    return rows[(rows["status"] == "ok") & ~rows["search_method"].isin(EXACT_METHODS)]


def mean_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over categories and seeds of the indexes that ran everywhere, one row an index."""
    keys = ["search_method", "pq_bits", "m", "n_clusters", "nprobe", "times_fewer_rows"]
    groups = index_rows(rows).groupby(keys, dropna=False, sort=False)
    n_categories = groups["category"].nunique()
    return groups[MEASURES].mean()[n_categories == n_categories.max()].reset_index()


def index_label(row: Mapping[str, Any] | pd.Series) -> str:
    """A short name of an index.

    >>> row = {"search_method": "ivf_pq", "m": 8, "pq_bits": 4, "nprobe": 1, "n_clusters": 100}
    >>> index_label(row | {"times_fewer_rows": 1})
    'ivf_pq, 8 x 4 bits, 1 of 100 lists'
    >>> row = {"search_method": "exact", "pq_bits": None, "nprobe": None, "times_fewer_rows": 16}
    >>> index_label(row)
    'exact, 1/16 of the rows'
    """
    words = [row["search_method"]]
    if pd.notna(row["pq_bits"]):
        words.append(f"{row['m']:.0f} x {row['pq_bits']:.0f} bits")
    if pd.notna(row["nprobe"]):
        words.append(f"{row['nprobe']:.0f} of {row['n_clusters']:.0f} lists")
    if row["times_fewer_rows"] > 1:
        words.append(f"1/{row['times_fewer_rows']:.0f} of the rows")
    return ", ".join(words)


# --- Selection on one half of the test images, judgement on the other ---


def selection_half(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which test images an index is selected on; on the others it is judged.

    Whoever picks the best of many indexes and quotes its result on the images that it was picked on
    quotes luck as well. Half of each class, chosen with a seed, is for the choice alone.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    seed : int

    Returns
    -------
    bool array of shape (n,)

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> half = selection_half(labels, seed=0)
    >>> np.bincount(labels[half]).tolist(), np.bincount(labels[~half]).tolist()
    ([2, 1], [2, 1])
    """
    random = np.random.default_rng(seed)
    half = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        half[members[: len(members) // 2]] = True
    return half


def is_as_good(low: float, high: float, margin: float) -> str:
    """Whether an interval of an AUROC difference shows that no more than a margin is lost.

    Parameters
    ----------
    low, high : float
        Ends of the interval.
    margin : float
        The loss that one is ready to accept, fixed before the run.

    Returns
    -------
    "as good", "worse" or "undecided"
        "as good" (statisticians say *non-inferior*) if even the lower end lies above -margin;
        "worse" if even the upper end lies below.

    Examples
    --------
    >>> is_as_good(-0.01, 0.02, 0.015), is_as_good(-0.05, 0.06, 0.015)
    ('as good', 'undecided')
    """
    if low > -margin:
        return "as good"
    return "worse" if high < -margin else "undecided"


def compare_halves(outcomes: Iterable[Outcome], seed: int) -> pd.DataFrame:
    """Every index against exact search of the whole bank, on either half of the test images.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of `run_task`, one per category.
    seed : int
        Of `selection_half`.

    Returns
    -------
    DataFrame
        One row per category and index, in the order of the sweep. `selection` is the difference of
        the image AUROC on the half for selecting (`selection_low`: lower end of its interval);
        `judged`, `judged_low` and `judged_high` are that on the other half, with its interval over
        images and seeds of the index; `lowest` and `highest` span the image AUROC of its seeds on
        all images. Bytes and times are means over those seeds.
    """
    return pd.DataFrame(
        [row for outcome in outcomes if outcome.finished for row in _compare_indexes(outcome, seed)]
    )


def _compare_indexes(outcome: Outcome, seed: int) -> Iterator[Row]:
    """The rows of `compare_halves` of one category."""
    measured = pd.DataFrame(outcome.rows)
    measured = index_rows(measured)
    labels = measured.apply(index_label, axis=1)
    half = selection_half(np.array(outcome.scores["labels"]), seed)
    for label in labels.unique():
        rows = measured[labels == label]
        selected = compare_scores(outcome, label, "exact", half)
        judged = compare_scores(outcome, label, "exact", ~half)
        yield {
            "category": outcome.task["category"],
            "index": label,
            "is_smaller_bank": rows["search_method"].iloc[0] == "exact",
            "n_seeds": len(rows),
            **rows[COSTS].mean(),
            "image_auroc": rows["image_auroc"].mean(),
            "lowest": rows["image_auroc"].min(),
            "highest": rows["image_auroc"].max(),
            "selection": selected.estimate,
            "selection_low": selected.low,
            "judged": judged.estimate,
            "judged_low": judged.low,
            "judged_high": judged.high,
        }


def compare_scores(outcome: Outcome, one: str, other: str, keep: np.ndarray) -> Interval:
    """The image AUROC of one index minus that of another, with an interval.

    Parameters
    ----------
    outcome : Outcome
        Of `run_task`.
    one, other : str
        Entries of its scores: labels of indexes, or "exact".
    keep : bool array of shape (n,)
        The test images that count.
    """
    labels, scores, other_scores = _scores_of_both(outcome, one, other, keep)
    return auroc_interval(labels, scores, other_scores)


def compare_within_stretches(
    outcome: Outcome, one: str, other: str, keep: np.ndarray
) -> Interval | None:
    """As `compare_scores`, comparing only images of one group with each other.

    None where images have no groups, or where these are too small for an interval.
    """
    if "groups" not in outcome.scores:
        return None
    labels, scores, other_scores = _scores_of_both(outcome, one, other, keep)
    groups = np.array(outcome.scores["groups"])[keep]
    try:
        return grouped_auroc_interval(labels, scores, groups, other_scores, weights="pairs")
    except InputError:
        return None


def _scores_of_both(
    outcome: Outcome, one: str, other: str, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (images,) and the scores of two indexes (seeds, images).

    An index that was trained once is paired with every seed of the other.
    """
    labels = np.array(outcome.scores["labels"])[keep]
    scores, other_scores = (
        np.atleast_2d(np.array(outcome.scores[name], float))[:, keep] for name in (one, other)
    )
    n_seeds = max(len(scores), len(other_scores))
    return (
        labels,
        np.broadcast_to(scores, (n_seeds, len(labels))),
        np.broadcast_to(other_scores, (n_seeds, len(labels))),
    )


def recommend_indexes(comparison: pd.DataFrame, margin: float, smaller: float) -> pd.DataFrame:
    """What to take where, selected on one half of the test images and judged on the other.

    Eligible is what shows on the half for selecting that it loses no more than the margin. Edge:
    the fastest of those at least `smaller` times smaller in memory; server: the fastest; archive:
    the smallest file.

    Parameters
    ----------
    comparison : DataFrame
        What `compare_halves` returned.
    margin : float
        Image AUROC.
    smaller : float
        Times smaller in memory than exact search of the whole bank by FAISS.

    Returns
    -------
    DataFrame
        One row per category and place. Where no index is eligible its `index` is "none", its
        numbers are missing and its `verdict` says so.
    """
    eligible = comparison[comparison["selection_low"] > -margin]
    small = eligible[eligible["resident_reduction"] >= smaller]
    purposes = {
        f"edge (speed, if {smaller:g}x smaller)": (small, "search_time_ms"),
        "server (speed)": (eligible, "search_time_ms"),
        "archive (bytes on disk)": (eligible, "memory_mb"),
    }
    numbers = ["resident_reduction", "memory_reduction", "speedup_over_flat"]
    numbers += ["judged", "judged_low", "judged_high"]
    rows = []
    for category in comparison["category"].unique():
        for place, (candidates, cost) in purposes.items():
            of_category = candidates[candidates["category"] == category]
            row: Row = {"category": category, "place": place, "index": "none"}
            row["verdict"] = "no index is eligible"
            if len(of_category):
                best = of_category.loc[of_category[cost].idxmin()]
                row |= {"index": best["index"], **best[numbers]}
                row["verdict"] = is_as_good(best["judged_low"], best["judged_high"], margin)
            rows.append(row)
    return pd.DataFrame(rows, columns=["category", "place", "index", *numbers, "verdict"])


def select_index(
    comparison: pd.DataFrame, category: str, is_smaller_bank: bool, smaller: float
) -> pd.Series | None:
    """The index with the best AUROC on the half for selecting, among those that are small.

    Parameters
    ----------
    comparison : DataFrame
        What `compare_halves` returned.
    category : str
    is_smaller_bank : bool
        Whether to choose among smaller banks searched exactly, or among all other indexes.
    smaller : float
        Times smaller in memory than exact search of the whole bank by FAISS.

    Returns
    -------
    row of `comparison`, or None if nothing is that small
    """
    candidates = comparison[
        (comparison["category"] == category)
        & (comparison["is_smaller_bank"] == is_smaller_bank)
        & (comparison["resident_reduction"] >= smaller)
    ]
    if candidates.empty:
        return None
    return candidates.loc[candidates["selection"].idxmax()]


def codes_against_smaller_banks(
    outcomes: Iterable[Outcome], comparison: pd.DataFrame, smaller: float, seed: int
) -> pd.DataFrame:
    """In the same memory, what is better: many rows as codes, or few rows as they are?

    The best of each kind is selected on one half of the test images; their difference is taken on
    the other.

    Parameters
    ----------
    outcomes : iterable of Outcome
    comparison : DataFrame
        What `compare_halves` made of them with the same seed.
    smaller : float
        Times smaller in memory than exact search of the whole bank by FAISS.
    seed : int

    Returns
    -------
    DataFrame
        One row per category in which both kinds have an index that small: `codes`, `smaller_bank`,
        their bytes, and the AUROC of the codes minus that of the smaller bank: `difference`, `low`,
        `high`, the `verdict` on codes, and `within_stretches`, the same where only images of one
        group are compared.
    """
    rows = []
    for outcome in outcomes:
        if not outcome.finished:
            continue
        category = outcome.task["category"]
        codes = select_index(comparison, category, False, smaller)
        bank = select_index(comparison, category, True, smaller)
        if codes is None or bank is None:
            continue
        judged = ~selection_half(np.array(outcome.scores["labels"]), seed)
        interval = compare_scores(outcome, codes["index"], bank["index"], judged)
        within = compare_within_stretches(outcome, codes["index"], bank["index"], judged)
        rows.append(
            {
                "category": category,
                "codes": codes["index"],
                "codes_mb": codes["resident_mb"],
                "codes_ms": codes["search_time_ms"],
                "smaller_bank": bank["index"],
                "smaller_bank_mb": bank["resident_mb"],
                "smaller_bank_ms": bank["search_time_ms"],
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "verdict": interval.verdict,
                "within_stretches": within.estimate if within else None,
            }
        )
    return pd.DataFrame(rows)


def mean_of_categories(
    outcomes: Iterable[Outcome], against: pd.DataFrame, seed: int
) -> Interval | None:
    """The mean over the categories of codes minus smaller bank, on the half for judging.

    Parameters
    ----------
    outcomes : iterable of Outcome
    against : DataFrame
        What `codes_against_smaller_banks` made of them with the same seed.
    seed : int

    Returns
    -------
    Interval, or None if no category had both
    """
    pairs = {row.category: (row.codes, row.smaller_bank) for row in against.itertuples()}
    intervals = [
        compare_scores(
            outcome,
            *pairs[outcome.task["category"]],
            ~selection_half(np.array(outcome.scores["labels"]), seed),
        )
        for outcome in outcomes
        if outcome.finished and outcome.task["category"] in pairs
    ]
    return mean_interval(intervals) if intervals else None


def both_against_fewer_rows(
    outcomes: Sequence[Outcome], comparison: pd.DataFrame, confidence: float = 0.95
) -> pd.DataFrame:
    """Some rows as bytes, against still fewer rows as they are, in about the same memory.

    Every smaller bank of 8 bits a number is compared with the smaller bank searched exactly that is
    nearest to it in bytes. Nothing is selected by its AUROC, so all test images judge.

    Parameters
    ----------
    outcomes : sequence of Outcome
    comparison : DataFrame
        What `compare_halves` made of them.
    confidence : float in (0, 1)
        That all intervals of the table hold at once (Bonferroni).

    Returns
    -------
    DataFrame
        One row per smaller bank of 8 bits a number that ran in every category: its name
        `eight_bits`, the rival's, `exact`, the mean bytes of both, and the mean over the categories
        of the AUROC of the first minus that of the second: `difference`, `low`, `high`, `verdict`.
    """
    finished = [outcome for outcome in outcomes if outcome.finished]
    ran = comparison.groupby("index", sort=False)["resident_mb"].agg(["mean", "count"])
    megabytes = ran.loc[ran["count"] == len(finished), "mean"]
    smaller = megabytes[megabytes.index.str.contains("of the rows")]
    eight_bits = smaller[smaller.index.str.startswith("ivf_sq8")]
    exact = smaller[smaller.index.str.startswith("exact")]
    rows = []
    for name, size in eight_bits.items() if len(exact) else ():
        rival = np.log(exact / size).abs().idxmin()
        intervals = [
            compare_scores(outcome, name, rival, np.full(len(outcome.scores["labels"]), True))
            for outcome in finished
        ]
        one_of_all = 1 - (1 - confidence) / len(eight_bits)
        mean = mean_interval(intervals).with_confidence(one_of_all)
        measured = (mean.estimate, mean.low, mean.high, mean.verdict)
        rows.append((name, size, rival, exact[rival], *measured))
    columns = ["eight_bits", "eight_bits_mb", "exact", "exact_mb"]
    columns += ["difference", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def rows_against_bits(rows: pd.DataFrame) -> pd.DataFrame:
    """Image AUROC by number of rows and by what a row is stored as; the grid of experiment 3.

    Returns
    -------
    DataFrame
        Index: category and times fewer rows; columns: float32, 8 bits a number, product codes.
    """
    stored_as = {
        "flat": "float32 (exact)",
        "exact": "float32 (exact)",
        "ivf_sq8": "8 bits a number (ivf_sq8)",
        "ivf_pq_fast": "product codes (ivf_pq_fast)",
    }
    measured = rows[(rows["status"] == "ok") & rows["search_method"].isin(stored_as)]
    is_second_nprobe = (measured["search_method"] == "ivf_pq_fast") & (
        measured["nprobe"] > measured["nprobe"].min()
    )
    measured = measured[~is_second_nprobe]
    measured = measured.assign(
        stored_as=measured["search_method"].map(stored_as),
        times_fewer_rows=measured["times_fewer_rows"].astype(int),
    )
    grid = measured.pivot_table(
        "image_auroc", ["category", "times_fewer_rows"], "stored_as", sort=False
    )
    return grid.dropna().rename_axis(columns=None)


# --- Why a wrong neighbor costs little ---


def neighbor_errors(bank: np.ndarray, reference: Reference, index: Index) -> pd.DataFrame:
    """How much farther than the nearest row the rows are that an index returns.

    Returns
    -------
    DataFrame
        One row per patch: `is_right` (the nearest row was returned), `excess` (distance to the row
        returned over that to the nearest, minus 1), `decides` (it has the largest exact distance of
        its image) and `label` of the image.
    """
    _, found = search_images(index, reference.queries)
    queries = flatten(reference.queries)
    nearest = reference.patch_scores.ravel()
    distances = np.linalg.norm(queries - bank[found], axis=1)
    n_images = len(reference.labels)
    by_image = reference.patch_scores.reshape(n_images, -1)
    decides = np.zeros(by_image.shape, bool)
    decides[np.arange(n_images), by_image.argmax(axis=1)] = True
    return pd.DataFrame(
        {
            "is_right": found == reference.nearest,
            "excess": np.maximum(distances / np.maximum(nearest, 1e-12) - 1, 0),
            "decides": decides.ravel(),
            "label": np.repeat(reference.labels, by_image.shape[1]),
        }
    )


# --- With the network ---


def end_to_end(
    settings: Settings, images: Sequence[Any], indexes: Mapping[str, Index]
) -> pd.DataFrame:
    """Milliseconds per image with the network, on all threads of this machine.

    Parameters
    ----------
    settings : Settings
        Of which the backbone and the image size count here.
    images : sequence of samples
    indexes : dict of str to Index
        Fitted; the first one is what the others are compared with.

    Returns
    -------
    DataFrame
        Columns index, network_ms, search_ms, total_ms, and how many times faster than the first
        one: search_gain, total_gain.
    """
    extractor = Extractor(
        load_backbone(settings.backbone), settings.image_size, device=settings.device
    )
    patches = flatten(extractor.extract(images))
    network = 1000 * median_seconds(extractor.extract, images, repeats=3) / len(images)
    rows = []
    for name, index in indexes.items():
        search = 1000 * median_seconds(index.query, patches, repeats=3) / len(images)
        rows.append({"index": name, "network_ms": network, "search_ms": search})
    table = pd.DataFrame(rows)
    table["total_ms"] = table["network_ms"] + table["search_ms"]
    table["search_gain"] = table["search_ms"].iloc[0] / table["search_ms"]
    table["total_gain"] = table["total_ms"].iloc[0] / table["total_ms"]
    return table


# --- Beside what was published ---


def claims_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What the source claimed of IVF-PQ, beside the range measured here over all its settings."""
    measured = rows[(rows["search_method"] == "ivf_pq") & (rows["status"] == "ok")]
    table = [
        (name, claimed, f"{measured[column].min():.2f} to {measured[column].max():.2f}")
        for name, (claimed, column) in CLAIMS.items()
    ]
    return pd.DataFrame(table, columns=["", "claimed", "measured"])


def summary(rows: pd.DataFrame) -> str:
    """The text of the eighth panel."""
    means = mean_table(rows)
    n_skipped = (rows["status"] != "ok").sum()
    sizes = rows["bank_size"].dropna()
    lines = [
        f"{rows['category'].nunique()} categories, banks of up to {sizes.max():,.0f} rows.",
        "Means over the categories, on all test images:",
    ]
    extremes = {
        "fastest": means["search_time_ms"].idxmin(),
        "smallest in memory": means["resident_mb"].idxmin(),
        "best AUROC": means["image_auroc"].idxmax(),
    }
    for name, at in extremes.items():
        best = means.loc[at]
        lines.append(f"- {name}: {index_label(best)}")
        lines.append(
            f"    {best['resident_reduction']:.0f}x smaller and {best['speedup_over_flat']:.1f}x "
            f"faster than flat, {best['difference']:+.4f}"
        )
    lines.append(f"{n_skipped} of the {len(rows)} rows have no result; their status says why")
    return "\n".join(lines)


# --- The notebook's control ---

STORED_AS: dict[str, dict[str, Any]] = {
    "float32, searched exactly": {"kind": "exact"},
    "8 bits a number": {"kind": "ivf_sq8"},
    "20 codes of 4 bits": {"kind": "ivf_pq_fast", "m": 20},
    "8 codes of 4 bits": {"kind": "ivf_pq", "m": 8, "bits": 4},
}


def build_index_grid(
    bank: np.ndarray, reference: Reference, settings: Settings, seed: int
) -> dict[tuple[str, int], IndexResult]:
    """What banks of several sizes answer, their rows stored in several ways.

    Parameters
    ----------
    bank : float32 array of shape (rows, channels)
    reference : Reference
    settings : Settings
        Of which `smaller_banks` and `nprobes` count here.
    seed : int
        Seed of the training of an index.

    Returns
    -------
    dict of (how a row is stored, times fewer rows) to IndexResult
        An index that the bank is too small for is left out.
    """
    results: dict[tuple[str, int], IndexResult] = {}
    for name, options in STORED_AS.items():
        for fewer in (1, *settings.smaller_banks[::2]):
            stored = Variant(options, times_fewer_rows=fewer).rows_of(bank)
            try:
                index = make_index(options, seed).fit(stored)
            except IndexRefused:
                continue
            if isinstance(index, IVFIndex):
                index.nprobe = settings.nprobes[0]
            results[name, fewer] = measure_index(index, reference)
    return results
