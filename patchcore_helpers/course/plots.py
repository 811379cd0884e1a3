"""Every figure of the course, in one look."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.metrics import roc_curve

from patchcore_helpers.core.extractor import read_item

# Okabe and Ito, "Color Universal Design" (2008): told apart with any kind of color vision.
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
    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]


def log_scale(axis, labels=(1, 2, 5)):
    """Make an axis (`ax.xaxis`, `colorbar.ax.yaxis`, ...) logarithmic, with plain numbers on it."""
    axis._set_axes_scale("log")
    axis.set_major_locator(LogLocator(subs=labels))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def _bare(ax, title):
    """A panel that shows a picture: a small title, no axes."""
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()


def _picture(ax, image, title=""):
    pixels = read_item(image)
    ax.imshow(pixels)
    _bare(ax, title)
    return pixels


def _plane(ax, **more):
    """Axes of a toy in the plane of two features."""
    ax.set(xlabel="feature 1 (no unit)", ylabel="feature 2 (no unit)", aspect="equal", **more)


def _outline(ax, sample):
    """The border of the true defect, where it is known."""
    mask = sample.mask()
    if mask is not None and mask.any():
        ax.contour(mask, levels=[0.5], colors=[SKY], linewidths=1.5)


def _mean_and_range(ax, rows, x, column, alpha, label, band=None, **look):
    """A line through the means of a column at every x, and a band from least to largest."""
    summary = rows.groupby(x)[column].agg(["mean", "min", "max"])
    ax.fill_between(summary.index, summary["min"], summary["max"], alpha=alpha, label=band, **look)
    ax.plot(summary.index, summary["mean"], "o-", label=label, **look)
    return summary.index


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
    figure, ax = plt.subplots(figsize=(8.5, 3.8))
    ax.scatter(*bank.T, s=45, color=NORMAL, label="memory bank (normal patches)")
    ax.scatter(*queries.T, s=70, marker="X", color=DEFECT, label="patches to judge")
    for query, distance, row in zip(queries, distances, nearest, strict=True):
        ax.plot(*np.transpose([query, bank[row]]), color=BLACK, lw=1, zorder=0)
        ax.annotate(f"{distance:.2f}", query, xytext=(10, -12), textcoords="offset points")
    _plane(ax)
    ax.margins(0.2)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def pipeline(image, patches, bank, patch_scores, anomaly_map):
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
    directions = np.linalg.svd(bank - mean, full_matrices=False)[2][:3]
    colors, points = (patches - mean) @ directions.T, (bank - mean) @ directions.T
    low, high = np.quantile(colors, [0.02, 0.98], axis=(0, 1))
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.75))
    pixels = _picture(axes[0], image, "1  image")
    axes[1].imshow(np.clip((colors - low) / (high - low), 0, 1))
    _bare(axes[1], f"2  {patches.shape[0]} x {patches.shape[1]} patches")
    worst = np.unravel_index(patch_scores.argmax(), patch_scores.shape)
    axes[2].scatter(*points[:, :2].T, s=3, color=NORMAL)
    axes[2].scatter(*colors[worst][:2], s=60, marker="X", color=DEFECT)
    axes[2].set_title("3  memory bank, worst patch", fontsize=10)
    axes[2].set(xticks=[], yticks=[], box_aspect=1)
    axes[3].imshow(patch_scores)
    _bare(axes[3], "4  distance to the bank")
    limits = float(anomaly_map.min()), float(anomaly_map.max())
    overlay(axes[4], pixels, anomaly_map, limits, "5  anomaly map")
    return figure


def overlay(ax, image, anomaly_map, limits, title=""):
    """Draw an image in gray with its anomaly map over it; returns the drawn map, for a color bar.

    Parameters
    ----------
    ax : matplotlib axes
    image : PIL image
    anomaly_map : array of shape (height, width)
    limits : (low, high)
        Map values at the two ends of the color scale; below `low` the image shows through.
    title : str
    """
    low, high = limits
    height, width = anomaly_map.shape
    ax.imshow(image.convert("L").resize((width, height)), cmap="gray", vmin=0, vmax=255)
    alpha = 0.75 * np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1)
    drawn = ax.imshow(anomaly_map, vmin=low, vmax=high, alpha=alpha)
    _bare(ax, title)
    return matplotlib.cm.ScalarMappable(drawn.norm, drawn.cmap)


def heat_maps(samples, maps, titles, limits):
    """Images above, the same with their anomaly maps below, one color scale for all.

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
    panels = zip(axes.T, samples, maps, titles, strict=True)
    for (above, below), sample, anomaly_map, title in panels:
        scale = overlay(below, _picture(above, sample, title), anomaly_map, limits)
        _outline(above, sample)
    figure.colorbar(scale, ax=axes, label="anomaly map (L2 distance)", shrink=0.7)
    return figure


