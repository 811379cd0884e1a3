"""What the answers to the exercises are checked with.

Each function is named after its exercise in `exercises.yaml` and yields cases: a description, the
arguments, and the right answer. The right answers are worked out in another way than the solutions:
number by number, from the definition.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Cases = Iterator[tuple[str, tuple, Any]]


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


def index_bytes() -> Cases:
    """Codes, row numbers, centers and codebooks, each counted in bytes."""
    for rows, width, clusters, m, bits in [(209, 152, 100, 8, 4), (20480, 152, 100, 8, 8)]:
        codes = rows * m * bits // 8
        row_numbers = 8 * rows
        centers = 4 * width * clusters
        codebooks = 4 * width * 2**bits
        expected = codes + row_numbers + centers + codebooks
        yield f"{rows} rows, m={m} and {bits} bits", (rows, width, clusters, m, bits), expected


def recall_at_one() -> Cases:
    """Hits counted patch by patch; about six in ten of the first rows are the true ones."""
    random = np.random.default_rng(0)
    for n, k in [(10, 1), (50, 3), (200, 5)]:
        found = random.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :k]
        exact = np.where(random.random(n) < 0.6, found[:, 0], random.integers(0, 9, n))
        hits = [int(row[0]) == int(true) for row, true in zip(found, exact, strict=True)]
        yield f"{n} patches and k={k}", (exact, found), sum(hits) / n


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
