"""Images, and what a detector makes of them."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import (
    Limits,
    hide_axes,
    outline_defect,
    overlay,
    show_picture,
)


def images(pictures: Sequence[Any], titles: Sequence[str], columns: int = 5) -> Figure:
    """A grid of images with a title each.

    Parameters
    ----------
    pictures : sequence of samples, paths, PIL images or uint8 arrays
    titles : sequence of str
    columns : int
    """
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, 2.05 * rows), squeeze=False)
    for ax in axes.flat[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        show_picture(ax, picture, title)
    return figure


def heat_maps(
    samples: Sequence[Any],
    maps: np.ndarray,
    titles: Sequence[str],
    limits: Limits,
    own_scales: bool = False,
) -> Figure:
    """Images above, the same with their anomaly maps below, one color scale for all.

    Parameters
    ----------
    samples : sequence of Sample
    maps : array of shape (n, height, width)
    titles : sequence of str
    limits : (low, high)
        See `overlay`.
    own_scales : bool
        Add a third row: every map from its own median to its own maximum.
    """
    rows = 3 if own_scales else 2
    height = rows * min(2.05, 8.2 / len(samples) + 0.45)  # more columns, smaller pictures
    figure, axes = plt.subplots(rows, len(samples), figsize=(9, height), squeeze=False)
    panels = zip(axes.T, samples, maps, titles, strict=True)
    for column, sample, anomaly_map, title in panels:
        pixels = show_picture(column[0], sample, title)
        outline_defect(column[0], sample)
        scale = overlay(column[1], pixels, anomaly_map, limits)
        if own_scales:
            own = float(np.median(anomaly_map)), float(anomaly_map.max())
            overlay(column[2], pixels, anomaly_map, own, f"own scale: {own[0]:.0f} to {own[1]:.0f}")
    bar_at = axes[:2] if own_scales else axes
    figure.colorbar(scale, ax=bar_at, label="anomaly map (L2 distance)", shrink=0.7)
    return figure


def changed_images(
    pictures: Sequence[Any], maps: np.ndarray, titles: Sequence[str], limits: Limits
) -> Figure:
    """One image under several changes, each with its anomaly map below, one color scale for all.

    Parameters
    ----------
    pictures : sequence of PIL images
    maps : array of shape (n, height, width)
    titles : sequence of str
    limits : (low, high)
        See `overlay`.
    """
    columns = -(-len(pictures) // 2)
    figure, axes = plt.subplots(4, columns, figsize=(11, 40 / columns + 0.6), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (picture, anomaly_map, title) in enumerate(zip(pictures, maps, titles, strict=True)):
        row, column = 2 * (i // columns), i % columns
        pixels = show_picture(axes[row, column], picture, title)
        scale = overlay(axes[row + 1, column], pixels, anomaly_map, limits)
    figure.colorbar(scale, ax=axes, label="anomaly map (L2 distance)", shrink=0.6)
    return figure


def reconstructions(
    samples: Sequence[Any],
    redrawn: np.ndarray,
    errors: np.ndarray,
    maps: np.ndarray,
    titles: Sequence[Sequence[str]],
    limits: Sequence[Limits],
) -> Figure:
    """A row per image: itself, an autoencoder's reconstruction, its squared error, PatchCore's map.

    Parameters
    ----------
    samples : sequence of Sample
    redrawn : array of shape (n, height, width, 3), 0 to 1
    errors, maps : arrays of shape (n, height, width)
    titles : sequence of (over the image, over the error, over PatchCore's map)
    limits : two (low, high), of errors and of maps
        See `overlay`.
    """
    rows = len(samples)
    figure, axes = plt.subplots(rows, 4, figsize=(9, 2.35 * rows + 0.5), squeeze=False)
    for row, (sample, picture) in enumerate(zip(samples, redrawn, strict=True)):
        title, error_title, map_title = titles[row]
        pixels = show_picture(axes[row, 0], sample, title)
        outline_defect(axes[row, 0], sample)
        drawing = (picture.clip(0, 1) * 255).astype(np.uint8)
        show_picture(axes[row, 1], drawing, "reconstruction")
        error_scale = overlay(axes[row, 2], pixels, errors[row], limits[0], error_title)
        map_scale = overlay(axes[row, 3], pixels, maps[row], limits[1], map_title)
    below: dict[str, Any] = {"location": "bottom", "aspect": 12}
    error_label = "squared error\n(of the image's variance)"
    figure.colorbar(error_scale, ax=axes[:, 2], label=error_label, **below)
    figure.colorbar(map_scale, ax=axes[:, 3], label="anomaly map\n(L2 distance)", **below)
    return figure


def layer_maps(image: Any, maps: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """An image, and the mean activation of each layer's feature map.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    maps : sequence of arrays of shape (channels, height, width)
    names : sequence of str
    """
    figure, axes = plt.subplots(1, len(maps) + 1, figsize=(11, 11 / (len(maps) + 1) + 0.5))
    show_picture(axes[0], image, "image")
    for ax, feature_map, name in zip(axes[1:], maps, names, strict=True):
        ax.imshow(np.abs(feature_map).mean(0))
        channels, height, width = feature_map.shape
        hide_axes(ax, f"{name}\n{height} x {width}, {channels} channels")
    return figure
