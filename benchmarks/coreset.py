"""Coreset selection side by side: ours, a plain loop, anomalib's, and the products alone.

    python -m benchmarks.coreset                        # everything: about an hour on 2 cores
    python -m benchmarks.coreset --parts "1%" big       # these again, the rest as it is
    python -m benchmarks.coreset --rows 20000 --big 100000 --runs 1 --results /tmp/try/results

All choose from the same patch vectors: EfficientNet-Lite0 (strides 8 and 16, 152 channels) of the
200 training images of elpv/mono at 256 px, 204,800 vectors. Every measurement is a process of its
own, and the methods take turns, so that a busy moment of the machine hits all of them. anomalib
runs in its own environment, made on first use (`--anomalib-python` names one that exists).

Writes results/coreset.csv, results/coreset.png and the part on coresets of README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import report

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "output" / "benchmarks"
ANOMALIB = ["anomalib==2.7.0", "torch==2.14.1", "torchvision==0.29.1"]
PROJECTION, SEED = 128, 0
PARTS = ["1%", "10%", "N", "k", "big"]
NAMES = {
    "ours": "`k_center_greedy`",
    "sequential": "plain loop, a matrix-vector product per pick",
    "anomalib": "anomalib 2.7.0, `KCenterGreedy`",
    "products": "matrix products alone, our kernel",
    "torch_mm": "matrix products alone, `torch.mm`",
}


# --- one measurement; each method imports what it needs, since anomalib lives elsewhere ---


def ours(rows, k):
    from patchcore_helpers.core.coreset import k_center_greedy

    return k_center_greedy(rows, k, projection=PROJECTION, random_state=SEED).indices


def sequential(rows, k):
    """The plain algorithm, written with care: squares only, in place, one pass over X per pick."""
    from patchcore_helpers.core.distances import single_threaded_workers
    from patchcore_helpers.core.vector_space import open_space

    with single_threaded_workers() as for_each:
        space = open_space(rows, PROJECTION, SEED, for_each)
    vectors = space.centered(slice(0, len(space)))
    squares = vectors.square().sum(1)
    nearest, distance = torch.full_like(squares, torch.inf), torch.empty_like(squares)
    picks = [int(np.random.default_rng(SEED).integers(len(rows)))]
    while len(picks) < k:
        last = picks[-1]
        torch.addmv(squares, vectors, vectors[last], alpha=-2, out=distance)
        torch.minimum(nearest, distance.add_(squares[last]), out=nearest)
        nearest[last] = -1
        picks.append(int(nearest.argmax()))
    return np.array(picks)


def anomalib(rows, k):
    from anomalib.models.components import KCenterGreedy

    torch.manual_seed(SEED)
    ratio = (k + 0.5) / len(rows)  # it rounds down
    return np.array(KCenterGreedy(torch.from_numpy(rows), ratio).select_coreset_idxs())


def products(rows, k):
    """N x p times p x k and nothing else, by the kernel and in the blocks of `k_center_greedy`."""
    from patchcore_helpers.core.distances import (
        BLOCK_CENTERS,
        products_form,
        row_blocks,
        single_threaded_workers,
    )

    x = torch.randn(len(rows), PROJECTION)
    centers = torch.randn(k, PROJECTION)
    zeros = torch.zeros(BLOCK_CENTERS)

    def multiply(block):
        for c in centers.split(BLOCK_CENTERS):
            products_form(x[block], c, zeros[: len(c)])

    with single_threaded_workers() as for_each:
        for_each(multiply, row_blocks(len(x)))


def torch_mm(rows, k):
    """The same by `torch.mm`, in blocks that suit it."""
    x, centers = torch.randn(len(rows), PROJECTION), torch.randn(k, PROJECTION)
    block = torch.empty(4096, min(k, 2048))
    for a in x.split(4096):
        for c in centers.split(2048):
            torch.mm(a, c.T, out=block.view(-1)[: len(a) * len(c)].view(len(a), len(c)))


def resident(kind="RssAnon"):
    """Megabytes of the process's own memory; pages of mapped files are not in it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure(method, path, n, k, mapped):
    """Run one method on the first n rows; print one JSON line."""
    rows = np.load(path, mmap_mode="r")[:n]
    rows = rows if mapped else np.array(rows)
    globals()[method](rows[:64], 2)  # imports and first calls are not what is measured
    before, peak, done = resident(), [0.0], threading.Event()

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    indices = globals()[method](rows, k)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    done.set()
    watcher.join()
    out = {"seconds": seconds, "cpu_seconds": cpu, "extra_mb": max(peak[0], resident()) - before}
    if indices is not None:
        out["distinct"] = len(set(indices.tolist()))
        np.save(WORK / "indices.npy", indices)
    print(json.dumps(out))


