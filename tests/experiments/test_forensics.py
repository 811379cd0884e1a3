"""Checks of printed AUROCs against simulated scores, and counts of pairs by brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from patchcore_helpers.errors import InputError
from patchcore_helpers.experiments.forensics import (
    auroc_error,
    chance_of_so_little_spread,
    insert_invented,
    is_possible_auroc,
    share_of_impossible,
)


def test_the_standard_error_is_that_of_exponential_scores():
    """Oracle: AUROCs of simulated scores, exponential as the formula assumes."""
    random = np.random.default_rng(0)
    labels = np.repeat([1, 0], [30, 20])
    rate = 9.0  # the AUROC of such scores is rate / (1 + rate)
    aurocs = []
    for _ in range(4000):
        scores = random.exponential(np.where(labels == 1, rate, 1.0))
        aurocs.append(roc_auc_score(labels, scores))
    assert np.mean(aurocs) == pytest.approx(0.9, abs=0.003)
    assert auroc_error(0.9, 30, 20) == pytest.approx(np.std(aurocs), rel=0.02)


def test_equally_hard_products_are_this_even_as_often_as_is_said():
    random = np.random.default_rng(0)
    errors = np.array([0.02, 0.03, 0.025, 0.02])
    draws = random.normal(0.9, errors, (4000, 4))
    chances = np.array([chance_of_so_little_spread(values, errors) for values in draws])
    for level in (0.05, 0.5):
        assert np.mean(chances <= level) == pytest.approx(level, abs=0.02)
    for wrong in ([0.1], [0.1, 0.0]):
        with pytest.raises(InputError, match="at least two"):
            chance_of_so_little_spread([0.9] * len(wrong), wrong)


@pytest.mark.parametrize("decimals", [2, 4])
def test_possible_aurocs_are_those_that_pairs_can_add_up_to(decimals):
    for n_defective, n_normal in [(2, 3), (4, 6), (7, 5)]:
        n_pairs = n_defective * n_normal
        aurocs = [k / 2 / n_pairs for k in range(2 * n_pairs + 1)]
        # A 5 behind the last decimal may be rounded either way.
        possible = {f"{a + off:.{decimals}f}" for a in aurocs for off in (-1e-9, 0, 1e-9)}
        for k in range(10**decimals + 1):
            printed = f"{k / 10**decimals:.{decimals}f}"
            found = is_possible_auroc(float(printed), n_defective, n_normal, decimals)
            assert found == (printed in possible), printed


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=9),
    st.lists(st.integers(0, 4), min_size=2, max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_what_scores_give_is_never_called_impossible(defective, normal):
    labels = np.repeat([1, 0], [len(defective), len(normal)])
    auroc = roc_auc_score(labels, [*defective, *normal])
    assert is_possible_auroc(round(float(auroc), 4), len(defective), len(normal))


def test_an_invented_table_is_the_one_with_impossible_numbers():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 12)
    real = [
        np.array([round(roc_auc_score(labels, random.normal(labels * 1.5)), 4) for _ in range(9)])
        for _ in range(2)
    ]
    for place, seed in product(range(3), range(5)):
        tables = insert_invented(real, place, seed)
        shares = [share_of_impossible(table, 12, 12) for table in tables]
        assert np.argmax(shares) == place and sorted(shares)[:2] == [0, 0]
