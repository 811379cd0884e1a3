"""The input size that keeps the shape of the images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchcore_helpers.core.image_shape import size_in_shape


def photographs(*sizes):
    """Black images of some (width, height)."""
    return [Image.new("RGB", size) for size in sizes]


@given(st.integers(64, 2000), st.integers(64, 2000))
def test_the_shape_and_the_area_are_kept(width, height):
    chosen = size_in_shape(photographs((width, height)))
    if isinstance(chosen, int):
        assert chosen == 256 and max(width / height, height / width) <= 1.15
        return
    # The best rectangle of this area, of which each side is off by at most half a stride.
    best = np.array([256 * (height / width) ** 0.5, 256 * (width / height) ** 0.5])
    assert (np.abs(chosen - best) <= 16 + 1e-6).all() or min(best) < 16
    assert all(side % 32 == 0 and side > 0 for side in chosen)
    assert (chosen[0] > chosen[1]) == (height > width) or chosen[0] == chosen[1]


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(640, 480)], (224, 288)),
        ([(480, 640)] * 3, (288, 224)),
        ([(300, 300)], 256),
        ([(330, 300)], 256),
        ([(640, 480), (320, 241)], (224, 288)),  # nearly the same shape
        ([(640, 480), (480, 640)], 256),  # no shape that all share
        ([(4096, 256)], (64, 1024)),
    ],
)
def test_sizes_of_photographs(sizes, chosen):
    assert size_in_shape(photographs(*sizes)) == chosen


def test_only_some_images_are_read(tmp_path):
    good = tmp_path / "good.png"
    Image.new("RGB", (640, 480)).save(good)
    never_read = tmp_path / "missing.png"
    places = np.linspace(0, 99, 20).round().astype(int)
    images = [good if place in places else never_read for place in range(100)]
    assert size_in_shape(images) == (224, 288)
