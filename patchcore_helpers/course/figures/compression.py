"""How product quantization stores a vector, and how a query is answered."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import label_plane
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
)

COLORS = [BLUE, ORANGE, GREEN, SKY, PURPLE, VERMILION]


def inverted_lists(
    points: np.ndarray, cluster: np.ndarray, centers: np.ndarray, query: np.ndarray, nprobe: int
) -> Figure:
    """Points in the plane by cluster; those of the clusters that a query does not visit are pale.

    Parameters
    ----------
    points : array of shape (n, 2)
    cluster : int array of shape (n,)
    centers : array of shape (clusters, 2)
    query : array of shape (2,)
    nprobe : int
        Clusters visited.
    """
    visited = np.linalg.norm(centers - query, axis=1).argsort()[:nprobe]
    figure, ax = plt.subplots(figsize=(8, 4))
    for number, center in enumerate(centers):
        members = points[cluster == number]
        color = COLORS[number % len(COLORS)]
        alpha = 0.9 if number in visited else 0.15
        ax.scatter(members[:, 0], members[:, 1], s=16, color=color, alpha=alpha, lw=0)
        ax.plot(*center, "X", ms=11, color=color, mec="white")
    compared = np.isin(cluster, visited).sum()
    ax.plot(*query, "*", ms=18, color=BLACK, mec="white", label="query")
    ax.plot([], [], "X", ms=10, color="0.4", label="centers")
    title = f"{nprobe} of {len(centers)} lists visited: {compared} of {len(points)} rows compared"
    label_plane(ax, title=title)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def cut_vector(vector: np.ndarray, restored: np.ndarray, codes: Sequence[int]) -> Figure:
    """A vector cut into parts, the codeword that replaces each, and the numbers that are stored.

    Parameters
    ----------
    vector, restored : arrays of shape (width,)
    codes : sequence of int, one per part
    """
    part = len(vector) // len(codes)
    figure, ax = plt.subplots(figsize=(9.5, 3.8))
    channels = np.arange(len(vector))
    ax.step(channels, vector, where="mid", color="0.55", lw=1.2, label="the vector")
    for number, code in enumerate(codes):
        members = slice(number * part, (number + 1) * part)
        color = COLORS[number % len(COLORS)]
        name = "its codewords" if number == 0 else None
        ax.step(channels[members], restored[members], where="mid", color=color, lw=2.2, label=name)
        middle = (number + 0.5) * part
        ax.text(
            middle, 1.02, str(code), transform=ax.get_xaxis_transform(), ha="center",
            color=color, fontsize=14, fontweight="bold",
        )  # fmt: skip
        if number:
            ax.axvline(number * part - 0.5, color="0.8", lw=1)
    ax.set_xlim(-1, len(vector))
    ax.set(xlabel="channel", ylabel="value minus mean (no unit)")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def look_ups(table: np.ndarray, codes: Sequence[int]) -> Figure:
    """The table of a query, and the entries whose sum is its squared distance to one row.

    Parameters
    ----------
    table : array of shape (parts, codewords)
        Squared distances from each part of the query to each codeword of that part.
    codes : sequence of int, one per part
        Those of the row.
    """
    figure, ax = plt.subplots(figsize=(9.5, 4.2))
    drawn = ax.imshow(table, cmap="Blues", aspect="auto")
    dark = table.max() * 0.6
    for number, code in enumerate(codes):
        ax.add_patch(
            plt.Rectangle((code - 0.5, number - 0.5), 1, 1, fill=False, edgecolor=DEFECT, lw=3)
        )
        value = table[number, code]
        color = "white" if value > dark else BLACK
        ax.text(code, number, f"{value:.1f}", ha="center", va="center", fontsize=9, color=color)
    # Rounded before they are added, so that a reader who adds them up finds the same sum.
    rounded = [round(float(table[number, code]), 1) for number, code in enumerate(codes)]
    terms = " + ".join(f"{term:.1f}" for term in rounded)
    ax.set_title(f"{terms} = {sum(rounded):.1f}, the squared distance", fontsize=11)
    ax.set_xticks(range(table.shape[1]))
    ax.set_yticks(range(table.shape[0]), [str(number + 1) for number in range(len(table))])
    ax.set(xlabel="number of the codeword", ylabel="part of the vector")
    figure.colorbar(drawn, label="squared distance, query to codeword")
    return figure
