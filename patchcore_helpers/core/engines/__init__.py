"""What runs the frozen network: torch, on any device, or OpenVINO, on the processor.

torch is the reference. OpenVINO runs the same network compiled for its layers, its input size and
the processor, several times as fast; `openvino_engine` is imported when it is first used. Both take
the pixels of a batch and return feature maps, or patch vectors at once.
"""

from patchcore_helpers.core.engines.base import Engine, EngineTask, EngineWarning
from patchcore_helpers.core.engines.choice import DEVICES, ENGINES, make_engine, resolve_device
from patchcore_helpers.core.engines.torch_engine import TorchEngine

__all__ = [
    "DEVICES",
    "ENGINES",
    "Engine",
    "EngineTask",
    "EngineWarning",
    "TorchEngine",
    "make_engine",
    "resolve_device",
]
