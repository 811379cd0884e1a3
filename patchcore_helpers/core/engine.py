"""What runs the frozen network: torch, on any device, or OpenVINO, on the processor.

torch is the reference. OpenVINO (`patchcore_helpers.core.openvino_engine`) runs the same network
compiled for its layers, its input size and the processor, several times as fast. Both take the
pixels of a batch and give feature maps, or patch vectors at once.
"""

import copy
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from patchcore_helpers.core.aggregation import aggregate
from patchcore_helpers.core.backbones import Backbone
from patchcore_helpers.core.validation import check_choice
from patchcore_helpers.errors import InputError, error_line

ENGINES = ("auto", "openvino", "torch")
DEVICES = ("auto", "cpu", "cuda", "mps")

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

    The functions that its methods return may be called in several threads at a time. They take
    arrays and give tensors on the CPU.
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


class TorchEngine:
    """The network as torch runs it: the reference.

    Parameters
    ----------
    task : EngineTask
    device : "cpu", "cuda" or "mps"
    """

    def __init__(self, task: EngineTask, device: str = "cpu") -> None:
        self.task = task
        self.device = torch.device(device)
        network = task.backbone.network
        if self.device.type != "cpu":
            network = copy.deepcopy(network)  # the original is also used on the CPU, for gradients
        network = network.to(device=self.device, memory_format=torch.channels_last)
        self._backbone = replace(task.backbone, network=network)
        self._accelerator = threading.Lock()

    @property
    def name(self) -> str:
        return "torch" if self.device.type == "cpu" else f"torch {self.device.type}"

    def network(self) -> Network:
        return self._maps

    def joiner(self) -> Joiner:
        return self._join

    def pipeline(self) -> Pipeline:
        return lambda pixels: self._join(self._maps(pixels))

    def _maps(self, pixels: np.ndarray) -> list[Tensor]:
        with ExitStack() as context:
            context.enter_context(torch.inference_mode())
            if self.device.type != "cpu":
                # One batch at a time, and in float32 as it is everywhere else: cuDNN would round
                # to TensorFloat-32. The setting is global, hence the lock.
                context.enter_context(self._accelerator)
                context.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if self.task.dtype == torch.bfloat16:
                context.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            images = self.task.normalize(torch.from_numpy(pixels).to(self.device))
            images = images.contiguous(memory_format=torch.channels_last)
            try:
                maps = self._backbone.maps(images)
            except (RuntimeError, AssertionError) as error:
                raise InputError(
                    f"backbone {self._backbone.name!r}: cannot take images of "
                    f"{self.task.input_size} (height, width) pixels ({error_line(error)[:120]}); "
                    "change image_size"
                ) from None
            return [layer.to("cpu", self.task.dtype) for layer in maps]

    def _join(self, maps: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            on_device = [layer.to(self.device, torch.float32) for layer in maps]
            return self.task.join(on_device).cpu()


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


def make_engine(task: EngineTask, engine: str = "auto", device: str = "cpu") -> Engine:
    """The engine that a task runs on.

    Parameters
    ----------
    task : EngineTask
    engine : "auto", "openvino" or "torch"
        "auto" takes OpenVINO on the processor if it is installed and converts the network so that
        its maps agree with torch's, otherwise torch, with one `EngineWarning`.
    device : "auto", "cpu", "cuda" or "mps"

    Raises
    ------
    InputError
        If OpenVINO is asked for by name and is not installed, or for another device.
    """
    check_choice(engine, "engine", ENGINES)
    device = resolve_device(device)
    if engine == "torch" or (engine == "auto" and device != "cpu"):
        return TorchEngine(task, device)
    if device != "cpu":
        raise InputError(f"engine='openvino': runs on the processor; not with device={device!r}")
    try:
        from patchcore_helpers.core.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(task, fallback=TorchEngine(task) if engine == "auto" else None)
    except ImportError as error:
        reason = f"OpenVINO is not installed ({error_line(error)[:120]})"
        if engine == "openvino":
            raise InputError(f"engine='openvino': {reason}; pip install openvino") from None
        warn_once(f"{reason}: torch runs the network, several times slower; pip install openvino")
        return TorchEngine(task)


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """An `EngineWarning`, unless this process has already given the same."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, EngineWarning, stacklevel=2)
