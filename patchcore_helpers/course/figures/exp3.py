"""Figures of experiment 3: compressed and approximate indexes."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from patchcore_helpers.core.detector import smooth_maps
from patchcore_helpers.course.figures.panels import bars_from_chance, overlay
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    PURPLE,
    SKY,
    VERMILION,
    log_scale,
)
from patchcore_helpers.experiments.exp3 import (
    IndexResult,
    index_rows,
    mean_table,
    summary,
)

MARKERS = {"exact": "v", "ivf_pq": "o", "ivf_pq_fast": "s", "ivf_sq8": "D", "ivf_pq_refined": "^"}
NAMES = {
    "exact": "fewer rows, as they are (exact)",
    "ivf_sq8": "8 bits a number (ivf_sq8)",
    "ivf_pq_fast": "product codes, fast (ivf_pq_fast)",
    "ivf_pq": "product codes (ivf_pq)",
}
KIND_COLORS = {"exact": BLACK, "ivf_sq8": GREEN, "ivf_pq_fast": VERMILION, "ivf_pq": SKY}
BITS_COLORS = {4: BLUE, 8: VERMILION, 16: GREEN}
OTHER_COLOR = PURPLE  # of an index without codes
SPEEDUP = "speed-up over scikit-learn (times)"
NPROBE = "nprobe: clusters visited"


def comprehensive_analysis(rows: pd.DataFrame) -> Figure:
    """The eight panels; those against nprobe show IVF-PQ's means over the categories.

    Parameters
    ----------
    rows : DataFrame
        All rows of the experiment.
    """
    means = mean_table(rows)
    ivf_pq = means[means["search_method"] == "ivf_pq"]
    figure, axes = plt.subplots(4, 2, figsize=(11, 14.5))
    _draw_categories(axes[0, 0], rows)
    _draw_against_nprobe(axes[0, 1], ivf_pq, "speedup", SPEEDUP)
    log_scale(axes[0, 1].yaxis)
    _draw_against_nprobe(axes[1, 0], ivf_pq, "memory_reduction", "file of flat / file (times)")
    _draw_against_nprobe(axes[1, 1], ivf_pq, "accuracy_loss_percent", "loss of image AUROC (%)")
    axes[1, 1].axhline(0, color="0.6", lw=1)
    _draw_heat_map(axes[2, 0], ivf_pq, "search_time_ms", "search per image (ms)")
    _draw_heat_map(axes[2, 1], ivf_pq, "speedup", SPEEDUP)
    _draw_speed_and_auroc(axes[3, 0], means, rows)
    axes[3, 1].set_axis_off()
    axes[3, 1].legend(handles=_legend_handles(rows), ncols=3, fontsize=9, loc="lower left")
    text = axes[3, 1].text(0, 1, summary(rows), va="top", fontsize=9, linespacing=1.4)
    text.set_in_layout(False)  # a long line must not take its room from the panels
    titles = (
        "Exact search and the best index",
        "IVF-PQ: speed",
        "IVF-PQ: bytes of the file",
        "IVF-PQ: what detection loses",
        "IVF-PQ: milliseconds",
        "IVF-PQ: times faster",
        "All indexes",
        "Summary",
    )
    for ax, title in zip(axes.flat, titles, strict=True):
        ax.set_title(title)
    return figure


def _draw_categories(ax: Axes, rows: pd.DataFrame) -> None:
    """AUROC by category: exact search against the best index."""
    exact = rows[rows["search_method"] == "sklearn"].groupby("category")["image_auroc"].mean()
    best = index_rows(rows).groupby("category")["image_auroc"].max()
    aurocs = pd.DataFrame({"exact": exact, "best index": best})
    aurocs = aurocs.reindex(rows["category"].unique()).rename_axis("category").reset_index()
    table = aurocs.melt("category", var_name="kind", value_name="auroc")
    colors = {"exact": BLACK, "best index": SKY}
    for bars in bars_from_chance(ax, table, "kind", colors):
        labels = [f"{0.5 + bar.get_width():.3f}" for bar in bars]
        ax.bar_label(bars, labels, fontsize=7, padding=2)
    ax.tick_params("y", labelsize=9)
    ax.set(xlabel="image AUROC (bars start at chance)", xlim=(0.5, 1.1))
    ax.set_ylim(len(aurocs) - 0.5, -0.5 - 0.25 * len(aurocs))
    ax.legend(loc="upper right", ncols=2, fontsize=9)


def _draw_against_nprobe(ax: Axes, means: pd.DataFrame, column: str, label: str) -> None:
    """A line per number of bits."""
    for bits, rows in means.groupby("pq_bits"):
        color = BITS_COLORS.get(int(bits))
        ax.plot(rows["nprobe"], rows[column], "o-", color=color, label=f"{bits:.0f} bits")
    nprobes = sorted(set(means["nprobe"]))
    ax.set_xscale("log", base=2)
    ax.set(xlabel=NPROBE, ylabel=label)
    ax.set_xticks(nprobes, [f"{nprobe:.0f}" for nprobe in nprobes])
    ax.legend()


def _draw_heat_map(ax: Axes, means: pd.DataFrame, column: str, label: str) -> None:
    """Values by bits and nprobe, written into the cells."""
    values = means.pivot_table(column, "pq_bits", "nprobe")
    drawn = ax.imshow(values, cmap="viridis", aspect="auto", norm=LogNorm())
    background = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 2}
    for (row, column_number), value in np.ndenumerate(values.to_numpy()):
        if np.isfinite(value):
            text = f"{value:.3g}"
            ax.text(column_number, row, text, ha="center", va="center", bbox=background)
    ax.set_xticks(range(values.shape[1]), [f"{nprobe:.0f}" for nprobe in values.columns])
    ax.set_yticks(range(values.shape[0]), [f"{bits:.0f}" for bits in values.index])
    ax.set(xlabel=NPROBE, ylabel="bits per code")
    colorbar = plt.colorbar(drawn, ax=ax, label=label)
    log_scale(colorbar.ax.yaxis)


def _draw_speed_and_auroc(ax: Axes, indexes: pd.DataFrame, rows: pd.DataFrame) -> None:
    """One point per index; exact search is the dashed line."""
    for kind, of_kind in indexes.groupby("search_method", sort=False):
        bits = of_kind["pq_bits"].fillna(0).astype(int)
        ax.scatter(
            of_kind["speedup"],
            of_kind["image_auroc"],
            s=45,
            c=[BITS_COLORS.get(number, OTHER_COLOR) for number in bits],
            marker=MARKERS[str(kind)],
            edgecolor="white",
            lw=0.5,
            label=kind,
        )
    exact = rows.loc[rows["search_method"] == "sklearn", "image_auroc"].mean()
    ax.axhline(exact, color=BLACK, ls="--", lw=1.2)
    log_scale(ax.xaxis)
    ax.set(xlabel=SPEEDUP, ylabel="image AUROC")


def _legend_handles(rows: pd.DataFrame) -> list[Artist]:
    """What the marks of `_draw_speed_and_auroc` mean, of those that ran."""
    ran = index_rows(rows)
    handles: list[Artist] = []
    for kind, marker in MARKERS.items():
        if kind not in set(ran["search_method"]):
            continue
        handles.append(plt.Line2D([], [], marker=marker, ls="", color="0.4", label=kind))
    colors = {
        f"{bits} bits": color for bits, color in BITS_COLORS.items() if bits in set(ran["pq_bits"])
    }
    colors["no codes"] = OTHER_COLOR
    for name, color in colors.items():
        handles.append(plt.Line2D([], [], marker="o", ls="", color=color, label=name))
    handles.append(plt.Line2D([], [], color=BLACK, ls="--", lw=1.2, label="exact search"))
    return handles


def category_analysis(rows: pd.DataFrame) -> Figure:
    """Speed-up against AUROC, a panel per category, colored by bits; exact search dashed."""
    categories = rows.groupby("category", sort=False)
    n_rows = -(-len(categories) // 3)
    figure, axes = plt.subplots(n_rows, 3, figsize=(11, 3.4 * n_rows + 0.6), squeeze=False)
    for ax in axes.flat[len(categories) :]:
        ax.set_axis_off()
    for ax, (category, of_category) in zip(axes.flat, categories, strict=False):
        _draw_speed_and_auroc(ax, index_rows(of_category), of_category)
        ax.set_title(category)
    figure.legend(handles=_legend_handles(rows), fontsize=9, ncols=5, loc="outside lower center")
    return figure


def bytes_time_auroc(comparison: pd.DataFrame, margin: float) -> Figure:
    """What every index costs in bytes and milliseconds, and what it loses: the figure to remember.

    A column per category; above against bytes in memory, below against milliseconds. Points of one
    way to store a row are joined: from the right to the left, the bank has fewer rows. All are of
    the half of the test images that judges.

    Parameters
    ----------
    comparison : DataFrame
        What `exp3.compare_halves` returned.
    margin : float
        Image AUROC that one is ready to lose; drawn as a band.
    """
    categories = comparison["category"].unique()
    width = max(6.0, 3.6 * len(categories))
    figure, axes = plt.subplots(
        2, len(categories), figsize=(width, 6.6), squeeze=False, sharey="col"
    )
    kinds = comparison["index"].str.split(",").str[0]
    for column, category in enumerate(categories):
        for ax, cost in zip(axes[:, column], ("resident_mb", "search_time_ms"), strict=True):
            ax.axhspan(-margin, 0, color="0.92", lw=0)
            ax.axhline(0, color="0.6", lw=1)
            for kind in KIND_COLORS:
                rows = comparison[(comparison["category"] == category) & (kinds == kind)]
                _draw_kind(ax, rows, kind, cost)
            log_scale(ax.xaxis)
        axes[0, column].set_title(category)
        axes[0, column].set_xlabel("held in memory (MB)")
        axes[1, column].set_xlabel("search per image (ms)")
    for ax in axes[:, 0]:
        ax.set_ylabel("image AUROC minus exact\n(half for judging)")
    handles = axes[0, 0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", fontsize=10)
    return figure


def _draw_kind(ax: Axes, rows: pd.DataFrame, kind: str, cost: str) -> None:
    """The indexes of one kind, each with the interval of its loss on the half for judging."""
    rows = rows.sort_values(cost)
    if rows.empty:
        return
    errors = [rows["judged"] - rows["judged_low"], rows["judged_high"] - rows["judged"]]
    ax.errorbar(
        rows[cost],
        rows["judged"],
        yerr=errors,
        color=KIND_COLORS[kind],
        marker=MARKERS[kind],
        ls="-" if kind in ("exact", "ivf_sq8") else "",
        lw=1.5,
        elinewidth=0.8,
        ms=6,
        label=NAMES[kind],
    )


def recall(means: pd.DataFrame) -> Figure:
    """Recall against the AUROC difference from exact search, one point for each index."""
    figure, ax = plt.subplots(figsize=(8.5, 3.8))
    for kind, rows in means.groupby("search_method", sort=False):
        name = "exact, fewer rows" if kind == "exact" else str(kind)
        color = KIND_COLORS.get(str(kind), PURPLE)
        marker = MARKERS[str(kind)]
        ax.scatter(
            rows["recall_at_1"], rows["difference"], s=55, marker=marker, color=color, label=name
        )
    ax.axhline(0, color=BLACK, lw=1, ls="--")
    ax.set_xlabel("recall@1: share of patches whose nearest row of the whole bank is found")
    ax.set_ylabel("image AUROC minus exact")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def excess_distances(errors: pd.DataFrame, name: str) -> Figure:
    """How much farther than the nearest row a wrong neighbor is.

    Parameters
    ----------
    errors : DataFrame
        What `exp3.neighbor_errors` returned.
    name : str
        Of the index.
    """
    wrong = errors[~errors["is_right"]]
    figure, ax = plt.subplots(figsize=(8.5, 3.4))
    limit = max(1.0, 100 * float(wrong["excess"].quantile(0.99))) if len(wrong) else 1.0
    bins = np.linspace(0, limit, 41).tolist()
    for label, color, word in ((0, BLUE, "normal"), (1, DEFECT, "defective")):
        of_class = 100 * wrong.loc[wrong["label"] == label, "excess"]
        weights = np.full(len(of_class), 100 / max(1, len(of_class)))
        ax.hist(
            of_class, bins=bins, weights=weights, histtype="step", lw=2, color=color,
            label=f"patches of {word} images",
        )  # fmt: skip
    ax.set_title(name)
    ax.set_xlabel("wrong neighbor farther than the nearest row by (%)")
    ax.set_ylabel("share of wrong neighbors (%)")
    ax.legend()
    return figure


def index_heat_map(
    sample: Any,
    exact: np.ndarray,
    result: IndexResult,
    shown: int,
    size: tuple[int, int],
    name: str,
) -> Figure:
    """A heat map by exact search beside the one of an index, and what the index costs.

    Parameters
    ----------
    sample : Sample
    exact : float32 array of shape (images, rows, columns)
        Patch scores by exact search.
    result : IndexResult
        As `exp3.measure_index` gives it.
    shown : int
        Which of the images `sample` is.
    size : (height, width), pixels
        Size of the heat maps.
    name : str
        What the index is called.
    """
    maps = smooth_maps(np.stack([exact[shown], result.patch_scores[shown]]), size)
    limits = (float(np.median(maps[0])), float(maps[0].max()))
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), width_ratios=(1, 1, 1.1))
    for ax, anomaly_map, title in zip(axes, maps, ("exact", name), strict=False):
        scale = overlay(ax, sample.read(), anomaly_map, limits, title)
    figure.colorbar(scale, ax=axes[:2], label="anomaly map (L2 distance)")
    axes[2].text(0, 0.5, _facts(result), family="monospace", va="center", fontsize=10)
    axes[2].set_axis_off()
    return figure


def _facts(result: IndexResult) -> str:
    """The measures of an index, a line each."""
    measures = result.measures
    lines: Sequence[str] = [
        f"image AUROC   {measures['image_auroc']:.4f} ({measures['difference']:+.4f})",
        f"recall@1      {measures['recall_at_1']:.3f}",
        f"in memory     {measures['resident_mb']:.3f} MB",
        f"file          {measures['memory_mb']:.3f} MB",
    ]
    return "\n".join(lines)
