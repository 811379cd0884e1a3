"""The benchmark of products: its page is that of its results, and what it counts."""

from pathlib import Path

import numpy as np

from benchmarks import products
from patchcore_helpers.core.products import ProductResult

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert products.describe(products.read_results()) in page, (
        "stale: run `python -m benchmarks.products`"
    )


def test_alarms_are_by_the_threshold_of_the_product():
    class Bank:
        def threshold_of(self, product):
            return {"low": 1, "high": 3}[product]

    grids = np.zeros((2, 1, 1))
    results = [
        ProductResult(np.array([2, 2]), grids, None, ("low", "high")),
        ProductResult(np.array([3, 4]), grids, None, ("high", "high")),
    ]
    assert products.alarms(Bank(), results).tolist() == [True, False, False, True]
