"""Patch features: how they are joined, what they see, what they are worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure

from patchcore_helpers.core.items import read_item
from patchcore_helpers.course.figures.panels import (
    Box,
    draw_box,
    hide_axes,
    outline_defect,
    show_picture,
)
from patchcore_helpers.course.figures.style import (
    BLACK,
    BLUE,
    DEFECT,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    log_scale,
)
from patchcore_helpers.course.heat import HEAT, HEAT_OPACITY, heat_map

FAINTEST = 1e-4  # of the strongest influence: the lower end of a logarithmic color scale
NETWORK_COLORS = [BLUE, ORANGE, GREEN, PURPLE]


def enlarged(image: Any, versions: Mapping[str, np.ndarray]) -> Figure:
    """An image, and one channel of a coarse feature map, as it is and enlarged in several ways.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    versions : mapping of name to array of shape (rows, columns)
    """
    figure, axes = plt.subplots(1, len(versions) + 1, figsize=(11, 3.3))
    show_picture(axes[0], image, "image")
    original = next(iter(versions.values()))
    limits = original.min(), original.max()
    for ax, (name, values) in zip(axes[1:], versions.items(), strict=True):
        drawn = ax.imshow(values, vmin=limits[0], vmax=limits[1])
        hide_axes(ax, f"{name}\n{values.shape[0]} x {values.shape[1]}")
    figure.colorbar(drawn, ax=axes, label="activation (no unit)", shrink=0.7, aspect=12)
    return figure


def scores_to_map(sample: Any, patch_scores: np.ndarray, anomaly_map: np.ndarray) -> Figure:
    """An image, its patch scores as a grid, and the anomaly map made of them.

    Parameters
    ----------
    sample : Sample
    patch_scores : array of shape (rows, columns)
    anomaly_map : array of shape (height, width)
    """
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
    show_picture(axes[0], sample, "image, true defect outlined" if sample.has_mask else "image")
    outline_defect(axes[0], sample)
    rows, columns = patch_scores.shape
    for ax, values, title in (
        (axes[1], patch_scores, f"patch scores d: {rows} x {columns}"),
        (axes[2], anomaly_map, "map: enlarged and smoothed"),
    ):
        drawn = ax.imshow(values, vmin=patch_scores.min(), vmax=patch_scores.max())
        hide_axes(ax, title)
    figure.colorbar(drawn, ax=axes, label="distance (L2)", shrink=0.8, aspect=14)
    return figure


def overlap_by_setting(table: pd.DataFrame, xlabel: str) -> Figure:
    """AU-PRO of small and of large defects, and image AUROC, against a setting, with intervals.

    Parameters
    ----------
    table : DataFrame
        Columns setting, group ("image AUROC", or a group of defects), mean, low, high.
    xlabel : str
    """
    is_image = table["group"] == "image AUROC"
    panels = [("AU-PRO", table[~is_image]), ("image AUROC", table[is_image])]
    panels = [(name, rows) for name, rows in panels if len(rows)]
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 3.6), squeeze=False)
    for ax, (ylabel, rows) in zip(axes[0], panels, strict=True):
        for number, (group, part) in enumerate(rows.groupby("group", sort=False)):
            at = np.arange(len(part)) + 0.08 * number
            errors = np.array([part["mean"] - part["low"], part["high"] - part["mean"]])
            color = BLACK if group == "image AUROC" else [DEFECT, BLUE][number % 2]
            errors = np.nan_to_num(errors, posinf=0)
            ax.errorbar(at, part["mean"], errors, fmt="o-", capsize=3, color=color, label=group)
        ax.set(xlabel=xlabel, ylabel=f"{ylabel}, 95 % interval")
        ax.set_xticks(range(len(part)), list(part["setting"]))
        if len(rows["group"].unique()) > 1:
            ax.legend(loc="lower left")
    return figure


def _heat_over_gray() -> ListedColormap:
    """The colors that `heat_map` shows over a medium gray, from nothing to full strength."""
    strength = np.linspace(0, 1, 256)[:, None]
    opacity = HEAT_OPACITY * strength
    return ListedColormap(opacity * colormaps[HEAT](strength[:, 0])[:, :3] + (1 - opacity) * 0.6)


def receptive_fields(
    image: Any, rows: Sequence[tuple[Sequence[np.ndarray], Sequence[Box], Sequence[str]]]
) -> Figure:
    """What one patch vector sees, on a logarithmic scale: squared gradient of each pixel.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    rows : sequence of (fields, boxes, titles)
        A row of panels each, such as one per network: arrays of shape (height, width) of squared
        influence; the grid cells of the patch, in pixels; titles.
    """
    columns = max(len(fields) for fields, _, _ in rows)
    size = (11, 2.6 * len(rows) + 0.2)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for line, (fields, boxes, titles) in zip(axes, rows, strict=True):
        for ax, field, box, title in zip(line, fields, boxes, titles, strict=False):
            height, width = field.shape
            pixels = read_item(image).resize((width, height))
            strength = np.log10(np.clip(field / field.max(), FAINTEST, 1))
            ax.imshow(heat_map(pixels, strength, (np.log10(FAINTEST), 0)))
            draw_box(ax, box)
            hide_axes(ax, title)
    scale = ScalarMappable(LogNorm(FAINTEST, 1), _heat_over_gray())
    label = "squared gradient (of its maximum)"
    figure.colorbar(scale, ax=axes, label=label, shrink=0.8, aspect=18)
    return figure


def cumulative_influence(
    networks: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], width: int
) -> Figure:
    """The share of a patch's influence within a distance, a line for each layer.

    Parameters
    ----------
    networks : mapping of network to (mapping of layer to (distances in pixels, shares))
        A panel per network; see `influence_by_distance`.
    width : int, pixels
        Of the image.
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(10, 3.8), sharey=True, squeeze=False)
    for ax, (network, layers) in zip(axes[0], networks.items(), strict=True):
        for color, (layer, (distances, within)) in zip(
            NETWORK_COLORS, layers.items(), strict=False
        ):
            ends = np.append(np.flatnonzero(np.diff(distances)), len(distances) - 1)
            ax.plot(distances[ends], within[ends], color=color, label=layer)
        ax.axhline(0.9, color="0.6", lw=1, ls=":")
        ax.text(0.8, 0.915, "90 %", color="0.35", fontsize=9)
        ax.set(xlabel="distance from the patch's center (pixels)", title=network, ylim=(0, 1.02))
        ax.set_xlim(0.7, width)
        log_scale(ax.xaxis)
        ax.legend(loc="lower right", fontsize=9)
    axes[0][0].set_ylabel("share of the squared gradient")
    return figure


