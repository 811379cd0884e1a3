"""Coverage: how many dimensions the patches fill, and which images a memory bank drew on.

Taught in notebook 3.
"""

import numpy as np
from numpy.typing import ArrayLike

from patchcore_helpers.core.validation import check_integer
from patchcore_helpers.errors import InputError


def intrinsic_dimension(radii: ArrayLike, first: int = 1, last: int | None = None) -> float:
    """In how many dimensions the patches spread, read off the radius of a greedy k-center run.

    To halve the coverage radius of a d-dimensional shape takes 2**d times as many picks: the radius
    falls as picks**(-1/d). So d is -1 over the slope of log(radius) against log(picks).

    Parameters
    ----------
    radii : array of float, shape (k,)
        Coverage radius after each pick (`Coreset.radii`), in any unit.
    first, last : int
        The picks, counted from 1, between which the line is fitted; the first few picks say little.
        None: the last pick whose radius is above 0.

    Returns
    -------
    float
        Infinite if the radius does not fall.

    Raises
    ------
    InputError
        If there are fewer than two picks with a positive radius in the range.

    Notes
    -----
    The line goes through points that are evenly spaced in log(picks); otherwise the many late picks
    would decide alone. The result depends on the range: it is a description, not a constant.

    Examples
    --------
    >>> picks = np.arange(1, 1001)
    >>> round(intrinsic_dimension(9 * picks ** (-1 / 3)), 6)
    3.0
    """
    values = np.asarray(radii, float)
    positive = int(np.sum(values > 0))  # radii never rise, so these come first
    last = min(len(values) if last is None else last, positive)
    first = check_integer(first, "first", 1)
    if last <= first:
        raise InputError(f"radii: need two positive ones between picks {first} and {last}")
    picks = np.unique(np.geomspace(first, last, 50).round().astype(int))
    slope = np.polyfit(np.log(picks), np.log(values[picks - 1]), 1)[0]
    return float(-1 / slope) if slope < 0 else float("inf")


def rows_per_image(images: ArrayLike, n_images: int) -> np.ndarray:
    """How many rows of a memory bank each training image contributed.

    Parameters
    ----------
    images : int array of shape (k,)
        The image of each row: the first column of `PatchCore.origin`.
    n_images : int
        Number of training images.

    Returns
    -------
    int array of shape (n_images,)

    Examples
    --------
    >>> rows_per_image([0, 2, 2, 2], 4)
    array([1, 0, 3, 0])
    """
    return np.bincount(np.asarray(images, int), minlength=n_images)
