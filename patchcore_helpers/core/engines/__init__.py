"""What runs the frozen network: torch, on any device, or OpenVINO, on the processor.

torch is the reference. OpenVINO runs the same network compiled for its layers, its input size and
the processor, several times as fast; `openvino_engine` is imported when it is first used. Both take
the pixels of a batch and return feature maps, or patch vectors at once.
"""

from patchcore_helpers.core.engines.base import Engine, EngineTask, EngineWarning
from patchcore_helpers.core.engines.choice import ENGINES, device_beside, make_engine
from patchcore_helpers.core.engines.torch_engine import TorchEngine

__all__ = [
    "ENGINES",
    "Engine",
    "EngineTask",
    "EngineWarning",
    "TorchEngine",
    "device_beside",
    "make_engine",
]
