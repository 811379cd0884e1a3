"""How well scores and maps separate defects from normal images: image AUROC, pixel AUROC, AU-PRO.

How sure one can be of an AUROC: see `patchcore_helpers.core.intervals`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from patchcore_helpers.errors import InputError

Arrays = Sequence[np.ndarray] | np.ndarray


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a defective image outscores a normal one.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)

    Returns
    -------
    float or None
        None if all images are of one class.

    Raises
    ------
    InputError
        If the shapes differ, or if a score is NaN or infinite.

    Examples
    --------
    >>> image_auroc([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
    0.75
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores, dtype=float)
    if labels.shape != scores.shape:
        raise InputError(
            f"labels {labels.shape} and scores {scores.shape} must have the same shape"
        )
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinite values")
    if not 0 < labels.sum() < labels.size:
        return None
    return float(roc_auc_score(labels, scores))


def _pixel_scores(masks: Arrays, maps: Arrays) -> np.ndarray:
    """All pixels' scores in one row, as floats; refuses maps whose shapes are not the masks'."""
    if [np.shape(mask) for mask in masks] != [np.shape(values) for values in maps]:
        raise InputError("masks and maps must have the same shapes")
    scores = np.concatenate([np.ravel(values) for values in maps])
    if not np.isfinite(scores).all():
        raise InputError("anomaly maps hold NaN or infinite values")
    return scores.astype(np.result_type(scores, np.float32), copy=False)


def pixel_auroc(
    masks: Arrays, maps: Arrays, pixels: NDArray[np.bool_] | None = None
) -> float | None:
    """Area under the ROC curve over all pixels of all images.

    Parameters
    ----------
    masks : sequence of bool arrays, or array of shape (n, height, width)
    maps : sequence of float arrays of the same shapes
        The anomaly maps.
    pixels : bool array of shape (height, width), optional
        The pixels that count, in every image; by default all.

    Returns
    -------
    float or None
        None if no pixel, or every pixel, is a defect.
    """
    scores = _pixel_scores(masks, maps)
    labels = np.concatenate([np.ravel(mask) for mask in masks]).astype(np.uint8)
    counts = _counting(masks, pixels)
    return image_auroc(labels[counts], scores[counts])


def _counting(masks: Arrays, pixels: NDArray[np.bool_] | None) -> NDArray[np.bool_] | slice:
    """Which of all pixels of all images count, one image after the other."""
    return slice(None) if pixels is None else np.tile(np.ravel(pixels), len(masks))


def _label_regions(masks: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Number the regions of all masks through.

    Returns
    -------
    sizes : int array of shape (regions,), pixels
    region_of : int array of shape (pixels,)
        0 for a normal pixel, else 1 + the region's place in `sizes`.
    """
    touching_by_side_or_corner = np.ones((3, 3))
    sizes = []
    region_of = []
    n_regions = 0
    for mask in masks:
        regions, count = ndimage.label(mask, structure=touching_by_side_or_corner)
        sizes.append(np.bincount(regions.ravel(), minlength=count + 1)[1:])
        region_of.append(np.where(regions > 0, regions + n_regions, 0).ravel())
        n_regions += count
    return np.concatenate(sizes), np.concatenate(region_of)


