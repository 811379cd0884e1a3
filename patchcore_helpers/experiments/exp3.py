"""Experiment 3: how small and how fast can the memory bank get before detection suffers?"""

import logging
import os
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from threadpoolctl import threadpool_limits

from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.evaluation import median_seconds
from patchcore_helpers.core.index import IndexRefused, make_index
from patchcore_helpers.core.metrics import auroc_interval, image_auroc
from patchcore_helpers.course import plots
from patchcore_helpers.experiments.exp2 import flat, load_patches, make_tasks  # noqa: F401

COLUMNS = [
    *("category", "search_method", "pq_bits", "nprobe", "image_auroc", "memory_mb"),
    *("search_time_ms", "speedup", "memory_reduction", "accuracy_loss_percent"),
    *("speedup_over_flat", "recall_at_1", "difference", "low", "high", "build_seconds"),
    *("bank_size", "n_test", "n_clusters", "m", "seed", "status"),
]
TIMINGS = ["search_time_ms", "speedup", "speedup_over_flat", "build_seconds"]
CLAIMS = {
    "speedup": ("100 to 160 times", "speedup"),
    "memory": ("8 times less", "memory_reduction"),
    "accuracy loss (%)": ("below 5 %", "accuracy_loss_percent"),
}
MARKERS = {"ivf_pq": "o", "ivf_pq_fast": "s", "ivf_sq8": "D", "ivf_pq_refined": "^", "hnsw": "v"}
BITS_COLORS = {4: plots.BLUE, 8: plots.VERMILION, 16: plots.GREEN}
log = logging.getLogger(__name__)


@contextmanager
def log_to(folder, timestamp):
    """Write the experiment's log to ``exp3_<timestamp>.log``; to nowhere without a folder."""
    path = os.devnull
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


