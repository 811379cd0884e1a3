"""A threshold with a promised false-alarm rate, and how far the actual rate may be from it.

The promise is for new images that are exchangeable with the calibration images: of the same
products, cameras and days. It does not travel to another group of images, such as the next solar
module, whose normal images may all score higher. There, scores of k normal images *of the new
group* can take the place of the old ones: ``conformal_threshold(scores_of_those_k, rate)``. The
promise then holds again, for the rest of that group and on average over the choice of the k, if
these are drawn from all of the group: the first k that come by may be a group of their own. The
price is that k has to be at least 1 / rate - 1 (19 images for 5 %, 9 for 10 %): with fewer, only an
infinite threshold, which never alarms, keeps the promise, and `recalibrated_threshold` says so.
`benchmarks/groups.py` measures it on stretches of ELPV.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from patchcore_helpers.errors import InputError
from patchcore_helpers.validation import check_integer, check_real


def conformal_threshold(scores: np.ndarray, false_alarm_rate: float = 0.05) -> float:
    """A threshold from the scores of normal images that were not in the memory bank.

    The ceil((n + 1)(1 - rate))-th smallest of n scores (split conformal prediction, Vovk et al.
    2005): a new normal image, exchangeable with those, exceeds it with a probability of at most the
    rate.

    Parameters
    ----------
    scores : array of float, shape (n,)
    false_alarm_rate : float in (0, 1)

    Returns
    -------
    float

    Raises
    ------
    InputError
        If n is too small for the rate: at least 1 / rate - 1 scores are needed.

    Examples
    --------
    >>> conformal_threshold(np.arange(1, 20), 0.05)
    19.0
    """
    scores = np.sort(np.asarray(scores, dtype=float))
    return float(scores[_rank(len(scores), false_alarm_rate) - 1])


def _rank(n: int, false_alarm_rate: float) -> int:
    """Which of n sorted scores is the threshold, counted from 1."""
    rank = _rank_or_beyond(n, false_alarm_rate)
    if rank > n:
        raise InputError(
            f"{n} normal images are too few for false_alarm_rate={false_alarm_rate}: "
            f"give at least {math.ceil(1 / false_alarm_rate - 1 - 1e-9)}, or a higher rate"
        )
    return rank


def _rank_or_beyond(n: int, false_alarm_rate: float) -> int:
    """The rank that the rate asks for; n + 1 where n scores are too few."""
    check_real(false_alarm_rate, "false_alarm_rate", 0, 1, include="neither", what="a share")
    return math.ceil((n + 1) * (1 - false_alarm_rate) - 1e-9)


def recalibrated_threshold(scores: np.ndarray, false_alarm_rate: float = 0.05) -> float:
    """The threshold for a new group of images, from a few of its normal images.

    As `conformal_threshold`, but where there are too few scores for the rate, the threshold that
    keeps the promise all the same: infinity. No image of the group is then alarmed about.

    Parameters
    ----------
    scores : array of float, shape (k,)
        Of normal images of the new group that are not in the memory bank; k may be 0.
    false_alarm_rate : float in (0, 1)

    Returns
    -------
    float

    Examples
    --------
    >>> [recalibrated_threshold(np.arange(k), 0.05) for k in (40, 20, 19, 10)]
    [38.0, 19.0, 18.0, inf]
    """
    scores = np.sort(np.asarray(scores, dtype=float))
    rank = _rank_or_beyond(len(scores), false_alarm_rate)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


class FalseAlarms(NamedTuple):
    """The expected false-alarm rate and the interval that holds the actual one."""

    mean: float
    low: float
    high: float


def false_alarm_interval(
    n: int, rate: float = 0.05, confidence: float = 0.95, n_new: int | None = None
) -> FalseAlarms:
    """How far the false-alarm rate of one `conformal_threshold` may lie from what is promised.

    The promise holds on average over calibration sets. The threshold from one set of n scores, of
    rank r = ceil((n + 1)(1 - rate)), has a rate of its own: of the next normal images, a share is
    above it that is distributed as Beta(n + 1 - r, r) where scores are continuous (a threshold that
    is an order statistic; Vovk 2012). What is then counted among `n_new` further images scatters
    around that share in turn: beta-binomial.

    Parameters
    ----------
    n : int
        Calibration images.
    rate : float in (0, 1)
        The promised false-alarm rate.
    confidence : float in (0, 1)
        Confidence of the equal-tailed interval.
    n_new : int, optional
        Give the interval of the rate that is observed among `n_new` further normal images.

    Returns
    -------
    FalseAlarms
        mean, (n + 1 - r) / (n + 1), is at most `rate`.

    Raises
    ------
    InputError
        If n is too small for the rate, or a number is out of bounds.

    Notes
    -----
    Vovk, "Conditional validity of inductive conformal predictors", ACML 2012, arXiv 1209.2673.

    Examples
    --------
    >>> [round(share, 3) for share in false_alarm_interval(19, 0.05)]
    [0.05, 0.001, 0.176]
    >>> [round(share, 3) for share in false_alarm_interval(188, 0.05, n_new=200)]
    [0.048, 0.015, 0.095]
    """
    check_real(confidence, "confidence", 0, 1, include="neither", what="a share")
    if n_new is not None:
        check_integer(n_new, "n_new", 1)
    rank = _rank(n, rate)
    above = n + 1 - rank
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    if n_new is None:
        low, high = stats.beta.ppf(tails, above, rank)
    else:
        low, high = stats.betabinom.ppf(tails, n_new, above, rank) / n_new
    return FalseAlarms(above / (n + 1), float(low), float(high))
