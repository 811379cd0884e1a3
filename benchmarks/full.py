"""How long the experiments take on MVTec AD, VisA and AITEX, extrapolated from embedded images.

    python -m benchmarks.full [--train 160] [--test 80]

Runs the full settings of experiments 1 to 3 (notebooks/configs/exp*_config.yaml) on solar cells,
enlarged to the size of MVTec AD's pictures, twice: with all images and with half as many. Time
per image for the network, and what comes after it (choosing, searching, measuring), are scaled to
the published numbers of images; the smaller run checks the rule that scales. Where a backbone's
weights are not installed its network gets random ones: the arithmetic is the same. Writes the table
of docs/full.md.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import yaml

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.experiments import exp2, exp3
from patchcore_helpers.experiments.common import load_patches, require_weights
from patchcore_helpers.experiments.grid import Skipped

ROOT = report.HERE.parent
# Published numbers of images of each category: (normal ones to train on, to test).
IMAGES = {
    "mvtec_ad": {"bottle": (209, 83), "cable": (224, 150), "hazelnut": (391, 110),
                 "leather": (245, 124), "screw": (320, 160)},
    "visa": {"candle": (900, 200), "capsules": (542, 160), "cashew": (450, 150),
             "chewinggum": (453, 150), "fryum": (450, 150), "macaroni1": (900, 200),
             "macaroni2": (900, 200), "pcb1": (904, 200), "pcb2": (901, 200), "pcb3": (905, 201),
             "pcb4": (904, 201), "pipe_fryum": (450, 150)},
}  # fmt: skip
AITEX_STRIPS = 245
SIDE = 1000  # pixels; MVTec AD has 700 to 1024


def settings_of(number):
    path = ROOT / "notebooks" / "configs" / f"exp{number}_config.yaml"
    return yaml.safe_load(path.read_text())


def seconds_of(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


def work(train, test):
    """What comes after the network grows with train x train (choosing) and test x train."""
    return train * (train + test)


def measure_backbone(name, config, images):
    """Seconds of the network per image, of the rest in all, and bytes of patches per image."""
    weights = None
    try:
        require_weights(name)
    except Skipped:
        weights = "random"
    with tempfile.TemporaryDirectory() as cache:
        model = PatchCore(
            name,
            weights=weights,
            image_size=config["image_size"],
            coreset_ratio=config["coreset_ratio"],
            n_neighbors=config["n_neighbors"],
            cache=cache,
        )

        def fit_and_score():
            model.fit(images.train).detect(images.test)

        first, second = seconds_of(fit_and_score)[0], seconds_of(fit_and_score)[0]
    n = len(images.train) + len(images.test)
    patches = model.n_patches_ / len(images.train) * model.bank_.vectors_.shape[1] * 4
    return (first - second) / n, second, patches, weights or "its own"


def measure_task(module, config, folder, images):
    """The same of one seed of experiment 2 or 3, which share the network's output."""
    names = {field.name for field in dataclasses.fields(module.Settings)} - {"data_dir"}
    options = {name: value for name, value in config.items() if name in names}
    settings = module.Settings(**options, use_cache=False)
    network, _ = seconds_of(load_patches, settings, settings.backbone, str(folder))
    everything, _ = seconds_of(module.run_task, settings, str(folder), 0)
    return network / (len(images.train) + len(images.test)), everything - network


def extrapolate(config, categories, network, rest, base):
    """Seconds: the network once per image, the rest once per seed, scaled by `work`."""
    seeds = config.get("n_seeds", 1)
    sizes = [IMAGES[c.split("/")[0]][c.split("/")[1]] for c in categories]
    images = sum(train + test for train, test in sizes)
    return images * network + seeds * rest * sum(work(*s) for s in sizes) / work(*base)


def enlarge(folder, train, test):
    """Write solar cells as a folder of PNG files of SIDE pixels, in the MVTec AD layout."""
    cells = load_category("elpv/mono").limit(train, test // 2)
    for part, samples in (("train", cells.train), ("test", cells.test)):
        for i, sample in enumerate(samples):
            target = folder / part / ("defect" if sample.label else "good") / f"{i:03}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            sample.read().resize((SIDE, SIDE)).save(target)
    return load_category(str(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--test", type=int, default=80)
    args = parser.parse_args()
    full, half = (args.train, args.test), (args.train // 2, args.test // 2)
    home = tempfile.TemporaryDirectory()
    folders = {n: Path(home.name, f"cells{n[0]}") for n in (full, half)}
    images = {n: enlarge(folder, *n) for n, folder in folders.items()}
    rows, off = [], []

    def add(number, what, config, categories, network, rest, small):
        total = extrapolate(config, categories, network, rest, full) / 60
        off.append(rest * work(*half) / work(*full) / small)
        rows.append((number, what, len(categories), round(1000 * network), round(rest, 1),
                     round(total)))  # fmt: skip
        print(*rows[-1], f"rule / measured at half size: {off[-1]:.2f}", flush=True)

    config, memory = settings_of(1), 0
    categories = config["in_domain"] + config["cross_domain"]
    for name in config["backbones"]:
        network, rest, per_image, weights = measure_backbone(name, config, images[full])
        _, small, _, _ = measure_backbone(name, config, images[half])
        memory = max(memory, per_image * max(IMAGES["visa"].values())[0])
        add(4, f"{name}, weights: {weights}", config, categories, network, rest, small)
    for number, module in ((2, exp2), (3, exp3)):
        config = settings_of(number)
        network, rest = measure_task(module, config, folders[full], images[full])
        small = measure_task(module, config, folders[half], images[half])[1]
        add(number + 3, f"experiment {number}", config, config["categories"], network, rest, small)
    run = json.loads((ROOT / "docs" / "runs" / "07_aitex_tiling.json").read_text())
    columns = ["notebook", "what", "categories", "network, ms per image", "rest, s per seed",
               "minutes"]  # fmt: skip
    pd.DataFrame(rows, columns=columns).to_csv(report.RESULTS / "full.csv", index=False)
    seconds = run["seconds"] / run["results"]["n_strips"]
    rows.append((7, f"AITEX, all {AITEX_STRIPS} strips", 7, f"{1000 * seconds:.0f} in all, a strip",
                 "", round(seconds * AITEX_STRIPS / 60)))  # fmt: skip
    text = f"""
Extrapolated, not run: `python -m benchmarks.full`, {time.strftime("%Y-%m-%d")};
{report.processor()}, {torch.get_num_threads()} threads. Measured on {full[0]} + {full[1]} solar
cells, enlarged to {SIDE:,} px, with the full settings (notebook 7: the committed run, per strip);
scaled to the published numbers of images: the network per image, the rest as training images times
all images, times the seeds. At half the images that rule gives {min(off):.2f} to {max(off):.2f}
times what was measured there: below 1 means that the minutes below are rather too high. They
are estimates. The rows of notebook 4 add up.

{report.table(columns, rows)}

The patch vectors of the largest VisA category take {memory / 1e9:.1f} GB with the widest backbone,
beside the process's own 1 to 2 GB.

"""
    report.write_part("full", text, ROOT / "docs", "full.md")


if __name__ == "__main__":
    main()
