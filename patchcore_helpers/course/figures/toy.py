"""Toys that fit on a page: points in the plane, a map of a few numbers."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import draw_by_distance, label_plane
from patchcore_helpers.course.figures.style import (
    BLACK,
    DEFECT,
    NORMAL,
)

Place = tuple[int, int]  # row, column


def toy_bank(
    bank: np.ndarray, queries: np.ndarray, distances: np.ndarray, nearest: np.ndarray
) -> Figure:
    """Points of a memory bank and query points, over a map of the distance to the bank.

    A line leads from each query to its nearest bank point; the shading is the score that a query
    at this place would get.

    Parameters
    ----------
    bank, queries : arrays of shape (m, 2) and (n, 2)
    distances, nearest : arrays of shape (n,), the patch scores and the rows of the bank
    """
    figure, ax = plt.subplots(figsize=(8.5, 4.4))
    everything = np.concatenate([bank, queries])
    low, high = everything.min(0) - 0.8, everything.max(0) + 0.8
    x, y = np.meshgrid(*(np.linspace(low[i], high[i], 160) for i in (0, 1)))
    plane = np.stack([x, y], axis=-1)
    score = np.linalg.norm(plane[:, :, None] - bank, axis=3).min(axis=2)
    shading = ax.contourf(x, y, score, levels=np.arange(0, score.max() + 0.5, 0.5), cmap="Oranges")
    figure.colorbar(shading, label="distance to the bank (no unit)")
    ax.scatter(bank[:, 0], bank[:, 1], s=45, color=NORMAL, label="memory bank (normal patches)")
    ax.scatter(
        queries[:, 0],
        queries[:, 1],
        s=80,
        marker="X",
        color=BLACK,
        edgecolor="white",
        label="patches to judge",
    )
    for query, distance, row in zip(queries, distances, nearest, strict=True):
        ax.plot(*np.transpose([query, bank[row]]), color=BLACK, lw=1)
        ax.annotate(
            f"{distance:.2f}",
            query,
            xytext=(9, -4),
            textcoords="offset points",
            fontweight="bold",
        )
    label_plane(ax)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _show_numbers(ax: Axes, values: np.ndarray, title: str, first: int = 0) -> None:
    """Draw a small map with its values in the cells; rows and columns are counted from `first`."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.6 * values.max())
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.2g}", ha="center", va="center")
    ax.set_title(title, fontsize=11)
    rows, columns = (range(length) for length in values.shape)
    ax.set_xticks(columns, [str(first + column) for column in columns])
    ax.set_yticks(rows, [str(first + row) for row in rows])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def toy_unfold(padded: np.ndarray, mean: np.ndarray, ones: np.ndarray, place: Place) -> Figure:
    """A small map with its border of zeros, the map of 3x3 means, and what a map of ones becomes.

    Parameters
    ----------
    padded : array of shape (height + 2, width + 2)
    mean : array of shape (height, width)
        Of the 3x3 neighborhoods.
    ones : array of shape (height, width)
        The means of a map that is 1 everywhere.
    place : (row, column)
        The position, in `mean`, whose neighborhood is marked.
    """
    row, column = place
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.9))
    _show_numbers(left, padded, "one channel, with a border of zeros", first=-1)
    _show_numbers(middle, mean, "mean of each 3x3 neighborhood")
    _show_numbers(right, ones, "the same for a map of ones")
    corner = (column - 0.5, row - 0.5)
    left.add_patch(plt.Rectangle(corner, 3, 3, fill=False, edgecolor=DEFECT, lw=3))
    middle.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor=DEFECT, lw=3))
    return figure


def greedy_steps(
    points: np.ndarray, chosen: np.ndarray, step: int, n_dense: int | None = None
) -> Figure:
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
    n_dense : int, optional
        The points from this one on are drawn as hollow circles; by default none.
    """
    centers = points[chosen[:step]]
    distances = np.linalg.norm(points[:, None] - centers, axis=2).min(1)
    radius = distances.max()
    farthest = points[distances.argmax()]
    figure, ax = plt.subplots(figsize=(5.6, 4.2))
    drawn = draw_by_distance(ax, points, distances, 16, n_dense)
    ax.scatter(centers[:, 0], centers[:, 1], s=90, color=DEFECT, edgecolor="white", zorder=3)
    for number, center in enumerate(centers, 1):
        ax.annotate(
            str(number), center, xytext=(6, 5), textcoords="offset points", fontweight="bold"
        )
    ax.add_patch(plt.Circle(farthest, radius, fill=False, edgecolor=BLACK, ls="--", lw=1.2))
    ax.plot(*farthest, "k+", ms=12, mew=2)
    figure.colorbar(drawn, label="distance to the nearest pick (no unit)")
    label_plane(ax, title=f"{step} pick{'s' * (step > 1)}, coverage radius {radius:.2f}")
    ax.margins(0.1)  # room for the numbers
    return figure
