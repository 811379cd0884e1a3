"""What the answers to the exercises of notebook 5 are checked with."""

import math

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def weighted_pick() -> Cases:
    """The point with the largest product of weight and distance, one by one."""
    random = np.random.default_rng(0)
    for _ in range(5):
        points = random.normal(size=(30, 3))
        weights = random.uniform(0.05, 1, 30)
        chosen = [int(i) for i in random.permutation(30)[:4]]
        nearest = [min(math.dist(point, points[i]) for i in chosen) for point in points]
        values = [weight * distance for weight, distance in zip(weights, nearest, strict=True)]
        yield f"the chosen rows {chosen}", (points, weights, chosen), values.index(max(values))


def position_variance() -> Cases:
    """The variance of each channel at each position, summed one by one."""
    random = np.random.default_rng(0)
    for shape in [(5, 2, 3, 4), (9, 4, 4, 2)]:
        patches = random.normal(size=shape)
        expected = np.zeros(shape[1:3])
        for row, column, channel in np.ndindex(*shape[1:]):
            values = [float(image[row, column, channel]) for image in patches]
            mean = sum(values) / len(values)
            expected[row, column] += sum((value - mean) ** 2 for value in values) / len(values)
        yield f"shape {shape}", (patches,), expected
