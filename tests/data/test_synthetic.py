"""Rendered cloth and planted defects: the weave, exact masks, categories, the feature cache."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from patchcore_helpers import InputError, PatchCore, Sample, load_category
from patchcore_helpers.core.feature_cache import FeatureCache, fingerprint
from patchcore_helpers.data import synthetic as rendering
from patchcore_helpers.data.catalog import category_names
from patchcore_helpers.data.synthetic import (
    CLOTHS,
    FABRIC_DEFECTS,
    LEAST,
    LEVEL,
    PLANTED_DEFECTS,
    RENDERED,
    SPECK,
    fabric,
    planted,
)


def assert_exact(before, after, mask):
    """The mask is where the images differ, by more than the level in reach of every pixel."""
    np.testing.assert_array_equal(after[~mask], before[~mask])
    changed = np.abs(after.astype(int) - before) > LEVEL
    distance = ndimage.distance_transform_edt(~changed)
    assert mask.dtype == bool and distance[mask].max() < 2.5
    assert LEAST <= mask.sum() < 0.2 * mask.size
    assert changed[mask].mean() > 0.3
    spots, count = ndimage.label(mask, np.ones((3, 3)))
    assert ndimage.sum_labels(changed, spots, np.arange(1, count + 1)).min() >= SPECK


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


@pytest.mark.parametrize("defect", FABRIC_DEFECTS)
@pytest.mark.parametrize("weave", CLOTHS)
def test_masks_of_fabrics_are_exact(weave, defect):
    places = []
    for seed in range(4):
        good, none = fabric(weave, 128, 160, seed)
        image, mask = fabric(weave, 128, 160, seed, defect)
        again = fabric(weave, 128, 160, seed, defect)
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


@pytest.fixture(scope="module")
def cells():
    category = load_category("elpv/poly")
    return [np.asarray(sample.read())[..., 0] for sample in category.test[:8]]


@pytest.mark.parametrize("defect", PLANTED_DEFECTS)
def test_masks_of_planted_defects_are_exact(cells, defect):
    for seed, cell in enumerate(cells):
        untouched = cell.copy()
        image, mask = planted(cell, defect, seed)
        assert_exact(cell, image, mask)
        np.testing.assert_array_equal(cell, untouched)
        np.testing.assert_array_equal(planted(cell, defect, (seed,))[0], image)
        assert (planted(cell, defect, seed + 50)[1] != mask).any()
        if defect == "cut_and_paste":
            bright = planted(cell, defect, seed, donor=np.full_like(cell, 255))
            assert (bright[0][bright[1]] > cell[bright[1]]).mean() > 0.9
        else:
            assert (image <= cell).all()


def test_refused_plantings():
    flat = np.zeros((64, 80), np.uint8)
    with pytest.raises(InputError, match="no defect shows"):
        planted(flat, "stain")
    with pytest.raises(InputError, match="defect='fold': choose one of scar"):
        planted(flat, "fold")
    with pytest.raises(InputError, match="at least 64"):
        planted(flat[:60], "scar")
    with pytest.raises(InputError, match="donor of shape"):
        planted(flat, "cut_and_paste", donor=flat.T)
    with pytest.raises(InputError, match="seed=-2"):
        planted(flat, "stain", seed=-2)


def test_fabric_category():
    category = load_category("fabric/twill", seed=2)
    counts = category.counts().set_index(["role", "kind"])["images"]
    assert counts.to_dict() == {
        ("train", "good"): 60,
        ("test", "good"): 40,
        ("calibration", "good"): 40,
    } | {("test", kind): 10 for kind in FABRIC_DEFECTS}
    assert category.license == "rendered by this package, MIT"
    assert category.train[0].read().size == (256, 256) and category.train[0].read().mode == "RGB"
    assert len({s.name for s in category.test}) == len(category.test)
    for sample in (category.train[0], category.calibration[0], *category.test[::9]):
        assert sample.has_mask and sample.mask().any() == sample.label == (sample.kind != "good")
    sample = category.test[-1]
    image, mask = fabric(*sample.recipe[1:])
    np.testing.assert_array_equal(np.asarray(sample.read())[..., 0], image)
    np.testing.assert_array_equal(sample.mask(), mask)
    sample.mask()[:] = True
    np.testing.assert_array_equal(sample.mask(), mask)
    with pytest.raises(InputError, match="fabric/denim: no such category"):
        load_category("fabric/denim")


@pytest.mark.parametrize("kind", ["mono", "poly"])
def test_planted_category(kind):
    cells, category = (load_category(f"{name}/{kind}", seed=1) for name in ("elpv", "elpv_planted"))
    held_out = [s.image for s in cells.test if s.label == 0]
    good = [s for s in category.test if s.label == 0]
    defective = [s for s in category.test if s.label == 1]
    assert category.train == cells.train and category.calibration == cells.calibration
    assert len(category.train) == 200 and len(good) == len(defective) == 60
    assert [s.image for s in good + defective] == held_out[:120]
    assert {s.recipe[2] for s in defective} <= set(held_out) - {s.image for s in good}
    kinds = [s.kind for s in defective]
    assert {k: kinds.count(k) for k in PLANTED_DEFECTS} == dict.fromkeys(PLANTED_DEFECTS, 20)
    assert "CC BY-NC-SA" in category.license and category.license.endswith("planted defects")
    for sample in defective[::12]:
        assert sample.has_mask
        cell, image = (np.asarray(s.read()) for s in (Sample(sample.image), sample))
        assert_exact(cell[..., 0], image[..., 0], sample.mask())


def test_names_are_listed_and_images_tell_themselves_apart():
    assert set(RENDERED) < set(category_names())
    seen = []
    for name in RENDERED:
        category = load_category(name)
        seen += [fingerprint(s) for s in category.test + category.train[:60]]
    assert len(seen) == len(set(seen)) == 3 * 160 + 2 * 180
    first, same, other = (load_category("fabric/plain", seed=s).train[0] for s in (0, 0, 1))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    assert first.read() == same.read() != other.read()


def test_fingerprints_follow_the_code_and_the_photographs(tmp_path, monkeypatch):
    sample = load_category("elpv_planted/mono").test[-1]
    _, path, donor, *rest = sample.recipe
    base = shutil.copy(path, tmp_path / "moved.png")
    moved = replace(sample, image=base, recipe=("planted", base, donor, *rest))
    assert moved.fingerprint() == sample.fingerprint()
    shutil.copy(load_category("elpv/mono").train[0].image, base)
    assert moved.fingerprint() != sample.fingerprint()
    drawn = load_category("fabric/satin").train[0]
    before = drawn.fingerprint()
    monkeypatch.setattr(rendering, "VERSION", "another")
    assert drawn.fingerprint() != before


def test_cached_features_spare_the_drawing(tmp_path, monkeypatch):
    category = load_category("fabric/plain").limit(train=3, test=2)
    settings = dict(backbone="resnet18", weights="random", image_size=64, coreset_ratio=0.5)
    scores = []
    for _ in range(2):
        model = PatchCore(**settings, cache=FeatureCache(tmp_path)).fit(category.train)
        scores.append(model.anomaly_scores(category.test))
        monkeypatch.setattr(rendering, "_drawn", None)
    np.testing.assert_array_equal(*scores)
    with pytest.raises(TypeError):  # without the cache there is something to draw
        PatchCore(**settings).fit(category.train)
