"""Rendered strips: their edge, their light, and the defects of AITEX with exact masks."""

import numpy as np
import pytest
from helpers.exact_masks import assert_exact
from scipy import ndimage

from patchcore_helpers import InputError
from patchcore_helpers.data.synthetic_strip import (
    MARGIN_SPREAD,
    SELVAGE_REACH,
    STRIP_DEFECTS,
    STRIP_MODELS,
    strip,
)
from patchcore_helpers.data.tiling import fabric_extent

FABRIC_OF = {defect: name for name, model in STRIP_MODELS.items() for defect in model.defects}


@pytest.mark.parametrize("defect", STRIP_DEFECTS)
def test_masks_of_strips_are_exact(defect):
    places = []
    for seed in range(3):
        good, none = strip(FABRIC_OF[defect], 128, 512, seed)
        image, mask = strip(FABRIC_OF[defect], 128, 512, seed, defect)
        np.testing.assert_array_equal(strip(FABRIC_OF[defect], 128, 512, seed, defect)[0], image)
        assert not none.any()
        assert_exact(good, image, mask)
        places.append(ndimage.center_of_mass(mask))
    assert np.ptp(places, axis=0).max() > 10


@pytest.mark.parametrize("fabric", STRIP_MODELS)
def test_every_strip_of_a_fabric_is_in_the_same_light(fabric):
    model = STRIP_MODELS[fabric]
    profiles = []
    for seed in range(4):
        image = strip(fabric, 64, 1200, seed)[0]
        first, last = fabric_extent(image)
        expected = model.margin * 1200
        assert abs(first - expected) <= MARGIN_SPREAD * expected + 4
        columns = ndimage.gaussian_filter1d(image[:, first:last].mean(0), 20)
        profiles.append(columns[np.linspace(100, last - first - 30, 50).astype(int)])
    mean = np.mean(profiles, axis=0)
    # Nine tenths along the cloth against the middle, as the model says.
    measured = mean[45] / mean[22]
    said = model.light_along(1200, 0)[0]
    assert measured == pytest.approx(said[1080] / said[600], rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_selvage_is_where_the_cloth_begins(seed):
    image, mask = strip("00", 96, 1024, seed, "cut selvage")
    first, _ = fabric_extent(image)
    assert first - 2 <= np.flatnonzero(mask.any(0)).min() < first + SELVAGE_REACH


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"fabric": "02"}, "fabric='02': choose one of 00, 01, 04"),
        ({"defect": "moth"}, "defect='moth': choose one of broken end, "),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"height": 47}, "fabric of 47 rows"),
    ],
)
def test_refused_strips(wrong, message):
    with pytest.raises(InputError, match=message):
        strip(**{"fabric": "00"} | wrong)