# --- the series ---


def prepare_features(rows):
    """Patch vectors of the training images, through the package's own front door."""
    path = WORK / "elpv_mono.npy"
    if not path.exists():
        from patchcore_helpers import load_category
        from patchcore_helpers.core.backbones import load_backbone
        from patchcore_helpers.core.extractor import Extractor

        extractor = Extractor(load_backbone("efficientnet_lite0"), 256)
        patches = extractor.extract(load_category("elpv/mono").train)
        np.save(path, patches.reshape(-1, patches.shape[-1]))
    return path, min(rows, len(np.load(path, mmap_mode="r")))


def prepare_synthetic(n, width=128, inner=16, seed=0):
    """Vectors on a curved 16-dimensional surface with a little noise, written chunk by chunk."""
    path = WORK / f"synthetic_{n}.npy"
    if not path.exists():
        rng = np.random.default_rng(seed)
        inward, outward = rng.normal(size=(inner, 64)), rng.normal(size=(64, width)) / 8
        out = np.lib.format.open_memmap(path, "w+", np.float32, (n, width))
        for start in range(0, n, 50_000):
            some = rng.normal(size=(min(50_000, n - start), inner))
            noise = 0.1 * rng.normal(size=(len(some), width))
            out[start : start + len(some)] = np.tanh(some @ inward / 4) @ outward + noise
        out.flush()
    return path


def anomalib_python(given):
    python = Path(given) if given else HERE / ".venv-anomalib" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ANOMALIB], check=True)
    return python


def run(method, path, n, k, python=sys.executable, mapped=False):
    command = [python, "-m", "benchmarks.coreset", "--measure", method, str(path), str(n), str(k)]
    command += ["--mapped"] if mapped else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        sys.exit(f"{method}, n={n}, k={k}: {done.stderr[-2000:]}")
    row = {"method": method, "n": n, "k": k, **json.loads(done.stdout.splitlines()[-1])}
    row["load"] = round(os.getloadavg()[0], 1)
    print(row, file=sys.stderr, flush=True)
    return row


def radius(path, n, k):
    """Coverage radius of the picks just saved, in the unprojected features, the same for all."""
    from patchcore_helpers.core.distances import nested_min_distances

    rows = np.load(path, mmap_mode="r")[:n]
    return float(nested_min_distances(rows, rows[np.load(WORK / "indices.npy")], [k]).max())


