"""Memory banks on disk that are damaged or hostile: refused in one line, soon, in little memory."""

import json
import math
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core import backbones
from patchcore_helpers.core.bank_file import digest_of, read_bank

SECONDS, BYTES = 2, 20e6


def parts_of(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def pack(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(scope="module")
def content(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank"
    options = {"image_size": 64, "coreset_ratio": 0.05, "precision": "float32"}
    model = PatchCore("test_resnet", weights="random", **options).fit(photos)
    model.calibrate(photos, 0.5).save(path)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    def check(content, message="not a memory bank of this package", traced=True):
        path = tmp_path / "bank"
        path.write_bytes(content)
        if traced:
            tracemalloc.start()
        start = time.monotonic()
        try:
            with pytest.raises(InputError, match=message) as caught:
                PatchCore.load(path)
            taken, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        line = str(caught.value)
        assert line.startswith(str(path)) and "\n" not in line and len(line) < 600
        assert taken < SECONDS and peak < BYTES

    return check


def tensor(**change):
    """Change the entry of memory_bank in the header."""

    def apply(header, data):
        return {**header, "memory_bank": {**header["memory_bank"], **change}}, data

    return apply


def about(change):
    """Change the settings in the metadata."""

    def apply(header, data):
        settings = json.loads(header["__metadata__"]["patchcore"])
        change(settings)
        return {**header, "__metadata__": {"patchcore": json.dumps(settings)}}, data

    return apply


def parameter(**given):
    return about(lambda settings: settings["parameters"].update(given))


def entry(**given):
    return about(lambda settings: settings.update(given))


def extra(name, dtype="F32"):
    """One more tensor, in sound offsets."""

    def apply(header, data):
        end = len(data)
        more = {"dtype": dtype, "shape": [1, 1], "data_offsets": [end, end + 4]}
        return {**header, name: more}, data + bytes(4)

    return apply


FILES = {  # of any bytes
    "empty": b"",
    "seven bytes": b"1234567",
    "a length and nothing": struct.pack("<Q", 100),
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}" * 50,
    "a header longer than allowed": pack(b'{"a":"' + b"x" * 1_000_001 + b'"}'),
    "a header of no bytes": struct.pack("<Q", 0) + bytes(50),
    "no JSON": pack(b"hello world"),
    "no text": pack(b"\xff\xfe\xff\xfe"),
    "a list": pack([1, 2]),
    "null": pack(b"null"),
    "deeply nested": pack(b"[" * 900_000),
    "nested objects": pack(b'{"a":' * 150_000),
    "a number of many digits": pack(b'{"__metadata__":' + b"9" * 900_000 + b"}"),
    "NaN": pack(b'{"__metadata__":NaN}'),
    "no metadata": pack({}),
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n(S'true'\ntR.",
    "a zip": b"PK\x03\x04" + bytes(200),
}
CHANGES = {
    "offsets out of the file": tensor(data_offsets=[0, 10**12]),
    "offsets that begin later": tensor(data_offsets=[4, 8]),
    "negative offsets": tensor(data_offsets=[-4, 4]),
    "offsets of text": tensor(data_offsets="ab"),
    "no offsets": tensor(data_offsets=None),
    "a shape of 2**80 numbers": tensor(shape=[2**40, 2**40]),
    "a shape that overflows to the right size": tensor(shape=[2**63, 2]),
    "a negative shape": tensor(shape=[-1, -1]),
    "an empty shape": tensor(shape=[]),
    "a shape with 0": tensor(shape=[0, 64]),
    "a shape of floats": tensor(shape=[1.0, 2.0]),
    "a shape of truths": tensor(shape=[True, True]),
    "a dtype of another size": tensor(dtype="F64"),
    "an unknown dtype": tensor(dtype="object"),
    "a tensor that is no entry": lambda h, d: ({**h, "memory_bank": 3}, d),
    "an unknown tensor": extra("other"),
    "a tensor of another search": extra("codes", "U8"),
    "a tensor with a path for a name": extra("../../etc/passwd"),
    "bytes behind the tensors": lambda h, d: (h, d + b"x" * 8),
    "bytes missing": lambda h, d: (h, d[:-4]),
    "metadata of another program": lambda h, d: ({**h, "__metadata__": {"format": "pt"}}, d),
    "metadata of numbers": lambda h, d: ({**h, "__metadata__": {"patchcore": 3}}, d),
    "an unknown entry": entry(command="rm"),
    "an unknown parameter": parameter(cache="/tmp/x"),
    "a progress bar": parameter(progress=True),
    "a missing parameter": about(lambda a: a["parameters"].pop("sigma")),
    "a hub address": parameter(backbone="hf-hub:evil/model"),
    "a local folder": parameter(backbone="local-dir:/tmp/evil"),
    "a path": parameter(backbone="../../evil"),
    "a backbone of many letters": parameter(backbone="a" * 10**5),
    "a backbone that is a list": parameter(backbone=["resnet18"]),
    "weights that are a list": parameter(weights=["random"]),
    "an image size of a million": parameter(image_size=10**6),
    "an image size of a pair of millions": parameter(image_size=[10**6, 10**6]),
    "three sides": parameter(image_size=[64, 64, 64]),
    "a batch of a million": parameter(batch_size=10**6),
    "a batch of none": parameter(batch_size=0),
    "a batch of True": parameter(batch_size=True),
    "neighbors by the million": parameter(n_neighbors=10**9),
    "neighbors as text": parameter(n_neighbors="1"),
    "a huge sigma": parameter(sigma=1e300),
    "an endless sigma": parameter(sigma=math.inf),
    "layers by the thousand": parameter(layers=list(range(1000))),
    "a negative layer": parameter(layers=[-1]),
    "a projection of a billion": parameter(projection=10**9),
    "a graph with too many links": parameter(index={"kind": "hnsw", "links": 5120}),
    "clusters by the billion": parameter(index={"kind": "ivf_sq8", "n_clusters": 10**9}),
    "a search with a path": parameter(index={"kind": "exact", "path": "/etc/passwd"}),
    "a search that is a list": parameter(index=["exact"]),
    "an odd metric": parameter(metric="l1"),
    "no share": parameter(coreset_ratio=0),
    "a seed below 0": parameter(random_state=-1),
    "an endless threshold": entry(threshold=math.inf),
    "a threshold of text": entry(threshold="1"),
    "versions by number": entry(made_with={"torch": 2}),
    "versions over two lines": entry(made_with={"torch": "2\n3"}),
    "no such precision": entry(precision="auto"),
    "no hash": entry(weights_hash="../weights"),
    "patches below 0": entry(n_patches=-1),
    "another digest": entry(digest="0" * 64),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_banks(name, refused):
    refused(FILES[name])


@pytest.mark.parametrize("name", CHANGES)
def test_hostile_headers(name, content, refused):
    refused(pack(*CHANGES[name](*parts_of(content))))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite(value, content, refused):
    header, data = parts_of(content)
    rows = np.frombuffer(data, "<f4").copy()
    rows[5] = value
    rows = rows.reshape(header["memory_bank"]["shape"])
    changed = entry(digest=digest_of({"memory_bank": rows}))(header, rows.tobytes())
    refused(pack(*changed), "memory_bank holds NaN or infinite values")


def test_a_path_in_a_bank_is_never_opened(content, tmp_path, refused, monkeypatch):
    opened = []
    monkeypatch.setattr(backbones, "read_state", lambda path: opened.append(path))
    monkeypatch.setattr(backbones, "sha256_of", lambda path: opened.append(path))
    for name in ("/etc/passwd", str(tmp_path / "own"), "own file"):
        changed = parameter(weights=name)(*parts_of(content))
        refused(pack(*changed), "name it: weights=FILE in Python, --weights FILE")
    assert opened == []


def test_other_weights_are_refused_before_a_network_is_built(content, refused, monkeypatch):
    monkeypatch.setattr(backbones, "load_backbone", lambda *_: pytest.fail("built"))
    header, data = entry(weights_hash="0" * 64)(*parts_of(content))
    refused(pack(header, data), "made with other weights of test_resnet")
    giant = parameter(backbone="vit_giant_patch14_dinov2")(*parts_of(content))
    refused(pack(*giant), "vit_giant_patch14_dinov2 is too large for random", traced=False)


def test_an_unknown_backbone_is_named(content, refused):
    refused(pack(*parameter(backbone="resnet5")(*parts_of(content))), "backbone 'resnet5': unknown")
    refused(pack(*parameter(layers=[77])(*parts_of(content))), "layers of backbone 'test_resnet'")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("changed") / "bank"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_refused_or_harmless(data, content, place):
    changed = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(0, 3))):
        where = st.integers(0, header - 1) | st.integers(0, len(content) - 1)
        changed[data.draw(where)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    place.write_bytes(bytes(changed[:cut]) + data.draw(st.binary(max_size=4)))
    tracemalloc.start()
    start = time.monotonic()
    try:
        about, tensors = read_bank(place)
        assert digest_of(tensors) == about["digest"]
    except Exception:
        with pytest.raises(InputError) as caught:
            PatchCore.load(place)
        assert "\n" not in str(caught.value)
    finally:
        taken, peak = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken < SECONDS and peak < BYTES
