"""Checks of parameters and arrays: a bad one is refused in one line that names it.

Every check returns the value that it has accepted, as a plain Python or NumPy type:

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

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar

from patchcore_helpers.errors import InputError

LARGEST_SEED = 2**32 - 1  # what NumPy's, scikit-learn's and FAISS's generators all accept
FLOAT_TYPES = (np.float16, np.float32, np.float64)

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
    accepted = _check_scalar(
        value, Integral, low, high, "both", f"{name}={value!r}: give a whole number {span}"
    )
    return int(accepted)


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
        Which of the limits are allowed values themselves; as in `sklearn.utils.check_scalar`.
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
    span = f"from {low:g}" if includes_low else f"above {low:g}"
    if high is not None and include == "both":
        span += f" to {high:g}"
    elif high is not None:
        span += f" and {'at most' if include == 'right' else 'below'} {high:g}"
    elif include == "right":
        include = "neither"  # without an upper limit the two mean the same
    refusal = f"{name}={value!r}: give {what} {span}"
    accepted = _check_scalar(value, Real, low, high, include, refusal)
    if not math.isfinite(accepted):  # NaN passes every comparison of check_scalar
        raise InputError(refusal)
    return float(accepted)


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


def as_patch_matrix(
    patches: ArrayLike | torch.Tensor, name: str = "patches", width: int | None = None
) -> np.ndarray:
    """Patch vectors as a float32 array that a search can use.

    Parameters
    ----------
    patches : array-like of numbers, shape (rows, channels)
    name : str
        What the error message calls them.
    width : int, optional
        The number of channels that they must have: that of the memory bank.

    Returns
    -------
    ndarray of float32, shape (rows, channels)
        C-contiguous; the array itself where it is one already.

    Raises
    ------
    InputError
        For an array that is not a matrix, has no entries, another width, NaN or infinity.
    """
    matrix = np.asarray(patches, dtype=np.float32)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{name}: shape {matrix.shape}; give at least one row of channels")
    if width is not None and matrix.shape[1] != width:
        raise InputError(f"{name}: {matrix.shape[1]} channels, but the memory bank has {width}")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name}: holds NaN or infinite values")
    return np.ascontiguousarray(matrix)


def as_float_matrix(values: ArrayLike | torch.Tensor, name: str) -> np.ndarray:
    """A float matrix as it is: neither copied nor read, so that it may be a large memory map.

    Parameters
    ----------
    values : array-like of float16, float32 or float64, shape (rows, columns)
        NumPy array or memory map, torch tensor (also bfloat16, which becomes float32) or lists.
    name : str
        What the error message calls it.

    Returns
    -------
    ndarray, shape (rows, columns)
        Of the same dtype. The entries are not read, so they are not checked for NaN or infinity.

    Raises
    ------
    InputError
        For an array that is not a matrix, has no entries, or holds anything but floats.
    """
    if isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        values = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    matrix = values if isinstance(values, np.ndarray) else np.asarray(values)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{name}: need a matrix (rows, columns) with entries, got {matrix.shape}")
    if matrix.dtype not in FLOAT_TYPES:
        raise InputError(f"{name}: need float16, float32 or float64, got {matrix.dtype}")
    return matrix


def _check_scalar(value, kind, low, high, include, refusal):
    """`sklearn.utils.check_scalar`, with bool refused and `refusal` as the only message."""
    if isinstance(value, bool):
        raise InputError(refusal)
    try:
        return check_scalar(
            value, "value", kind, min_val=low, max_val=high, include_boundaries=include
        )
    except (TypeError, ValueError):
        raise InputError(refusal) from None