def series(args):
    """All rows of the table: the two main comparisons, time against N and k, and the big one."""
    path, n = prepare_features(args.rows)
    pythons = dict.fromkeys(NAMES, sys.executable)
    if {"1%", "N", "k"} & set(args.parts):
        pythons["anomalib"] = anomalib_python(args.anomalib_python)
    for number in range(args.runs):
        for part in ("1%", "10%"):
            if part in args.parts:
                yield from comparison_rows(part, number, path, n, pythons)
    for part in ("N", "k"):
        if part in args.parts:
            yield from growth_rows(part, path, n, pythons)
    if "big" in args.parts:
        big = prepare_synthetic(args.big)
        for rows in (args.big // divisor for divisor in (8, 4, 2, 1)):
            yield {"part": "big", "run": 0, **run("ours", big, rows, rows // 100, mapped=True)}


def comparison_rows(part, number, path, n, pythons):
    """One run of a main comparison, the methods taking turns."""
    share, methods = {"1%": (0.01, NAMES), "10%": (0.1, ["ours", "products", "torch_mm"])}[part]
    for method in methods:
        row = run(method, path, n, int(share * n), pythons[method])
        if "distinct" in row:
            row["radius"] = radius(path, n, row["k"])
        yield {"part": part, "run": number, **row}


def growth_rows(part, path, n, pythons):
    """Time against the number of vectors N, or of picks k."""
    for method in NAMES:
        if part == "N":
            pairs = [(n // divisor, n // divisor // 100) for divisor in (16, 8, 4, 2)]
        else:
            most = n // 200 if method in ("sequential", "anomalib") else n // 20
            counts = [n // divisor for divisor in (3200, 800, 200, 50, 20)]
            pairs = [(n, k) for k in counts if k <= most]
        for rows, k in pairs:
            yield {"part": part, "run": 0, **run(method, path, rows, k, pythons[method])}


# --- the report ---


def comparison(frame, part):
    """Seconds of every run, and ours beside each method, run by run."""
    some = frame[frame.part == part]
    seconds = some.pivot_table(index="method", columns="run", values="seconds")
    rows = []
    for method in (m for m in NAMES if m in seconds.index):
        ratios = seconds.loc[method] / seconds.loc["ours"]
        mine = some[some.method == method]
        covered = mine.radius.mean() if "radius" in mine else float("nan")
        rows.append(
            [
                NAMES[method],
                ", ".join(f"{s:.2f}" for s in seconds.loc[method]),
                "" if method == "ours" else ", ".join(f"{r:.2f}" for r in ratios),
                f"{mine.cpu_seconds.mean():.1f}",
                f"{mine.extra_mb.max():.0f}",
                f"{covered:.2f}" if np.isfinite(covered) else "",
            ]
        )
    return report.table(
        ["", "seconds", "times ours", "CPU seconds", "extra memory, MB", "final radius"], rows
    )


def write_report(frame, folder):
    n, k1 = frame[frame.part == "1%"][["n", "k"]].max()
    k10, threads = frame.k[frame.part == "10%"].max(), torch.get_num_threads()
    big = frame[frame.part == "big"]
    power = np.polyfit(np.log(big.n), np.log(big.cpu_seconds), 1)[0]
    grown = [
        [f"{r.n:,}", f"{r.k:,}", f"{r.seconds:.1f}", f"{r.cpu_seconds:.1f}", f"{r.extra_mb:.0f}"]
        for r in big.itertuples()
    ]
    text = f"""## Coreset selection

`python -m benchmarks.coreset`, {time.strftime("%Y-%m-%d")}; {report.processor()},
{threads} threads, torch {torch.__version__}; load average {frame.load.min():.1f} to
{frame.load.max():.1f}, to which a measurement itself adds about {threads}. Real patch vectors,
{n:,} x 152. Ours and the plain loop compare them as they are (a projection to {PROJECTION}
dimensions does not halve them), anomalib projects them sparsely, as part of its time. Several
numbers are runs one after the other, the methods taking turns. CPU seconds count all threads,
waiting ones too where they spin. Extra memory is the most that the process held above what it held
with the vectors loaded. The final radius is measured in the unprojected vectors for all.

1 %: {k1:,} picks.

{comparison(frame, "1%")}

10 %: {k10:,} picks.

{comparison(frame, "10%")}

![Time against N and against k](results/coreset.png)

1 % of a memory map of synthetic vectors with 128 columns (the largest file is
{big.n.max() * 512 / 1e9:.1f} GB; its own pages are not in the extra memory):

{report.table(["vectors", "picks", "seconds", "CPU seconds", "extra memory, MB"], grown)}

At a fixed ratio the CPU seconds grow as N to the power of {power:.2f}.
"""
    report.write_part("coreset", text, folder)


def draw(frame, path):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    main = frame[frame.part == "1%"].groupby(["method", "n", "k"], as_index=False).seconds.mean()
    ten = frame[frame.part == "10%"].groupby(["method", "n", "k"], as_index=False).seconds.mean()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", sharey=True)
    for axis, part, column in zip(axes, "Nk", "nk", strict=True):
        for method, name in NAMES.items():
            parts = [frame[frame.part == part], main] + ([ten] if part == "k" else [])
            points = [p[p.method == method][[column, "seconds"]].to_numpy() for p in parts]
            x, y = np.concatenate(points)[np.concatenate(points)[:, 0].argsort()].T
            style = "--" if method in ("products", "torch_mm") else "-"
            axis.loglog(x, y, style, marker="o", ms=4, label=name.replace("`", ""))
        axis.grid(alpha=0.3)
        axis.minorticks_off()
    sizes = sorted(set(frame.n[frame.part == "N"]) | set(main.n))
    axes[0].set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes[0].set(xlabel="patch vectors N, 1 % of them chosen", ylabel="seconds")
    axes[1].set(xlabel=f"picks k from {main.n.max():,} vectors")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=204_800, help="patch vectors to use (204800)")
    parser.add_argument("--big", type=int, default=2_000_000, help="synthetic vectors (2000000)")
    parser.add_argument("--runs", type=int, default=3, help="of the main comparisons (3)")
    parser.add_argument(
        "--parts", nargs="*", default=PARTS, choices=PARTS, help="measure these, keep the others"
    )
    parser.add_argument("--anomalib-python", help="interpreter of an environment with anomalib")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--mapped", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if args.measure:
        method, path, n, k = args.measure
        return measure(method, path, int(n), int(k), args.mapped)
    import pandas as pd

    args.results.mkdir(parents=True, exist_ok=True)
    kept = args.results / "coreset.csv"
    frame = pd.read_csv(kept) if kept.exists() else pd.DataFrame({"part": []})
    frame = frame[~frame.part.isin(args.parts)]
    for row in series(args):
        frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
        frame = frame.astype({"run": int, "n": int, "k": int})
        frame.to_csv(kept, index=False, float_format="%.6g")
    draw(frame, args.results / "coreset.png")
    write_report(frame, args.results.parent)


if __name__ == "__main__":
    main()
