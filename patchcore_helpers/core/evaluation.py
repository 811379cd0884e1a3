"""Fit on a category's normal images, score its test images, measure."""

import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy import ndimage

from patchcore_helpers.core.bank import MemoryBank
from patchcore_helpers.core.detector import (
    AnomalyResult,
    Detector,
    Grids,
    image_scores,
    smooth_maps,
)
from patchcore_helpers.core.intervals import Interval, auroc_interval, grouped_auroc_interval
from patchcore_helpers.core.metrics import au_pro, image_auroc, pixel_auroc, region_overlaps
from patchcore_helpers.core.patchcore import PatchCore, as_rows
from patchcore_helpers.core.region_of_interest import refuse_region
from patchcore_helpers.data.category import Category, LabeledImage
from patchcore_helpers.data.images import resize_labels, resize_mask
from patchcore_helpers.process import peak_rss_mb


def ground_truth_masks(
    category: Category, size: tuple[int, int] | None = None
) -> list[np.ndarray | None]:
    """Masks of the test images, None for a defective image that has none.

    Parameters
    ----------
    category : Category
    size : (height, width), pixels, optional
        Resize them to this size; by default they keep the size of their images.

    Returns
    -------
    list of bool arrays of shape (height, width), or None
    """

    def mask_of(sample: LabeledImage) -> np.ndarray | None:
        if size is None:
            return sample.mask()
        if sample.label == 0:
            return np.zeros(size, bool)  # no need to read the image for its size
        mask = sample.mask()
        return None if mask is None else resize_mask(mask, size)

    return [mask_of(sample) for sample in category.test]


def vanished_regions(category: Category, size: tuple[int, int] | None) -> tuple[int, int]:
    """How many defective regions no pixel is left of when their masks are shrunk.

    Masks are resized by nearest neighbor, which passes over regions narrower than the distance
    between two of its pixels. Such a region leaves AU-PRO, where it would have weighed as much as
    any other, and most likely counted as missed.

    Parameters
    ----------
    category : Category
    size : (height, width), pixels, or None
        The size at which pixel metrics are taken; at None masks keep their size, and nothing
        vanishes.

    Returns
    -------
    vanished, regions : int
        Of all 8-connected regions of the known masks.
    """
    n_vanished = n_regions = 0
    for sample in category.test:
        mask = sample.mask() if sample.label else None
        if mask is None:
            continue
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        n_regions += count
        if size is not None:
            left = np.unique(resize_labels(regions, size))
            n_vanished += count - np.count_nonzero(left)
    return n_vanished, n_regions


def evaluate(category: Category, model: Detector) -> tuple[dict[str, Any], AnomalyResult]:
    """Fit, score and measure.

    Parameters
    ----------
    category : Category
    model : Detector
        It is fitted here.

    Returns
    -------
    results : dict
        What ``patchcore-course evaluate --json`` prints: settings, counts, image AUROC, pixel AUROC
        and AU-PRO (None without masks), seconds, and the peak resident memory in MB. A
        `StripPatchCore` adds the AUROC by tile.
    result : AnomalyResult
        The scores of the test images.
    """
    # Masks are read first, so that a wrong one is reported before the long work begins.
    masks = ground_truth_masks(category, model.metric_size)
    start = time.perf_counter()
    model.fit(category.train)
    fitted = time.perf_counter()
    result = model.detect(category.test)
    scored = time.perf_counter()
    maps = model.to_maps(result)
    summary = model.summary()
    results = {
        "category": category.name,
        "backbone": summary["backbone"],
        "image_size": summary["image_size"] or maps[0].shape,
        "coreset_ratio": summary["coreset_ratio"],
        "n_train": len(category.train),
        "n_test": len(category.test),
        "n_patches": summary["n_patches"],
        "bank_size": summary["bank_size"],
        "image_auroc": image_auroc(category.labels, result.scores),
        **model.extra_metrics(category, maps),
        **pixel_metrics(masks, maps, model.inspected_pixels()),
        "fit_seconds": round(fitted - start, 3),
        "score_seconds": round(scored - fitted, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    return results, result


def evaluate_folds(
    folds: Sequence[Category], model: Detector
) -> tuple[dict[str, Any], Interval, list[AnomalyResult]]:
    """Fit, score and measure on every fold, such as those of `load_elpv_folds`.

    Parameters
    ----------
    folds : sequence of Category
    model : Detector
        It is fitted anew on every fold; in the end it is that of the last one.

    Returns
    -------
    results : dict
        The keys of `evaluate`. image_auroc is the mean over the folds, and so are pixel_auroc and
        au_pro where all folds have them; n_test and the seconds are totals; counts of training
        images and patches are those of one fold.
    auroc : Interval
        Of image_auroc: `grouped_auroc_interval` over the folds.
    scores : list of AnomalyResult
        Of the test images of every fold.
    """
    measured = [evaluate(fold, model) for fold in folds]
    by_fold = [results for results, _ in measured]
    scores = [result for _, result in measured]
    auroc = grouped_auroc_interval(
        np.concatenate([fold.labels for fold in folds]),
        np.concatenate([result.scores for result in scores]),
        np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds]),
    )
    results = {
        **by_fold[-1],
        "n_test": sum(of_fold["n_test"] for of_fold in by_fold),
        "image_auroc": auroc.estimate,
    }
    for metric in ("pixel_auroc", "au_pro"):
        values = [of_fold[metric] for of_fold in by_fold]
        results[metric] = None if None in values else float(np.mean(values))
    for seconds in ("fit_seconds", "score_seconds"):
        results[seconds] = round(sum(of_fold[seconds] for of_fold in by_fold), 3)
    return results, auroc, scores


