"""Parts that figures are put together from: a picture, an anomaly map over it, a box, a band."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.container import BarContainer
from PIL import Image

from patchcore_helpers.core.items import read_item
from patchcore_helpers.course.figures.style import BLACK, SKY
from patchcore_helpers.course.heat import HEAT, HEAT_OPACITY, Limits, heat_map

Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels


def hide_axes(ax: Axes, title: str = "") -> None:
    """Make a panel that shows a picture: a small title, no axes."""
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()


def show_picture(ax: Axes, image: Any, title: str = "") -> Image.Image:
    """Draw an image; returns its pixels.

    Parameters
    ----------
    ax : matplotlib axes
    image : sample, path, PIL image or uint8 array
    title : str
    """
    pixels = read_item(image)
    ax.imshow(pixels)
    hide_axes(ax, title)
    return pixels


def overlay(
    ax: Axes, image: Image.Image, anomaly_map: np.ndarray, limits: Limits, title: str = ""
) -> ScalarMappable:
    """Draw an image in gray with its anomaly map over it; see `heat_map`.

    The image takes the size of the map, so positions on the axes are pixels of the map.

    Returns
    -------
    ScalarMappable
        The color scale, for a color bar.
    """
    height, width = anomaly_map.shape
    ax.imshow(heat_map(image.resize((width, height)), anomaly_map, limits))
    hide_axes(ax, title)
    return ScalarMappable(Normalize(*limits), heat_over_gray())


def heat_over_gray() -> ListedColormap:
    """The colors that `heat_map` gives to a gray of medium brightness, for a color bar.

    Examples
    --------
    >>> heat_over_gray()(0.0)[:3] == (0.5, 0.5, 0.5)  # below the scale, the image shows through
    True
    """
    strength = np.linspace(0, 1, 256)[:, None]
    colors = colormaps[HEAT](strength[:, 0])[:, :3]
    opacity = HEAT_OPACITY * strength
    return ListedColormap(opacity * colors + (1 - opacity) * 0.5, name="heat over gray")


def outline_defect(ax: Axes, sample: Any) -> None:
    """Draw the border of the true defect, where it is known."""
    mask = sample.mask()
    if mask is not None and mask.any():
        ax.contour(mask, levels=[0.5], colors=[SKY], linewidths=1.5)


def draw_box(ax: Axes, box: Box, color: str = SKY, lw: float = 2) -> None:
    """Frame the pixels of a box."""
    left, top, right, bottom = box
    corner = (left - 0.5, top - 0.5)
    ax.add_patch(
        plt.Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=color, lw=lw)
    )


def label_plane(ax: Axes, **properties: Any) -> None:
    """Make the axes of a toy in the plane of two features."""
    ax.set(xlabel="feature 1 (no unit)", ylabel="feature 2 (no unit)", aspect="equal", **properties)


def mean_and_range(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, *, alpha: float, label: str, **look: Any
) -> pd.Index:
    """Draw a line through the means of a column at every x, and a band from least to largest.

    Parameters
    ----------
    ax : matplotlib axes
    rows : DataFrame with the columns `x` and `y`
    alpha : float
        Opacity of the band.
    label : str
        Name of the line in a legend.
    **look
        Properties of line and band, such as the color; `band` names the band in a legend.

    Returns
    -------
    Index
        The values of x.
    """
    band = look.pop("band", None)
    summary = rows.groupby(x)[y].agg(["mean", "min", "max"])
    ax.fill_between(summary.index, summary["min"], summary["max"], alpha=alpha, label=band, **look)
    ax.plot(summary.index, summary["mean"], "o-", label=label, **look)
    return summary.index


def bars_from_chance(
    ax: Axes,
    table: pd.DataFrame,
    group: str,
    colors: dict[str, str],
    *,
    lw: float = 1.0,
    upright: bool = False,
) -> list[BarContainer]:
    """Draw AUROC by category and group, as bars that start at chance, with intervals.

    Parameters
    ----------
    ax : matplotlib axes
    table : DataFrame with the columns category, auroc and `group`; low and high for intervals
    group : str
    colors : dict of group to color
    lw : float, points
        Width of the lines that show intervals.
    upright : bool
        Categories side by side, not one below the other.

    Returns
    -------
    list of BarContainer
        One per group.
    """
    categories = table["category"].unique()
    groups = table.groupby(group, sort=False)
    width = 0.8 / len(groups)
    containers = []
    for i, (name, rows) in enumerate(groups):
        rows = rows.set_index("category").reindex(categories)
        at = np.arange(len(categories)) + (i - (len(groups) - 1) / 2) * width
        height = rows["auroc"] - 0.5
        look: dict[str, Any] = {"color": colors[str(name)], "label": name}
        if upright:
            containers.append(ax.bar(at, height, 0.9 * width, bottom=0.5, **look))
        else:
            containers.append(ax.barh(at, height, 0.9 * width, left=0.5, **look))
        if "low" in rows:
            draw_lines = ax.vlines if upright else ax.hlines
            draw_lines(at, rows["low"], rows["high"], color=BLACK, lw=lw)
    category_axis = ax.xaxis if upright else ax.yaxis
    category_axis.set_ticks(range(len(categories)), list(categories))
    return containers


def draw_by_distance(
    ax: Axes, points: np.ndarray, distances: np.ndarray, size: float, n_dense: int | None = None
) -> PathCollection:
    """Draw points of the plane in the color of their distance to the nearest pick.

    Parameters
    ----------
    ax : matplotlib axes
    points : array of shape (n, 2)
    distances : array of shape (n,), no unit
    size : float
        Area of a marker, in points squared.
    n_dense : int, optional
        The points from this one on are drawn as hollow circles; by default none.

    Returns
    -------
    PathCollection
        For a color bar.
    """
    scale = Normalize(0, 4)
    edges = ScalarMappable(scale, "viridis_r").to_rgba(distances)
    x, y = points.T
    n_filled = len(points) if n_dense is None else n_dense
    filled, hollow = slice(n_filled), slice(n_filled, None)
    ax.scatter(x[hollow], y[hollow], s=2 * size, facecolor="none", edgecolor=edges[hollow])
    return ax.scatter(
        x[filled], y[filled], s=size, c=distances[filled], cmap="viridis_r", norm=scale
    )
