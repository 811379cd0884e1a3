"""Is a memory bank that was taught in two halves as good as one that was fitted on all images?

    python -m benchmarks.teach [--draws 5]

In each draw of elpv/mono, a bank is fitted on one half of the training images and taught the other
half, in both orders; beside it, banks are fitted on all images, with two seeds of the coreset, so
that a difference can be compared with what a seed alone changes. Then four fifths of the second
half are taught and one fifth is held out, as `patchcore-course teach` does, and the threshold is
set in three ways. Uses the package's defaults, without a cache.
"""

import argparse
import time

import numpy as np
import pandas as pd

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.threshold import conformal_threshold

NAME = "elpv/mono"
TEACHINGS = {
    "second half taught": "first_then_second",
    "first half taught": "second_then_first",
    "fitted on all, another seed": "other_seed",
}
THRESHOLDS = {
    "before": "before teaching",
    "kept": "earlier scores kept, as without `--calibration`",
    "rescored": "scored again, as with `--calibration`",
}


def fitted(images, seed):
    return PatchCore(random_state=seed).fit(images)


def timed(call, *arguments):
    start = time.perf_counter()
    result = call(*arguments)
    return result, time.perf_counter() - start


def rates(scores, labels, threshold):
    """Shares of the normal and of the defective test images that alarm."""
    alarms = scores > threshold
    return alarms[labels == 0].mean(), alarms[labels == 1].mean()


def measure(draw):
    """One draw: AUROCs, seconds, and what the thresholds do."""
    category = load_category(NAME, seed=draw)
    half = len(category.train) // 2
    first, second = category.train[:half], category.train[half:]
    test, labels = category.test, category.labels
    everything, fit_seconds = timed(fitted, category.train, draw)
    row = {
        "draw": draw,
        "fit_seconds": fit_seconds,
        "all": everything.score(test, labels),
        "other_seed": fitted(category.train, draw + 1000).score(test, labels),
    }
    model = fitted(second, draw).teach(first)
    row["second_then_first"] = model.score(test, labels)
    model = fitted(first, draw)
    row["half"] = model.score(test, labels)
    _, row["teach_seconds"] = timed(model.teach, second)
    row["first_then_second"] = model.score(test, labels)
    return row | measure_thresholds(category, first, second, draw)


def measure_thresholds(category, first, second, draw):
    """What alarms by the threshold before teaching, and by two thresholds after it."""
    n_held_out = len(second) // 5
    held_out, taught = second[:n_held_out], second[n_held_out:]
    model = fitted(first, draw)
    earlier = model.anomaly_scores(category.calibration)
    before = model.anomaly_scores(category.test)
    model.teach(taught)
    own, after = model.anomaly_scores(held_out), model.anomaly_scores(category.test)
    again = model.anomaly_scores(category.calibration)
    thresholds = {
        "before": (before, earlier),
        "kept": (after, np.concatenate([earlier, own])),
        "rescored": (after, np.concatenate([again, own])),
    }
    row = {}
    for name, (scores, calibration) in thresholds.items():
        threshold = conformal_threshold(calibration, 0.05)
        false_alarms, found = rates(scores, category.labels, threshold)
        row |= {f"{name}_false_alarms": false_alarms, f"{name}_found": found}
    return row


def describe(results):
    """The part of benchmarks/README.md, from the table that `main` has written."""
    rows = []
    for words, column in TEACHINGS.items():
        differences = results[column] - results["all"]
        by_draw = " ".join(f"{difference:+.4f}" for difference in differences)
        rows.append([words, f"{differences.mean():+.4f}", by_draw])
    aurocs = report.table(["beside a fit on all images", "image AUROC, mean", "by draw"], rows)
    rows = [
        [
            words,
            f"{results[f'{name}_false_alarms'].mean():.1%}",
            f"{results[f'{name}_found'].mean():.1%}",
        ]
        for name, words in THRESHOLDS.items()
    ]
    thresholds = report.table(["threshold", "false alarms", "defects found"], rows)
    ratio = (results["teach_seconds"] / results["fit_seconds"]).median()
    half = (results["half"] - results["all"]).mean()
    return f"""\
{NAME}, {len(results)} draws. Half of the training images alone: {half:+.4f} image AUROC beside a
fit on all of them ({results["all"].mean():.4f}).

{aurocs}

Teaching the second half takes {ratio:.2f} of the time of a fit on all images (median).

What alarms among the test images, by thresholds for 5 % of false alarms:

{thresholds}
"""


def read_results(folder=report.RESULTS):
    return pd.read_csv(folder / "teach.csv")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    fitted(load_category(NAME).train[:20], 0)  # compiles the network, which is not counted
    rows = []
    for draw in range(args.draws):
        rows.append(measure(draw))
        print(rows[-1], flush=True)
    report.RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(rows).round(5).to_csv(report.RESULTS / "teach.csv", index=False)
    head = f"""## A bank that is taught

`python -m benchmarks.teach`, {time.strftime("%Y-%m-%d")}; default settings.

"""
    report.write_part("teach", f"{head}{describe(read_results())}\n")


if __name__ == "__main__":
    main()
