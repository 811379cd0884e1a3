"""Rendered cloth: the weave, its selvage and margin, defects with exact masks."""

import numpy as np
import pytest
from helpers.exact_masks import assert_exact
from scipy import ndimage

from patchcore_helpers import InputError
from patchcore_helpers.data.synthetic_fabric import CLOTHS, FABRIC_DEFECTS, STRENGTHS, fabric


def power(image, per_column, per_row):
    """How much of an image's variance lies around a frequency (cycles per pixel, either sign)."""
    window = np.outer(*(np.hanning(n) for n in image.shape))
    spectrum = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    fy, fx = (np.fft.fftfreq(n) for n in image.shape)
    near = np.hypot(fy[:, None] - per_row, fx - per_column) < 0.025
    return 2 * spectrum[near].sum() / spectrum.sum()


def weave_frequency(cloth):
    """The lowest frequency of a weave, along which its floats follow each other."""
    return cloth.step / cloth.repeat / cloth.end_pitch, 1 / cloth.repeat / cloth.pick_pitch


def test_levels_of_the_weaves():
    plain, twill, satin = (CLOTHS[weave].levels() for weave in ("plain", "twill", "satin"))
    np.testing.assert_array_equal(plain, [[1, -1], [-1, 1]])
    np.testing.assert_array_equal(twill, [[1, 1, -1], [-1, 1, 1], [1, -1, 1]])
    # In a satin of 5 each end is on top once in a repeat, and never beside its neighbor.
    np.testing.assert_array_equal(satin, 2 * np.eye(5)[[0, 3, 1, 4, 2]] - 1)
    np.testing.assert_array_equal(CLOTHS["satin"].selvage().levels(), plain)


@pytest.mark.parametrize("weave", CLOTHS)
def test_cloth_follows_its_weave_and_its_seed(weave):
    image, mask = fabric(weave, seed=1)
    assert image.shape == mask.shape == (256, 256)
    assert (image.dtype, mask.dtype) == (np.uint8, bool) and not mask.any()
    np.testing.assert_array_equal(fabric(weave, seed=1)[0], image)
    other = fabric(weave, seed=2)[0]
    assert np.abs(other.astype(int) - image).mean() > 5
    assert abs(other.mean() - image.mean()) < 15 and 10 < image.std() < 35
    assert image.min() > 0 and image.max() < 255
    across, down = weave_frequency(CLOTHS[weave])
    mirrored = 0 if weave == "plain" else power(image, across, -down)
    assert power(image, across, down) > max(0.04, 3 * mirrored)


@pytest.mark.parametrize("size", [(48, 48), (64, 200), (200, 64), (100, 1111)])
def test_cloth_of_any_size(size):
    image, mask = fabric("satin", *size, seed=(3, 4), defect="fold")
    assert image.shape == mask.shape == size and mask.any()


@pytest.mark.long
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("defect", FABRIC_DEFECTS)
@pytest.mark.parametrize("weave", CLOTHS)
def test_masks_of_fabrics_are_exact(weave, defect, strength):
    places = []
    for seed in range(4):
        good, none = fabric(weave, 160, 224, seed)
        image, mask = fabric(weave, 160, 224, seed, defect, strength=strength)
        again = fabric(weave, 160, 224, seed, defect, strength=strength)
        np.testing.assert_array_equal(again[0], image)
        np.testing.assert_array_equal(again[1], mask)
        assert not none.any()
        assert_exact(good, image, mask)
        places.append(ndimage.center_of_mass(mask))
    assert np.ptp(places, axis=0).max() > 20


def test_margin_and_selvage():
    image, mask = fabric("twill", 256, 700, 5, "fold", margin=150, selvage=128)
    good = fabric("twill", 256, 700, 5, margin=150, selvage=128)[0]
    assert (image[:, :150] == 255).all() and not mask[:, :150].any()
    assert_exact(good, image, mask)
    columns = good.std(0)
    assert (columns[:150] == 0).all() and (columns[150:] > 5).all()
    assert (good[:, 156:] < 255).all()
    border, cloth = good[:, 156:278], good[:, 284:406]
    twill = CLOTHS["twill"]
    plain = 1.35 / 2 / twill.end_pitch, 1 / 2 / twill.pick_pitch
    assert power(border, *plain) > 3 * power(cloth, *plain)
    assert power(cloth, *weave_frequency(twill)) > 5 * power(border, *weave_frequency(twill))
    assert border.mean() > cloth.mean() + 4
    assert (fabric("plain", seed=5)[0] < 255).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"weave": "denim"}, "weave='denim': choose one of plain, twill, satin"),
        ({"strength": "loud"}, "strength='loud': choose one of clear, faint"),
        ({"defect": "moth"}, "defect='moth': choose one of broken_yarn, "),
        ({"seed": -1}, "seed=-1: give a whole number"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"height": 47}, "fabric of 47 rows"),
        ({"margin": 200, "selvage": 20}, "margin 200, selvage 20: leave at least 48"),
        ({"margin": -1}, "margin -1"),
    ],
)
def test_refused_fabrics(wrong, message):
    with pytest.raises(InputError, match=message):
        fabric(**{"weave": "plain", "defect": "knot"} | wrong)
