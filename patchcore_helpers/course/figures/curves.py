"""Measures against a setting: layers, ratios, sizes, numbers of images."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import Limits, mean_and_range, overlay
from patchcore_helpers.course.figures.style import BLACK, BLUE, DEFECT, ORANGE, SKY, log_scale

SAMPLER_COLORS = {"k_center": BLUE, "random": ORANGE}


def mean_curves(
    table: pd.DataFrame,
    measures: Mapping[str, str],
    x: str = "ratio",
    group: str = "sampler",
    xlabel: str = "coreset ratio",
) -> Figure:
    """Mean and range over seeds of several measures, one line per group, a panel per measure.

    Parameters
    ----------
    table : DataFrame
        Columns `x`, `group`, "seed" and the measures.
    measures : mapping of column to label
    x, group : str
    xlabel : str
    """
    figure, axes = plt.subplots(1, len(measures), figsize=(10, 3.8), squeeze=False)
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        for name, rows in table.groupby(group, sort=False):
            color = SAMPLER_COLORS.get(str(name))
            mean_and_range(ax, rows, x, column, alpha=0.2, label=str(name), color=color)
        log_scale(ax.xaxis, (1, 5))
        ax.set(xlabel=xlabel, ylabel=label)
    axes[0][0].legend()
    return figure


def distortion(true: np.ndarray, projected: Mapping[int, np.ndarray]) -> Figure:
    """How far random projections bend distances: projected over true, by number of dimensions.

    Parameters
    ----------
    true : array of shape (pairs,)
    projected : mapping of int to array of shape (pairs,)
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    ratios = [values / true for values in projected.values()]
    quantiles = [[0.025, 0.5, 0.975]] * len(ratios)
    parts: dict[str, Any] = dict(ax.violinplot(ratios, showextrema=False, quantiles=quantiles))
    for body in parts["bodies"]:
        body.set(facecolor=BLUE, alpha=0.4)
    parts["cquantiles"].set_color(BLACK)
    ax.axhline(1, color="0.6", lw=1, ls=":")
    ax.set_xticks(range(1, len(projected) + 1), [str(width) for width in projected])
    ax.set(xlabel="dimensions after projection", ylabel="projected / true distance")
    ax.set_title("bars: 2.5 %, 50 % and 97.5 % of the pairs", fontsize=11)
    return figure


def growth(table: pd.DataFrame, x: str, xlabel: str, series: Mapping[str, str]) -> Figure:
    """Seconds against a size, on logarithmic axes.

    Parameters
    ----------
    table : DataFrame
        Column `x` and one column of seconds per series.
    x, xlabel : str
    series : mapping of column to label
    """
    figure, ax = plt.subplots(figsize=(7, 3.8))
    for column, label in series.items():
        ax.plot(table[x], table[column], "o-", ms=4, label=label)
    log_scale(ax.xaxis)
    log_scale(ax.yaxis)
    ax.set(xlabel=xlabel, ylabel="seconds")
    ax.legend()
    return figure


def ratio_view(
    table: pd.DataFrame, row: int, sample: Any, anomaly_map: np.ndarray, limits: Limits
) -> Figure:
    """One coreset ratio: AUROC and megabytes along all ratios, and the heat map it gives.

    Parameters
    ----------
    table : DataFrame
        As `evaluation.ratio_table` makes it.
    row : int
        The ratio on show.
    sample : Sample
    anomaly_map : array of shape (height, width)
    limits : (low, high)
        See `overlay`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.3, 1.3, 1))
    labels = {"image_auroc": "image AUROC", "megabytes": "memory bank (MB)"}
    current = table.iloc[row]
    for ax, (column, label) in zip(axes[:2], labels.items(), strict=True):
        ax.plot(table["ratio"], table[column], color=SKY)
        ax.plot(current["ratio"], current[column], "o", ms=11, color=DEFECT)
        log_scale(ax.xaxis, (1,))
        ax.set(xlabel="coreset ratio", ylabel=label)
    axes[0].set_title(f"ratio {current['ratio']:.2%}: AUROC {current['image_auroc']:.4f}")
    axes[1].set_title(f"{int(current['bank_size']):,} rows, {current['megabytes']:.3g} MB")
    scale = overlay(axes[2], sample.read(), anomaly_map, limits)
    figure.colorbar(scale, ax=axes[2], label="anomaly map (L2 distance)")
    return figure


def few_shot(table: pd.DataFrame, value: str = "image_auroc", label: str = "image AUROC") -> Figure:
    """A value against the number of training images: mean of the draws, and their range.

    Parameters
    ----------
    table : DataFrame with the columns images and `value`, one row per draw
    value : str
    label : str
        What the vertical axis says.
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    counts = mean_and_range(
        ax, table, "images", value, alpha=0.25, label="mean of the draws", band="range"
    )
    log_scale(ax.xaxis)
    ax.set_xticks(counts)
    ax.set(xlabel="training images", ylabel=label)
    ax.legend(loc="best")
    return figure
