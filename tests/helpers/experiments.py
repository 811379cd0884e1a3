"""What tests of experiments share."""

import csv
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from patchcore_helpers.experiments import exp1, exp2, exp3
from patchcore_helpers.experiments.grid import Outcome

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LABELS = np.repeat([0, 1], 40)
MVTEC_FIVE = [f"mvtec_ad/{name}" for name in ("bottle", "cable", "hazelnut", "leather", "screw")]


def comparable(path, timings):
    """The rows of a CSV without what a clock has measured."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(float(row[name]) > 0 for row in rows for name in timings)
    return [{key: row[key] for key in row if key not in timings} for row in rows]


def run_in_full(name, parameters, through, folder, home):
    """Run an experiment's notebook with its full configuration, but for these parameters.

    Returns the folder of its results.
    """
    notebook = next(NOTEBOOKS.glob(f"*_{name}_*.ipynb"))
    config = ["-f", NOTEBOOKS / "configs" / f"{name}_config.yaml"]
    if through == "runner":
        command = ["patchcore_helpers.app.cli", "run", notebook, "--output", folder, *config]
        for key, value in parameters.items():
            command += ["-p", key, value if isinstance(value, str) else json.dumps(value)]
        results = folder / notebook.stem
    else:
        results = folder / "out"
        parameters = json.dumps(parameters | {"output_dir": str(results)})
        command = ["papermill", notebook, folder / "executed.ipynb", *config, "-y", parameters]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return results


def seed_of(text):
    return zlib.crc32(text.encode())


def planted_exp1(separation, categories, seeds=3):
    """Outcomes as `exp1.run_task` gives them, from made-up scores.

    `separation` is the distance between the classes by backbone; a number serves all categories,
    None is a backbone that was skipped. The scores "max" are those of "mean" with the sign turned.
    """
    outcomes = []
    for task in exp1.make_tasks(exp1.Settings(), list(separation), categories, range(seeds)):
        distance = separation[task["backbone"]]
        if isinstance(distance, dict):
            distance = distance.get(task["category"])
        if distance is None:
            status = "skipped: the weights are not here"
            outcomes.append(Outcome(task, [{**task, "status": status}], finished=False))
            continue
        names = [seed_of(task["category"]), seed_of(task["backbone"])]
        image = np.random.default_rng(names[0]).normal(size=len(LABELS)) + distance * LABELS
        noise = np.random.default_rng([*names, task["seed"]]).normal(0, 0.2, len(LABELS))
        scores = {"mean": (image + noise).tolist(), "max": (-image - noise).tolist()}
        rows = [
            {**task, "image_score": kind, "auroc": roc_auc_score(LABELS, values), "status": "ok"}
            for kind, values in scores.items()
        ]
        outcomes.append(Outcome(task, rows, {"labels": LABELS.tolist(), **scores}))
    return outcomes


def planted_exp2(separation, categories=MVTEC_FIVE, seeds=5, ratios=(0.005, 0.01, 0.05)):
    """Outcomes as `exp2.run_task` gives them; `separation` is between the classes, by method."""
    settings = exp2.Settings(methods=list(separation), ratios=ratios)
    outcomes = []
    for task in exp2.make_tasks(settings, categories, range(seeds)):
        category = seed_of(task["category"])
        image = np.random.default_rng(category).normal(size=len(LABELS))
        rows = []
        scores = {"labels": LABELS.tolist()}
        for position, (method, distance) in enumerate(separation.items()):
            if isinstance(distance, dict):
                distance = distance[task["category"]]
            for ratio in ratios:
                rng = np.random.default_rng([category, position, task["seed"], int(1e4 * ratio)])
                values = image + distance * LABELS + rng.normal(0, 0.2, len(LABELS))
                scores[f"{method} {ratio:g}"] = values.tolist()
                scores[exp2.score_name(method, ratio, exp2.INSIDE)] = (-values).tolist()
                rows.append(
                    {
                        **task,
                        "method": method,
                        "compression_ratio": ratio,
                        "auroc": roc_auc_score(LABELS, values),
                        "memory_reduction": 1 / ratio,
                        "n_train": 20,
                        "n_test": 80,
                        "n_patches": 2000,
                        "bank_size": round(2000 * ratio),
                        "seconds": position + task["seed"],
                        "status": "ok",
                    }
                )
            useful = None if position == 0 else 0.1 * task["seed"]
            names = ("rank_correlation", "rank_correlation_limit", "weight_auroc")
            rows[-1].update(dict.fromkeys(names, useful))
        outcomes.append(Outcome(task, rows, scores))
    return outcomes


def planted_exp3(categories=MVTEC_FIVE, seed=0):
    """A table such as `exp3.run_task` gives, with made-up numbers; 16 bits did not run."""
    rng = np.random.default_rng(seed)
    rows = []
    for category in categories:
        common = {"category": category, "bank_size": 5000, "status": "ok", "image_auroc": 0.9}
        common |= {"times_fewer_rows": 1, "resident_mb": 6.0}
        common_to_exact = common | {"memory_mb": 3.0, "speedup": 1.0}
        rows += [common_to_exact | {"search_method": kind} for kind in exp3.EXACT_METHODS]
        for variant in exp3.index_sweep(exp3.Settings()):
            options = variant.options
            row = common | {"search_method": options["kind"], "pq_bits": options.get("bits")}
            row |= {name: options.get(name) for name in ("m", "n_clusters")}
            row["times_fewer_rows"] = variant.times_fewer_rows
            if options["kind"] == "ivf_pq_fast":
                row["pq_bits"] = 4
            if row["pq_bits"] == 16:
                row |= {"image_auroc": None, "status": "skipped: too few rows"}
                rows += [{**row, "nprobe": nprobe} for nprobe in variant.nprobes]
                continue
            rows += [{**row, "nprobe": n, **planted_measures(rng)} for n in variant.nprobes]
    return pd.DataFrame(rows).reindex(columns=exp3.COLUMNS)


def planted_outcomes3(losses, categories=("a", "b"), n=400, seed=0):
    """Outcomes as `exp3.run_task` gives them, from made-up scores.

    `losses` is, by the name of an index ("exact, 1/16 of the rows" or a kind), how much its scores
    shrink the distance between the classes, its bytes in memory and its milliseconds.
    """
    labels = np.repeat([0, 1], n // 2)
    outcomes = []
    for number, category in enumerate(categories):
        rng = np.random.default_rng([seed, number])
        exact = rng.normal(size=n) + 2 * labels
        scores = {"labels": labels.tolist(), "exact": exact.tolist()}
        rows = []
        for name, (loss, megabytes, milliseconds) in losses.items():
            kind, _, fewer = name.partition(", 1/")
            image_scores = exact - loss * labels + rng.normal(0, 0.1, n)
            scores[name] = [image_scores.tolist()]
            row = {"search_method": kind, "status": "ok", "pq_bits": None, "nprobe": None}
            row |= {"times_fewer_rows": int(fewer.split()[0]) if fewer else 1}
            row |= {"memory_mb": megabytes, "resident_mb": megabytes, "memory_reduction": 1.0}
            row |= {"resident_reduction": 10 / megabytes, "search_time_ms": milliseconds}
            row |= {"speedup_over_flat": 50 / milliseconds}
            row["image_auroc"] = roc_auc_score(labels, image_scores)
            rows.append(row)
        outcomes.append(Outcome({"category": category, "seed": 0}, rows, scores))
    return outcomes


def planted_measures(rng):
    smaller = rng.uniform(1, 40)
    faster = rng.uniform(0.5, 30)
    lost = rng.uniform(-0.02, 0.01)
    return {
        "memory_mb": 3 / smaller,
        "memory_reduction": smaller,
        "resident_mb": 6 / smaller,
        "resident_reduction": smaller,
        "search_time_ms": 60 / faster,
        "speedup": 3 * faster,
        "speedup_over_flat": faster,
        "image_auroc": 0.9 + lost,
        "difference": lost,
        "low": lost - 0.01,
        "high": lost + 0.01,
        "accuracy_loss_percent": -100 * lost / 0.9,
        "recall_at_1": rng.uniform(0.2, 1),
        "build_seconds": 0.1,
    }
