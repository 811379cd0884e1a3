"""What lessons quote from the benchmarks: the file's own numbers, or a line that says why not."""

import csv
from statistics import mean

import pytest

from patchcore_helpers import InputError
from patchcore_helpers.course import kept


def test_tile_aurocs_are_those_of_the_file():
    with (kept.RESULTS / "aitex.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = kept.aitex_tile_aurocs()
    settings = {row["measure"] for row in rows if not row["measure"].startswith("score:")}
    assert set(table.index) == settings
    for setting in settings:
        values = [float(row["tile"]) for row in rows if row["measure"] == setting]
        assert table.loc[setting, "mean"] == pytest.approx(mean(values))
    assert table["mean"].is_monotonic_decreasing


def test_no_such_results():
    with pytest.raises(
        InputError, match=r"nothing\.csv: no such file; use the course from a clone"
    ):
        kept.kept_results("nothing")
