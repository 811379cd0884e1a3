"""The contenders of `benchmarks.peer`, each run in a process of its own.

    python -m benchmarks.contenders extract CONTENDER JOB.json    # one round per line on stdin
    python -m benchmarks.contenders score CONTENDER JOB.json      # once

A job is the JSON file that `benchmarks.peer` writes: the paths of the images, the backbone and its
weights. Every answer is one line of JSON. anomalib is installed in an environment that has
no `patchcore_helpers`, so each function imports what it needs.
"""

import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


def memory_mb(kind):
    """Resident memory of this process: "VmHWM", the most it ever had, or "VmRSS", now."""
    # getrusage would also count what the parent had when it started this process.
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    sizes = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(sizes[kind].split()[0]) / 1024


# --- extraction: from image files to patch vectors ---


class Truncated(torch.nn.Module):
    """The network up to the last layer in use, from normalized images to that many maps."""

    def __init__(self, backbone, size):
        super().__init__()
        self.backbone = copy.copy(backbone)
        self.backbone.network = copy.deepcopy(backbone.network)
        self.backbone.network.to(memory_format=torch.contiguous_format)
        if hasattr(self.backbone.network, "set_input_size"):
            self.backbone.network.set_input_size(img_size=size)  # resizes a ViT's grid once

    def forward(self, images):
        return tuple(self.backbone.maps(images, gradient=True))


def run_by_torch(network, example):
    def run(images):
        with torch.inference_mode():
            return network(images)

    return run, lambda: torch.backends.cpu.get_cpu_capability()


def run_by_openvino(network, example):
    # OpenVINO reports every import to its maker; without its reporter it does without.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    with torch.no_grad():
        graph = openvino.convert_model(network, example_input=example)
    graph.reshape(list(example.shape))  # a fixed size, which it likes best
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images):
        padded = torch.zeros_like(example)
        padded[: len(images)] = images  # the last batch may be smaller
        outputs = compiled(padded.numpy())
        return [torch.from_numpy(outputs[port][: len(images)]) for port in compiled.outputs]

    def instructions():
        # The names of most kernels say: "brgconv_avx2_1x1_f32", "jit_avx512_f32", "gemm_mlas_f32".
        operations = compiled.get_runtime_model().get_ops()
        kernels = [op.get_rt_info()["primitiveType"].astype(str) for op in operations]
        kinds = [kind for kind in ("avx2", "avx512", "mlas") if any(kind in k for k in kernels)]
        return ", ".join(kinds).upper()

    return run, instructions


def run_by_onnxruntime(network, example):
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}},
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images):
        return [torch.from_numpy(m) for m in session.run(None, {"images": images.numpy()})]

    return run, lambda: "its own choice"


def read_batch(paths, size, mean, std):
    """Image files as one normalized batch, resized by Pillow as the package does it."""
    height, width = size
    pixels = np.stack(
        [
            np.asarray(Image.open(p).convert("RGB").resize((width, height), Image.BILINEAR))
            for p in paths
        ]
    )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ((images - mean) / std).contiguous()


