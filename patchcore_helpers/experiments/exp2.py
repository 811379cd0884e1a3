"""Experiment 2: does it help to prefer patches of high variance when the coreset is chosen?"""

import time
from functools import lru_cache, partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.coreset import (
    k_center_greedy,
    nested_min_distances,
    random_coreset,
    variance_weighted_k_center,
    variance_weights,
)
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.index import ExactIndex
from patchcore_helpers.core.metrics import auroc_interval, image_auroc, mean_interval
from patchcore_helpers.course import plots
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.experiments import verdict
from patchcore_helpers.experiments.exp1 import require_weights
from patchcore_helpers.experiments.verdict import gather, paired

BY_SEED = [
    *("category", "method", "compression_ratio", "auroc", "memory_reduction"),
    *("seed", "n_train", "n_test", "n_patches", "bank_size", "radius", "seconds"),
    *("rank_correlation", "status"),
]
COLUMNS = [*BY_SEED[:5], "low", "high", "n_seeds", "n_train", "n_test", "bank_size", "status"]
TIMINGS = ["seconds"]


def flat(patches):
    """Patch vectors row by row: shape (n, c) from (..., c)."""
    return patches.reshape(-1, patches.shape[-1])


def _of_rows(choose):
    return lambda patches, *given, **options: choose(flat(patches), *given, **options)


METHODS = {
    "v1_random": _of_rows(random_coreset),
    "k_center": _of_rows(k_center_greedy),
    "v2_variance": variance_weighted_k_center,
    "v2_neighborhood": partial(variance_weighted_k_center, variance="neighborhood"),
    "v2_literal": partial(variance_weighted_k_center, variance="dimensions"),
}
PAINTS = plots.ORANGE, plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE
COLORS = dict(zip(METHODS, PAINTS, strict=True))


def make_tasks(categories, seeds, **settings):
    """One task per category and seed; each serves all methods and ratios. See `run_task`."""
    return [{"category": c, "seed": seed, **settings} for c in categories for seed in seeds]


@lru_cache(maxsize=1)
def load_patches(category, data_dir, backbone, image_size, max_train, max_test, use_cache):
    """The images of a category, and the patch vectors of its training and its test images."""
    require_weights(backbone)
    images = load_category(category, data_dir=data_dir).limit(max_train, max_test)
    cache = FeatureCache.of(use_cache or None)
    extractor = Extractor(load_backbone(backbone), image_size, cache=cache)
    return images, extractor.extract(images.train), extractor.extract(images.test)


