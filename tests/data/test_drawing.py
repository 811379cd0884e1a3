"""Exact masks: what becomes of the pixels that a defect changes."""

import numpy as np
import pytest

from patchcore_helpers.data.drawing import MAX_ATTEMPTS, draw_until_visible
from patchcore_helpers.errors import InputError


@pytest.fixture
def normal():
    return np.full((40, 60), 100, np.uint8)


def test_gaps_are_closed_and_specks_removed(normal):
    drawn = normal.astype(float)
    drawn[10:20, 10:20] = 150
    drawn[10:20, 14] = 100  # a gap of one column
    drawn[30, 40:45] = 150  # a speck of five pixels
    drawn[:, 50] = 106  # by no more than the smallest change
    image, mask = draw_until_visible(normal, lambda attempt: drawn)
    expected = np.zeros_like(mask)
    expected[10:20, 10:20] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(image, np.where(expected, drawn, 100))


def test_gray_levels_are_rounded_and_clipped(normal):
    drawn = normal.astype(float)
    drawn[:10], drawn[10:20], drawn[20:30] = 300, -20, 110.6
    image, _ = draw_until_visible(normal, lambda attempt: drawn)
    assert image[::10, 0].tolist() == [255, 0, 111, 100]


def test_a_defect_is_drawn_until_it_shows(normal):
    attempts = []

    def draw(attempt):
        attempts.append(attempt)
        drawn = normal.astype(float)
        drawn[:attempt, :10] = 0  # 30 pixels at the third row
        return drawn

    _, mask = draw_until_visible(normal, draw)
    assert attempts == [0, 1, 2, 3] and mask.sum() == 30
    attempts.clear()
    with pytest.raises(InputError, match="no defect shows"):
        draw_until_visible(normal, lambda attempt: attempts.append(attempt) or normal)
    assert attempts == list(range(MAX_ATTEMPTS))