def sweep(bits, nprobes, n_clusters, m):
    """The searches of the experiment: settings as `make_index` takes them, and their nprobes."""
    lists = {"n_clusters": n_clusters}
    yield {"kind": "flat"}, [None]
    for b in bits:
        yield {"kind": "ivf_pq", "bits": b, "m": m, **lists}, nprobes
    for clusters in (n_clusters, 2 * n_clusters):  # fast-scan's half bytes afford more parts
        for parts in (2 * m, 5 * m // 2):
            yield {"kind": "ivf_pq_fast", "m": parts, "n_clusters": clusters}, nprobes[:2]
    for settings in ({"kind": "ivf_sq8"}, {"kind": "ivf_pq_refined", "m": m}):
        yield settings | lists, nprobes[1::2] or nprobes
    yield {"kind": "hnsw"}, [None]


@lru_cache(maxsize=1)
def load_bank(category, data_dir, backbone, image_size, bank_ratio, max_train, max_test, use_cache,
              seed):  # fmt: skip
    """Images, test patches (images, rows, columns, c), and the bank, greedy k-center of a ratio."""
    images, train, test = load_patches(
        category, data_dir, backbone, image_size, max_train, max_test, use_cache
    )
    patches = flat(train)
    size = max(1, round(bank_ratio * len(patches)))
    return images, test, patches[k_center_greedy(patches, size, random_state=seed).indices]


def timed(search, patches, n_threads, repeats=7):
    """Median milliseconds of a search after one that is not counted, on so many threads."""
    with threadpool_limits(n_threads):
        return 1000 * median_seconds(search.query, flat(patches), repeats=repeats)


def score(search, test):
    """Image scores (the largest distance of a patch), and the nearest row of every patch."""
    distances, rows = search.query(flat(test))
    return distances.reshape(len(test), -1).max(1), rows[:, 0]


def run_task(category, seed, bits=(4, 8, 16), nprobes=(1, 4, 8, 16), n_clusters=100, m=8,
             n_threads=1, bank_ratio=0.1, data_dir="data", backbone="efficientnet_lite0",
             image_size=256, max_train=0, max_test=0, use_cache=True):  # fmt: skip
    """Search one bank in every way, beside exact search by scikit-learn and by FAISS flat."""
    images, test, bank = load_bank(
        category, data_dir, backbone, image_size, bank_ratio, max_train, max_test, use_cache, seed
    )
    slow = timed(make_index("sklearn").fit(bank), test[0], n_threads, repeats=3)
    exact, nearest = score(make_index("flat").fit(bank), test)
    auroc = image_auroc(images.labels, exact)
    common = {"bank_size": len(bank), "n_test": len(test), "m": None, "n_clusters": None}
    known = {"search_method": "sklearn", "image_auroc": auroc, "recall_at_1": 1.0, **common}
    rows = [known | {"search_time_ms": slow, "memory_mb": bank.nbytes / 1e6}]
    for settings, probes in sweep(bits, nprobes, n_clusters, m):
        named = {"search_method": settings["kind"], "pq_bits": settings.get("bits"), **common}
        named |= {key: settings.get(key) for key in ("m", "n_clusters")}
        start = time.perf_counter()
        try:
            search = make_index(settings, seed).fit(bank)
        except IndexRefused as error:
            reason = f"skipped: {error}"
            rows += [named | {"nprobe": p, "status": reason} for p in probes]
            log.info("%s, %s: %s", category, settings["kind"], reason)
            continue
        named |= {"build_seconds": time.perf_counter() - start}
        named |= {"pq_bits": getattr(search, "bits", 0) or None}
        for nprobe in probes:
            if nprobe:
                search.nprobe = nprobe
            row = named | measure(search, images.labels, test, exact, nearest, n_threads)
            rows.append(row | {"nprobe": nprobe})
            log.info("%s, %s, bits %s, nprobe %s: AUROC %.4f, %.2f ms, %.3f MB", category,
                     row["search_method"], row["pq_bits"], nprobe, row["image_auroc"],
                     row["search_time_ms"], row["memory_mb"])  # fmt: skip
    flat_row = rows[1]
    for row in rows:
        if "status" not in row:
            row["speedup"] = slow / row["search_time_ms"]
            row["speedup_over_flat"] = flat_row["search_time_ms"] / row["search_time_ms"]
            row["memory_reduction"] = flat_row["memory_mb"] / row["memory_mb"]
            row["accuracy_loss_percent"] = 100 * (auroc - row["image_auroc"]) / auroc
    return rows, {"labels": images.labels.tolist(), "exact": exact.tolist()}


def measure(search, labels, test, exact, nearest, n_threads):
    """AUROC, its difference from exact search with an interval, recall, time and bytes."""
    scores, rows = score(search, test)
    found = auroc_interval(labels, scores, exact)
    return {
        "image_auroc": image_auroc(labels, scores),
        "memory_mb": search.nbytes / 1e6,
        "search_time_ms": timed(search, test[0], n_threads),
        "recall_at_1": float(np.mean(rows == nearest)),
        **{"difference": found.estimate, "low": found.low, "high": found.high},
    }


def indexes(rows):
    """The rows of the table that hold an index with results (neither exact search nor a skip)."""
    return rows[(rows["status"] == "ok") & ~rows["search_method"].isin(["sklearn", "flat"])]


def averaged(rows):
    """Means over categories and seeds of the indexes that ran everywhere, one row an index."""
    keys = ["search_method", "pq_bits", "m", "n_clusters", "nprobe"]
    numbers = [*COLUMNS[4:13], "build_seconds"]
    groups = indexes(rows).groupby(keys, dropna=False, sort=False)
    count = groups.size()
    return groups[numbers].mean()[count == count.max()].reset_index()


def label(row):
    """A short name of an index.

    >>> row = {"search_method": "ivf_pq", "m": 8, "pq_bits": 4, "nprobe": 1, "n_clusters": 100}
    >>> label(row)
    'ivf_pq, 8 x 4 bits, 1 of 100 lists'
    """
    words = [row["search_method"]]
    if pd.notna(row["pq_bits"]):
        words.append(f"{row['m']:.0f} x {row['pq_bits']:.0f} bits")
    if pd.notna(row["nprobe"]):
        words.append(f"{row['nprobe']:.0f} of {row['n_clusters']:.0f} lists")
    return ", ".join(words)


def pareto(table):
    """Which rows no other row beats in bytes, time and AUROC at once.

    Returns
    -------
    bool array
    """
    points = table[["memory_mb", "search_time_ms", "image_auroc"]].to_numpy() * [1, 1, -1]
    no_worse = (points[:, None] <= points).all(2)
    better = (points[:, None] < points).any(2)
    return ~(no_worse & better).any(0)


def choose(table, tolerance=0.003, smaller=20):
    """What to take, as far as the table goes: on the edge, on a server, for archives.

    Only indexes whose AUROC is at most `tolerance` below exact search's come into question. Edge:
    the fastest of those at least `smaller` times smaller than flat; server: the fastest; archive:
    the smallest.

    Returns
    -------
    DataFrame
        One row per place; its `index` is "none" where no index meets the conditions.
    """
    fit = table[table["difference"] >= -tolerance]
    small = fit[fit["memory_reduction"] >= smaller]
    places = {
        f"edge (speed, if {smaller}x smaller)": (small, "search_time_ms"),
        "server (speed)": (fit, "search_time_ms"),
        "archive (bytes)": (fit, "memory_mb"),
    }
    rows = []
    numbers = ["memory_reduction", "speedup_over_flat", "speedup", "recall_at_1", "difference"]
    for place, (some, column) in places.items():
        best = some.loc[some[column].idxmin()] if len(some) else None
        values = [None] * len(numbers) if best is None else best[numbers].tolist()
        rows.append((place, "none" if best is None else label(best), *values))
    return pd.DataFrame(rows, columns=["place", "index", *numbers])


def claims_table(rows):
    """What the source claimed of IVF-PQ, beside the range measured here over all its settings."""
    ran = rows[(rows["search_method"] == "ivf_pq") & (rows["status"] == "ok")]
    table = [
        (what, claimed, f"{ran[column].min():.2f} to {ran[column].max():.2f}")
        for what, (claimed, column) in CLAIMS.items()
    ]
    return pd.DataFrame(table, columns=["", "claimed", "measured"])


def summary(rows, tolerance=0.003):
    """The text of the eighth panel."""
    chosen = choose(averaged(rows), tolerance)
    skipped = rows[rows["status"] != "ok"]
    sizes = f"{rows['bank_size'].min():,.0f} to {rows['bank_size'].max():,.0f}"
    lines = [f"{rows['category'].nunique()} categories, banks of {sizes} rows"]
    lines.append(f"within {tolerance} image AUROC of exact search:")
    for row in chosen.itertuples():
        lines.append(f"- {row.place}: {row.index}")
        if row.index != "none":
            gain = f"{row.memory_reduction:.0f}x smaller, {row.speedup_over_flat:.1f}x flat's speed"
            lines.append(f"    {gain}, {row.difference:+.4f}")
    lines.append(f"{len(skipped)} of {len(rows)} rows could not run")
    return "\n".join(lines)


def comprehensive_figure(rows):
    """The eight panels; those against nprobe show IVF-PQ's means over the categories."""
    table = averaged(rows)
    pq = table[table["search_method"] == "ivf_pq"]
    figure, axes = plt.subplots(4, 2, figsize=(11, 14.5))
    _by_category(axes[0, 0], rows)
    for ax, column, text in (
        (axes[0, 1], "speedup", "speed-up over scikit-learn (times)"),
        (axes[1, 0], "memory_reduction", "bytes of flat / bytes (times)"),
        (axes[1, 1], "accuracy_loss_percent", "loss of image AUROC (%)"),
    ):
        for bits, some in pq.groupby("pq_bits"):
            ax.plot(some["nprobe"], some[column], "o-", color=BITS_COLORS.get(int(bits)),
                    label=f"{bits:.0f} bits")  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set(xlabel="nprobe: clusters visited", ylabel=text)
        ax.set_xticks(sorted(set(pq["nprobe"])), [f"{n:.0f}" for n in sorted(set(pq["nprobe"]))])
        ax.legend()
    plots.log_scale(axes[0, 1].yaxis)
    axes[1, 1].axhline(0, color="0.6", lw=1)
    for ax, column, text in (
        (axes[2, 0], "search_time_ms", "search per image (ms)"),
        (axes[2, 1], "speedup", "speed-up over scikit-learn (times)"),
    ):
        _heat_map(ax, pq.pivot_table(column, "pq_bits", "nprobe"), text, figure)
    _scatter(axes[3, 0], table, rows)
    axes[3, 1].set_axis_off()
    axes[3, 1].legend(handles=_legend(), ncols=3, fontsize=9, loc="lower left")
    axes[3, 1].text(0, 1, summary(rows), va="top", fontsize=9, linespacing=1.4)
    return figure


def _by_category(ax, rows):
    exact = rows[rows["search_method"] == "sklearn"].groupby("category", sort=False)
    best = indexes(rows).groupby("category")
    found = {"exact": exact["image_auroc"].mean(), "best index": best["image_auroc"].max()}
    table = pd.DataFrame(found).reindex(rows["category"].unique()).rename_axis("category")
    table = table.reset_index().melt("category", var_name="kind", value_name="auroc")
    plots.bars_from_chance(ax, table, "kind", {"exact": plots.BLACK, "best index": plots.SKY})
    for bars in ax.containers:
        labels = [f"{0.5 + bar.get_width():.3f}" for bar in bars]
        ax.bar_label(bars, labels, fontsize=7, padding=2)
    ax.tick_params("y", labelsize=9)
    ax.set(xlabel="image AUROC (bars start at chance)", xlim=(0.5, 1.1))
    ax.set_ylim(len(exact) - 0.5, -0.5 - 0.25 * len(exact))
    ax.legend(loc="upper right", ncols=2, fontsize=9)


def _heat_map(ax, values, text, figure):
    drawn = ax.imshow(values, cmap="viridis", aspect="auto", norm=LogNorm())
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        if np.isfinite(value):
            ax.text(column, row, f"{value:.3g}", ha="center", va="center",
                    bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 2})  # fmt: skip
    ax.set_xticks(range(values.shape[1]), [f"{n:.0f}" for n in values.columns])
    ax.set_yticks(range(values.shape[0]), [f"{b:.0f}" for b in values.index])
    ax.set(xlabel="nprobe: clusters visited", ylabel="bits per code")
    plots.log_scale(figure.colorbar(drawn, ax=ax, label=text).ax.yaxis)


