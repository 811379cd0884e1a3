"""The coreset of shards beside greedy k-center of all rows, and a plan for 50 million patches.

    python -m benchmarks.scale                   # everything: 20 minutes on 2 cores, 6 GB of disk
    python -m benchmarks.scale --parts shards    # 2 minutes; the rest as it is
    python -m benchmarks.scale --parts           # only the texts, from results/scale.csv

`shards`: elpv/mono as in coreset.py, 1 %, cut into 2, 4 and 8 shards, three seeds; true radius and
image AUROC beside the exact greedy choice. `big`: synthetic vectors of 128 columns in shards of
half a million, memory-mapped, 0.1 %, two worker processes.

Writes results/scale.csv, the part on scale of README.md and the plan in docs/scale.md.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from benchmarks import coreset as plain
from benchmarks import report

HERE = Path(__file__).resolve().parent
PARTS, SHARD, WORKERS, WIDTH = ["shards", "big"], 500_000, 2, 128
PLAN, SHARE = 50_000_000, 0.001


class Watch:
    """Largest own memory (RssAnon, MB) of a child process; pages of mapped files are not in it."""

    def __enter__(self):
        self.peak, self.done = 0.0, threading.Event()
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()
        return self

    def _follow(self):
        while not self.done.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                except OSError:
                    continue
                own = [int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")]
                self.peak = max([self.peak, *own])

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def choose(shards, k, m=None, seed=0):
    """The coreset, and a row of the table: seconds of either round and the workers' memory."""
    from patchcore_helpers.core.sharded import (
        choose_among,
        choose_candidates,
        coverage_radius,
        scan_shards,
    )

    few = [np.load(shards[0], mmap_mode="r")[:64].copy()] * WORKERS
    with Watch() as base:
        coverage_radius(few, few[0], n_jobs=WORKERS)  # the workers import what they need
        time.sleep(0.2)
    start = time.perf_counter()
    with Watch() as watch:
        listed = scan_shards(shards)
        candidates = choose_candidates(listed, m or k, random_state=seed, n_jobs=WORKERS)
        middle = time.perf_counter()
        chosen = choose_among(candidates, k, random_state=seed)
    end = time.perf_counter()
    rows = sum(len(np.load(path, mmap_mode="r")) for path in shards)
    return chosen, {
        **{"n": rows, "shards": len(shards), "k": k, "m": m or k, "seed": seed},
        **{"seconds": end - start, "first": middle - start, "second": end - middle},
        **{"peak_mb": watch.peak, "base_mb": base.peak, "load": os.getloadavg()[0]},
    }


