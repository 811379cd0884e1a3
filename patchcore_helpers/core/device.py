"""Where torch computes: on the processor, or on a GPU.

The code for all devices is the same: tensors are made on the device of those that come in, and
nothing asks where that is. What differs is written here.
"""

import torch

from patchcore_helpers.core.validation import check_choice
from patchcore_helpers.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(device: str) -> str:
    """The device that "auto" means here: a GPU if torch can use one, otherwise the processor.

    Raises
    ------
    InputError
        For an unknown device, or one that torch cannot use here.
    """
    check_choice(device, "device", DEVICES)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, is_available in available.items() if is_available)
    if not available[device]:
        raise InputError(f"device={device!r}: torch cannot use one here; choose auto or cpu")
    return device


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider.

    >>> widest_float(torch.device("cpu")), widest_float(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64