def _scatter(ax, table, rows):
    for kind, some in table.groupby("search_method", sort=False):
        colors = [BITS_COLORS.get(b, plots.PURPLE) for b in some["pq_bits"].fillna(0).astype(int)]
        ax.scatter(some["speedup"], some["image_auroc"], s=45, c=colors, marker=MARKERS[kind],
                   edgecolor="white", lw=0.5, label=kind)  # fmt: skip
    exact = rows.loc[rows["search_method"] == "sklearn", "image_auroc"].mean()
    ax.axhline(exact, color=plots.BLACK, ls="--", lw=1.2)
    plots.log_scale(ax.xaxis)
    ax.set(xlabel="speed-up over scikit-learn (times)", ylabel="image AUROC")


def category_figure(rows):
    """Speed-up against AUROC, a panel per category, colored by bits; exact search dashed."""
    categories = rows.groupby("category", sort=False)
    height = -(-len(categories) // 3)
    figure, axes = plt.subplots(height, 3, figsize=(11, 3.4 * height + 0.6), squeeze=False)
    for ax in axes.flat[len(categories) :]:
        ax.set_axis_off()
    for ax, (category, some) in zip(axes.flat, categories, strict=False):
        _scatter(ax, indexes(some), some)
        ax.set_title(category)
    figure.legend(handles=_legend(), fontsize=9, ncols=5, loc="outside lower center")
    return figure


def _legend():
    shapes = [plt.Line2D([], [], marker=m, ls="", color="0.4", label=k) for k, m in MARKERS.items()]
    paints = {f"{bits} bits": color for bits, color in BITS_COLORS.items()}
    for name, color in (paints | {"other": plots.PURPLE}).items():
        shapes.append(plt.Line2D([], [], marker="o", ls="", color=color, label=name))
    return [*shapes, plt.Line2D([], [], color=plots.BLACK, ls="--", lw=1.2, label="exact search")]


def pareto_figure(table):
    """Bytes against time of every index, the AUROC in color; the front is ringed and joined."""
    figure, ax = plt.subplots(figsize=(9, 4.2))
    drawn = ax.scatter(table["memory_mb"], table["search_time_ms"], c=table["difference"], s=60,
                       cmap="viridis", zorder=3)  # fmt: skip
    front = table[pareto(table)].sort_values("memory_mb")
    ax.scatter(front["memory_mb"], front["search_time_ms"], s=150, facecolor="none",
               edgecolor=plots.DEFECT, lw=1.5, zorder=2, label="on the front")  # fmt: skip
    plots.log_scale(ax.xaxis)
    plots.log_scale(ax.yaxis)
    ax.set(xlabel="serialized index (MB)", ylabel="search per image (ms)")
    ax.legend()
    figure.colorbar(drawn, label="image AUROC minus exact")
    return figure


def recall_figure(table):
    """Recall against the AUROC difference from exact search: they are not the same thing."""
    figure, ax = plt.subplots(figsize=(8.5, 3.8))
    for kind, some in table.groupby("search_method", sort=False):
        ax.scatter(some["recall_at_1"], some["difference"], s=55, marker=MARKERS[kind], label=kind)
    ax.axhline(0, color=plots.BLACK, lw=1, ls="--")
    ax.set(xlabel="recall@1: share of patches whose nearest row is found",
           ylabel="image AUROC minus exact")  # fmt: skip
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def map_view(sample, exact, found, row):
    """A heat map by exact search beside the one of an index, and what the table says of it."""
    limits = float(np.median(exact)), float(exact.max())
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), width_ratios=(1, 1, 1.1))
    for ax, values, title in ((axes[0], exact, "exact"), (axes[1], found, row["index"])):
        scale = plots.overlay(ax, sample.read(), values, limits, title)
    figure.colorbar(scale, ax=axes[:2], label="anomaly map (L2 distance)")
    lines = [
        f"image AUROC   {row['image_auroc']:.4f} ({row['difference']:+.4f})",
        f"recall@1      {row['recall_at_1']:.3f}",
        f"search        {row['search_time_ms']:.2f} ms per image",
        f"index         {row['memory_mb']:.3f} MB",
    ]
    axes[2].text(0, 0.5, "\n".join(lines), family="monospace", va="center", fontsize=10)
    axes[2].set_axis_off()
    return figure


