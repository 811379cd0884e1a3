"""From a strip to tiles and back. A tile is a crop of pixels, a patch a place of a feature map."""

import os
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from patchcore_helpers.errors import InputError

COLUMNS = {
    **{"source": str, "x": int, "y": int, "width": int, "height": int, "fabric": str},
    **{"label": "Int8", "split": str, "cloth": float},
}
EDGE = 16  # columns over which the means of columns are smoothed
STEP = 0.12  # share by which a table is brighter than the cloth that lies on it, at least


def offsets(length, size, stride):
    """Where tiles start along one side; the last one is shifted to end where the image does.

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
    return [*range(0, max(length - size, 0), stride), max(length - size, 0)]


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image, cut when they are asked for: views, row by row.

    Attributes
    ----------
    image : array of shape (height, width) or (height, width, channels), any dtype
    size, stride : int, pixels
    """

    image: np.ndarray
    size: int
    stride: int

    @property
    def positions(self):
        """Where the tiles lie: a table with the columns x, y, width and height, pixels.

        A tile is as wide and as high as `size`, or as the image where that is less.
        """
        height, width = self.image.shape[:2]
        rows = [
            (x, y, min(self.size, width), min(self.size, height))
            for y in offsets(height, self.size, self.stride)
            for x in offsets(width, self.size, self.stride)
        ]
        return pd.DataFrame(rows, columns=["x", "y", "width", "height"])

    def __len__(self):
        height, width = (len(offsets(n, self.size, self.stride)) for n in self.image.shape[:2])
        return height * width

    def __iter__(self):
        for p in self.positions.itertuples():
            yield self.image[p.y : p.y + p.height, p.x : p.x + p.width]


def tile(image, size=256, stride=None):
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

    Examples
    --------
    >>> strip = np.arange(256 * 1000).reshape(256, 1000)
    >>> tiles = tile(strip)
    >>> tiles.positions.x.tolist()
    [0, 256, 512, 744]
    >>> bool((untile(tiles) == strip).all())
    True
    """
    image, stride = np.asarray(image), size if stride is None else stride
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"image of shape {image.shape}: give (height, width) or (height, width, channels)"
        )
    for length in image.shape[:2]:
        offsets(length, size, stride)
    return Tiles(image, size, stride)


def _ramp(length):
    """Weights that rise evenly from either end to the middle; never 0."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / ((length + 1) // 2)


def untile(tiles, positions=None, shape=None, window=None):
    """Put tiles, or maps of their size, together again.

    Parameters
    ----------
    tiles : Tiles, or iterable of arrays of shape (height, width) or (height, width, channels)
        They are taken one by one.
    positions : DataFrame, optional
        Columns x, y, width, height, one row for each tile; by default those of `tiles`.
    shape : (height, width), optional
        By default as far as the tiles reach. What no tile covers is 0.
    window : None or "triangle"
        None: a later tile covers an earlier one, the dtype is kept, and the result is exact.
        "triangle": where tiles overlap, a mean weighted by the distance from each tile's border,
        in floating point. Tiles that agree come out as they are, bit by bit.

    Returns
    -------
    array of shape `shape`, and channels as the tiles have them
    """
    if window not in (None, "triangle"):
        raise InputError(f"window={window!r}: choose None or 'triangle'")
    positions = tiles.positions if positions is None else positions
    if shape is None:
        ends = positions.y + positions.height, positions.x + positions.width
        shape = [int(end.max()) for end in ends]
    out = weight = None
    for count, (p, part) in enumerate(zip(positions.itertuples(), tiles, strict=True)):
        part = np.asarray(part)
        if part.shape[:2] != (p.height, p.width):
            raise InputError(
                f"tile {count}: shape {part.shape}, but its position is {p.height} x {p.width}"
            )
        if out is None:
            kind = part.dtype if window is None else np.result_type(part.dtype, np.float32)
            out, weight = np.zeros((*shape, *part.shape[2:]), kind), np.zeros(shape, np.float32)
        place = np.s_[p.y : p.y + p.height, p.x : p.x + p.width]
        if window is None:
            out[place] = part
            continue
        own = np.outer(_ramp(p.height), _ramp(p.width)).astype(np.float32)
        weight[place] += own
        share = (own / weight[place]).astype(out.dtype)
        out[place] += share.reshape(share.shape + (1,) * (part.ndim - 2)) * (part - out[place])
    return out


