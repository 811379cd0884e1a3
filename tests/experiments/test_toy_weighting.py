"""The toy is what it says, and its two futures differ in most draws, not only in the first."""

import numpy as np

from patchcore_helpers.core.coreset import k_center_greedy_reference
from patchcore_helpers.experiments import toy_weighting as toy


def test_b_has_the_larger_variance_and_odd_images_are_a_tenth():
    images = toy.draw_images(np.random.default_rng(0), 3000)
    at_a, at_b = images[:, 0, toy.A], images[:, 0, toy.B]
    assert at_b.var(axis=0).sum() > 2 * at_a.var(axis=0).sum()
    is_odd = np.linalg.norm(at_a, axis=1) > toy.RADIUS / 2
    assert abs(is_odd.mean() - 0.1) < 0.02
    assert toy.LINE[0] < at_b[:, 0].min() and at_b[:, 0].max() < toy.LINE[1]


def test_without_weights_the_bank_is_that_of_plain_k_center():
    train = toy.draw_images(np.random.default_rng(1), 50)
    bank = toy.choose_bank(train, 9, exponent=0, seed=3)
    points = train.reshape(-1, 2)
    first = int(np.flatnonzero((points == bank.rows[0]).all(axis=1))[0])
    chosen = k_center_greedy_reference(points, 9, first=first).indices
    assert np.allclose(points[chosen], bank.rows) and bank.places.tolist() == (chosen % 2).tolist()


def test_with_16_picks_weighting_helps_in_one_future_and_hurts_in_the_other():
    """Over 20 draws, not one: the claim of the page's figure."""
    gains = [toy.gains(16, seed) for seed in range(20)]
    at_b, at_a = (np.array([gain[future] for gain in gains]) for future in toy.FUTURES)
    assert (at_b > 0).mean() > 0.9 and (at_a < 0).mean() > 0.9
    large = np.array([toy.gains(40, seed)[toy.FUTURES[0]] for seed in range(20)])
    assert (large > 0).mean() < 0.6
