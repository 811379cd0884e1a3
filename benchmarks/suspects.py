"""Are defective images that slipped into a folder of good ones found by `suspects`?

    python -m benchmarks.suspects [--draws 5]

In each draw, 12 of 120 images are real defective cells of ELPV and the rest are good ones. Counts
how many of the 12 are among the 24 that `suspects` puts first. Uses the package's defaults.
"""

import argparse
import time

import numpy as np
import pandas as pd

from benchmarks import report
from patchcore_helpers import PatchCore, load_category, suspects

NAMES = ["elpv/mono", "elpv/poly"]
N_IMAGES = 120
N_PLANTED = 12
N_LOOKED_AT = 24


def draw_folder(name, draw):
    """The images of one draw, and which of them are planted."""
    category = load_category(name, seed=draw)
    defective = [sample for sample in category.test if sample.label]
    random = np.random.default_rng(draw)
    planted = random.choice(len(defective), N_PLANTED, replace=False)
    good = category.train[: N_IMAGES - N_PLANTED]
    images = [*good, *(defective[i] for i in planted)]
    order = random.permutation(N_IMAGES)
    return [images[i] for i in order], order >= len(good)


def n_found(ranking, is_planted, n_looked_at=N_LOOKED_AT):
    """How many planted images are among the first of the ranking."""
    return int(is_planted[ranking["image"].head(n_looked_at)].sum())


def measure(name, draw):
    images, is_planted = draw_folder(name, draw)
    start = time.perf_counter()
    ranking = suspects(images, PatchCore(cache=True), random_state=draw)
    seconds = time.perf_counter() - start
    return name, draw, n_found(ranking, is_planted), seconds


def describe(results):
    """The part of benchmarks/README.md, from the table that `main` has written."""
    rows = []
    for name in NAMES:
        own = results[results["category"] == name]
        found = own["found"]
        rows.append([name, f"{found.mean():.1f}", " ".join(map(str, found)), len(own)])
    header = ["category", f"found of {N_PLANTED}, mean", "by draw", "draws"]
    chance = N_PLANTED * N_LOOKED_AT / N_IMAGES
    return f"""\
Of {N_IMAGES} images, {N_PLANTED} are defective cells and the rest good ones. How many of the
{N_PLANTED} are among the {N_LOOKED_AT} that `suspects` puts first; a blind choice would find
{chance:.1f} on average.

{report.table(header, rows)}
"""


def read_results(folder=report.RESULTS):
    return pd.read_csv(folder / "suspects.csv")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    args = parser.parse_args()
    rows = []
    for name in NAMES:
        for draw in range(args.draws):
            rows.append(measure(name, draw))
            print(*rows[-1], flush=True)
    report.RESULTS.mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["category", "draw", "found", "seconds"])
    table.round(2).to_csv(report.RESULTS / "suspects.csv", index=False)
    head = f"""## Defective images among the good ones

`python -m benchmarks.suspects`, {time.strftime("%Y-%m-%d")}; default settings.

"""
    report.write_part("suspects", f"{head}{describe(read_results())}\n")


if __name__ == "__main__":
    main()
