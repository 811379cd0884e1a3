"""The benchmark of --tune: what regret is, and that its page is that of its results."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import tuning

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert tuning.describe(tuning.read_results()) in page, (
        "stale: run `python -m benchmarks.tuning`"
    )


def test_regret_of_every_rule():
    one = {"category": "a", "seed": 0, "auroc": [0.5, 0.9, 0.6], "low": [0.0, -1.0, 0.01]}
    two = {**one, "category": "b", "low": [0.0, -1.0, -0.01]}
    real = [0.5, 0.75, 1.0]
    table = pd.concat([pd.DataFrame({**own, "real": real}) for own in (one, two)])
    found = tuning.regrets(table.reset_index(drop=True))
    assert found.loc["a"].tolist() == pytest.approx([0.0, 0.25, 0.5])
    assert found.loc["b"].tolist() == pytest.approx([0.5, 0.25, 0.5])
