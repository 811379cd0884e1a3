"""What the answers to the exercises of notebook 1 are checked with."""

import math

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def nearest_distance() -> Cases:
    """The smallest of all distances, one by one."""
    random = np.random.default_rng(0)
    for rows, width in [(1, 3), (5, 2), (40, 16)]:
        patch = random.normal(size=width)
        bank = random.normal(size=(rows, width))
        expected = min(math.dist(patch, row) for row in bank)
        yield f"a bank of {rows} rows", (patch, bank), expected


def conformal_threshold() -> Cases:
    """The lowest candidate that enough of the equally likely ranks of a new score do not exceed."""
    random = np.random.default_rng(0)
    for n, alpha in [(9, 0.5), (19, 0.05), (50, 0.13), (99, 0.1), (9, 0.05)]:
        scores = random.normal(size=n)
        # A new score has n + 1 equally likely ranks; n + 1 - rank of them lie above a candidate.
        candidates = enumerate([*np.sort(scores), np.inf], start=1)
        expected = min(
            score for rank, score in candidates if n + 1 - rank <= alpha * (n + 1) + 1e-9
        )
        yield f"{n} scores and alpha = {alpha}", (scores, alpha), expected
