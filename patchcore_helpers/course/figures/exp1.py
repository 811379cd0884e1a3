"""Figures of experiment 1: backbones compared."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchcore_helpers.core.intervals import Interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.course.figures.panels import bars_from_chance
from patchcore_helpers.course.figures.style import (
    BLUE,
    DEFECT,
    GREEN,
    NORMAL,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
)
from patchcore_helpers.experiments.exp1 import auroc_table, domain_means
from patchcore_helpers.experiments.grid import Outcome
from patchcore_helpers.experiments.statistics import completed, paired_scores

CYCLE = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY]
LABEL_GAP = 0.085  # between two labels, as a share of the axis's height


def backbone_colors(backbones: Sequence[str]) -> dict[str, str]:
    """One color per backbone, the same in all figures."""
    return {name: CYCLE[i % len(CYCLE)] for i, name in enumerate(backbones)}


def comparison(
    outcomes: Sequence[Outcome],
    backbones: Sequence[str],
    in_domain: Sequence[str],
    cross_domain: Sequence[str],
    kind: str,
    names: tuple[str, str] = ("in-domain", "cross-domain"),
) -> Figure:
    """The four panels of the experiment.

    Parameters
    ----------
    outcomes : sequence of Outcome
    backbones : sequence of str
        All that were asked for; one that did not run is named as such.
    in_domain, cross_domain : sequences of categories
    kind : str
        The image score on show.
    names : pair of str
        What the two groups are called.
    """
    aurocs = auroc_table(outcomes, kind)
    means = domain_means(aurocs, in_domain, cross_domain)
    colors = backbone_colors(backbones)
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.4), layout="constrained")
    for ax, column, name in zip(axes[0], ("in_domain", "cross_domain"), names, strict=True):
        intervals = {backbone: means[column].get(backbone) for backbone in backbones}
        _draw_means(ax, intervals, colors)
        ax.set_title(f"{name}: mean and 95 % interval")
    _draw_categories(axes[1, 0], aurocs, completed(outcomes, "category"), colors)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    _draw_gaps(axes[1, 1], means.loc[[b for b in backbones if b in means.index]], names, colors)
    return figure


def _draw_means(
    ax: Axes, intervals: Mapping[str, Interval | None], colors: Mapping[str, str]
) -> None:
    """One interval per backbone, or the words that it did not run."""
    for row, (name, interval) in enumerate(intervals.items()):
        if interval is None:
            ax.annotate(
                "did not run",
                (0.02, row),
                xycoords=("axes fraction", "data"),
                va="center",
                backgroundcolor="white",
            )
            continue
        low = max(0, interval.low)
        high = min(1, interval.high)
        ax.plot([low, high], [row, row], color=colors[name], lw=3, alpha=0.5)
        ax.plot(interval.estimate, row, "o", ms=9, color=colors[name])
        ax.annotate(
            f"{interval.estimate:.3f}",
            (interval.estimate, row),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
        )
    ax.axvline(0.5, color="0.6", ls=":", lw=1)
    lows = [interval.low for interval in intervals.values() if interval is not None]
    ax.set_yticks(range(len(intervals)), list(intervals))
    ax.set(xlim=(max(0, min([0.4, *lows])), 1.03), ylim=(len(intervals) - 0.4, -0.7))
    ax.set_xlabel("image AUROC (mean over categories)")


def _draw_categories(
    ax: Axes, aurocs: pd.DataFrame, categories: Sequence[str], colors: dict[str, str]
) -> None:
    """AUROC by category, a bar per backbone."""
    bars_from_chance(ax, aurocs, "backbone", colors, lw=1.2, upright=True)
    has_room = len(categories) <= 3
    labels = [name.replace("/", "/\n") if has_room else name for name in categories]
    ax.set_xticks(range(len(categories)), labels, rotation=0 if has_room else 90, fontsize=9)
    ax.axhline(0.5, color="0.6", lw=1)
    ax.set(ylabel="image AUROC", title="by category; bars start at chance", ylim=(None, 1.02))


def _draw_gaps(
    ax: Axes, means: pd.DataFrame, names: tuple[str, str], colors: Mapping[str, str]
) -> None:
    """A line per backbone from the first group's mean to the second's."""
    for backbone, (first, second, gap) in zip(means.index, means.to_numpy(), strict=True):
        if gap is None:
            continue
        color = colors[backbone]
        ax.plot([0, 1], [first.estimate, second.estimate], "o-", color=color, ms=8)
        text = f"gap {gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        ax.text(1.06, second.estimate, text, va="center", color=color, fontsize=9)
    _spread_labels(ax)
    ax.set(xlim=(-0.15, 2.3), ylabel="image AUROC (mean)", title="gap: first group minus second")
    ax.set_xticks([0, 1], names)


def _spread_labels(ax: Axes) -> None:
    """Move labels that would overlap apart: first upwards, then down from the top of the axis."""
    low, high = ax.get_ylim()
    step = LABEL_GAP * (high - low)
    texts = sorted(ax.texts, key=lambda text: text.get_position()[1])
    heights = []
    below = -np.inf
    for text in texts:
        below = max(text.get_position()[1], below + step)
        heights.append(below)
    above = high + step / 2
    for text, height in zip(reversed(texts), reversed(heights), strict=True):
        above = min(height, above - step)
        text.set_y(above)


def cost(means: pd.DataFrame, backbones: Sequence[str]) -> Figure:
    """Mean AUROC of each backbone against time per image and size of the bank.

    Parameters
    ----------
    means : DataFrame
        Index: backbone. Columns auroc, inference_time_ms, memory_mb.
    backbones : sequence of str
        In the order that gave them their colors.
    """
    colors = backbone_colors(backbones)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    labels = {"inference_time_ms": "time per image (ms)", "memory_mb": "memory bank (MB)"}
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        for name, row in means.iterrows():
            ax.plot(row[column], row["auroc"], "o", ms=10, color=colors[str(name)], label=name)
        ax.set(xlabel=label, xlim=(0, 1.15 * means[column].max()))
    axes[0].set_ylabel("image AUROC\n(mean over categories)")
    middle = means["auroc"].mean()
    half_height = max(0.03, 1.3 * np.ptp(means["auroc"].to_numpy()))
    axes[0].set_ylim(middle - half_height, min(1.005, middle + half_height))
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def rank_pairs(
    outcomes: Sequence[Outcome], one: str, other: str, category: str, kind: str
) -> Figure:
    """Ranks of the test images of a category by two backbones."""
    figure, ax = plt.subplots(figsize=(5.6, 4.6))
    cases = [{"kind": kind, "backbone": b, "category": category} for b in (one, other)]
    pair = paired_scores(outcomes, *cases)
    if pair is None:
        ax.set_title(f"{category}: one of the two did not run")
        return figure
    labels = pair[0]
    of_first_seed = [scores[0] for scores in pair[1:]]
    ranks = [scores.argsort().argsort() for scores in of_first_seed]
    for label, name, color in ((0, "normal", NORMAL), (1, "defective", DEFECT)):
        x, y = (rank[labels == label] for rank in ranks)
        ax.scatter(x, y, s=22, color=color, alpha=0.7, label=name)
    ax.plot([0, len(labels)], [0, len(labels)], color="0.7", lw=1)
    aurocs = [image_auroc(labels, scores) for scores in of_first_seed]
    ax.set_title(f"{category}: AUROC {aurocs[0]:.3f} and {aurocs[1]:.3f}")
    ax.set(xlabel=f"rank by {one}", ylabel=f"rank by {other}")
    ax.legend(loc="upper left")
    return figure
