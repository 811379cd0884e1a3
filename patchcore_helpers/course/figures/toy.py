"""Toys that fit on a page: points in the plane, a map of a few numbers."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import label_plane
from patchcore_helpers.course.figures.style import (
    BLACK,
    DEFECT,
    NORMAL,
)


def toy_bank(
    bank: np.ndarray, queries: np.ndarray, distances: np.ndarray, nearest: np.ndarray
) -> Figure:
    """Points of a memory bank, query points, and the line from each to its nearest bank point.

    Parameters
    ----------
    bank, queries : arrays of shape (m, 2) and (n, 2)
    distances, nearest : arrays of shape (n,), the patch scores and the rows of the bank
    """
    figure, ax = plt.subplots(figsize=(8.5, 3.8))
    ax.scatter(bank[:, 0], bank[:, 1], s=45, color=NORMAL, label="memory bank (normal patches)")
    ax.scatter(
        queries[:, 0], queries[:, 1], s=70, marker="X", color=DEFECT, label="patches to judge"
    )
    for query, distance, row in zip(queries, distances, nearest, strict=True):
        ax.plot(*np.transpose([query, bank[row]]), color=BLACK, lw=1, zorder=0)
        ax.annotate(f"{distance:.2f}", query, xytext=(10, -12), textcoords="offset points")
    label_plane(ax)
    ax.margins(0.2)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _show_numbers(ax: Axes, values: np.ndarray, title: str) -> None:
    """Draw a small map with its values written into the cells."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.6 * values.max())
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.3g}", ha="center", va="center")
    ax.set_title(title, fontsize=11)
    ax.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def toy_unfold(padded: np.ndarray, mean: np.ndarray, row: int, column: int) -> Figure:
    """A small map with its border of zeros, one 3x3 neighborhood marked, and the map of means.

    Parameters
    ----------
    padded : array of shape (height + 2, width + 2)
    mean : array of shape (height, width)
    row, column : int
        The position, in `mean`, whose neighborhood is marked.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.9))
    _show_numbers(left, padded, "feature map, with a border of zeros")
    _show_numbers(right, mean, "mean of each 3x3 neighborhood")
    corner = (column - 0.5, row - 0.5)
    left.add_patch(plt.Rectangle(corner, 3, 3, fill=False, edgecolor=DEFECT, lw=3))
    right.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor=DEFECT, lw=3))
    return figure


def greedy_steps(points: np.ndarray, chosen: np.ndarray, step: int) -> Figure:
    """The first picks of greedy k-center among points in the plane.

    Points are colored by their distance to the nearest pick; the circle is the coverage radius,
    drawn around the point that is farthest from all picks: the next one.

    Parameters
    ----------
    points : array of shape (n, 2)
    chosen : int array
        Picks in their order.
    step : int
        How many of them have been made.
    """
    centers = points[chosen[:step]]
    distances = np.linalg.norm(points[:, None] - centers, axis=2).min(1)
    radius = distances.max()
    farthest = points[distances.argmax()]
    figure, ax = plt.subplots(figsize=(5.6, 4.2))
    drawn = ax.scatter(
        points[:, 0], points[:, 1], c=distances, s=16, cmap="viridis_r", vmin=0, vmax=4
    )
    ax.scatter(centers[:, 0], centers[:, 1], s=90, color=DEFECT, edgecolor="white", zorder=3)
    for number, center in enumerate(centers, 1):
        ax.annotate(
            str(number), center, xytext=(6, 5), textcoords="offset points", fontweight="bold"
        )
    ax.add_patch(plt.Circle(farthest, radius, fill=False, edgecolor=BLACK, ls="--", lw=1.2))
    ax.plot(*farthest, "k+", ms=12, mew=2)
    figure.colorbar(drawn, label="distance to the nearest pick (no unit)")
    label_plane(ax, title=f"{step} picks, coverage radius {radius:.2f}")
    ax.margins(0.1)  # room for the numbers
    return figure
