"""Defects planted on photographs of normal products."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from patchcore_helpers.data.drawing import (
    Array,
    Seed,
    check_choice,
    draw_spot,
    draw_until_visible,
    pixel_grid,
    seed_numbers,
)
from patchcore_helpers.errors import InputError

MIN_SIDE = 64  # pixels: the smallest height and width of a photograph


def _plant_scar(rng: np.random.Generator, image: Array, donor: Array) -> Array:
    """A thin curved dark line with soft edges."""
    height, width = image.shape
    start = rng.uniform(0.15, 0.85, 2)
    start_direction = rng.uniform(0, 2 * np.pi)
    bend = rng.uniform(-4, 4)
    distance = np.linspace(0, rng.uniform(0.1, 0.5), 40)[:, None]
    direction = start_direction + bend * distance
    curve = start + distance * np.hstack([np.cos(direction), np.sin(direction)])
    points = [(x, y) for x, y in (curve * (width, height)).tolist()]
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).line(points, fill=255, width=int(rng.integers(1, 4)))
    line = ndimage.gaussian_filter(np.asarray(canvas, np.float32), rng.uniform(0.6, 1.5))
    return image - rng.uniform(10, 45) * line / max(line.max(), 1)


def _plant_stain(rng: np.random.Generator, image: Array, donor: Array) -> Array:
    """A dark blob with a soft rim."""
    row, column = (rng.uniform(0.1, 0.9, 2) * image.shape).tolist()
    radius = rng.uniform(6, 22)
    softness = rng.uniform(0.1, 0.3)
    x, y = pixel_grid((image.shape[0], image.shape[1]))
    spot = draw_spot(rng, x, y, (row, column), radius, softness)
    return image * (1 - rng.uniform(0.12, 0.5) * spot)


def _plant_patch(rng: np.random.Generator, image: Array, donor: Array) -> Array:
    """A rectangle of the donor, from another position, blended at its edge."""
    size = rng.integers(14, 50, 2)
    height, width = size
    corners = rng.integers(0, np.array(image.shape) - size, (2, 2))
    source, target = (np.s_[top : top + height, left : left + width] for top, left in corners)
    # The share of the donor rises over 4 pixels from the edge.
    rows, columns = (np.minimum(np.arange(n) + 1, n - np.arange(n)) for n in size)
    share = np.outer(np.clip(rows / 4, 0, 1), np.clip(columns / 4, 0, 1))
    pasted = image.copy()
    pasted[target] += share * (donor[source] - pasted[target])
    return pasted


PLANTED_DEFECTS: dict[str, Callable[[np.random.Generator, Array, Array], Array]] = {
    "scar": _plant_scar,
    "stain": _plant_stain,
    "cut_and_paste": _plant_patch,
}


def plant_defect(
    image: NDArray[np.uint8], defect: str, seed: Seed = 0, donor: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Plant one defect on a photograph of a normal product.

    Parameters
    ----------
    image : uint8 array of shape (height, width), at least 64 pixels a side
    defect : "scar", "stain" or "cut_and_paste"
    seed : int or sequence of int, from 0
        Seed of the position, size and strength of the defect.
    donor : uint8 array of the same shape, optional
        The image that a patch is cut from; `image` by default.

    Returns
    -------
    image : uint8 array of shape (height, width)
    mask : bool array of shape (height, width)
        The exact defect, see `patchcore_helpers.data.drawing`.

    Raises
    ------
    InputError
        For an unknown defect, a bad seed, images of the wrong shape, or an image on which no defect
        shows.

    Notes
    -----
    Cut-and-paste is that of Li et al. 2021, arXiv 2104.04015, who train on such images.
    """
    check_choice("defect", defect, PLANTED_DEFECTS)
    seeds = seed_numbers(seed)
    if donor is None:
        donor = image
    if image.ndim != 2 or min(image.shape) < MIN_SIDE or donor.shape != image.shape:
        raise InputError(
            f"image of shape {image.shape}, donor of shape {donor.shape}: "
            f"give two of the same (height, width), at least {MIN_SIDE} each"
        )
    plant = PLANTED_DEFECTS[defect]
    pixels = image.astype(np.float32)
    donor_pixels = donor.astype(np.float32)

    def draw(attempt: int) -> Array:
        return plant(np.random.default_rng([*seeds, attempt]), pixels, donor_pixels)

    return draw_until_visible(image, draw)
