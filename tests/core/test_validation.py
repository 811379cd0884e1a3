"""The checks: what passes comes back as a plain type, what does not is refused in one line."""

import numpy as np
import pytest
import torch

from patchcore_helpers.core.validation import (
    as_float_matrix,
    as_patch_matrix,
    check_choice,
    check_integer,
    check_real,
    check_seed,
)
from patchcore_helpers.errors import InputError

NOT_NUMBERS = [None, "3", True, np.True_, [3], {}, 2j, float("nan")]


@pytest.mark.parametrize("value", [1, 3, 7, np.int64(3), np.uint8(7)])
def test_integers_in_range(value):
    checked = check_integer(value, "k", 1, 7)
    assert checked == value and type(checked) is int
    assert check_integer(value, "k", 1) == value


@pytest.mark.parametrize("value", [0, 8, -1, 3.0, np.float32(3), float("inf"), *NOT_NUMBERS])
def test_integers_refused(value):
    with pytest.raises(InputError) as caught:
        check_integer(value, "k", 1, 7)
    assert str(caught.value) == f"k={value!r}: give a whole number from 1 to 7"


@pytest.mark.parametrize(
    ("include", "allowed", "span"),
    [
        ("both", {0, 0.5, 1}, "from 0 to 1"),
        ("left", {0, 0.5}, "from 0 and below 1"),
        ("right", {0.5, 1}, "above 0 and at most 1"),
        ("neither", {0.5}, "above 0 and below 1"),
    ],
)
def test_reals_and_their_limits(include, allowed, span):
    for value in (0, 0.5, 1, np.float32(0.5), np.int32(1)):
        if value in allowed:
            checked = check_real(value, "share", 0, 1, include=include)
            assert checked == value and type(checked) is float
        else:
            with pytest.raises(InputError, match=rf": give a number {span}$"):
                check_real(value, "share", 0, 1, include=include)


@pytest.mark.parametrize("value", [-0.1, float("inf"), -float("inf"), np.nan, *NOT_NUMBERS])
@pytest.mark.parametrize("include", ["both", "left", "right", "neither"])
def test_reals_refused(value, include):
    with pytest.raises(InputError, match=r"^sigma=.*: give pixels (from|above) 0$"):
        check_real(value, "sigma", 0, include=include, what="pixels")
    assert check_real(2, "sigma", 0, include=include) == 2


def test_choices():
    assert check_choice("b", "kind", {"a": 1, "b": 2}) == "b"
    for value in ("c", None, ["a"], {}):
        with pytest.raises(InputError, match=r"^kind=.*: choose one of a, b$"):
            check_choice(value, "kind", {"a": 1, "b": 2})


def test_seeds():
    assert check_seed(2**32 - 1) == 2**32 - 1
    for value in (-1, 2**32, 1.0, None):
        with pytest.raises(InputError, match=r"^random_state=.*: give a whole number from 0 to"):
            check_seed(value)


def test_float_matrix_is_not_copied(tmp_path):
    points = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "points.npy", points)
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    assert as_float_matrix(points, "points") is points
    assert as_float_matrix(mapped, "points") is mapped
    tensor = torch.from_numpy(points).requires_grad_()
    assert np.shares_memory(as_float_matrix(tensor, "points"), points)
    assert as_float_matrix(tensor.bfloat16(), "points").dtype == np.float32
    assert as_float_matrix(points.tolist(), "points").dtype == np.float64


def test_patch_matrix_is_contiguous_float32():
    points = np.arange(6).reshape(3, 2)
    matrix = as_patch_matrix(points.T)
    assert matrix.dtype == np.float32 and matrix.flags.c_contiguous
    assert np.shares_memory(as_patch_matrix(matrix), matrix)
    np.testing.assert_array_equal(matrix, points.T)


@pytest.mark.parametrize("convert", [as_patch_matrix, as_float_matrix])
@pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0), (1, 2, 3)])
def test_matrices_refused(convert, shape):
    with pytest.raises(InputError, match=r"^features: "):
        convert(np.ones(shape), "features")


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_a_search_refuses():
    with pytest.raises(InputError, match=r"^patches: 2 channels, but the memory bank has 3$"):
        as_patch_matrix(np.ones((4, 2)), width=3)
    for value in (np.nan, np.inf, 1e39):
        with pytest.raises(InputError, match=r"^patches: holds NaN or infinite values$"):
            as_patch_matrix([[0.0, value]])
    with pytest.raises(InputError, match=r"^points: need float16, float32 or float64, got int64$"):
        as_float_matrix(np.ones((2, 2), np.int64), "points")
