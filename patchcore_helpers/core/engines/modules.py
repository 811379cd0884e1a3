"""The network and the aggregation as torch modules, for those who convert them to another form."""

import copy
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from patchcore_helpers.core.engines.base import EngineTask


class NetworkModule(nn.Module):
    """From the pixels to the maps."""

    def __init__(self, task: EngineTask) -> None:
        super().__init__()
        network = copy.deepcopy(task.backbone.network)
        if hasattr(network, "set_input_size"):
            # A ViT's grid of positions is resized here, by torch: the bicubic of others differs.
            network.set_input_size(img_size=task.input_size)
        self.network = network
        self.task = replace(task, backbone=replace(task.backbone, network=network))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = self.task.normalize(pixels)
        return tuple(self.task.backbone.maps(images, gradient=True))


class JoinerModule(nn.Module):
    """From the maps to the patch vectors."""

    def __init__(self, task: EngineTask) -> None:
        super().__init__()
        self.task = task

    def forward(self, *maps: Tensor) -> Tensor:
        return self.task.join(list(maps))


class PipelineModule(nn.Module):
    """From the pixels to the patch vectors."""

    def __init__(self, task: EngineTask) -> None:
        super().__init__()
        self.network = NetworkModule(task)
        self.join = JoinerModule(task)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.join(*self.network(pixels))


def forget_traced_modules() -> None:
    """Let go of what torch keeps of every module that it has traced: the weights among it."""
    # The registries have no public names; without them, there is nothing to clear.
    with suppress(AttributeError):
        torch._C._jit_clear_class_registry()  # noqa: SLF001
        store = torch.jit._recursive.ConcreteTypeStore()  # noqa: SLF001
        torch.jit._recursive.concrete_type_store = store  # noqa: SLF001
        torch.jit._state._clear_class_state()  # noqa: SLF001
