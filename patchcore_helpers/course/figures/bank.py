"""How PatchCore gets from an image to a map, and which stored patches decide."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from patchcore_helpers.course.figures.panels import (
    hide_axes,
    overlay,
    show_picture,
)
from patchcore_helpers.course.figures.style import DEFECT, NORMAL


def pipeline(
    image: Any,
    patches: np.ndarray,
    bank: np.ndarray,
    patch_scores: np.ndarray,
    anomaly_map: np.ndarray,
) -> Figure:
    """PatchCore in one picture: image, patch vectors, memory bank, patch scores, anomaly map.

    The three colors of the second panel, and the axes of the third, are the first principal
    components of the memory bank.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    patches : array of shape (rows, columns, channels)
    bank : array of shape (m, channels)
    patch_scores : array of shape (rows, columns)
    anomaly_map : array of shape (height, width)
    """
    mean = bank.mean(0)
    components = np.linalg.svd(bank - mean, full_matrices=False)[2][:3]
    patches_in_3d = (patches - mean) @ components.T
    bank_in_3d = (bank - mean) @ components.T
    low, high = np.quantile(patches_in_3d, [0.02, 0.98], axis=(0, 1))
    colors = np.clip((patches_in_3d - low) / (high - low), 0, 1)
    worst = np.unravel_index(patch_scores.argmax(), patch_scores.shape)

    figure, axes = plt.subplots(1, 5, figsize=(11, 2.75))
    pixels = show_picture(axes[0], image, "1  image")
    axes[1].imshow(colors)
    hide_axes(axes[1], f"2  {patches.shape[0]} x {patches.shape[1]} patches")
    axes[2].scatter(*bank_in_3d[:, :2].T, s=3, color=NORMAL)
    axes[2].scatter(*patches_in_3d[worst][:2], s=60, marker="X", color=DEFECT)
    axes[2].set_title("3  memory bank, worst patch", fontsize=10)
    axes[2].set(xticks=[], yticks=[], box_aspect=1)
    axes[3].imshow(patch_scores)
    hide_axes(axes[3], "4  distance to the bank")
    limits = (float(anomaly_map.min()), float(anomaly_map.max()))
    overlay(axes[4], pixels, anomaly_map, limits, "5  anomaly map")
    return figure


def matches(
    image: Any, positions: np.ndarray, origins: np.ndarray, grid: tuple[int, int]
) -> Figure:
    """Where the nearest stored patches of an image's patches were, in the images they come from.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    positions, origins : int arrays of shape (n, 2)
        Grid row and column of each patch, and of its nearest patch in the memory bank.
    grid : (rows, columns)
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1, 1.3))
    pixels = show_picture(left, image, "from a patch to the place of its match")
    pixels_per_patch = np.array([pixels.height, pixels.width]) / grid
    shown = (positions % 8 == 4).all(axis=1)  # more arrows would hide each other
    start = (positions[shown] + 0.5) * pixels_per_patch
    move = (origins - positions)[shown] * pixels_per_patch
    left.plot(start[:, 1], start[:, 0], "o", ms=7, color=DEFECT, mec="white")
    left.quiver(
        start[:, 1],
        start[:, 0],
        move[:, 1],
        move[:, 0],
        angles="xy",
        scale_units="xy",
        scale=1,
        color=DEFECT,
        width=0.008,
        ec="white",
        lw=0.5,
    )
    lengths = np.linalg.norm((origins - positions) / np.array(grid), axis=1)
    right.hist(lengths, 30, color=NORMAL)
    right.set(xlabel="way from a patch to its match (sides of the image)", ylabel="patches")
    return figure
