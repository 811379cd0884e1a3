"""The input size that keeps the shape of the images: a photograph twice as wide is not squeezed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from patchcore_helpers.core.items import read_item

SIDE = 256  # pixels; of a square, and the square root of the area of a rectangle
STRIDE = 32  # pixels; sides are multiples of it, so that every stage of a CNN has whole cells
NEARLY_SQUARE = 1.15  # times as long as the other: a side that is not longer is squeezed
MOST_READ = 20  # images that are looked at


def size_in_shape(images: Sequence[Any]) -> int | tuple[int, int]:
    """Choose `image_size` for images that share a shape.

    Parameters
    ----------
    images : sequence of samples, paths, PIL images or uint8 arrays
        Up to 20 of them, evenly spread, are read.

    Returns
    -------
    int or (height, width), pixels
        256 where the images are nearly square, or differ in shape. Otherwise the multiples of 32
        that come nearest to their shape, at the area of that square.

    Examples
    --------
    >>> import numpy as np
    >>> size_in_shape([np.zeros((480, 640, 3), np.uint8)])
    (224, 288)
    >>> size_in_shape([np.zeros((300, 300, 3), np.uint8)])
    256
    """
    places = np.unique(np.linspace(0, len(images) - 1, MOST_READ).round().astype(int))
    ratios = []  # width over height
    for place in places:
        width, height = read_item(images[place]).size
        ratios.append(width / height)
    ratio = float(np.median(ratios))
    longer = max(ratio, 1 / ratio)
    share_a_shape = max(ratios) < 1.02 * min(ratios)
    if longer <= NEARLY_SQUARE or not share_a_shape:
        return SIDE
    height, width = SIDE / ratio**0.5, SIDE * ratio**0.5
    return _whole(height), _whole(width)


def _whole(side: float) -> int:
    return max(1, round(side / STRIDE)) * STRIDE
