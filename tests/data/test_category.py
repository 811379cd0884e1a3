"""Samples and categories: what can be read, seeded choices, counts."""

from pathlib import Path

import numpy as np
import pytest
from helpers.samples import file_names
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchcore_helpers import Category, InputError, Sample
from patchcore_helpers.data.category import split
from patchcore_helpers.data.images import Readable


def test_what_is_readable():
    assert isinstance(Sample(Path("a.png")), Readable)
    for item in ("a.png", Path("a.png"), Image.new("L", (2, 2)), np.zeros((2, 2), np.uint8)):
        assert not isinstance(item, Readable)


@pytest.mark.long
@given(st.lists(st.integers(), unique=True), st.lists(st.integers(0, 9), max_size=3), st.booleans())
def test_a_split_loses_nothing(items, sizes, in_order):
    parts = split(items, *sizes, seed=1, in_order=in_order)
    assert len(parts) == len(sizes) + 1
    assert sorted(item for part in parts for item in part) == sorted(items)
    taken = 0
    for part, size in zip(parts, sizes, strict=False):
        assert len(part) == min(size, len(items) - taken)
        taken += len(part)
    if in_order:
        for part in parts:
            assert part == sorted(part, key=items.index)


def test_a_split_follows_the_seed():
    items = list(range(100))
    assert split(items, 50, seed=1) == split(items, 50, seed=1) != split(items, 50, seed=2)
    in_order, shuffled = (split(items, 50, seed=1, in_order=choice) for choice in (True, False))
    assert in_order == [sorted(part) for part in shuffled] != shuffled
    with pytest.raises(InputError, match="seed=-1"):
        split(items, 50, seed=-1)


def many(train=40, good=20, bad=30, calibration=10):
    def some(role, n, label=0):
        return [
            Sample(Path(f"{role}{i:02}.png"), label, "bad" if label else "good") for i in range(n)
        ]

    test = some("good", good) + some("bad", bad, 1)
    return Category("x", some("train", train), test, some("calibration", calibration), {"odd": 2})


def test_limit_takes_a_seeded_choice_of_each_class():
    category, small = many(), many().limit(train=5, test=4, seed=1)
    assert (len(small.train), len(small.calibration)) == (5, 4)
    assert sorted(small.labels.tolist()) == [0] * 4 + [1] * 4
    assert set(small.train) < set(category.train) and set(small.test) < set(category.test)
    assert small.left_out == {"odd": 2}
    assert many().limit(train=5, test=4, seed=1) == small
    assert many().limit(train=5, test=4, seed=2).train != small.train
    assert small.train != category.train[:5]
    assert many().limit() == category and many().limit(train=1000, test=1000) == category


def test_calibration_images_are_held_out_of_training():
    category = many(calibration=0)
    held = category.with_calibration(share=0.25, seed=1)
    assert (len(held.train), len(held.calibration)) == (30, 10)
    assert sorted(file_names(held.train + held.calibration)) == file_names(category.train)
    assert held.test == category.test
    assert category.with_calibration(0.25, seed=1) == held
    assert category.with_calibration(0.25, seed=2).calibration != held.calibration
    assert len(many(train=2, calibration=0).with_calibration(0.01).calibration) == 1
    assert many().with_calibration() == many()
    with pytest.raises(InputError, match="1 training images are too few"):
        many(train=1, calibration=0).with_calibration()


def test_counts():
    table = many(calibration=3).counts()
    assert table.to_numpy().tolist() == [
        ["train", "good", 40],
        ["test", "bad", 30],
        ["test", "good", 20],
        ["calibration", "good", 3],
        ["left out", "odd", 2],
    ]