def fabric_extent(image):
    """The columns that show cloth, by statistics of whole columns: (first, past the last).

    A margin that was whited out has columns of 255 throughout (standard deviation 0), and ends
    raggedly. Where none was, a table may be seen left of the cloth: it ends at a white line from
    top to bottom; or else it is brighter than most of the cloth, and the means of columns fall by
    `STEP` or more at its edge, where they fall most.

    Parameters
    ----------
    image : uint8 array of shape (height, width) or (height, width, 3)

    Returns
    -------
    (int, int)
        (0, 0) if there is no cloth.

    Examples
    --------
    >>> strip = np.full((256, 1000), 90, np.uint8)
    >>> strip[:, :300] = 255
    >>> fabric_extent(strip), fabric_extent(strip[:, :200])
    ((300, 1000), (0, 0))
    """
    gray = image if image.ndim == 2 else image[..., 1]
    inside = np.flatnonzero(gray.min(0) < 255)
    if not len(inside):
        return 0, 0
    first, last = int(inside[0]), int(inside[-1]) + 1
    near = gray[:, : first + 4 * EDGE if first else last // 4]  # a line farther in is a defect
    white = maximum_filter1d(near > 250, EDGE, axis=1, mode="constant")  # it need not be straight
    line = np.flatnonzero(white.mean(0) > 0.7)
    if len(line) and line[-1] < near.shape[1] - EDGE:
        return max(first, int(line[-1]) - EDGE // 2 + 1), last
    means = gray[:, first:last].mean(0)
    if first or len(means) < 8 * EDGE:
        return first, last
    smooth = uniform_filter1d(means, EDGE)
    at = np.arange(3 * EDGE, len(means) - 3 * EDGE)
    left, right = smooth[at - 2 * EDGE], smooth[at + 2 * EDGE]  # threads hang between them
    best = int(np.argmax(left / np.maximum(right, 1)))
    edge, half = int(at[best]), (left[best] + right[best]) / 2
    cloth = (1 + STEP) * np.median(means[edge:])
    if left[best] > (1 + STEP) * right[best] and np.median(means[:edge]) > cloth:
        bright = np.flatnonzero(means[edge - 2 * EDGE : edge + 2 * EDGE] > half)
        first = edge - 2 * EDGE + int(bright[-1]) + 1 if len(bright) else edge
    return first, last


def manifest(category, size=256, stride=None):
    """Every tile of every strip of a category, and where it comes from.

    Parameters
    ----------
    category : Category
    size, stride : see `tile`

    Returns
    -------
    DataFrame
        Columns source (the file, below the folder that holds all), x, y, width, height (pixels),
        fabric (the category), label (0, 1 if any pixel is a defect, missing if that is not known),
        split ("train", "test", "calibration"), cloth (share of its columns that show cloth).
        `read_manifest` reads it back from a CSV.
    """
    splits = {name: getattr(category, name) for name in ("train", "test", "calibration")}
    folder = os.path.commonpath([s.image.parent for samples in splits.values() for s in samples])
    tables = []
    for split, sample in ((k, sample) for k, samples in splits.items() for sample in samples):
        image, mask = np.asarray(sample.read()), sample.mask() if sample.has_mask else None
        table = tile(image, size, stride).positions
        table.insert(0, "source", os.path.relpath(sample.image, folder).replace(os.sep, "/"))
        known = [pd.NA] * len(table)
        if mask is not None:
            known = [int(part.any()) for part in tile(mask, size, stride)]
        first, last = fabric_extent(image)
        seen = np.minimum(table.x + table.width, last) - np.maximum(table.x, first)
        table = table.assign(fabric=category.name, label=known, split=split)
        tables.append(table.assign(cloth=seen.clip(0) / table.width))
    return pd.concat(tables, ignore_index=True).astype(COLUMNS)


def read_manifest(path):
    """Read a manifest from the CSV that ``manifest(...).to_csv(path, index=False)`` writes."""
    try:
        return pd.read_csv(path, dtype=COLUMNS)[list(COLUMNS)]
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: not a manifest of tiles ({reason}); write it anew") from None
