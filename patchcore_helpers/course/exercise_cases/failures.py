"""What the answers to the exercises of notebook 8 are checked with."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement, judge_named


def over_representation() -> Cases:
    """Row by row, with a loop."""
    random = np.random.default_rng(0)
    for n_images, n_dirty, n_rows in [(5, 1, 8), (20, 2, 30), (10, 5, 50)]:
        is_dirty = np.arange(n_images) < n_dirty
        origins = np.concatenate([[0], random.integers(0, n_images, n_rows - 1)])
        of_dirty = sum(1 for image in origins.tolist() if image < n_dirty)
        expected = of_dirty / n_rows * n_images / n_dirty
        yield f"{n_dirty} of {n_images} images are dirty", (origins, is_dirty), expected


def new_threshold() -> Cases:
    """Exactly, in fractions: the smallest score that few enough of n + 1 images may exceed."""
    random = np.random.default_rng(0)
    for n, rate in [(20, "1/20"), (19, "1/20"), (18, "1/20"), (60, "1/10"), (39, "1/20")]:
        scores = random.normal(10, 2, n)
        rank = next(k for k in range(n + 2) if Fraction(n + 1 - k, n + 1) <= Fraction(rate))
        expected = sorted(scores.tolist())[rank - 1] if rank <= n else math.inf
        share = float(Fraction(rate))
        yield f"{n} scores, at most {share:.0%} false alarms", (scores, share), expected


def alarms_of_a_day() -> Cases:
    """From a table of four counts."""
    for parts, prevalence, false_alarms, found in [
        (10_000, 0.001, 0.05, 0.9),
        (500, 0.1, 0.02, 0.6),
        (20_000, 0.01, 0.2, 1.0),
    ]:
        defective = parts * prevalence
        alarms = {"good": (parts - defective) * false_alarms, "defective": defective * found}
        total = math.fsum(alarms.values())
        case = f"{parts} parts, {prevalence:.1%} defective"
        yield case, (parts, prevalence, false_alarms, found), (total, alarms["defective"] / total)


def knows_its_place() -> Cases:
    """Patch by patch."""
    random = np.random.default_rng(0)
    for n_images, n_rows, n_columns, weight in [(2, 3, 4, 1.0), (1, 2, 2, 5.0), (2, 5, 3, 0.5)]:
        patches = random.normal(size=(n_images, n_rows, n_columns, 2))
        expected = np.zeros((n_images, n_rows, n_columns, 4))
        for image, row, column in np.ndindex(n_images, n_rows, n_columns):
            place = [weight * row / (n_rows - 1), weight * column / (n_columns - 1)]
            expected[image, row, column] = [*patches[image, row, column], *place]
        yield f"{n_rows} x {n_columns} patches, weight {weight:g}", (patches, weight), expected


def dirty_images(
    answer: Callable[..., Any], *, patches: np.ndarray, is_dirty: np.ndarray
) -> Judgement:
    """More than half of the named images are dirty ones."""
    hidden = np.flatnonzero(is_dirty)
    return judge_named(answer(patches.copy(), len(hidden)), hidden, "defective")


def dirty_images_context() -> dict[str, Any]:
    """Images of noise, of which some have one patch that is far from everything."""
    random = np.random.default_rng(0)
    patches = random.normal(size=(20, 4, 4, 3))
    is_dirty = np.isin(np.arange(20), [7, 12, 18])
    patches[is_dirty, 1, 2, :] += 6 * np.eye(3)
    return {"patches": patches, "is_dirty": is_dirty}
