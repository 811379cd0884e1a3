"""What drawn fabrics and planted defects have in common: exact masks, noise and spots.

Every defect comes with its exact mask. The image is drawn with the defect and without, from the
same random numbers; the mask holds the pixels that differ by more than `MIN_CHANGE` gray levels,
with gaps of up to 4 pixels closed and specks removed. Outside the mask the two images are equal,
bit by bit, and within 2.5 pixels of every pixel of the mask there is one that differs by more than
`MIN_CHANGE`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from patchcore_helpers.errors import InputError

Array = NDArray[Any]
Seed = int | Sequence[int]

MIN_CHANGE = 6  # gray levels by which a pixel of a defect differs
MIN_SPOT = 12  # changed pixels: a spot of the mask with fewer of them is removed
MIN_MASK = 30  # pixels: the smallest mask of a defect
MAX_ATTEMPTS = 50  # to draw a defect that shows


def draw_until_visible(
    normal: NDArray[np.uint8], draw: Callable[[int], Array]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a defect, repeatedly until one shows.

    Parameters
    ----------
    normal : uint8 array of shape (height, width)
        The image without the defect.
    draw : callable
        Takes the number of the attempt, from 0, and returns the image with the defect, gray levels
        in floating point.

    Returns
    -------
    image : uint8 array of shape (height, width)
        Equal to `normal` outside the mask.
    mask : bool array of shape (height, width)

    Raises
    ------
    InputError
        If no defect shows in `MAX_ATTEMPTS` attempts.
    """
    for attempt in range(MAX_ATTEMPTS):
        defective = to_uint8(draw(attempt))
        changed = np.abs(defective.astype(np.int16) - normal) > MIN_CHANGE
        # Specks go before the gaps are closed: they leave no bridge behind that leads to nothing.
        mask = _close_gaps(changed & ~_specks(_close_gaps(changed), changed))
        if mask.sum() >= MIN_MASK:
            return np.where(mask, defective, normal), mask
    raise InputError("no defect shows on this image; give one with more light and contrast")


def _close_gaps(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill gaps of up to 4 pixels between changed pixels, also at the border of the image."""
    disc = np.hypot(*np.ogrid[-2:3, -2:3]) < 2.5
    return ndimage.binary_closing(np.pad(changed, 2), disc)[2:-2, 2:-2]


def _specks(mask: NDArray[np.bool_], changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected spots of the mask in which fewer than `MIN_SPOT` pixels changed."""
    spots, count = ndimage.label(mask, np.ones((3, 3)))
    n_changed = ndimage.sum_labels(changed, spots, np.arange(count + 1))
    return (n_changed < MIN_SPOT)[spots]


def to_uint8(image: Array) -> NDArray[np.uint8]:
    """Round and clip gray levels to 0 to 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Array:
    """Draw smooth noise of about unit variance.

    Parameters
    ----------
    rng : numpy Generator
    shape : (height, width)
    scale : float, pixels
        Typical length of its waves.

    Returns
    -------
    float32 array of shape (height, width)
    """
    coarse = rng.standard_normal([int(n / scale) + 3 for n in shape], np.float32)
    height, width = (int((n - 2) * scale) + 1 for n in coarse.shape)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return 1.4 * np.asarray(fine)[: shape[0], : shape[1]]


@dataclass(frozen=True)
class Turned:
    """Pixel coordinates around a point, in a frame that is turned against the image.

    Attributes
    ----------
    along, across : float arrays of shape (height, width), pixels
    cos, sin : float
        The direction of `along` in the image: (cos, sin) is its step in (x, y).
    """

    along: Array
    across: Array
    cos: float
    sin: float


def turn_randomly(
    rng: np.random.Generator, x: Array, y: Array, center: tuple[float, float]
) -> Turned:
    """Coordinates along and across a random direction.

    Parameters
    ----------
    rng : numpy Generator
    x, y : arrays of shape (height, width), pixels
        See `pixel_grid`.
    center : (row, column), pixels
    """
    angle = rng.uniform(0, np.pi)
    cos = np.cos(angle).item()
    sin = np.sin(angle).item()
    dx = x - center[1]
    dy = y - center[0]
    return Turned(dx * cos + dy * sin, dy * cos - dx * sin, cos, sin)


def draw_spot(
    rng: np.random.Generator,
    x: Array,
    y: Array,
    center: tuple[float, float],
    radius: float,
    softness: float,
) -> Array:
    """Draw an oval spot with a ragged rim.

    Parameters
    ----------
    rng : numpy Generator
    x, y : arrays of shape (height, width), pixels
        See `pixel_grid`.
    center : (row, column), pixels
    radius : float, pixels
    softness : float
        Width of the rim, as a share of the radius.

    Returns
    -------
    float array of shape (height, width)
        1 inside the spot, 0 outside.
    """
    turned = turn_randomly(rng, x, y, center)
    distance = np.hypot(turned.along, turned.across / rng.uniform(0.6, 1)) / radius
    distance += 0.2 * smooth_noise(rng, x.shape, max(radius / 1.5, 2))
    return 1 / (1 + np.exp(np.clip((distance - 1) / softness, -30, 30)))


def pixel_grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """The coordinates x and y of every pixel, two float32 arrays of shape (height, width)."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x, y


def check_choice(parameter: str, value: str, choices: Collection[str]) -> None:
    """Raise an `InputError` that names the parameter if the value is not one of the choices."""
    if value not in choices:
        raise InputError(f"{parameter}={value!r}: choose one of {', '.join(choices)}")


def seed_numbers(seed: Seed) -> list[int]:
    """A seed as a list of integers; raises an `InputError` if one is negative or not an integer."""
    numbers = np.atleast_1d(seed)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 0).any():
        raise InputError(f"seed={seed!r}: give a whole number from 0, or several")
    return numbers.tolist()
