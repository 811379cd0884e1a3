"""A region of interest: what lies outside is neither learned, nor scored, nor shown.

A patch vector depends on more of the image than its cell (notebook 2 measures how much), so it is
not enough to leave out the patches outside: a scratch there would move scores inside. So the pixels
outside are painted over before anything else sees the image, and then the patches outside are left
out as well. A patch is inside if at least half of its cell is.

Each pixel outside takes the color of the nearest pixel inside. One color for all of them would draw
an edge around the region, and edges are what networks look at.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from scipy import ndimage

from patchcore_helpers.data.images import read_region
from patchcore_helpers.errors import InputError
from patchcore_helpers.files import sha256

SMALLEST_SHARE = 0.5  # of a cell that is inside, for a patch that is


@dataclass(frozen=True, eq=False)
class RegionOfInterest:
    """The part of every image that is inspected.

    Attributes
    ----------
    inside : bool array of shape (height, width)
        One entry per pixel of the images as they come, before they are resized.

    Examples
    --------
    >>> region = RegionOfInterest.of(np.eye(4, dtype=bool))
    >>> region.cells((2, 2)).tolist()
    [[True, False], [False, True]]
    """

    inside: np.ndarray

    @classmethod
    def of(cls, roi: Any) -> Self | None:
        """From the parameter `roi` of `PatchCore`: a path, a bool array, or None for no region.

        Raises
        ------
        InputError
            If it is neither, cannot be read as a mask, or holds nothing.
        """
        if roi is None:
            return None
        if isinstance(roi, str | Path):
            inside, name = read_region(roi), str(roi)
        else:
            inside, name = roi, "roi"
        is_mask = isinstance(inside, np.ndarray) and inside.dtype == bool and inside.ndim == 2
        if not is_mask:
            raise InputError("roi: give a mask file, or a bool array of shape (height, width)")
        if not inside.any():
            raise InputError(f"{name}: holds no region of interest; draw it in white on black")
        return cls(inside)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images, pixels."""
        height, width = self.inside.shape
        return height, width

    @cached_property
    def digest(self) -> str:
        """What identifies the region."""
        return sha256(str(self.size), np.packbits(self.inside).tobytes())

    @cached_property
    def _nearest_inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the nearest pixel inside, for each pixel outside."""
        outside = ~self.inside
        rows, columns = ndimage.distance_transform_edt(
            outside, return_distances=False, return_indices=True
        )
        return rows[outside], columns[outside]

    def painted(self, image: Image.Image, name: str) -> Image.Image:
        """An image in which nothing is left of what was outside the region.

        Parameters
        ----------
        image : PIL image, mode RGB
        name : str
            What the message calls the image if its size is another one.
        """
        if (image.height, image.width) != self.size:
            raise InputError(f"{name}: {in_words(image, self.size)}")
        pixels = np.array(image)
        pixels[~self.inside] = pixels[self._nearest_inside]
        return Image.fromarray(pixels)

    def cells(self, grid: tuple[int, int]) -> np.ndarray:
        """Which patches are inside: at least half of the pixels of their cell are.

        Parameters
        ----------
        grid : (rows, columns)
            Patches in an image, which they cover evenly.

        Returns
        -------
        bool array of shape (rows, columns)

        Raises
        ------
        InputError
            If there is no such patch.
        """
        cells = self._shares(grid) >= SMALLEST_SHARE
        if not cells.any():
            raise InputError(
                f"roi: no patch is inside, of {grid[0]} x {grid[1]}; draw a larger region, or "
                "choose a larger image_size"
            )
        return cells

    def pixels(self, size: tuple[int, int]) -> np.ndarray:
        """The region at another size, bool array of shape (height, width)."""
        return self._shares(size) >= SMALLEST_SHARE

    def _shares(self, size: tuple[int, int]) -> np.ndarray:
        """Which share of each cell is inside, float32 array; a pixel lies where its center does."""
        height, width = size
        values = Image.fromarray(self.inside.astype(np.float32))
        return np.asarray(values.resize((width, height), Image.Resampling.BOX))


def in_words(image: Image.Image, size: tuple[int, int]) -> str:
    """What is wrong with an image of another size than the (height, width) of the mask."""
    height, width = size
    return (
        f"has {image.width}x{image.height} pixels, and the mask of the region of interest "
        f"{width}x{height}; they must be of one size"
    )


def refuse_region(roi: Any, what: str) -> None:
    """Raise an `InputError` where a region of interest would be passed over.

    Parameters
    ----------
    roi : the parameter of `PatchCore`
    what : str
        What has none, such as "strips of fabric".
    """
    if roi is not None:
        raise InputError(f"roi: {what} cannot have a region of interest; leave it out")
