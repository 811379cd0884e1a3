"""Pictures for reports: an image beside its heat map, as a file."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from patchcore_helpers.course.heat import heat_map

LONGER_SIDE = 420  # pixels of an image in a picture


def heat_map_picture(
    image: Image.Image, values: np.ndarray, limits: tuple[float, float]
) -> Image.Image:
    """An image in color and, to its right, in gray under its heat map.

    Parameters
    ----------
    image : PIL image
        Reduced if its longer side has more than `LONGER_SIDE` pixels.
    values : float array of shape (height, width)
        The anomaly map; it is stretched to the image.
    limits : (low, high)
        Map values at the two ends of the color scale; below `low` the image shows through.

    Returns
    -------
    PIL image, mode RGB, twice as wide as the reduced image

    Examples
    --------
    >>> heat_map_picture(Image.new("RGB", (40, 30)), np.eye(8), (0, 1)).size
    (80, 30)
    """
    image = image.convert("RGB")
    image.thumbnail((LONGER_SIDE, LONGER_SIDE))
    picture = Image.new("RGB", (2 * image.width, image.height))
    picture.paste(image, (0, 0))
    picture.paste(heat_map(image, values, limits), (image.width, 0))
    return picture


def picture_name(number: int, path: Path) -> str:
    """A file name for the picture of an image, valid on any system and different for any number.

    >>> picture_name(7, Path("a b/Ümlaut #1?.png"))
    '00007_Ümlaut_1.png'
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(path).stem)[:40].strip("_")
    return f"{number:05}_{stem}.png"
