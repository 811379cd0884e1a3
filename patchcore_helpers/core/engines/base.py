"""What an engine is asked for, and what it offers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from patchcore_helpers.core.aggregation import aggregate
from patchcore_helpers.core.backbones import Backbone

Network = Callable[[np.ndarray], list[Tensor]]  # uint8 (b, height, width, 3) -> a map per layer
Joiner = Callable[[list[Tensor]], Tensor]  # maps -> patch vectors (b, rows, columns, channels)
Pipeline = Callable[[np.ndarray], Tensor]  # one after the other


class EngineWarning(UserWarning):
    """The compiled engine cannot be used; torch computes the same, only slower."""


@dataclass(frozen=True)
class EngineTask:
    """What an engine computes.

    Attributes
    ----------
    backbone : Backbone
    input_size : (height, width), pixels
    precision : "float32" or "bfloat16"
        Arithmetic of the network. Aggregation is always done in float32.
    aggregation, neighborhood : see `aggregate`
    """

    backbone: Backbone
    input_size: tuple[int, int]
    precision: str = "float32"
    aggregation: str = "concat"
    neighborhood: int = 3

    @property
    def dtype(self) -> torch.dtype:
        """Type of the maps that the network returns."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (b, height, width, 3), as the network takes them: float (b, 3, ...)."""
        mean = torch.tensor(self.backbone.mean, device=pixels.device)[:, None, None]
        std = torch.tensor(self.backbone.std, device=pixels.device)[:, None, None]
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def join(self, maps: list[Tensor]) -> Tensor:
        """Patch vectors from float32 maps."""
        return aggregate(maps, self.aggregation, self.neighborhood)


class Engine(Protocol):
    """Runs a network that does not change any more.

    The functions that its methods return may be called in several threads at a time. Pixels come
    as arrays, maps as tensors on the CPU; patch vectors stay where they were computed.
    """

    task: EngineTask

    @property
    def name(self) -> str:
        """What computes, with its version where numbers may depend on it."""

    def network(self) -> Network:
        """The function from pixels to the maps of the chosen layers, in the task's precision."""

    def joiner(self) -> Joiner:
        """The function from such maps to patch vectors, float32."""

    def pipeline(self) -> Pipeline:
        """The function from pixels to patch vectors, float32."""


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """An `EngineWarning`, unless this process has already given the same."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, EngineWarning, stacklevel=2)
