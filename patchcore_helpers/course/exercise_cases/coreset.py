"""What the answers to the exercises of notebook 3 are checked with."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from patchcore_helpers.core.coreset import k_center_greedy
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement, judge_named
from patchcore_helpers.data.catalog import load_category

FOUND = 0.9  # share of the damaged parts that a clean bank must find


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


def planted_images(
    answer: Callable[..., Any], *, bank_images: np.ndarray, planted: np.ndarray, n_images: int
) -> Judgement:
    """Right if it names as many images as were planted, and more than half of those."""
    return judge_named(answer(bank_images.copy(), n_images, len(planted)), planted, "planted")


def planted_images_context() -> dict[str, Any]:
    """Twenty images of 64 patches around the origin; three have some patches far from it."""
    random = np.random.default_rng(0)
    n_images, planted = 20, np.array([4, 11, 17])
    patches = random.normal(size=(n_images, 64, 8))
    patches[planted, :16] *= 4
    chosen = k_center_greedy(patches.reshape(-1, 8), 64, projection=None).indices
    return {"bank_images": chosen // 64, "planted": planted, "n_images": n_images}


def recurring_defect(
    answer: Callable[[np.ndarray, int], np.ndarray],
    *,
    model: PatchCore,
    train: Sequence[Any],
    fresh: Sequence[Any],
) -> Judgement:
    """Does a bank that has seen the defect miss it, where a clean bank finds it?

    Parameters
    ----------
    answer : callable
        Takes the pixels of a good part and its number, and returns them damaged.
    model : PatchCore
        Its backbone and its image size are used.
    train : sequence of samples
        Good parts to make the banks of. In the dirty bank, one in five is damaged.
    fresh : sequence of samples
        Other good parts. One half sets the threshold; the other half is damaged, and judged.
    """
    good, others = _pixels(train), _pixels(fresh)
    n_dirty = max(1, len(good) // 5)
    calibration, untouched = others[: len(others) // 2], others[len(others) // 2 :]
    damaged = [np.asarray(answer(part.copy(), i)) for i, part in enumerate([*good, *untouched])]
    if any(part.shape != good[0].shape or part.dtype != np.uint8 for part in damaged):
        return Judgement(False, f"return pixels, uint8, of shape {good[0].shape}")
    judged = damaged[len(good) :]
    found = []
    for bank in (good, damaged[:n_dirty] + good[n_dirty:]):
        fitted = PatchCore(model.backbone, image_size=model.image_size, coreset_ratio=0.01)
        highest = fitted.fit(bank).anomaly_scores(calibration).max()
        found.append(np.mean(fitted.anomaly_scores(judged) > highest))
    clean, dirty = found
    remark = f"the clean bank finds {clean:.0%} of the damaged parts, the dirty one {dirty:.0%}"
    return Judgement(bool(clean >= FOUND and dirty <= clean / 2), remark)


def recurring_defect_context() -> dict[str, Any]:
    """A few small solar cells, as the fast profile of the notebook has them."""
    cells = load_category("elpv/mono", seed=0).limit(train=12, test=8)
    fresh = [sample for sample in cells.test if sample.label == 0]
    return {"model": PatchCore(image_size=128), "train": cells.train, "fresh": fresh}


def _pixels(samples: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(sample.read()) for sample in samples]


def dimension_from_radii() -> Cases:
    """Radii that fall as in a known number of dimensions."""
    for dimension in (1, 2.5, 7):
        radii = 8 * np.arange(1, 301) ** (-1 / dimension)
        yield f"radii of a shape with {dimension} dimensions", (radii,), dimension


def trimmed_picks() -> Cases:
    """Step by step, with distances one by one."""
    random = np.random.default_rng(0)
    for n_outliers in (2, 5):
        crowd = random.normal(size=(30, 2)).tolist()
        points = [*crowd[:15], *random.uniform(20, 60, size=(n_outliers, 2)).tolist(), *crowd[15:]]
        spacing = [sorted(math.dist(point, other) for other in points)[3] for point in points]
        limit = sorted(spacing)[-n_outliers]
        inliers = [row for row in range(len(points)) if spacing[row] < limit]
        chosen = [3]
        while len(chosen) < 8:
            nearest = [min(math.dist(points[row], points[i]) for i in chosen) for row in inliers]
            chosen.append(inliers[nearest.index(max(nearest))])
        yield f"{n_outliers} outliers", (np.array(points), 8, 3, n_outliers), chosen
