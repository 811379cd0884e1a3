"""Figures of coverage: greedy picks step by step, pool and bound, and where a bank comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import draw_by_distance, mean_and_range
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    NORMAL,
    ORANGE,
    SKY,
    log_scale,
)

SAMPLERS = {"k_center": ("greedy k-center", BLUE), "random": ("random", ORANGE)}


def greedy_strip(
    points: np.ndarray, chosen: np.ndarray, steps: Sequence[int], n_dense: int | None = None
) -> Figure:
    """Greedy k-center among points in the plane: one small picture for each number of picks.

    Parameters
    ----------
    points : array of shape (n, 2)
    chosen : int array
        Picks in their order.
    steps : sequence of int
        Numbers of picks to show.
    n_dense : int, optional
        The points from this one on are drawn as hollow circles; by default none.
    """
    figure, axes = plt.subplots(1, len(steps), figsize=(10.5, 2.7), sharex=True, sharey=True)
    for ax, step in zip(axes, steps, strict=True):
        centers = points[chosen[:step]]
        distances = np.linalg.norm(points[:, None] - centers, axis=2).min(1)
        drawn = draw_by_distance(ax, points, distances, 7, n_dense)
        ax.scatter(centers[:, 0], centers[:, 1], s=42, color=DEFECT, edgecolor="white", zorder=3)
        circle = plt.Circle(
            points[distances.argmax()], distances.max(), fill=False, edgecolor=BLACK, ls="--", lw=1
        )
        ax.add_patch(circle)
        ax.plot(*points[distances.argmax()], "k+", ms=9, mew=1.6)
        title = f"{step} pick{'s' if step > 1 else ''}\nradius {distances.max():.2f}"
        ax.set_title(title, fontsize=11)
        ax.set(aspect="equal", xticks=[], yticks=[])
    half = 1.15 * np.abs(points).max()
    axes[0].set(xlim=(-half, half), ylim=(-half, half))
    axes[0].set(xlabel="feature 1 (no unit)", ylabel="feature 2 (no unit)")
    figure.colorbar(drawn, ax=axes, label="distance to\nnearest pick", shrink=0.8, pad=0.01)
    return figure


def pool_and_bound(points: np.ndarray, chosen: np.ndarray, step: int, pool_size: int) -> Figure:
    """One round of the fast greedy search in three pictures: distances, sorted.

    Parameters
    ----------
    points : array of shape (n, c)
    chosen : int array
        Picks of greedy k-center in their order.
    step : int
        How many picks have been applied to all points when the round begins.
    pool_size : int
        How many of the farthest points the pool takes.
    """

    def distances(n_picks: int) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[chosen[:n_picks]], axis=2).min(1)

    before = distances(step)
    order = np.argsort(-before)  # the points from far to near, the same in all three pictures
    in_pool = np.arange(len(points)) < pool_size
    bound = before[order[pool_size]]
    picks = step
    while np.isin(chosen[picks], order[:pool_size]) and distances(picks).max() >= bound:
        picks += 1
    after = distances(picks)[order]
    views = {
        f"1. the {pool_size} farthest points form the pool": before[order],
        f"2. the pool alone makes {picks - step} picks": np.where(in_pool, after, before[order]),
        f"3. all {picks - step} are applied to all points": after,
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), sharey=True)
    place = np.arange(len(points))
    for number, (ax, (title, values)) in enumerate(zip(axes, views.items(), strict=True)):
        ax.plot(place, before[order], color="0.75", lw=1, label="when the round began")
        colors = np.where(in_pool, DEFECT, SKY) if number < 2 else GREEN
        ax.scatter(place, values, s=9, color=colors, zorder=3)
        ax.axhline(bound, color=BLACK, ls="--", lw=1)
        ax.set_title(title, fontsize=11)
        ax.set(xlabel="points, farthest first")
    axes[0].text(len(points), bound, "bound ", ha="right", va="bottom")
    axes[0].set_ylabel("distance to nearest pick")
    axes[2].legend(loc="upper right", fontsize=9)
    return figure


def bank_size_curves(
    table: pd.DataFrame, measures: Mapping[str, str], marks: Mapping[str, float] | None = None
) -> Figure:
    """Measures against the number of patches kept, mean and range over seeds for each sampler.

    Parameters
    ----------
    table : DataFrame
        Columns "bank_size", "sampler", "seed" and the measures.
    measures : mapping of column to label
    marks : mapping of column to float, optional
        A level to draw in a panel.
    """
    figure, axes = plt.subplots(1, len(measures), figsize=(10.5, 3.8), squeeze=False)
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        for name, rows in table.groupby("sampler", sort=False):
            text, color = SAMPLERS[str(name)]
            mean_and_range(ax, rows, "bank_size", column, alpha=0.2, label=text, color=color)
        if marks and column in marks:
            ax.axhline(marks[column], color=BLACK, ls=":", lw=1)
        log_scale(ax.xaxis, (1,))
        ax.set(xlabel="patches kept", ylabel=label)
    axes[0][0].legend()
    return figure


def radius_line(radii: np.ndarray, first: int, dimension: float, width: int) -> Figure:
    """The coverage radius against the picks on logarithmic axes, and the line of one dimension.

    Parameters
    ----------
    radii : array of shape (k,)
        The coverage radius after each pick.
    first : int
        The pick where the fitted line begins.
    dimension : float
        -1 over the slope of the line.
    width : int
        Numbers in a vector: a second line shows how the radius would fall in so many dimensions.
    """
    picks = np.unique(np.geomspace(1, len(radii), 60).round().astype(int))
    figure, ax = plt.subplots(figsize=(8, 4))
    ax.plot(picks, radii[picks - 1], "o", ms=4, color=BLUE, label="greedy k-center")
    late = picks[picks >= first]
    middle = np.sqrt(first * len(radii))
    at_middle = np.interp(middle, np.arange(1, len(radii) + 1), radii)
    slopes = ((dimension, f"{dimension:.1f}", DEFECT, "-"), (width, f"{width}", "0.5", ":"))
    for value, text, color, style in slopes:
        line = at_middle * (late / middle) ** (-1 / value)
        ax.plot(late, line, style, color=color, lw=1.6, label=f"slope of {text} dimensions")
    log_scale(ax.xaxis, (1,))
    log_scale(ax.yaxis)
    ax.set(xlabel="picks", ylabel="coverage radius (L2 distance)")
    ax.legend()
    return figure


def dirt_shares(table: pd.DataFrame) -> Figure:
    """What share of a bank dirty images take, and what it does to detection.

    Parameters
    ----------
    table : DataFrame
        Columns "sampler", "seed", "dirty" (share of the training images), "share" (of the bank) and
        "image_auroc".
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
    for name, rows in table.groupby("sampler", sort=False):
        text, color = SAMPLERS[str(name)]
        percent = rows.assign(share=100 * rows["share"], dirty=100 * rows["dirty"])
        mean_and_range(left, percent, "dirty", "share", alpha=0.2, label=text, color=color)
        mean_and_range(right, percent, "dirty", "image_auroc", alpha=0.2, label=text, color=color)
    most = 100 * table["dirty"].max()
    left.plot([0, most], [0, most], ":", color=BLACK, lw=1, label="their fair share")
    left.set(xlabel="dirty training images (%)", ylabel="rows of the bank they take (%)", ylim=0)
    right.set(xlabel="dirty training images (%)", ylabel="image AUROC")
    left.legend()
    return figure


