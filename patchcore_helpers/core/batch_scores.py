"""Images that score each other: a batch is its own memory bank, and no image is known to be good.

Li et al. 2024, "MuSc: Zero-shot industrial anomaly classification and segmentation with mutual
scoring of the unlabeled images", ICLR, arXiv 2401.16753. Taught in notebook 9.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.detector import (
    AnomalyResult,
    Detector,
    as_image_list,
    image_scores,
)
from patchcore_helpers.core.distances import as_tensor
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.region_of_interest import refuse_region
from patchcore_helpers.core.validation import check_real
from patchcore_helpers.errors import InputError


def mutual_patch_scores(patches: np.ndarray | torch.Tensor, share: float = 0.3) -> np.ndarray:
    """Score every patch by the other images of its batch.

    In each other image, the patch has a nearest patch, at some distance. Of these distances, one
    for each other image, the smallest `share` are averaged: what is normal is found again in many
    images, and a defect in few.

    Parameters
    ----------
    patches : array or tensor of shape (images, rows, columns, channels), at least two images
    share : float in (0, 1]
        Which share of the other images has a say, at least one of them.

    Returns
    -------
    float32 array of shape (images, rows, columns)

    Notes
    -----
    The mutual scoring mechanism of MuSc with its interval average; without its aggregation over
    several neighborhoods and its re-scoring of images. Time grows with the square of the number of
    images. A defect that more than about `share` of the images have in common counts as normal.

    Examples
    --------
    >>> batch = np.array([1.0, 1.1, 0.9, 5.0]).reshape(4, 1, 1, 1)
    >>> mutual_patch_scores(batch, 0.3).ravel().round(1)
    array([0.1, 0.1, 0.1, 3.9], dtype=float32)
    """
    check_real(share, "share", 0, 1, include="right", what="a share")
    vectors = as_tensor(patches).float()
    n_images, n_rows, n_columns, _ = vectors.shape
    if n_images < 2:
        raise InputError(f"{n_images} images: they score each other, so give at least two")
    nearest = nearest_in_other_images(vectors.flatten(1, 2))
    n_asked = max(1, round(share * (n_images - 1)))
    kept = nearest.sort(dim=1).values[:, :n_asked]
    return kept.mean(dim=1).reshape(n_images, n_rows, n_columns).cpu().numpy()


def nearest_in_other_images(vectors: torch.Tensor) -> torch.Tensor:
    """The distance of every patch to the nearest patch of each other image.

    Parameters
    ----------
    vectors : float32 tensor of shape (images, patches, channels)

    Returns
    -------
    float32 tensor of shape (images, images - 1, patches)
        For each image: one row for each other image, in their order.
    """
    n_images, n_patches, _ = vectors.shape
    centered = vectors - vectors.mean((0, 1))  # a common offset would cost precision
    squared_lengths = centered.square().sum(-1)
    squared = vectors.new_zeros(n_images, n_images, n_patches)
    for one in range(n_images):
        for other in range(one):  # one table of distances serves both images
            table = torch.addmm(
                squared_lengths[other][None, :], centered[one], centered[other].T, alpha=-2
            )
            table += squared_lengths[one][:, None]
            squared[one, other] = table.amin(1)
            squared[other, one] = table.amin(0)
    is_other = ~torch.eye(n_images, dtype=torch.bool, device=vectors.device)
    return squared[is_other].reshape(n_images, n_images - 1, n_patches).clamp(min=0).sqrt()


class MutualPatchCore(Detector):
    """A detector without a memory bank: the images that are scored together score each other.

    `fit` loads the network and looks at no image. The scores of an image depend on all images of
    the call: score a whole batch at once, of which most are good.

    Parameters
    ----------
    model : PatchCore
        Says how images become patch vectors, and patch scores image scores and maps.
    share : float in (0, 1]
        See `mutual_patch_scores`.

    Notes
    -----
    `calibrate` promises nothing here: an image that is scored beside others is not exchangeable
    with calibration images that were scored without them.

    Examples
    --------
    >>> from patchcore_helpers import load_category
    >>> category = load_category("elpv/mono")
    >>> model = MutualPatchCore(PatchCore("resnet18", weights="random", image_size=64))
    >>> model.fit(category.train[:1]).anomaly_scores(category.test[:4]).shape
    (4,)
    """

    def __init__(self, model: PatchCore, *, share: float = 0.3):
        self.model = model
        self.share = share

    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Load the network; the images are not looked at."""
        refuse_region(self.model.roi, "a recipe")
        if self.model.image_score == "reweighted":
            raise InputError("image_score='reweighted': needs a memory bank; choose max")
        self.extractor_ = self.model.new_extractor()
        self._forget_threshold()
        return self

    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score all images by each other; a single result."""
        check_is_fitted(self, "extractor_")
        patches = self.extractor_.extract(as_image_list(images))
        patch_scores = mutual_patch_scores(patches, self.share)
        yield AnomalyResult(image_scores(patch_scores, self.model.image_score), patch_scores)

    def to_maps(self, result: AnomalyResult) -> np.ndarray:
        """Anomaly maps at image size, float32 array of shape (n, height, width)."""
        return self.model.to_maps(result)

    @property
    def metric_size(self) -> tuple[int, int]:
        return self.model.metric_size

    def summary(self) -> dict[str, Any]:
        return {
            "backbone": self.model.backbone,
            "image_size": self.model.image_size,
            "coreset_ratio": None,
            "n_patches": None,
            "bank_size": None,
        }
