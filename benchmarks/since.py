"""What the recommended ideas since 2022 gain and cost, with the package's default settings.

    python -m benchmarks.since [--seeds 5] [--recipes two_networks]

Image AUROC on elpv/mono and elpv/poly, as `patchcore-course evaluate NAME --seed S --recipe R`
measures it: split and coresets by the seed, 200 training images, 200 good and all surely defective
test images. Each recipe is compared with the default on the same split. The first recipe, in the
mean of both categories, is the primary comparison; all others are corrected together. A cell goes
through each network once, whatever split it is part of.
"""

import argparse
import time

import numpy as np
import pandas as pd
import psutil

from benchmarks import report
from patchcore_helpers import PatchCore
from patchcore_helpers.core.feature_cache import FeatureCache
from patchcore_helpers.core.intervals import Interval, delong_components, mean_interval
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.recipes import make_detector, second_network
from patchcore_helpers.data.elpv import load_elpv
from patchcore_helpers.experiments.statistics import correct_over_page

NAMES = ["elpv/mono", "elpv/poly"]
DEFAULT = "default"
RECIPES = ["two_networks"]
TIMED_IMAGES = 20


class CellFeatures(FeatureCache):
    """The feature maps of all usable cells of a type, from which every split takes its own."""

    def __init__(self, cells, models):
        super().__init__()
        self.rows = {cell.number: row for row, cell in enumerate(cells)}
        self.maps = {}
        for model in models:
            extractor = model.new_extractor()
            extractor.cache = FeatureCache()
            self.maps[str(extractor.key())] = extractor.all_maps(cells)

    def get_or_compute(self, made_by, items, layers, batch_size, compute):
        """The maps of these cells, batch by batch."""
        rows = [self.rows[cell.number] for cell in items]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            yield [layer[batch] for layer in self.maps[str(list(made_by))]]


def detector_of(recipe, seed, cache=None):
    """What `evaluate --recipe` makes; PatchCore itself for the default."""
    model = PatchCore(random_state=seed, cache=cache)
    return model if recipe == DEFAULT else make_detector(recipe, model)


def measure_category(name, seeds, recipes):
    """The test images' labels and numbers, and their scores by every recipe; the last detectors.

    Returns
    -------
    splits : list of dict
        One for each seed.
    detectors : dict of recipe to detector
    """
    category = load_elpv(name, 0)
    cells = category.train + category.calibration + category.test
    cells = sorted(cells, key=lambda cell: cell.number)
    models = [PatchCore()]
    if any(recipe.startswith("two_networks") for recipe in recipes):
        models.append(second_network(PatchCore()))
    cache = CellFeatures(cells, models)
    splits, detectors = [], {}
    for seed in seeds:
        category = load_elpv(name, seed)
        scores = {}
        for recipe in [DEFAULT, *recipes]:
            start = time.perf_counter()
            detectors[recipe] = detector_of(recipe, seed, cache).fit(category.train)
            scores[recipe] = detectors[recipe].anomaly_scores(category.test)
            auroc = image_auroc(category.labels, scores[recipe])
            took = time.perf_counter() - start
            print(f"{name} seed {seed} {recipe}: {auroc:.4f} ({took:.0f} s)", flush=True)
        numbers = np.array([cell.number for cell in category.test])
        splits.append({"labels": category.labels, "numbers": numbers, "scores": scores})
    return splits, detectors


def interval_over_splits(splits, recipe, other=DEFAULT):
    """Mean difference in image AUROC over splits of the same images, with a 95 % interval.

    An image is part of several splits, and what it contributes to them is not independent. So
    DeLong's components of an image are averaged over its splits, and the images, not the splits,
    count as independent. What the splits' differences vary by is added once more; part of it is in
    the images' variance already, so the interval errs on the long side.
    """
    by_split = [split_components(split, recipe, other) for split in splits]
    estimates = [np.mean(defective) for (_, defective), _ in by_split]
    estimate = np.mean(estimates)
    components = [
        image_variance([of_split[label] for of_split in by_split], estimate) for label in (0, 1)
    ]
    if len(splits) > 1:
        components.append((np.var(estimates, ddof=1) / len(splits), len(splits) - 1))
    return Interval.from_variance_components(estimate, components)


def split_components(split, recipe, other):
    """(numbers, differences of DeLong's components) of the defective and of the normal images."""
    labels, numbers = split["labels"], split["numbers"]
    own = delong_components(labels, split["scores"][recipe])
    others = delong_components(labels, split["scores"][other])
    return [
        (numbers[labels == label], one[0] - two[0])
        for label, one, two in zip((1, 0), own, others, strict=True)
    ]