def au_pro(
    masks: Arrays,
    maps: Arrays,
    limit: float = 0.3,
    pixels: NDArray[np.bool_] | None = None,
) -> float | None:
    """Area under the per-region overlap curve (Bergmann et al. 2021), up to a false positive rate.

    The overlap of a region is the share of its pixels above the threshold; regions are 8-connected
    components of the true masks and weigh the same whatever their size. The curve of mean overlap
    against the false positive rate over all normal pixels is integrated exactly, at every distinct
    score, from 0 to `limit` (interpolated there), and divided by `limit`.

    Parameters
    ----------
    masks : sequence of bool arrays of shape (height, width), or array (n, height, width)
    maps : sequence of float arrays of the same shapes
        The anomaly maps.
    limit : float in (0, 1]
        The false positive rate up to which the curve is integrated.
    pixels : bool array of shape (height, width), optional
        The pixels that count, in every image; by default all. The masks hold no other.

    Returns
    -------
    float or None
        None if there is no region, or no normal pixel.
    """
    if not 0 < limit <= 1:
        raise InputError(f"limit={limit}: give a false positive rate above 0 and at most 1")
    scores = _pixel_scores(masks, maps)
    sizes, region_of = _label_regions(masks)
    counts = _counting(masks, pixels)
    scores, region_of = scores[counts], region_of[counts]
    is_normal = region_of == 0
    if not len(sizes) or not is_normal.any():
        return None

    # The threshold falls from the highest score down. A pixel that it passes adds to the mean
    # overlap if it belongs to a region, else to the false positives.
    overlap_per_pixel = np.concatenate([[0], 1 / (len(sizes) * sizes)])
    order = np.argsort(-scores, kind="stable")
    overlap = np.cumsum(overlap_per_pixel[region_of[order]])
    false_positive_rate = np.cumsum(is_normal[order]) / is_normal.sum()

    # Pixels of equal score are passed at once: the curve has a point where the score changes.
    is_last_of_its_score = np.append(np.diff(scores[order]) != 0, True)
    overlap = np.append(0, overlap[is_last_of_its_score])
    false_positive_rate = np.append(0, false_positive_rate[is_last_of_its_score])

    within = false_positive_rate <= limit
    overlap_at_limit = np.interp(limit, false_positive_rate, overlap)
    x = np.append(false_positive_rate[within], limit)
    y = np.append(overlap[within], overlap_at_limit)
    return float(np.trapezoid(y, x) / limit)


def region_overlaps(masks: Arrays, maps: Arrays, limit: float = 0.3) -> pd.DataFrame:
    """What each true region adds to AU-PRO, so that defects can be compared one by one.

    Call f(p) the share of all normal pixels that are hotter than a defect's pixel p. A threshold
    that lets p pass costs at least f(p) false positives, so p counts in the curve of `au_pro` from
    f(p) to `limit`: the share 1 - f(p) / limit of its width. The mean of that over a region is the
    region's overlap, and the mean over regions is AU-PRO. The mean of 1 - f(p) over all defect
    pixels, large regions and small ones in one pot, is the pixel AUROC. (Both up to equal scores.)

    Parameters
    ----------
    masks : sequence of bool arrays of shape (height, width), or array (n, height, width)
    maps : sequence of float arrays of the same shapes
    limit : float in (0, 1]

    Returns
    -------
    DataFrame
        One row per region: image (its number), pixels, overlap, pixel_auroc (of its pixels alone).

    Examples
    --------
    >>> mask = np.array([[[1, 0, 0, 0, 0]]], bool)
    >>> region_overlaps(mask, np.array([[[0.9, 0.1, 0.2, 0.3, 0.4]]]))["overlap"].tolist()
    [1.0]
    """
    if not 0 < limit <= 1:
        raise InputError(f"limit={limit}: give a false positive rate above 0 and at most 1")
    scores = _pixel_scores(masks, maps)
    sizes, region_of = _label_regions(masks)
    normal = np.sort(scores[region_of == 0])
    in_region = region_of > 0
    regions = region_of[in_region] - 1
    hotter = len(normal) - np.searchsorted(normal, scores[in_region], side="right")
    false_positive_rate = hotter / max(len(normal), 1)

    def mean_by_region(values: np.ndarray) -> np.ndarray:
        return np.bincount(regions, weights=values, minlength=len(sizes)) / sizes

    regions_per_image = [_label_regions([mask])[0].size for mask in masks]
    return pd.DataFrame(
        {
            "image": np.repeat(np.arange(len(masks)), regions_per_image),
            "pixels": sizes,
            "overlap": mean_by_region(np.clip(1 - false_positive_rate / limit, 0, 1)),
            "pixel_auroc": mean_by_region(1 - false_positive_rate),
        }
    )
