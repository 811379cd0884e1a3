"""Figures of notebook 9: what a soft projection is, and which ideas pay."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    NORMAL,
    ORANGE,
    PURPLE,
    VERMILION,
)

VERDICT_COLORS = {"better": GREEN, "worse": VERMILION, "no difference shown": "0.45"}
CATEGORY_MARKERS = "osD^vP"


def soft_projection(
    rows: np.ndarray, weights: np.ndarray, query: np.ndarray, projection: np.ndarray
) -> Figure:
    """A patch, the rows of a bank with their weights, and the weighted mean that it is compared to.

    Parameters
    ----------
    rows : array of shape (m, 2)
    weights : array of shape (m,)
        0 for rows that have no say.
    query, projection : arrays of shape (2,)
    """
    figure, ax = plt.subplots(figsize=(8, 5))
    nearest = rows[np.linalg.norm(rows - query, axis=1).argmin()]
    sizes = 50 + 500 * weights
    ax.scatter(rows[:, 0], rows[:, 1], sizes, color=NORMAL, alpha=0.8, label="rows of the bank")
    ax.plot(*np.transpose([query, nearest]), color=ORANGE, label="to the nearest row")
    ax.plot(*np.transpose([query, projection]), color=GREEN, ls="--", label="to the projection")
    ax.plot(*projection, "D", ms=9, color=GREEN)
    ax.plot(*query, "X", ms=12, color=BLACK, mec="white", label="patch to judge")
    to_row, to_projection = (np.linalg.norm(query - point) for point in (nearest, projection))
    ax.set_title(f"nearest row {to_row:.2f}, soft projection {to_projection:.2f}")
    ax.set(xlabel="first feature", ylabel="second feature", aspect="equal")
    ax.set(xlim=(-2.4, 2.4), ylim=(-0.7, 1.9))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def rank_scatter(
    ranks: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str = ""
) -> Figure:
    """Ranks of the test images by two networks.

    Parameters
    ----------
    ranks : array of shape (2, n), shares of the images
    labels : array of 0 and 1, shape (n,)
    names : two names, of the networks
    title : str
    """
    figure, ax = plt.subplots(figsize=(5.2, 4.6))
    for label, name, color, marker in ((0, "good", NORMAL, "o"), (1, "defective", VERMILION, "X")):
        x, y = ranks[:, labels == label]
        ax.scatter(x, y, 28, color=color, marker=marker, label=name)
    ax.plot([0, 1], [1, 0], color="0.6", lw=1, ls=":")
    ax.set(xlabel=f"rank by {names[0]} (share of images)", ylabel=f"rank by {names[1]}")
    ax.set(aspect="equal", title=title)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def banks_curve(aurocs: Mapping[str, np.ndarray], shown: int) -> Figure:
    """Image AUROC against the number of banks whose median is taken; the range over the orders.

    Parameters
    ----------
    aurocs : mapping of category to array of shape (orders, numbers of banks)
        Column j belongs to the median of j + 1 banks.
    shown : int
        The number of banks that is marked.
    """
    figure, axes = plt.subplots(1, len(aurocs), figsize=(10, 3.2), squeeze=False)
    for ax, (category, values) in zip(axes[0], aurocs.items(), strict=True):
        numbers = np.arange(1, values.shape[1] + 1)
        ax.fill_between(numbers, values.min(0), values.max(0), color=BLUE, alpha=0.2)
        ax.plot(numbers, values.mean(0), "o-", color=BLUE)
        ax.plot(shown, values[:, shown - 1].mean(), "o", ms=11, color=VERMILION)
        ax.set(xlabel="banks", title=f"{category}: {values[:, shown - 1].mean():.3f}")
        ax.set_xticks(numbers)
    axes[0][0].set_ylabel("image AUROC")
    return figure


def forest(page: pd.DataFrame, milliseconds: pd.Series, primary: str, control: str) -> Figure:
    """What each idea gains over PatchCore, with corrected intervals, and what it costs.

    Parameters
    ----------
    page : DataFrame
        What `experiments.since.compare_ideas` returned.
    milliseconds : Series
        Per image, network and scoring, by idea; the baseline is "PatchCore".
    primary, control : str
        The idea that is tested by itself, and the one that changes nothing; marked in the labels.
    """
    ideas = list(dict.fromkeys(page["comparison"]))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 0.44 * len(ideas) + 1.6), width_ratios=(2.2, 1), sharey=True
    )
    _draw_gains(left, page, ideas)
    _draw_costs(right, milliseconds, ideas)
    notes = {primary: " (primary)", control: " (control)"}
    left.set_yticks(range(len(ideas)), [idea + notes.get(idea, "") for idea in ideas])
    left.invert_yaxis()
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _draw_gains(ax: Axes, page: pd.DataFrame, ideas: Sequence[str]) -> None:
    categories = list(dict.fromkeys(page.loc[page["kind"] == "category", "name"]))
    means = page[page["kind"] == "all"].set_index("comparison")
    for y, idea in enumerate(ideas):
        row = means.loc[idea]
        color = VERDICT_COLORS[row["verdict"]]
        ax.plot([row["low"], row["high"]], [y, y], color=color, lw=3, solid_capstyle="butt")
        ax.plot(row["difference"], y, "s", ms=8, color=color)
    for number, category in enumerate(categories):
        rows = page[(page["kind"] == "category") & (page["name"] == category)]
        differences = rows.set_index("comparison")["difference"].reindex(ideas)
        marker = CATEGORY_MARKERS[number % len(CATEGORY_MARKERS)]
        ax.plot(
            differences,
            np.arange(len(ideas)) - 0.26,
            marker,
            ms=5,
            mfc="none",
            color=PURPLE,
            label=category,
        )
    ax.axvline(0, color=BLACK, lw=1)
    ax.set(xlabel="image AUROC, idea minus PatchCore")
    ax.set_title("mean and interval: green better, red worse, gray no difference", fontsize=10)


def _draw_costs(ax: Axes, milliseconds: pd.Series, ideas: Sequence[str]) -> None:
    costs = milliseconds.reindex(ideas).to_numpy()
    baseline = milliseconds["PatchCore"]
    ax.hlines(range(len(ideas)), baseline, costs, color="0.75", lw=3)
    ax.plot(costs, range(len(ideas)), "o", ms=8, color="0.3")
    ax.axvline(baseline, color=BLACK, lw=1, ls="--", label=f"PatchCore, {baseline:.0f} ms")
    for y, cost in enumerate(costs):
        ax.annotate(
            f"{cost:.0f}", (cost, y), xytext=(7, 0), textcoords="offset points", va="center"
        )
    ax.set(xlabel="milliseconds per image", xscale="log")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlim(min(baseline, costs.min()) / 1.4, 1.8 * costs.max())
