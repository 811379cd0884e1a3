"""Figures of experiment 2: ways to choose a coreset."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.core.intervals import mean_interval
from patchcore_helpers.course.figures.panels import bars_from_chance, label_plane
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    log_scale,
)
from patchcore_helpers.experiments import toy_weighting
from patchcore_helpers.experiments.exp2 import PLAIN_NAMES, WHOLE, Picks, mean_table
from patchcore_helpers.experiments.grid import Outcome

METHOD_COLORS = {
    "v1_random": ORANGE,
    "k_center": BLUE,
    "v2_variance": VERMILION,
    "v2_even_border": SKY,
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
            label=PLAIN_NAMES[str(method)],
        )
    ratios = sorted(means["compression_ratio"].unique())
    ax.set(xscale="log", xlabel="compression ratio (share of patches kept)")
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
    names = [PLAIN_NAMES[method] for method in methods]
    figure.legend(handles, names, loc="outside lower center", ncols=3)
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
    names = f"{PLAIN_NAMES[one]} over {PLAIN_NAMES[other]}"
    ax.set(xlabel=f"{names}: change of image AUROC (%)")
    ax.set_title("green: better, red: worse, gray: no difference shown", fontsize=10)
    return figure


def forest(page: pd.DataFrame) -> Figure:
    """Every comparison of the page: the mean over the categories, and each category as a dot.

    Parameters
    ----------
    page : DataFrame
        What `exp2.compare_all` returned.
    """
    rows = page[page["kind"] == "all"].reset_index(drop=True)
    pairs = list(dict.fromkeys(zip(rows["one"], rows["other"], strict=True)))
    figure, ax = plt.subplots(figsize=(9.5, 0.75 * len(pairs) + 1.7))
    for row in rows.itertuples():
        is_whole = row.scored == WHOLE
        y = pairs.index((row.one, row.other)) + (-0.17 if is_whole else 0.17)
        color = VERDICT_COLORS[row.verdict]
        if row.verdict == "no difference shown":
            color = "0.45"
        of_categories = page[(page["comparison"] == row.comparison) & (page["kind"] == "category")]
        ax.plot(of_categories["difference"], [y] * len(of_categories), "|", color="0.7", ms=8)
        ax.hlines(y, row.low, row.high, color=color, lw=2.5)
        ax.plot(row.difference, y, "o" if is_whole else "s", color=color, ms=9, zorder=3,
                mfc=color if is_whole else "white", mew=2)  # fmt: skip
    ax.axvline(0, color=BLACK, lw=1)
    names = [f"{PLAIN_NAMES[one]}\nminus {PLAIN_NAMES[other]}" for one, other in pairs]
    ax.set_yticks(range(len(pairs)), names, fontsize=10)
    ax.set(ylim=(len(pairs) - 0.5, -0.5), xlabel="difference of image AUROC")
    ax.grid(axis="x", color="0.92")
    _forest_legend(figure, ax)
    return figure


def _forest_legend(figure: Figure, ax: Axes) -> None:
    """What the marks and the colors of the forest plot mean."""
    look: dict[str, Any] = {"color": BLACK, "ls": "", "mew": 2}
    ax.plot([], [], "o", ms=9, label="all patches scored", **look)
    ax.plot([], [], "s", ms=8, mfc="white", label="without the outermost ring", **look)
    ax.plot([], [], "|", color="0.7", ms=8, ls="", label="single categories")
    for verdict in ("better", "worse"):
        ax.plot([], [], color=VERDICT_COLORS[verdict], lw=3, label=verdict)
    ax.plot([], [], color="0.45", lw=3, label="no difference shown")
    figure.legend(loc="outside lower center", ncols=3, fontsize=10)


def toy_banks(train: np.ndarray, banks: Mapping[str, toy_weighting.ToyBank]) -> Figure:
    """The toy in the plane: its normal images, and what each bank keeps of them.

    Parameters
    ----------
    train : float array of shape (images, 1, 2, 2)
    banks : mapping of title to ToyBank
    """
    figure, axes = plt.subplots(len(banks), 1, figsize=(9, 3.1 * len(banks)), sharex=True)
    points = train.reshape(-1, 2)
    for ax, (title, bank) in zip(axes, banks.items(), strict=True):
        ax.plot(*points.T, ".", color="0.75", ms=4, label="normal patches")
        ax.plot(*bank.rows.T, "o", color=BLUE, mec="white", ms=9, label="kept in the bank")
        x = np.mean(toy_weighting.LINE)
        defects = np.array([[toy_weighting.CLEAR, 0], [x, toy_weighting.FAINT]])
        ax.plot(*defects.T, "X", color=DEFECT, mec="white", ms=10, label="a defect, to come")
        n_at_a = int((bank.places == toy_weighting.A).sum())
        label_plane(ax, title=f"{title}: {n_at_a} picks at A, {len(bank.places) - n_at_a} at B")
        for name, place in (("A", 0), ("B", x)):
            ax.text(place, 3.6, f"place {name}", ha="center", va="bottom", fontsize=12)
        ax.set(ylim=(-3.6, 4.6), yticks=(-3, 0, 3))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def toy_chances(table: pd.DataFrame) -> Figure:
    """In which share of the draws of the toy weighting raises the AUROC, by the number of picks.

    Parameters
    ----------
    table : DataFrame
        Columns picks, and one for each of `toy_weighting.FUTURES`: shares of the draws.
    """
    figure, ax = plt.subplots(figsize=(8, 3.2))
    for future, color in zip(toy_weighting.FUTURES, (BLUE, VERMILION), strict=True):
        ax.plot(table["picks"], table[future], "o-", color=color, label=future)
    ax.axhline(0.5, color="0.6", lw=1, ls=":")
    ax.set(xlabel="rows that the bank keeps", ylim=(-0.05, 1.05))
    ax.set_ylabel("share of draws in which\nweighting raises the AUROC")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def ring_maps(
    grid: tuple[int, int], picks: Mapping[str, np.ndarray], hottest: Mapping[str, np.ndarray]
) -> Figure:
    """Where each bank's rows come from, and where normal test images score highest.

    Parameters
    ----------
    grid : (rows, columns)
        Of the patches.
    picks : mapping of method to int array
        Places (row * columns + column) of the rows of the bank.
    hottest : mapping of method to int array
        Place of the largest distance, of each normal test image.
    """
    figure, axes = plt.subplots(2, len(picks), figsize=(3.4 * len(picks), 6.2), squeeze=False)
    of_picks = {name: np.bincount(at, minlength=np.prod(grid)) for name, at in picks.items()}
    largest = max(counts.max() for counts in of_picks.values())
    for column, (method, counts) in enumerate(of_picks.items()):
        above, below = axes[:, column]
        drawn = above.imshow(counts.reshape(grid), cmap="magma_r", vmin=0, vmax=largest)
        above.set_title(PLAIN_NAMES[method].replace(", ", ",\n"), fontsize=11)
        row, place = np.unravel_index(hottest[method], grid)
        jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(row)))
        below.plot(place + jitter[0], row + jitter[1], "o", color=VERMILION, mec="white", ms=6)
        below.set(xlim=(-0.5, grid[1] - 0.5), ylim=(grid[0] - 0.5, -0.5), aspect="equal")
        inside = plt.Rectangle((0.5, 0.5), grid[1] - 2, grid[0] - 2, fill=False, ls="--", lw=1)
        below.add_patch(inside)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
    axes[0][0].set_ylabel("picks at each place")
    axes[1][0].set_ylabel("hottest patch of each\nnormal test image")
    figure.colorbar(drawn, ax=axes[0].tolist(), label="picks", shrink=0.8)
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
    others = [power for power in picks if power != exponent]
    for i, other in enumerate(others):
        label = f"others: {', '.join(f'{power:g}' for power in others)}" if i == 0 else None
        ax.plot(ratios, picks[other].aurocs, color="0.8", lw=1.5, label=label)
    aurocs = picks[exponent].aurocs
    ax.plot(ratios, aurocs, color=BLUE, lw=3, label=f"exponent {exponent:g}", zorder=3)
    ax.plot(ratios[step], aurocs[step], "o", ms=10, color=VERMILION, zorder=4)
    ax.set(xlabel="coreset ratio", ylabel="image AUROC of one fold")
    ax.set_title(f"AUROC {aurocs[step]:.3f}")
    log_scale(ax.xaxis, (1,))
    ax.legend(loc="lower right")
