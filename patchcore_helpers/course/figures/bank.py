"""How PatchCore gets from an image to a map, and which stored patches decide."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import (
    hide_axes,
    overlay,
    show_picture,
)
from patchcore_helpers.course.figures.style import DEFECT, NORMAL, SKY


def pipeline(
    image: Any,
    patches: np.ndarray,
    bank: np.ndarray,
    patch_scores: np.ndarray,
    normal_distances: np.ndarray,
    anomaly_map: np.ndarray,
    darkest: tuple[int, int] | None = None,
) -> Figure:
    """PatchCore in one picture: image, patch vectors, distances to the bank, anomaly map.

    The three colors of the second panel are the first principal components of the memory bank.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    patches : array of shape (rows, columns, channels)
    bank : array of shape (m, channels)
    patch_scores : array of shape (rows, columns)
    normal_distances : array of float
        Patch scores of normal images, for comparison.
    anomaly_map : array of shape (height, width)
    darkest : (row, column), optional
        A patch that gets a square in the fourth panel, beside the circle of the worst one.
    """
    mean = bank.mean(0)
    components = np.linalg.svd(bank - mean, full_matrices=False)[2][:3]
    patches_in_3d = (patches - mean) @ components.T
    low, high = np.quantile(patches_in_3d, [0.02, 0.98], axis=(0, 1))
    colors = np.clip((patches_in_3d - low) / (high - low), 0, 1)

    figure, axes = plt.subplots(1, 5, figsize=(11, 2.75), width_ratios=(1, 1, 1.5, 1, 1))
    pixels = show_picture(axes[0], image, "1  image")
    axes[1].imshow(colors)
    hide_axes(axes[1], f"2  {patches.shape[0]} x {patches.shape[1]} patches")
    _compare_distances(axes[2], patch_scores.ravel(), normal_distances.ravel())
    worst_row, worst_column = np.unravel_index(patch_scores.argmax(), patch_scores.shape)
    axes[3].imshow(patch_scores)
    axes[3].plot(worst_column, worst_row, "o", ms=11, mfc="none", mec=SKY, mew=2)
    if darkest:
        row, column = darkest
        axes[3].plot(column, row, "s", ms=8, mfc="none", mec="white", mew=1.5)
    hide_axes(axes[3], "4  the same, in place")
    limits = (float(anomaly_map.min()), float(anomaly_map.max()))
    overlay(axes[4], pixels, anomaly_map, limits, "5  anomaly map")
    return figure


def _compare_distances(ax: Axes, distances: np.ndarray, normal_distances: np.ndarray) -> None:
    """Histograms of an image's distances and of normal images', the largest one marked."""
    worst = distances.max()
    edges = np.linspace(0, 1.02 * max(worst, normal_distances.max()), 40)
    for values, color, label in (
        (normal_distances, NORMAL, "normal images"),
        (distances, DEFECT, "this image"),
    ):
        share = np.histogram(values, edges)[0] / len(values)
        ax.stairs(share, edges, fill=True, alpha=0.55, color=color, label=label)
    ax.annotate(
        f"worst\n{worst:.1f}",
        (worst, 0),
        xytext=(0, 24),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        arrowprops={"arrowstyle": "->"},
    )
    ax.set_title("3  distances to the bank", fontsize=10)
    ax.set(xlabel="L2 distance", ylabel="share of patches", yticks=[])
    ax.legend(fontsize=8, loc="upper right")
