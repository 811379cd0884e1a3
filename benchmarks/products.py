"""How often is the product of an image recognized, and what does a wrong one cost?

    python -m benchmarks.products [--seed 0]

One bank of the embedded real and rendered categories, each a product: both kinds of solar cells and
all fabrics. Its test images are judged twice, as the product that is recognized and as the one that
they are, by thresholds for 5 % of false alarms. Uses the package's defaults, without a cache.
"""

import argparse
import time

import numpy as np
import pandas as pd

from benchmarks import report
from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core.products import ProductBank
from patchcore_helpers.data.catalog import category_names

PRODUCTS = [name for name in category_names() if name.startswith(("elpv/", "fabric/"))]
RATE = 0.05


def alarms(bank, results):
    """Which images alarm, by the threshold of the product that they were judged as."""
    return np.array(
        [
            score > bank.threshold_of(product)
            for result in results
            for score, product in zip(result.scores, result.products, strict=True)
        ]
    )


def measure(bank, product, category):
    """A row of the table for the test images of a product."""
    given = bank.only(product)
    recognized = list(bank.detect_batches(category.test))
    products = np.array([name for result in recognized for name in result.products])
    alarms_recognized = alarms(bank, recognized)
    alarms_given = alarms(bank, list(given.detect_batches(category.test)))
    row = {"product": product}
    for kind, is_kind in {
        "normal": category.labels == 0,
        "defective": category.labels == 1,
    }.items():
        row[kind] = int(is_kind.sum())
        row[f"{kind}_recognized"] = int((products[is_kind] == product).sum())
        row[f"{kind}_alarms_given"] = int(alarms_given[is_kind].sum())
        row[f"{kind}_alarms_recognized"] = int(alarms_recognized[is_kind].sum())
    return row


def describe(results):
    """The part of benchmarks/README.md, from the table that `main` has written."""
    rows = [
        [
            row.product,
            f"{row.normal_recognized} of {row.normal}",
            f"{row.defective_recognized} of {row.defective}",
            f"{row.normal_alarms_given} → {row.normal_alarms_recognized}",
            f"{row.defective_alarms_given} → {row.defective_alarms_recognized}",
        ]
        for row in results.itertuples()
    ]
    header = ["product", "normal recognized", "defective recognized"]
    header += ["normal alarms, given → recognized", "defective alarms, given → recognized"]
    n_images = (results["normal"] + results["defective"]).sum()
    right = (results["normal_recognized"] + results["defective_recognized"]).sum()
    return f"""\
One bank of {len(results)} products. {right} of {n_images} test images ({right / n_images:.1%}) are
recognized as their own product, by a vote of their patches. Alarms are those of thresholds for
{RATE:.0%} of false alarms, first with the product given, then with the product recognized.

{report.table(header, rows)}
"""


def read_results(folder=report.RESULTS):
    return pd.read_csv(folder / "products.csv")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    categories = {
        product: load_category(product, seed=args.seed).with_calibration(seed=args.seed)
        for product in PRODUCTS
    }
    models = {}
    for product, category in categories.items():
        model = PatchCore(random_state=args.seed).fit(category.train)
        models[product] = model.calibrate(category.calibration, RATE)
        print(f"{product}: fitted", flush=True)
    bank = ProductBank(models)
    rows = []
    for product, category in categories.items():
        rows.append(measure(bank, product, category))
        print(rows[-1], flush=True)
    report.RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(report.RESULTS / "products.csv", index=False)
    head = f"""## Products in one bank

`python -m benchmarks.products`, {time.strftime("%Y-%m-%d")}; default settings.

"""
    report.write_part("products", f"{head}{describe(read_results())}\n")


if __name__ == "__main__":
    main()
