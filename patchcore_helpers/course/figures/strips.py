"""Long images of cloth, their tiles and their maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from patchcore_helpers.core.items import read_item
from patchcore_helpers.course.figures.panels import Box, Limits, draw_box, overlay
from patchcore_helpers.course.figures.style import BLUE, ORANGE, SKY


def tile_and_patch(
    strip: Image.Image, tile: tuple[int, int, int, int], cell: tuple[int, int, int, int]
) -> Figure:
    """A tile is a crop of the image; a patch is one position of the feature map of a tile.

    Parameters
    ----------
    strip : PIL image
    tile : (left, top, right, bottom), pixels of the strip
    cell : (left, top, right, bottom), pixels of the tile
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.9), width_ratios=(3, 1))
    left.imshow(strip)
    draw_box(left, tile, ORANGE)
    left.set_title("image; the orange square is a tile: a crop of pixels", fontsize=11)
    right.imshow(strip.crop(tile))
    draw_box(right, cell, SKY)
    right.set_title("one tile; in blue, the cell\nof one patch: a feature vector", fontsize=11)
    for ax in (left, right):
        ax.set_axis_off()
    return figure


def strip_tiles(strip: np.ndarray, positions: pd.DataFrame, cloth: Sequence[float]) -> Figure:
    """A strip with its tiles; those that show no cloth are crossed out.

    Parameters
    ----------
    strip : uint8 array of shape (height, width)
    positions : DataFrame with the columns x, y, width, height
    cloth : sequence of float
        The share of cloth in each tile.
    """
    figure, ax = plt.subplots(figsize=(11, 1.3))
    ax.imshow(strip, cmap="gray", vmin=0, vmax=255)
    for i, (tile, share) in enumerate(zip(positions.itertuples(), cloth, strict=True)):
        margin = 8 + 8 * (i % 2)  # so that the outlines of overlapping tiles can be told apart
        left = tile.x + margin
        top = tile.y + margin
        right = tile.x + tile.width - margin
        bottom = tile.y + tile.height - margin
        draw_box(ax, (left, top, right, bottom), ORANGE if share else "0.5")
        if not share:
            ax.plot([left, right], [top, bottom], color="0.5", lw=1)
    ax.set_axis_off()
    return figure


def strip_maps(
    strips: Sequence[Any],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    limits: Limits,
    marks: Sequence[Sequence[Box]] = (),
) -> Figure:
    """Strips one below the other, each with its stitched anomaly map over it.

    Parameters
    ----------
    strips : sequence of samples or uint8 arrays
    maps : sequence of arrays of shape (height, width)
    titles : sequence of str
    limits : (low, high)
        See `overlay`.
    marks : sequence of sequences of (left, top, right, bottom), optional
        Boxes to draw, pixels, one list for each strip.
    """
    size = (11, max(1.12 * len(strips), 2))  # the color bar's label needs two inches
    figure, axes = plt.subplots(len(strips), 1, figsize=size, squeeze=False)
    panels = zip(axes.flat, strips, maps, titles, marks or [()] * len(strips), strict=True)
    for ax, strip, anomaly_map, title, boxes in panels:
        image = read_item(strip)
        scale = overlay(ax, image, anomaly_map, limits)
        ax.set_title(title, fontsize=9, loc="left", pad=2)
        draw_box(ax, (0, 0, image.width, image.height), "0.6", 1)  # white margins end here
        for box in boxes:
            draw_box(ax, box)
    figure.colorbar(scale, ax=axes, label="anomaly map\n(no unit)", aspect=14)
    return figure


def seam_pictures(
    strip: np.ndarray, maps: Mapping[str, np.ndarray], seams: Sequence[int], limits: Limits
) -> Figure:
    """A part of a strip, and the patch scores that several ways give it, with the seams marked.

    Parameters
    ----------
    strip : uint8 array of shape (height, width)
    maps : mapping from a title to an array of shape (rows, columns)
        Stretched to the strip.
    seams : sequence of int, pixels
        The columns at which the tiles of the first way meet.
    limits : (low, high)
        The values of the maps at the two ends of the color scale.
    """
    height, width = strip.shape
    figure, axes = plt.subplots(len(maps) + 1, 1, figsize=(10, 2.2 * (len(maps) + 1)))
    axes[0].imshow(strip, cmap="gray", vmin=0, vmax=255)
    axes[0].set_title("the strip", fontsize=10, loc="left")
    for ax, (title, patch_scores) in zip(axes[1:], maps.items(), strict=True):
        extent = (0, width, height, 0)
        scale = ax.imshow(
            patch_scores, cmap="viridis", vmin=limits[0], vmax=limits[1], extent=extent
        )
        ax.set_title(title, fontsize=10, loc="left")
    for ax in axes:
        for seam in seams:
            ax.axvline(seam, 0, 0.1, color=ORANGE, lw=2.5)
            ax.axvline(seam, 0.9, 1, color=ORANGE, lw=2.5)
        ax.set_axis_off()
    figure.colorbar(scale, ax=axes, label="patch score (no unit)", aspect=25)
    return figure


def peaks_along_cloth(
    distances: Mapping[str, np.ndarray], first_scored: int, selvage_cut: int
) -> Figure:
    """Where along the cloth the maps of strips are highest, a dot for each strip.

    Parameters
    ----------
    distances : mapping from the name of a group of strips to an array of shape (n,)
        Pixels from the start of the cloth to the peak.
    first_scored : int, pixels
        The first column that counts.
    selvage_cut : int, pixels
        The first column that would count if the selvage were cut away.
    """
    figure, ax = plt.subplots(figsize=(9, 0.9 + 0.7 * len(distances)))
    spread = np.random.default_rng(0)
    for row, values in enumerate(distances.values()):
        heights = row + spread.uniform(-0.22, 0.22, len(values))
        color = (BLUE, ORANGE)[row % 2]
        ax.plot(values, heights, "o", ms=5, alpha=0.7, color=color)
    ax.axvspan(first_scored, selvage_cut, color="0.85", zorder=0)
    ax.set_yticks(range(len(distances)), list(distances))
    ax.set(xlabel="peak of the map: pixels from the start of the cloth", ylim=(-0.5, row + 0.5))
    ax.invert_yaxis()
    return figure
