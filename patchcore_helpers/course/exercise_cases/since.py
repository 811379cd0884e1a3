"""What the answers to the exercises of notebook 9 are checked with."""

import math
from collections.abc import Callable
from statistics import NormalDist, mean, stdev
from typing import Any

import numpy as np

from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement
from patchcore_helpers.data.category import split


def soft_weights() -> Cases:
    """Row by row, with weights that sum to 1."""
    for distances, temperature in [([1.0, 1.0], 3.0), ([0.5, 1.0, 4.0], 1.0), ([2.0, 3.0], 50.0)]:
        raw = [math.exp(-(distance**2) / temperature) for distance in distances]
        expected = np.array([weight / sum(raw) for weight in raw])
        yield f"distances {distances}", (np.array(distances), temperature), expected


def chance_of_luck() -> Cases:
    """One minus the chance that no idea at all looks good, idea by idea."""
    for n_ideas, level in [(1, 0.05), (10, 0.05), (55, 0.05), (10, 0.005)]:
        no_luck = 1.0
        for _ in range(n_ideas):
            no_luck *= 1 - level
        yield f"{n_ideas} ideas, each tested at {level:.1%}", (n_ideas, level), 1 - no_luck


def standardized_mean() -> Cases:
    """Image by image, by mean and standard deviation of the good images."""
    random = np.random.default_rng(0)
    for n_detectors in (2, 3):
        units = 10.0 ** np.arange(n_detectors)[:, None]
        scores, good = (units * random.normal(5, 1, (n_detectors, n)) for n in (6, 9))
        expected = [
            mean(
                (float(of_detector[image]) - mean(normal)) / stdev(normal)
                for of_detector, normal in zip(scores, good.tolist(), strict=True)
            )
            for image in range(6)
        ]
        yield f"{n_detectors} detectors", (scores, good), np.array(expected)


def mutual_scores() -> Cases:
    """Patch by patch, with distances one by one."""
    random = np.random.default_rng(0)
    for n_images, n_asked in [(3, 1), (5, 2), (4, 3)]:
        patches = random.normal(size=(n_images, 3, 2))
        expected = np.zeros((n_images, 3))
        for i, j in np.ndindex(n_images, 3):
            others = [other for k, other in enumerate(patches) if k != i]
            nearest = [min(math.dist(patches[i, j], patch) for patch in other) for other in others]
            expected[i, j] = mean(sorted(nearest)[:n_asked])
        yield f"{n_images} images, {n_asked} asked", (patches, n_asked), expected


def blend_weight(
    answer: Callable[..., Any], *, first: np.ndarray, second: np.ndarray, labels: np.ndarray
) -> Judgement:
    """Chosen on half of the images; on the others, is it better than a network drawn by lot?"""
    seen, unseen = (np.sort(half) for half in _halves(labels))
    weight = float(answer(first[seen].copy(), second[seen].copy(), labels[seen].copy()))
    if not 0 < weight < 1:
        return Judgement(
            False, f"return a weight between 0 and 1, not {weight:g}: that is no blend"
        )
    blend = (1 - weight) * first + weight * second
    at_sight, later, one, other = (
        float(image_auroc(labels[half], scores[half]) or 0)
        for half, scores in ((seen, blend), (unseen, blend), (unseen, first), (unseen, second))
    )
    remark = (
        f"with the weight {weight:.2f}, AUROC {at_sight:.3f} on the images that you saw, "
        f"{later:.3f} on the others, where the networks alone have {one:.3f} and {other:.3f}"
    )
    return Judgement(later > (one + other) / 2, remark)


def _halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half of the good and half of the defective images, at random; and the others."""
    parts = [
        split(np.flatnonzero(labels == label).tolist(), int(np.sum(labels == label)) // 2, seed=0)
        for label in (0, 1)
    ]
    seen, unseen = zip(*parts, strict=True)
    return np.concatenate(seen), np.concatenate(unseen)


def blend_weight_context() -> dict[str, Any]:
    """Two networks whose mistakes have nothing to do with each other."""
    labels = np.repeat([0, 1], 100)
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)])
    random = np.random.default_rng(0)
    first = 1.2 * labels + random.permutation(quantiles)
    second = 1.0 * labels + random.permutation(quantiles)
    return {"first": first, "second": second, "labels": labels}
