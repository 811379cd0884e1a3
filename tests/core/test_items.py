"""What counts as an image."""

import io

import numpy as np
import pytest
from PIL import Image

from patchcore_helpers import InputError, Sample
from patchcore_helpers.core.items import read_item


class Drawing:
    """Not a sample: it has nothing but `read`."""

    def __init__(self, mode="RGB"):
        self.mode = mode

    def read(self):
        return Image.new(self.mode, (3, 2), 70)


def test_every_kind_of_item(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    for item in (pixels, path, str(path), Sample(path), Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(read_item(item)), pixels)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_whatever_can_be_read_is_an_image(mode):
    image = read_item(Drawing(mode))
    assert image.mode == "RGB" and image.size == (3, 2)


@pytest.mark.parametrize("item", [None, 7, io.BytesIO(b"x"), ["a.png"]])
def test_what_is_no_image(item):
    with pytest.raises(InputError, match="give a path"):
        read_item(item)
