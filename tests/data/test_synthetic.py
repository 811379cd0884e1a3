"""Drawn categories: their samples, fingerprints, and the feature cache."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.exact_masks import assert_exact

from patchcore_helpers import InputError, PatchCore, load_category
from patchcore_helpers.core.feature_cache import FeatureCache, fingerprint
from patchcore_helpers.data import synthetic
from patchcore_helpers.data.catalog import category_names
from patchcore_helpers.data.images import read_image
from patchcore_helpers.data.planted import PLANTED_DEFECTS
from patchcore_helpers.data.synthetic import RENDERED
from patchcore_helpers.data.synthetic_fabric import CLOTHS, FABRIC_DEFECTS, fabric


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
    recipe = sample.recipe
    image, mask = fabric(recipe.weave, 256, 256, recipe.seed, recipe.defect)
    np.testing.assert_array_equal(np.asarray(sample.read())[..., 0], image)
    np.testing.assert_array_equal(sample.mask(), mask)
    sample.mask()[:] = True
    np.testing.assert_array_equal(sample.mask(), mask)
    with pytest.raises(InputError, match="fabric/denim: no such category"):
        load_category("fabric/denim")


@pytest.mark.parametrize("weave", CLOTHS)
def test_a_hard_fabric_is_the_same_cloth_with_fainter_defects(weave):
    clear, faint = (load_category(f"{name}/{weave}") for name in ("fabric", "fabric_hard"))
    assert [fingerprint(s) for s in clear.train] == [fingerprint(s) for s in faint.train]
    changes = {}
    for category in (clear, faint):
        some = [s for s in category.test if s.label][::5]
        changes[category.name] = sum(_change(sample) for sample in some)
    assert changes[clear.name] > 1.5 * changes[faint.name]


def _change(sample):
    """The sum of the gray levels by which a defect changes its image."""
    good = replace(sample.recipe, defect=None).draw()[0]
    return np.abs(sample.recipe.draw()[0].astype(int) - good).sum()


@pytest.mark.parametrize("kind", ["mono", "poly"])
def test_planted_category(kind):
    cells, category = (load_category(f"{name}/{kind}", seed=1) for name in ("elpv", "elpv_planted"))
    held_out = [s.source for s in cells.test if s.label == 0]
    good = [s for s in category.test if s.label == 0]
    defective = [s for s in category.test if s.label == 1]
    assert category.train == cells.train and category.calibration == cells.calibration
    assert len(category.train) == 200 and len(good) == len(defective) == 60
    assert [s.source for s in good + defective] == held_out[:120]
    donors = {str(s.recipe.donor) for s in defective}
    assert donors <= set(held_out) - {s.source for s in good}
    kinds = [s.kind for s in defective]
    assert {k: kinds.count(k) for k in PLANTED_DEFECTS} == dict.fromkeys(PLANTED_DEFECTS, 20)
    assert "CC BY-NC-SA" in category.license and category.license.endswith("planted defects")
    for sample in defective[::12]:
        assert sample.has_mask
        cell, image = (np.asarray(read_image(s)) for s in (sample.source, sample.read()))
        assert_exact(cell[..., 0], image[..., 0], sample.mask())


def test_names_are_listed_and_images_tell_themselves_apart():
    assert set(RENDERED) < set(category_names())
    seen = []
    for name in RENDERED:
        category = load_category(name)
        seen += [fingerprint(s) for s in category.test + category.train[:60]]
    # The good images of a fabric are those of its hard twin, and their features are computed once.
    assert len(seen) == 6 * 160 + 2 * 180 and len(set(seen)) == 3 * (160 + 60) + 2 * 180
    first, same, other = (load_category("fabric/plain", seed=s).train[0] for s in (0, 0, 1))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    assert first.read() == same.read() != other.read()


def test_fingerprints_follow_the_code_and_the_photographs(tmp_path, monkeypatch):
    sample = load_category("elpv_planted/mono").test[-1]
    base = Path(shutil.copy(sample.source, tmp_path / "moved.png"))
    moved = replace(sample, source=str(base), recipe=replace(sample.recipe, image=base))
    assert moved.fingerprint() == sample.fingerprint()
    shutil.copy(load_category("elpv/mono").train[0].image, base)
    assert moved.fingerprint() != sample.fingerprint()
    drawn = load_category("fabric/satin").train[0]
    before = drawn.fingerprint()
    monkeypatch.setattr(synthetic, "CODE_HASH", "another")
    assert drawn.fingerprint() != before


@pytest.mark.long
def test_cached_features_spare_the_drawing(tmp_path, monkeypatch):
    category = load_category("fabric/plain").limit(train=3, test=2)
    settings = dict(backbone="resnet18", weights="random", image_size=64, coreset_ratio=0.5)
    scores = []
    for _ in range(2):
        model = PatchCore(**settings, cache=FeatureCache(tmp_path)).fit(category.train)
        scores.append(model.anomaly_scores(category.test))
        monkeypatch.setattr(synthetic, "_draw", None)
    np.testing.assert_array_equal(*scores)
    with pytest.raises(TypeError):  # without the cache there is something to draw
        PatchCore(**settings).fit(category.train)
