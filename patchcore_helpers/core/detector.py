"""What every detector does: learn from normal images, then score, map and judge others."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.anomaly_result import AnomalyResult, Frame, Grids
from patchcore_helpers.core.calibration import Calibration
from patchcore_helpers.core.known_images import KnownImages
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.smoothing import resize_and_smooth
from patchcore_helpers.core.validation import check_choice
from patchcore_helpers.errors import InputError

__all__ = [
    "AnomalyResult",
    "Detector",
    "Frame",
    "Grids",
    "as_image_list",
    "image_scores",
    "smooth_maps",
]


class Detector(BaseEstimator, ABC):
    """The contract of `PatchCore`, `StripPatchCore` and `Autoencoder`.

    A detector is fitted on normal images alone. A subclass implements `fit`, `detect_batches`,
    `to_maps` and `summary`; everything else follows from them:

    - `patch_scores`: one number per patch; `anomaly_maps`: the same at image size;
    - `anomaly_scores`: one number per image; `predict`: 1 where it exceeds `threshold_`;
    - `score`: the image AUROC on labeled images, which is what scikit-learn calls a score.

    Attributes
    ----------
    threshold_ : float
        Image scores above it are judged defective; set by `calibrate`.
    calibration_ : Calibration
        What `threshold_` comes from; set by `calibrate`.
    """

    @abstractmethod
    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Learn from normal images; what an earlier fit learned is forgotten.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays
        y : ignored
        """

    @abstractmethod
    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score images batch by batch, in memory that does not grow with their number.

        Parameters
        ----------
        images : sequence of samples, paths, PIL images or uint8 arrays

        Yields
        ------
        AnomalyResult
        """

    @abstractmethod
    def to_maps(self, result: AnomalyResult) -> Grids:
        """Anomaly maps at image size from a result of this detector.

        Returns
        -------
        float32 array of shape (n, height, width), or a list of (height, width) arrays where the
        images differ in size
        """

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Values for a results table, from a fitted detector.

        Returns
        -------
        dict
            backbone, image_size, coreset_ratio, n_patches and bank_size; None for what this kind of
            detector does not have.
        """

    @property
    def metric_size(self) -> tuple[int, int] | None:
        """The (height, width) at which pixel metrics are taken; None for the images' own sizes."""
        return None

    def inspected_pixels(self) -> np.ndarray | None:
        """Where pixel metrics are taken, bool (height, width) of `metric_size`; None for all."""
        return None

    def extra_metrics(self, category: Any, maps: Grids) -> dict[str, Any]:
        """Metrics that only this kind of detector has, such as the AUROC by tile."""
        return {}

    def detect(self, images: Sequence[Any]) -> AnomalyResult:
        """Score images; patch scores and image scores from one pass."""
        return AnomalyResult.join(list(self.detect_batches(images)))

    def patch_scores(self, images: Sequence[Any]) -> Grids:
        """Patch scores, float32 array of shape (n, rows, columns), or a list of (rows, columns)."""
        return self.detect(images).patch_scores

    def anomaly_scores(self, images: Sequence[Any]) -> np.ndarray:
        """Image scores, float32 array of shape (n,); higher is more anomalous."""
        return self.detect(images).scores

    def anomaly_maps(self, images: Sequence[Any]) -> Grids:
        """Anomaly maps at image size; see `to_maps`."""
        return self.to_maps(self.detect(images))

    def calibrate(self, normal_images: Sequence[Any], false_alarm_rate: float = 0.05) -> Self:
        """Set `threshold_` from normal images that were not used in `fit`.

        See `conformal_threshold` for what is promised. The promise is for images of the same
        groups (modules, batches, cameras) as these: `patchcore_helpers.core.threshold` says what to
        do for another one.
        """
        images = as_image_list(normal_images)
        scores = self.anomaly_scores(images)
        return self.calibrate_by(Calibration(scores, KnownImages.of(images), false_alarm_rate))

    def calibrate_by(self, calibration: Calibration) -> Self:
        """Set `threshold_` from scores that are known already; see `calibrate`."""
        self.threshold_ = calibration.threshold
        self.calibration_ = calibration
        return self

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        """1 where the image score exceeds `threshold_`, else 0; int array of shape (n,)."""
        check_is_fitted(
            self, "threshold_", msg="set a threshold first: call calibrate(normal_images)"
        )
        return (self.anomaly_scores(images) > self.threshold_).astype(int)

    def score(self, images: Sequence[Any], y: Sequence[int]) -> float | None:
        """Image AUROC on labeled images (0 normal, 1 defective), as scikit-learn's tools ask."""
        return image_auroc(y, self.anomaly_scores(images))

    def _forget_threshold(self) -> None:
        for name in ("threshold_", "calibration_"):
            if hasattr(self, name):
                delattr(self, name)


def as_image_list(images: Sequence[Any]) -> list[Any]:
    """The images as a list that is not empty."""
    images = list(images)
    if not images:
        raise InputError("no images: give at least one")
    return images


def image_scores(patch_scores: ArrayLike, kind: str = "max") -> np.ndarray:
    """One score per image from its patch scores.

    Parameters
    ----------
    patch_scores : array of shape (n, rows, columns)
    kind : "max", "mean" or "top1_percent" (mean of the largest 1 % of patches, at least one)

    Examples
    --------
    >>> image_scores(np.array([[[1.0, 2.0], [3.0, 6.0]]]), "mean")
    array([3.])
    """
    check_choice(kind, "kind", ("max", "mean", "top1_percent"))
    grids = np.asarray(patch_scores)
    flat = grids.reshape(len(grids), -1)
    if kind == "mean":
        return flat.mean(1)
    if kind == "max":
        return flat.max(1)
    count = max(1, round(flat.shape[1] / 100))
    return np.sort(flat, axis=1)[:, -count:].mean(1)


def smooth_maps(
    patch_scores: ArrayLike, size: tuple[int, int], sigma: float = 4.0, device: str = "cpu"
) -> np.ndarray:
    """Anomaly maps: patch scores resized bilinearly to `size` and smoothed by a Gaussian.

    Parameters
    ----------
    patch_scores : float32 array of shape (n, rows, columns)
    size : (height, width), pixels
    sigma : float, pixels
        Standard deviation of the Gaussian; 0 leaves the map as it is.
    device : "cpu", "cuda" or "mps"
        Where they are computed.

    Returns
    -------
    float32 array of shape (n, height, width)
    """
    grids = torch.from_numpy(np.ascontiguousarray(patch_scores, np.float32)).to(device)
    return resize_and_smooth(grids, size, sigma).cpu().numpy()
