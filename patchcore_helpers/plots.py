"""Every figure of the course, in one look."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from sklearn.metrics import roc_curve

from .datasets import Sample
from .images import read_image

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of colour vision.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
NORMAL, DEFECT, THRESHOLD = BLUE, VERMILION, BLACK

STYLE = {
    "axes.prop_cycle": cycler(color=[BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK, YELLOW]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",  # readable in a dark theme too
    "figure.figsize": (9, 3.4),  # inches; 900 pixels fit a notebook's column
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "savefig.facecolor": "white",
    "font.size": 11,
    "image.cmap": "magma",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def use_style():
    """Make `STYLE` the default of every figure drawn from now on.

    Examples
    --------
    >>> use_style()
    >>> matplotlib.rcParams["figure.dpi"]
    100.0
    """
    matplotlib.rcParams.update(STYLE)


def _picture(axes, image, title=""):
    pixels = image.read() if isinstance(image, Sample) else read_image(image)
    axes.imshow(pixels)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    return pixels


def images(pictures, titles, columns=5):
    """A grid of images with a title each.

    Parameters
    ----------
    pictures : list of samples, paths, PIL images or uint8 arrays
    titles : list of str
    columns : int
    """
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, 2.05 * rows), squeeze=False)
    for ax in axes.flat[len(pictures) :]:
        ax.set_axis_off()
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        _picture(ax, picture, title)
    return figure


def toy_bank(bank, queries, distances, nearest):
    """Points of a memory bank, query points, and the line from each to its nearest bank point.

    Parameters
    ----------
    bank, queries : arrays of shape (m, 2) and (n, 2)
    distances, nearest : arrays of shape (n,), the patch scores and the rows of the bank
    """
    figure, ax = plt.subplots(figsize=(6.5, 3.8))
    ax.scatter(*bank.T, s=45, color=NORMAL, label="memory bank (normal patches)")
    ax.scatter(*queries.T, s=70, marker="X", color=DEFECT, label="patches to judge")
    for query, distance, row in zip(queries, distances, nearest, strict=True):
        ax.plot(*np.transpose([query, bank[row]]), color=BLACK, lw=1, zorder=0)
        ax.annotate(f"{distance:.2f}", query, xytext=(9, -4), textcoords="offset points")
    ax.set(xlabel="feature 1 (no unit)", ylabel="feature 2 (no unit)", aspect="equal")
    ax.margins(0.15)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pipeline(image, patches, bank, patch_scores, anomaly_map):
    """PatchCore in one picture: image, patch vectors, memory bank, patch scores, anomaly map.

    The three colours of the second panel, and the axes of the third, are the first principal
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
    directions = np.linalg.svd(bank - mean, full_matrices=False)[2][:3]
    colours, points = (patches - mean) @ directions.T, (bank - mean) @ directions.T
    low, high = np.quantile(colours, [0.02, 0.98], axis=(0, 1))
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.75))
    pixels = _picture(axes[0], image, "1  image")
    axes[1].imshow(np.clip((colours - low) / (high - low), 0, 1))
    axes[1].set_title(f"2  {patches.shape[0]} x {patches.shape[1]} patches", fontsize=10)
    worst = np.unravel_index(patch_scores.argmax(), patch_scores.shape)
    axes[2].scatter(*points[:, :2].T, s=3, color=NORMAL)
    axes[2].scatter(*colours[worst][:2], s=60, marker="X", color=DEFECT)
    axes[2].set_title("3  memory bank, worst patch", fontsize=10)
    axes[2].set(xticks=[], yticks=[], box_aspect=1)
    axes[3].imshow(patch_scores)
    axes[3].set_title("4  distance to the bank", fontsize=10)
    overlay(axes[4], pixels, anomaly_map, (float(anomaly_map.min()), float(anomaly_map.max())))
    axes[4].set_title("5  anomaly map", fontsize=10)
    for ax in (axes[1], axes[3], axes[4]):
        ax.set_axis_off()
    return figure


