"""What the answers to the exercises are checked with.

Each function is named like its exercise in `exercises.yaml` and yields (what the case is, the
arguments, the right answer). Right answers are worked out in another way than the solutions: number
by number, from the definition.
"""

import math

import numpy as np


def nearest_distance():
    random = np.random.default_rng(0)
    for rows, width in [(1, 3), (5, 2), (40, 16)]:
        patch, bank = random.normal(size=width), random.normal(size=(rows, width))
        yield f"a bank of {rows} rows", (patch, bank), min(math.dist(patch, row) for row in bank)


def conformal_threshold():
    random = np.random.default_rng(0)
    for n, alpha in [(9, 0.5), (19, 0.05), (50, 0.13), (99, 0.1), (9, 0.05)]:
        scores = random.normal(size=n)
        # n + 1 - rank of the n + 1 equally likely places of a new score lie above this candidate.
        candidates = enumerate([*np.sort(scores), np.inf], start=1)
        right = min(score for rank, score in candidates if n + 1 - rank <= alpha * (n + 1) + 1e-9)
        yield f"{n} scores and alpha = {alpha}", (scores, alpha), right


def mean_3x3():
    random = np.random.default_rng(0)
    for shape in [(4, 4), (1, 1), (3, 7)]:
        values, right = random.normal(size=shape), np.zeros(shape)
        for row, column in np.ndindex(shape):
            near = values[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            right[row, column] = near.sum() / 9
        yield f"a map of shape {shape}", (values,), right


def patches_per_image():
    for height, width, size in [(252, 252, 14), (256, 256, 14), (224, 518, 14), (100, 60, 16)]:
        right = len(range(size, height + 1, size)) * len(range(size, width + 1, size))
        yield f"{height} x {width} pixels and patches of {size}", (height, width, size), right


def next_pick():
    random = np.random.default_rng(0)
    for _ in range(5):
        points, chosen = random.normal(size=(30, 3)), [int(i) for i in random.permutation(30)[:4]]
        nearest = [min(math.dist(point, points[i]) for i in chosen) for point in points]
        yield f"the chosen rows {chosen}", (points, chosen), nearest.index(max(nearest))


def picks_needed():
    radii = np.array([9.0, 6.5, 6.5, 4.0, 2.5, 2.0])
    for wanted, right in [(9.5, 1), (6.5, 2), (4.2, 4), (2.0, 6), (1.0, None)]:
        yield f"a radius of {wanted}", (radii, wanted), right


def auroc_by_pairs():
    random = np.random.default_rng(0)
    for n, m in [(3, 4), (20, 7), (50, 50)]:
        normal, defective = random.integers(0, 6, n) / 2, random.integers(1, 8, m) / 2
        wins = [(d > g) + (d == g) / 2 for d in defective for g in normal]
        yield f"{n} normal and {m} defective scores", (normal, defective), sum(wins) / len(wins)


def paired_error():
    random = np.random.default_rng(0)
    for count in (3, 5, 12):
        luck = random.normal(0.9, 0.03, count)  # of the seed, shared by both
        a, b = luck + random.normal(0, 0.01, count), luck + random.normal(0, 0.01, count)
        gaps = [x - y for x, y in zip(a, b, strict=True)]
        middle = sum(gaps) / count
        right = (sum((g - middle) ** 2 for g in gaps) / (count - 1) / count) ** 0.5
        yield f"{count} seeds", (a, b), right


def weighted_pick():
    random = np.random.default_rng(0)
    for _ in range(5):
        points, weights = random.normal(size=(30, 3)), random.uniform(0.05, 1, 30)
        chosen = [int(i) for i in random.permutation(30)[:4]]
        nearest = [min(math.dist(point, points[i]) for i in chosen) for point in points]
        values = [weight * distance for weight, distance in zip(weights, nearest, strict=True)]
        yield f"the chosen rows {chosen}", (points, weights, chosen), values.index(max(values))


def position_variance():
    random = np.random.default_rng(0)
    for shape in [(5, 2, 3, 4), (9, 4, 4, 2)]:
        patches, right = random.normal(size=shape), np.zeros(shape[1:3])
        for row, column, channel in np.ndindex(*shape[1:]):
            values = [float(image[row, column, channel]) for image in patches]
            middle = sum(values) / len(values)
            right[row, column] += sum((v - middle) ** 2 for v in values) / len(values)
        yield f"shape {shape}", (patches,), right


def index_bytes():
    for rows, width, clusters, m, bits in [(209, 152, 100, 8, 4), (20480, 152, 100, 8, 8)]:
        right = sum((rows * m * bits // 8, 8 * rows, 4 * width * clusters, 4 * width << bits))
        yield f"{rows} rows, m={m} and {bits} bits", (rows, width, clusters, m, bits), right


def recall_at_one():
    random = np.random.default_rng(0)
    for n, k in [(10, 1), (50, 3), (200, 5)]:
        found = random.permuted(np.tile(np.arange(9), (n, 1)), axis=1)[:, :k]
        exact = np.where(random.random(n) < 0.6, found[:, 0], random.integers(0, 9, n))
        right = sum(int(row[0]) == int(true) for row, true in zip(found, exact, strict=True)) / n
        yield f"{n} patches and k={k}", (exact, found), right


def tile_starts():
    for length, size, stride in [(1000, 256, 256), (512, 256, 128), (256, 256, 64), (300, 100, 70)]:
        right, start = [], 0
        while start + size < length:
            right.append(start)
            start += stride
        right.append(length - size)
        yield f"length {length}, size {size}, stride {stride}", (length, size, stride), right


def tile_label():
    mask = np.zeros((64, 200), bool)
    mask[10:12, 100:103] = True
    for x, y, size, right in [(64, 0, 64, 1), (0, 0, 64, 0), (103, 0, 64, 0), (40, 0, 61, 1)]:
        yield f"the tile at x={x}, y={y} of size {size}", (mask, x, y, size), right
