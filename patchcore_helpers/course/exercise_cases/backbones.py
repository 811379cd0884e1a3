"""What the answers to the exercises of notebook 4 are checked with."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement

WANTED_AUROC = 0.85  # on either kind of defect


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


def images_needed() -> Cases:
    """Numbers that are easy to see: a half takes four times as many."""
    for n_images, detectable, wanted in [(400, 0.04, 0.02), (900, 0.03, 0.04), (100, 0.05, 0.03)]:
        expected = math.ceil(round(n_images * detectable**2 / wanted**2, 9))
        case = f"{n_images} images, {detectable} detectable and {wanted} wanted"
        yield case, (n_images, detectable, wanted), expected


def score_for_both(answer: Callable[..., Any]) -> Judgement:
    """Right if its AUROC is high on small strong defects and on faint wide ones."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 150)
    found = {}
    for kind in ("small", "faint"):
        patch_scores = random.normal(size=(len(labels), 16, 16))
        defective = patch_scores[labels == 1]
        if kind == "small":
            defective[:, 5, 9] += 7
        else:
            defective += 0.3
        patch_scores[labels == 1] = defective
        scores = np.asarray(answer(patch_scores), float)
        if scores.shape != labels.shape:
            return Judgement(False, f"return {len(labels)} scores, not shape {scores.shape}")
        found[kind] = image_auroc(labels, scores) or 0.0
    remark = f"AUROC {found['small']:.2f} on small defects and {found['faint']:.2f} on faint ones"
    return Judgement(min(found.values()) >= WANTED_AUROC, remark)


def mean_rank() -> Cases:
    """Ranks counted one by one, fold by fold."""
    random = np.random.default_rng(0)
    for n_folds in (1, 3):
        fold = random.permutation(np.repeat(np.arange(n_folds), 7))
        a, b = random.normal(size=(2, len(fold))) + 10 * fold
        expected = []
        for i in range(len(fold)):
            same = [j for j in range(len(fold)) if fold[j] == fold[i]]
            ranks = [sum(values[j] <= values[i] for j in same) for values in (a, b)]
            expected.append(sum(ranks) / 2 / len(same))
        yield f"{n_folds} folds", (a, b, fold), np.array(expected)


def one_at_a_time() -> Cases:
    """Standard deviations from the sum of squares."""
    random = np.random.default_rng(0)
    for count in (5, 40):
        normal_a = random.normal(25, 3, count)
        normal_b = random.normal(2, 0.1, count)
        a, b = 31.0, 2.05
        standard = []
        for value, normal in ((a, normal_a), (b, normal_b)):
            mean = sum(normal) / count
            variance = sum((x - mean) ** 2 for x in normal) / (count - 1)
            standard.append((value - mean) / math.sqrt(variance))
        yield f"{count} held-out normal images", (a, b, normal_a, normal_b), sum(standard) / 2
