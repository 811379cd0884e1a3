"""The benchmark of groups: what it counts, and that its page is that of its results."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import groups
from patchcore_helpers.course.notebook import read_notebook
from patchcore_helpers.course.parameters import declared_parameters, read_parameter_file

ROOT = Path(__file__).parents[2]


def test_page_is_that_of_the_committed_results():
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert groups.describe(groups.read_results()) in page, (
        "stale: run `python -m benchmarks.groups`"
    )


def test_shares_are_counted_on_images_that_did_not_set_the_threshold():
    normal, defective = np.arange(40.0), np.array([5.0, 18.5, 30.5, 50.0])
    _, first = groups.recalibrated(normal, defective, 20, 0.05, np.random.default_rng(0))
    assert first == (1, 0.5)  # above 19, the largest of the first 20: all others, and two defects
    _, first = groups.recalibrated(normal[::-1], defective, 20, 0.05, np.random.default_rng(0))
    assert first == (0, 0.25)
    too_few, _ = groups.recalibrated(normal, defective, 10, 0.05, np.random.default_rng(0))
    assert too_few.tolist() == [0, 0]


def test_images_drawn_at_random_keep_the_promise():
    rng = np.random.default_rng(0)
    shares = [
        groups.recalibrated(rng.normal(size=200), np.ones(5), 40, 0.1, rng)[0][0] for _ in range(20)
    ]
    assert np.mean(shares) == pytest.approx(4 / 41, abs=0.005)


def test_pages_that_can_split_at_random_do_so_only_when_told_to():
    """The split of what a page says first; solar cells of one module are alike."""
    splits = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        parameters, _ = declared_parameters(read_notebook(path))
        if "split" in parameters:
            splits[path.stem] = parameters["split"].default
    assert len(splits) >= 2 and set(splits.values()) == {"stretch"}, splits
    for path in (ROOT / "notebooks" / "configs").rglob("*.yaml"):
        assert read_parameter_file(path).get("split", "stretch") == "stretch", path