def defects_outside(category: Category, model: Detector) -> int:
    """How many defective images have a mask, and no defect in the region of interest."""
    pixels = model.inspected_pixels()
    if pixels is None:
        return 0
    masks = ground_truth_masks(category, model.metric_size)
    known = [mask for mask in masks if mask is not None and mask.any()]
    return sum(not mask[pixels].any() for mask in known)


def pixel_metrics(
    masks: Sequence[np.ndarray | None], maps: Grids, pixels: np.ndarray | None = None
) -> dict[str, float | None]:
    """Pixel AUROC and AU-PRO over the images whose masks are known; None without any defect.

    Parameters
    ----------
    masks : sequence of bool arrays of shape (height, width), or None where a mask is missing
    maps : sequence of float arrays of the same shapes
    pixels : bool array of shape (height, width), optional
        The pixels that count, in every image; by default all.
    """
    if pixels is not None:
        masks = [None if mask is None else mask & pixels for mask in masks]
    if not any(mask is not None and mask.any() for mask in masks):
        return {"pixel_auroc": None, "au_pro": None}
    pairs = [(mask, values) for mask, values in zip(masks, maps, strict=True) if mask is not None]
    known_masks = [mask for mask, _ in pairs]
    their_maps = [values for _, values in pairs]
    return {
        "pixel_auroc": pixel_auroc(known_masks, their_maps, pixels),
        "au_pro": au_pro(known_masks, their_maps, pixels=pixels),
    }


class PatchJudgement(NamedTuple):
    """What patch vectors of one kind are worth; made by `judge_patches`.

    Attributes
    ----------
    scores : float32 array of shape (n,)
        Image scores.
    patch_scores : float32 array of shape (n, rows, columns)
    regions : DataFrame
        What each true region adds to AU-PRO, see `region_overlaps`; empty without masks.
    """

    scores: np.ndarray
    patch_scores: np.ndarray
    regions: pd.DataFrame

    @property
    def au_pro(self) -> float | None:
        return float(self.regions["overlap"].mean()) if len(self.regions) else None

    @property
    def pixel_auroc(self) -> float | None:
        if not len(self.regions):
            return None
        return float(np.average(self.regions["pixel_auroc"], weights=self.regions["pixels"]))


def judge_patches(
    train: Any,
    test: Any,
    masks: Sequence[np.ndarray | None],
    *,
    size: tuple[int, int],
    bank_size: int = 1000,
    seed: int = 0,
) -> PatchJudgement:
    """PatchCore on patch vectors that are there already, whatever network and layer made them.

    Parameters
    ----------
    train, test : float32 arrays or tensors of shape (n, rows, columns, channels)
    masks : sequence of bool arrays of shape `size`, or None where a mask is missing
        Of the test images.
    size : (height, width) of the anomaly maps, pixels
    bank_size : int
        Rows of the memory bank, chosen by greedy k-center; the same for every grid, so that a fine
        grid has no larger bank than a coarse one.
    seed : int

    Returns
    -------
    PatchJudgement
    """
    vectors = as_rows(np.asarray(train))
    ratio = min(1.0, bank_size / len(vectors))
    bank = MemoryBank(coreset_ratio=ratio, random_state=seed).fit(vectors)
    test = np.asarray(test)
    patch_scores = bank.distances(as_rows(test)).reshape(test.shape[:3])
    maps = smooth_maps(patch_scores, size)
    known = [(mask, values) for mask, values in zip(masks, maps, strict=True) if mask is not None]
    regions = pd.DataFrame(columns=["image", "pixels", "overlap", "pixel_auroc"])
    if any(mask.any() for mask, _ in known):
        regions = region_overlaps([mask for mask, _ in known], [values for _, values in known])
    return PatchJudgement(image_scores(patch_scores), patch_scores, regions)


