"""From image scores to a decision: histograms, the ROC curve, a threshold and what it does."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from patchcore_helpers.core.costs import (
    alarm_rates,
    cost_curve,
    cost_per_thousand,
    outcomes_per_thousand,
    precision,
)
from patchcore_helpers.course.figures.style import DEFECT, GREEN, NORMAL, ORANGE, THRESHOLD


def _draw_histogram(
    ax: Axes, labels: np.ndarray, scores: np.ndarray, threshold: float | None = None
) -> None:
    """Draw the image scores by class, with the threshold."""
    edges = np.linspace(scores.min(), scores.max(), 41)
    for label, name, color in ((0, "normal", NORMAL), (1, "defective", DEFECT)):
        counts = np.histogram(scores[labels == label], edges)[0]
        ax.stairs(counts, edges, fill=True, alpha=0.65, color=color, label=name)
    if threshold is not None:
        ax.axvline(threshold, color=THRESHOLD, ls="--", label="threshold")
    ax.set(xlabel="image score (L2 distance)", ylabel="test images")
    ax.legend()


def scores(labels: np.ndarray, scores: np.ndarray, threshold: float | None = None) -> Figure:
    """Histogram of image scores by class, and the ROC curve, with the threshold marked in both.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)
    threshold : float, optional
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.5, 1))
    _draw_histogram(left, labels, scores, threshold)
    false_alarm_rate, detection_rate, _ = roc_curve(labels, scores)
    right.plot(false_alarm_rate, detection_rate, color=GREEN)
    right.plot([0, 1], [0, 1], color="0.7", lw=1, ls=":")
    if threshold is not None:
        alarm_rates = [np.mean(scores[labels == label] > threshold) for label in (0, 1)]
        right.plot(*alarm_rates, "o", ms=9, color=THRESHOLD)
    right.set(xlabel="false alarms / normal images", ylabel="found / defective images")
    right.set_aspect("equal")
    return figure


OUTCOMES = ("good, passed", "good, false alarm", "defective, found", "defective, missed")


def threshold_view(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    prevalence: float,
    cost_of_miss: float,
) -> Figure:
    """What one threshold does on a production line, and what other thresholds would cost.

    Parameters
    ----------
    labels, scores : arrays of shape (n,)
    threshold : float
    prevalence : float in (0, 1)
        Share of defective products on the line, which need not be that of the images.
    cost_of_miss : float
        A missed defect costs as much as so many false alarms.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(1.3, 1, 1.3))
    _draw_histogram(axes[0], labels, scores, threshold)
    rates = alarm_rates(labels, scores, threshold)
    counts = outcomes_per_thousand(rates, prevalence)
    _draw_outcomes(axes[1], counts)
    share = precision(rates, prevalence)
    said = "no alarm" if share is None else f"{share:.1%} of the alarms are real"
    axes[1].set_title(said, fontsize=11)

    levels, costs = cost_curve(labels, scores, prevalence, cost_of_miss)
    current = cost_per_thousand(counts, cost_of_miss)
    axes[2].plot(levels, costs, color=GREEN)
    axes[2].plot(threshold, current, "o", ms=9, color=THRESHOLD, label=f"here: {current:.0f}")
    best = int(costs.argmin())
    best_label = f"cheapest: {costs[best]:.0f}"
    axes[2].plot(levels[best], costs[best], "*", ms=15, color=ORANGE, mec="black", label=best_label)
    axes[2].set(
        xlabel="threshold (L2 distance)",
        ylabel="cost per 1,000 parts\n(in false alarms)",
        ylim=(0, 3.5 * max(current, costs[best])),
    )
    axes[2].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1)
    return figure


def _draw_outcomes(ax: Axes, counts: np.ndarray) -> None:
    """Four bars on a logarithmic axis, with their numbers."""
    colors = [NORMAL, NORMAL, DEFECT, DEFECT]
    bars = ax.barh(OUTCOMES[::-1], np.maximum(counts[::-1], 0.01), color=colors[::-1])
    ax.bar_label(bars, [f"{count:.3g}" for count in counts[::-1]], padding=3)
    ax.set(xscale="log", xlim=(0.01, 30_000), xlabel="of 1,000 parts (logarithmic)")


def recalibration(table: pd.DataFrame, promised: float, band: tuple[float, float]) -> Figure:
    """False alarms on stretches that the bank has not seen, by normal images of them used.

    Parameters
    ----------
    table : DataFrame
        Columns stretch, normals (0: the threshold of the other stretches) and false_alarms.
    promised : float
        The promised false-alarm rate.
    band : (low, high)
        Where 95 % of all thresholds have their rate if the promise holds.
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    steps = sorted(table["normals"].unique())
    ax.axhspan(*band, color="0.88", label="95 % of draws, if it held")
    ax.axhline(promised, color=THRESHOLD, ls="--", lw=1.5, label="promised")
    for stretch, rows in table.groupby("stretch"):
        rows = rows.sort_values("normals")
        at = [steps.index(count) for count in rows["normals"]]
        ax.plot(at, rows["false_alarms"], "o-", ms=7, label=f"stretch {stretch}")
    names = ["none: threshold\nof other stretches", *(str(count) for count in steps[1:])]
    ax.set_xticks(range(len(steps)), names)
    ax.set(xlabel="normal images of the new stretch that set the threshold", ylim=(0, None))
    ax.set_ylabel("false alarms /\nits other normal images")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def splits(table: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Image AUROC with intervals: a row for each score, a panel for each way to test it.

    Parameters
    ----------
    table : DataFrame
        Columns score, test, auroc, low and high.
    columns : sequence of str
        The values of test, one for each panel.
    """
    names = list(dict.fromkeys(table["score"]))
    figure, axes = plt.subplots(
        1, len(columns), figsize=(10.5, 0.45 * len(names) + 1.3), sharey=True, squeeze=False
    )
    for ax, test in zip(axes[0], columns, strict=True):
        rows = table[table["test"] == test]
        at = [len(names) - 1 - names.index(name) for name in rows["score"]]
        spread = np.abs(rows[["low", "high"]].to_numpy().T - rows["auroc"].to_numpy())
        colors = [DEFECT if name == names[0] else NORMAL for name in rows["score"]]
        ax.errorbar(rows["auroc"], at, xerr=spread, fmt="none", ecolor=colors, lw=2)
        ax.scatter(rows["auroc"], at, c=colors, s=55, zorder=3)
        ax.axvline(0.5, color="0.6", lw=1, ls=":")
        ax.set(xlim=(0.4, 1), xlabel="image AUROC", ylim=(-0.6, len(names) - 0.4))
        ax.set_title(test, fontsize=11)
    axes[0][0].set_yticks(range(len(names)), names[::-1])
    return figure
