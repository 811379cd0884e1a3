"""What a detector finds in images. Needs no torch, so that exported models can say it too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

# One array per image: a single array where all have one size, else a sequence of arrays.
Grids: TypeAlias = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True)
class Frame:
    """Where a grid of patch scores lies in an image that it does not cover completely.

    Attributes
    ----------
    height, width : int, pixels
        Size of the image.
    top, left, bottom, right : int, pixels
        The part of the image that is scored; empty if nothing is.
    offset : (int, int), pixels
        How much of the first row and column of patches lies outside that part.
    step : int, pixels
        From one patch to the next.
    """

    height: int
    width: int
    top: int
    left: int
    bottom: int
    right: int
    offset: tuple[int, int]
    step: int


@dataclass(frozen=True)
class AnomalyResult:
    """What a detector finds in a batch of images.

    Attributes
    ----------
    scores : float32 array of shape (n,)
        Image scores; higher is more anomalous.
    patch_scores : float32 array of shape (n, rows, columns)
        The patch scores that they come from; a list of (rows, columns) arrays where the images
        differ in size.
    frames : list of Frame, or None
        Where the patch scores lie; None where they cover the images.
    """

    scores: np.ndarray
    patch_scores: Grids
    frames: list[Frame] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, indices: Sequence[int]) -> "AnomalyResult":
        """The results of these images, in this order."""
        indices = [int(index) for index in indices]
        if self.frames is None:
            return AnomalyResult(self.scores[indices], np.asarray(self.patch_scores)[indices])
        return AnomalyResult(
            self.scores[indices],
            [self.patch_scores[index] for index in indices],
            [self.frames[index] for index in indices],
        )

    @staticmethod
    def join(results: Sequence["AnomalyResult"]) -> "AnomalyResult":
        """The results of several batches, one after the other."""
        scores = np.concatenate([result.scores for result in results])
        if results[0].frames is None:
            return AnomalyResult(scores, np.concatenate([r.patch_scores for r in results]))
        return AnomalyResult(
            scores,
            [grid for result in results for grid in result.patch_scores],
            [frame for result in results for frame in result.frames or ()],
        )