def shards_part(folder):
    """Two, four and eight shards of elpv/mono against the exact greedy choice."""
    from patchcore_helpers import load_category
    from patchcore_helpers.core.backbones import load_backbone
    from patchcore_helpers.core.coreset import k_center_greedy
    from patchcore_helpers.core.extractor import Extractor
    from patchcore_helpers.core.feature_cache import FeatureCache
    from patchcore_helpers.core.index import ExactIndex
    from patchcore_helpers.core.metrics import image_auroc
    from patchcore_helpers.core.sharded import coverage_radius

    path, n = plain.prepare_features(10**9)
    rows, category = np.load(path), load_category("elpv/mono")
    labels = np.array([sample.label for sample in category.test])
    extractor = Extractor(load_backbone("efficientnet_lite0"), 256, cache=FeatureCache())
    test = extractor.extract(category.test)

    def judge(bank):
        distances, _ = ExactIndex().fit(bank).query(test.reshape(-1, test.shape[-1]))
        auroc = image_auroc(labels, distances.reshape(len(test), -1).max(1))
        return {"radius": coverage_radius([path], bank), "auroc": auroc}

    for seed in range(3):
        start = time.perf_counter()
        bank = rows[k_center_greedy(rows, n // 100, random_state=seed).indices]
        seconds = time.perf_counter() - start
        row = {"n": n, "shards": 1, "k": len(bank), "m": len(bank), "seed": seed}
        yield {**row, "seconds": seconds, "load": os.getloadavg()[0], **judge(bank)}
        for count in (2, 4, 8):
            paths = []
            for number, part in enumerate(np.array_split(rows, count)):
                paths.append(folder / f"{count}_{number}.npy")
                np.save(paths[-1], part)
            for m in dict.fromkeys((n // 100, n // 100 // count * 2)):
                chosen, row = choose(paths, n // 100, m, seed)
                yield {**row, **judge(chosen.centers)}


def big_part(folder, sizes):
    """Synthetic vectors, as in coreset.py, in shards that are written as they are needed."""
    from patchcore_helpers.core.coreset import GreedySearch
    from patchcore_helpers.core.distances import single_threaded_workers
    from patchcore_helpers.core.vector_space import open_space

    if shutil.disk_usage(folder).free < 1.2 * max(sizes) * WIDTH * 4:
        sys.exit(f"{folder}: {max(sizes) * WIDTH * 4 / 1e9:.1f} GB are needed; use --big or TMPDIR")
    rng = np.random.default_rng(0)
    inward, outward = rng.normal(size=(16, 64)), rng.normal(size=(64, WIDTH)) / 8
    paths = []
    for size in sizes:
        while len(paths) * SHARD < size:
            paths.append(folder / f"{len(paths):04}.npy")
            out = np.lib.format.open_memmap(paths[-1], "w+", np.float32, (min(SHARD, size), WIDTH))
            for start in range(0, len(out), 50_000):
                some = rng.normal(size=(len(out[start : start + 50_000]), 16))
                noise = 0.1 * rng.standard_normal((len(some), WIDTH), np.float32)
                out[start : start + len(some)] = np.tanh(some @ inward / 4) @ outward + noise
            out.flush()
        _, row = choose(paths, int(size * SHARE))
        vectors = np.load(paths[0], mmap_mode="r")
        with single_threaded_workers() as for_each:  # how often a shard is read
            space = open_space(vectors, plain.PROJECTION, 0, for_each)
            passes = list(GreedySearch(space, for_each, first=[0]).rounds(row["m"]))
        yield {**row, "passes": len(passes)}


# --- the report ---


def beside_exact(frame):
    exact = frame[frame.shards == 1].set_index("seed")
    rows = []
    for (count, m), some in frame[frame.shards > 1].groupby(["shards", "m"]):
        some = some.set_index("seed")
        ratio, apart = some.radius / exact.radius, some.auroc - exact.auroc
        rows.append(
            [
                f"{count}", f"{m:,}", f"{ratio.mean():.3f} ({ratio.max():.3f})",
                f"{apart.mean():+.4f} ({apart.min():+.4f} to {apart.max():+.4f})",
                f"{some.seconds.mean():.1f}", f"{some.peak_mb.max():.0f}",
                f"{some.peak_mb.max() - some.base_mb.max():.0f}",
            ]
        )  # fmt: skip
    head = [
        "shards",
        "candidates of each",
        "radius / exact (largest)",
        "image AUROC - exact (range)",
    ]
    return report.table([*head, "seconds", "worker, MB", "of it for the work, MB"], rows)


def units(big):
    """What one distance costs a worker, and this process; from the largest run."""
    last = big.iloc[-1]
    per_distance = last.first * WORKERS / (last.n * last.m)
    second = last.second / (last.shards * last.m * last.k)
    return last, per_distance, second


def plan_table(big):
    """50 million patches on paper, from measured unit costs."""
    last, per_distance, second = units(big)
    k, shards, size = int(PLAN * SHARE), PLAN // SHARD, WIDTH * 4
    rows = []
    for m in (k, k // 10):
        passes, union = last.passes * max(1, m / last.m), shards * m
        end = union * k * second
        rows.append(
            [
                f"{m:,}", *(f"{(PLAN * m * per_distance / w + end) / 60:.0f}" for w in (2, 8, 32)),
                f"{end / 60:.0f}", f"{PLAN * size / 1e9:.1f}",
                f"{PLAN * size * passes / 1e12:.1f}", f"{union * size / 1e9:.2f}",
                f"{last.peak_mb + max(0, 2 * (m - last.m) * size / 1e6):.0f}",
                f"{union * (size + 2 * 32) / 1e9:.1f}",
            ]
        )  # fmt: skip
    head = ["candidates of each shard", *(f"minutes, {w} workers" for w in (2, 8, 32))]
    head += ["of them second round", "files, GB", "read from memory, TB", "sent, GB"]
    return report.table([*head, "a worker, MB", "client, GB"], rows)


def plan_text(frame):
    big = frame[frame.part == "big"]
    if big.empty:
        return "Not measured yet: run `python -m benchmarks.scale`.\n"
    last, per_distance, second = units(big)
    return f"""Extrapolated, not measured: {PLAN:,} x {WIDTH} float32 in shards of {SHARD:,},
{SHARE:.1%} chosen. Unit costs from {int(last.n):,} vectors on {WORKERS} worker processes
(see benchmarks/README.md): {1e9 * per_distance:.2f} ns of a worker per distance of the first round,
{1e9 * second:.2f} ns per distance of the second, {int(last.passes)} passes over a shard for
{int(last.m):,} candidates (taken to grow with them), a worker's own memory {last.peak_mb:.0f} MB.

{plan_table(big)}
"""


def write_plan(text, path):
    begin, end = "<!-- plan: written by benchmarks/scale.py -->\n", "<!-- plan: end -->\n"
    head, _, rest = path.read_text().partition(begin)
    path.write_text(head + begin + text + end + rest.partition(end)[2])


def write_report(frame, folder):
    parts = [f"## Coresets of shards\n\n`python -m benchmarks.scale`, {time.strftime('%Y-%m-%d')}; "
             f"{report.processor()}, {WORKERS} worker processes, load average "
             f"{frame.load.min():.1f} to {frame.load.max():.1f}.\n"]  # fmt: skip
    if "shards" in set(frame.part):
        some = frame[frame.part == "shards"].astype({"shards": int, "m": int})
        exact = some[some.shards == 1]
        n, k = int(some.n.iloc[0]), int(some.k.iloc[0])
        parts.append(f"""elpv/mono, {n:,} x 152, {k:,} chosen; means over
{exact.seed.nunique()} seeds. The radius is the true one over all vectors, unprojected; exact greedy
k-center reaches {exact.radius.mean():.2f} and AUROC {exact.auroc.mean():.4f}
({exact.auroc.min():.4f} to {exact.auroc.max():.4f}) in {exact.seconds.mean():.1f} s. Memory is a
worker's own, without the pages of the mapped files.

{beside_exact(some)}
""")
    big = frame[frame.part == "big"]
    if len(big):
        power = np.polyfit(np.log(big.n), np.log(big.seconds), 1)[0] if len(big) > 1 else np.nan
        rows = [
            [f"{int(r.n):,}", int(r.shards), f"{int(r.k):,}", f"{r.seconds:.0f}", f"{r.first:.0f}",
             f"{r.second:.1f}", f"{r.peak_mb:.0f}", f"{r.peak_mb - r.base_mb:.0f}", int(r.passes)]
            for r in big.itertuples()
        ]  # fmt: skip
        head = ["vectors", "shards", "chosen", "seconds", "first round", "second round"]
        head += ["worker, MB", "of it for the work, MB", "passes over a shard"]
        parts.append(f"""Synthetic, {WIDTH} columns, {SHARE:.1%}, memory-mapped:

{report.table(head, rows)}

At a fixed share the seconds grow as N to the power of {power:.2f}; a worker's memory does not.

{plan_text(frame)}""")
    report.write_part("scale", "\n".join(parts), folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--big", nargs="*", type=int, default=[1_000_000, 3_000_000, 10_000_000])
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--plan", type=Path, default=HERE.parent / "docs" / "scale.md")
    args = parser.parse_args()
    plain.WORK.mkdir(parents=True, exist_ok=True)
    args.results.mkdir(parents=True, exist_ok=True)
    kept = args.results / "scale.csv"
    frame = pd.read_csv(kept) if kept.exists() else pd.DataFrame({"part": []})
    frame = frame[~frame.part.isin(args.parts)]
    for part in args.parts:
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            made = shards_part(folder) if part == "shards" else big_part(folder, sorted(args.big))
            for row in made:
                print(part, row, file=sys.stderr, flush=True)
                frame = pd.concat([frame, pd.DataFrame([{"part": part, **row}])], ignore_index=True)
                frame.to_csv(kept, index=False, float_format="%.6g")
    write_report(frame, args.results.parent)
    write_plan(plan_text(frame), args.plan)


if __name__ == "__main__":
    main()