def run_task(category, seed, methods=("v1_random", "k_center", "v2_variance", "v2_literal"),
             ratios=(0.005, 0.01, 0.05), data_dir="data", backbone="efficientnet_lite0",
             image_size=224, max_train=0, max_test=0, use_cache=True):  # fmt: skip
    """Choose one order of patches per method, and score the test images at every ratio.

    The score is PatchCore's: the largest distance of a patch to its nearest one in the bank.
    """
    images, train, test = load_patches(
        category, data_dir, backbone, image_size, max_train, max_test, use_cache
    )
    patches, ratios = flat(train), sorted(ratios)
    sizes = [max(1, round(ratio * len(patches))) for ratio in ratios]
    probe = patches[:: max(1, len(patches) // 10000)]
    common = {"n_train": len(train), "n_test": len(test), "n_patches": len(patches)}
    rows, scores, weights = [], {"labels": images.labels.tolist()}, variance_weights(train)
    for method in methods:
        start = time.perf_counter()
        chosen = METHODS[method](train, sizes[-1], random_state=seed).indices
        seconds, bank = time.perf_counter() - start, patches[chosen]
        radii = nested_min_distances(probe, bank, sizes).max(1).tolist()
        found = zip(ratios, sizes, radii, nested_scores(bank, test, sizes), strict=True)
        for ratio, size, radius, worst in found:
            scores[f"{method} {ratio:g}"] = worst.tolist()
            row = common | {"method": method, "compression_ratio": ratio, "bank_size": size}
            row |= {"auroc": image_auroc(images.labels, worst), "radius": radius}
            rows.append(row | {"memory_reduction": len(patches) / size, "seconds": seconds})
        rows[-1]["rank_correlation"] = usefulness(weights[chosen], bank, test)
    return rows, scores


def nested_scores(bank, test, sizes):
    """Image scores by the first rows of a bank, at each of these sizes: shape (sizes, images)."""
    nearest = nested_min_distances(flat(test), bank, sizes)
    return nearest.reshape(len(sizes), len(test), -1).max(2)


def usefulness(weights, bank, test):
    """Spearman's correlation of a bank row's weight with how often it decides an image.

    A row decides an image if it is the nearest row of the image's worst patch.

    Parameters
    ----------
    weights : array of shape (rows,)
    bank : array of shape (rows, c)
    test : array of shape (images, rows, columns, c)

    Returns
    -------
    float or None
        None if all weights, or all counts, are equal.
    """
    distances, nearest = ExactIndex().fit(bank).query(flat(test))
    worst = distances.reshape(len(test), -1).argmax(1)
    deciding = nearest.reshape(len(test), -1)[np.arange(len(test)), worst]
    counts = np.bincount(deciding, minlength=len(bank))
    if np.ptp(weights) == 0 or np.ptp(counts) == 0:
        return None
    return float(spearmanr(weights, counts).statistic)


def finished(outcomes):
    """The rows of all tasks that ran to their end, as a table."""
    rows = [row for o in outcomes if o.finished for row in o.rows]
    return pd.DataFrame(rows, columns=BY_SEED)


def averages(outcomes):
    """Means over the seeds, one row per category, method and ratio: `COLUMNS` and the Interval."""
    rows, keys = [], ["category", "method", "compression_ratio"]
    for (category, method, ratio), some in finished(outcomes).groupby(keys, sort=False):
        found = auroc_interval(*gather(outcomes, f"{method} {ratio:g}", category=category))
        row = {"auroc": found.estimate, "low": max(0.0, found.low), "high": min(1.0, found.high)}
        row |= {"interval": found, "n_seeds": len(some)}
        rows.append(some.to_dict("records")[0] | row)
    return pd.DataFrame(rows, columns=[*COLUMNS, "interval"])


def means(outcomes):
    """The rows of results_all_methods.csv: `averages`, then what did not finish and why.

    Returns
    -------
    list of dict
    """
    rows = averages(outcomes)[COLUMNS].to_dict("records")
    return rows + [row for o in outcomes if not o.finished for row in o.rows]


def compare(outcomes, one, other):
    """Paired differences in image AUROC, `one` minus `other`.

    For each category and ratio, for each category over its ratios, and over all categories; see
    `verdict.compare`.
    """
    cases, categories = {}, {}
    for category, some in finished(outcomes).groupby("category", sort=False):
        found = []
        for ratio in some["compression_ratio"].unique():
            names = ({"kind": f"{m} {ratio:g}", "category": category} for m in (one, other))
            pair = paired(outcomes, *names)
            if pair:
                cases[f"{category} at {ratio:.2%}"] = pair
                found.append(pair)
        if found:
            labels, a, b = zip(*found, strict=True)
            categories[category] = labels[0], np.array(a), np.array(b)
    return verdict.compare(cases, categories)


def seconds(outcomes):
    """Median seconds that each method took to choose the largest coreset."""
    return finished(outcomes).groupby("method", sort=False)["seconds"].median()


def correlations(outcomes):
    """Mean and range over seeds of `usefulness`, by method and category."""
    found = finished(outcomes).dropna(subset="rank_correlation")
    found = found.groupby(["method", "category"], sort=False)["rank_correlation"]
    return found.agg(["mean", "min", "max"]).reset_index()


def main_figure(outcomes):
    """AUROC against compression: the mean over categories with its interval, one line a method."""
    figure, ax = plt.subplots(figsize=(8, 4))
    for place, (method, some) in enumerate(averages(outcomes).groupby("method", sort=False)):
        found = some.groupby("compression_ratio")["interval"].agg(list).map(mean_interval)
        shift = 1.03 ** (place - 1.5)  # side by side, so that no interval hides another
        x, y = found.index * shift, [i.estimate for i in found]
        bars = [[i.estimate - i.low for i in found], [min(1, i.high) - i.estimate for i in found]]
        ax.errorbar(x, y, bars, marker="o", capsize=3, color=COLORS[method], label=method)
    ax.set(xscale="log", xlabel="compression ratio: share of patches kept")
    ax.set(ylabel="image AUROC\n(mean over categories)")
    ax.set_xticks(found.index, [f"{ratio:.1%}" for ratio in found.index])
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def category_figure(outcomes):
    """AUROC by category and method, a panel per ratio; bars start at chance."""
    ratios = averages(outcomes).groupby("compression_ratio", sort=False)
    figure, axes = plt.subplots(
        1, len(ratios), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (ratio, some) in zip(axes[0], ratios, strict=True):
        plots.bars_from_chance(ax, some, "method", COLORS)
        ax.axvline(0.5, color="0.6", lw=1)
        ax.set(title=f"{ratio:.1%} kept", xlabel="image AUROC", xlim=(None, 1.01))
    axes[0][0].invert_yaxis()
    handles, methods = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, methods, loc="outside lower center", ncols=len(methods))
    return figure


def improvement_figure(comparison, outcomes, one, other):
    """By how many percent of its AUROC `one` beats `other`, with intervals (all corrected).

    Parameters
    ----------
    comparison : DataFrame
        Of `compare`.
    """
    base = averages(outcomes).query("method == @other").itertuples()
    base = {f"{row.category} at {row.compression_ratio:.2%}": row.auroc for row in base}
    single = comparison[comparison["kind"] == "case"]
    share = 100 / single["name"].map(base)
    figure, ax = plt.subplots(figsize=(8, 0.32 * len(single) + 1.2))
    y, middle = np.arange(len(single)), single["difference"] * share
    paint = {"better": plots.GREEN, "worse": plots.VERMILION}
    ax.barh(y, middle, 0.7, color=[paint.get(word, "0.75") for word in single["verdict"]])
    ax.hlines(y, single["low"] * share, single["high"] * share, color=plots.BLACK, lw=1.2)
    ax.axvline(0, color=plots.BLACK, lw=1)
    ax.set_yticks(y, single["name"])
    ax.invert_yaxis()
    ax.set(xlabel=f"{one} over {other}: change of image AUROC (%)")
    ax.set_title("green: better, red: worse, gray: no difference shown", fontsize=10)
    return figure


def summary(outcomes, one="v2_variance", other="v1_random"):
    """The text of exp2_summary.txt: over all, by category, by ratio; all computed."""
    comparison = compare(outcomes, one, other)
    table = averages(outcomes)
    lines = [
        f"Experiment 2: {one} against {other}",
        f"{len(comparison)} comparisons, intervals corrected for their number",
        "",
        verdict.sentence(comparison, one, other),
    ]
    for title, column in (("By category", "category"), ("By ratio", "compression_ratio")):
        wide = table.pivot_table("auroc", column, "method", sort=False).round(4)
        lines += ["", f"{title}, mean image AUROC", wide.to_string()]
    lines += ["", "All comparisons", comparison.round(4).to_string(index=False)]
    did_not_run = [row["status"] for o in outcomes if not o.finished for row in o.rows]
    return "\n".join([*lines, "", *did_not_run]).rstrip() + "\n"


def by_exponent(images, train, test, exponents, sizes, seed=0):
    """Weighted k-center with several exponents: the picks, and the AUROC at every size.

    Returns
    -------
    dict of float to (int array of shape (largest size,), list of float)
    """
    found = {}
    for exponent in exponents:
        options = {"exponent": exponent, "random_state": seed}
        picks = variance_weighted_k_center(train, sizes[-1], **options).indices
        worst = nested_scores(flat(train)[picks], test, sizes)
        found[exponent] = picks, [image_auroc(images.labels, scores) for scores in worst]
    return found


def picks_view(sample, shape, found, sizes, exponent, step, shown=0):
    """Where the picks of one exponent lie: over all images, on one image, and what they are worth.

    Parameters
    ----------
    sample : Sample
        The training image of number `shown`.
    shape : (images, rows, columns)
        Of the training patches.
    found : dict of `by_exponent`
    sizes : list of int
    exponent : float
    step : int
        Which of the sizes.
    """
    picks = found[exponent][0][: sizes[step]]
    image, place = np.divmod(picks, shape[1] * shape[2])
    counts = np.bincount(place, minlength=shape[1] * shape[2]).reshape(shape[1:])
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1.15, 1, 1.4))
    drawn = axes[0].imshow(counts, cmap="magma_r", vmin=0)
    figure.colorbar(drawn, ax=axes[0], label="picks at this place")
    axes[0].set(title=f"{len(picks):,} picks of {shape[0]} images", xticks=[], yticks=[])
    pixels = sample.read()
    axes[1].imshow(pixels)
    row, column = np.divmod(place[image == shown], shape[2])
    axes[1].plot((column + 0.5) * pixels.width / shape[2], (row + 0.5) * pixels.height / shape[1],
                 "o", ms=4, color=plots.VERMILION, mec="white", mew=0.5)  # fmt: skip
    axes[1].set(title=f"{len(row)} of them on this one", xticks=[], yticks=[])
    ratios = np.array(sizes) / np.prod(shape)
    for other, (_, aurocs) in found.items():
        now = other == exponent
        axes[2].plot(ratios, aurocs, color=plots.BLUE if now else "0.8", lw=3 if now else 1.5,
                         label=f"exponent {other:g}" if now else None, zorder=2 + now)  # fmt: skip
    auroc = found[exponent][1][step]
    axes[2].plot(ratios[step], auroc, "o", ms=10, color=plots.VERMILION, zorder=4)
    axes[2].set(xlabel="coreset ratio", ylabel="image AUROC", title=f"AUROC {auroc:.3f}")
    plots.log_scale(axes[2].xaxis, (1,))
    axes[2].legend(loc="lower right")
    return figure
