"""Planted defects: exact masks, and what is refused."""

import numpy as np
import pytest
from helpers.exact_masks import assert_exact

from patchcore_helpers import InputError, load_category
from patchcore_helpers.data.planted import PLANTED_DEFECTS, plant_defect


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
