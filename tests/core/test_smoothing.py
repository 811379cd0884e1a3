"""Resizing and smoothing by matrices, against torch's resizing and SciPy's filter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from patchcore_helpers.core import smoothing
from patchcore_helpers.core.detector import smooth_maps


@pytest.mark.parametrize("piece", [7, 50, 1024])
@pytest.mark.parametrize(
    "grid, size, sigma",
    [
        ((3, 8, 8), (64, 64), 4.0),
        ((2, 5, 9), (33, 100), 2.5),
        ((1, 8, 8), (8, 8), 1.0),
        ((1, 40, 40), (13, 20), 3.0),  # smaller than the grid
        ((1, 1, 6), (4, 30), 12.0),  # the Gaussian is wider than the map
        ((2, 4, 4), (16, 31), 0),
    ],
)
def test_against_interpolate_and_scipy(grid, size, sigma, piece, monkeypatch):
    monkeypatch.setattr(smoothing, "PIECE", piece)
    smoothing.smoothing_matrices.cache_clear()
    grids = np.random.default_rng(0).random(grid, np.float32)
    expected = F.interpolate(torch.from_numpy(grids)[:, None], size=size, mode="bilinear")
    expected = gaussian_filter(expected[:, 0].numpy(), sigma, axes=(1, 2))
    maps = smooth_maps(grids, size, sigma)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, expected, atol=2e-6)
    smoothing.smoothing_matrices.cache_clear()
