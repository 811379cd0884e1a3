"""Memory banks on disk that are damaged or hostile: refused in one line, soon, in little memory."""

import io
import json
import math
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.bank_files import BankParts, header_and_data, pack, read_parts, without_images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core import backbones, patchcore
from patchcore_helpers.core.bank_file import LARGEST_FILE, read_bank_file

MOST_MEMORY = 20e6  # bytes that a refusal may take
SOON = 2  # seconds of processor time that it may take


@pytest.fixture(scope="module")
def saved(photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "bank"
    options = {"image_size": 64, "coreset_ratio": 0.05, "precision": "float32"}
    model = PatchCore("test_resnet", weights="random", **options).fit(photos)
    model.calibrate(photos, 0.5).save(path)
    return path


@pytest.fixture
def refused(tmp_path):
    def check(content, message="not a memory bank of this package", traced=True):
        path = tmp_path / "bank"
        path.write_bytes(content)
        if traced:
            tracemalloc.start()
        begin = time.process_time()
        try:
            with pytest.raises(InputError, match=message) as caught:
                PatchCore.load(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if traced:  # without it, a network has been looked up
            assert time.process_time() - begin < SOON
        line = str(caught.value)
        assert line.startswith(str(path)) and "\n" not in line and len(line) < 600
        assert peak < MOST_MEMORY

    return check


# Changes of the safetensors file: they take and return its header and the bytes of its arrays.


def tensor(**change):
    """Change the entry of `vectors` in the header."""

    def apply(header, data):
        return {**header, "vectors": {**header["vectors"], **change}}, data

    return apply


def read_as(dtype, narrower):
    """The same bytes, and so the same digest, as numbers of another type."""

    def apply(header, data):
        rows, columns = header["vectors"]["shape"]
        return tensor(dtype=dtype, shape=[rows, columns * narrower])(header, data)

    return apply


def extra(name, dtype="F32"):
    """One more tensor, in sound offsets."""

    def apply(header, data):
        end = len(data)
        added = {"dtype": dtype, "shape": [1, 1], "data_offsets": [end, end + 4]}
        return {**header, name: added}, data + bytes(4)

    return apply


# Changes of the texts, under a digest that fits them: they take the parts of the file.


def metadata(**change):
    return lambda parts: parts.changed_metadata.update(change)


def bank(**change):
    return lambda parts: parts.bank["settings"].update(change)


def detector(**change):
    return lambda parts: parts.detector.update(change)


def images(**change):
    return lambda parts: parts.images.update(change)


def replaced(name, array):
    """Put another array of this name among the arrays."""
    return lambda tensors: tensors.update({name: array})


def changed(saved, change):
    """The bytes of the saved bank after a change of either kind."""
    parts = read_parts(saved)
    change(parts)
    return parts.to_bytes()


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
HEADERS = {
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
    "whole numbers of 32 bits": read_as("I32", 1),
    "whole numbers of 32 bits without a sign": read_as("U32", 1),
    "floats of 16 bits": read_as("F16", 2),
    "bfloat16": read_as("BF16", 2),
    "bytes": read_as("U8", 4),
    "truths": read_as("BOOL", 4),
    "floats of 8 bits": read_as("F8_E4M3", 4),
    "a tensor that is no entry": lambda h, d: ({**h, "vectors": 3}, d),
    "an unknown tensor": extra("other"),
    "a tensor of another index": extra("codes", "U8"),
    "a tensor with a path for a name": extra("../../etc/passwd"),
    "bytes behind the tensors": lambda h, d: (h, d + b"x" * 8),
    "bytes missing": lambda h, d: (h, d[:-4]),
    "metadata of another program": lambda h, d: ({**h, "__metadata__": {"format": "pt"}}, d),
    "metadata of numbers": lambda h, d: ({**h, "__metadata__": {"bank": 3}}, d),
    "a bank of version 0.1": lambda h, d: ({**h, "__metadata__": {"patchcore": "{}"}}, d),
}
TEXTS = {
    "another digest": metadata(digest="0" * 64),
    "another format": metadata(format="patchcore-helpers memory bank 4"),
    "no JSON about the bank": metadata(bank="x"),
    "no detector": metadata(detector=""),
    "an unknown entry": lambda parts: parts.bank.update(command="rm"),
    "an unknown parameter of the bank": bank(cache="/tmp/x"),
    "vectors below 0": lambda parts: parts.bank.update(n_vectors=-1),
    "a missing parameter of the bank": lambda parts: parts.bank["settings"].pop("metric"),
    "neighbors by the million": bank(n_neighbors=10**9),
    "neighbors as text": bank(n_neighbors="1"),
    "a projection of a billion": bank(projection=10**9),
    "a graph with too many links": bank(index={"kind": "hnsw", "links": 5120}),
    "a walk without end": bank(index={"kind": "hnsw", "ef_search": 2**31 - 1}),
    "clusters by the billion": bank(index={"kind": "ivf_sq8", "n_clusters": 10**9}),
    "an index with a path": bank(index={"kind": "exact", "path": "/etc/passwd"}),
    "an index that is a list": bank(index=["exact"]),
    "an odd metric": bank(metric="l1"),
    "no share": bank(coreset_ratio=0),
    "a seed below 0": bank(random_state=-1),
    "an unknown parameter": detector(cache="/tmp/x"),
    "a progress bar": detector(progress=True),
    "a missing parameter": lambda parts: parts.detector.pop("sigma"),
    "a hub address": detector(backbone="hf-hub:evil/model"),
    "a local folder": detector(backbone="local-dir:/tmp/evil"),
    "a path": detector(backbone="../../evil"),
    "a backbone of many letters": detector(backbone="a" * 10**5),
    "a backbone that is a list": detector(backbone=["resnet18"]),
    "weights that are a list": detector(weights=["random"]),
    "weights that are a path": detector(weights="/etc/passwd"),
    "an image size of a million": detector(image_size=10**6),
    "an image size of a pair of millions": detector(image_size=[10**6, 10**6]),
    "three sides": detector(image_size=[64, 64, 64]),
    "a batch of a million": detector(batch_size=10**6),
    "a batch of none": detector(batch_size=0),
    "a batch of True": detector(batch_size=True),
    "a huge sigma": detector(sigma=1e300),
    "an endless sigma": detector(sigma=math.inf),
    "layers by the thousand": detector(layers=list(range(1000))),
    "a negative layer": detector(layers=[-1]),
    "an endless threshold": detector(threshold=math.inf),
    "a threshold of text": detector(threshold="1"),
    "versions by number": detector(made_with={"torch": 2}),
    "versions of everything": detector(made_with={str(n): "1" for n in range(1000)}),
    "no such precision": detector(precision="auto"),
    "no hash": detector(weights_hash="../weights"),
    "an unknown setting of the images": images(folder="/tmp/x"),
    "a grid of a million": images(grid=[10**6, 1]),
    "a grid of other images": images(grid=[1, 1]),
    "a grid that is a number": images(grid=8),
    "alarms without end": images(false_alarm_rate=1.0),
    "a region of interest that is not there": images(roi_width=64),
    "a region of interest of a million pixels a side": images(roi_width=10**6),
    "no rate where there are scores": lambda parts: parts.images.pop("false_alarm_rate"),
}
TENSORS = {
    "no names": lambda tensors: tensors.pop("image_names"),
    "one name less": replaced("image_names", np.frombuffer(b"a\n" * 7, np.uint8)),
    "one digest less": lambda tensors: tensors.update(image_digests=tensors["image_digests"][1:]),
    "names without an end": replaced("image_names", np.frombuffer(b"a\n" * 7 + b"a", np.uint8)),
    "names that are no text": replaced("image_names", np.frombuffer(b"\xff\n" * 8, np.uint8)),
    "names with control characters": replaced(
        "image_names", np.frombuffer(b"\x1b[2J\n" * 8, np.uint8)
    ),
    "a name of many letters": replaced(
        "image_names", np.frombuffer(b"a" * 10**5 + b"\n" * 8, np.uint8)
    ),
    "a score less": lambda tensors: tensors.update(
        calibration_scores=tensors["calibration_scores"][1:]
    ),
    "scores that are not finite": replaced("calibration_scores", np.full(8, np.nan, np.float32)),
    "an origin below 0": lambda tensors: tensors["origins"].put(0, -1),
    "an origin beyond the images": lambda tensors: tensors["origins"].put(0, 8 * 64),
    "an origin twice": lambda tensors: tensors["origins"].put(0, tensors["origins"][1]),
    "an origin less": lambda tensors: tensors.update(origins=tensors["origins"][1:]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_banks(name, refused):
    refused(FILES[name])


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers(name, saved, refused):
    refused(pack(*HEADERS[name](*header_and_data(saved.read_bytes()))))


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts(name, saved, refused):
    refused(changed(saved, TEXTS[name]))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5, 0.9, 0.999])
def test_truncated_banks(share, saved, refused):
    content = saved.read_bytes()
    refused(content[: int(share * len(content))])


def test_a_file_too_large_to_read(tmp_path, saved):
    """A sound beginning, and a hole that takes no room on the disk."""
    path = tmp_path / "bank"
    path.write_bytes(saved.read_bytes())
    with open(path, "r+b") as file:
        file.truncate(LARGEST_FILE + 1)
    begin = time.process_time()
    with pytest.raises(InputError, match=f"in a file of {LARGEST_FILE + 1}"):
        PatchCore.load(path)
    assert time.process_time() - begin < SOON


class Attack:
    """Whoever unpickles it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def as_numpy(attack):
    """As `numpy.save` writes objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([attack], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def as_torch(attack):
    """As `torch.save` writes them: a pickle in a zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(attack))
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


def behind_a_length(attack):
    """Where the header of a bank would be."""
    return pack(pickle.dumps(attack))


DISGUISES = {
    "a pickle": pickle.dumps,
    "an array of objects": as_numpy,
    "a checkpoint": as_torch,
    "a header": behind_a_length,
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_pickle_by_another_name_is_not_unpickled(name, refused, tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Attack(marker)))
    assert marker.exists()  # the attack is one
    marker.unlink()
    refused(DISGUISES[name](Attack(marker)))
    assert not marker.exists()


# Loads a sound bank, for all that is imported late, and then hostile ones, with Python looking on.
WATCHED = """if True:
    import sys, time
    from patchcore_helpers import InputError, PatchCore

    NAMES = ("open", "exec", "import", "os.system", "os.exec", "os.posix_spawn", "ctypes.dlopen")
    NAMES += ("subprocess.Popen", "socket.connect", "pickle.find_class", "marshal.loads")
    sound, *hostile = sys.argv[1:]
    PatchCore.load(sound)
    of_python = tuple(folder for folder in sys.path if folder)

    def is_expected(name, given, path):
        "The bank file; versions of packages are looked up; torch asks whether there is a GPU."
        what = str(given[0])
        if name == "ctypes.dlopen":
            return what == "libnvidia-ml.so.1"
        is_metadata = what.endswith(("METADATA", "PKG-INFO"))
        return name == "open" and (what == path or is_metadata or what.startswith(of_python))

    seen = []
    sys.addaudithook(lambda name, given: seen.append((name, given)) if name in NAMES else None)
    for path in hostile:
        seen.clear()
        begin = time.process_time()
        try:
            PatchCore.load(path)
        except InputError:
            pass
        else:
            sys.exit(f"{path}: not refused")
        seconds = time.process_time() - begin
        others = [event for event in list(seen) if not is_expected(*event, path)]
        print(seconds, others)
"""


@pytest.mark.long
def test_nothing_is_executed_and_no_other_file_opened(saved, tmp_path):
    contents = list(FILES.values())
    original = saved.read_bytes()
    contents += [pack(*change(*header_and_data(original))) for change in HEADERS.values()]
    contents += [changed(saved, change) for change in TEXTS.values()]
    contents += [disguise(Attack(tmp_path / "marker")) for disguise in DISGUISES.values()]
    paths = []
    for number, content in enumerate(contents):
        paths.append(tmp_path / f"{number}.safetensors")
        paths[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, saved, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    for line in lines:
        seconds, events = line.split(" ", 1)
        assert float(seconds) < SOON and events == "[]"


@pytest.mark.parametrize("name", TENSORS)
def test_hostile_memories_of_images(name, saved, refused):
    refused(changed(saved, lambda parts: TENSORS[name](parts.tensors)))


ROI = {
    "another width": images(roi_width=80),
    "no width": images(roi_width=None),
    "no pixel": lambda parts: parts.tensors.update(roi=np.zeros((64, 8), np.uint8)),
    "a pixel that is in no patch": lambda parts: parts.tensors.update(
        roi=np.eye(64, 8, dtype=np.uint8)[:, ::-1]
    ),
    "a region of other patches": lambda parts: parts.tensors.update(
        roi=np.full((64, 8), 255, np.uint8)
    ),
    "more pixels than an image has": lambda parts: (
        parts.images.update(roi_width=80_000),
        parts.tensors.update(roi=np.full((1300, 10_000), 255, np.uint8)),
    ),
}


@pytest.mark.parametrize("name", ROI)
def test_hostile_regions_of_interest(name, photos, refused, tmp_path):
    roi = np.zeros((64, 64), bool)
    roi[16:48, 16:48] = True
    model = PatchCore("test_resnet", weights="random", image_size=64, roi=roi).fit(photos)
    model.save(tmp_path / "sound")
    refused(changed(tmp_path / "sound", ROI[name]), traced=False)


def test_what_is_remembered_of_images(photos, saved):
    model = PatchCore.load(saved)
    assert len(model.taught_) == 8 and set(model.taught_.names) == {""}
    fitted = PatchCore("test_resnet", weights="random", image_size=64, coreset_ratio=0.05)
    fitted.fit(photos)
    np.testing.assert_array_equal(model.origin(np.arange(5)), fitted.origin(np.arange(5)))
    scores = fitted.anomaly_scores(photos)
    np.testing.assert_allclose(model.calibration_.scores, scores, rtol=1e-4, atol=1e-4)
    assert model.calibration_.false_alarm_rate == 0.5
    assert model.calibration_.threshold == model.threshold_


def test_a_file_of_format_2_is_read_and_knows_no_images(saved, tmp_path, photos):
    without_images(saved, tmp_path / "earlier")
    earlier, model = PatchCore.load(tmp_path / "earlier"), PatchCore.load(saved)
    np.testing.assert_array_equal(earlier.anomaly_scores(photos), model.anomaly_scores(photos))
    assert earlier.threshold_ == model.threshold_ and earlier.taught_ is None
    with pytest.raises(InputError, match="does not know its images; fit it again"):
        earlier.origin(np.array([0]))
    earlier.save(tmp_path / "again")
    assert PatchCore.load(tmp_path / "again").taught_ is None


def test_an_earlier_format_says_what_to_do(saved, refused):
    content = pack(*HEADERS["a bank of version 0.1"](*header_and_data(saved.read_bytes())))
    refused(content, "saved before format 2.*fit it and save it again")


def test_a_changed_setting_does_not_match_the_digest(saved, refused):
    """A threshold with another digit is as plausible as the true one."""
    header, data = header_and_data(saved.read_bytes())
    texts = header["__metadata__"]
    settings = json.loads(texts["detector"])
    texts["detector"] = json.dumps({**settings, "threshold": settings["threshold"] + 1})
    refused(pack(header, data), "do not match their checksum")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite(value, saved, refused):
    def spoil(parts: BankParts):
        parts.tensors["vectors"][0, 5] = value

    refused(changed(saved, spoil), "vectors holds NaN or infinite values")


def test_custom_weights_must_be_named_by_the_user(saved, refused, monkeypatch):
    opened = []
    monkeypatch.setattr(backbones, "read_state", lambda path: opened.append(path))
    monkeypatch.setattr(backbones, "sha256_of", lambda path: opened.append(path))
    content = changed(saved, detector(weights="custom file"))
    refused(content, "name it: weights=FILE in Python, --weights FILE")
    assert opened == []


def test_other_weights_are_refused_before_a_network_is_built(saved, refused, monkeypatch):
    monkeypatch.setattr(patchcore, "load_backbone", lambda *_: pytest.fail("built"))
    refused(
        changed(saved, detector(weights_hash="0" * 64)), "made with other weights of test_resnet"
    )
    giant = changed(saved, detector(backbone="vit_giant_patch14_dinov2"))
    refused(giant, "vit_giant_patch14_dinov2 is too large for random", traced=False)


def test_an_unknown_backbone_is_named(saved, refused):
    refused(changed(saved, detector(backbone="resnet5")), "backbone 'resnet5': unknown")
    refused(changed(saved, detector(layers=[77])), "layers of backbone 'test_resnet'")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("changed") / "bank"


@pytest.mark.long
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_refused_or_harmless(data, saved, place):
    content = saved.read_bytes()
    mutated = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(0, 3))):
        where = st.integers(0, header - 1) | st.integers(0, len(content) - 1)
        mutated[data.draw(where)] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    place.write_bytes(bytes(mutated[:cut]) + data.draw(st.binary(max_size=4)))
    tracemalloc.start()
    try:
        file = read_bank_file(place)
    except InputError as error:
        assert "\n" not in str(error)
        with pytest.raises(InputError):
            PatchCore.load(place)
    else:  # a change of the header that means the same, such as a space
        original = read_bank_file(saved)
        assert (file.settings, file.detector) == (original.settings, original.detector)
        np.testing.assert_array_equal(file.tensors["vectors"], original.tensors["vectors"])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY
