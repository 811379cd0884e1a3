"""The network as torch runs it, on any device: the reference."""

import copy
import threading
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from patchcore_helpers.core.engines.base import EngineTask, Joiner, Network, Pipeline
from patchcore_helpers.errors import InputError, error_line


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
            return self.task.join(on_device)