def layer_intervals(table: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Image AUROC and AU-PRO of several choices of layers, with 95 % intervals.

    Parameters
    ----------
    table : DataFrame
        As `judgement_table` makes it, in the order of the rows of the figure.
    groups : sequence of str
        The network of each row; rows of a network share a color.
    """
    panels = [("image_auroc", "image_low", "image_high", "image AUROC: is there a defect?")]
    if "au_pro" in table:
        panels.append(("au_pro", "pro_low", "pro_high", "AU-PRO: where is it?"))
    rows = np.arange(len(table))[::-1]
    networks = list(dict.fromkeys(groups))
    colors = [NETWORK_COLORS[networks.index(group)] for group in groups]
    size = (10, 0.42 * len(table) + 1.2)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for ax, (measure, low, high, label) in zip(axes[0], panels, strict=True):
        left, right = table[low].clip(0, 1), table[high].clip(0, 1)
        ax.hlines(rows, left, right, color=colors, lw=2)
        ax.scatter(table[measure], rows, c=colors, s=60, zorder=3)
        ax.set(xlabel=f"{label} (95 % interval)", yticks=rows, ylim=(-0.7, len(table) - 0.3))
        ax.grid(axis="x", color="0.9")
    axes[0][0].set_yticklabels(table.index)
    return figure


def patch_neighbors(
    chosen: tuple[Any, Box, str],
    field: np.ndarray | None,
    others: Sequence[tuple[Any, Box, str]],
    size: tuple[int, int],
    reach: float | None = None,
) -> Figure:
    """A patch in its image, and others in theirs: whole images above, surroundings below.

    Parameters
    ----------
    chosen : (sample, box, title)
        The box is the patch's grid cell (left, top, right, bottom), in pixels at `size`.
    field : array of shape (height, width), or None
        Squared influence on the chosen patch, drawn on a logarithmic scale.
    others : sequence of (sample, box, title)
    size : (height, width), pixels
    reach : float, pixels, optional
        Radius of a circle around the chosen patch, such as that of its field of view. Unlike the
        field itself, it costs nothing to draw.
    """
    figure, axes = plt.subplots(2, 1 + len(others), figsize=(11, 4.8), squeeze=False)
    height, width = size
    for column, (sample, box, title) in enumerate([chosen, *others]):
        pixels = sample.read().resize((width, height))
        above, below = axes[:, column]
        above.imshow(pixels)
        below.imshow(pixels)
        if column == 0 and field is not None:
            strength = np.log10(np.clip(field / field.max(), FAINTEST, 1))
            above.imshow(heat_map(pixels, strength, (np.log10(FAINTEST), 0)))
        if column == 0 and reach is not None:
            middle = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
            above.add_patch(plt.Circle(middle, reach, fill=False, color=DEFECT, ls="--", lw=1.5))
            above.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        for ax, text in ((above, title), (below, "")):
            draw_box(ax, box, DEFECT if column == 0 else SKY)
            hide_axes(ax, text)
        left, top, right, bottom = box
        margin = max(24, right - left) + 0.5
        below.set_xlim(left - margin, right + margin - 1)
        below.set_ylim(bottom + margin - 1, top - margin)
    return figure
