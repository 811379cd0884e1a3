"""The feature cache: hits give the same scores, any change misses, half a write is never read."""

import io
import os
import resource
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from PIL import Image

from patchcore_helpers import PatchCore
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.feature_cache import FeatureCache, fingerprint


@pytest.fixture
def images(tmp_path):
    random = np.random.default_rng(0)
    paths = []
    for i in range(5):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(random.integers(0, 255, (70, 60, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def extractor(cache, layers=(2, 3), size=64, precision="float32", batch_size=2, **options):
    backbone = load_backbone("resnet18", layers=layers, weights="random")
    return Extractor(
        backbone, size, precision=precision, batch_size=batch_size, cache=cache, **options
    )


def cached_maps(cache, images):
    """The maps batch by batch, as `Extractor.patches` asks the cache for them."""
    network = extractor(None)
    return cache.get_or_compute(
        network.key(), images, network.backbone.layers, 2, lambda: network.compute_maps(images)
    )


class Counting(Extractor):
    """Counts the images whose maps the cache has computed."""

    seen = 0

    def compute_maps(self, items):
        Counting.seen += len(items)
        return super().compute_maps(items)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_second_pass_skips_the_network_and_is_identical(images, cache, precision):
    Counting.seen = 0
    backbone = load_backbone("resnet18", weights="random")
    make = lambda kept: Counting(backbone, 64, precision=precision, batch_size=2, cache=kept)  # noqa: E731
    first, second, without = (make(kept).extract(images) for kept in (cache, cache, None))
    assert Counting.seen == len(images)  # in the first pass alone
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(without, first, rtol=1e-5, atol=1e-6)  # one graph in place of two


@pytest.mark.long
def test_scores_with_and_without_cache_agree(images, tmp_path):
    options = {"weights": "random", "image_size": 64, "coreset_ratio": 0.2}
    plain = PatchCore("resnet18", **options).fit(images[:3])
    cached = PatchCore("resnet18", **options, cache=tmp_path / "c").fit(images[:3])
    first = cached.anomaly_scores(images[3:])
    np.testing.assert_array_equal(cached.anomaly_scores(images[3:]), first)
    np.testing.assert_allclose(plain.anomaly_scores(images[3:]), first, rtol=1e-5)


@pytest.mark.long
def test_any_change_misses(images, cache, tmp_path):
    def entries():
        return len(cache.files())

    extractor(cache).extract(images)
    before = entries()
    assert before == 2  # one file per layer
    extractor(cache, neighborhood=1).extract(images)  # aggregation happens behind the cache
    assert entries() == before
    changes = [
        lambda: extractor(cache, layers=(2,)),
        lambda: extractor(cache, size=(64, 72)),
        lambda: extractor(cache, precision="bfloat16"),
        lambda: extractor(cache, engine="torch"),
    ]
    for make in changes:
        count = entries()
        make().extract(images)
        assert entries() > count
    count = entries()
    changed = np.array(Image.open(images[0]))
    changed[0, 0, 0] ^= 1  # one pixel
    Image.fromarray(changed).save(images[0])
    extractor(cache).extract(images)
    assert entries() == count + 2
    extractor(cache).extract(images[::-1])  # another order is another entry
    assert entries() == count + 4


@pytest.mark.long
def test_other_weights_miss(images, cache, tmp_path):
    from safetensors.torch import save_file

    extractor(cache).extract(images)
    state = load_backbone("resnet18", weights="random").network.state_dict()
    state["conv1.weight"] = state["conv1.weight"] + 1e-3
    save_file(state, tmp_path / "w.safetensors")
    backbone = load_backbone("resnet18", weights=tmp_path / "w.safetensors")
    Extractor(backbone, 64, precision="float32", batch_size=2, cache=cache).extract(images)
    assert len(cache.files()) == 4


@pytest.mark.long
def test_damaged_entries_are_made_again(images, cache):
    right = extractor(cache).extract(images)
    whole = cache.files()[0].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # a number among others: only the check sum tells
    other = io.BytesIO()
    np.save(other, np.zeros(np.load(io.BytesIO(whole)).shape, np.float32))
    for damage in (b"", b"\x93NUMPY", whole[:-100], whole[:-1], flipped, other.getvalue()):
        cache.files()[0].write_bytes(damage)
        np.testing.assert_array_equal(extractor(cache).extract(images), right)
        assert cache.files()[0].read_bytes() == whole


@pytest.mark.long
@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_without_room_the_work_goes_on_after_one_warning(limit, images, cache):
    right = extractor(None).extract(images)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = [extractor(cache).extract(images) for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [np.array_equal(each, right) for each in found] == [True, True] and cache.files() == []
    (warning,) = caught
    assert f"cache folder {cache.folder}: File too large; features are not kept" in str(
        warning.message
    )


def test_consumer_that_stops_early_leaves_nothing(images, cache):
    batches = cached_maps(cache, images)
    next(batches)
    assert len(cache.files()) == 2  # being written
    batches.close()
    assert cache.files() == []


@pytest.mark.long
def test_kill_during_write_leaves_no_entry(images, cache):
    script = textwrap.dedent("""
        import sys
        from patchcore_helpers.core.backbones import load_backbone
        from patchcore_helpers.core.extractor import Extractor
        from patchcore_helpers.core.feature_cache import FeatureCache

        class Slow(Extractor):
            def compute_maps(self, items):
                for batch in super().compute_maps(items):
                    yield batch
                    print("wrote", flush=True)
                    sys.stdin.read()  # until the kill

        backbone = load_backbone("resnet18", weights="random")
        Slow(backbone, 64, precision="float32", batch_size=2,
             cache=FeatureCache(sys.argv[1])).extract(sys.argv[2:])
    """)
    command = [sys.executable, "-c", script, str(cache.folder), *map(str, images)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"wrote\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(path.name.endswith(".part") for path in cache.files())
    right = extractor(None).extract(images)
    np.testing.assert_array_equal(extractor(cache).extract(images), right)
    assert cache.clear() == 2 and cache.files() == []  # the killed one's halves were removed


@pytest.mark.long
def test_two_processes_at_once(images, cache):
    script = (
        "import sys; from patchcore_helpers import PatchCore; "
        "m = PatchCore('resnet18', weights='random', image_size=64, coreset_ratio=0.5, "
        "precision='float32', cache=sys.argv[1]).fit(sys.argv[2:]); "
        "print(m.anomaly_scores(sys.argv[2:]).tolist())"
    )
    command = [sys.executable, "-c", script, str(cache.folder), *map(str, images)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert outputs[0] == outputs[1] != ""
    assert [path.suffix for path in cache.files()] == [".npy", ".npy"]


def test_fingerprint_is_of_the_content(images, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(images[0].read_bytes())
    assert fingerprint(images[0]) == fingerprint(copy) == fingerprint(str(copy))
    assert fingerprint(images[0]) != fingerprint(images[1])
    pixels = np.zeros((4, 6), np.uint8)
    assert fingerprint(pixels) == fingerprint(pixels.copy()) != fingerprint(pixels.T.copy())
    copy.write_bytes(images[1].read_bytes())  # another content under the same name
    os.utime(copy, ns=(0, 0))  # even where the clock of the file system is coarse
    assert fingerprint(copy) == fingerprint(images[1])


def test_two_writers_in_one_process(images, cache):
    right = [[m.numpy() for m in batch] for batch in extractor(None).compute_maps(images)]
    both = [cached_maps(cache, images) for _ in range(2)]
    for batch, *written in zip(right, *both, strict=True):  # in turns
        for maps in written:
            for truth, found in zip(batch, maps, strict=True):
                np.testing.assert_array_equal(found.numpy(), truth)
    assert [path.suffix for path in cache.files()] == [".npy", ".npy"]
    for batch, maps in zip(right, cached_maps(cache, images), strict=True):
        np.testing.assert_array_equal(maps[0].numpy(), batch[0])
