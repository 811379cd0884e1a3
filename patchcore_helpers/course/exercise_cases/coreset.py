"""What the answers to the exercises of notebook 3 are checked with."""

import math

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def next_pick() -> Cases:
    """The point that is farthest from its nearest chosen one, by distances one by one."""
    random = np.random.default_rng(0)
    for _ in range(5):
        points = random.normal(size=(30, 3))
        chosen = [int(i) for i in random.permutation(30)[:4]]
        nearest = [min(math.dist(point, points[i]) for i in chosen) for point in points]
        yield f"the chosen rows {chosen}", (points, chosen), nearest.index(max(nearest))


def picks_needed() -> Cases:
    """Read off by eye."""
    radii = np.array([9.0, 6.5, 6.5, 4.0, 2.5, 2.0])
    for wanted, expected in [(9.5, 1), (6.5, 2), (4.2, 4), (2.0, 6), (1.0, None)]:
        yield f"a radius of {wanted}", (radii, wanted), expected
