"""What the answers to the exercises of notebook 5 are checked with."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.distances import nested_min_distances
from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement
from patchcore_helpers.experiments.forensics import insert_invented

AIMED = 0.5  # share of the picks that have to come from the middle quarter of the image


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


def possible_auroc() -> Cases:
    """Every AUROC that so many images can give, counted pair by pair and printed."""
    for n_defective, n_normal in [(3, 4), (10, 15), (12, 9)]:
        n_pairs = n_defective * n_normal
        possible = {
            f"{(wins + ties / 2) / n_pairs:.4f}"
            for wins, ties in itertools.product(range(n_pairs + 1), (0, 1))
            if wins + ties <= n_pairs
        }
        random = np.random.default_rng(0)
        asked = [float(random.choice(sorted(possible))) for _ in range(4)]
        asked += [round(float(value), 4) for value in random.uniform(0.5, 1, 6)]
        for printed in asked:
            described = f"{printed:.4f} of {n_defective} defective and {n_normal} normal images"
            yield described, (printed, n_defective, n_normal), f"{printed:.4f}" in possible


def paired_gain() -> Cases:
    """The mean over the seeds that both have, one by one."""
    for one, other in [
        ({0: 0.91, 1: 0.93, 2: 0.90}, {0: 0.90, 1: 0.90, 2: 0.91}),
        ({0: 0.91, 1: 0.93, 2: 0.90}, {1: 0.90, 2: 0.91}),  # seed 0 failed in the other
        ({3: 0.85, 1: 0.95}, {1: 0.94, 2: 0.70, 3: 0.80}),
    ]:
        gains = []
        for seed, auroc in one.items():
            if seed in other:
                gains.append(auroc - other[seed])
        yield f"{one} and {other}", (one, other), sum(gains) / len(gains)


def find_the_invented(
    answer: Callable[..., Any], *, real: Sequence[np.ndarray], n_images: int
) -> Judgement:
    """Is the invented table found, wherever it is?

    Parameters
    ----------
    answer : callable
        Takes tables, n_defective and n_normal; returns the number of a table.
    real : sequence of float arrays
        AUROCs of real images.
    n_images : int
        Of each class.
    """
    places = range(len(real) + 1)
    for place in places:
        for seed in range(3):
            tables = insert_invented(real, place, seed)
            result = answer([table.copy() for table in tables], n_images, n_images)
            if result != place:
                return Judgement(
                    False, f"it named table {result}; table {place} was the invented one"
                )
    n_found = 3 * len(places)
    return Judgement(True, f"all of {n_found} invented tables found, without a single image")


def find_the_invented_context() -> dict[str, Any]:
    """AUROCs of made-up scores of 10 + 10 images."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 10)
    aurocs = [
        [image_auroc(labels, random.normal(labels * apart, 1)) for _ in range(9)]
        for apart in (1, 1.5, 2)
    ]
    return {"real": [np.round(np.array(row, float), 4) for row in aurocs], "n_images": 10}


def aimed_weights(
    answer: Callable[[int, int], Any], *, train: np.ndarray, test: np.ndarray, labels: np.ndarray
) -> Judgement:
    """Do the weights send half of the picks into the middle of the image, and what does it cost?

    Parameters
    ----------
    answer : callable
        Takes rows and columns of the grid; returns weights of this shape.
    train, test : float arrays of shape (images, rows, columns, channels)
    labels : array of 0 and 1, shape (test images,)
    """
    grid = train.shape[1:3]
    weights = np.asarray(answer(*grid), dtype=float)
    if weights.shape != grid or not (weights > 0).all():
        return Judgement(False, f"return weights above 0, of shape {grid}")
    middle = np.zeros(grid, bool)
    middle[tuple(slice(size // 4, size - size // 4) for size in grid)] = True
    in_middle = middle.ravel()
    points = train.reshape(-1, train.shape[-1])
    n_picks = max(10, len(points) // 100)
    aurocs, shares = [], []
    for tiled in (np.ones(len(points)), np.tile(weights.ravel(), len(train))):
        chosen = k_center_greedy(points, n_picks, weights=tiled, random_state=0).indices
        nearest = nested_min_distances(test.reshape(-1, test.shape[-1]), points[chosen], [n_picks])
        scores = nearest[0].reshape(len(test), -1).max(axis=1)
        aurocs.append(image_auroc(labels, scores) or 0.0)
        shares.append(in_middle[chosen % in_middle.size].mean())
    remark = (
        f"{shares[1]:.0%} of the picks are in the middle quarter, {shares[0]:.0%} without weights; "
        f"image AUROC {aurocs[1]:.3f}, without weights {aurocs[0]:.3f}"
    )
    return Judgement(bool(shares[1] >= AIMED), remark)


def aimed_weights_context() -> dict[str, Any]:
    """Random patches on a small grid."""
    random = np.random.default_rng(0)
    train, test = (random.normal(size=(6, 8, 8, 5)) for _ in range(2))
    return {"train": train, "test": test, "labels": np.repeat([0, 1], 3)}
