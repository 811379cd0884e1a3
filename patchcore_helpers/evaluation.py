"""Fit on a category's normal images, score its test images, measure."""

import time

import numpy as np

from .features import as_size
from .images import resize_mask
from .lesson import peak_rss_mb
from .metrics import au_pro, image_auroc, pixel_auroc


def test_masks(category, size):
    """Masks of the test images at `size`, None for a defective image that has none.

    Parameters
    ----------
    category : Category
    size : (height, width), pixels

    Returns
    -------
    list of bool arrays of shape (height, width), or None
    """
    masks = []
    for sample in category.test:
        if sample.label == 0:
            masks.append(np.zeros(size, bool))
        else:
            mask = sample.mask()
            masks.append(None if mask is None else resize_mask(mask, size))
    return masks


def pixel_metrics(masks, maps):
    """Pixel AUROC and AU-PRO over the images of known masks; (None, None) without a defect."""
    known = [i for i, mask in enumerate(masks) if mask is not None]
    if not any(masks[i].any() for i in known):
        return None, None
    masks, maps = np.stack([masks[i] for i in known]), maps[known]
    return pixel_auroc(masks, maps), au_pro(masks, maps)


def evaluate(category, model):
    """Fit, score and measure.

    Parameters
    ----------
    category : Category
    model : PatchCore
        It is fitted here.

    Returns
    -------
    results : dict
        What ``patchcore-course evaluate --json`` prints: settings, counts, image AUROC, pixel AUROC
        and AU-PRO (None without masks), seconds, and the peak resident memory in MB.
    inspection : Inspection
    """
    size = as_size(model.image_size)
    masks = test_masks(category, size)
    start = time.perf_counter()
    model.fit(category.train)
    fitted = time.perf_counter()
    inspection = model.inspect(category.test)
    scored = time.perf_counter()
    pixel, pro = None, None
    if any(mask is not None and mask.any() for mask in masks):
        pixel, pro = pixel_metrics(masks, model.to_maps(inspection.patch_scores))
    results = {
        "category": category.name,
        "backbone": model.backbone,
        "image_size": model.image_size,
        "coreset_ratio": model.coreset_ratio,
        "n_train": len(category.train),
        "n_test": len(category.test),
        "n_patches": model.n_patches_,
        "bank_size": len(model.memory_bank_),
        "image_auroc": image_auroc(category.labels, inspection.scores),
        "pixel_auroc": pixel,
        "au_pro": pro,
        "fit_seconds": round(fitted - start, 3),
        "score_seconds": round(scored - fitted, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    return results, inspection
