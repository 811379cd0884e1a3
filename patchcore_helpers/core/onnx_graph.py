"""A fitted PatchCore as one ONNX graph: from the pixels of a photograph to scores and map.

The graph takes one image of any size and does what `PatchCore` does, in the same order: resize,
normalize, network, aggregation, exact search, image score, anomaly map. Everything after the
resizing has a fixed size, so a reader can tell from the file how much memory it takes.
"""

import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchcore_helpers.core.bank import REWEIGHTING_NEIGHBORS, MemoryBank
from patchcore_helpers.core.engines import EngineTask
from patchcore_helpers.core.engines.modules import PipelineModule, forget_traced_modules
from patchcore_helpers.core.index import EXACT
from patchcore_helpers.core.onnx_file import (
    IMAGE,
    OPSET,
    OUTPUTS,
    PIXELS,
    import_onnx,
    resizing,
)
from patchcore_helpers.core.onnx_model import ERRORS_ONLY, import_runtime
from patchcore_helpers.core.smoothing import resize_and_smooth
from patchcore_helpers.errors import InputError, error_line

PATCHES = "patches"  # the output of the graph of features
TABLE = 2**24  # squared distances that the graph holds at a time: 64 MB


@dataclass(frozen=True)
class GraphParts:
    """What the graph of a model is made from.

    Attributes
    ----------
    task : EngineTask
        The network and the aggregation, in float32.
    bank : MemoryBank
    image_score, n_neighbors, sigma : see `PatchCore`
    map_size : (height, width), pixels
        Of the anomaly map.
    """

    task: EngineTask
    bank: MemoryBank
    image_score: str
    n_neighbors: int
    sigma: float
    map_size: tuple[int, int]


