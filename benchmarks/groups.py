"""What a result on one split of ELPV is worth on solar modules that the bank has not seen.

    python -m benchmarks.groups [--seeds 3]

Stretches of consecutive files stand in for modules, which labels.csv does not name. Measures image
AUROC and false alarms on the random split and on held-out stretches, and what a threshold from a
few normal images of the new stretch changes. Uses the package's defaults.
"""

import argparse
import time

import numpy as np
import pandas as pd

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.intervals import grouped_auroc_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.threshold import conformal_threshold, recalibrated_threshold
from patchcore_helpers.core.traps import trap_aurocs
from patchcore_helpers.data.elpv import load_elpv_folds

NAMES = ["elpv/mono", "elpv/poly"]
RATES = [0.05, 0.1]
FEW = [10, 20, 40]  # normal images of the new stretch
DRAWS = 200


def scores_of(category, seed):
    """Scores of the calibration and of the test images."""
    model = PatchCore(random_state=seed, cache=True).fit(category.train)
    return model.anomaly_scores(category.calibration), model.anomaly_scores(category.test)


def shares_above(threshold, normal, defective):
    """False-alarm rate, and the share of defects found."""
    return np.mean(normal > threshold), np.mean(defective > threshold)


def recalibrated(normal, defective, k, rate, rng):
    """Both shares with the threshold from k normal images, counted among the others.

    Of k drawn at random (mean over the draws), and of the first k in the order of the files.
    """
    drawn = []
    for _ in range(DRAWS):
        order = rng.permutation(len(normal))
        threshold = recalibrated_threshold(normal[order[:k]], rate)
        drawn.append(shares_above(threshold, normal[order[k:]], defective))
    first = recalibrated_threshold(normal[:k], rate)
    return np.mean(drawn, axis=0), shares_above(first, normal[k:], defective)


def measure_fold(name, seed, number, fold):
    """A row per rate and number of images, 0 for the threshold from the other stretches."""
    calibration, scores = scores_of(fold, seed)
    normal, defective = scores[fold.labels == 0], scores[fold.labels == 1]
    auroc = image_auroc(fold.labels, scores)
    rng = np.random.default_rng([seed, number])
    rows = []
    for rate in RATES:
        before = shares_above(conformal_threshold(calibration, rate), normal, defective)
        rows.append((name, seed, number, len(normal), auroc, rate, 0, *before, *before))
        for k in FEW:
            if len(normal) >= 2 * k:
                drawn, first = recalibrated(normal, defective, k, rate, rng)
                rows.append((name, seed, number, len(normal), auroc, rate, k, *drawn, *first))
    return rows, scores


COLUMNS = [
    *("category", "seed", "stretch", "n_normal", "auroc", "rate", "k"),
    *("false_alarms", "found", "false_alarms_first_k", "found_first_k"),
]


def measure_random(name, seed):
    """One row of the random split: AUROCs, and the shares at both rates."""
    category = load_category(name, seed=seed)
    calibration, scores = scores_of(category, seed)
    labels, groups = category.labels, category.groups
    normal, defective = scores[labels == 0], scores[labels == 1]
    row = {
        "category": name,
        "seed": seed,
        "auroc": image_auroc(labels, scores),
        "within": grouped_auroc_interval(labels, scores, groups, weights="pairs").estimate,
    }
    for rate in RATES:
        threshold = conformal_threshold(calibration, rate)
        row[f"false_alarms_{rate}"], row[f"found_{rate}"] = shares_above(
            threshold, normal, defective
        )
    return row


def percent(values):
    return f"{100 * np.mean(values):.1f} %"


def spread(values):
    low, high = 100 * np.min(values), 100 * np.max(values)
    return f"{percent(values)} ({low:.0f} to {high:.0f})"


def auroc_table(random, folds, held_out):
    rows = []
    for name in NAMES:
        own = random[random["category"] == name]
        held = folds[(folds["category"] == name) & (folds["k"] == 0) & (folds["rate"] == RATES[0])]
        by_stretch = held.groupby("stretch")["auroc"].mean()
        interval = held_out.set_index("category").loc[name]
        row = [
            name,
            f"{own['auroc'].mean():.3f}",
            f"{own['within'].mean():.3f}",
            f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]",
            f"{by_stretch.min():.3f} to {by_stretch.max():.3f}",
        ]
        rows.append(row)
    header = ["category", "random split", "within stretches", "held out", "lowest to highest"]
    return report.table(header, rows)


