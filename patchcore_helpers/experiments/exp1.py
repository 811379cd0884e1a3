"""Experiment 1: which backbone, and does the answer travel to another data set?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from patchcore_helpers.core.backbones import find_spec, hub_file
from patchcore_helpers.core.detector import image_scores
from patchcore_helpers.core.evaluation import evaluate, median_seconds
from patchcore_helpers.core.metrics import Interval, auroc_interval, image_auroc, mean_interval
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.course import plots
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments import verdict
from patchcore_helpers.experiments.grid import Skipped
from patchcore_helpers.experiments.verdict import gather, paired, ran

COLUMNS = [
    *("backbone", "dataset", "category", "auroc", "memory_mb", "inference_time_ms"),
    *("image_score", "pixel_auroc", "au_pro", "seed", "n_train", "n_test", "bank_size"),
    *("fit_seconds", "weights", "status"),
]
TIMINGS = ["inference_time_ms", "fit_seconds"]
SCORES = ("mean", "max")
MEASURED = ["pixel_auroc", "au_pro", "n_train", "n_test", "bank_size", "fit_seconds"]
SETTINGS = {"image_size": 224, "coreset_ratio": 0.05, "n_neighbors": 5}
TIMED_IMAGES = 5
BANDS = ((0.9, "excellent"), (0.8, "good"), (0.7, "fair"), (-1, "poor"))
# What the source published; nobody ran it, see notebook 4.
CLAIMS = {
    "dinov2_vitb14": {"MVTec AD": 0.9691, "VisA": 0.8990, "gap": 0.0701},
    "resnet50": {"MVTec AD": 0.9392, "VisA": 0.8390, "gap": 0.1002},
}
DATASETS = {
    **{"mvtec_ad": "MVTec AD", "visa": "VisA", "elpv": "ELPV", "elpv_planted": "ELPV, planted"},
    **{"fabric": "rendered fabric", "aitex": "AITEX"},
}


def band(auroc):
    """The source's word for an image AUROC.

    >>> band(0.93), band(0.42)
    ('excellent', 'poor')
    """
    return next(word for least, word in BANDS if auroc >= least)


def make_tasks(backbones, categories, seeds, **settings):
    """One task per category, backbone and seed, with the settings of `run_task`."""
    return [
        {"backbone": b, "dataset": c.split("/")[0], "category": c, "seed": seed, **settings}
        for c in categories
        for b in backbones
        for seed in seeds
    ]


def require_weights(backbone):
    """Skip a task whose weights are not on this machine; nothing is downloaded in a grid."""
    recipe = find_spec(backbone)
    try:
        if not recipe.package:
            hub_file(backbone, recipe, download=False)
    except InputError:
        raise Skipped(
            f"the weights are not here; run: patchcore-course fetch-weights {backbone}"
        ) from None


def run_task(backbone, dataset, category, seed, data_dir="data", max_train=0, max_test=0,
             use_cache=True, **own):  # fmt: skip
    """Fit one bank and score its test images, by both kinds of image score.

    The test images are the same for every seed, which drives the coreset alone, so that seeds and
    images can be told apart as sources of variation. `own` are PatchCore's parameters, see
    `SETTINGS`.
    """
    require_weights(backbone)
    images = load_category(category, data_dir=data_dir).limit(max_train, max_test)
    model = PatchCore(backbone, cache=use_cache, random_state=seed, **SETTINGS | own)
    results, inspection = evaluate(images, model)
    network = model.extractor_.backbone
    model.extractor_.cache = None  # what is timed starts from the picture
    timed = images.test[:TIMED_IMAGES]
    seconds = [median_seconds(model.detect, [sample], repeats=1) for sample in timed]
    common = {name: results[name] for name in MEASURED}
    common |= {"memory_mb": model.memory_bank_.nbytes / 1e6, "weights": network.source}
    common["inference_time_ms"] = 1000 * float(np.median(seconds))
    scores = {kind: image_scores(inspection.patch_scores, kind) for kind in SCORES}
    rows = [
        {"image_score": kind, "auroc": image_auroc(images.labels, scores[kind]), **common}
        for kind in SCORES
    ]
    return rows, {"labels": images.labels.tolist()} | {k: v.tolist() for k, v in scores.items()}


def aurocs(outcomes, kind):
    """Image AUROC of each backbone in each category, with its interval and the source's band.

    Returns
    -------
    DataFrame
        Columns backbone, category, auroc, low, high, band, and the Interval itself.
    """
    rows = []
    for category in ran(outcomes, "category"):
        for backbone in ran(outcomes, "backbone"):
            data = gather(outcomes, kind, backbone=backbone, category=category)
            if data is not None:
                found = auroc_interval(*data)
                low, high = max(0, found.low), min(1, found.high)
                ends = " to ".join(dict.fromkeys(map(band, (low, high))))
                word = f"{band(found.estimate)} ({ends})"
                rows.append((backbone, category, found.estimate, low, high, word, found))
    columns = ["backbone", "category", "auroc", "low", "high", "band", "interval"]
    return pd.DataFrame(rows, columns=columns)


def compare(outcomes, kind, one, other):
    """Paired differences in image AUROC, `one` minus `other`; see `verdict.compare`."""
    pairs = {}
    for category in ran(outcomes, "category"):
        cases = ({"kind": kind, "backbone": b, "category": category} for b in (one, other))
        pairs[category] = paired(outcomes, *cases)
    return verdict.compare({name: pair for name, pair in pairs.items() if pair})


def domain_means(scores, in_domain, cross_domain):
    """Mean AUROC of each backbone over two groups of categories, and the gap between them.

    Parameters
    ----------
    scores : DataFrame of `aurocs`
    in_domain, cross_domain : lists of categories

    Returns
    -------
    DataFrame
        Index: backbone. Columns in_domain, cross_domain, gap: Intervals, None where nothing ran.
    """
    rows = {}
    for backbone, some in scores.groupby("backbone", sort=False):
        groups = (some["category"].isin(names) for names in (in_domain, cross_domain))
        groups = [some.loc[rows, "interval"] for rows in groups]
        means = [mean_interval(list(group)) if len(group) else None for group in groups]
        gap = None
        if all(means):
            parts = [(mean.error**2, mean.df) for mean in means]
            gap = Interval.of(means[0].estimate - means[1].estimate, parts)
        rows[backbone] = [*means, gap]
    return pd.DataFrame(rows, index=["in_domain", "cross_domain", "gap"]).T


def claims_table(scores, backbones):
    """What the source claimed, beside what was measured here on the same data, if anything was."""
    rows = []
    for backbone, claims in CLAIMS.items():
        some, means = scores[scores["backbone"] == backbone], []
        datasets = some["category"].str.split("/").str[0].map(DATASETS)
        for dataset, claimed in claims.items():
            mine, measured = some.loc[datasets == dataset, "auroc"], None
            if dataset == "gap":
                measured = None if None in means else means[0] - means[1]
                why = "a difference of the two rows above"
            elif backbone not in backbones:
                why = "this backbone was not part of the run"
            elif some.empty:
                why = "it did not run here; its status says why"
            elif mine.empty:
                why = f"{dataset} was not part of this run"
            else:
                measured, why = mine.mean(), f"mean of {len(mine)} categories"
            means.append(measured)
            rows.append((backbone, dataset, claimed, measured, why))
    columns = ["backbone", "data set", "claimed", "measured", "can they be compared?"]
    return pd.DataFrame(rows, columns=columns)


def colors(backbones):
    """One color per backbone, the same in all figures."""
    cycle = [plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE, plots.ORANGE, plots.SKY]
    return {name: cycle[i % len(cycle)] for i, name in enumerate(backbones)}


def _dots(ax, values, paint, title):
    """One interval per backbone, or the word that nothing ran."""
    for row, (name, interval) in enumerate(values.items()):
        if interval is None:
            ax.annotate("did not run", (0.02, row), xycoords=("axes fraction", "data"), va="center",
                        backgroundcolor="white")  # fmt: skip
            continue
        low, high = max(0, interval.low), min(1, interval.high)
        ax.plot([low, high], [row, row], color=paint[name], lw=3, alpha=0.5)
        ax.plot(interval.estimate, row, "o", ms=9, color=paint[name])
        ax.annotate(f"{interval.estimate:.3f}", (interval.estimate, row), xytext=(0, 9),
                    textcoords="offset points", ha="center")  # fmt: skip
    ax.axvline(0.5, color="0.6", ls=":", lw=1)
    lows = [interval.low for interval in values.values() if interval]
    ax.set_yticks(range(len(values)), values)
    ax.set(xlim=(max(0, min([0.4, *lows])), 1.03), ylim=(len(values) - 0.4, -0.7), title=title)
    ax.set_xlabel("image AUROC (mean over categories)")


def figure(outcomes, backbones, in_domain, cross_domain, kind, names=("in-domain", "cross-domain")):
    """The four panels of the experiment.

    Parameters
    ----------
    outcomes : list of Outcome
    backbones : list of str
        All that were asked for; one that did not run is named as such.
    in_domain, cross_domain : lists of categories
    kind : str
        The image score on show.
    names : pair of str
        What the two groups are called.
    """
    scores, paint = aurocs(outcomes, kind), colors(backbones)
    means = domain_means(scores, in_domain, cross_domain)
    panels, axes = plt.subplots(2, 2, figsize=(11, 7.4), layout="constrained")
    for ax, column, name in zip(axes[0], means.columns, names, strict=False):
        values = {b: means[column].get(b) for b in backbones}
        _dots(ax, values, paint, f"{name}: mean and 95 % interval")
    ax, categories = axes[1, 0], ran(outcomes, "category")
    shown = [b for b in backbones if b in means.index]
    plots.bars_from_chance(ax, scores, "backbone", paint, lw=1.2, upright=True)
    few = len(categories) <= 3
    labels = [category.replace("/", "/\n" if few else "/") for category in categories]
    ax.set_xticks(range(len(categories)), labels, rotation=0 if few else 90, fontsize=9)
    ax.axhline(0.5, color="0.6", lw=1)
    ax.set(ylabel="image AUROC", title="by category; bars start at chance", ylim=(None, 1.02))
    panels.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    ax = axes[1, 1]
    for backbone in shown:
        first, second, gap = means.loc[backbone]
        if gap is None:
            continue
        ax.plot([0, 1], [first.estimate, second.estimate], "o-", color=paint[backbone], ms=8)
        text = f"gap {gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        ax.text(1.06, second.estimate, text, va="center", color=paint[backbone], fontsize=9)
    _spread_labels(ax)
    ax.set(xlim=(-0.15, 2.3), ylabel="image AUROC (mean)", title="gap: first group minus second")
    ax.set_xticks([0, 1], names)
    return panels


def _spread_labels(ax, least=0.085):
    """Move labels that would overlap apart; `least` is a share of the axis's height."""
    low, high = ax.get_ylim()
    step, texts = least * (high - low), sorted(ax.texts, key=lambda text: text.get_position()[1])
    below, places = -np.inf, []
    for text in texts:
        below = max(text.get_position()[1], below + step)
        places.append(below)
    above = high + step / 2
    for text, place in zip(texts[::-1], places[::-1], strict=True):  # none above the axis
        above = min(place, above - step)
        text.set_y(above)


