"""Resizing and Gaussian smoothing of grids, as matrix products.

Both are linear, and act on rows and columns separately. So for one axis they are one matrix S, from
the n numbers of the grid to the pixels of the map, and the map is S_rows @ grid @ S_columns.T: far
less work than to enlarge the grid first and to smooth all its pixels then.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch

PIECE = 1024  # pixels of an axis that one matrix gives; those of a long strip take several
TRUNCATE = 4.0  # standard deviations after which the Gaussian is cut off, as SciPy does


def resize_and_smooth(grids: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Grids resized bilinearly and then smoothed by a Gaussian, on the device where they are.

    Parameters
    ----------
    grids : float32 tensor of shape (n, rows, columns)
    size : (height, width), pixels
    sigma : float, pixels
        Standard deviation; 0 only resizes.

    Returns
    -------
    float32 tensor of shape (n, height, width)
        What `torch.nn.functional.interpolate` (bilinear) and then `scipy.ndimage.gaussian_filter`
        give, up to rounding; beyond the border, the map is continued by its mirror image.
    """
    wide = _along_last_axis(grids, size[1], sigma)
    return _along_last_axis(wide.transpose(1, 2), size[0], sigma).transpose(1, 2).contiguous()


def _along_last_axis(grids: torch.Tensor, length: int, sigma: float) -> torch.Tensor:
    pieces = [
        grids[..., first : first + len(matrix)] @ torch.from_numpy(matrix).to(grids.device)
        for first, matrix in smoothing_matrices(int(grids.shape[-1]), length, sigma)
    ]
    return torch.cat(pieces, dim=-1)


@lru_cache(maxsize=8)
def smoothing_matrices(n: int, length: int, sigma: float) -> list[tuple[int, np.ndarray]]:
    """The matrices of one axis, from n numbers to `length` pixels, piece by piece.

    Returns
    -------
    list of (int, float32 array of shape (numbers, pixels))
        For each piece: the first number that its pixels depend on, and the weight of this one and
        those after it in every pixel.
    """
    return list(_pieces(n, length, sigma))


def _pieces(n: int, length: int, sigma: float) -> Iterator[tuple[int, np.ndarray]]:
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gaussian = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else np.ones(1)
    gaussian /= gaussian.sum()
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        pixels = mirrored(np.arange(start - radius, stop + radius), length)
        # Where each pixel lies among the numbers, whose centers are at 0, 1, … n - 1.
        place = np.clip((pixels + 0.5) * n / length - 0.5, 0, n - 1)
        left = np.floor(place).astype(int)
        right = np.minimum(left + 1, n - 1)
        first = left.min()
        resizing = np.zeros((len(pixels), right.max() - first + 1))
        at = np.arange(len(pixels))
        resizing[at, left - first] += 1 - (place - left)
        resizing[at, right - first] += place - left
        matrix = sum(
            weight * resizing[shift : shift + stop - start] for shift, weight in enumerate(gaussian)
        )
        yield int(first), np.ascontiguousarray(np.transpose(matrix), np.float32)


def mirrored(positions: np.ndarray, length: int) -> np.ndarray:
    """Positions beyond a border, brought back inside by mirroring at the border.

    >>> mirrored(np.arange(-3, 6), 3)
    array([2, 1, 0, 0, 1, 2, 2, 1, 0])
    """
    within = positions % (2 * length)
    return np.where(within < length, within, 2 * length - 1 - within)
