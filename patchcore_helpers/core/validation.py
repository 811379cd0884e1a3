"""Checks of arrays of vectors, and the checks of parameters that all rooms share.

A bad value is refused in one line that names it; a good one is returned as a plain type.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from patchcore_helpers.errors import InputError
from patchcore_helpers.validation import check_choice, check_integer, check_real, check_seed

FLOAT_TYPES = (np.float16, np.float32, np.float64)

__all__ = [
    "as_float_matrix",
    "as_float_rows",
    "as_patch_matrix",
    "as_patch_tensor",
    "check_choice",
    "check_integer",
    "check_real",
    "check_seed",
]


def as_patch_tensor(
    patches: ArrayLike | torch.Tensor, name: str = "patches", width: int | None = None
) -> torch.Tensor:
    """Patch vectors as a float32 tensor that a search can use.

    Parameters
    ----------
    patches : array-like of numbers, or tensor on any device, shape (rows, channels)
    name : str
        What the error message calls them.
    width : int, optional
        The number of channels that they must have: that of the memory bank.

    Returns
    -------
    tensor of float32, shape (rows, channels)
        Contiguous, on the device of the tensor that was given; without a copy where it is one
        already, or an array that one can write to.

    Raises
    ------
    InputError
        For an array that is not a matrix, has no entries, another width, NaN or infinity.
    """
    if isinstance(patches, torch.Tensor):
        matrix = patches.detach().float().contiguous()
    else:
        array = np.asarray(patches, dtype=np.float32)
        matrix = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    shape = tuple(matrix.shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name}: shape {shape}; give at least one row of channels")
    if width is not None and shape[1] != width:
        raise InputError(f"{name}: {shape[1]} channels, but the memory bank has {width}")
    lowest, highest = matrix.aminmax()  # NaN if there is one
    if not (lowest.isfinite() and highest.isfinite()):
        raise InputError(f"{name}: holds NaN or infinite values")
    return matrix


def as_patch_matrix(
    patches: ArrayLike | torch.Tensor, name: str = "patches", width: int | None = None
) -> np.ndarray:
    """Patch vectors as a float32 array; what `as_patch_tensor` refuses is refused here too.

    Returns
    -------
    ndarray of float32, shape (rows, channels)
        C-contiguous; the memory of the array that was given where that is possible.
    """
    return as_patch_tensor(patches, name, width).cpu().numpy()


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


def as_float_rows(values: ArrayLike | torch.Tensor, name: str) -> np.ndarray | torch.Tensor:
    """`as_float_matrix`, but a tensor on a GPU stays there."""
    if not isinstance(values, torch.Tensor) or values.device.type == "cpu":
        return as_float_matrix(values, name)
    as_float_matrix(values[:1], name)  # for its checks
    if 0 in values.shape:
        raise InputError(f"{name}: need a matrix (rows, columns) with entries, got {values.shape}")
    return values.detach().float() if values.dtype == torch.bfloat16 else values.detach()