def join(maps, neighborhood):
    """Patch vectors of shape (b, height, width, channels): local means, resized and joined."""
    grid = maps[0].shape[2:]
    joined = []
    for layer in maps:
        mean = F.avg_pool2d(layer, neighborhood, stride=1, padding=neighborhood // 2)
        if mean.shape[2:] != grid:
            mean = F.interpolate(mean, size=grid, mode="bilinear")
        joined.append(mean)
    return torch.cat(joined, 1).permute(0, 2, 3, 1).contiguous()


RUN_BY = {
    "torch": run_by_torch,
    "openvino": run_by_openvino,
    "onnxruntime": run_by_onnxruntime,
}


def plain_loop(job, runtime):
    """One batch after the other: read, normalize, run the truncated network, join.

    The same loop for all three; only what runs the network differs. Threads are as the runtime
    sets them.
    """
    from patchcore_helpers.core.backbones import load_backbone

    backbone = load_backbone(job["backbone"])
    step = backbone.patch_size or 1
    side = job["image_size"] // step * step
    mean = torch.tensor(backbone.mean)[:, None, None]
    std = torch.tensor(backbone.std)[:, None, None]
    batch = job["batch_size"]
    network = Truncated(backbone, (side, side)).eval()
    run, instructions = RUN_BY[runtime](network, torch.zeros(batch, 3, side, side))

    def extract(paths):
        for start in range(0, len(paths), batch):
            images = read_batch(paths[start : start + batch], (side, side), mean, std)
            yield join(run(images), 1 if backbone.patch_size else 3)

    return extract, instructions


def package_loop(job, engine):
    """`Extractor`, as a user calls it."""
    from patchcore_helpers.core.backbones import load_backbone
    from patchcore_helpers.core.extractor import Extractor

    extractor = Extractor(
        load_backbone(job["backbone"]),
        job["image_size"],
        precision="float32",
        batch_size=job["batch_size"],
        engine=engine,
    )

    def instructions():
        return extractor.engine_name

    return extractor.patches, instructions


def products_loop(job):
    """The matrix products of a ViT's linear layers, and nothing else: no image is read.

    The time that is left when attention, norms, images and everything else cost nothing.
    """
    from patchcore_helpers.core.backbones import load_backbone

    backbone = load_backbone(job["backbone"])
    side = job["image_size"] // backbone.patch_size * backbone.patch_size
    batch = job["batch_size"]
    network = Truncated(backbone, (side, side)).eval()
    layers = []

    def note(layer, inputs, _):
        rows = torch.randn(inputs[0].numel() // layer.in_features, layer.in_features)
        layers.append((rows, layer.weight, layer.bias))

    hooks = [
        module.register_forward_hook(note)
        for module in network.backbone.network.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.inference_mode():
        network(torch.zeros(batch, 3, side, side))
    for hook in hooks:
        hook.remove()
    if not layers:
        raise SystemExit(f"{backbone.name}: no linear layer was called")

    def multiply(paths):
        for _ in range(0, len(paths), batch):
            with torch.inference_mode():
                for rows, weight, bias in layers:
                    F.linear(rows, weight, bias)
            yield torch.zeros(0)  # there are no patch vectors

    return multiply, lambda: torch.backends.cpu.get_cpu_capability()


EXTRACTORS = {
    "plain torch float32": lambda job: plain_loop(job, "torch"),
    "plain loop, ONNX Runtime": lambda job: plain_loop(job, "onnxruntime"),
    "plain loop, OpenVINO": lambda job: plain_loop(job, "openvino"),
    "ours, torch": lambda job: package_loop(job, "torch"),
    "ours": lambda job: package_loop(job, "auto"),
    "its matrix products alone": products_loop,
}


def vectors_of(extract, paths):
    return np.concatenate([batch.numpy() for batch in extract(paths)])


def serve_extraction(contender, job):
    """Answer to every line on standard input with one round; the first answer is the set-up.

    The set-up writes the patch vectors of `job["compare"]` to the path in `job["vectors"]`, for
    the parent to compare.
    """
    start = time.perf_counter()
    paths = [Path(path) for path in job["test"]]
    extract, instructions = EXTRACTORS[contender](job)
    vectors = vectors_of(extract, paths[: job["compare"]])
    seconds = time.perf_counter() - start
    for _ in extract(paths):  # the first round warms up
        pass
    np.save(job["vectors"], vectors)
    answer({"setup_seconds": seconds, "instructions": instructions()})
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in extract(paths):
            pass
        answer({"seconds": time.perf_counter() - start, "peak_mb": memory_mb("VmHWM")})


# --- fit and score ---


def score_ours(job, engine):
    """`PatchCore` as a user calls it: fit, detect, maps. Nothing is cached."""
    from patchcore_helpers import MemoryBank, PatchCore

    class StopwatchBank(MemoryBank):
        """Measures its own fit: coreset and index."""

        def fit(self, vectors, y=None):
            start = time.perf_counter()
            super().fit(vectors, y)
            self.fit_seconds_ = time.perf_counter() - start
            return self

    class StopwatchPatchCore(PatchCore):
        def new_bank(self):
            return StopwatchBank(**super().new_bank().get_params())

    start = time.perf_counter()
    model = StopwatchPatchCore(
        job["backbone"],
        image_size=job["image_size"],
        coreset_ratio=job["ratio"],
        batch_size=job["batch_size"],
        engine=engine,
    )
    model.fit([Path(path) for path in job["train"]])
    fitted = time.perf_counter()
    result = model.detect([Path(path) for path in job["test"]])
    maps = model.to_maps(result)
    scored = time.perf_counter()
    return {
        "features": fitted - start - model.bank_.fit_seconds_,
        "coreset": model.bank_.fit_seconds_,
        "scoring": scored - fitted,
        "rows": len(model.bank_),
        "maps": list(np.shape(maps)),
        "scores": np.asarray(result.scores, float).tolist(),
    }


def score_anomalib(job):
    """anomalib's PatchCore: its network, preprocessing, coreset, scores and maps.

    Its torch classes are driven as its lightning module does it: resizing where the images are
    read, in worker processes; the rest of its transform on the batch; `forward` in training mode;
    `subsample_embedding`; `forward` in evaluation mode.
    """
    from anomalib.data.utils import read_image
    from anomalib.models.image.patchcore.lightning_model import Patchcore
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms.v2 import Resize

    size = (job["image_size"], job["image_size"])

    class Images(Dataset):
        def __init__(self, paths):
            self.paths = paths
            self.resize = Resize(size, antialias=True)

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, number):
            return self.resize(read_image(self.paths[number], as_tensor=True))

    def batches(paths):
        workers = min(job["workers"], os.cpu_count())
        return DataLoader(Images(paths), batch_size=job["batch_size"], num_workers=workers)

    torch.manual_seed(0)
    start = time.perf_counter()
    transform = Patchcore.configure_pre_processor(size).transform
    model = PatchcoreModel(
        layers=job["layers"], backbone=job["timm_name"], pre_trained=False, num_neighbors=9
    )
    state = torch.load(job["state"], weights_only=True)
    fit = model.feature_extractor.feature_extractor.load_state_dict(state, strict=False)
    if fit.missing_keys:
        raise SystemExit(f"the weights do not fit anomalib's network: {fit.missing_keys[:3]} ...")
    model.train()
    with torch.no_grad():
        for images in batches(job["train"]):
            model(transform(images))
        extracted = time.perf_counter()
        model.subsample_embedding(job["ratio"])
    fitted = time.perf_counter()
    model.eval()
    scores = []
    maps = []
    with torch.inference_mode():
        for images in batches(job["test"]):
            prediction = model(transform(images))
            scores += prediction.pred_score.flatten().tolist()
            maps.append(prediction.anomaly_map[:, 0].numpy())
    maps = np.concatenate(maps)
    scored = time.perf_counter()
    return {
        "features": extracted - start,
        "coreset": fitted - extracted,
        "scoring": scored - fitted,
        "rows": len(model.memory_bank),
        "maps": list(maps.shape),
        "scores": scores,
    }


SCORERS = {
    "anomalib": score_anomalib,
    "ours, torch": lambda job: score_ours(job, "torch"),
    "ours": lambda job: score_ours(job, "auto"),
}


def answer(values):
    print(json.dumps(values), flush=True)


def main():
    task, contender, job = sys.argv[1:]
    job = json.loads(Path(job).read_text())
    if task == "extract":
        serve_extraction(contender, job)
    else:
        result = SCORERS[contender](job)
        answer(result | {"peak_mb": memory_mb("VmHWM")})


if __name__ == "__main__":
    main()
