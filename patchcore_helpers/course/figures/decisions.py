"""From image scores to a decision: histograms, the ROC curve, a threshold and what it does."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from patchcore_helpers.course.figures.panels import hide_axes, show_picture
from patchcore_helpers.course.figures.style import DEFECT, GREEN, NORMAL, THRESHOLD


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


def threshold_view(
    labels: np.ndarray, scores: np.ndarray, samples: Sequence[Any], threshold: float
) -> Figure:
    """What one threshold does: the histogram cut, the four counts, and the images nearest to it.

    Parameters
    ----------
    labels, scores : arrays of shape (n,)
    samples : sequence of n Sample
    threshold : float
    """
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), width_ratios=(2.2, 1.5, 1, 1))
    _draw_histogram(axes[0], labels, scores, threshold)
    alarms = scores > threshold
    names = ["normal passed", "false alarm", "defect missed", "defect found"]
    counts = np.bincount(2 * labels + alarms, minlength=4)
    bars = axes[1].barh(names, counts, color=[NORMAL, NORMAL, DEFECT, DEFECT])
    axes[1].bar_label(bars, padding=3)
    axes[1].set(xlabel="test images", xlim=(0, 1.25 * max(counts)))
    for ax, title, is_wrong in (
        (axes[2], "closest miss", (labels == 1) & ~alarms),
        (axes[3], "closest false alarm", (labels == 0) & alarms),
    ):
        wrong = np.flatnonzero(is_wrong)
        if len(wrong):
            closest = wrong[np.abs(scores[wrong] - threshold).argmin()]
            show_picture(ax, samples[closest], f"{title}\nscore {scores[closest]:.2f}")
        else:
            hide_axes(ax, f"{title}\nnone")
            ax.set_box_aspect(1)
    return figure
