"""benchmarks/aitex.py: ranks and their permutations."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.aitex import rank_correlation


def test_rank_correlation_against_all_permutations():
    one, other = [0.1, 0.4, 0.2, 0.9, 0.7, 0.7], [1.0, 3.0, 2.0, 4.0, 6.0, 5.0]
    expected = spearmanr(one, other).statistic
    every = [spearmanr(shuffled, other).statistic for shuffled in permutations(one)]
    correlation, p = rank_correlation(one, other)
    assert correlation == pytest.approx(expected)
    assert p == pytest.approx(np.mean(np.array(every) >= expected - 1e-9), abs=0.003)
