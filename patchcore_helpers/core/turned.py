"""Turned copies of images: a bank of these knows a texture in every direction. Notebook 9."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from patchcore_helpers.core.feature_cache import fingerprint
from patchcore_helpers.core.items import read_item
from patchcore_helpers.files import sha256

QUARTERS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class TurnedImage:
    """An image, turned when it is read.

    Attributes
    ----------
    item : sample, path, PIL image or uint8 array
    quarters : 1, 2 or 3
        How many quarter turns, counterclockwise.
    """

    item: Any
    quarters: int

    def read(self) -> Image.Image:
        """The turned image, RGB."""
        return read_item(self.item).transpose(QUARTERS[self.quarters])

    def fingerprint(self) -> str:
        """What identifies its pixels, for the feature cache."""
        return sha256(fingerprint(self.item), f"{self.quarters} quarter turns")


def with_turned_copies(images: Sequence[Any]) -> list[Any]:
    """The images and three copies of each, turned by one, two and three quarters.

    For few images of something that may lie in any direction, or that looks the same in all of
    them. Where a direction is part of being right, a turned part is then no longer an anomaly.

    Parameters
    ----------
    images : sequence of samples, paths, PIL images or uint8 arrays

    Examples
    --------
    >>> import numpy as np
    >>> copies = with_turned_copies([np.zeros((4, 6), np.uint8)])
    >>> [read_item(image).size for image in copies]
    [(6, 4), (4, 6), (6, 4), (4, 6)]
    """
    images = list(images)
    return images + [TurnedImage(image, quarters) for quarters in QUARTERS for image in images]