def alarm_table(random, folds):
    rows = []
    for name in NAMES:
        own = random[random["category"] == name]
        for rate in RATES:
            begin = [name, f"{rate:.0%}"]
            alarms, found = own[f"false_alarms_{rate}"], own[f"found_{rate}"]
            rows.append([*begin, "random split", percent(alarms), percent(found), "", ""])
            of_rate = folds[(folds["category"] == name) & (folds["rate"] == rate)]
            means = of_rate.groupby(["k", "stretch"]).mean(numeric_only=True).reset_index()
            is_large = means["n_normal"] >= 2 * max(FEW)
            before = means[means["k"] == 0]
            rows.append([*begin, *before_row(before)])
            if not is_large[before.index].all():
                rows.append([*begin, *before_row(before[is_large[before.index]])])
            for k in FEW:
                of_k = means[(means["k"] == k) & is_large]
                row = [
                    f"k = {k}, {len(of_k)} folds",
                    spread(of_k["false_alarms"]),
                    percent(of_k["found"]),
                    spread(of_k["false_alarms_first_k"]),
                    percent(of_k["found_first_k"]),
                ]
                rows.append([*begin, *row])
    header = ["category", "promised", "threshold from", "false alarms", "found"]
    return report.table([*header, "first k: false alarms", "first k: found"], rows)


def before_row(means):
    """The part of a row that tells of thresholds from the other stretches."""
    alarms, found = spread(means["false_alarms"]), percent(means["found"])
    return f"the other stretches, {len(means)} folds", alarms, found, "", ""


def trap_table(traps):
    cells = traps.assign(
        both=[
            f"{separation:.3f} / {within:.3f}"
            for separation, within in zip(traps["separation"], traps["within_groups"], strict=True)
        ]
    )
    table = cells.pivot(index="trap", columns="category", values="both")[NAMES]
    rows = [[trap, *table.loc[trap]] for trap in traps["trap"].unique()]
    return report.table(["value", *NAMES], rows)


def describe(results):
    """The part of benchmarks/README.md, from the tables that `main` has written."""
    random, folds = results["groups_random"], results["groups"]
    return f"""\
Image AUROC: on the random split over all pairs of images; there within ten stretches, by pairs; on
held-out fifths of the files, mean over the fifths with a 95 % interval for other images of the same
fifths, and from the lowest to the highest fifth.

{auroc_table(random, folds, results["groups_held_out"])}

What separates the classes without looking for a defect (random split, seed 0): over all pairs of
images / within ten stretches.

{trap_table(results["groups_traps"])}

False alarms promised and counted, and defects found, mean over folds (lowest to highest fold). The
threshold comes from calibration images of the stretches that the bank is from, or from k normal
images of the new stretch, and is then counted among its others: k drawn at random ({DRAWS} draws),
or the first k in the order of the files, as an inspector would have them. Folds with fewer than
{2 * max(FEW)} normal images are left out there. 5 % cannot be promised with 10 images: the
threshold is then infinite.

{alarm_table(random, folds)}

Drawn at random, the k images are exchangeable with the rest of their stretch, so the promise has to
hold. The first k need not be: a stretch may hold several modules.
"""


def read_results(folder=report.RESULTS):
    names = ["groups", "groups_random", "groups_held_out", "groups_traps"]
    return {name: pd.read_csv(folder / f"{name}.csv") for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    random, rows, held_out, traps = [], [], [], []
    for name in NAMES:
        scores = []
        for seed in range(args.seeds):
            random.append(measure_random(name, seed))
            folds = load_elpv_folds(name, seed=seed)
            measured = [measure_fold(name, seed, i, fold) for i, fold in enumerate(folds)]
            rows += [row for of_fold, _ in measured for row in of_fold]
            scores.append(np.concatenate([of_fold for _, of_fold in measured]))
            print(name, seed, [round(of_fold[0][4], 3) for of_fold, _ in measured], flush=True)
        labels = np.concatenate([fold.labels for fold in folds])
        groups = np.concatenate([fold.groups for fold in folds])
        interval = grouped_auroc_interval(labels, scores, groups)
        held_out.append((name, interval.estimate, interval.low, interval.high))
        traps.append(trap_aurocs(load_category(name)).assign(category=name))
    report.RESULTS.mkdir(exist_ok=True)
    results = {
        "groups": pd.DataFrame(rows, columns=COLUMNS),
        "groups_random": pd.DataFrame(random),
        "groups_held_out": pd.DataFrame(held_out, columns=["category", "estimate", "low", "high"]),
        "groups_traps": pd.concat(traps),
    }
    for name, frame in results.items():
        frame.round(4).to_csv(report.RESULTS / f"{name}.csv", index=False)
    head = f"""## Modules that the bank has not seen

`python -m benchmarks.groups`, {time.strftime("%Y-%m-%d")}; default settings, {args.seeds} seeds of
split and coreset. Stretches of consecutive files stand in for solar modules, which ELPV's labels do
not name.

"""
    report.write_part("groups", f"{head}{describe(read_results())}\n")


if __name__ == "__main__":
    main()
