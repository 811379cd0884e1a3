"""From a strip to tiles and back, and where the cloth lies on a strip.

A tile is a crop of pixels; a patch is a position of a feature map.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from patchcore_helpers.data.category import Category, LabeledImage
from patchcore_helpers.errors import InputError, error_line

Array = NDArray[Any]


# Tiles


def offsets(length: int, size: int, stride: int) -> list[int]:
    """Where tiles start along one side; the last one is shifted to end where the image does.

    Parameters
    ----------
    length : int, pixels
        Length of the side of the image.
    size, stride : int, pixels
        See `tile`.

    Raises
    ------
    InputError
        If `size` or `stride` is not at least 1, or the stride is larger than the size.

    Examples
    --------
    >>> offsets(1000, 256, 256), offsets(100, 256, 256)
    ([0, 256, 512, 744], [0])
    """
    for name, value in (("size", size), ("stride", stride)):
        if not isinstance(value, Integral) or value < 1:
            raise InputError(f"tile {name} {value!r}: give pixels, a whole number from 1")
    if stride > size:
        raise InputError(f"tile stride {stride}: leaves pixels out; give at most the size {size}")
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image, row by row: views, cut when they are asked for.

    Attributes
    ----------
    image : array of shape (height, width) or (height, width, channels), any dtype
    size, stride : int, pixels
    """

    image: Array
    size: int
    stride: int

    @property
    def positions(self) -> pd.DataFrame:
        """Where the tiles are: a table with the columns x, y, width and height, pixels.

        A tile is as wide and as high as `size`, or as the image if that is smaller.
        """
        height, width = self.image.shape[:2]
        rows = [
            (x, y, min(self.size, width), min(self.size, height))
            for y in offsets(height, self.size, self.stride)
            for x in offsets(width, self.size, self.stride)
        ]
        return pd.DataFrame(rows, columns=["x", "y", "width", "height"])

    def __len__(self) -> int:
        height, width = self.image.shape[:2]
        n_rows = len(offsets(height, self.size, self.stride))
        n_columns = len(offsets(width, self.size, self.stride))
        return n_rows * n_columns

    def __iter__(self) -> Iterator[Array]:
        for position in self.positions.itertuples():
            yield self.image[_region(position)]


def _region(position: Any) -> tuple[slice, slice]:
    """The slices of a tile; `position` is a row of `Tiles.positions`."""
    rows = slice(position.y, position.y + position.height)
    columns = slice(position.x, position.x + position.width)
    return rows, columns


def tile(image: Array, size: int = 256, stride: int | None = None) -> Tiles:
    """Cut an image into tiles of `size` pixels a side, one every `stride` pixels.

    The last tile of a row or column is shifted back to end with the image: nothing is dropped,
    nothing is padded. Tiles are views, so memory does not grow with their number.

    Parameters
    ----------
    image : array of shape (height, width) or (height, width, channels), any dtype
    size : int, pixels
    stride : int, pixels, at most `size`
        The size itself by default: no overlap but that of the shifted tiles.

    Returns
    -------
    Tiles

    Raises
    ------
    InputError
        If the image is empty or has another number of dimensions, or for a size or stride that
        `offsets` refuses.

    Examples
    --------
    >>> strip = np.arange(256 * 1000).reshape(256, 1000)
    >>> tiles = tile(strip)
    >>> tiles.positions.x.tolist()
    [0, 256, 512, 744]
    >>> bool((untile(tiles) == strip).all())
    True
    """
    image = np.asarray(image)
    if stride is None:
        stride = size
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"image of shape {image.shape}: give (height, width) or (height, width, channels)"
        )
    for length in image.shape[:2]:
        offsets(length, size, stride)  # refuses a bad size or stride now, not when it is used
    return Tiles(image, size, stride)