def build_ladder(bank, labels, test, seed, n_clusters, nprobes, n_threads):
    """Indexes for the interactive figure, and what each does at every nprobe.

    Returns
    -------
    built : dict of name to search
    facts : dict of (name, nprobe) to dict
        As `measure` gives it, with the index's name.
    """
    lists = {"n_clusters": n_clusters}
    kinds = {
        f"{kind}, {m} x {bits} bits": {"kind": kind, "m": m, "bits": bits, **lists}
        for kind, bits in (("ivf_pq", 4), ("ivf_pq_fast", 4), ("ivf_pq", 8))
        for m in (8, 20)
    } | {"ivf_sq8": {"kind": "ivf_sq8", **lists}, "hnsw": {"kind": "hnsw"}}
    built, facts = {}, {}
    exact, nearest = score(make_index("flat").fit(bank), test)
    for name, settings in kinds.items():
        try:
            built[name] = search = make_index(settings, seed).fit(bank)
        except IndexRefused:  # a small bank has fewer choices
            continue
        row = None
        for nprobe in nprobes:
            if hasattr(search, "nprobe"):
                search.nprobe, row = nprobe, None
            row = row or measure(search, labels, test, exact, nearest, n_threads)
            facts[name, nprobe] = {"index": name, **row}
    return built, facts


def find_best(rows, category, smaller=20, tolerance=0.003):
    """The fastest index of a category that is small and as good as exact search.

    Returns
    -------
    row or None
        Of the indexes `smaller` times smaller than flat, the fastest one whose AUROC is at most
        `tolerance` below exact search's; if there is none, the fastest; None if none is so small.
    """
    some = indexes(rows[rows["category"] == category])
    some = some[some["memory_reduction"] >= smaller]
    close = some[some["difference"] >= -tolerance]
    some = close if len(close) else some
    return some.loc[some["speedup_over_flat"].idxmax()] if len(some) else None
