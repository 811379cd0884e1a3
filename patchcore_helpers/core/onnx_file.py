"""Exported models on disk: an ONNX file, checked before any of it is run. Needs no torch.

A file is read in this order, and refused in one line at the first step that fails: its size; that
it is an ONNX model; the format; the structure, which is that of `onnx_graph` and nothing else (no
file outside, no operator of another domain, no graph inside a graph, stored numbers that fill
exactly the tensors that they claim to be); the sizes of all tensors that it will compute, which
follow from the file; the SHA-256, which finds damage; types and bounds of all settings. As with a
bank file, what passes is believed: a forger can still make it judge wrongly, so take models only
from people you trust.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from patchcore_helpers.core.bank_file import Count, Settings, Word, first_problem
from patchcore_helpers.errors import InputError, error_line
from patchcore_helpers.files import sha256

FORMAT = "patchcore-helpers exported model 1"
IMAGE = "image"  # the input: uint8 (1, height, width, 3), RGB
PIXELS = "pixels"  # the image at the input size, uint8 (1, height, width, 3)
OUTPUTS = ("score", "patch_scores", "nearest_row", "anomaly_map")
OPSET = 18
LARGEST_FILE = 2**30  # bytes
LARGEST_TENSOR = 2**28  # numbers
MOST_NODES = 5000
LARGEST_SIDE = 9999  # pixels
# What networks for images, and the search, are made of; `resizing` is compared as a whole.
OPERATORS = frozenset(
    [
        "Add",
        "ArgMax",
        "ArgMin",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "Div",
        "Erf",
        "Exp",
        "Flatten",
        "Gather",
        "GatherElements",
        "Gemm",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "TopK",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class ExportedSettings(Settings):
    """What an exported model says about itself."""

    backbone: Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,99}(\.\w{1,99})?$")]
    weights_hash: Annotated[str, Field(pattern=r"^(random|[0-9a-f]{64})$")]
    image_size: tuple[Side, Side]
    image_score: Word
    metric: Word
    n_neighbors: Count
    bank_size: Annotated[int, Field(ge=1, lt=10**9)]
    n_vectors: Annotated[int, Field(ge=1, lt=10**15)]
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None
    made_with: Annotated[dict[str, Annotated[str, Field(max_length=60)]], Field(max_length=9)]


@dataclass(frozen=True)
class ExportedFile:
    """What a file holds, checked: the graph's bytes, for a runtime, and the settings."""

    content: bytes
    settings: ExportedSettings


def resizing(onnx: Any, input_size: tuple[int, int]) -> tuple[list[Any], list[Any]]:
    """The first nodes of the graph and the constants they need: `extractor.resized`, bit for bit.

    The width first, then the height; between the two, pixels are rounded to 8 bits. ONNX's own
    Resize would be shorter, but runtimes compute its coefficients in float32: some pixels are one
    gray level off, and a ViT's score moves by several thousandths.

    Parameters
    ----------
    onnx : module
    input_size : (height, width), pixels

    Returns
    -------
    list of onnx.NodeProto, from `IMAGE` to `PIXELS`
    list of onnx.TensorProto
    """
    height, width = input_size
    node = onnx.helper.make_node
    nodes = [
        node("Shape", [IMAGE], ["width.before"], start=2, end=3),
        node("Shape", [IMAGE], ["height.before"], start=1, end=2),
        # A row for each column of the photograph. Transposing a table is fast, 3-byte pixels slow.
        node("Flatten", [IMAGE], ["photograph.rows"], axis=2),
        node("Transpose", ["photograph.rows"], ["photograph.lines"], perm=[1, 0]),
        node("Concat", ["width.before", "resize.rest"], ["photograph.sizes"], axis=0),
        node("Reshape", ["photograph.lines", "photograph.sizes"], ["photograph.columns"]),
        *_resizing_of("width", node, "photograph.columns", "narrow.columns"),
        node("Reshape", ["narrow.columns", "narrow.sizes"], ["narrow.lines"]),
        node("Transpose", ["narrow.lines"], ["narrow.rows"], perm=[1, 0]),
        *_resizing_of("height", node, "narrow.rows", "resized.rows"),
        node("Reshape", ["resized.rows", "input_sizes"], [PIXELS]),
    ]
    constants: dict[str, tuple[str, list[int], list[float]]] = {
        "resize.rest": ("INT64", [1], [-1]),
        "narrow.sizes": ("INT64", [2], [3 * width, -1]),
        "input_sizes": ("INT64", [4], [1, height, width, 3]),
        "width.after": ("FLOAT", [1], [width]),
        "width.middles": ("FLOAT", [width, 1], [pixel + 0.5 for pixel in range(width)]),
        "height.after": ("FLOAT", [1], [height]),
        "height.middles": ("FLOAT", [height, 1], [pixel + 0.5 for pixel in range(height)]),
        **RESIZE_CONSTANTS,
    }
    tensors = [
        onnx.helper.make_tensor(name, getattr(onnx.TensorProto, kind), sides, values)
        for name, (kind, sides, values) in constants.items()
    ]
    return nodes, tensors


