"""Image and pixel metrics of anomaly detection."""

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from .errors import CourseError


def image_auroc(labels, scores):
    """Area under the ROC curve: the chance that a defective image outscores a normal one.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)

    Returns
    -------
    float or None
        None if only one class is there.

    Examples
    --------
    >>> image_auroc([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
    0.75
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=float)
    if labels.shape != scores.shape:
        raise CourseError(
            f"labels {labels.shape} and scores {scores.shape} must have the same shape"
        )
    if not np.isfinite(scores).all():
        raise CourseError("scores hold NaN or infinite values")
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < labels.size else None


def _pixel_scores(masks, maps):
    """All pixels' scores in one row, as floats; refuses maps that are not those of the masks."""
    if [np.shape(mask) for mask in masks] != [np.shape(values) for values in maps]:
        raise CourseError("masks and maps must have the same shapes")
    scores = np.concatenate([np.ravel(values) for values in maps])
    if not np.isfinite(scores).all():
        raise CourseError("anomaly maps hold NaN or infinite values")
    return scores.astype(np.result_type(scores, np.float32), copy=False)


def pixel_auroc(masks, maps):
    """Area under the ROC curve over all pixels of all images.

    Parameters
    ----------
    masks : sequence of bool arrays, or array of shape (n, height, width)
    maps : the anomaly maps, same shapes

    Returns
    -------
    float or None
        None if no pixel, or every pixel, is a defect.
    """
    scores = _pixel_scores(masks, maps)
    return image_auroc(np.concatenate([np.ravel(mask) for mask in masks]).astype(np.uint8), scores)


def au_pro(masks, maps, limit=0.3):
    """Area under the per-region overlap curve (Bergmann et al. 2021), up to a false positive rate.

    The overlap of a region is the share of its pixels above the threshold; regions are 8-connected
    components of the true masks and weigh the same whatever their size. The curve of mean overlap
    against the false positive rate over all normal pixels is integrated exactly, at every distinct
    score, from 0 to `limit` (interpolated there), and divided by `limit`.

    Parameters
    ----------
    masks : sequence of bool arrays of shape (height, width), or array (n, height, width)
    maps : the anomaly maps, same shapes
    limit : float in (0, 1]

    Returns
    -------
    float or None
        None if there is no region, or no normal pixel.
    """
    if not 0 < limit <= 1:
        raise CourseError(f"limit={limit}: give a false positive rate above 0 and at most 1")
    scores = _pixel_scores(masks, maps)
    sizes, region_of, first = [], [], 1
    for mask in masks:
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes.append(np.bincount(regions.ravel(), minlength=count + 1)[1:])
        region_of.append(np.where(regions > 0, regions + first - 1, 0).ravel())
        first += count
    sizes, region_of = np.concatenate(sizes), np.concatenate(region_of)
    normal = region_of == 0
    if not len(sizes) or not normal.any():
        return None
    gain = np.concatenate([[0], 1 / (len(sizes) * sizes)])
    order = np.argsort(-scores, kind="stable")
    distinct = np.append(np.diff(scores[order]) != 0, True)
    overlap = np.append(0, np.cumsum(gain[region_of[order]])[distinct])
    false_positive_rate = np.append(0, np.cumsum(normal[order])[distinct] / normal.sum())
    inside = false_positive_rate <= limit
    x = np.append(false_positive_rate[inside], limit)
    y = np.append(overlap[inside], np.interp(limit, false_positive_rate, overlap))
    return float(np.trapezoid(y, x) / limit)
