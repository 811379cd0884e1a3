"""What the answers to the exercises of notebook 4 are checked with."""

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases


def auroc_by_pairs() -> Cases:
    """Wins counted pair by pair, a tie for one half."""
    random = np.random.default_rng(0)
    for n, m in [(3, 4), (20, 7), (50, 50)]:
        normal = random.integers(0, 6, n) / 2
        defective = random.integers(1, 8, m) / 2
        wins = [(d > g) + (d == g) / 2 for d in defective for g in normal]
        yield f"{n} normal and {m} defective scores", (normal, defective), sum(wins) / len(wins)


def paired_error() -> Cases:
    """The standard error of the mean, from the sum of squares."""
    random = np.random.default_rng(0)
    for count in (3, 5, 12):
        shared = random.normal(0.9, 0.03, count)  # the luck of the seed, the same for both
        a = shared + random.normal(0, 0.01, count)
        b = shared + random.normal(0, 0.01, count)
        differences = [x - y for x, y in zip(a, b, strict=True)]
        mean = sum(differences) / count
        variance = sum((difference - mean) ** 2 for difference in differences) / (count - 1)
        yield f"{count} seeds", (a, b), (variance / count) ** 0.5
