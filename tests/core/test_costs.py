"""What a threshold costs, counted part by part; defects that are rare move the cheapest one up."""

import numpy as np
import pytest

from patchcore_helpers.core.costs import cost_curve, cost_per_thousand, outcomes_per_thousand

PREVALENCES = (0.001, 0.01, 0.1, 0.6)


@pytest.fixture
def images():
    """Scores of a test set that, unlike any production line, is 60 % defective."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, 300])
    return labels, random.normal(size=500) + 2 * labels


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_every_part_of_the_line_is_counted_once(prevalence, images):
    labels, scores = images
    levels, costs = cost_curve(labels, scores, prevalence, cost_of_miss=10)
    parts_per_image = {
        0: 1000 * (1 - prevalence) / np.sum(labels == 0),
        1: 1000 * prevalence / np.sum(labels == 1),
    }
    for level, cost in list(zip(levels, costs, strict=True))[::25]:
        by_hand = 0.0
        for label, score in zip(labels, scores, strict=True):
            if label == 0 and score > level:  # a false alarm
                by_hand += parts_per_image[0]
            if label == 1 and score <= level:  # a miss
                by_hand += 10 * parts_per_image[1]
        assert cost == pytest.approx(by_hand)
        rates = np.mean(scores[labels == 0] > level), np.mean(scores[labels == 1] > level)
        counts = outcomes_per_thousand(rates, prevalence)
        assert counts.sum() == pytest.approx(1000)
        assert cost_per_thousand(counts, 10) == pytest.approx(by_hand)


def test_the_rarer_defects_are_the_higher_is_the_cheapest_threshold(images):
    """Two normal densities f: costs balance where 10 p f(x - 2) = (1 - p) f(x)."""
    cheapest = []
    for prevalence in PREVALENCES:
        levels, costs = cost_curve(*images, prevalence, cost_of_miss=10)
        cheapest.append(levels[costs.argmin()])
    assert cheapest == sorted(cheapest, reverse=True) and len(set(cheapest)) > 2
    by_theory = [1 - np.log(10 * p / (1 - p)) / 2 for p in PREVALENCES]
    # Where defects are rarer, the few highest of 200 normal images decide.
    assert cheapest[2:] == pytest.approx(by_theory[2:], abs=0.5)
