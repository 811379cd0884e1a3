"""Figures of what breaks a memory bank: dirty folders, drift, resolution and prevalence."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from patchcore_helpers.course.figures.style import (
    BLACK,
    DEFECT,
    GREEN,
    NORMAL,
    ORANGE,
    PURPLE,
    THRESHOLD,
    log_scale,
)


def cleaning(
    oddness: np.ndarray, is_dirty: np.ndarray, n_left_out: int, table: pd.DataFrame, left_out: float
) -> Figure:
    """The folder's images by oddness with the cut, and what cleaning does to the AUROC.

    Parameters
    ----------
    oddness : float array of shape (n,), descending
    is_dirty : bool array of shape (n,)
        In the same order.
    n_left_out : int
        How many of the first images are left out.
    table : DataFrame
        Columns left_out, seed, image_auroc; one row per cleaning and seed.
    left_out : float
        The share of images that is left out now.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), width_ratios=(1.7, 1))
    places = np.arange(len(oddness))
    left.bar(places[~is_dirty], oddness[~is_dirty], color=NORMAL, width=0.85, label="good")
    left.bar(places[is_dirty], oddness[is_dirty], color=DEFECT, width=0.85, label="defective")
    left.axvline(n_left_out - 0.5, color=THRESHOLD, ls="--")
    left.set(xlabel="images of the folder, the oddest first", ylabel="oddness (L2 distance)")
    left.set_title(f"left of the line: {n_left_out} images left out", fontsize=11)
    left.set_ylim(0, 1.15 * oddness.max())
    left.legend(loc="upper right", ncols=2)
    by_share = table.groupby("left_out")["image_auroc"]
    mean, low, high = by_share.mean(), by_share.min(), by_share.max()
    right.fill_between(100 * mean.index, low, high, color=GREEN, alpha=0.2)
    right.plot(100 * mean.index, mean, "o-", color=GREEN)
    right.plot(100 * left_out, mean[left_out], "o", ms=13, mfc="none", mec=BLACK, mew=2)
    right.set(xlabel="images left out (%)", ylabel="image AUROC")
    right.set_title("mean of the seeds, and range", fontsize=11)
    return figure


def drift_view(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    thresholds: tuple[float, float],
    name: str,
) -> Figure:
    """Scores of good and defective images before and after a drift, with both thresholds.

    Parameters
    ----------
    before, after : mapping of "good" and "defective" to float array
    thresholds : (old, new)
        Of the original calibration, and of a new one with images after the drift.
    name : str
        What has happened.
    """
    old, new = thresholds
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.4), sharex=True, sharey=True)
    everything = np.concatenate([*before.values(), *after.values()])
    edges = np.linspace(everything.min(), everything.max(), 41)
    for ax, scores, title in zip(axes, (before, after), ("as learned", name), strict=True):
        for kind, color in (("good", NORMAL), ("defective", DEFECT)):
            counts = np.histogram(scores[kind], edges)[0]
            ax.stairs(counts, edges, fill=True, alpha=0.65, color=color, label=kind)
        ax.axvline(old, color=THRESHOLD, ls="--", label="old threshold")
        ax.set_title(title, loc="left", fontsize=11)
        ax.set_ylabel("images")
    if np.isfinite(new):
        axes[1].axvline(new, color=PURPLE, ls="-", label="new threshold")
    axes[1].set_xlabel("image score (L2 distance)")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.9))
    return figure


def found_by_size(table: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Image AUROC against the image size, a line for each kind of defect, with intervals.

    Parameters
    ----------
    table : DataFrame
        Columns image_size, group, auroc, low, high.
    groups : sequence of str
        The values of group, in the order of the legend.
    """
    figure, ax = plt.subplots(figsize=(8.5, 3.8))
    sizes = sorted(table["image_size"].unique())
    colors = [ORANGE, GREEN, DEFECT, BLACK]
    for number, (group, color) in enumerate(zip(groups, colors, strict=False)):
        rows = table[table["group"] == group].sort_values("image_size")
        at = [sizes.index(size) + 0.06 * (number - 1.5) for size in rows["image_size"]]
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["auroc"].to_numpy())
        ax.errorbar(at, rows["auroc"], yerr=spread, fmt="o-", color=color, lw=1.6, label=group)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set(xlabel="image size (pixels per side)", ylabel="image AUROC")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def alarms_a_day(
    rates: Mapping[str, tuple[float, float]], defective_in_1000: int, parts: int
) -> Figure:
    """What the alarms of one day are, for several pairs of rates at one share of defects.

    Parameters
    ----------
    rates : mapping of str to (false alarms / good parts, found / defective parts)
    defective_in_1000 : int
    parts : int
        Parts a day.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.2), sharey=True)
    prevalence = defective_in_1000 / 1000
    names = list(rates)
    false = [parts * (1 - prevalence) * rates[name][0] for name in names]
    found = [parts * prevalence * rates[name][1] for name in names]
    for values, start, color, label in (
        (false, np.zeros(len(names)), NORMAL, "good part"),
        (found, np.array(false), DEFECT, "defective part"),
    ):
        left.barh(names, values, left=start, color=color, label=label)
    for place, (wrong, right_ones) in enumerate(zip(false, found, strict=True)):
        total = wrong + right_ones
        left.text(total, place, f" {total:,.0f}", va="center")
    left.set(
        xlabel=f"alarms a day, of {parts:,} parts",
        xlim=(0, 1.15 * max(map(sum, zip(false, found, strict=True)))),
    )
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    shares = [f / (w + f) if w + f else 0.0 for w, f in zip(false, found, strict=True)]
    right.barh(names, shares, color=GREEN)
    for place, share in enumerate(shares):
        right.text(share, place, f" {share:.1%}", va="center")
    right.set(xlabel="share of the alarms that are real", xlim=(0, 1.15))
    right.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def few_images(table: pd.DataFrame) -> Figure:
    """Image AUROC against the number of training images, with intervals.

    Parameters
    ----------
    table : DataFrame
        Columns images, auroc, low, high.
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    spread = np.abs(table[["low", "high"]].to_numpy().T - table["auroc"].to_numpy())
    ax.errorbar(table["images"], table["auroc"], yerr=spread, fmt="o-", color=NORMAL, capsize=3)
    log_scale(ax.xaxis)
    ax.set_xticks(table["images"])
    ax.set(xlabel="training images", ylabel="image AUROC")
    ax.set_title("mean of the draws, 95 % interval", fontsize=11)
    return figure
