"""Experiment 3: how small and how fast can the memory bank get before detection suffers?"""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.evaluation import median_seconds
from patchcore_helpers.core.index import Index, IndexRefused, make_index
from patchcore_helpers.core.index.faiss_indexes import IVFIndex
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.data.category import Category
from patchcore_helpers.experiments import common
from patchcore_helpers.experiments.common import ImageSettings, flatten, load_patches
from patchcore_helpers.experiments.grid import Row, Task

# fmt: off
COLUMNS = [
    "category", "search_method", "pq_bits", "nprobe", "image_auroc", "memory_mb",  # the source's
    "search_time_ms", "speedup", "memory_reduction", "accuracy_loss_percent",
    "speedup_over_flat", "recall_at_1", "difference", "low", "high", "build_seconds",
    "bank_size", "n_test", "n_clusters", "m", "seed", "status",
]
MEASURES = [
    "image_auroc", "memory_mb", "search_time_ms", "speedup", "memory_reduction",
    "accuracy_loss_percent", "speedup_over_flat", "recall_at_1", "difference", "build_seconds",
]
# fmt: on
TIMINGS = ["search_time_ms", "speedup", "speedup_over_flat", "build_seconds"]
EXACT_METHODS = ["sklearn", "flat"]
CLAIMS = {
    "speedup": ("100 to 160 times", "speedup"),
    "memory": ("8 times less", "memory_reduction"),
    "accuracy loss (%)": ("below 5 %", "accuracy_loss_percent"),
}
TOLERANCE = 0.003  # image AUROC that an index may lose and still be called as good as exact search
SMALL = 20  # times smaller than the flat index: small enough for an edge device
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
    """

    image_size: int = 256
    backbone: str = "efficientnet_lite0"
    bank_ratio: float = 0.1
    bits: Sequence[int] = (4, 8, 16)
    nprobes: Sequence[int] = (1, 4, 8, 16)
    n_clusters: int = 100
    m: int = 8
    n_threads: int = 1


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
    """

    images: Category
    bank: np.ndarray
    queries: np.ndarray


def load_bank(settings: Settings, category: str, seed: int) -> BankAndQueries:
    """A bank of training patches, chosen by greedy k-center, and the test images' patches."""
    patches = load_patches(settings, settings.backbone, category)
    train = flatten(patches.train)
    size = max(1, round(settings.bank_ratio * len(train)))
    bank = train[k_center_greedy(train, size, random_state=seed).indices]
    return BankAndQueries(patches.images, bank, patches.test)


