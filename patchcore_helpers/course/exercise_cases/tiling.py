"""What the answers to the exercises of notebook 7 are checked with."""

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


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
