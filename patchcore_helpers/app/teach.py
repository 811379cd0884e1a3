"""A memory bank goes on learning: from new normal images, and from defects that it has missed.

The threshold has to follow. Most of the new normal images enter the bank, some are held out and
join the calibration images. The scores that a bank file keeps of the earlier calibration images are
those of the earlier bank. Where rows were only added, none of these images scores higher now: the
promise of the threshold still holds, but the threshold is higher than it need be, and finds fewer
defects. So the images are scored again where they are found.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from patchcore_helpers.app.verdicts import image_paths, verdict_word
from patchcore_helpers.core.calibration import Calibration
from patchcore_helpers.core.excuses import Excuse, excuses
from patchcore_helpers.core.index import EXACT
from patchcore_helpers.core.known_images import KnownImages
from patchcore_helpers.core.patchcore import PatchCore
from patchcore_helpers.data.category import split
from patchcore_helpers.errors import InputError

HELD_OUT = 0.2  # of the new normal images, for the threshold


@dataclass(frozen=True)
class State:
    """A model before or after.

    Attributes
    ----------
    rows : int
        Of the memory bank.
    threshold : float
    calibration_images : int
        Behind the threshold.
    false_alarms : int
        How many of them are above it.
    held_out_alarms : int
        How many of the new normal images that are held out are above it.
    """

    rows: int
    threshold: float
    calibration_images: int
    false_alarms: int
    held_out_alarms: int

    @classmethod
    def of(cls, model: PatchCore, held_out_scores: np.ndarray) -> Self:
        """What the model is now, and what it says of the held-out images."""
        threshold, calibration = model.threshold_, model.calibration_
        return cls(
            rows=len(model.bank_),
            threshold=threshold,
            calibration_images=len(calibration.scores),
            false_alarms=calibration.false_alarms(threshold),
            held_out_alarms=int((held_out_scores > threshold).sum()),
        )


@dataclass(frozen=True)
class Missed:
    """A defective image, before and after.

    Attributes
    ----------
    path : Path
    score_before, score_after : float
    verdict_before, verdict_after : "alarm" or "ok"
        By the threshold of the time.
    excuses : list of Excuse
        The rows that excused it; empty if it alarmed before.
    """

    path: Path
    score_before: float
    verdict_before: str
    score_after: float
    verdict_after: str
    excuses: list[Excuse]


@dataclass(frozen=True)
class Teaching:
    """What has changed.

    Attributes
    ----------
    n_known : int
        Images below the folder of normal ones that the bank had seen before; they are left out.
    n_taught, n_held_out : int
        New normal images in the bank, and for the threshold.
    n_rescored, n_kept : int
        Earlier calibration images that were scored again, and those whose scores were kept.
    rows_removed : int
    before, after : State
    missed : list of Missed
    """

    n_known: int
    n_taught: int
    n_held_out: int
    n_rescored: int
    n_kept: int
    rows_removed: int
    before: State
    after: State
    missed: list[Missed]

    @property
    def has_changed(self) -> bool:
        """Whether the memory bank is another one now."""
        return self.n_taught > 0 or self.rows_removed > 0


def teach(
    model: PatchCore,
    normal: Sequence[Path] = (),
    missed: Sequence[Path] = (),
    *,
    remove: bool = False,
    calibration: Sequence[Path] = (),
    false_alarm_rate: float | None = None,
    seed: int = 0,
) -> Teaching:
    """Change a model by new images; what it was is lost.

    Parameters
    ----------
    model : PatchCore
        Calibrated, and from a file that remembers its images, see `refuse_unteachable`.
    normal : sequence of paths
        Normal images. Those that the model has seen before are left out; earlier calibration images
        among them are scored again.
    missed : sequence of paths
        Defective images.
    remove : bool
        Whether the rows that excuse missed images are removed from the memory bank, before the
        normal images are taught.
    calibration : sequence of paths
        Where earlier calibration images are found, by their content, to be scored again.
    false_alarm_rate : float in (0, 1), optional
        The promise of the new threshold; by default that of the earlier one.
    seed : int
        Seed of the choice of the images that are held out.

    Raises
    ------
    InputError
        If no image is new, or too few calibration images are left.
    """
    new = unseen(model, normal)
    if normal and not new:
        raise InputError(f"all {len(normal)} normal images are known to the bank; give new ones")
    held_out, taught = split(new, round(HELD_OUT * len(new)), seed=seed)
    before, missed_before = State.of(model, score(model, held_out)), score(model, missed)
    is_missed = missed_before <= before.threshold
    excused = [
        excuses(model, [path])[0] if was_missed else []
        for path, was_missed in zip(missed, is_missed, strict=True)
    ]
    removed = {excuse.row for rows in excused for excuse in rows} if remove else set()

    earlier = model.calibration_
    n_rescored = n_kept = 0
    after, missed_after = before, missed_before
    if removed:
        model.forget(sorted(removed))
    if taught:
        model.teach(taught)
    if removed or taught:
        found = find_calibration_images(earlier, [*calibration, *normal])
        may_keep = not removed and scores_only_fall(model)
        again = scored_again(model, earlier, found, may_keep=may_keep)
        n_rescored, n_kept = len(found), len(again.scores) - len(found)
        held_out_scores = score(model, held_out)
        calibrate(model, with_held_out(again, held_out, held_out_scores), false_alarm_rate)
        after, missed_after = State.of(model, held_out_scores), score(model, missed)
    return Teaching(
        n_known=len(normal) - len(new),
        n_taught=len(taught),
        n_held_out=len(held_out),
        n_rescored=n_rescored,
        n_kept=n_kept,
        rows_removed=len(removed),
        before=before,
        after=after,
        missed=[
            Missed(
                path,
                float(score_before),
                verdict_word(score_before, before.threshold),
                float(score_after),
                verdict_word(score_after, after.threshold),
                rows,
            )
            for path, score_before, score_after, rows in zip(
                missed, missed_before, missed_after, excused, strict=True
            )
        ],
    )


def refuse_unteachable(path: str | Path, model: PatchCore) -> None:
    """Raise an `InputError` for a bank that cannot be extended, or does not know its images."""
    if not hasattr(model.bank_, "vectors_"):
        raise InputError(
            f"{path}: holds only {model.bank_.index_.kind} codes, which no row can be added to; "
            "fit it again with index='exact'"
        )
    if model.sampler != "k_center":
        raise InputError(
            f"{path}: its rows were chosen at random and have no order to go on with; "
            "fit it again with sampler k_center"
        )
    if model.taught_ is None or model.bank_.coreset_ is None:
        raise InputError(
            f"{path}: comes from an earlier version and does not know where its rows come from; "
            "make it again: patchcore-course new FOLDER"
        )
    if not (hasattr(model, "calibration_") and hasattr(model, "threshold_")):
        raise InputError(
            f"{path}: has no calibration images, so its threshold could not follow; make it with "
            "patchcore-course new FOLDER, or call calibrate before save"
        )


def unseen(model: PatchCore, paths: Sequence[Path]) -> list[Path]:
    """The images that are neither in the memory bank nor calibration images, each once."""
    assert model.taught_ is not None  # see `refuse_unteachable`
    seen = {*model.taught_.digests.tolist(), *model.calibration_.images.digests.tolist()}
    new = []
    for path, digest in zip(paths, KnownImages.of(paths).digests.tolist(), strict=True):
        if digest not in seen:
            seen.add(digest)
            new.append(path)
    return new


def find_calibration_images(earlier: Calibration, paths: Sequence[Path]) -> dict[int, Path]:
    """Where calibration images are: their positions among them, and the paths."""
    by_digest = dict(zip(KnownImages.of(paths).digests.tolist(), paths, strict=True))
    return {
        position: by_digest[digest]
        for position, digest in enumerate(earlier.images.digests.tolist())
        if digest in by_digest
    }


def scores_only_fall(model: PatchCore) -> bool:
    """Whether no image can have a higher score than before when rows are added.

    An approximate index may find another row for reasons of its own, and "reweighted" divides by
    what is around the nearest row.
    """
    is_exact = model.bank_.index_.kind in EXACT
    return is_exact and model.image_score != "reweighted"


def scored_again(
    model: PatchCore, earlier: Calibration, found: dict[int, Path], *, may_keep: bool
) -> Calibration:
    """The calibration with new scores of the images that are found; these come first.

    Parameters
    ----------
    model : PatchCore
        As it is now.
    earlier : Calibration
    found : dict of int to Path
        Positions in `earlier`, and where the images are.
    may_keep : bool
        Whether the other images keep their scores; otherwise they are left out.
    """
    rescored = sorted(found)
    candidates = np.arange(len(earlier.scores) if may_keep else 0)
    kept = np.setdiff1d(candidates, rescored)
    new_scores = score(model, [found[position] for position in rescored])
    return Calibration(
        np.concatenate([new_scores, earlier.scores[kept]]),
        earlier.images.select(np.array([*rescored, *kept], dtype=int)),
        earlier.false_alarm_rate,
    )


def with_held_out(
    calibration: Calibration, held_out: Sequence[Path], scores: np.ndarray
) -> Calibration:
    """The calibration with further images and their scores."""
    return Calibration(
        np.concatenate([calibration.scores, scores]),
        calibration.images.joined(KnownImages.of(held_out)),
        calibration.false_alarm_rate,
    )


def calibrate(
    model: PatchCore, calibration: Calibration, false_alarm_rate: float | None = None
) -> None:
    """Set the threshold; where the scores are too few, say where more come from."""
    if false_alarm_rate is not None:
        calibration = replace(calibration, false_alarm_rate=false_alarm_rate)
    try:
        model.calibrate_by(calibration)
    except InputError as error:
        raise InputError(
            f"{error}; or name the folder of the bank's calibration images: --calibration FOLDER"
        ) from None


def score(model: PatchCore, paths: Sequence[Path]) -> np.ndarray:
    """Image scores, float32; none of no images."""
    return model.anomaly_scores(paths) if paths else np.zeros(0, np.float32)


def images_below(folder: str | Path | None, option: str) -> list[Path]:
    """The images below a folder that an option names; none if it was not given.

    Raises
    ------
    InputError
        If there is no such folder, or no image in it.
    """
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise InputError(f"{option} {folder}: no such folder; name one that holds images")
    return list(image_paths([folder]))


def as_object(teaching: Teaching) -> dict[str, Any]:
    """What `teach --json` prints."""
    values = asdict(teaching)
    for missed in values["missed"]:
        missed["path"] = str(missed["path"])
        missed["excuses"] = [excuse._asdict() for excuse in missed["excuses"]]
    return values