def _histogram(ax, labels, scores, threshold=None):
    edges = np.linspace(scores.min(), scores.max(), 41)
    for label, name, color in ((0, "normal", NORMAL), (1, "defective", DEFECT)):
        counts = np.histogram(scores[labels == label], edges)[0]
        ax.stairs(counts, edges, fill=True, alpha=0.65, color=color, label=name)
    if threshold is not None:
        ax.axvline(threshold, color=THRESHOLD, ls="--", label="threshold")
    ax.set(xlabel="image score (L2 distance)", ylabel="test images")
    ax.legend()


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
        rates = [np.mean(scores[labels == label] > threshold) for label in (0, 1)]
        right.plot(*rates, "o", ms=9, color=THRESHOLD)
    right.set(xlabel="false alarms / normal images", ylabel="found / defective images")
    right.set_aspect("equal")
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
    names = ["normal passed", "false alarm", "defect missed", "defect found"]
    counts = np.bincount(2 * labels + alarms, minlength=4)
    axes[1].barh(names, counts, color=[NORMAL, NORMAL, DEFECT, DEFECT])
    axes[1].bar_label(axes[1].containers[0], padding=3)
    axes[1].set(xlabel="test images", xlim=(0, 1.25 * max(counts)))
    for ax, title, wanted in (
        (axes[2], "closest miss", (labels == 1) & ~alarms),
        (axes[3], "closest false alarm", (labels == 0) & alarms),
    ):
        where = np.flatnonzero(wanted)
        if len(where):
            at = where[np.abs(scores[where] - threshold).argmin()]
            _picture(ax, samples[at], f"{title}\nscore {scores[at]:.2f}")
        else:
            _bare(ax, f"{title}\nnone")
            ax.set_box_aspect(1)
    return figure


