"""What the answers to the exercises of notebook 1 are checked with."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from patchcore_helpers.core.metrics import image_auroc
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.core.traps import image_traits
from patchcore_helpers.course.exercise_cases.kinds import Cases, Judgement, judge_named
from patchcore_helpers.data.catalog import load_category

SAME_LIGHT = 0.1  # by how much a change of place may change the mean and the spread of the gray
VISIBLE = 30  # gray levels by which a damaged pixel differs
DAMAGED = 0.02  # share of the pixels that a damage changes visibly, at least
SILENT = 0.1  # share of the cells that may raise an alarm all the same

Change = Callable[[np.ndarray], np.ndarray]


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


def real_alarms() -> Cases:
    """Counted part by part, on a line long enough to hold whole parts of every kind."""
    for found, false_alarms, prevalence in [(0.8, 0.03, 0.001), (0.5, 0.5, 0.25), (0.9, 0.01, 0.5)]:
        n_parts = 1_000_000
        n_defective = round(n_parts * prevalence)
        n_real = round(n_defective * found)
        n_false = round((n_parts - n_defective) * false_alarms)
        described = f"found {found}, false alarms {false_alarms}, prevalence {prevalence}"
        yield described, (found, false_alarms, prevalence), n_real / (n_real + n_false)


def harmless_change(answer: Change, *, model: PatchCore, cells: Sequence[Any]) -> Judgement:
    """Is the cell the same in another place, and does more than half of the good cells alarm?"""
    before = _pixels(cells)
    after = _changed(answer, before)
    if after is None:
        return Judgement(False, "return an array of pixels, uint8, of shape (height, width, 3)")
    for old, new in zip(before, after, strict=True):
        for measure, name in ((np.mean, "mean"), (np.std, "spread")):
            ratio = measure(new) / max(measure(old), 1e-9)
            if abs(ratio - 1) > SAME_LIGHT:
                return Judgement(
                    False, f"the {name} of the gray levels became {ratio:.2f} times what it was"
                )
    share = np.mean(model.anomaly_scores(after) > model.threshold_)
    return Judgement(bool(share > 0.5), f"{share:.0%} of the good cells raise an alarm")


def silent_damage(answer: Change, *, model: PatchCore, cells: Sequence[Any]) -> Judgement:
    """Is the damage visible, and do nearly all of the cells pass?"""
    before = _pixels(cells)
    after = _changed(answer, before)
    if after is None:
        return Judgement(False, "return an array of pixels, uint8, of shape (height, width, 3)")
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape:
            return Judgement(False, f"shape {new.shape}, not {old.shape}")
        share = np.mean(np.abs(old.astype(int) - new).max(axis=2) >= VISIBLE)
        if share < DAMAGED:
            return Judgement(
                False, f"only {share:.1%} of a cell's pixels changed by {VISIBLE} gray levels"
            )
    share = np.mean(model.anomaly_scores(after) > model.threshold_)
    return Judgement(bool(share <= SILENT), f"{share:.0%} of the damaged cells raise an alarm")


def contested_labels(
    answer: Callable[..., Any], *, scores: np.ndarray, labels: np.ndarray, mislabeled: np.ndarray
) -> Judgement:
    """Right if it names as many images as have a wrong label, and more than half of those."""
    named = answer(scores.copy(), labels.copy(), len(mislabeled))
    return judge_named(named, mislabeled, "entered wrongly")


def contested_labels_context() -> dict[str, Any]:
    """Thirty functional parts and thirty defective ones that score higher; four entered wrongly."""
    random = np.random.default_rng(0)
    scores = np.concatenate([random.normal(size=30), random.normal(4, 1, size=30)])
    mislabeled = 30 + np.argsort(scores[30:])[14:18]  # neither the faintest nor the clearest
    labels = np.repeat([0, 1], 30)
    labels[mislabeled] = 0
    return {"scores": scores, "labels": labels, "mislabeled": mislabeled}


def own_detector(
    answer: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    bank: np.ndarray,
    patches: np.ndarray,
    labels: np.ndarray,
    floor: float,
) -> Judgement:
    """Does the detector get further than a score that looks for no defect?"""
    scores = np.asarray(answer(bank.copy(), patches.copy()), dtype=float)
    if scores.shape != labels.shape or not np.isfinite(scores).all():
        return Judgement(False, f"return {len(labels)} finite scores, one for each image")
    auroc = image_auroc(labels, scores)
    assert auroc is not None
    return Judgement(auroc > floor, f"image AUROC {auroc:.3f}, the floor is {floor:.3f}")


def _pixels(cells: Sequence[Any]) -> list[np.ndarray]:
    return [np.asarray(cell.read()) for cell in cells]


def _changed(change: Change, cells: list[np.ndarray]) -> list[np.ndarray] | None:
    """The cells after a change; None if it does not return pixels."""
    changed = [np.asarray(change(pixels.copy())) for pixels in cells]
    is_right = all(c.dtype == np.uint8 and c.ndim == 3 and c.shape[2] == 3 for c in changed)
    return [np.ascontiguousarray(pixels) for pixels in changed] if is_right else None


@cache
def _small_page() -> dict[str, Any]:
    """A detector of few small solar cells, as the fast profile of the notebook has it."""
    products = load_category("elpv/mono", seed=0).limit(train=16, test=24)
    model = PatchCore(image_size=128).fit(products.train).calibrate(products.calibration)
    return {"products": products, "model": model}


def harmless_change_context() -> dict[str, Any]:
    page = _small_page()
    good = [sample for sample in page["products"].test if sample.label == 0]
    return {"model": page["model"], "cells": good[:10]}


def silent_damage_context() -> dict[str, Any]:
    return harmless_change_context()


def own_detector_context() -> dict[str, Any]:
    page = _small_page()
    products, model = page["products"], page["model"]
    gray = image_traits(products.test)["mean gray level"].to_numpy()
    floor = image_auroc(products.labels, -gray)
    patches = model.extractor_.extract(products.test)
    bank = model.bank_.vectors_[:256]
    return {"bank": bank, "patches": patches, "labels": products.labels, "floor": floor}