def group_name(categories):
    """A short name for a group of categories: what stands before the slash.

    >>> group_name(["mvtec_ad/bottle", "mvtec_ad/cable"])
    'MVTec AD'
    """
    names = dict.fromkeys(category.split("/")[0] for category in categories)
    return ", ".join(DATASETS.get(name, name) for name in names)


def cost_figure(cost, backbones):
    """Mean AUROC of each backbone against time per image and size of the bank.

    Parameters
    ----------
    cost : DataFrame
        Index: backbone. Columns auroc, inference_time_ms, memory_mb.
    backbones : list of str
        In the order that gave them their colors.
    """
    paint = colors(backbones)
    panels, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    labels = ("time per image (ms)", "memory bank (MB)")
    for ax, column, label in zip(axes, ("inference_time_ms", "memory_mb"), labels, strict=True):
        for name, row in cost.iterrows():
            ax.plot(row[column], row["auroc"], "o", ms=10, color=paint[name], label=name)
        ax.set(xlabel=label, xlim=(0, 1.15 * cost[column].max()))
    axes[0].set_ylabel("image AUROC\n(mean over categories)")
    middle, half = cost["auroc"].mean(), max(0.03, 1.3 * np.ptp(cost["auroc"].to_numpy()))
    axes[0].set_ylim(middle - half, min(1.005, middle + half))
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return panels


def pair_figure(outcomes, one, other, category, kind):
    """Ranks of the test images of a category by two backbones."""
    panels, ax = plt.subplots(figsize=(5.6, 4.6))
    cases = ({"kind": kind, "backbone": b, "category": category} for b in (one, other))
    pair = paired(outcomes, *cases)
    if pair is None:
        ax.set_title(f"{category}: one of the two did not run")
        return panels
    labels, first = pair[0], [values[0] for values in pair[1:]]
    ranks = [values.argsort().argsort() for values in first]
    for label, name, color in ((0, "normal", plots.NORMAL), (1, "defective", plots.DEFECT)):
        x, y = (rank[labels == label] for rank in ranks)
        ax.scatter(x, y, s=22, color=color, alpha=0.7, label=name)
    ax.plot([0, len(labels)], [0, len(labels)], color="0.7", lw=1)
    aurocs = [image_auroc(labels, values) for values in first]
    ax.set_title(f"{category}: AUROC {aurocs[0]:.3f} and {aurocs[1]:.3f}")
    ax.set(xlabel=f"rank by {one}", ylabel=f"rank by {other}")
    ax.legend(loc="upper left")
    return panels
