"""Do torch and OpenVINO give the same results? Maps, coresets and image AUROC of both.

    python -m benchmarks.agreement [--seeds 0 1 2 3 4] [--print]

elpv/mono and elpv/poly with the default settings, fitted and scored by engine="torch" and by
engine="openvino", nothing cached. The maps are compared twice: those of two models that were fitted
independently, and those that OpenVINO's features give with the very rows that torch's coreset has
kept, so that only the arithmetic of the network differs. Where the coresets differ, the first pick
in which they do is named, and by how much the two candidates differed there: greedy selection takes
the farthest patch, and after a near-tie that went the other way, all later picks may be others.

Not a timing: may run beside other work. Writes results/agreement.csv and a part of README.md.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd
import torch
from sklearn.random_projection import GaussianRandomProjection

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import as_rows

CATEGORIES = ("elpv/mono", "elpv/poly")
ENGINES = ("torch", "openvino")


def relative(values, expected):
    """The largest difference, relative to the largest value."""
    return float(np.abs(values - expected).max() / np.abs(expected).max())


def first_difference(picks, others):
    """The number of the first pick that is not the same; None if all are."""
    differs = np.flatnonzero(picks != others)
    return int(differs[0]) if len(differs) else None


def gap_at(vectors, coreset, others, number, seed):
    """How much farther torch's pick was than the other one, relative, in torch's features."""
    picks = coreset.indices
    vectors_of = [
        vectors[rows].astype(np.float64)
        for rows in (picks[:number], picks[[number]], others[[number]])
    ]
    if coreset.space == "projected":
        projection = GaussianRandomProjection(128, random_state=seed).fit(vectors[:1])
        vectors_of = [projection.transform(rows) for rows in vectors_of]
    centers, ours, other = vectors_of
    farthest = np.linalg.norm(centers - ours, axis=1).min()
    second = np.linalg.norm(centers - other, axis=1).min()
    return float((farthest - second) / farthest)


def same_rows(model, features, rows):
    """The model with the rows of another coreset, as its own features describe them."""
    bank = model.new_bank().set_params(coreset_ratio=1.0, sampler="random")
    twin = PatchCore(**model.get_params())
    twin.fitted_with_ = model.fitted_with_
    twin.extractor_ = model.extractor_
    twin.bank_ = bank.fit(features[rows])
    return twin


def compare(name, seed):
    """A row of the table."""
    category = load_category(name, seed=seed)
    models, results, features = {}, {}, {}
    for engine in ENGINES:
        model = PatchCore(engine=engine, random_state=seed).fit(category.train)
        models[engine], results[engine] = model, model.detect(category.test)
        features[engine] = as_rows(model.extractor_.extract(category.train))
    again = PatchCore(engine="openvino", random_state=seed).fit(category.train)
    repeated = again.detect(category.test)
    is_same = all(
        np.array_equal(getattr(repeated, field), getattr(results["openvino"], field))
        for field in ("scores", "patch_scores")
    )
    picks, others = (models[engine].bank_.coreset_.indices for engine in ENGINES)
    number = first_difference(picks, others)
    twin = same_rows(models["openvino"], features["openvino"], picks)
    maps = {engine: models[engine].to_maps(results[engine]) for engine in ENGINES}
    aurocs = {e: image_auroc(category.labels, results[e].scores) for e in ENGINES}
    return {
        "category": name,
        "seed": seed,
        "features": relative(features["openvino"], features["torch"]),
        "maps, same rows": relative(twin.anomaly_maps(category.test), maps["torch"]),
        "maps, own rows": relative(maps["openvino"], maps["torch"]),
        "rows that agree": len(np.intersect1d(picks, others)) / len(picks),
        "first other pick": number,
        "gap there": None
        if number is None
        else gap_at(features["torch"], models["torch"].bank_.coreset_, others, number, seed),
        "AUROC, torch": aurocs["torch"],
        "AUROC, openvino": aurocs["openvino"],
        "twice the same": is_same,
    }


def as_text(frame):
    """The table as the README shows it."""
    shown = frame.astype(object).where(frame.notna(), None)
    for column in ("features", "maps, same rows", "maps, own rows", "gap there"):
        shown[column] = [None if v is None else f"{v:.0e}" for v in shown[column]]
    shown["rows that agree"] = [f"{share:.1%}" for share in frame["rows that agree"]]
    shown["first other pick"] = [
        "" if n is None else f"{n:,.0f}" for n in shown["first other pick"]
    ]
    shown["gap there"] = shown["gap there"].fillna("")
    for column in ("AUROC, torch", "AUROC, openvino"):
        shown[column] = [f"{value:.4f}" for value in frame[column]]
    shown["twice the same"] = ["yes" if same else "no" for same in frame["twice the same"]]
    return report.of_frame(shown)


def section(frame):
    difference = frame["AUROC, openvino"] - frame["AUROC, torch"]
    by_category = difference.groupby(frame.category).mean()
    means = "; ".join(f"{name} {value:+.4f}" for name, value in by_category.items())
    return f"""## Do the engines agree?

`python -m benchmarks.agreement`, {time.strftime("%Y-%m-%d")}; {report.processor()},
torch {torch.__version__}. Default settings, fitted and scored by both engines. Differences of
features and maps are the largest ones, relative to the largest value; "same rows" gives both
engines the coreset that torch chose. The gap says how much farther torch's pick was than OpenVINO's
where they first differed, by torch's features in float64: of either sign, because both choose by
float32. "Twice the same": OpenVINO, fitted and scored again, to the last bit.

{as_text(frame)}

Image AUROC, OpenVINO minus torch, mean over the seeds: {means}; the largest difference of a single
seed is {difference.abs().max():.4f}.

"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=range(5))
    parser.add_argument("--print", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    rows = []
    for name in CATEGORIES:
        for seed in args.seeds:
            rows.append(compare(name, seed))
            print(rows[-1], file=sys.stderr, flush=True)
    frame = pd.DataFrame(rows)
    text = section(frame)
    print(text)
    if args.print:
        return
    report.RESULTS.mkdir(exist_ok=True)
    frame.to_csv(report.RESULTS / "agreement.csv", index=False, float_format="%.6g")
    report.write_part("agreement", text)


if __name__ == "__main__":
    main()