def _numbers(ax, values, title):
    ax.imshow(values, cmap="Blues", vmin=0, vmax=1.6 * values.max())
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.3g}", ha="center", va="center")
    ax.set_title(title, fontsize=11)
    ax.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def toy_unfold(padded, mean, row, column):
    """A small map with its border of zeros, one 3x3 neighborhood marked, and the map of means.

    Parameters
    ----------
    padded : array of shape (height + 2, width + 2)
    mean : array of shape (height, width)
    row, column : int
        The place, in `mean`, whose neighborhood is marked.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.9))
    _numbers(left, padded, "feature map, with a border of zeros")
    _numbers(right, mean, "mean of each 3x3 neighborhood")
    left.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, ec=DEFECT, lw=3))
    right.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=DEFECT, lw=3))
    return figure


def layer_maps(image, maps, names):
    """An image, and the mean activation of each layer's feature map.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    maps : list of arrays of shape (channels, height, width)
    names : list of str
    """
    figure, axes = plt.subplots(1, len(maps) + 1, figsize=(11, 11 / (len(maps) + 1) + 0.5))
    _picture(axes[0], image, "image")
    for ax, feature_map, name in zip(axes[1:], maps, names, strict=True):
        ax.imshow(np.abs(feature_map).mean(0))
        channels, height, width = feature_map.shape
        _bare(ax, f"{name}\n{height} x {width}, {channels} channels")
    return figure


def receptive_fields(image, fields, boxes, titles):
    """What one patch vector sees: its field of view over the image, and its grid cell.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    fields : list of arrays of shape (height, width), largest value 1
    boxes : list of (left, top, right, bottom), pixels
    titles : list of str
    """
    figure, axes = plt.subplots(1, len(fields), figsize=(11, 11 / len(fields) + 0.4), squeeze=False)
    pixels = read_item(image)
    for ax, field, box, title in zip(axes[0], fields, boxes, titles, strict=True):
        overlay(ax, pixels, np.sqrt(field), (0, 1), title)
        _box(ax, box)
    return figure


def _box(ax, box, color=SKY, lw=2):
    left, top, right, bottom = box
    corner, width, height = (left - 0.5, top - 0.5), right - left, bottom - top
    ax.add_patch(plt.Rectangle(corner, width, height, fill=False, ec=color, lw=lw))


def neighbors(image, box, field, others, distances, size):
    """A patch in its image, its field of view, and its nearest patches of the bank in theirs.

    Parameters
    ----------
    image : sample
    box : (left, top, right, bottom) of the patch, pixels at `size`
    field : array of shape (height, width), or None
    others : list of (sample, box)
        The nearest normal patches.
    distances : array of float, shape (len(others),)
    size : (height, width), pixels
    """
    figure, axes = plt.subplots(2, 1 + len(others), figsize=(11, 5), squeeze=False)
    titles = ["chosen patch", *(f"distance {distance:.2f}" for distance in distances)]
    for column, (sample, place) in enumerate([(image, box), *others]):
        pixels, color = sample.read().resize(size[::-1]), SKY if column else DEFECT
        above, below = axes[:, column]
        if column == 0 and field is not None:
            overlay(above, pixels, np.sqrt(field), (0, 1))
        else:
            above.imshow(pixels)
        below.imshow(pixels)
        for ax, title in ((above, titles[column]), (below, "")):
            _box(ax, place, color)
            _bare(ax, title)
        left, top, right, bottom = place
        margin = max(24, right - left) + 0.5
        below.set_xlim(left - margin, right + margin - 1)
        below.set_ylim(bottom + margin - 1, top - margin)
    return figure


def tile_and_patch(strip, tile, cell):
    """A tile is a crop of the image; a patch is one position of the feature map of a tile.

    Parameters
    ----------
    strip : PIL image
    tile : (left, top, right, bottom), pixels of the strip
    cell : (left, top, right, bottom), pixels of the tile
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.9), width_ratios=(3, 1))
    left.imshow(strip)
    _box(left, tile, ORANGE)
    left.set_title("image; the orange square is a tile: a crop of pixels", fontsize=11)
    right.imshow(strip.crop(tile))
    _box(right, cell, SKY)
    right.set_title("one tile; in blue, the cell\nof one patch: a feature vector", fontsize=11)
    for ax in (left, right):
        ax.set_axis_off()
    return figure


def strip_tiles(strip, positions, cloth):
    """A strip with its tiles; those that show no cloth are crossed out.

    Parameters
    ----------
    strip : uint8 array of shape (height, width)
    positions : DataFrame with the columns x, y, width, height
    cloth : array of float, shape (tiles,)
    """
    figure, ax = plt.subplots(figsize=(11, 1.3))
    ax.imshow(strip, cmap="gray", vmin=0, vmax=255)
    for n, (p, share) in enumerate(zip(positions.itertuples(), cloth, strict=True)):
        inset = 8 + 8 * (n % 2)  # tiles that overlap stay apart
        box = (p.x + inset, p.y + inset, p.x + p.width - inset, p.y + p.height - inset)
        _box(ax, box, ORANGE if share else "0.5")
        if not share:
            ax.plot(box[::2], box[1::2], color="0.5", lw=1)
    ax.set_axis_off()
    return figure


