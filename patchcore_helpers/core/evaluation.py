"""Fit on a category's normal images, score its test images, measure."""

import time
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from patchcore_helpers.core.detector import AnomalyResult, Detector, Grids, image_scores
from patchcore_helpers.core.index import ExactIndex
from patchcore_helpers.core.intervals import Interval, grouped_auroc_interval
from patchcore_helpers.core.metrics import au_pro, image_auroc, pixel_auroc
from patchcore_helpers.core.patchcore import PatchCore, as_rows
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
        **pixel_metrics(masks, maps),
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


def pixel_metrics(masks: Sequence[np.ndarray | None], maps: Grids) -> dict[str, float | None]:
    """Pixel AUROC and AU-PRO over the images whose masks are known; None without any defect.

    Parameters
    ----------
    masks : sequence of bool arrays of shape (height, width), or None where a mask is missing
    maps : sequence of float arrays of the same shapes
    """
    if not any(mask is not None and mask.any() for mask in masks):
        return {"pixel_auroc": None, "au_pro": None}
    pairs = [(mask, values) for mask, values in zip(masks, maps, strict=True) if mask is not None]
    known_masks = [mask for mask, _ in pairs]
    their_maps = [values for _, values in pairs]
    return {
        "pixel_auroc": pixel_auroc(known_masks, their_maps),
        "au_pro": au_pro(known_masks, their_maps),
    }


def compare_layers(
    category: Category, choices: Sequence[tuple[str, Sequence[int]]], **options: Any
) -> pd.DataFrame:
    """Evaluate several choices of backbone and layers on one category.

    Parameters
    ----------
    category : Category
    choices : list of (backbone name, layers)
    **options : other parameters of PatchCore

    Returns
    -------
    DataFrame
        Columns network, layers, grid, channels, image_auroc, pixel_auroc, au_pro, seconds (fit and
        score together).
    """
    rows = []
    for backbone, layers in choices:
        model = PatchCore(backbone, layers=layers, **options)
        results, _ = evaluate(category, model)
        unit = "block" if model.extractor_.backbone.patch_size else "stage"
        n_rows, n_columns = model.grid_
        rows.append(
            {
                "network": backbone,
                "layers": f"{backbone.split('_')[0]} {unit} {'+'.join(map(str, layers))}",
                "grid": f"{n_rows} x {n_columns}",
                "channels": model.bank_.vectors_.shape[1],
                "image_auroc": results["image_auroc"],
                "pixel_auroc": results["pixel_auroc"],
                "au_pro": results["au_pro"],
                "seconds": round(results["fit_seconds"] + results["score_seconds"], 2),
            }
        )
    return pd.DataFrame(rows)


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

    def scores_at_all_sizes(patches: torch.Tensor) -> np.ndarray:
        distances = model.bank_.nested_distances(as_rows(patches.numpy()), sizes)
        return distances.reshape(len(sizes), *patches.shape[:3])

    batches = model.extractor_.patches(list(images), progress, scores_at_all_sizes)
    return np.concatenate(list(batches), axis=1)


def ratio_table(
    model: PatchCore, category: Category, ratios: Sequence[float], progress: str | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """AUROC, size and search time of every coreset that the model's bank contains.

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
        Columns ratio, bank_size, megabytes, image_auroc, search_ms (median per image).
    patch_scores : float32 array of shape (len(ratios), n_test, rows, columns)
    """
    sizes = [max(1, round(ratio * model.bank_.n_vectors_)) for ratio in ratios]
    patch_scores = nested_patch_scores(model, category.test, sizes, progress)
    one_image = as_rows(model.extractor_.extract(category.test[:1]))
    rows = []
    for ratio, size, scores in zip(ratios, sizes, patch_scores, strict=True):
        smaller_bank = model.bank_.vectors_[:size]
        aurocs = image_auroc(category.labels, image_scores(scores, model.image_score))
        seconds = median_seconds(ExactIndex().fit(smaller_bank).query, one_image)
        rows.append(
            {
                "ratio": ratio,
                "bank_size": size,
                "megabytes": smaller_bank.nbytes / 1e6,
                "image_auroc": aurocs,
                "search_ms": 1000 * seconds,
            }
        )
    return pd.DataFrame(rows), patch_scores


def median_seconds(call: Callable[..., Any], *arguments: Any, repeats: int = 7) -> float:
    """Median time of a call, after one that is not counted."""
    call(*arguments)
    return float(np.median(timeit.repeat(lambda: call(*arguments), number=1, repeat=repeats)))
