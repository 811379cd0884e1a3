"""benchmarks/aitex.py: patches that are remembered change nothing; ranks and their permutations."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.aitex import RememberingStrips, rank_correlation
from patchcore_helpers import PatchCore
from patchcore_helpers.core.strips import StripPatchCore


def test_remembered_patches_give_the_same_maps_for_every_setting(monkeypatch):
    monkeypatch.setattr(RememberingStrips, "memory", {})
    random = np.random.default_rng(0)
    strips = [random.integers(60, 120, (96, 320), np.uint8) for _ in range(3)]
    for layers, context, standardize in [
        ((2,), 32, "strip"),
        ((2,), 32, "bank"),
        ((2,), 0, "bank"),
        ((3,), 0, "bank"),
    ]:
        maps = []
        for kind in (StripPatchCore, RememberingStrips):
            inner = PatchCore("resnet18", weights="random", layers=layers, coreset_ratio=0.1)
            model = kind(inner, piece=128, context=context, standardize=standardize)
            maps.append(model.fit(strips[:2]).anomaly_map(strips[2]))
        np.testing.assert_array_equal(*maps)
    assert len(RememberingStrips.memory) == 3 * 3


def test_rank_correlation_against_all_permutations():
    one, other = [0.1, 0.4, 0.2, 0.9, 0.7, 0.7], [1.0, 3.0, 2.0, 4.0, 6.0, 5.0]
    expected = spearmanr(one, other).statistic
    every = [spearmanr(shuffled, other).statistic for shuffled in permutations(one)]
    correlation, p = rank_correlation(one, other)
    assert correlation == pytest.approx(expected)
    assert p == pytest.approx(np.mean(np.array(every) >= expected - 1e-9), abs=0.003)
