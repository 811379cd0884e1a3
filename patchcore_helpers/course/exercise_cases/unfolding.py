"""What the answers to the exercises of notebook 2 are checked with."""

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def mean_3x3() -> Cases:
    """The sum of the neighbors that exist, divided by 9."""
    random = np.random.default_rng(0)
    for shape in [(4, 4), (1, 1), (3, 7)]:
        values = random.normal(size=shape)
        expected = np.zeros(shape)
        for row, column in np.ndindex(shape):
            neighbors = values[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            expected[row, column] = neighbors.sum() / 9
        yield f"a map of shape {shape}", (values,), expected


def patches_per_image() -> Cases:
    """Squares counted by where they end."""
    for height, width, size in [(252, 252, 14), (256, 256, 14), (224, 518, 14), (100, 60, 16)]:
        expected = len(range(size, height + 1, size)) * len(range(size, width + 1, size))
        yield f"{height} x {width} pixels and patches of {size}", (height, width, size), expected
