"""Several detectors, one verdict: their scores in a common unit, averaged.

Distances in the features of two networks have different units and cannot be averaged as they are.
`Ensemble` standardizes them by good images that no bank holds; `mean_rank` needs no such images,
but a score then depends on which images are scored together. Taught in notebook 9.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from patchcore_helpers.core.detector import AnomalyResult, Detector, Grids, as_image_list
from patchcore_helpers.core.validation import check_real, check_seed
from patchcore_helpers.data.category import split
from patchcore_helpers.errors import InputError

FEWEST_IMAGES = 4  # two to fit on and two to measure a spread
SMALLEST_SPREAD = 1e-12


class Unit(NamedTuple):
    """Mean and standard deviation of a detector's scores on good images."""

    mean: float
    spread: float

    @classmethod
    def of(cls, scores: ArrayLike) -> "Unit":
        """Those of these scores."""
        values = np.asarray(scores, float)
        return cls(float(values.mean()), max(float(values.std(ddof=1)), SMALLEST_SPREAD))

    def standardize(self, scores: ArrayLike) -> np.ndarray:
        """How many standard deviations the scores are above the mean.

        >>> Unit(10.0, 2.0).standardize([10.0, 14.0])
        array([0., 2.])
        """
        return (np.asarray(scores, float) - self.mean) / self.spread


def mean_rank(scores: ArrayLike) -> np.ndarray:
    """The mean rank of every image over several detectors, as a share of the images.

    Ranks need no good images to standardize by. But they are ranks among the images that are scored
    together: a single image has none, and the same image ranks differently in another batch. And
    they forget by how much the first is ahead of the second.

    Parameters
    ----------
    scores : array of shape (detectors, n)

    Returns
    -------
    float array of shape (n,)
        In (0, 1]; images that tie share the mean of their ranks.

    Examples
    --------
    >>> mean_rank([[0.1, 0.5, 0.3, 0.9], [7.0, 9.0, 8.0, 5.0]])
    array([0.375, 0.875, 0.625, 0.625])
    """
    scores = np.atleast_2d(np.asarray(scores, float))
    return rankdata(scores, axis=1).mean(axis=0) / scores.shape[1]


class Ensemble(Detector):
    """The mean of several detectors' standardized scores.

    `fit` holds a share of the images out, fits every detector on the others, and measures mean and
    standard deviation of its scores on those that were held out: scores of images that are in the
    bank would be far too low. Then every detector is fitted again on all images.

    Parameters
    ----------
    detectors : sequence of Detector
        With anomaly maps of one size, and with the same `batch_size`. Such as a `PatchCore` on a
        CNN and one on a ViT.
    held_out : float in (0, 1)
        Share of the images that are held out, at least two.
    random_state : int
        Which images these are.

    Attributes
    ----------
    detectors_ : list of Detector
        Fitted on all images.
    units_ : list of (Unit, Unit)
        Of each detector's image scores and of its patch scores.
    threshold_ : float
        Set by `calibrate`.

    Notes
    -----
    Image scores are averaged as image scores; patch scores are resized bilinearly to the finest
    grid, averaged, and only shown as maps. Fitting takes nearly twice as long as that of all
    detectors alone, scoring as long as all of them.

    Examples
    --------
    >>> from patchcore_helpers import PatchCore, load_category
    >>> category = load_category("elpv/mono")
    >>> options = dict(weights="random", image_size=64, coreset_ratio=0.1)
    >>> networks = [PatchCore(name, **options) for name in ("resnet18", "efficientnet_lite0")]
    >>> model = Ensemble(networks).fit(category.train[:5])
    >>> model.anomaly_scores(category.test[:2]).shape
    (2,)
    """

    def __init__(
        self, detectors: Sequence[Detector], *, held_out: float = 0.2, random_state: int = 0
    ):
        self.detectors = detectors
        self.held_out = held_out
        self.random_state = random_state

    def fit(self, images: Sequence[Any], y: Any = None) -> Self:
        """Measure the units on held-out images, then fit all detectors on all images."""
        self._check_settings()
        images = as_image_list(images)
        if len(images) < FEWEST_IMAGES:
            raise InputError(
                f"{len(images)} images: an ensemble needs at least {FEWEST_IMAGES}, as it holds "
                "some of them out"
            )
        count = min(max(2, round(self.held_out * len(images))), len(images) - 1)
        held_out, others = split(images, count, seed=self.random_state)
        self.detectors_ = [clone(detector) for detector in self.detectors]
        self.units_ = []
        for detector in self.detectors_:
            normal = detector.fit(others).detect(held_out)
            self.units_.append((Unit.of(normal.scores), Unit.of(normal.patch_scores)))
            detector.fit(images)
        self._forget_threshold()
        return self

    def detect_batches(self, images: Sequence[Any]) -> Iterator[AnomalyResult]:
        """Score images batch by batch with every detector, and average."""
        check_is_fitted(self, "detectors_")
        images = as_image_list(images)
        batches = [detector.detect_batches(images) for detector in self.detectors_]
        for results in zip(*batches, strict=True):
            yield self._average(results)

    def _average(self, results: Sequence[AnomalyResult]) -> AnomalyResult:
        if len({len(result) for result in results}) > 1:
            raise InputError("detectors: give all of them the same batch_size")
        pairs = list(zip(results, self.units_, strict=True))
        scores = np.mean([unit.standardize(result.scores) for result, (unit, _) in pairs], axis=0)
        shapes = [np.shape(result.patch_scores)[1:] for result in results]
        finest = max(shapes, key=np.prod)
        grids = [
            resized(unit.standardize(result.patch_scores), finest) for result, (_, unit) in pairs
        ]
        patch_scores = np.mean(grids, axis=0)
        return AnomalyResult(scores.astype(np.float32), patch_scores.astype(np.float32))

    def to_maps(self, result: AnomalyResult) -> Grids:
        """Anomaly maps as the first detector makes them, in standard deviations of good patches."""
        check_is_fitted(self, "detectors_")
        return self.detectors_[0].to_maps(result)

    @property
    def metric_size(self) -> tuple[int, int] | None:
        return self.detectors[0].metric_size

    def summary(self) -> dict[str, Any]:
        check_is_fitted(self, "detectors_")
        parts = [detector.summary() for detector in self.detectors_]
        return {
            "backbone": " + ".join(dict.fromkeys(part["backbone"] for part in parts)),
            "image_size": parts[0]["image_size"],
            "coreset_ratio": parts[0]["coreset_ratio"],
            "n_patches": sum(part["n_patches"] for part in parts),
            "bank_size": sum(part["bank_size"] for part in parts),
        }

    def _check_settings(self) -> None:
        check_real(self.held_out, "held_out", 0, 1, include="neither", what="a share")
        check_seed(self.random_state)
        if not self.detectors:
            raise InputError("detectors: give at least one")
        if len({detector.metric_size for detector in self.detectors}) > 1:
            raise InputError("detectors: give all of them the same image_size")


def resized(grids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Grids of shape (n, rows, columns), resized bilinearly to another (rows, columns)."""
    if grids.shape[1:] == tuple(shape):
        return grids
    tensor = torch.from_numpy(np.ascontiguousarray(grids))[:, None]
    return F.interpolate(tensor, size=tuple(shape), mode="bilinear")[:, 0].numpy()