def index_sweep(settings: Settings) -> Iterator[tuple[dict, Sequence[int | None]]]:
    """The indexes of the experiment: settings as `make_index` takes them, and their nprobes."""
    lists = {"n_clusters": settings.n_clusters}
    yield {"kind": "flat"}, [None]
    for bits in settings.bits:
        yield {"kind": "ivf_pq", "bits": bits, "m": settings.m, **lists}, settings.nprobes
    # Fast-scan's codes of four bits are half as long, so a vector can be cut into more parts.
    for n_clusters in (settings.n_clusters, 2 * settings.n_clusters):
        for m in (2 * settings.m, 5 * settings.m // 2):
            yield {"kind": "ivf_pq_fast", "m": m, "n_clusters": n_clusters}, settings.nprobes[:2]
    every_second = settings.nprobes[1::2] or settings.nprobes
    yield {"kind": "ivf_sq8", **lists}, every_second
    yield {"kind": "ivf_pq_refined", "m": settings.m, **lists}, every_second
    yield {"kind": "hnsw"}, [None]


def search_milliseconds(
    index: Index, patches: np.ndarray, n_threads: int, repeats: int = 7
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


def search_exactly(
    bank: np.ndarray, queries: np.ndarray, labels: np.ndarray, n_threads: int = 1
) -> Reference:
    """Search a bank with FAISS's flat index."""
    patch_scores, nearest = search_images(make_index("flat").fit(bank), queries)
    return Reference(labels, queries, patch_scores, nearest, n_threads)


@dataclass(frozen=True)
class IndexResult:
    """What an index answers, and what it costs.

    Attributes
    ----------
    measures : dict
        Image AUROC, its difference from exact search's with an interval, recall at 1, time and
        bytes.
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
        "search_time_ms": search_milliseconds(index, reference.queries[0], reference.n_threads),
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
        Seed of the coreset, and of the training of an index.

    Returns
    -------
    rows : list of dict
        One per index and nprobe; scikit-learn first, FAISS flat second. An index that this bank is
        too small for has a status instead of numbers.
    scores : dict of str to list
        The test images' labels, and their scores by exact search.
    """
    settings = Settings.of(settings)
    data = load_bank(settings, category, seed)
    reference = search_exactly(data.bank, data.queries, data.images.labels, settings.n_threads)
    rows = [_sklearn_row(data.bank, reference)]
    for index_settings, nprobes in index_sweep(settings):
        for row in _index_rows(data.bank, reference, index_settings, nprobes, seed):
            rows.append(row)
            _log_row(category, row)
    _compare_with_exact_search(rows)
    sizes = {"bank_size": len(data.bank), "n_test": len(data.queries)}
    scores = {"labels": reference.labels.tolist(), "exact": reference.scores.tolist()}
    return [sizes | row for row in rows], scores


def _sklearn_row(bank: np.ndarray, reference: Reference) -> Row:
    """Exact search as scikit-learn does it; its answers are those of the reference."""
    index = make_index("sklearn").fit(bank)
    return {
        "search_method": "sklearn",
        "image_auroc": image_auroc(reference.labels, reference.scores),
        "recall_at_1": 1.0,
        "search_time_ms": search_milliseconds(
            index, reference.queries[0], reference.n_threads, repeats=3
        ),
        "memory_mb": bank.nbytes / 1e6,
    }


def _index_rows(
    bank: np.ndarray,
    reference: Reference,
    index_settings: dict,
    nprobes: Sequence[int | None],
    seed: int,
) -> Iterator[Row]:
    """One row per nprobe of an index."""
    row: Row = {
        "search_method": index_settings["kind"],
        "pq_bits": index_settings.get("bits"),
        "m": index_settings.get("m"),
        "n_clusters": index_settings.get("n_clusters"),
    }
    start = time.perf_counter()
    try:
        index = make_index(index_settings, seed).fit(bank)
    except IndexRefused as error:
        for nprobe in nprobes:
            yield {**row, "nprobe": nprobe, "status": f"skipped: {error}"}
        return
    row["build_seconds"] = time.perf_counter() - start
    row["pq_bits"] = getattr(index, "bits", None)  # fast-scan's need not be in the settings
    for nprobe in nprobes:
        if isinstance(index, IVFIndex) and nprobe is not None:
            index.nprobe = nprobe
        yield {**row, "nprobe": nprobe, **measure_index(index, reference).measures}


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
        lost = sklearn["image_auroc"] - row["image_auroc"]
        row["accuracy_loss_percent"] = 100 * lost / sklearn["image_auroc"]


def index_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that hold an index with results (neither exact search nor a skip)."""
    return rows[(rows["status"] == "ok") & ~rows["search_method"].isin(EXACT_METHODS)]


def mean_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over categories and seeds of the indexes that ran everywhere, one row an index."""
    keys = ["search_method", "pq_bits", "m", "n_clusters", "nprobe"]
    groups = index_rows(rows).groupby(keys, dropna=False, sort=False)
    count = groups.size()
    return groups[MEASURES].mean()[count == count.max()].reset_index()


def index_label(row: Mapping[str, Any] | pd.Series) -> str:
    """A short name of an index.

    >>> row = {"search_method": "ivf_pq", "m": 8, "pq_bits": 4, "nprobe": 1, "n_clusters": 100}
    >>> index_label(row)
    'ivf_pq, 8 x 4 bits, 1 of 100 lists'
    """
    words = [row["search_method"]]
    if pd.notna(row["pq_bits"]):
        words.append(f"{row['m']:.0f} x {row['pq_bits']:.0f} bits")
    if pd.notna(row["nprobe"]):
        words.append(f"{row['nprobe']:.0f} of {row['n_clusters']:.0f} lists")
    return ", ".join(words)


def pareto_front(means: pd.DataFrame) -> np.ndarray:
    """Which rows no other row beats in bytes, time and AUROC at once.

    Returns
    -------
    bool array of shape (rows,)
    """
    costs = means[["memory_mb", "search_time_ms", "image_auroc"]].to_numpy() * [1, 1, -1]
    is_no_worse = (costs[:, None] <= costs).all(axis=2)
    is_better_somewhere = (costs[:, None] < costs).any(axis=2)
    return ~(is_no_worse & is_better_somewhere).any(axis=0)


def recommend_index(
    means: pd.DataFrame, tolerance: float = TOLERANCE, smaller: float = SMALL
) -> pd.DataFrame:
    """What to take on an edge device, on a server, for an archive, as far as the table tells.

    Only indexes whose AUROC is at most `tolerance` below exact search's are eligible. Edge: the
    fastest of those at least `smaller` times smaller than flat; server: the fastest; archive: the
    smallest.

    Parameters
    ----------
    means : DataFrame
        What `mean_table` returned.
    tolerance : float
        Image AUROC.
    smaller : float
        Times.

    Returns
    -------
    DataFrame
        One row per place; its `index` is "none" where no index meets the conditions.
    """
    eligible = means[means["difference"] >= -tolerance]
    eligible_and_small = eligible[eligible["memory_reduction"] >= smaller]
    purposes = {
        f"edge (speed, if {smaller}x smaller)": (eligible_and_small, "search_time_ms"),
        "server (speed)": (eligible, "search_time_ms"),
        "archive (bytes)": (eligible, "memory_mb"),
    }
    numbers = ["memory_reduction", "speedup_over_flat", "speedup", "recall_at_1", "difference"]
    rows = []
    for place, (candidates, cost) in purposes.items():
        if candidates.empty:
            rows.append((place, "none", *[None] * len(numbers)))
            continue
        best = candidates.loc[candidates[cost].idxmin()]
        rows.append((place, index_label(best), *best[numbers].tolist()))
    return pd.DataFrame(rows, columns=["place", "index", *numbers])


def best_small_index(
    rows: pd.DataFrame, category: str, smaller: float = SMALL, tolerance: float = TOLERANCE
) -> pd.Series | None:
    """The fastest index of a category that is small and as good as exact search.

    Returns
    -------
    row or None
        Of the indexes `smaller` times smaller than flat, the fastest one whose AUROC is at most
        `tolerance` below exact search's; if there is none, the fastest; None if none is that small.
    """
    of_category = index_rows(rows[rows["category"] == category])
    small = of_category[of_category["memory_reduction"] >= smaller]
    small_and_close = small[small["difference"] >= -tolerance]
    candidates = small if small_and_close.empty else small_and_close
    if candidates.empty:
        return None
    return candidates.loc[candidates["speedup_over_flat"].idxmax()]


def claims_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What the source claimed of IVF-PQ, beside the range measured here over all its settings."""
    measured = rows[(rows["search_method"] == "ivf_pq") & (rows["status"] == "ok")]
    table = [
        (name, claimed, f"{measured[column].min():.2f} to {measured[column].max():.2f}")
        for name, (claimed, column) in CLAIMS.items()
    ]
    return pd.DataFrame(table, columns=["", "claimed", "measured"])


def summary(rows: pd.DataFrame, tolerance: float = TOLERANCE) -> str:
    """The text of the eighth panel."""
    n_skipped = (rows["status"] != "ok").sum()
    sizes = f"{rows['bank_size'].min():,.0f} to {rows['bank_size'].max():,.0f}"
    lines = [
        f"{rows['category'].nunique()} categories, banks of {sizes} rows",
        f"within {tolerance} image AUROC of exact search:",
    ]
    for row in recommend_index(mean_table(rows), tolerance).itertuples():
        lines.append(f"- {row.place}: {row.index}")
        if row.index != "none":
            lines.append(
                f"    {row.memory_reduction:.0f}x smaller, {row.speedup_over_flat:.1f}x flat's "
                f"speed, {row.difference:+.4f}"
            )
    lines.append(f"{n_skipped} of {len(rows)} rows could not run")
    return "\n".join(lines)


def build_index_grid(
    bank: np.ndarray, reference: Reference, settings: Settings, seed: int
) -> dict[tuple[str, int], IndexResult]:
    """What indexes of several kinds, m and bits answer at every nprobe; for the notebook's slider.

    Parameters
    ----------
    bank : float32 array of shape (rows, channels)
    reference : Reference
    settings : Settings
        Of which `n_clusters` and `nprobes` count here.
    seed : int
        Seed of the training of an index.

    Returns
    -------
    dict of (name, nprobe) to IndexResult
        An index that the bank is too small for is left out.
    """
    lists = {"n_clusters": settings.n_clusters}
    grid = {
        f"{kind}, {m} x {bits} bits": {"kind": kind, "m": m, "bits": bits, **lists}
        for kind, bits in (("ivf_pq", 4), ("ivf_pq_fast", 4), ("ivf_pq", 8))
        for m in (8, 20)
    }
    grid["ivf_sq8"] = {"kind": "ivf_sq8", **lists}
    grid["hnsw"] = {"kind": "hnsw"}

    results: dict[tuple[str, int], IndexResult] = {}
    for name, index_settings in grid.items():
        try:
            index = make_index(index_settings, seed).fit(bank)
        except IndexRefused:
            continue
        if isinstance(index, IVFIndex):
            for nprobe in settings.nprobes:
                index.nprobe = nprobe
                results[name, nprobe] = measure_index(index, reference)
        else:  # the same whatever the slider says
            results |= dict.fromkeys(
                [(name, nprobe) for nprobe in settings.nprobes], measure_index(index, reference)
            )
    return results
