"""Figures of experiment 2: ways to choose a coreset."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.core.intervals import mean_interval
from patchcore_helpers.course.figures.panels import bars_from_chance
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    log_scale,
)
from patchcore_helpers.experiments.exp2 import Picks, mean_table
from patchcore_helpers.experiments.grid import Outcome

METHOD_COLORS = {
    "v1_random": ORANGE,
    "k_center": BLUE,
    "v2_variance": VERMILION,
    "v2_neighborhood": GREEN,
    "v2_literal": PURPLE,
}
VERDICT_COLORS = {"better": GREEN, "worse": VERMILION, "no difference shown": "0.75"}


def main_comparison(outcomes: Sequence[Outcome]) -> Figure:
    """AUROC against compression: the mean over categories with its interval, one line a method."""
    figure, ax = plt.subplots(figsize=(8, 4))
    means = mean_table(outcomes)
    for position, (method, rows) in enumerate(means.groupby("method", sort=False)):
        by_ratio = rows.groupby("compression_ratio")["interval"].agg(list).map(mean_interval)
        aurocs = np.array([interval.estimate for interval in by_ratio])
        below = aurocs - [interval.low for interval in by_ratio]
        above = np.array([min(1, interval.high) for interval in by_ratio]) - aurocs
        ax.errorbar(
            by_ratio.index * 1.03 ** (position - 1.5),  # side by side, so that none hides another
            aurocs,
            [below, above],
            marker="o",
            capsize=3,
            color=METHOD_COLORS[str(method)],
            label=method,
        )
    ratios = sorted(means["compression_ratio"].unique())
    ax.set(xscale="log", xlabel="compression ratio: share of patches kept")
    ax.set(ylabel="image AUROC\n(mean over categories)")
    ax.set_xticks(ratios, [f"{ratio:.1%}" for ratio in ratios])
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def category_performance(outcomes: Sequence[Outcome]) -> Figure:
    """AUROC by category and method, a panel per ratio; bars start at chance."""
    ratios = mean_table(outcomes).groupby("compression_ratio", sort=False)
    figure, axes = plt.subplots(
        1, len(ratios), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (ratio, rows) in zip(axes[0], ratios, strict=True):
        bars_from_chance(ax, rows, "method", METHOD_COLORS)
        ax.axvline(0.5, color="0.6", lw=1)
        ax.set(title=f"{ratio:.1%} kept", xlabel="image AUROC", xlim=(None, 1.01))
    axes[0][0].invert_yaxis()
    handles, methods = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, methods, loc="outside lower center", ncols=len(methods))
    return figure


def improvement_percentage(
    comparison: pd.DataFrame, outcomes: Sequence[Outcome], one: str, other: str
) -> Figure:
    """By how many percent of its AUROC `one` beats `other`, with intervals (all corrected).

    Parameters
    ----------
    comparison : DataFrame
        What `exp2.compare` returned for the two methods.
    outcomes : sequence of Outcome
    one, other : str
        Methods.
    """
    means = mean_table(outcomes)
    baseline = {
        f"{row.category} at {row.compression_ratio:.2%}": row.auroc
        for row in means[means["method"] == other].itertuples()
    }
    cases = comparison[comparison["kind"] == "case"]
    percent = 100 / cases["name"].map(baseline)
    y = np.arange(len(cases))
    figure, ax = plt.subplots(figsize=(8, 0.32 * len(cases) + 1.2))
    colors = [VERDICT_COLORS[verdict] for verdict in cases["verdict"]]
    ax.barh(y, cases["difference"] * percent, 0.7, color=colors)
    ax.hlines(y, cases["low"] * percent, cases["high"] * percent, color=BLACK, lw=1.2)
    ax.axvline(0, color=BLACK, lw=1)
    ax.set_yticks(y, cases["name"])
    ax.invert_yaxis()
    ax.set(xlabel=f"{one} over {other}: change of image AUROC (%)")
    ax.set_title("green: better, red: worse, gray: no difference shown", fontsize=10)
    return figure


def plot_picks(
    sample: Any,
    shape: tuple[int, int, int],
    picks: Mapping[float, Picks],
    sizes: Sequence[int],
    exponent: float,
    step: int,
) -> Figure:
    """Where the picks of one exponent lie: over all images, on the first, and what they are worth.

    Parameters
    ----------
    sample : Sample
        The first training image.
    shape : (images, rows, columns)
        Shape of the training patches.
    picks : mapping of exponent to Picks
        What `picks_by_exponent` returned.
    sizes : sequence of int
        Bank sizes, rows.
    exponent : float
        The exponent on show.
    step : int
        Which of the sizes.
    """
    chosen = picks[exponent].rows[: sizes[step]]
    image, row, column = np.unravel_index(chosen, shape)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.15, 1, 1.4))

    counts = np.zeros(shape[1:], int)
    np.add.at(counts, (row, column), 1)
    drawn = axes[0].imshow(counts, cmap="magma_r", vmin=0)
    figure.colorbar(drawn, ax=axes[0], label="picks at this place")
    axes[0].set(title=f"{len(chosen):,} picks of {shape[0]} images", xticks=[], yticks=[])

    on_first = image == 0
    pixels = sample.read()
    x = (column[on_first] + 0.5) * pixels.width / shape[2]
    y = (row[on_first] + 0.5) * pixels.height / shape[1]
    axes[1].imshow(pixels)
    axes[1].plot(x, y, "o", ms=4, color=VERMILION, mec="white", mew=0.5)
    axes[1].set(title=f"{on_first.sum()} of them on this one", xticks=[], yticks=[])

    _draw_worth(axes[2], picks, np.array(sizes) / np.prod(shape), exponent, step)
    return figure


def _draw_worth(
    ax: Axes, picks: Mapping[float, Picks], ratios: np.ndarray, exponent: float, step: int
) -> None:
    """AUROC against the coreset ratio, a line per exponent; the one on show stands out."""
    for other, of_exponent in picks.items():
        if other == exponent:
            continue
        ax.plot(ratios, of_exponent.aurocs, color="0.8", lw=1.5)
    aurocs = picks[exponent].aurocs
    ax.plot(ratios, aurocs, color=BLUE, lw=3, label=f"exponent {exponent:g}", zorder=3)
    ax.plot(ratios[step], aurocs[step], "o", ms=10, color=VERMILION, zorder=4)
    ax.set(xlabel="coreset ratio", ylabel="image AUROC", title=f"AUROC {aurocs[step]:.3f}")
    log_scale(ax.xaxis, (1,))
    ax.legend(loc="lower right")
