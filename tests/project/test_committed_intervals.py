"""Intervals of AUROCs in the committed tables are within 0 and 1, and none is without a width."""

from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
ESTIMATES = ("auroc", "estimate", "image")  # what the columns low and high may belong to


def has_intervals(path):
    columns = set(pd.read_csv(path, nrows=0))
    return {"low", "high"} <= columns and bool(columns & set(ESTIMATES))


FOLDERS = (ROOT / "docs" / "runs", ROOT / "benchmarks" / "results")
TABLES = [p for folder in FOLDERS for p in sorted(folder.glob("*.csv")) if has_intervals(p)]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_intervals_of_aurocs_stay_within_0_and_1_and_have_a_width(path):
    rows = pd.read_csv(path)
    (estimate,) = set(ESTIMATES) & set(rows)
    rows = rows.dropna(subset=[estimate, "low", "high"])
    assert len(rows)
    assert rows["low"].min() >= 0 and rows["high"].max() <= 1
    assert (rows["low"] < rows["high"]).all()
    assert ((rows["low"] <= rows[estimate]) & (rows[estimate] <= rows["high"])).all()


def test_there_are_such_tables():
    assert len(TABLES) >= 4
