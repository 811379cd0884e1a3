"""Receptive fields against finite differences, and their sums against counting."""

import numpy as np
import pytest
import torch
from torch import nn

from patchcore_helpers import InputError
from patchcore_helpers.core.backbones import Backbone
from patchcore_helpers.core.extractor import Extractor
from patchcore_helpers.core.receptive_field import (
    effective_area,
    influence_by_distance,
    receptive_field,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)


class Linear(nn.Module):
    """A network whose derivative is known: one channel, a 5x5 filter, stride 2."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Conv2d(3, 1, 5, stride=2, padding=2, bias=False)
        weights = torch.randn(1, 3, 5, 5, generator=torch.manual_seed(1))
        self.filter.weight.data = weights

    def forward_intermediates(self, images, **_):
        return [self.filter(images)]


def linear_extractor(network):
    statistics = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    backbone = Backbone(
        "linear", "linear", network, (0,), patch_size=None, weights_hash="", source="", **statistics
    )
    return Extractor(backbone, 24, neighborhood=1)


def test_the_field_of_a_linear_network_is_its_filter():
    network = Linear()
    field = receptive_field(linear_extractor(network), IMAGE, 5, 6, draws=1)
    expected = np.zeros((24, 24))
    expected[8:13, 10:15] = network.filter.weight.detach()[0].square().sum(0).sqrt()
    assert np.allclose(field, expected / expected.max(), atol=1e-6)


def test_a_patch_outside_the_grid():
    with pytest.raises(InputError, match=r"patch \(12, 0\)"):
        receptive_field(linear_extractor(Linear()), IMAGE, 12, 0)


def test_influence_within_a_distance_is_counted_pixel_by_pixel():
    field = np.random.default_rng(1).random((9, 12))
    distances, within = influence_by_distance(field, (4, 2, 8, 6))
    rows, columns = np.mgrid[:9, :12]
    far = np.hypot(rows + 0.5 - 4, columns + 0.5 - 6)
    for radius in (1.0, 2.5, 6.0, 20.0):
        expected = (field[far <= radius] ** 2).sum() / (field**2).sum()
        assert within[distances <= radius][-1] == pytest.approx(expected)
    assert (np.diff(within) >= 0).all()


def test_the_square_of_a_field_covers_less_than_the_field():
    field = np.random.default_rng(2).random((20, 20)) ** 3
    assert effective_area(field**2) < effective_area(field)
