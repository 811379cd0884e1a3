"""ELPV: which cells are split, which are left out, and by what seed."""

import importlib.util
from pathlib import Path

import pytest
from helpers.samples import file_names

from patchcore_helpers import InputError, load_category


@pytest.fixture(scope="module")
def elpv_lines():
    """The label file, read by hand: (file name, probability as written, type) of every cell."""
    folder = Path(importlib.util.find_spec("elpv_dataset").submodule_search_locations[0]) / "data"
    lines = (folder / "labels.csv").read_text().splitlines()
    return [(Path(a).name, round(float(b), 2), c) for a, b, c in map(str.split, lines)]


@pytest.mark.parametrize("kind, cells", [("mono", 1074), ("poly", 1550)])
def test_elpv_split(kind, cells, elpv_lines):
    category = load_category(f"elpv/{kind}", seed=3)
    normal = [s for s in category.test if s.label == 0]
    defective = [s for s in category.test if s.label == 1]
    by_probability = {
        p: {name for name, q, c in elpv_lines if (q, c) == (p, kind)} for p in (0, 0.33, 0.67, 1)
    }

    assert (len(category.train), len(normal)) == (200, 200)
    functional = file_names(category.train) + file_names(normal) + file_names(category.calibration)
    assert len(functional) == len(set(functional))
    assert set(functional) == by_probability[0]
    assert sorted(file_names(defective)) == sorted(by_probability[1])
    assert category.left_out == {
        "defect probability 1/3": len(by_probability[0.33]),
        "defect probability 2/3": len(by_probability[0.67]),
    }
    assert len(functional) + len(defective) + sum(category.left_out.values()) == cells
    assert {s.kind for s in normal} == {"good"} and {s.kind for s in defective} == {"defective"}
    assert category.counts()["images"].sum() == cells
    assert "CC BY-NC-SA" in category.license


def test_elpv_split_follows_the_seed():
    first, again, other = (load_category("elpv/mono", seed=seed) for seed in (5, 5, 6))
    assert first == again
    both = set(file_names(first.train)) & set(file_names(other.train))
    assert len(both) < 120  # by chance 200 * 200 / 588 = 68
    assert file_names(first.train) != sorted(file_names(first.train))
    with pytest.raises(InputError, match="seed=-1"):
        load_category("elpv/mono", seed=-1)


def test_elpv_images_are_readable_and_have_no_masks():
    category = load_category("elpv/poly")
    assert category.train[0].read().size == (300, 300)
    defective = category.test[-1]
    assert defective.mask() is None and not defective.has_mask
    assert category.test[0].mask().shape == (300, 300) and not category.test[0].mask().any()


def test_elpv_without_its_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="elpv-dataset package is missing; install it"):
        load_category("elpv/mono")
