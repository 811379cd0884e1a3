"""ELPV: which cells are split, which are left out, and by what seed; stretches of files."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from helpers.samples import file_names

from patchcore_helpers import InputError, load_category
from patchcore_helpers.data import elpv
from patchcore_helpers.data.elpv import (
    load_bank_defects,
    load_elpv_apart,
    load_elpv_folds,
    nearest_in_files,
)


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


def usable(lines, kind):
    """File names and labels of the cells without doubt, in the order of the label file."""
    return [(name, int(p)) for name, p, of in lines if of == kind and p in (0, 1)]


@pytest.mark.parametrize("kind, n_folds", [("mono", 5), ("poly", 5), ("poly", 2), ("mono", 10)])
def test_every_fold_is_tested_on_a_stretch_that_it_was_not_trained_on(kind, n_folds, elpv_lines):
    folds = load_elpv_folds(f"elpv/{kind}", n_folds, seed=3)
    cells = usable(elpv_lines, kind)
    tested = [(s.image.name, s.label) for fold in folds for s in fold.test]
    assert len(folds) == n_folds and tested == cells  # contiguous, in order, each once
    sizes = {len(fold.test) for fold in folds}
    assert max(sizes) - min(sizes) <= 1
    normal = {name for name, label in cells if label == 0}
    for number, fold in enumerate(folds):
        train, calibration = (set(file_names(part)) for part in (fold.train, fold.calibration))
        assert (len(train), len(calibration)) == (200, 100)
        assert train | calibration <= normal and not train & calibration
        assert not (train | calibration) & set(file_names(fold.test))
        assert set(fold.groups) == {number}
        assert number not in {s.group for s in fold.train + fold.calibration}
        assert fold.counts()["images"].sum() == sum(of == kind for _, _, of in elpv_lines)


def test_training_images_of_a_fold_come_from_all_over_the_other_stretches():
    fold = load_elpv_folds("elpv/poly")[2]
    train, calibration = ([s.number for s in part] for part in (fold.train, fold.calibration))
    for group in (0, 1, 3, 4):  # 752 normal cells elsewhere: both parts draw from every stretch
        assert sum(s.group == group for s in fold.train) > 20
        assert sum(s.group == group for s in fold.calibration) > 5
    # Two samples of one population: their mean places differ by no more than chance allows.
    error = (np.var(train) / len(train) + np.var(calibration) / len(calibration)) ** 0.5
    assert abs(np.mean(train) - np.mean(calibration)) < 3 * error
    again, other = (load_elpv_folds("elpv/poly", seed=seed)[2] for seed in (0, 1))
    assert again == fold and other.test == fold.test and other.train != fold.train


def test_samples_of_both_splits_know_their_file_and_stretch(elpv_lines):
    category = load_category("elpv/mono", seed=2)
    place = {name: i for i, (name, _) in enumerate(usable(elpv_lines, "mono"))}
    for sample in category.train + category.test + category.calibration:
        assert sample.image.name == f"cell{sample.number:04}.png"
        # 901 cells in ten stretches: one of 91, nine of 90
        assert sample.group == max(0, (place[sample.image.name] - 1) // 90)
    assert category.groups.tolist() == [s.group for s in category.test]
    assert load_category("fabric/plain").groups is None


@pytest.mark.parametrize("kind", ["mono", "poly"])
def test_one_bank_and_its_test_have_no_stretch_in_common(kind, elpv_lines):
    apart = load_elpv_apart(f"elpv/{kind}", seed=3)
    assert apart == load_category(f"elpv/{kind}", seed=3, split="stretch")
    cells = usable(elpv_lines, kind)
    stretches = np.array_split(np.arange(len(cells)), 10)
    tested = [cells[place] for places in stretches[1::2] for place in places]
    assert [(s.image.name, s.label) for s in apart.test] == tested

    learned = file_names(apart.train) + file_names(apart.calibration)
    elsewhere = [cells[place] for places in stretches[::2] for place in places]
    assert sorted(learned) == sorted(name for name, label in elsewhere if label == 0)
    assert len(apart.train) == 200 and len(set(learned)) == len(learned)
    assert apart.counts()["images"].sum() == sum(of == kind for _, _, of in elpv_lines)


@pytest.mark.parametrize("kind", ["mono", "poly"])
def test_defects_of_the_bank_are_those_that_its_split_leaves_out(kind, elpv_lines):
    defects = load_bank_defects(f"elpv/{kind}")
    cells = usable(elpv_lines, kind)
    stretches = np.array_split(np.arange(len(cells)), 10)[::2]
    expected = [cells[place][0] for places in stretches for place in places if cells[place][1]]
    assert [cell.image.name for cell in defects] == expected
    apart = load_elpv_apart(f"elpv/{kind}", seed=0)
    assert apart.left_out["defective, of the bank's stretches"] == len(defects)
    used = file_names(apart.train) + file_names(apart.calibration) + file_names(apart.test)
    assert not set(expected) & set(used)
    with pytest.raises(InputError, match="fabric/plain: has no stretches"):
        load_bank_defects("fabric/plain")


def test_nearest_in_files_takes_each_candidate_once():
    train = load_elpv_apart("elpv/mono", seed=0).train[:30]
    candidates = load_bank_defects("elpv/mono")
    taken = nearest_in_files(train, candidates)
    assert len({cell.number for cell in taken}) == len(train)
    for i, (cell, neighbor) in enumerate(zip(train, taken, strict=True)):
        before = {other.number for other in taken[:i]}
        gaps = [abs(c.number - cell.number) for c in candidates if c.number not in before]
        assert abs(neighbor.number - cell.number) == min(gaps)
    with pytest.raises(InputError, match="candidates: 2 for 30 cells; give at least as many"):
        nearest_in_files(train, candidates[:2])


def test_the_seed_of_a_split_by_stretches_chooses_the_training_images():
    first, again, other = (load_elpv_apart("elpv/poly", seed=seed) for seed in (5, 5, 6))
    assert first == again and other.test == first.test
    both = set(file_names(first.train)) & set(file_names(other.train))
    assert len(both) < 150  # by chance 200 * 200 / 418 = 96


def test_other_data_sets_are_split_in_one_way():
    assert load_category("fabric/plain", split="stretch") == load_category("fabric/plain")
    with pytest.raises(InputError, match="split='half'"):
        load_category("elpv/mono", split="half")
    with pytest.raises(InputError, match="fabric/plain: has no stretches"):
        load_elpv_apart("fabric/plain", seed=0)


def test_folds_that_cannot_be_made_are_refused(monkeypatch):
    with pytest.raises(InputError, match="fabric/plain: has no stretches of files; choose elpv"):
        load_elpv_folds("fabric/plain")
    for wrong in (1, 0, 2.0):
        with pytest.raises(InputError, match=f"n_folds={wrong}: give a whole number from 2"):
            load_elpv_folds("elpv/mono", wrong)
    with pytest.raises(InputError, match="seed=-1"):
        load_elpv_folds("elpv/mono", seed=-1)
    with pytest.raises(InputError, match=r"mono: 188 normal cells outside stretch 1, 300 are"):
        load_elpv_folds("elpv/mono", 2)
    with pytest.raises(InputError, match=r"mono: stretch 1 has no normal cells; choose fewer"):
        load_elpv_folds("elpv/mono", 40)
    table = elpv.elpv_table()
    table.loc[table["type"] == "poly", "probability"] *= table.index[table["type"] == "poly"] > 2500
    monkeypatch.setattr(elpv, "elpv_table", lambda: table)
    with pytest.raises(InputError, match=r"poly: stretch 0 has no defective cells; choose fewer"):
        load_elpv_folds("elpv/poly")
