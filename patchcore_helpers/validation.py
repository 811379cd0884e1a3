"""Checks of parameters: a bad one is refused in one line that names it.

Every check returns the value that it has accepted, as a plain Python type:

>>> import numpy as np
>>> n_centers = check_integer(np.int64(5), "n_centers", 1, 10)
>>> n_centers
5
>>> check_integer(11, "n_centers", 1, 10)
Traceback (most recent call last):
    ...
patchcore_helpers.errors.InputError: n_centers=11: give a whole number from 1 to 10
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Literal

from patchcore_helpers.errors import InputError

LARGEST_SEED = 2**32 - 1  # what NumPy's, scikit-learn's and FAISS's generators all accept

Boundaries = Literal["both", "left", "right", "neither"]


def check_integer(value: object, name: str, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`, both included.

    Parameters
    ----------
    value : object
        Python and NumPy integers are accepted; bool is not an integer, and neither is 3.0.
    name : str
        The parameter that the error message names.
    low : int
    high : int, optional
        None: no upper limit.

    Raises
    ------
    InputError
    """
    span = f"from {low}" if high is None else f"from {low} to {high}"
    refusal = InputError(f"{name}={value!r}: give a whole number {span}")
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise refusal
    number = int(value)
    if number < low or (high is not None and number > high):
        raise refusal
    return number


def check_real(
    value: object,
    name: str,
    low: float,
    high: float | None = None,
    *,
    include: Boundaries = "both",
    what: str = "a number",
) -> float:
    """A finite number between `low` and `high`.

    Parameters
    ----------
    value : object
        Python and NumPy integers and floats are accepted; bool, NaN and infinity are not.
    name : str
        The parameter that the error message names.
    low : float
    high : float, optional
        None: no upper limit.
    include : {"both", "left", "right", "neither"}
        Which of the limits are allowed values themselves.
    what : str
        What the error message asks for, such as "a share" or "pixels".

    Raises
    ------
    InputError

    Examples
    --------
    >>> check_real(0, "coreset_ratio", 0, 1, include="right", what="a share")
    Traceback (most recent call last):
        ...
    patchcore_helpers.errors.InputError: coreset_ratio=0: give a share above 0 and at most 1
    """
    includes_low = include in ("both", "left")
    includes_high = include in ("both", "right")
    span = f"from {low:g}" if includes_low else f"above {low:g}"
    if high is not None and include == "both":
        span += f" to {high:g}"
    elif high is not None:
        span += f" and {'at most' if includes_high else 'below'} {high:g}"
    refusal = InputError(f"{name}={value!r}: give {what} {span}")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise refusal
    number = float(value)
    largest = math.inf if high is None else high
    is_high_enough = number >= low if includes_low else number > low
    is_low_enough = number <= largest if includes_high else number < largest
    if not (math.isfinite(number) and is_high_enough and is_low_enough):
        raise refusal
    return number


def check_choice(value: object, name: str, choices: Iterable[str]) -> str:
    """One of the names in `choices` (any iterable of str; of a dict, the keys).

    >>> check_choice("cosines", "metric", ["l2", "cosine"])
    Traceback (most recent call last):
        ...
    patchcore_helpers.errors.InputError: metric='cosines': choose one of l2, cosine
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(names)}")
    return value


def check_seed(value: object, name: str = "random_state") -> int:
    """A seed: a whole number from 0 to 2**32 - 1."""
    return check_integer(value, name, 0, LARGEST_SEED)