UNIT = 2**22  # what Pillow's integer coefficients of one pixel sum to
RESIZE_CONSTANTS: dict[str, tuple[str, list[int], list[float]]] = {
    "resize.float_zero": ("FLOAT", [1], [0]),
    "resize.float_half": ("FLOAT", [1], [0.5]),
    "resize.float_one": ("FLOAT", [1], [1]),
    "resize.float_unit": ("FLOAT", [1], [UNIT]),
    "resize.zero": ("INT64", [], [0]),
    "resize.one": ("INT64", [], [1]),
    "resize.last": ("INT64", [1], [-1]),
    "resize.axis": ("INT64", [1], [1]),
    # A coefficient as three digits of 8 bits: what MatMulInteger takes, whose sums are exact.
    "resize.base": ("INT32", [1], [256]),
    "resize.places": ("INT32", [1, 3, 1], [2**16, 2**8, 1]),
    "resize.unit": ("INT32", [1], [UNIT]),
    "resize.half_unit": ("INT32", [1], [UNIT // 2]),
    "resize.white": ("INT32", [1], [255]),
}
DOUBLE, INT32, INT64, UINT8 = 11, 6, 7, 2  # of onnx.TensorProto, for Cast


def _resizing_of(side: str, make_node: Any, before: str, after: str) -> list[Any]:
    """Bring one side of an image to its size, as `precompute_coeffs` and `Resample` of Pillow do.

    Source: Pillow, src/libImaging/Resample.c, with the filter BILINEAR.

    Parameters
    ----------
    side : "width" or "height"
    before, after : names of uint8 tensors
        A row for each pixel of this side, the rest of the image in the row.
    """
    nodes = []

    def add(operator: str, inputs: str, output: str, **attributes: Any) -> None:
        names = [name if "." in name else f"{side}.{name}" for name in inputs.split()]
        full = output if "." in output else f"{side}.{output}"
        nodes.append(make_node(operator, names, [full], **attributes))

    # In float64 from here, as Pillow: the constants, which are exact in float32, are widened.
    for name in ("zero", "half", "one", "unit"):
        add("Cast", f"resize.float_{name}", name, to=DOUBLE)
    for name in ("before", "after", "middles"):
        add("Cast", name, f"{name}_float", to=DOUBLE)
    # `center`: of every new pixel, in old ones. `support`: how far it looks, to either side.
    add("Div", "before_float after_float", "scale")
    add("Max", "scale one", "support")
    add("Mul", "middles_float scale", "center")
    # It looks at old pixels from `first` to the one before `end`; a cast cuts decimals off.
    for bound, operator in (("lowest", "Sub"), ("highest", "Add")):
        add(operator, "center support", f"{bound}_exact")
        add("Add", f"{bound}_exact half", f"{bound}_moved")
        add("Cast", f"{bound}_moved", bound, to=INT64)
    add("Max", "lowest resize.zero", "first")
    add("Min", "highest before", "end")
    # The same number of taps for all, the most that any has: a table, a row for each new pixel.
    add("Sub", "end first", "n_taps")
    add("ReduceMax", "n_taps", "most_taps", keepdims=0)
    add("Range", "resize.zero most_taps resize.one", "numbers")
    add("Add", "first numbers", "taps")
    # Weights fall linearly from the center, and are 0 outside of the image.
    add("Cast", "taps", "taps_float", to=DOUBLE)
    add("Sub", "taps_float center", "offset")
    add("Add", "offset half", "distance")
    add("Div", "one support", "slope")
    add("Mul", "distance slope", "signed_share")
    add("Abs", "signed_share", "share")
    add("Sub", "one share", "line")
    add("Max", "line zero", "triangle")
    add("Less", "taps end", "is_inside")
    add("Where", "is_inside triangle zero", "weights")
    # Summed one after the other, as Pillow does, so that the sum is the same to its last bit.
    add("CumSum", "weights resize.axis", "sums")
    add("Gather", "sums resize.last", "sum", axis=1)
    add("Div", "weights sum", "normalized")
    add("Mul", "normalized unit", "fixed_point")
    add("Add", "fixed_point half", "fixed_point_moved")
    add("Cast", "fixed_point_moved", "coefficients", to=INT32)
    add("Unsqueeze", "coefficients resize.axis", "as_row")
    add("Div", "as_row resize.places", "shifted")
    add("Mod", "shifted resize.base", "wide_digits")
    add("Cast", "wide_digits", "digits", to=UINT8)
    # The old pixels of every tap; those past the image, whose weight is 0, are its last.
    add("Sub", "before resize.one", "last_pixel")
    add("Min", "taps last_pixel", "existing_taps")
    add("Gather", f"{before} existing_taps", "seen", axis=0)
    add("MatMulInteger", "digits seen", "sums_of_digits")
    add("Mul", "sums_of_digits resize.places", "parts")
    add("ReduceSum", "parts resize.axis", "levels_exact", keepdims=0)
    add("Add", "levels_exact resize.half_unit", "levels_moved")
    add("Div", "levels_moved resize.unit", "levels")
    add("Min", "levels resize.white", "levels_clipped")
    add("Cast", "levels_clipped", after, to=UINT8)
    return nodes


def with_metadata(model: Any, settings: ExportedSettings) -> bytes:
    """The bytes of a model with its settings and its SHA-256 in its metadata.

    Parameters
    ----------
    model : onnx.ModelProto
    settings : ExportedSettings
    """
    del model.metadata_props[:]
    for key, value in (("format", FORMAT), ("settings", settings.model_dump_json())):
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "patchcore-helpers"
    model.doc_string = ""
    model.metadata_props.add(key="digest", value=digest_of(model))
    return model.SerializeToString(deterministic=True)


def digest_of(model: Any) -> str:
    """SHA-256 over a model, but for the digest in its metadata."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != "digest"]
    texts = [text for pair in sorted(kept) for text in pair]
    return sha256(model.graph.SerializeToString(deterministic=True), str(model.ir_version), *texts)


def read_exported(path: str | Path) -> ExportedFile:
    """Read and check a file that `PatchCore.export` wrote; nothing in it is run.

    Raises
    ------
    InputError
        If the file is missing, damaged or not an exported model.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such model file")
    if Path(path).stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: not an exported model of this package: it is too large")
    return check_exported(path, Path(path).read_bytes())


def check_exported(path: str | Path, content: bytes) -> ExportedFile:
    """`read_exported` of bytes; `path` is what messages name."""
    onnx = import_onnx()
    with _refusing(path):
        model = onnx.ModelProto.FromString(content)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        if metadata.get("format") != FORMAT:
            raise ValueError("its metadata do not say that it is one")
        n_first = _check_structure(onnx, model)
        _check_sizes(onnx, model, n_first)
        if metadata.get("digest") != digest_of(model):
            raise ValueError("it is damaged: its contents do not match their checksum")
        settings = ExportedSettings.model_validate_json(metadata.get("settings", ""))
    return ExportedFile(content, settings)


@contextmanager
def _refusing(path: str | Path) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        reason = first_problem(error)
    except Exception as error:  # protobuf and onnx raise many kinds on damaged files
        reason = error_line(error)[:200]
    else:
        return
    raise InputError(
        f"{path}: not an exported model of this package ({reason}); export the bank again"
    )


def import_onnx() -> Any:
    """The package onnx, or one line that says how to install it."""
    try:
        import onnx
    except ImportError:
        raise InputError(
            "exported models: the onnx package, which writes and checks them, is missing; "
            "install it: pip install onnx onnxruntime"
        ) from None
    return onnx


def _check_structure(onnx: Any, model: Any) -> int:
    """Refuse whatever `onnx_graph` does not write: what it does is known, the rest may be bad.

    Returns how many nodes resize the photograph.
    """
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("it holds functions, training or sparse tensors")
    if [(entry.domain, entry.version) for entry in model.opset_import] != [("", OPSET)]:
        raise ValueError(f"it is not of operator set {OPSET} alone")
    if len(graph.node) > MOST_NODES:
        raise ValueError(f"it has more than {MOST_NODES} nodes")
    for tensor in graph.initializer:
        _check_tensor(onnx, tensor)
    n_first = _check_resizing(onnx, graph)
    for node in graph.node[n_first:]:
        if node.domain or node.op_type not in OPERATORS:
            raise ValueError(f"operator {node.domain[:40]!r} {node.op_type[:40]!r}")
        for attribute in node.attribute:
            _check_attribute(onnx, attribute)
    _check_photograph_is_used_once(graph, n_first)
    names = [value.name for value in graph.input], [value.name for value in graph.output]
    if names != ([IMAGE], list(OUTPUTS)):
        raise ValueError("its inputs and outputs are others")
    return n_first


def _check_attribute(onnx: Any, attribute: Any) -> None:
    kinds = onnx.AttributeProto
    plain = (kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS, kinds.STRING, kinds.STRINGS)
    if attribute.type == kinds.TENSOR:
        _check_tensor(onnx, attribute.t)
    elif attribute.type not in plain or attribute.ref_attr_name:
        raise ValueError(f"attribute {attribute.name[:40]!r} is no plain value")


def _check_tensor(onnx: Any, tensor: Any) -> None:
    """Its numbers are in this file, and as many as its shape says."""
    if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
        raise ValueError(f"tensor {tensor.name[:40]!r} lies in another file")
    if any(side < 0 for side in tensor.dims):
        raise ValueError(f"tensor {tensor.name[:40]!r} has a negative side")
    count = math.prod(tensor.dims)
    if count > LARGEST_TENSOR:
        raise ValueError(f"tensor {tensor.name[:40]!r} of {count} numbers")
    kinds = onnx.TensorProto
    sizes = {kinds.FLOAT: 4, kinds.INT64: 8, kinds.INT32: 4, kinds.UINT8: 1, kinds.BOOL: 1}
    if tensor.data_type not in sizes:
        raise ValueError(f"tensor {tensor.name[:40]!r} of type {tensor.data_type}")
    listed = len(tensor.float_data) + len(tensor.int64_data) + len(tensor.int32_data)
    if len(tensor.raw_data) != sizes[tensor.data_type] * count and listed != count:
        raise ValueError(f"tensor {tensor.name[:40]!r} does not hold what its shape says")


def _check_sizes(onnx: Any, model: Any, n_first: int) -> None:
    """The sides of every tensor that is computed are known, and small enough.

    Only the photograph itself has any size, until it is resized.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {value.name: value.type.tensor_type for value in inferred.value_info}
    known |= {value.name: value.type.tensor_type for value in inferred.output}
    for node in model.graph.node[n_first:]:
        for name in filter(None, node.output):
            _check_value(name, known.get(name))


def _check_resizing(onnx: Any, graph: Any) -> int:
    """The graph begins with `resizing`, node for node, up to `LARGEST_SIDE`.

    Returns how many nodes that takes.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if len(tensors) < len(graph.initializer) or "input_sizes" not in tensors:
        raise ValueError("its tensors have no names of their own")
    sides = list(tensors["input_sizes"].int64_data)[1:3]
    if len(sides) != 2 or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise ValueError("it does not say to which size it brings images")
    nodes, constants = resizing(onnx, (sides[0], sides[1]))
    begins_so = list(graph.node[: len(nodes)]) == nodes
    if not begins_so or any(tensors.get(constant.name) != constant for constant in constants):
        raise ValueError("it does not begin by resizing the image")
    return len(nodes)


def _check_photograph_is_used_once(graph: Any, n_first: int) -> None:
    """No node behind the first sees the photograph or what they computed, but for `PIXELS`."""
    first = [name for node in graph.node[: n_first - 1] for name in node.output]
    of_the_photograph = {IMAGE, *first}
    if any(of_the_photograph & set(node.input) for node in graph.node[n_first:]):
        raise ValueError("it computes on the image before it is resized")


def _check_value(name: str, kind: Any) -> None:
    sides = [] if kind is None else kind.shape.dim
    if kind is None or not all(side.HasField("dim_value") for side in sides):
        raise ValueError(f"the size of {name[:40]!r} does not follow from the file")
    if math.prod(side.dim_value for side in sides) > LARGEST_TENSOR:
        raise ValueError(f"{name[:40]!r} would take more than {LARGEST_TENSOR} numbers")
