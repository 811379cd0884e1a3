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


REFERENCE_SIDE = 300  # pixels: defects are drawn at their own size on a photograph of this side


def plant_on_photograph(
    photograph: Image.Image,
    defect: str,
    seed: Seed = 0,
    columns: tuple[int, int] | None = None,
) -> Image.Image:
    """Plant one defect on a photograph of any size, gray or in color.

    The defect lies in a square window, drawn at random, whose side is the photograph's shorter one.
    On a large photograph it is drawn between its own size in pixels and the same share of the
    window that it has in one of `REFERENCE_SIDE` pixels: nobody knows how small the real ones are.
    All colors change by the same gray levels.

    Parameters
    ----------
    photograph : PIL image, at least 64 pixels a side
    defect, seed : see `plant_defect`
    columns : (first, one past the last), optional
        Where the product is in a photograph that also shows what is beside it; by default all.

    Returns
    -------
    PIL image, mode RGB, of the same size

    Raises
    ------
    InputError
        As `plant_defect`.
    """
    pixels = np.array(photograph.convert("RGB"))
    first, last = columns or (0, pixels.shape[1])
    side = min(pixels.shape[0], last - first)
    rng = np.random.default_rng([*seed_numbers(seed), side])
    top = int(rng.integers(0, pixels.shape[0] - side + 1))
    left = int(rng.integers(first, last - side + 1))
    window = pixels[top : top + side, left : left + side]
    gray = Image.fromarray(window).convert("L")
    shrink = max(1.0, side / REFERENCE_SIDE) ** rng.uniform()
    drawn_side = max(min(side, MIN_SIDE), round(side / shrink))
    small = np.asarray(gray.resize((drawn_side, drawn_side), Image.Resampling.BOX))
    defective, _ = plant_defect(small, defect, seed)
    change = Image.fromarray(defective.astype(np.float32) - small)
    change = change.resize((side, side), Image.Resampling.BILINEAR)
    window[:] = np.clip(np.rint(window + np.asarray(change)[..., None]), 0, 255)
    return Image.fromarray(pixels)
