"""What the answers to the exercises of notebook 6 are checked with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from patchcore_helpers.core.index import make_index
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement
from patchcore_helpers.experiments import exp3

SMALLER = 15  # times, in memory, that the reader's own index has to be
LOSS = 0.03  # image AUROC that it may lose


def index_bytes() -> Cases:
    """Codes, row numbers, centers and codebooks, each counted in bytes."""
    for rows, width, clusters, m, bits in [(209, 152, 100, 8, 4), (20480, 152, 100, 8, 8)]:
        codes = rows * m * bits // 8
        row_numbers = 8 * rows
        centers = 4 * width * clusters
        codebooks = 4 * width * 2**bits
        expected = codes + row_numbers + centers + codebooks
        yield f"{rows} rows, m={m} and {bits} bits", (rows, width, clusters, m, bits), expected


def recall_at_one() -> Cases:
    """Hits counted patch by patch; about six in ten of the first rows are the true ones."""
    random = np.random.default_rng(0)
    for n, k in [(10, 1), (50, 3), (200, 5)]:
        found = random.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :k]
        exact = np.where(random.random(n) < 0.6, found[:, 0], random.integers(0, 9, n))
        hits = [int(row[0]) == int(true) for row, true in zip(found, exact, strict=True)]
        yield f"{n} patches and k={k}", (exact, found), sum(hits) / n


def as_good_as_exact() -> Cases:
    """Intervals on either side of the margin, and across it."""
    for low, high, margin, expected in [
        (-0.010, 0.020, 0.02, "as good"),
        (-0.050, 0.060, 0.02, "undecided"),
        (-0.015, -0.005, 0.02, "as good"),  # surely a little worse, and yet within the margin
        (-0.080, -0.030, 0.02, "worse"),
        (-0.030, -0.010, 0.02, "undecided"),
    ]:
        yield f"[{low}, {high}] and a margin of {margin}", (low, high, margin), expected


def table_distances(
    answer: Callable[..., Any],
    codebooks: np.ndarray,
    codes: np.ndarray,
    queries: np.ndarray,
    squared: np.ndarray,
) -> Judgement:
    """The distances of three queries to all rows, beside FAISS's, which are in float32.

    Parameters
    ----------
    answer : callable
    codebooks : float32 array of shape (parts, codewords, width / parts)
    codes : int array of shape (rows, parts)
    queries : float32 array of shape (n, width)
    squared : float32 array of shape (n, rows)
        Squared distances by FAISS.
    """
    for query, expected in zip(queries[:3], squared[:3], strict=True):
        result = answer(query.copy(), codebooks.copy(), codes.copy())
        if result is ...:
            return Judgement(False, "it returned nothing for one of the queries")
        if np.shape(result) != expected.shape:
            return Judgement(False, f"it gave shape {np.shape(result)}, not {expected.shape}")
        worst = float(np.abs(np.asarray(result, float) - expected).max() / expected.max())
        if not worst < 1e-4:
            return Judgement(False, f"it differs from FAISS by up to {worst:.1%} of the largest")
    n_rows = len(codes)
    return Judgement(True, f"as FAISS computes it, for {n_rows:,} rows and three queries")


def table_distances_context() -> dict[str, Any]:
    """Random codebooks and codes; the distances by decoding every row."""
    random = np.random.default_rng(0)
    codebooks = random.normal(size=(4, 16, 3)).astype(np.float32)
    codes = random.integers(0, 16, size=(50, 4))
    queries = random.normal(size=(3, 12)).astype(np.float32)
    decoded = codebooks[np.arange(4), codes].reshape(50, 12)
    squared = ((queries[:, None] - decoded) ** 2).sum(axis=2)
    return {"codebooks": codebooks, "codes": codes, "queries": queries, "squared": squared}


def best_under_budget(answer: Callable[..., Any], candidates: pd.DataFrame) -> Judgement:
    """Several budgets; the last of them buys nothing.

    Parameters
    ----------
    answer : callable
        Takes candidates, megabytes and milliseconds; returns the name of an index or None.
    candidates : DataFrame
        Columns index, resident_mb, search_time_ms, selection and judged.
    """
    middle = candidates[["resident_mb", "search_time_ms"]].median()
    largest = candidates[["resident_mb", "search_time_ms"]].max()
    budgets = [(1.0, float(largest.iloc[1])), tuple(middle), tuple(largest), (0.0, 0.0)]
    offered = candidates[["index", "resident_mb", "search_time_ms", "selection"]]
    remark = ""
    for megabytes, milliseconds in budgets:
        result = answer(offered.copy(), megabytes, milliseconds)
        best = None
        for row in candidates.itertuples():
            fits = row.resident_mb <= megabytes and row.search_time_ms <= milliseconds
            if fits and (best is None or row.selection > best.selection):
                best = row
        if result != (best.index if best else None):
            expected = best.index if best else None
            budget = f"{megabytes:.2f} MB and {milliseconds:.2f} ms"
            return Judgement(False, f"for {budget} it gave {result}, not {expected}")
        if best and not remark:
            remark = (
                f"with {megabytes:g} MB it is {best.index}: {best.selection:+.3f} on the images "
                f"that it was selected on, {best.judged:+.3f} on the others"
            )
    return Judgement(True, remark or "nothing fits into 1 MB here, and you say so")


def best_under_budget_context() -> dict[str, Any]:
    """Four made-up indexes; the best on one half is not the best on the other."""
    rows = [
        ("A", 0.2, 1.0, -0.02, 0.01),
        ("B", 0.9, 2.0, 0.01, -0.02),
        ("C", 3.0, 9.0, 0.02, 0.00),
        ("D", 0.8, 8.0, 0.00, 0.02),
    ]
    columns = ["index", "resident_mb", "search_time_ms", "selection", "judged"]
    return {"candidates": pd.DataFrame(rows, columns=columns)}


def my_index(answer: Callable[..., Any], bank: np.ndarray, reference: exp3.Reference) -> Judgement:
    """The reader's index, measured in memory and by AUROC.

    Parameters
    ----------
    answer : callable
        Returns how many times fewer rows, and the options of `make_index`.
    bank : float32 array of shape (rows, width)
    reference : Reference
        Exact search of the whole bank.
    """
    fewer, options = answer()
    if not isinstance(options, Mapping | str):
        return Judgement(False, "return a number and a dict, such as 4, {'kind': 'ivf_sq8'}")
    variant = exp3.Variant(dict(kind=options) if isinstance(options, str) else dict(options))
    stored = bank[: max(1, len(bank) // int(fewer))]
    result = exp3.measure_index(make_index(variant.options).fit(stored), reference)
    flat = make_index("flat").fit(bank).resident_bytes / 1e6
    smaller = flat / result.measures["resident_mb"]
    lost = -result.measures["difference"]
    remark = (
        f"{smaller:.1f} times smaller in memory, {lost:+.3f} image AUROC lost on "
        f"{len(reference.labels)} images, {result.measures['recall_at_1']:.0%} of the nearest rows "
        f"found; asked for: {SMALLER} times smaller, at most {LOSS} lost"
    )
    return Judgement(bool(smaller >= SMALLER and lost <= LOSS), remark)


def my_index_context() -> dict[str, Any]:
    """Vectors on a few hundred places with noise, so that codes and few rows both serve."""
    random = np.random.default_rng(0)
    places = random.normal(size=(60, 40))
    bank = (places[np.arange(3000) % 60] + random.normal(0, 0.1, (3000, 40))).astype(np.float32)
    labels = np.repeat([0, 1], 10)
    queries = places[random.integers(60, size=(20, 4, 4))] + random.normal(0, 0.1, (20, 4, 4, 40))
    queries[labels == 1, 0, 0] += 0.5  # a defect
    queries = queries.astype(np.float32)
    return {"bank": bank, "reference": exp3.search_exactly(bank, queries, labels)}