def overlay(ax, image, anomaly_map, limits):
    """Draw an image in grey with its anomaly map over it; returns the drawn map, for a colour bar.

    Parameters
    ----------
    ax : matplotlib axes
    image : PIL image
    anomaly_map : array of shape (height, width)
    limits : (low, high)
        Map values at the two ends of the colour scale; below `low` the image shows through.
    """
    low, high = limits
    height, width = anomaly_map.shape
    ax.imshow(image.convert("L").resize((width, height)), cmap="gray", vmin=0, vmax=255)
    alpha = 0.75 * np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    drawn = ax.imshow(anomaly_map, vmin=low, vmax=high, alpha=alpha)
    ax.set_axis_off()
    return matplotlib.cm.ScalarMappable(drawn.norm, drawn.cmap)


def heat_maps(samples, maps, titles, limits):
    """Images above, the same with their anomaly maps below, one colour scale for all.

    Parameters
    ----------
    samples : list of Sample
    maps : array of shape (n, height, width)
    titles : list of str
    limits : (low, high)
        See `overlay`.
    """
    count = len(samples)
    figure, axes = plt.subplots(2, count, figsize=(9, 4.1), squeeze=False)
    for (above, below), sample, anomaly_map, title in zip(
        axes.T, samples, maps, titles, strict=True
    ):
        scale = overlay(below, _picture(above, sample, title), anomaly_map, limits)
        mask = sample.mask()
        if mask is not None and mask.any():
            above.contour(mask, levels=[0.5], colors=[SKY], linewidths=1.5)
    figure.colorbar(scale, ax=axes, label="anomaly map (L2 distance)", shrink=0.7)
    return figure


def _histogram(ax, labels, scores, threshold=None):
    edges = np.linspace(scores.min(), scores.max(), 41)
    for label, name, colour in ((0, "normal", NORMAL), (1, "defective", DEFECT)):
        ax.hist(scores[labels == label], edges, alpha=0.65, color=colour, label=name)
    if threshold is not None:
        ax.axvline(threshold, color=THRESHOLD, ls="--", label="threshold")
    ax.set(xlabel="image score (L2 distance)", ylabel="test images")
    ax.legend()


def _rates(labels, scores, threshold):
    alarms = scores > threshold
    return alarms[labels == 0].mean(), alarms[labels == 1].mean()


def scores(labels, scores, threshold=None):
    """Histogram of image scores by class, and the ROC curve, with the threshold marked in both.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)
    threshold : float, optional
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1.5, 1))
    _histogram(left, labels, scores, threshold)
    false_alarms, found, _ = roc_curve(labels, scores)
    right.plot(false_alarms, found, color=GREEN)
    right.plot([0, 1], [0, 1], color="0.7", lw=1, ls=":")
    if threshold is not None:
        right.plot(*_rates(labels, scores, threshold), "o", ms=9, color=THRESHOLD)
    right.set(
        xlabel="false alarms / normal images", ylabel="found / defective images", aspect="equal"
    )
    return figure


def threshold_view(labels, scores, samples, threshold):
    """What one threshold does: the histogram cut, the four counts, and the images nearest to it.

    Parameters
    ----------
    labels, scores : arrays of shape (n,)
    samples : list of n Sample
    threshold : float
    """
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), width_ratios=(2.2, 1.5, 1, 1))
    _histogram(axes[0], labels, scores, threshold)
    alarms = scores > threshold
    counts = [
        int(((labels == label) & (alarms == alarm)).sum()) for label in (1, 0) for alarm in (1, 0)
    ]
    names = ["defect found", "defect missed", "false alarm", "normal passed"]
    axes[1].barh(names[::-1], counts[::-1], color=[NORMAL, NORMAL, DEFECT, DEFECT])
    axes[1].bar_label(axes[1].containers[0], padding=3)
    axes[1].set(xlabel="test images", xlim=(0, 1.25 * max(counts)))
    for ax, title, wanted in (
        (axes[2], "closest miss", (labels == 1) & ~alarms),
        (axes[3], "closest false alarm", (labels == 0) & alarms),
    ):
        ax.set_axis_off()
        where = np.flatnonzero(wanted)
        if len(where):
            at = where[np.abs(scores[where] - threshold).argmin()]
            _picture(ax, samples[at], f"{title}\nscore {scores[at]:.2f}")
        else:
            ax.set_title(f"{title}\nnone", fontsize=10)
    return figure
