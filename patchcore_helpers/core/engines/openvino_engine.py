"""The frozen network compiled by OpenVINO for its layers, its input size and the processor.

A compiled network is used only after its output has agreed with torch's on a test image: whatever
goes wrong on the way, in the conversion, on the disk or with a later version, is noticed.
"""

import json
import queue
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from patchcore_helpers.core.engines.base import (
    EngineTask,
    Joiner,
    Network,
    Pipeline,
    warn_once,
)
from patchcore_helpers.core.engines.compiled_store import CompiledStore
from patchcore_helpers.core.engines.modules import (
    JoinerModule,
    NetworkModule,
    PipelineModule,
    forget_traced_modules,
)
from patchcore_helpers.core.engines.torch_engine import TorchEngine
from patchcore_helpers.core.threads import n_parallel
from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.files import sha256

# OpenVINO reports every import to its maker. Where it cannot import its reporter, it does without;
# this has to be so before it is imported itself.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

VERSION = openvino.__version__.partition("-")[0]

INFERENCE_PRECISION = {"float32": "f32", "bfloat16": "bf16"}
# How far a compiled network may be from torch in float32 on the test image:
FLOAT32_TOLERANCE = 1e-4  # of the largest value, everywhere; measured: 3e-6
BFLOAT16_TOLERANCE = 0.2  # of the root mean square, on average; bfloat16 has 8 significant bits


class ConversionError(Exception):
    """OpenVINO cannot run a network, or its output does not agree with torch's."""


class OpenVINOEngine:
    """Runs a network on the processor, compiled.

    Each image is computed by itself, so its numbers do not depend on the batch that it is in.

    Parameters
    ----------
    task : EngineTask
    fallback : TorchEngine, optional
        Takes over, with one warning, if the network cannot be converted. Without it, that is an
        error.
    """

    def __init__(self, task: EngineTask, fallback: TorchEngine | None = None) -> None:
        self.task = task
        self._compiler = Compiler(task)
        self._fallback = fallback
        self._has_failed = False

    @property
    def name(self) -> str:
        if self._has_failed and self._fallback:
            return self._fallback.name
        return f"openvino {VERSION}"

    def network(self) -> Network:
        def build() -> Network:
            graph = self._compiler.network()
            return lambda pixels: [maps.to(self.task.dtype) for maps in graph([pixels])]

        return self._unless_unable(build, lambda fallback: fallback.network())

    def joiner(self) -> Joiner:
        def build() -> Joiner:
            graph = self._compiler.joiner()
            return lambda maps: graph([layer.float().numpy() for layer in maps])[0]

        return self._unless_unable(build, lambda fallback: fallback.joiner())

    def pipeline(self) -> Pipeline:
        def build() -> Pipeline:
            if self.task.precision == "float32":
                graph = self._compiler.pipeline()
                return lambda pixels: graph([pixels])[0]
            network = self.network()  # in one graph, the aggregation would be rounded too
            join = self.joiner()
            return lambda pixels: join(network(pixels))

        return self._unless_unable(build, lambda fallback: fallback.pipeline())

    def _unless_unable(
        self, build: Callable[[], Any], instead: Callable[[TorchEngine], Any]
    ) -> Any:
        """What `build` returns, or what torch has `instead`, if the network cannot be converted."""
        if self._fallback and self._has_failed:
            return instead(self._fallback)
        try:
            return build()
        except ConversionError as error:
            name = self.task.backbone.name
            if self._fallback is None:
                raise InputError(
                    f"engine='openvino': backbone {name!r}: {error}; choose engine='auto'"
                ) from None
            self._has_failed = True
            warn_once(f"backbone {name!r}: {error}; torch runs it, several times slower")
            return instead(self._fallback)


@dataclass(frozen=True)
class Stage:
    """One graph: what it is made from, and what shows that it is right.

    Attributes
    ----------
    name : str
    module : callable
        Makes the torch module; called when there is no compiled graph on the disk.
    inputs, outputs : list of tensor
        Those of torch, in float32, for one test image.
    precision : "float32" or "bfloat16"
    depends_on : list that JSON can express
    """

    name: str
    module: Callable[[], nn.Module]
    inputs: list[Tensor]
    outputs: list[Tensor]
    precision: str
    depends_on: list[Any]