def untile(
    tiles: Tiles | Iterable[Array],
    positions: pd.DataFrame | None = None,
    shape: tuple[int, int] | None = None,
    window: str | None = None,
) -> Array:
    """Put tiles, or maps of their size, together again.

    Parameters
    ----------
    tiles : Tiles, or iterable of arrays of shape (height, width) or (height, width, channels)
        They are taken one by one.
    positions : DataFrame, optional
        Columns x, y, width, height, one row for each tile; by default those of `tiles`.
    shape : (height, width), optional
        As far as the tiles reach by default. Pixels that no tile covers are 0.
    window : None or "triangle"
        None: a later tile covers an earlier one, the dtype is kept, and the result is exact.
        "triangle": where tiles overlap, a mean weighted by the distance from each tile's border,
        in floating point. Tiles that agree come out as they are, bit by bit.

    Returns
    -------
    array of shape `shape`, and channels as the tiles have them

    Raises
    ------
    InputError
        For an unknown window, or a tile whose shape is not that of its position.
    """
    if window not in (None, "triangle"):
        raise InputError(f"window={window!r}: choose None or 'triangle'")
    if positions is None:
        if not isinstance(tiles, Tiles):
            raise InputError("positions=None: only Tiles know their positions; give them")
        positions = tiles.positions
    if shape is None:
        height = int((positions.y + positions.height).max())
        width = int((positions.x + positions.width).max())
        shape = (height, width)

    image: Array | None = None
    total_weight = np.zeros(shape, np.float32)
    for number, (position, part) in enumerate(zip(positions.itertuples(), tiles, strict=True)):
        part = np.asarray(part)
        if part.shape[:2] != (position.height, position.width):
            raise InputError(
                f"tile {number}: shape {part.shape}, but its position is "
                f"{position.height} x {position.width}"
            )
        if image is None:  # only now are the dtype and the channels known
            dtype = part.dtype if window is None else np.result_type(part.dtype, np.float32)
            image = np.zeros((*shape, *part.shape[2:]), dtype)
        region = _region(position)
        if window is None:
            image[region] = part
        else:
            _blend(image[region], total_weight[region], part)
    assert image is not None  # `shape` has refused an empty table
    return image


def _blend(image: Array, total_weight: Array, part: Array) -> None:
    """Turn a running mean of tiles, in place, into one with a further tile.

    Adding a share of the difference, and not weighted sums, leaves equal values exactly equal.
    """
    weight = np.outer(_triangle(part.shape[0]), _triangle(part.shape[1])).astype(np.float32)
    total_weight += weight
    share = (weight / total_weight).astype(image.dtype)
    if part.ndim == 3:
        share = share[:, :, None]
    image += share * (part - image)


