"""What the answers to the exercises of notebook 7 are checked with."""

from collections.abc import Callable
from typing import Any

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement


def tile_starts() -> Cases:
    """Tiles placed one after the other until one reaches the end."""
    for length, size, stride in [(1000, 256, 256), (512, 256, 128), (256, 256, 64), (300, 100, 70)]:
        expected = []
        start = 0
        while start + size < length:
            expected.append(start)
            start += stride
        expected.append(length - size)
        yield f"length {length}, size {size}, stride {stride}", (length, size, stride), expected


def tile_label() -> Cases:
    """A small defect, and tiles that contain, miss, just miss and just touch it."""
    mask = np.zeros((64, 200), bool)
    mask[10:12, 100:103] = True
    for x, y, size, expected in [(64, 0, 64, 1), (0, 0, 64, 0), (103, 0, 64, 0), (40, 0, 61, 1)]:
        yield f"the tile at x={x}, y={y} of size {size}", (mask, x, y, size), expected


def peak_beside_defect() -> Cases:
    """A peak left of, right of, and within the columns of a defect with a hole."""
    for row, column, expected in [(5, 20, 40), (60, 180, 77), (3, 101, 0), (40, 82, 2), (9, 64, 0)]:
        strip_map = np.random.default_rng(0).uniform(size=(64, 200))
        strip_map[row, column] = 2
        mask = np.zeros((64, 200), bool)
        mask[10:30, 60:81] = True
        mask[50:52, 84:104] = True
        yield f"a peak in column {column}", (strip_map, mask), expected


MAX_LOST = 0.1  # of the defects may be cut away


def selvage_cut(
    answer: Callable[..., Any], *, good_peaks: np.ndarray, defect_ends: np.ndarray
) -> Judgement:
    """Right if no cut that loses as few defects takes more peaks of good strips away."""
    cut = float(answer(good_peaks.copy(), defect_ends.copy()))
    lost = sum(end <= cut for end in defect_ends)
    gone = sum(peak < cut for peak in good_peaks)
    most = 0
    for candidate in range(int(good_peaks.max()) + 2):
        if sum(end <= candidate for end in defect_ends) <= MAX_LOST * len(defect_ends):
            most = max(most, sum(peak < candidate for peak in good_peaks))
    remark = (
        f"a cut of {cut:g} columns takes away {gone} of the {len(good_peaks)} peaks ({most} are "
        f"possible) and {lost} of the {len(defect_ends)} defects"
    )
    return Judgement(lost <= MAX_LOST * len(defect_ends) and gone == most, remark)


def selvage_cut_context() -> dict[str, Any]:
    """Three peaks at the edge, one far from it; of twelve defects two end in the selvage."""
    return {
        "good_peaks": np.array([32, 33, 90, 700]),
        "defect_ends": np.array([70, 85, *range(300, 1300, 100)]),
    }


def stitch_maps() -> Cases:
    """Pixel by pixel, from the tiles that cover it; three tiles overlap in one of the cases."""
    random = np.random.default_rng(0)
    for starts, length in [([0, 4, 6], 10), ([0, 2, 3], 9), ([0, 4], 8), ([5, 0], 10)]:
        maps = [random.uniform(size=(3, 4)) for _ in starts]
        expected = np.zeros((3, length))
        for column in range(length):
            tiles = zip(maps, starts, strict=True)
            covering = [part[:, column - start] for part, start in tiles if 0 <= column - start < 4]
            if covering:
                expected[:, column] = np.mean(covering, axis=0)
        yield f"tiles at {starts} of a strip of {length}", (maps, starts, length), expected
