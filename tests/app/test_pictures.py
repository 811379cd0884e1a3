"""Pictures for reports."""

from pathlib import Path

import numpy as np
import pytest
from helpers.command import HOSTILE_NAMES
from PIL import Image

from patchcore_helpers.app.pictures import LONGER_SIDE, heat_map_picture, picture_name


def test_heat_lies_where_the_map_is_high():
    values = np.zeros((32, 32))
    values[8:16, 20:28] = 1
    image = Image.new("RGB", (64, 64), (90, 90, 90))
    both = np.asarray(heat_map_picture(image, values, (0.1, 1)), int)
    assert both.shape == (64, 128, 3) and (both[:, :64] == 90).all()
    changed = np.abs(both[:, 64:] - 90).sum(2) > 60
    rows, columns = np.nonzero(changed)
    assert 14 <= rows.min() < rows.max() <= 33 and 38 <= columns.min() < columns.max() <= 57


def test_large_images_become_small_pictures():
    picture = heat_map_picture(Image.new("L", (4000, 1000)), np.zeros((32, 32)), (0, 0))
    assert picture.size == (2 * LONGER_SIDE, LONGER_SIDE // 4)


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "x" * 300, "\udcff", "..", ""])
def test_names_of_pictures(name):
    made = picture_name(3, Path("folder") / f"{name}.png")
    assert made.startswith("00003_") and len(made.encode()) < 120
    assert Path(made).name == made and made.isprintable()
