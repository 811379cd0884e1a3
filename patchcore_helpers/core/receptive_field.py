"""Which pixels of the image a patch vector comes from."""

from typing import Any

import numpy as np
import torch

from patchcore_helpers.core.aggregation import aggregate
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.errors import InputError

TINY = 1e-12


def receptive_field(
    extractor: Extractor, item: Any, row: int, column: int, draws: int = 4, seed: int = 0
) -> np.ndarray:
    """How strongly each pixel moves one patch vector: its effective receptive field.

    The patch vector is multiplied by random signs and differentiated with respect to the image; the
    root mean square over the draws estimates the length of the vector's derivative, pixel by pixel
    (Luo et al. 2016).

    Parameters
    ----------
    extractor : Extractor
    item : sample, path, PIL image or uint8 array
    row, column : int
        Position of the patch in the grid.
    draws : int
        Number of random sign vectors; the estimate is the noisier the fewer there are.
    seed : int
        Seed of the random signs.

    Returns
    -------
    float32 array of shape `extractor.input_size`, largest value 1

    Raises
    ------
    InputError
        If the grid has no such patch.
    """
    image = extractor.prepare(item)[None].requires_grad_()
    maps = extractor.backbone.maps(image, gradient=True)
    patches = aggregate(maps, extractor.aggregation, extractor.neighborhood)
    grid = tuple(patches.shape[1:3])
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise InputError(f"patch ({row}, {column}): the grid is {grid}")
    vector = patches[0, row, column]
    generator = torch.manual_seed(seed)
    signs = torch.randint(0, 2, (draws, len(vector)), generator=generator) * 2.0 - 1
    squared_sum = torch.zeros(extractor.input_size)
    for sign in signs:
        (gradient,) = torch.autograd.grad(vector @ sign, image, retain_graph=True)
        squared_sum += gradient[0].square().sum(0)
    influence = squared_sum.sqrt()
    return (influence / influence.max().clamp_min(TINY)).numpy()


def effective_area(field: np.ndarray, share: float = 0.9) -> float:
    """The smallest share of the pixels that holds a share of a receptive field's influence.

    Influence is the length of the derivative, as `receptive_field` returns it, added up over the
    pixels. Adding up its square instead would give far smaller areas, since few pixels hold most of
    it: say which one, where areas are compared.

    Parameters
    ----------
    field : float array of shape (height, width)
        As `receptive_field` returns it.
    share : float in (0, 1]

    Examples
    --------
    >>> effective_area(np.array([[8.0, 1.0], [1.0, 0.0]]), share=0.9)
    0.5
    """
    cumulative = np.sort(field.ravel())[::-1].cumsum(dtype=float)
    n_below = (cumulative < share * cumulative[-1] - 1e-9).sum()
    return float(n_below + 1) / field.size


def patch_box(
    row: int, column: int, grid: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Pixels (left, top, right, bottom) of a patch's cell in the grid.

    Parameters
    ----------
    row, column : int
    grid : (rows, columns)
    size : (height, width) of the image, pixels

    Examples
    --------
    >>> patch_box(1, 2, grid=(32, 32), size=(256, 256))
    (16, 8, 24, 16)
    """
    rows, columns = grid
    height, width = size
    left = round(column * width / columns)
    top = round(row * height / rows)
    right = round((column + 1) * width / columns)
    bottom = round((row + 1) * height / rows)
    return left, top, right, bottom