def strip_maps(strips, maps, titles, limits, marks=()):
    """Strips one below the other, each with its stitched anomaly map over it.

    Parameters
    ----------
    strips : list of samples or uint8 arrays
    maps : list of arrays of shape (height, width)
    titles : list of str
    limits : (low, high)
        See `overlay`.
    marks : list of lists of (left, top, right, bottom), optional
        Boxes to draw, pixels, one list for each strip.
    """
    size = (11, max(1.12 * len(strips), 2))  # the color bar's label needs two inches
    figure, axes = plt.subplots(len(strips), 1, figsize=size, squeeze=False)
    panels = zip(axes.flat, strips, maps, titles, marks or [()] * len(strips), strict=True)
    for ax, strip, values, title, boxes in panels:
        image = read_item(strip)
        scale = overlay(ax, image, values, limits)
        ax.set_title(title, fontsize=9, loc="left", pad=2)
        _box(ax, (0, 0, image.width, image.height), "0.6", 1)  # white margins end here
        for box in boxes:
            _box(ax, box)
    figure.colorbar(scale, ax=axes, label="anomaly map\n(no unit)", aspect=14)
    return figure


def layer_scores(table, measures):
    """One dot per layer choice and measure, a panel per measure.

    Parameters
    ----------
    table : DataFrame with a column "layers", "network", and one per measure
    measures : dict of column to label
    """
    rows = np.arange(len(table))[::-1]
    size = (10, 0.42 * len(table) + 1.2)
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    colors = np.where(table["network"] == table["network"].iloc[0], BLUE, ORANGE)
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        ax.hlines(rows, table[column].min(), table[column], color="0.85", lw=2)
        ax.scatter(table[column], rows, c=colors, s=70, zorder=3)
        best = int(np.nanargmax(table[column]))
        ax.annotate("best", (table[column].iloc[best], rows[best]), xytext=(0, 9),
                    textcoords="offset points", ha="center")  # fmt: skip
        ax.set(xlabel=label, yticks=rows, ylim=(-0.7, len(table) - 0.2))
    axes[0][0].set_yticklabels(table["layers"])
    return figure


def greedy_steps(points, chosen, step):
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
    farthest = points[distances.argmax()]
    figure, ax = plt.subplots(figsize=(5.6, 4.2))
    drawn = ax.scatter(*points.T, c=distances, s=16, cmap="viridis_r", vmin=0, vmax=4)
    ax.scatter(*centers.T, s=90, color=DEFECT, edgecolor="white", zorder=3)
    for number, center in enumerate(centers, 1):
        ax.annotate(
            str(number), center, xytext=(6, 5), textcoords="offset points", fontweight="bold"
        )
    ax.add_patch(plt.Circle(farthest, distances.max(), fill=False, ec=BLACK, ls="--", lw=1.2))
    ax.plot(*farthest, "k+", ms=12, mew=2)
    figure.colorbar(drawn, label="distance to the nearest pick (no unit)")
    _plane(ax, title=f"{step} picks, coverage radius {distances.max():.2f}")
    ax.margins(0.1)  # room for the numbers
    return figure


def quantized(points, cluster, centers, restored):
    """Points in the plane by cluster, and the places that their codes stand for.

    Parameters
    ----------
    points, restored : arrays of shape (n, 2)
    cluster : int array of shape (n,)
    centers : array of shape (clusters, 2)
    """
    figure, ax = plt.subplots(figsize=(8, 4.2))
    colors = [BLUE, ORANGE, GREEN, SKY, PURPLE]
    for number in range(len(centers)):
        ax.scatter(*points[cluster == number].T, s=14, alpha=0.5, color=colors[number % 5])
    places = np.unique(restored.round(5), axis=0)
    ax.scatter(*places.T, s=40, marker="s", facecolor="none", edgecolor=BLACK, lw=1,
               label=f"{len(places)} places that codes stand for")  # fmt: skip
    ax.scatter(*centers.T, s=130, marker="X", color=DEFECT, edgecolor="white", label="centers")
    _plane(ax)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


