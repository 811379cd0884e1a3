"""How fast and in how much memory a saved bank judges many files.

    python -m benchmarks.predict [--images 2000] [--print]

Fits on elpv/mono with the default settings, once with the exact search and once with ivf_pq_fast,
saves both banks and judges copies of the cells with what `patchcore-course predict` runs. Resident
memory is read after image 200 and after the last one. The throughput is compared with plain
feature extraction of the same files, the ways taking turns on chunks of 200 files.
"""

import argparse
import gc
import itertools
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.app.verdicts import judge

INDEXES = ("exact", "ivf_pq_fast")
CHUNK = 200


def resident():
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


def memory(model, files):
    """MB of resident memory after `CHUNK` images and after the last."""
    seen = {}
    for number, _ in enumerate(judge(model, files), 1):
        if number in (CHUNK, len(files)):
            seen[number] = resident()
    return seen


def seconds(way):
    start = time.perf_counter()
    for _ in way:
        pass
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--chunks", type=int, default=5, help="of 200 files, for the throughput")
    parser.add_argument("--print", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    category = load_category("elpv/mono")
    cells = itertools.cycle(category.test + category.calibration)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:05}.png" for i in range(args.images)]
        for file, sample in zip(files, cells, strict=False):
            shutil.copy(sample.image, file)
        models = {}
        for index in INDEXES:
            bank = Path(folder) / f"{index}.safetensors"
            model = PatchCore(index=index, cache=True).fit(category.train)
            model.calibrate(category.calibration).save(bank)
            models[index] = PatchCore.load(bank)
        rss = {index: memory(model, files) for index, model in models.items()}
        ways = {"extraction alone": models["exact"].extractor_.patches}
        ways |= {f"predict, {s}": lambda part, m=m: judge(m, part) for s, m in models.items()}
        times = {way: [] for way in ways}
        for start in range(0, CHUNK * args.chunks, CHUNK):
            part = files[start : start + CHUNK]
            for way, run in ways.items():
                times[way].append(seconds(run(part)) / len(part))
    plain, rows = np.array(times["extraction alone"]), []
    for way, each in times.items():
        index = way.partition(", ")[2]
        mb = [f"{value:.0f}" for value in rss[index].values()] if index else ["", ""]
        share = f"{np.median(plain / each):.2f}"
        rows.append((way, f"{1 / np.median(each):.1f}", share, *mb))
    columns = ["way", "images per second", "share of extraction"]
    columns += [f"MB at image {n:,}" for n in (CHUNK, args.images)]
    table = pd.DataFrame(rows, columns=columns)
    print(table.to_string(index=False))
    if args.print:
        return
    text = f"""## Verdicts from a saved bank

`python -m benchmarks.predict`, {time.strftime("%Y-%m-%d")}; {report.processor()},
{torch.get_num_threads()} threads, torch {torch.__version__}. {args.images:,} PNG files of 300 px,
default settings, {len(models["exact"].bank_):,} rows; medians over {args.chunks} chunks of
{CHUNK} files, the ways taking turns.

{report.of_frame(table)}

"""
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(report.RESULTS / "predict.csv", index=False)
    report.write_part("predict", text)


if __name__ == "__main__":
    main()