def rows_by_image(counts: np.ndarray, planted: Sequence[int] = ()) -> Figure:
    """How many rows of the bank each training image contributed, most first.

    Parameters
    ----------
    counts : int array of shape (n,)
    planted : sequence of int
        Numbers of the images that were planted; none: the truth stays hidden.
    """
    order = np.argsort(-counts, kind="stable")
    colors = [DEFECT if image in set(planted) else NORMAL for image in order]
    figure, ax = plt.subplots(figsize=(9, 3.2))
    ax.bar(np.arange(len(counts)), counts[order], color=colors, width=0.85)
    ax.axhline(counts.mean(), color=BLACK, ls="--", lw=1)
    ax.text(len(counts) - 0.5, counts.mean(), "mean", ha="right", va="bottom")
    ax.set(xlabel="training images, most rows first", ylabel="rows in the bank")
    if len(planted):
        for color, label in ((DEFECT, "planted"), (NORMAL, "normal")):
            ax.bar([0], [0], color=color, label=label)
        ax.legend()
    return figure


def suspects(samples: Sequence[Any], images: Sequence[int], counts: np.ndarray) -> Figure:
    """The training images that contributed most rows, as pictures.

    Parameters
    ----------
    samples : sequence of samples, the training images
    images : sequence of int
        The numbers of those to show.
    counts : int array
        Rows in the bank by image.
    """
    figure, axes = plt.subplots(1, len(images), figsize=(1.3 * len(images), 1.9), squeeze=False)
    for ax, image in zip(axes[0], images, strict=True):
        ax.imshow(samples[image].read())
        ax.set_title(f"image {image}\n{counts[image]} rows", fontsize=9)
        ax.axis("off")
    return figure
