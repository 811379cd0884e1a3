"""The benchmark of teach: its page is that of its results, and what it calls an alarm."""

from pathlib import Path

import numpy as np

from benchmarks import teach

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert teach.describe(teach.read_results()) in page, "stale: run `python -m benchmarks.teach`"


def test_rates_are_those_of_each_class():
    scores, labels = np.array([1, 2, 3, 4, 5]), np.array([0, 0, 0, 1, 1])
    assert teach.rates(scores, labels, 2) == (1 / 3, 1)
    assert teach.rates(scores, labels, 4) == (0, 0.5)