SAMPLER_COLORS = {"k_center": BLUE, "random": ORANGE}


def curves(table, measures, x="ratio", group="sampler", xlabel="coreset ratio"):
    """Mean and range over seeds of several measures, one line per group, a panel per measure.

    Parameters
    ----------
    table : DataFrame
        Columns `x`, `group`, "seed" and the measures.
    measures : dict of column to label
    """
    figure, axes = plt.subplots(1, len(measures), figsize=(10, 3.8), squeeze=False)
    for ax, (column, label) in zip(axes[0], measures.items(), strict=True):
        for name, rows in table.groupby(group, sort=False):
            _mean_and_range(ax, rows, x, column, 0.2, name, color=SAMPLER_COLORS.get(name))
        log_scale(ax.xaxis, (1, 5))
        ax.set(xlabel=xlabel, ylabel=label)
    axes[0][0].legend()
    return figure


def bars_from_chance(ax, table, group, colors, lw=1.0, upright=False):
    """AUROC by category and group, as bars that start at chance, with intervals.

    Parameters
    ----------
    ax : matplotlib axes
    table : DataFrame with the columns category, auroc and `group`; low and high for intervals
    group : str
    colors : dict of group to color
    lw : float, points
        Of the intervals.
    upright : bool
        Categories side by side, not one below the other.
    """
    categories, groups = table["category"].unique(), table.groupby(group, sort=False)
    width, start = 0.8 / len(groups), "bottom" if upright else "left"
    bars, lines = (ax.bar, ax.vlines) if upright else (ax.barh, ax.hlines)
    for i, (name, some) in enumerate(groups):
        some = some.set_index("category").reindex(categories)
        at = np.arange(len(categories)) + (i - (len(groups) - 1) / 2) * width
        bars(at, some["auroc"] - 0.5, 0.9 * width, color=colors[name], label=name, **{start: 0.5})
        if "low" in some:
            lines(at, some["low"], some["high"], color=BLACK, lw=lw)
    (ax.xaxis if upright else ax.yaxis).set_ticks(range(len(categories)), categories)


