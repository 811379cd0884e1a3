"""What counts as an image: a file, pixels, or anything that can be read as one."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchcore_helpers.data.images import Readable, read_image
from patchcore_helpers.errors import InputError


def read_item(item: Any) -> Image.Image:
    """The upright RGB image of an item.

    Parameters
    ----------
    item : path, PIL image, uint8 array, or an object whose method ``read()`` returns a PIL image

    Raises
    ------
    InputError
        For what is none of these, or a file that cannot be read.

    Examples
    --------
    >>> read_item(np.zeros((4, 6), np.uint8)).size
    (6, 4)
    """
    if isinstance(item, Readable):
        image = item.read()
        if not isinstance(image, Image.Image):
            raise InputError(f"{item!r}: its read() does not return a PIL image; give a path")
        return image if image.mode == "RGB" else read_image(image)
    if not isinstance(item, str | Path | Image.Image | np.ndarray):
        raise InputError(f"{item!r}: not an image; give a path, a PIL image or a uint8 array")
    return read_image(item)