def image_variance(of_splits, estimate):
    """Variance of the mean over splits that one class of images adds, and degrees of freedom."""
    columns = {"image": 0, "value": 1}
    entries = pd.concat(
        [
            pd.DataFrame({name: of_split[at] for name, at in columns.items()}).assign(
                weight=1 / (len(of_split[0]) * len(of_splits))
            )
            for of_split in of_splits
        ]
    )
    images = entries.groupby("image").agg(value=("value", "mean"), weight=("weight", "sum"))
    n_images = len(images)
    squares = (images["weight"] * (images["value"] - estimate)) ** 2
    return float(squares.sum()) * n_images / (n_images - 1), n_images - 1


def compare(measured, recipes):
    """Differences from the default by category and in the mean, corrected over the page."""
    tables = {}
    for recipe in recipes:
        intervals = {name: interval_over_splits(measured[name], recipe) for name in measured}
        rows = [("category", name, *interval[:5]) for name, interval in intervals.items()]
        rows.append(("all", "mean", *mean_interval(list(intervals.values()))[:5]))
        columns = ["kind", "name", "difference", "low", "high", "error", "df"]
        tables[recipe] = pd.DataFrame(rows, columns=columns)
    return correct_over_page(tables, primary=recipes[0])


def auroc_rows(measured):
    return [
        {
            "category": name,
            "seed": seed,
            "recipe": recipe,
            "auroc": image_auroc(split["labels"], scores),
        }
        for name, splits in measured.items()
        for seed, split in enumerate(splits)
        for recipe, scores in split["scores"].items()
    ]


def measure_costs(detectors, samples):
    """Median milliseconds from one picture to its score, the detectors taking turns."""
    for detector in detectors.values():
        for part in getattr(detector, "detectors_", [detector]):
            part.extractor_.cache = None  # else the networks would not be part of it
        detector.detect(samples[:1])  # compiles the network
    times = {recipe: [] for recipe in detectors}
    for sample in samples:
        for recipe, detector in detectors.items():
            start = time.perf_counter()
            detector.detect([sample])
            times[recipe].append(1000 * (time.perf_counter() - start))
    busy = psutil.getloadavg()[0]
    return pd.DataFrame(
        [
            {
                "recipe": recipe,
                "ms": float(np.median(values)),
                "bank_rows": detectors[recipe].summary()["bank_size"],
                "load": round(busy, 1),
            }
            for recipe, values in times.items()
        ]
    )


def describe(results):
    """The part of benchmarks/README.md, from the tables that `main` has written."""
    aurocs, page, costs = (results[name] for name in ("since", "since_page", "since_costs"))
    means = aurocs.groupby(["recipe", "category"], sort=False)["auroc"].mean().unstack()
    costs = costs.set_index("recipe")
    rows = []
    for recipe in means.index:
        cells = [f"{means.loc[recipe, name]:.4f}" for name in NAMES]
        gains = page[page["comparison"] == recipe].set_index("name")
        for name in [*NAMES, "mean"]:
            if recipe == DEFAULT:
                cells.append("")
                continue
            row = gains.loc[name]
            cells.append(f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]")
        verdict = "" if recipe == DEFAULT else gains.loc["mean", "verdict"]
        rows.append([recipe, *cells, verdict, f"{costs.loc[recipe, 'ms']:.0f}"])
    differences = [f"{name} - default" for name in [*NAMES, "mean"]]
    header = ["recipe", *NAMES, *differences, "verdict on the mean", "ms"]
    primary = page["comparison"].iloc[0]
    return f"""\
{report.table(header, rows)}

Image AUROC, mean over the seeds, and paired differences from the default on the same splits, 95 %.
The intervals hold for other images of these modules and other splits. The primary comparison is
{primary} in the mean of both categories, tested by itself; all others are corrected together
(Holm). Milliseconds: from one picture to its score, median of {TIMED_IMAGES} pictures, the recipes
taking turns; the machine's load was {costs["load"].iloc[0]:.1f}, so compare them with each other.
"""


def read_results(folder=report.RESULTS):
    names = ["since", "since_page", "since_costs"]
    return {name: pd.read_csv(folder / f"{name}.csv") for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    args = parser.parse_args()
    measured = {}
    for name in NAMES:
        splits, detectors = measure_category(name, range(args.seeds), args.recipes)
        measured[name] = splits
    costs = measure_costs(detectors, load_elpv(NAMES[-1], 0).test[:TIMED_IMAGES])
    results = {
        "since": pd.DataFrame(auroc_rows(measured)),
        "since_page": compare(measured, args.recipes),
        "since_costs": costs,
    }
    report.RESULTS.mkdir(exist_ok=True)
    for name, frame in results.items():
        frame.round(5).to_csv(report.RESULTS / f"{name}.csv", index=False)
    head = f"""## Ideas since 2022

`python -m benchmarks.since`, {time.strftime("%Y-%m-%d")}; seeds 0 to {args.seeds - 1} of split and
coreset, default settings otherwise, {report.processor()}.

"""
    report.write_part("since", f"{head}{describe(read_results())}\n")


if __name__ == "__main__":
    main()
