"""Figures of experiment 1: backbones compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.core.intervals import Interval
from patchcore_helpers.course.figures.panels import (
    bars_from_chance,
    label_plane,
    overlay,
    show_picture,
)
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    NORMAL,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
)
from patchcore_helpers.experiments.exp1 import DARKEST, domain_means

CYCLE = [BLUE, SKY, VERMILION, GREEN, PURPLE, ORANGE]
FLOOR_COLOR = "0.65"
UNSURE = "0.6"  # of an interval that includes 0


def arm_colors(arms: Sequence[str]) -> dict[str, str]:
    """One color per backbone, the same in all figures; the trivial score is gray."""
    backbones = [arm for arm in arms if arm != DARKEST]
    colors = {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(backbones)}
    return colors | {DARKEST: FLOOR_COLOR}


def two_products(bank: np.ndarray, other: np.ndarray, good: np.ndarray, bad: np.ndarray) -> Figure:
    """Two products in a plane: normal parts of both, new good and defective parts of one.

    Parameters
    ----------
    bank, other, good, bad : arrays of shape (n, 2)
        Normal parts of product A, of product B, new good parts of B, defective parts of B.
    """
    figure, ax = plt.subplots(figsize=(7.5, 3.8))
    looks: list[tuple[np.ndarray, str, dict[str, Any]]] = [
        (bank, "normal A: the wrong bank", {"color": "0.6", "s": 18}),
        (other, "normal B: the right bank", {"color": SKY, "s": 18}),
        (good, "new good B", {"color": NORMAL, "s": 32}),
        (bad, "defective B", {"color": DEFECT, "s": 44, "marker": "X"}),
    ]
    for points, name, look in looks:
        ax.scatter(*points.T, label=name, edgecolor="white", lw=0.4, **look)
    label_plane(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison(
    aurocs: pd.DataFrame,
    differences: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
) -> Figure:
    """The four panels of the experiment: two means, all categories, and what was compared.

    Parameters
    ----------
    aurocs : DataFrame
        What `exp1.auroc_table` returned, of all that ran.
    differences : DataFrame
        Columns comparison, difference, low, high: rows of `correct_over_page`.
    groups : mapping of name to categories
        The two groups.
    """
    colors = arm_colors(aurocs["backbone"].unique().tolist())
    means = domain_means(aurocs, *groups.values())
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.4), layout="constrained")
    for ax, column, name in zip(axes[0], ("in_domain", "cross_domain"), groups, strict=True):
        ran = means[column].dropna()
        _draw_means(ax, ran.to_dict(), colors)
        ax.set_title(f"{name}: mean and 95 % interval")
    bars_from_chance(axes[1, 0], aurocs, "backbone", colors, lw=1.2, upright=True)
    categories = list(aurocs["category"].unique())
    has_room = len(categories) <= 3
    labels = [name.replace("/", "/\n") if has_room else name for name in categories]
    turned = 0 if has_room else 90
    axes[1, 0].set_xticks(range(len(categories)), labels, rotation=turned, fontsize=9)
    axes[1, 0].set(ylabel="image AUROC", title="by category; bars start at chance")
    axes[1, 0].set_ylim(min(0.48, aurocs["low"].min()), 1.02)
    handles, names = axes[1, 0].get_legend_handles_labels()
    _draw_differences(axes[1, 1], differences["comparison"].tolist(), differences)
    axes[1, 1].set_title("paired differences of the means")
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _draw_means(ax: Axes, intervals: Mapping[str, Interval], colors: Mapping[str, str]) -> None:
    """One interval per arm."""
    for row, (name, interval) in enumerate(intervals.items()):
        ax.plot([interval.low, interval.high], [row, row], color=colors[name], lw=3, alpha=0.5)
        ax.plot(interval.estimate, row, "o", ms=9, color=colors[name])
        ax.annotate(
            f"{interval.estimate:.3f}",
            (interval.estimate, row),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
        )
    lows = [interval.low for interval in intervals.values()]
    highs = [interval.high for interval in intervals.values()]
    ax.set_yticks(range(len(intervals)), list(intervals))
    ax.set(xlim=(min(lows) - 0.03, max(highs) + 0.03), ylim=(len(intervals) - 0.4, -0.7))
    ax.set_xlabel("image AUROC (mean over categories)")


def _draw_differences(ax: Axes, names: Sequence[str], rows: pd.DataFrame) -> None:
    """Intervals one below the other; black and filled where they exclude 0, else gray and hollow.

    Without colors, which stand for backbones in the panels beside.
    """
    for place, row in enumerate(rows.itertuples()):
        excludes_zero = row.low > 0 or row.high < 0
        color = BLACK if excludes_zero else UNSURE
        ax.plot([row.low, row.high], [place, place], color=color, lw=3 if excludes_zero else 1.5)
        face = color if excludes_zero else "white"
        ax.plot(row.difference, place, "o", ms=8, color=color, mfc=face)
    ax.axvline(0, color=BLACK, lw=1)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.locator_params(axis="x", nbins=4)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel="difference of image AUROC")


def differences(page: pd.DataFrame, comparisons: Sequence[str]) -> Figure:
    """A panel for each comparison, a row for each category and for their mean.

    Parameters
    ----------
    page : DataFrame
        What `correct_over_page` returned.
    comparisons : sequence of str
        Which of its comparisons, in this order.
    """
    panels = [page[page["comparison"] == name] for name in comparisons]
    height = 0.42 * max(len(rows) for rows in panels) + 1.4
    figure, axes = plt.subplots(
        1, len(panels), figsize=(11, height), squeeze=False, sharex=True, sharey=True
    )
    for ax, name, rows in zip(axes[0], comparisons, panels, strict=True):
        names = ["mean" if row.kind == "all" else row.name for row in rows.itertuples(index=False)]
        _draw_differences(ax, names, rows)
        ax.set_title(name, fontsize=10)
    return figure


def failures(
    samples: Sequence[Any],
    maps: Mapping[str, np.ndarray],
    limits: Mapping[str, tuple[float, float]],
    titles: Mapping[str, Sequence[str]],
) -> Figure:
    """Images in a row; below each, its anomaly map by every backbone.

    Parameters
    ----------
    samples : sequence of Sample
    maps : mapping of backbone to array of shape (n, height, width)
    limits : mapping of backbone to (low, high)
        See `overlay`; distances of different networks have no common scale.
    titles : mapping of backbone to one title per image
    """
    rows = len(maps) + 1
    figure, axes = plt.subplots(rows, len(samples), figsize=(10, 2.25 * rows), squeeze=False)
    for column, sample in enumerate(samples):
        pixels = show_picture(axes[0, column], sample)
        for row, backbone in enumerate(maps, start=1):
            title = titles[backbone][column]
            overlay(axes[row, column], pixels, maps[backbone][column], limits[backbone], title)
    for ax, name in zip(axes[:, 0], ["image", *maps], strict=True):
        ax.text(
            -0.06, 0.5, name, rotation=90, ha="right", va="center",
            fontsize=9, transform=ax.transAxes,
        )  # fmt: skip
        ax.set_yticks([])
    return figure


def rank_pairs(
    labels: np.ndarray, ranks: Mapping[str, np.ndarray], correlation: float, title: str
) -> Figure:
    """Every test image by its rank in two backbones.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    ranks : mapping of two backbones to float arrays of shape (n,)
        From 0, the least suspicious, to 1.
    correlation : float
        Of the ranks.
    title : str
    """
    figure, ax = plt.subplots(figsize=(5.6, 4.6))
    (x_name, x), (y_name, y) = ranks.items()
    for label, name, color in ((0, "normal", NORMAL), (1, "defective", DEFECT)):
        rows = labels == label
        ax.scatter(x[rows], y[rows], s=16, color=color, alpha=0.6, label=name)
    ax.plot([0, 1], [0, 1], color="0.7", lw=1)
    ax.set_title(f"{title}: rank correlation {correlation:+.2f}")
    ax.set(xlabel=f"rank by {x_name}", ylabel=f"rank by {y_name}")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
