"""Planted defects: exact masks, and what is refused."""

import numpy as np
import pytest
from helpers.exact_masks import assert_exact
from PIL import Image

from patchcore_helpers import InputError, load_category
from patchcore_helpers.data.planted import PLANTED_DEFECTS, plant_defect, plant_on_photograph


@pytest.fixture(scope="module")
def cells():
    category = load_category("elpv/poly")
    return [np.asarray(sample.read())[..., 0] for sample in category.test[:8]]


@pytest.mark.parametrize("defect", PLANTED_DEFECTS)
def test_masks_of_planted_defects_are_exact(cells, defect):
    for seed, cell in enumerate(cells):
        untouched = cell.copy()
        image, mask = plant_defect(cell, defect, seed)
        assert_exact(cell, image, mask)
        np.testing.assert_array_equal(cell, untouched)
        np.testing.assert_array_equal(plant_defect(cell, defect, (seed,))[0], image)
        assert (plant_defect(cell, defect, seed + 50)[1] != mask).any()
        if defect == "cut_and_paste":
            bright = plant_defect(cell, defect, seed, donor=np.full_like(cell, 255))
            assert (bright[0][bright[1]] > cell[bright[1]]).mean() > 0.9
        else:
            assert (image <= cell).all()


def test_refused_plantings():
    flat = np.zeros((64, 80), np.uint8)
    with pytest.raises(InputError, match="no defect shows"):
        plant_defect(flat, "stain")
    with pytest.raises(InputError, match="defect='fold': choose one of scar"):
        plant_defect(flat, "fold")
    with pytest.raises(InputError, match="at least 64"):
        plant_defect(flat[:60], "scar")
    with pytest.raises(InputError, match="donor of shape"):
        plant_defect(flat, "cut_and_paste", donor=flat.T)
    with pytest.raises(InputError, match="seed=-2"):
        plant_defect(flat, "stain", seed=-2)


@pytest.mark.parametrize("defect", PLANTED_DEFECTS)
def test_a_photograph_of_the_reference_side_gets_the_defect_itself(cells, defect):
    cell = cells[0]
    assert cell.shape == (300, 300)
    planted = np.asarray(plant_on_photograph(Image.fromarray(cell), defect, 3))
    expected, _ = plant_defect(cell, defect, 3)
    for channel in range(3):
        np.testing.assert_array_equal(planted[..., channel], expected)


@pytest.mark.parametrize("defect", PLANTED_DEFECTS)
def test_a_color_photograph_changes_by_the_same_levels_within_a_window_of_the_product(defect):
    rng = np.random.default_rng(0)
    pixels = rng.integers(100, 140, (100, 800, 3), np.uint8)
    pixels[..., 1] += 40
    for seed in range(10):
        planted = plant_on_photograph(Image.fromarray(pixels), defect, seed, (300, 500))
        assert planted.size == (800, 100) and planted.mode == "RGB"
        change = np.asarray(planted).astype(int) - pixels
        assert (change == change[..., :1]).all()
        columns = np.flatnonzero(change.any((0, 2)))
        assert columns[0] >= 300 and columns[-1] < 500 and np.ptp(columns) < 100


def test_a_large_photograph_gets_small_and_large_defects():
    pixels = np.random.default_rng(0).integers(60, 200, (1200, 1200), np.uint8)
    shares = [
        (np.asarray(plant_on_photograph(Image.fromarray(pixels), "stain", seed))[..., 0] != pixels)
        for seed in range(20)
    ]
    areas = np.sqrt([share.sum() for share in shares])
    assert areas.max() > 3 * areas.min()
