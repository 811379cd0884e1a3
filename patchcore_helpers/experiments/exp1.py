"""Experiment 1: which backbone, and does the answer transfer to another data set?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from patchcore_helpers.core.detector import image_scores
from patchcore_helpers.core.evaluation import evaluate, median_seconds
from patchcore_helpers.core.intervals import Interval, auroc_interval, mean_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.experiments import common, statistics
from patchcore_helpers.experiments.common import ImageSettings, load_images, require_weights
from patchcore_helpers.experiments.grid import Outcome, Row, Task
from patchcore_helpers.experiments.statistics import collect_scores, completed, paired_scores

# fmt: off
COLUMNS = [
    "backbone", "dataset", "category", "auroc", "memory_mb", "inference_time_ms",  # the source's
    "image_score", "pixel_auroc", "au_pro", "seed", "n_train", "n_test", "bank_size",
    "fit_seconds", "weights", "status",
]
# fmt: on
TIMINGS = ["inference_time_ms", "fit_seconds"]
SCORES = ("mean", "max")
MEASURED = ["pixel_auroc", "au_pro", "n_train", "n_test", "bank_size", "fit_seconds"]
TIMED_IMAGES = 5
AUROC_LABELS = ((0.9, "excellent"), (0.8, "good"), (0.7, "fair"), (-1, "poor"))
# What the source published; nobody ran it, see notebook 4.
CLAIMS = {
    "dinov2_vitb14": {"MVTec AD": 0.9691, "VisA": 0.8990, "gap": 0.0701},
    "resnet50": {"MVTec AD": 0.9392, "VisA": 0.8390, "gap": 0.1002},
}
DATASETS = {
    "mvtec_ad": "MVTec AD",
    "visa": "VisA",
    "elpv": "ELPV",
    "elpv_planted": "ELPV, planted",
    "fabric": "rendered fabric",
    "aitex": "AITEX",
}


@dataclass(frozen=True)
class Settings(ImageSettings):
    """How every memory bank of the experiment is built and asked; the rest: `ImageSettings`.

    Parameters
    ----------
    coreset_ratio : float
        Share of the training patches that the memory bank keeps.
    n_neighbors : int
        A patch score is the mean distance to the `n_neighbors` nearest rows of the bank.
    """

    coreset_ratio: float = 0.05
    n_neighbors: int = 5


def auroc_label(auroc: float) -> str:
    """The source's word for an image AUROC.

    >>> auroc_label(0.93), auroc_label(0.42)
    ('excellent', 'poor')
    """
    return next(label for lower_bound, label in AUROC_LABELS if auroc >= lower_bound)


def dataset_of(category: str) -> str:
    """The data set that a category belongs to: what precedes the slash.

    >>> dataset_of("mvtec_ad/bottle")
    'mvtec_ad'
    """
    return category.split("/")[0]


def group_name(categories: Sequence[str]) -> str:
    """A short name for a group of categories: their data sets.

    >>> group_name(["mvtec_ad/bottle", "mvtec_ad/cable"])
    'MVTec AD'
    """
    datasets = dict.fromkeys(dataset_of(category) for category in categories)
    return ", ".join(DATASETS.get(dataset, dataset) for dataset in datasets)


def make_tasks(
    settings: Settings,
    backbones: Sequence[str],
    categories: Sequence[str],
    seeds: Sequence[int],
) -> list[Task]:
    """One task per category, backbone and seed; see `run_task`."""
    tasks = common.make_tasks(settings, category=categories, backbone=backbones, seed=seeds)
    return [{**task, "dataset": dataset_of(task["category"])} for task in tasks]


def run_task(
    settings: Settings | Mapping[str, Any], backbone: str, dataset: str, category: str, seed: int
) -> tuple[list[Row], dict[str, list]]:
    """Fit one bank and score its test images, by both kinds of image score.

    Parameters
    ----------
    settings : Settings or dict
        As an object, or as a task of the grid holds them.
    backbone : str
    dataset : str
        Goes into the row as it is.
    category : str
    seed : int
        Seed of the coreset alone: the images are the same for every seed, so that seeds and images
        can be told apart as sources of variation.

    Returns
    -------
    rows : list of dict
        One per kind of image score.
    scores : dict of str to list
        The test images' labels, and their scores of either kind.

    Raises
    ------
    Skipped
        If the backbone's weights are not on this machine.
    """
    settings = Settings.of(settings)
    require_weights(backbone)
    images = load_images(settings, category)
    model = PatchCore(
        backbone,
        image_size=settings.image_size,
        coreset_ratio=settings.coreset_ratio,
        n_neighbors=settings.n_neighbors,
        engine=settings.engine,
        device=settings.device,
        cache=settings.use_cache,
        random_state=seed,
    )
    results, detected = evaluate(images, model)
    row = {name: results[name] for name in MEASURED}
    row["memory_mb"] = model.bank_.vectors_.nbytes / 1e6
    row["weights"] = model.extractor_.backbone.source
    row["inference_time_ms"] = _inference_milliseconds(model, images.test[:TIMED_IMAGES])

    scores = {kind: image_scores(detected.patch_scores, kind) for kind in SCORES}
    rows = [
        {"image_score": kind, "auroc": image_auroc(images.labels, scores[kind]), **row}
        for kind in SCORES
    ]
    lists = {kind: values.tolist() for kind, values in scores.items()}
    return rows, {"labels": images.labels.tolist(), **lists}


def _inference_milliseconds(model: PatchCore, samples: Sequence) -> float:
    """Median time per image, from the picture to its scores."""
    model.extractor_.cache = None  # else the network would not be part of it
    seconds = [median_seconds(model.detect, [sample], repeats=1) for sample in samples]
    return 1000 * float(np.median(seconds))


def auroc_table(outcomes: Sequence[Outcome], kind: str) -> pd.DataFrame:
    """Image AUROC of each backbone in each category, with its interval and the source's label.

    Parameters
    ----------
    outcomes : sequence of Outcome
    kind : str
        The image score, one of `SCORES`.

    Returns
    -------
    DataFrame
        Columns backbone, category, auroc, low, high, band, and the Interval itself.
    """
    rows = []
    for category in completed(outcomes, "category"):
        for backbone in completed(outcomes, "backbone"):
            collected = collect_scores(outcomes, kind, backbone=backbone, category=category)
            if collected is None:
                continue
            interval = auroc_interval(*collected)
            low = max(0.0, interval.low)
            high = min(1.0, interval.high)
            labels_of_ends = dict.fromkeys([auroc_label(low), auroc_label(high)])
            rows.append(
                {
                    "backbone": backbone,
                    "category": category,
                    "auroc": interval.estimate,
                    "low": low,
                    "high": high,
                    "band": f"{auroc_label(interval.estimate)} ({' to '.join(labels_of_ends)})",
                    "interval": interval,
                }
            )
    columns = ["backbone", "category", "auroc", "low", "high", "band", "interval"]
    return pd.DataFrame(rows, columns=columns)


def compare(outcomes: Sequence[Outcome], kind: str, one: str, other: str) -> pd.DataFrame:
    """Paired differences in image AUROC between two backbones, `one` minus `other`.

    See `statistics.compare`.
    """
    pairs = {}
    for category in completed(outcomes, "category"):
        cases = [{"kind": kind, "backbone": b, "category": category} for b in (one, other)]
        pair = paired_scores(outcomes, *cases)
        if pair is not None:
            pairs[category] = pair
    return statistics.compare(pairs)


def domain_means(
    aurocs: pd.DataFrame, in_domain: Sequence[str], cross_domain: Sequence[str]
) -> pd.DataFrame:
    """Mean AUROC of each backbone over two groups of categories, and the gap between them.

    Parameters
    ----------
    aurocs : DataFrame
        What `auroc_table` returned.
    in_domain, cross_domain : sequences of categories

    Returns
    -------
    DataFrame
        Index: backbone. Columns in_domain, cross_domain, gap: Intervals, None where nothing ran.
    """
    means = {}
    for backbone, rows in aurocs.groupby("backbone", sort=False):
        first = _mean_over(rows, in_domain)
        second = _mean_over(rows, cross_domain)
        gap = None
        if first is not None and second is not None:
            components = [(mean.error**2, mean.df) for mean in (first, second)]
            difference = first.estimate - second.estimate
            gap = Interval.from_variance_components(difference, components)
        means[backbone] = [first, second, gap]
    return pd.DataFrame(means, index=["in_domain", "cross_domain", "gap"]).T


def _mean_over(rows: pd.DataFrame, categories: Sequence[str]) -> Interval | None:
    intervals = rows.loc[rows["category"].isin(list(categories)), "interval"].tolist()
    return mean_interval(intervals) if intervals else None


def claims_table(aurocs: pd.DataFrame, backbones: Sequence[str]) -> pd.DataFrame:
    """What the source claimed, beside what was measured here on the same data, if anything was.

    Parameters
    ----------
    aurocs : DataFrame
        What `auroc_table` returned.
    backbones : sequence of str
        All that the run was asked for.
    """
    rows = []
    for backbone, claims in CLAIMS.items():
        of_backbone = aurocs[aurocs["backbone"] == backbone]
        dataset_names = of_backbone["category"].map(dataset_of).map(DATASETS)
        means = {
            dataset: of_backbone.loc[dataset_names == dataset, "auroc"].mean()
            for dataset in claims
            if (dataset_names == dataset).any()
        }
        for dataset, claimed in claims.items():
            measured = means.get(dataset)
            if dataset == "gap":
                reason = "a difference of the two rows above"
                if {"MVTec AD", "VisA"} <= means.keys():
                    measured = means["MVTec AD"] - means["VisA"]
            elif backbone not in backbones:
                reason = "this backbone was not part of the run"
            elif of_backbone.empty:
                reason = "it did not run here; its status says why"
            elif measured is None:
                reason = f"{dataset} was not part of this run"
            else:
                reason = f"mean of {(dataset_names == dataset).sum()} categories"
            rows.append((backbone, dataset, claimed, measured, reason))
    columns = ["backbone", "data set", "claimed", "measured", "can they be compared?"]
    return pd.DataFrame(rows, columns=columns)
