"""One code for all devices: on a pretended GPU, and on a real one where there is one."""

import contextlib

import numpy as np
import pytest
import torch
from helpers.pretend_gpu import GPU, OnGPU, PretendGPU
from torch._subclasses.fake_tensor import FakeTensorMode

from patchcore_helpers import InputError, MemoryBank, PatchCore, StripPatchCore, k_center_greedy
from patchcore_helpers.core import coreset, distances, smoothing
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.device import resolve_device
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.engines import EngineTask, TorchEngine
from patchcore_helpers.core.index import ExactIndex, exact

VECTORS = np.random.default_rng(0).normal(size=(700, 24)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(300, 24)).astype(np.float32)
# Far from the origin and close together: the search has to compare these by differences.
NEEDS_DIFFERENCES = VECTORS * np.where(np.arange(700) < 20, 1e4, 1e-2)[:, None].astype(np.float32)


@contextlib.contextmanager
def one_worker():
    yield lambda work, parts: list(map(work, parts))


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU that this thread, which does all the work, can use."""
    for module in (coreset, distances, exact):
        monkeypatch.setattr(module, "single_threaded_workers", one_worker)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with PretendGPU():
            yield torch.device("cuda")
    finally:
        torch.set_num_threads(before)


def on(device, array):
    return torch.from_numpy(array.copy()).to(device)


# The pretended GPU itself


def test_the_pretended_gpu_refuses_to_mix_devices(gpu):
    here, there = torch.ones(3), torch.ones(3, device=gpu)
    assert there.device == torch.tensor([1.0], device=gpu).device == GPU
    assert isinstance(there + 1, OnGPU) and not isinstance(there.cpu(), OnGPU)
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="same device"):
        there.add_(here)
    with pytest.raises(RuntimeError, match="indices are on a GPU"):
        here[torch.zeros(1, dtype=torch.int64, device=gpu)]
    with pytest.raises(RuntimeError, match="does not exist on a GPU"):
        torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001 (as in `products_form`)
            there[None], there[None], None, "none", [], ""
        )
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        there.numpy()
    assert there[torch.tensor([0, 2])].tolist() == [1, 1]


# Each part


@pytest.mark.parametrize("patches", [VECTORS, NEEDS_DIFFERENCES], ids=["products", "differences"])
@pytest.mark.parametrize("projection", [None, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_coreset(gpu, patches, projection, weighted):
    options = {"projection": projection, "weights": np.linspace(1, 2, 700) if weighted else None}
    expected = k_center_greedy(patches, 690, **options)
    chosen = k_center_greedy(on(gpu, patches), 690, **options)
    # Not to the last bit: the processor's fastest matrix product exists only there.
    np.testing.assert_allclose(chosen.radii[:300], expected.radii[:300], rtol=1e-3)
    assert (chosen.indices[:50] == expected.indices[:50]).all()


@pytest.mark.parametrize("k", [1, 3, 70])
@pytest.mark.parametrize("stored", [exact.GROUPS, exact.STORED])
def test_exact_search(gpu, k, stored, monkeypatch):
    monkeypatch.setattr(exact, "STORED", stored)
    expected = ExactIndex().fit(VECTORS).query(QUERIES, k)
    index = ExactIndex().fit(on(gpu, VECTORS))
    for queries in (QUERIES, on(gpu, QUERIES)):
        found = index.query(queries, k)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        np.testing.assert_array_equal(found[1], expected[1])


def test_exact_search_by_a_bound(gpu):
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(9, 300))
    bank, queries = (
        (rng.normal(size=(n, 9)) @ axes + 0.1 * rng.normal(size=(n, 300))).astype(np.float32)
        for n in (1100, 200)
    )
    expected = ExactIndex().fit(bank).query(queries, 2)
    index = ExactIndex().fit(on(gpu, bank))
    assert index.bound and index.bound.axes.device == GPU
    found = index.query(on(gpu, queries), 2)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])


def test_nested_distances(gpu):
    expected = nested_min_distances(QUERIES, VECTORS, [1, 30, 700])
    for bank in (VECTORS, on(gpu, VECTORS)):
        found = nested_min_distances(on(gpu, QUERIES), bank, [1, 30, 700])
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("piece", [20, 1024])
def test_maps(piece, monkeypatch):
    monkeypatch.setattr(smoothing, "PIECE", piece)
    with FakeTensorMode(allow_non_fake_inputs=True):
        grids = torch.empty(2, 8, 9, device="cuda")
        maps = smoothing.resize_and_smooth(grids, (64, 50), 4.0)
        assert maps.device == GPU and maps.shape == (2, 64, 50)


@pytest.mark.parametrize("aggregation", ["concat", "paper"])
def test_network(gpu, aggregation):
    backbone = load_backbone("test_resnet", weights="random")
    task = EngineTask(backbone, (64, 64), aggregation=aggregation)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = TorchEngine(task).pipeline()(pixels)
    patches = TorchEngine(task, "cuda").pipeline()(pixels)
    assert patches.device == GPU
    torch.testing.assert_close(patches.cpu(), expected, rtol=1e-4, atol=1e-5)
    assert next(backbone.network.parameters()).device.type == "cpu"


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("index", ["exact", "sklearn", "flat"])
def test_memory_bank(gpu, metric, index, tmp_path):
    options = {"coreset_ratio": 0.2, "projection": None, "metric": metric, "index": index}
    bank = MemoryBank(**options, device="cuda").fit(VECTORS)
    expected = MemoryBank(**options, device="cpu").fit(VECTORS)
    assert (bank.index_.mean.device == GPU) == (index == "exact")
    for queries in (QUERIES, on(gpu, QUERIES)):
        distances, rows = bank.nearest(queries, 3)
        np.testing.assert_allclose(distances, expected.nearest(QUERIES, 3)[0], rtol=1e-4)
        factors = bank.reweighting(queries, rows[:, 0])
        np.testing.assert_allclose(factors, expected.reweighting(QUERIES, rows[:, 0]), rtol=1e-4)
        nested = bank.nested_distances(queries, [5, 140])
        np.testing.assert_allclose(nested, expected.nested_distances(QUERIES, [5, 140]), rtol=1e-4)
    bank.save(tmp_path / "bank")
    for device in ("cpu", "cuda"):
        loaded = MemoryBank.load(tmp_path / "bank", device)
        assert loaded.device == device
        is_on_gpu = loaded.index_.mean.device == GPU
        assert is_on_gpu == ((index, device) == ("exact", "cuda"))
        np.testing.assert_allclose(loaded.nearest(QUERIES, 3)[0], distances, rtol=1e-5)


# All together


@pytest.mark.parametrize("image_score", ["max", "reweighted"])
def test_patchcore(gpu, photos, image_score, tmp_path):
    def fitted(device):
        model = PatchCore(
            "test_resnet",
            weights="random",
            image_size=64,
            coreset_ratio=0.1,
            image_score=image_score,
            engine="torch",
            device=device,
        )
        return model.fit(photos[:4])

    model = fitted("auto")  # takes the GPU
    assert model.bank_.index_.mean.device == GPU
    assert next(model.extractor_.patches(photos[:1])).device == GPU
    expected = fitted("cpu")
    result = model.detect(photos)
    np.testing.assert_allclose(result.scores, expected.anomaly_scores(photos), rtol=1e-3)
    np.testing.assert_allclose(
        model.to_maps(result), expected.anomaly_maps(photos), rtol=1e-3, atol=1e-4
    )
    model.save(tmp_path / "bank")
    loaded = PatchCore.load(tmp_path / "bank", engine="torch", device="cuda")
    np.testing.assert_allclose(loaded.anomaly_scores(photos), result.scores, rtol=1e-5)


def test_strips(gpu):
    strips = [np.random.default_rng(i).integers(0, 99, (64, 400), np.uint8) for i in range(3)]

    def maps_of(device):
        model = PatchCore(
            "test_resnet", weights="random", coreset_ratio=0.1, engine="torch", device=device
        )
        return StripPatchCore(model, piece=128, context=32).fit(strips[:2]).anomaly_map(strips[2])

    np.testing.assert_allclose(maps_of("cuda"), maps_of("cpu"), rtol=1e-3, atol=1e-4)


def test_openvino_keeps_auto_on_the_processor(gpu):
    model = PatchCore("test_resnet", weights="random", engine="openvino")
    assert model.new_bank().device == model.new_extractor().device == "cpu"
    assert PatchCore(engine="torch").new_bank().device == "cuda"


def test_a_device_that_is_not_here_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    for call in (
        lambda: resolve_device("cuda"),
        lambda: MemoryBank(device="cuda").fit(VECTORS),
        lambda: PatchCore(device="cuda").new_bank(),
    ):
        with pytest.raises(InputError, match="device='cuda': torch cannot use one here"):
            call()


# On a real GPU


def real_gpu():
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    pytest.skip("there is no GPU here that torch can use")


@pytest.mark.gpu
def test_coreset_and_search_on_a_gpu():
    device = real_gpu()
    chosen = k_center_greedy(on(device, VECTORS), 200)
    expected = k_center_greedy(VECTORS, 200)
    assert (chosen.indices[:50] == expected.indices[:50]).all()
    distances, rows = ExactIndex().fit(on(device, VECTORS)).query(QUERIES, 3)
    expected_distances, expected_rows = ExactIndex().fit(VECTORS).query(QUERIES, 3)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-4)
    np.testing.assert_array_equal(rows, expected_rows)


@pytest.mark.gpu
def test_patchcore_on_a_gpu(photos):
    scores, maps = zip(
        *(
            (model.anomaly_scores(photos), model.anomaly_maps(photos))
            for model in (
                PatchCore(
                    "resnet18",
                    weights="random",
                    image_size=64,
                    coreset_ratio=0.2,
                    engine="torch",
                    device=device,
                ).fit(photos[:4])
                for device in ("cpu", real_gpu())
            )
        ),
        strict=True,
    )
    np.testing.assert_allclose(*scores, rtol=1e-3)
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-4)
