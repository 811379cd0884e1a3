"""Fit on a category's normal images, score its test images, measure."""

import time
import timeit

import numpy as np
import pandas as pd

from patchcore_helpers.core.coreset import nested_min_distances
from patchcore_helpers.core.extractor import as_size
from patchcore_helpers.core.metrics import au_pro, image_auroc, pixel_auroc
from patchcore_helpers.core.neighbors import ExactIndex
from patchcore_helpers.core.patchcore import AnomalyResult, PatchCore, image_scores
from patchcore_helpers.core.strips import StripPatchCore, score_tiles, strip_score
from patchcore_helpers.data.images import resize_mask
from patchcore_helpers.process import peak_rss_mb


def ground_truth_masks(category, size):
    """Masks of the test images at `size`, None for a defective image that has none.

    Parameters
    ----------
    category : Category
    size : (height, width), pixels

    Returns
    -------
    list of bool arrays of shape (height, width), or None
    """
    masks = (sample.mask() if sample.label else np.zeros(size, bool) for sample in category.test)
    return [None if mask is None else resize_mask(mask, size) for mask in masks]


def evaluate(category, model):
    """Fit, score and measure.

    Parameters
    ----------
    category : Category
    model : PatchCore or StripPatchCore
        It is fitted here.

    Returns
    -------
    results : dict
        What ``patchcore-course evaluate --json`` prints: settings, counts, image AUROC, pixel AUROC
        and AU-PRO (None without masks), seconds, and the peak resident memory in MB. For strips
        the tile AUROC, too: a tile is positive if any of its pixels is a defect; tiles that show no
        cloth are left out, as are those of defective strips without a mask.
    inspection : AnomalyResult
        For strips, it holds a list of their stitched maps instead of patch scores.
    """
    strips = isinstance(model, StripPatchCore)
    masks = [] if strips else ground_truth_masks(category, as_size(model.image_size))
    start = time.perf_counter()
    model.fit(category.train)
    fitted = time.perf_counter()
    if strips:
        maps = list(model.anomaly_maps(category.test))
        scores = np.array([strip_score(each) for each in maps])
        inspection = AnomalyResult(scores, maps)  # type: ignore[arg-type]
    else:
        inspection = model.detect(category.test)
    scored = time.perf_counter()
    measures = {"image_auroc": image_auroc(category.labels, inspection.scores)}
    if strips:
        masks = [sample.mask() for sample in category.test]
        tiles = score_tiles(category, maps).dropna(subset="label")
        labels, scores = tiles.label.to_numpy(int), tiles.score.to_numpy()
        measures["tile_auroc"] = image_auroc(labels, scores)
    measures |= {"pixel_auroc": None, "au_pro": None}
    if any(mask is not None and mask.any() for mask in masks):
        known = [i for i, mask in enumerate(masks) if mask is not None]
        masks = [masks[i] for i in known]
        every = maps if strips else model.to_maps(inspection.patch_scores)
        maps = [every[i] for i in known]
        measures |= {"pixel_auroc": pixel_auroc(masks, maps), "au_pro": au_pro(masks, maps)}
    fitted_model = model.patchcore_ if strips else model
    results = {
        "category": category.name,
        "backbone": fitted_model.backbone,
        "image_size": inspection.patch_scores[0].shape if strips else model.image_size,
        "coreset_ratio": fitted_model.coreset_ratio,
        "n_train": len(category.train),
        "n_test": len(category.test),
        "n_patches": fitted_model.n_patches_,
        "bank_size": len(fitted_model.memory_bank_),
        **measures,
        "fit_seconds": round(fitted - start, 3),
        "score_seconds": round(scored - fitted, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    return results, inspection


def compare_layers(category, choices, **options):
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
        part = "block" if model.extractor_.backbone.patch_size else "stage"
        rows.append(
            {
                "network": backbone,
                "layers": f"{backbone.split('_')[0]} {part} {'+'.join(map(str, layers))}",
                "grid": "{} x {}".format(*model.grid_),
                "channels": model.memory_bank_.shape[1],
                **{key: results[key] for key in ("image_auroc", "pixel_auroc", "au_pro")},
                "seconds": round(results["fit_seconds"] + results["score_seconds"], 2),
            }
        )
    return pd.DataFrame(rows)


def nested_patch_scores(model, images, sizes, progress=None):
    """Patch scores at several bank sizes from one pass over a bank in greedy order.

    Parameters
    ----------
    model : PatchCore
        Fitted, with the largest bank, its rows in greedy order, and `n_neighbors=1`.
    images : sequence of samples, paths, PIL images or uint8 arrays
    sizes : increasing sequence of int
        Bank sizes, at most the model's own; the first j rows are the greedy coreset of size j.

    Returns
    -------
    float32 array of shape (len(sizes), n, rows, columns)
    """

    def look(batch):
        l2 = nested_min_distances(model._vectors(batch.numpy()), model.memory_bank_, sizes)
        return model._distance(l2).reshape(len(sizes), *batch.shape[:3])

    parts = list(model.extractor_.patches(list(images), progress, look))
    return np.concatenate(parts, axis=1)


def ratio_table(model, category, ratios, progress=None):
    """AUROC, size and search time of every coreset that the model's bank contains.

    Parameters
    ----------
    model : PatchCore
        Fitted at the largest of the ratios.
    category : Category
    ratios : increasing sequence of float

    Returns
    -------
    table : DataFrame
        Columns ratio, bank_size, megabytes, image_auroc, search_ms (median per image).
    patch_scores : float32 array of shape (len(ratios), n_test, rows, columns)
    """
    sizes = [max(1, round(ratio * model.n_patches_)) for ratio in ratios]
    patch_scores = nested_patch_scores(model, category.test, sizes, progress)
    one_image = model._vectors(model.extractor_.extract(category.test[:1]))
    rows = []
    for ratio, size, scores in zip(ratios, sizes, patch_scores, strict=True):
        bank = model.memory_bank_[:size]
        rows.append(
            {
                "ratio": ratio,
                "bank_size": size,
                "megabytes": bank.nbytes / 1e6,
                "image_auroc": image_auroc(
                    category.labels, image_scores(scores, model.image_score)
                ),
                "search_ms": 1000 * median_seconds(ExactIndex().fit(bank).query, one_image),
            }
        )
    return pd.DataFrame(rows), patch_scores


def median_seconds(call, *arguments, repeats=7):
    """Median time of a call, after one that is not counted."""
    call(*arguments)
    return float(np.median(timeit.repeat(lambda: call(*arguments), number=1, repeat=repeats)))