class ScoringModule(nn.Module):
    """From the pixels at the input size to the outputs of the graph.

    Parameters
    ----------
    parts : GraphParts
    """

    around: Tensor

    def __init__(self, parts: GraphParts) -> None:
        super().__init__()
        self.parts = parts
        self.patches = PipelineModule(parts.task)
        self.search = SearchModule(parts.bank, parts.n_neighbors)
        self.register_buffer("around", _rows_around(parts), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Score (1,), patch scores and nearest row (1, rows, columns), map (1, height, width)."""
        patches = self.patches(pixels)
        grid = (1, int(patches.shape[1]), int(patches.shape[2]))
        vectors = self.search.comparable(patches.reshape(grid[1] * grid[2], -1))
        distances, rows = self.search(vectors)
        scores = distances.mean(1)
        image_score = self._image_score(scores, vectors, rows[:, 0])
        maps = resize_and_smooth(scores.reshape(grid), self.parts.map_size, self.parts.sigma)
        return image_score, scores.reshape(grid), rows[:, 0].reshape(grid), maps

    def _image_score(self, scores: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
        """The image score, shape (1,), from patch scores of shape (n,)."""
        kind = self.parts.image_score
        if kind == "mean":
            return scores.mean(0, keepdim=True)
        if kind == "top1_percent":
            count = max(1, round(len(scores) / 100))
            return scores.topk(count).values.mean(0, keepdim=True)
        highest = scores.amax(0, keepdim=True)
        if kind == "max" or self.around.shape[1] < 2:
            return highest
        return highest * self._reweighting(vectors, rows, scores.argmax(0, keepdim=True))

    def _reweighting(self, vectors: Tensor, rows: Tensor, worst: Tensor) -> Tensor:
        """The factor of Eq. 7, as `MemoryBank.reweighting` computes it."""
        patch, row = vectors[worst], rows[worst]
        to_nearest = self.search.in_metric((patch - self.search.stored[row]).norm(dim=1))
        neighbors = self.search.stored[self.around[row][0]]
        to_around = self.search.in_metric((patch - neighbors).norm(dim=1))
        largest = to_around.amax(0, keepdim=True)
        share = (to_nearest - largest).exp() / (to_around - largest).exp().sum(0, keepdim=True)
        return 1 - share


class SearchModule(nn.Module):
    """The exact search: candidates by a matrix product, their distances by direct differences.

    Parameters
    ----------
    bank : MemoryBank
    n_neighbors : int
    """

    stored: Tensor
    mean: Tensor
    minus_twice: Tensor
    squared_norms: Tensor

    def __init__(self, bank: MemoryBank, n_neighbors: int) -> None:
        super().__init__()
        self.metric = bank.metric
        self.k = min(n_neighbors, len(bank))
        stored = torch.from_numpy(np.array(bank.vectors_))
        mean = stored.mean(0)
        centered = stored - mean
        self.register_buffer("stored", stored, persistent=False)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("minus_twice", -2 * centered.T.contiguous(), persistent=False)
        self.register_buffer("squared_norms", centered.square().sum(1), persistent=False)

    def comparable(self, vectors: Tensor) -> Tensor:
        """The vectors as the bank compares them: of unit length for the cosine metric."""
        if self.metric == "l2":
            return vectors
        return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def in_metric(self, l2: Tensor) -> Tensor:
        """The metric's distance from the L2 one."""
        return l2 if self.metric == "l2" else l2.square() / 2

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Distances, ascending, and rows of the k nearest, each of shape (n, k)."""
        candidates = self._candidates(vectors)
        differences = vectors[:, None] - self.stored[candidates]
        distances = differences.norm(dim=2)
        if self.k > 1:
            distances, order = distances.topk(self.k, dim=1, largest=False)
            candidates = candidates.gather(1, order)
        return self.in_metric(distances), candidates

    def _candidates(self, vectors: Tensor) -> Tensor:
        """The rows of the k nearest stored vectors by the matrix product, shape (n, k)."""
        centered = vectors - self.mean
        size = self.stored.shape[0]
        block = max(self.k, TABLE // int(vectors.shape[0]))
        values, rows = [], []
        for start in range(0, size, block):
            part = slice(start, min(start + block, size))
            table = centered @ self.minus_twice[:, part] + self.squared_norms[part]
            nearest, columns = _smallest(table, min(self.k, part.stop - part.start))
            values.append(nearest)
            rows.append(columns + start)
        if len(rows) == 1:
            return rows[0]
        _, order = _smallest(torch.cat(values, dim=1), self.k)
        return torch.cat(rows, dim=1).gather(1, order)


def _smallest(table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries of every row and their columns."""
    if k == 1:
        values, columns = table.min(dim=1, keepdim=True)
        return values, columns
    found = table.topk(k, dim=1, largest=False)
    return found.values, found.indices


def _rows_around(parts: GraphParts) -> Tensor:
    """For "reweighted": the rows nearest to every row of the bank; else nothing."""
    bank = parts.bank
    if parts.image_score != "reweighted":
        return torch.zeros(0, 0, dtype=torch.int64)
    _, around = bank.index_.query(bank.vectors_, REWEIGHTING_NEIGHBORS)
    own = np.arange(len(around))
    missed = (around != own[:, None]).all(1)  # as `MemoryBank.reweighting` does
    around[missed, -1] = own[missed]
    return torch.from_numpy(around)


def build_graph(parts: GraphParts) -> Any:
    """The graph as an `onnx.ModelProto`, without metadata.

    Raises
    ------
    InputError
        For an index, an aggregation or a network that cannot be exported.
    """
    _refuse_what_the_graph_cannot_be(parts)
    model = _exported(ScoringModule(parts), parts.task, OUTPUTS)
    _begin_with_the_photograph(model, parts.task.input_size)
    return model


def build_features_graph(task: EngineTask) -> Any:
    """The first half of the graph: from an image at the input size to its patch vectors.

    For those who search and score outside the graph, as the page in the browser does. Its input
    `pixels` is uint8 (1, height, width, 3), its output `patches` float32 (1, rows, columns,
    channels).

    Parameters
    ----------
    task : EngineTask

    Returns
    -------
    onnx.ModelProto, without metadata

    Raises
    ------
    InputError
        For a network that cannot be exported.
    """
    return _exported(PipelineModule(task), task, [PATCHES])


def _exported(module: nn.Module, task: EngineTask, outputs: Sequence[str]) -> Any:
    """A module that takes pixels at the input size, as an `onnx.ModelProto`."""
    onnx = import_onnx()
    height, width = task.input_size
    pixels = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    written: Any = io.BytesIO()  # torch's hints know of paths only
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer: sizes are meant to be constants
            torch.onnx.export(
                module.eval(),
                (pixels,),
                written,
                input_names=[PIXELS],
                output_names=list(outputs),
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise InputError(
            f"backbone {task.backbone.name!r}: cannot be exported "
            f"({error_line(error)[:160]}); choose another"
        ) from None
    finally:
        forget_traced_modules()
    model = onnx.load_model_from_string(_folded(written.getvalue()))
    del model.opset_import[:]  # ONNX Runtime lists all that it knows
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    return model


def _folded(content: bytes) -> bytes:
    """The graph with all that does not depend on the pixels computed: sizes, above all."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


def _refuse_what_the_graph_cannot_be(parts: GraphParts) -> None:
    kind = parts.bank.index_.kind
    if kind not in EXACT:
        raise InputError(
            f"index={kind!r}: cannot be exported, because the graph searches exactly and its "
            "scores would be others; fit again with index='exact' and export that"
        )
    if parts.task.aggregation != "concat":
        raise InputError(
            f"aggregation={parts.task.aggregation!r}: cannot be exported; "
            "fit again with aggregation='concat' and export that"
        )
    if parts.task.precision != "float32":
        raise InputError(
            f"precision={parts.task.precision!r}: cannot be exported, because the graph computes "
            "in float32; fit again with precision='float32' and export that"
        )


def _begin_with_the_photograph(model: Any, input_size: tuple[int, int]) -> None:
    """Put the resizing in front, see `resizing`."""
    onnx = import_onnx()
    graph = model.graph
    nodes, sizes = resizing(onnx, input_size)
    everything = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(everything)
    graph.initializer.extend(sizes)
    del graph.input[:]
    graph.input.append(
        onnx.helper.make_tensor_value_info(
            IMAGE, onnx.TensorProto.UINT8, [1, "image_height", "image_width", 3]
        )
    )
    graph.name = "patchcore"
    del graph.value_info[:]
