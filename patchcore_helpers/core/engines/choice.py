"""Which engine runs a network, and on what device."""

from patchcore_helpers.core.device import resolve_device
from patchcore_helpers.core.engines.base import Engine, EngineTask, warn_once
from patchcore_helpers.core.engines.torch_engine import TorchEngine
from patchcore_helpers.core.validation import check_choice
from patchcore_helpers.errors import InputError, error_line

ENGINES = ("auto", "openvino", "torch")


def device_beside(engine: str, device: str) -> str:
    """The device that a setting means, beside that of the engine.

    OpenVINO runs on the processor: asked for by name, it settles what "auto" means.
    """
    return resolve_device("cpu" if (engine, device) == ("openvino", "auto") else device)


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
        from patchcore_helpers.core.engines.openvino_engine import OpenVINOEngine

        return OpenVINOEngine(task, fallback=TorchEngine(task) if engine == "auto" else None)
    except ImportError as error:
        reason = f"OpenVINO is not installed ({error_line(error)[:120]})"
        if engine == "openvino":
            raise InputError(f"engine='openvino': {reason}; pip install openvino") from None
        warn_once(f"{reason}: torch runs the network, several times slower; pip install openvino")
        return TorchEngine(task)