def distortion(true, projected):
    """How far random projections bend distances: projected over true, by number of dimensions.

    Parameters
    ----------
    true : array of shape (pairs,)
    projected : dict of int to array of shape (pairs,)
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    ratios = [values / true for values in projected.values()]
    parts = ax.violinplot(ratios, showextrema=False, quantiles=[[0.025, 0.5, 0.975]] * len(ratios))
    for body in list(parts["bodies"]):  # type: ignore[call-overload]
        body.set(facecolor=BLUE, alpha=0.4)
    parts["cquantiles"].set_color(BLACK)
    ax.axhline(1, color="0.6", lw=1, ls=":")
    ax.set_xticks(range(1, len(projected) + 1), list(projected))
    ax.set(xlabel="dimensions after projection", ylabel="projected / true distance")
    return figure


def growth(table, x, xlabel, series):
    """Seconds against a size, on logarithmic axes.

    Parameters
    ----------
    table : DataFrame
        Column `x` and one column of seconds per series.
    series : dict of column to label
    """
    figure, ax = plt.subplots(figsize=(7, 3.8))
    for column, label in series.items():
        ax.plot(table[x], table[column], "o-", ms=4, label=label)
    log_scale(ax.xaxis)
    log_scale(ax.yaxis)
    ax.set(xlabel=xlabel, ylabel="seconds")
    ax.legend()
    return figure


def ratio_view(table, row, sample, anomaly_map, limits):
    """One coreset ratio: AUROC and search time along all ratios, and the heat map it gives.

    Parameters
    ----------
    table : DataFrame
        As `evaluation.ratio_table` makes it.
    row : int
        The ratio on show.
    sample : Sample
    anomaly_map : array of shape (height, width)
    limits : (low, high)
        See `overlay`.
    """
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.3, 1.3, 1))
    labels = {"image_auroc": "image AUROC", "search_ms": "search per image (ms)"}
    now = table.iloc[row]
    for ax, (column, label) in zip(axes, labels.items(), strict=False):
        ax.plot(table["ratio"], table[column], color=SKY)
        ax.plot(now["ratio"], now[column], "o", ms=11, color=DEFECT)
        log_scale(ax.xaxis, (1,))
        ax.set(xlabel="coreset ratio", ylabel=label)
    axes[0].set_title(f"ratio {now['ratio']:.2%}: AUROC {now['image_auroc']:.4f}")
    size = f"{int(now['bank_size']):,} rows, {now['megabytes']:.2f} MB, {now['search_ms']:.1f} ms"
    axes[1].set_title(size)
    scale = overlay(axes[2], sample.read(), anomaly_map, limits)
    figure.colorbar(scale, ax=axes[2], label="anomaly map (L2 distance)")
    return figure


def reconstructions(samples, drawn, errors, maps, titles, limits):
    """A row per image: itself, an autoencoder's drawing, its squared error, PatchCore's map.

    Parameters
    ----------
    samples : list of Sample
    drawn : array of shape (n, height, width, 3), 0 to 1
    errors, maps : arrays of shape (n, height, width)
    titles : list of (over the image, over the error, over PatchCore's map)
    limits : two (low, high), of errors and of maps
        See `overlay`.
    """
    rows = len(samples)
    figure, axes = plt.subplots(rows, 4, figsize=(9, 2.35 * rows + 0.5), squeeze=False)
    panels = zip(axes, samples, drawn, errors, maps, titles, strict=True)
    for ax, sample, picture, error, heat, title in panels:
        pixels = _picture(ax[0], sample, title[0])
        _picture(ax[1], (picture.clip(0, 1) * 255).astype(np.uint8), "drawn again")
        parts = zip(ax[2:], (error, heat), limits, title[1:], strict=True)
        scales = [overlay(axis, pixels, *part) for axis, *part in parts]
        _outline(ax[0], sample)
    labels = ("squared error\n(of the image's variance)", "anomaly map\n(L2 distance)")
    for column, scale, label in zip((2, 3), scales, labels, strict=True):
        figure.colorbar(scale, ax=axes[:, column], location="bottom", label=label, aspect=12)
    return figure


def few_shot(table):
    """Image AUROC against the number of training images: mean of the draws, and their range.

    Parameters
    ----------
    table : DataFrame with the columns images and image_auroc, one row per draw
    """
    figure, ax = plt.subplots(figsize=(8, 3.6))
    counts = _mean_and_range(ax, table, "images", "image_auroc", 0.25, "mean of the draws", "range")
    log_scale(ax.xaxis)
    ax.set_xticks(counts)
    ax.set(xlabel="training images", ylabel="image AUROC")
    ax.legend(loc="lower right")
    return figure


def matches(image, places, origins, grid):
    """Where the nearest stored patches of an image's patches stood, in their own images.

    Parameters
    ----------
    image : sample, path, PIL image or uint8 array
    places, origins : int arrays of shape (n, 2)
        Grid row and column of each patch, and of its nearest patch in the memory bank.
    grid : (rows, columns)
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(1, 1.3))
    pixels = _picture(left, image, "from a patch to the place of its match")
    scale = np.array([pixels.height, pixels.width]) / grid
    shown = (places % 8 == 4).all(axis=1)  # more arrows would hide each other
    start, move = (places[shown] + 0.5) * scale, (origins - places)[shown] * scale
    left.plot(*start.T[::-1], "o", ms=7, color=DEFECT, mec="white")
    left.quiver(*start.T[::-1], *move.T[::-1], angles="xy", scale_units="xy", scale=1,
                color=DEFECT, width=0.008, ec="white", lw=0.5)  # fmt: skip
    away = np.linalg.norm((origins - places) / np.array(grid), axis=1)
    right.hist(away, 30, color=NORMAL)
    right.set(xlabel="way from a patch to its match (sides of the image)", ylabel="patches")
    return figure