class Compiler:
    """Makes the compiled graphs of one task.

    Raises
    ------
    InputError
        If the network does not take images of this size, with any engine.
    """

    def __init__(self, task: EngineTask) -> None:
        self.task = task
        self.store = CompiledStore()
        self._graphs: dict[str, CompiledGraph] = {}  # by stage: each is read or made once
        self.config = {
            "NUM_STREAMS": n_parallel(),  # images at a time, as many as batches
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # several processes would choose the same core
        }
        pixels = np.random.default_rng(0).integers(0, 256, (1, *task.input_size, 3), np.uint8)
        reference = TorchEngine(replace(task, precision="float32"))
        self.pixels = torch.from_numpy(pixels)
        self.maps = [layer.contiguous() for layer in reference.network()(pixels)]
        self.patches = reference.joiner()(self.maps)

    def network(self) -> "CompiledGraph":
        """The graph from pixels to maps."""
        return self._compile(
            Stage(
                name="network",
                module=lambda: NetworkModule(self.task),
                inputs=[self.pixels],
                outputs=self.maps,
                precision=self.task.precision,
                depends_on=self._network_key(),
            )
        )

    def joiner(self) -> "CompiledGraph":
        """The graph from maps to patch vectors."""
        return self._compile(
            Stage(
                name="joiner",
                module=lambda: JoinerModule(self.task),
                inputs=self.maps,
                outputs=[self.patches],
                precision="float32",
                depends_on=[[list(layer.shape) for layer in self.maps], *self._joiner_key()],
            )
        )

    def pipeline(self) -> "CompiledGraph":
        """The graph from pixels to patch vectors."""
        return self._compile(
            Stage(
                name="pipeline",
                module=lambda: PipelineModule(self.task),
                inputs=[self.pixels],
                outputs=[self.patches],
                precision="float32",
                depends_on=[*self._network_key(), *self._joiner_key()],
            )
        )

    def _network_key(self) -> list[Any]:
        backbone = self.task.backbone
        return [
            backbone.timm_name,
            backbone.weights_hash,
            backbone.layers,
            backbone.mean,
            backbone.std,
            self.task.input_size,
        ]

    def _joiner_key(self) -> list[Any]:
        return [self.task.aggregation, self.task.neighborhood]

    def _compile(self, stage: Stage) -> "CompiledGraph":
        """The graph of a stage, kept for as long as this compiler."""
        if stage.name not in self._graphs:
            self._graphs[stage.name] = self._read_or_make(stage)
        return self._graphs[stage.name]

    def _read_or_make(self, stage: Stage) -> "CompiledGraph":
        """The graph from the disk, if there is one that agrees with torch; else a new one."""
        config = self.config | {"INFERENCE_PRECISION_HINT": INFERENCE_PRECISION[stage.precision]}
        versions = [openvino.__version__, torch.__version__, timm.__version__]
        key = sha256(
            json.dumps([stage.name, stage.depends_on, config, versions, processor_name()])
        )[:40]
        blob = self.store.read(key)
        if blob is not None:
            try:
                graph = CompiledGraph(_core().import_model(blob, "CPU", config))
                return self._checked(graph, stage)
            except RuntimeError:
                self.store.warn_of_damage(key)
            except ConversionError:
                pass  # made from other weights that are called the same, such as random ones
        try:
            compiled = _core().compile_model(convert(stage), "CPU", config)
            graph = self._checked(CompiledGraph(compiled), stage)
        except ConversionError:
            raise
        except Exception as error:  # torch's tracing and OpenVINO's conversion raise many kinds
            raise ConversionError(
                f"OpenVINO cannot convert it ({error_line(error)[:160]})"
            ) from None
        self.store.write(key, _exported(compiled))
        return graph

    def _checked(self, graph: "CompiledGraph", stage: Stage) -> "CompiledGraph":
        """The graph, after its output for the test image has agreed with torch's."""
        outputs = graph([tensor.numpy() for tensor in stage.inputs])
        for output, expected in zip(outputs, stage.outputs, strict=True):
            if not agree(output, expected, stage.precision):
                raise ConversionError("OpenVINO's maps are not those of torch")
        return graph


def agree(output: Tensor, expected: Tensor, precision: str) -> bool:
    """Whether the output of a compiled graph is that of torch in float32, up to rounding."""
    if output.shape != expected.shape:
        return False
    difference = (output - expected).double()
    if precision == "bfloat16":
        return bool(difference.norm() <= BFLOAT16_TOLERANCE * expected.double().norm())
    return bool(difference.abs().max() <= FLOAT32_TOLERANCE * expected.abs().max())


def convert(stage: Stage) -> Any:
    """A stage as OpenVINO's graph for one image."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer: that sizes become constants is intended
        inputs = tuple(tensor.clone() for tensor in stage.inputs)
        traced = torch.jit.trace(stage.module().eval(), inputs, check_trace=False)
        graph = openvino.convert_model(traced, example_input=inputs)
        del traced
        forget_traced_modules()
    shapes = {port: list(tensor.shape) for port, tensor in zip(graph.inputs, inputs, strict=True)}
    graph.reshape(shapes)
    return graph


def _exported(compiled: Any) -> bytes:
    exported = compiled.export_model()
    return exported if isinstance(exported, bytes) else exported.getvalue()


@lru_cache(maxsize=1)
def _core() -> Any:
    return openvino.Core()


@lru_cache(maxsize=1)
def processor_name() -> list[str]:
    """The processor, and what it can compute with."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [_core().get_property("CPU", "FULL_DEVICE_NAME"), *map(str, capabilities)]


class CompiledGraph:
    """A compiled graph for one image, called with arrays that hold several.

    May be called in several threads at a time.

    Parameters
    ----------
    compiled : openvino.CompiledModel
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._n_streams = int(compiled.get_property("NUM_STREAMS"))
        self._output_shapes = [tuple(port.shape)[1:] for port in compiled.outputs]
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[Tensor]:
        """The outputs, float32; images are along the first axis of each input and output."""
        n_images = len(inputs[0])
        inputs = [np.ascontiguousarray(array) for array in inputs]
        outputs = [np.empty((n_images, *shape), np.float32) for shape in self._output_shapes]
        running: deque[Any] = deque()
        try:
            for number in range(n_images):
                if len(running) == self._n_streams:
                    self._finish(running.popleft())
                request = self._idle_request()
                for port, array in enumerate(inputs):
                    request.set_input_tensor(port, _tensor_of(array, number))
                for port, array in enumerate(outputs):
                    request.set_output_tensor(port, _tensor_of(array, number))
                request.start_async()
                running.append(request)
        finally:  # even after an error: requests write into arrays that would be gone
            while running:
                self._finish(running.popleft())
        return [torch.from_numpy(array) for array in outputs]

    def _idle_request(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()

    def _finish(self, request: Any) -> None:
        request.wait()
        self._idle.put(request)


def _tensor_of(array: np.ndarray, number: int) -> Any:
    """One image of an array as OpenVINO's tensor, which shares the array's memory."""
    return openvino.Tensor(array[number : number + 1], shared_memory=True)