def _triangle(length: int) -> Array:
    """Weights that rise evenly from either end to 1 in the middle; never 0."""
    distance_to_end = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1))
    return distance_to_end / ((length + 1) // 2)


# Where the cloth lies

WHITE = 255  # gray level of a margin that was whited out
BRIGHT_LINE = 250  # gray levels: the line between table and cloth is brighter
LINE_SHARE = 0.7  # of the rows must show the line
EDGE_WIDTH = 16  # columns by which the edge of the cloth winds, and over which means are smoothed
TABLE_CONTRAST = 0.12  # share by which a table is brighter than the cloth on it, at least


def fabric_extent(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Find the columns that show cloth, by statistics of entire columns.

    A margin that was whited out has columns of 255 throughout, and ends raggedly. Without one, the
    table may be seen left of the cloth. It ends at a white line from top to bottom; or else it is
    brighter than most of the cloth, and the means of the columns fall by `TABLE_CONTRAST` or more
    at its edge, where they fall most.

    Parameters
    ----------
    image : uint8 array of shape (height, width) or (height, width, 3)

    Returns
    -------
    first, end : int
        The first column of the cloth and the one past its last; (0, 0) if there is no cloth.

    Examples
    --------
    >>> strip = np.full((256, 1000), 90, np.uint8)
    >>> strip[:, :300] = 255
    >>> fabric_extent(strip), fabric_extent(strip[:, :200])
    ((300, 1000), (0, 0))
    """
    gray = image if image.ndim == 2 else image[..., 1]
    not_margin = np.flatnonzero(gray.min(0) < WHITE)
    if not len(not_margin):
        return 0, 0
    first = int(not_margin[0])
    end = int(not_margin[-1]) + 1
    # A line farther to the right is a defect.
    search_end = first + 4 * EDGE_WIDTH if first else end // 4
    after_line = _end_of_white_line(gray[:, :search_end])
    if after_line is not None:
        return max(first, after_line), end
    has_margin = first > 0
    if not has_margin:
        first = _end_of_table(gray[:, :end].mean(0))
    return first, end


def _end_of_white_line(gray: Array) -> int | None:
    """The column after a white line from top to bottom, which need not be straight, or None."""
    near_white = maximum_filter1d(gray > BRIGHT_LINE, EDGE_WIDTH, axis=1, mode="constant")
    line = np.flatnonzero(near_white.mean(0) > LINE_SHARE)
    if not len(line) or line[-1] >= gray.shape[1] - EDGE_WIDTH:
        return None
    # The filter has widened the line by half of EDGE_WIDTH.
    return int(line[-1]) - EDGE_WIDTH // 2 + 1


def _end_of_table(means: Array) -> int:
    """The column where a table ends that is brighter than the cloth, by the means of columns.

    Returns 0 if there is no such table.
    """
    if len(means) < 8 * EDGE_WIDTH:
        return 0
    smooth = uniform_filter1d(means, EDGE_WIDTH)
    columns = np.arange(3 * EDGE_WIDTH, len(means) - 3 * EDGE_WIDTH)
    # Loose threads hang between the two sides that are compared.
    left = smooth[columns - 2 * EDGE_WIDTH]
    right = smooth[columns + 2 * EDGE_WIDTH]
    steepest = int(np.argmax(left / np.maximum(right, 1)))
    edge = int(columns[steepest])

    falls = left[steepest] > (1 + TABLE_CONTRAST) * right[steepest]
    is_brighter = np.median(means[:edge]) > (1 + TABLE_CONTRAST) * np.median(means[edge:])
    if not (falls and is_brighter):
        return 0
    half = (left[steepest] + right[steepest]) / 2
    start = edge - 2 * EDGE_WIDTH
    bright = np.flatnonzero(means[start : edge + 2 * EDGE_WIDTH] > half)
    return start + int(bright[-1]) + 1 if len(bright) else edge


# Manifest

MANIFEST_COLUMNS = {
    "source": str,
    "x": int,
    "y": int,
    "width": int,
    "height": int,
    "fabric": str,
    "label": "Int8",
    "split": str,
    "cloth": float,
}


def manifest(category: Category, size: int = 256, stride: int | None = None) -> pd.DataFrame:
    """List every tile of every strip of a category, and where it comes from.

    Parameters
    ----------
    category : Category
    size, stride : int, pixels
        See `tile`.

    Returns
    -------
    DataFrame
        Columns source (the file, below the folder that holds all), x, y, width, height (pixels),
        fabric (the category), label (0, 1 if any pixel is a defect, missing if that is not known),
        split ("train", "test", "calibration"), cloth (share of its columns that show cloth).
        `read_manifest` reads it back from a CSV.
    """
    splits = {
        "train": category.train,
        "test": category.test,
        "calibration": category.calibration,
    }
    sources = [Path(sample.source) for samples in splits.values() for sample in samples]
    folder = os.path.commonpath([source.parent for source in sources])
    tables = []
    for split, samples in splits.items():
        for sample in samples:
            table = _tiles_of(sample, size, stride)
            source = os.path.relpath(sample.source, folder).replace(os.sep, "/")
            table.insert(0, "source", source)
            tables.append(table.assign(fabric=category.name, split=split))
    joined = pd.concat(tables, ignore_index=True)
    return joined[list(MANIFEST_COLUMNS)].astype(MANIFEST_COLUMNS)


def _tiles_of(sample: LabeledImage, size: int, stride: int | None) -> pd.DataFrame:
    """The positions, labels and shares of cloth of one strip's tiles."""
    image = np.asarray(sample.read())
    table = tile(image, size, stride).positions
    mask = sample.mask()
    if mask is None:
        labels = [pd.NA] * len(table)
    else:
        labels = [int(part.any()) for part in tile(mask, size, stride)]
    first, end = fabric_extent(image)
    with_cloth = np.minimum(table.x + table.width, end) - np.maximum(table.x, first)
    return table.assign(label=labels, cloth=with_cloth.clip(0) / table.width)


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a manifest from the CSV that ``manifest(...).to_csv(path, index=False)`` writes.

    Parameters
    ----------
    path : path

    Returns
    -------
    DataFrame
        As `manifest` returns it.

    Raises
    ------
    InputError
        If the file cannot be read or is not a manifest.
    """
    try:
        table = pd.read_csv(path, dtype=MANIFEST_COLUMNS)
        return table[list(MANIFEST_COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error_line(error)
        raise InputError(f"{path}: not a manifest of tiles ({reason}); save it again") from None