def judgement_table(judged: Mapping[str, PatchJudgement], labels: np.ndarray) -> pd.DataFrame:
    """Image AUROC, AU-PRO (with 95 % intervals) and pixel AUROC of several judgements.

    Parameters
    ----------
    judged : mapping of name to PatchJudgement
    labels : array of 0 and 1, shape (n,)

    Returns
    -------
    DataFrame
        Indexed by the name; columns image_auroc, image_low, image_high and, where masks are known,
        au_pro, pro_low, pro_high, pixel_auroc.
    """
    rows = {}
    for name, judgement in judged.items():
        row: dict[str, float | None] = {}
        image = auroc_interval(labels, judgement.scores)
        row |= {"image_auroc": image.estimate, "image_low": image.low, "image_high": image.high}
        if len(judgement.regions):
            overlap = region_interval(judgement.regions["overlap"])
            row |= {"au_pro": overlap.estimate, "pro_low": overlap.low, "pro_high": overlap.high}
            row["pixel_auroc"] = judgement.pixel_auroc
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patches")


def region_interval(values: ArrayLike) -> Interval:
    """Mean over regions with a 95 % interval for other defects of the same kind.

    For a paired comparison, give the differences region by region. The regions count as
    independent, and the normal pixels, of which there are millions, as known exactly.

    Parameters
    ----------
    values : array of float, shape (regions,)

    Examples
    --------
    >>> interval = region_interval([0.5, 0.7, 0.9])
    >>> round(interval.estimate, 2), round(interval.low, 2)
    (0.7, 0.2)
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        estimate = float(values.mean()) if len(values) else float("nan")
        return Interval(estimate, float("-inf"), float("inf"), float("inf"), 1)
    components = [(float(values.var(ddof=1)) / len(values), len(values) - 1)]
    return Interval.from_variance_components(values.mean(), components)


def nested_patch_scores(
    model: PatchCore, images: Sequence[Any], sizes: list[int], progress: str | None = None
) -> np.ndarray:
    """Patch scores at several bank sizes from one pass over a bank in greedy order.

    Parameters
    ----------
    model : PatchCore
        Fitted, with the largest bank, its rows in greedy order, and `n_neighbors=1`.
    images : sequence of samples, paths, PIL images or uint8 arrays
    sizes : increasing list of int
        Bank sizes, at most the model's own; the first j rows are the greedy coreset of size j.
    progress : str, optional
        Label of a progress bar on standard error.

    Returns
    -------
    float32 array of shape (len(sizes), n, rows, columns)
    """

    refuse_region(model.roi, "several bank sizes at once")

    def scores_at_all_sizes(patches: torch.Tensor) -> np.ndarray:
        distances = model.bank_.nested_distances(as_rows(patches), sizes)
        return distances.reshape(len(sizes), *patches.shape[:3])

    batches = model.extractor_.patches(list(images), progress, scores_at_all_sizes)
    return np.concatenate(list(batches), axis=1)


def ratio_table(
    model: PatchCore, category: Category, ratios: Sequence[float], progress: str | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """AUROC and size of every coreset that the model's bank contains.

    Parameters
    ----------
    model : PatchCore
        Fitted at the largest of the ratios.
    category : Category
    ratios : increasing sequence of float
    progress : str, optional
        Label of a progress bar on standard error.

    Returns
    -------
    table : DataFrame
        Columns ratio, bank_size, megabytes, image_auroc.
    patch_scores : float32 array of shape (len(ratios), n_test, rows, columns)
    """
    sizes = [max(1, round(ratio * model.bank_.n_vectors_)) for ratio in ratios]
    patch_scores = nested_patch_scores(model, category.test, sizes, progress)
    rows = []
    for ratio, size, scores in zip(ratios, sizes, patch_scores, strict=True):
        smaller_bank = model.bank_.vectors_[:size]
        aurocs = image_auroc(category.labels, image_scores(scores, model.image_score))
        rows.append(
            {
                "ratio": ratio,
                "bank_size": size,
                "megabytes": smaller_bank.nbytes / 1e6,
                "image_auroc": aurocs,
            }
        )
    return pd.DataFrame(rows), patch_scores


def median_seconds(call: Callable[..., Any], *arguments: Any, repeats: int = 7) -> float:
    """Median time of a call, after one that is not counted."""
    call(*arguments)
    return float(np.median(timeit.repeat(lambda: call(*arguments), number=1, repeat=repeats)))
