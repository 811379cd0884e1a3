"""Do settings chosen by planted defects hold on real ones?

    python -m benchmarks.tuning --data-dir PATH [--only NAME]

PATH is the folder that holds the real cookie/ and aitex/. Each combination that `--tune` can choose
is also measured on the real test images. The regret of a choice is the image AUROC of the best
combination in hindsight minus that of the choice.
"""

import argparse
import json

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.strips import STRIP_SETTINGS, StripPatchCore
from patchcore_helpers.core.tuning import CANDIDATES, STRIP_CANDIDATES, rescore, tune

NAMES = ("cookie", "elpv/mono", "elpv/poly", "aitex/00", "aitex/01", "aitex/04")
LIMITS = {"train": 100, "test": 75}  # of ELPV: a grid of all its images takes an hour


def maker(name, seed):
    def make(parameters):
        if name.startswith("aitex"):
            return StripPatchCore(PatchCore(**STRIP_SETTINGS | parameters, random_state=seed))
        return PatchCore(**parameters, random_state=seed)

    return make


def measure(name, data_dir, seed):
    """One row per combination: AUROC on planted and on real defects."""
    category = load_category(name, data_dir=data_dir, seed=seed)
    if name.startswith("elpv"):
        category = category.limit(**LIMITS, seed=seed)
    candidates = STRIP_CANDIDATES if name.startswith("aitex") else CANDIDATES
    make = maker(name, seed)
    tuning = tune(category.train, make, candidates, minutes=60, random_state=seed)
    print(name, f"tuned in {tuning.seconds:.0f} s", flush=True)
    real = []
    for candidate in candidates:
        detector = make(candidate.parameters).fit(category.train)
        result = detector.detect(category.test)
        for score in candidate.scores:
            real.append(image_auroc(category.labels, rescore(detector, result, score)))
    table = tuning.table.assign(
        category=name,
        seed=seed,
        real=real,
        seconds=tuning.seconds,
        setting=[json.dumps(parameters) for parameters in tuning.table["parameters"]],
    )
    table["chosen"] = [parameters == tuning.parameters for parameters in table["parameters"]]
    table.to_pickle(f"/tmp/tuning_{name.replace('/', '_')}.pkl")
    columns = ["category", "seed", "setting", "auroc", "ahead", "low", "real", "chosen", "seconds"]
    print(table[columns].to_string(), flush=True)
    return table[columns]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--only")
    a = parser.parse_args()
    measure(a.only, a.data_dir, 0).to_csv(f"/tmp/tuning_{a.only.replace('/', '_')}.csv")
