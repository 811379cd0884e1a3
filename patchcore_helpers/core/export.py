"""Export that is believed only after it has been compared: the graph against the model.

A peer's exported model that is not the trained model is the complaint that is heard most. So the
graph is run before it is written, on real photographs, and beside the model that it stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.detector import Detector
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.onnx_file import ExportedSettings, check_exported, with_metadata
from patchcore_helpers.core.onnx_graph import GraphParts, build_graph
from patchcore_helpers.core.onnx_model import ExportedModel, MappedResult
from patchcore_helpers.data.catalog import load_category
from patchcore_helpers.errors import InputError, translate_os_errors
from patchcore_helpers.files import atomic_write
from patchcore_helpers.validation import check_real

TOLERANCE = 1e-3  # largest relative difference of an image score


@dataclass(frozen=True)
class Agreement:
    """How far a graph was from the model that it stands for.

    Attributes
    ----------
    n_images : int
    scores : float
        Largest difference of an image score, relative to the score.
    patch_scores, maps : float
        Largest difference of a patch score and of a pixel of the map, relative to the largest
        value of its image.
    same_rows : float
        Share of the patches whose nearest row of the memory bank is the same.
    other_verdicts : int
        Images with another verdict, whose score is farther from the threshold than the tolerance.
    """

    n_images: int
    scores: float
    patch_scores: float
    maps: float
    same_rows: float
    other_verdicts: int

    def __str__(self) -> str:
        return (
            f"on {self.n_images} images the largest relative difference is {self.scores:.1e} of "
            f"an image score, {self.patch_scores:.1e} of a patch score and {self.maps:.1e} of a "
            f"map; {self.same_rows:.2%} of the nearest rows are the same"
        )


def export_checked(
    model: Detector,
    parts: GraphParts,
    settings: ExportedSettings,
    path: str | Path,
    images: Sequence[Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Write the graph of a model, if it agrees with the model; otherwise nothing.

    Parameters
    ----------
    model : PatchCore
        Fitted.
    parts, settings
        Those of the model.
    path : path
    images : sequence of samples, paths, PIL images or uint8 arrays, optional
        Where they are compared; by default `real_photographs`.
    tolerance : float
        Largest relative difference that is accepted, of image scores, patch scores and maps.

    Raises
    ------
    InputError
        If the model cannot be exported, or the graph does not agree with it.
    """
    check_real(tolerance, "tolerance", 0, 1, include="neither", what="a share")
    images = real_photographs() if images is None else list(images)
    if not images:
        raise InputError("images: none to compare the exported model on; give at least one")
    content = with_metadata(build_graph(parts), settings)
    agreement = compare(model, content, path, images, tolerance)
    with translate_os_errors(path, "choose another --output"):
        atomic_write(path, content)
    return agreement


def compare(
    model: Detector, content: bytes, path: str | Path, images: Sequence[Any], tolerance: float
) -> Agreement:
    """How far the graph in `content` is from a model; refused if that is beyond the tolerance."""
    exported = ExportedModel(check_exported(path, content), path)
    threshold = getattr(model, "threshold_", None)
    pairs = [
        Pair(image, model.detect([image]), next(exported.detect_batches([image])), model)
        for image in map(read_item, images)
    ]
    agreement = Agreement(
        n_images=len(pairs),
        scores=max(pair.score_difference for pair in pairs),
        patch_scores=max(pair.patch_difference for pair in pairs),
        maps=max(pair.map_difference for pair in pairs),
        same_rows=float(np.mean([pair.same_rows for pair in pairs])),
        other_verdicts=sum(pair.has_other_verdict(threshold, tolerance) for pair in pairs),
    )
    largest = max(agreement.scores, agreement.patch_scores, agreement.maps)
    if not largest <= tolerance or agreement.other_verdicts:  # `not <=` also catches NaN
        raise InputError(
            f"{path}: not written, because the exported graph does not agree with the model "
            f"({agreement}; {agreement.other_verdicts} other verdicts; tolerance {tolerance:g}); "
            "fit again with other settings, or use the memory bank itself"
        )
    return agreement


@dataclass(frozen=True)
class Pair:
    """What the model and the graph say of one image."""

    image: Any
    ours: AnomalyResult
    theirs: MappedResult
    model: Any

    @property
    def score_difference(self) -> float:
        """Of the image scores, relative to the model's."""
        return relative_difference(self.ours.scores, self.theirs.scores)

    @property
    def patch_difference(self) -> float:
        """The largest of the patch scores, relative to the largest of them."""
        return relative_difference(self.ours.patch_scores, self.theirs.patch_scores)

    @property
    def map_difference(self) -> float:
        """The largest of the maps, relative to the largest value."""
        return relative_difference(self.model.to_maps(self.ours), self.theirs.maps)

    @property
    def same_rows(self) -> float:
        """Share of the patches with the same nearest row."""
        return float((self.model.nearest_rows([self.image]) == self.theirs.nearest_rows).mean())

    def has_other_verdict(self, threshold: float | None, tolerance: float) -> bool:
        """Whether the verdicts differ by more than a score that rounding puts on either side."""
        if threshold is None:
            return False
        score, other = float(self.ours.scores[0]), float(self.theirs.scores[0])
        on_the_edge = abs(score - threshold) <= tolerance * abs(threshold)
        return (score > threshold) != (other > threshold) and not on_the_edge


def relative_difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two arrays, relative to the largest number of the first.

    >>> relative_difference([1.0, 2.0], [1.0, 2.5])
    0.25
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.shape != theirs.shape:
        return float("inf")
    largest = np.abs(ours).max()
    difference = np.abs(ours - theirs).max()
    return float(difference / largest) if largest else float(difference)


def real_photographs() -> list[np.ndarray]:
    """Eight photographs of solar cells, uint8 (height, width, 3): four good ones, four defective.

    Two of each are cut to a rectangle, as an image that comes to be judged may be one.
    """
    try:
        test = load_category("elpv/mono").test
    except InputError as error:
        raise InputError(
            f"images: none given to compare the exported model on, and {error}; "
            "or name some: --images FOLDER"
        ) from None
    pixels = [np.asarray(sample.read()) for sample in [*test[:4], *test[-4:]]]
    return [
        image[:200, :] if number % 4 == 1 else image[:, 80:] if number % 4 == 3 else image
        for number, image in enumerate(pixels)
    ]
