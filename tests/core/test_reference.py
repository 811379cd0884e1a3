"""PatchCore in plain torch and the package give the same numbers."""

import inspect

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from patchcore_helpers import PatchCore, load_category
from patchcore_helpers.core import reference
from patchcore_helpers.core.backbones import load_backbone
from patchcore_helpers.core.reference import patchcore_reference


def features_only(name, timm_name, layers):
    """timm's own way to feature maps, with the weights that the package uses."""
    network = timm.create_model(timm_name, features_only=True, out_indices=layers)
    weights = load_backbone(name).network.state_dict()
    missing, _ = network.load_state_dict(weights, strict=False)
    assert not missing
    return network.eval()


def normalized(images, size, mean, std):
    """Resized and normalized as the packages of the field do it, written out."""
    pixels = [
        np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
        for image in images
    ]
    standardized = (np.stack(pixels) - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(standardized).permute(0, 3, 1, 2)


@pytest.mark.long
@pytest.mark.parametrize("coreset_ratio", [0.01, 0.001])
def test_the_package_gives_the_numbers_of_the_reference(coreset_ratio):
    category = load_category("elpv/mono").limit(6, 4)
    backbone = load_backbone("efficientnet_lite0")
    model = PatchCore(
        image_size=128,
        coreset_ratio=coreset_ratio,
        projection=None,
        sigma=0,
        precision="float32",
    ).fit(category.train)
    first = int(model.bank_.coreset_.indices[0])  # a random patch; the rest follows from it
    network = features_only("efficientnet_lite0", "tf_efficientnet_lite0", (2, 3))
    train, test = (
        normalized([sample.read() for sample in samples], 128, backbone.mean, backbone.std)
        for samples in (category.train, category.test)
    )
    scores, maps = patchcore_reference(network, train, test, coreset_ratio, first)
    result = model.detect(category.test)
    np.testing.assert_allclose(result.scores, scores, rtol=1e-4)
    np.testing.assert_allclose(model.to_maps(result), maps, atol=1e-4 * maps.max())


def test_the_reference_fits_on_a_screen():
    lines = inspect.getsource(reference.patchcore_reference).splitlines()
    docstring = reference.patchcore_reference.__doc__.splitlines()
    assert len(lines) - len(docstring) <= 60
