"""What a threshold costs on a line whose share of defects is not that of the test images.

AUROC, and the two rates below, do not depend on how many of the parts are defective. What an alarm
means, and what a threshold costs, does. Taught in notebook 1.
"""

from collections.abc import Callable

import numpy as np


def alarm_rates(labels: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[float, float]:
    """Shares of the normal and of the defective images that score above a threshold.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
        Both must occur.
    scores : array of float, shape (n,)
    threshold : float

    Returns
    -------
    false_alarms, found : float

    Examples
    --------
    >>> alarm_rates(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.5, 4.0]), 2.0)
    (0.5, 1.0)
    """
    alarms = scores > threshold
    return float(alarms[labels == 0].mean()), float(alarms[labels == 1].mean())


def outcomes_per_thousand(rates: tuple[float, float], prevalence: float) -> np.ndarray:
    """Of 1,000 parts: good and passed, good with an alarm, defective and found, and missed.

    Parameters
    ----------
    rates : (float, float)
        As `alarm_rates` returns them.
    prevalence : float in (0, 1)
        Share of defective parts.

    Returns
    -------
    float array of shape (4,)

    Examples
    --------
    >>> outcomes_per_thousand((0.03, 0.8), 0.01).round(1).tolist()
    [960.3, 29.7, 8.0, 2.0]
    """
    false_alarms, found = rates
    good, defective = 1000 * (1 - prevalence), 1000 * prevalence
    parts = [good * (1 - false_alarms), good * false_alarms]
    return np.array([*parts, defective * found, defective * (1 - found)])


def cost_per_thousand(counts: np.ndarray, cost_of_miss: float) -> float:
    """The cost of what `outcomes_per_thousand` counts, in false alarms.

    Parameters
    ----------
    counts : array of shape (4,)
    cost_of_miss : float
        A missed defect costs as much as so many false alarms.

    Examples
    --------
    >>> cost_per_thousand(np.array([960.0, 30.0, 8.0, 2.0]), 10)
    50.0
    """
    return float(counts[1] + cost_of_miss * counts[3])


def cost_curve(
    labels: np.ndarray, scores: np.ndarray, prevalence: float, cost_of_miss: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cost per 1,000 parts of every threshold that makes a difference, in false alarms.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)
    prevalence : float in (0, 1)
    cost_of_miss : float

    Returns
    -------
    thresholds, costs : float arrays
        From just below the lowest score, where everything alarms, to the highest, where nothing
        does.

    Examples
    --------
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 4.0])
    >>> cost_curve(labels, scores, prevalence=0.5, cost_of_miss=1)[1].tolist()
    [500.0, 250.0, 500.0, 250.0, 500.0]
    """
    levels = np.concatenate([[scores.min() - 1e-6], np.unique(scores)])
    good, defective = (np.sort(scores[labels == label]) for label in (0, 1))
    false_alarms = 1 - np.searchsorted(good, levels, side="right") / len(good)
    missed = np.searchsorted(defective, levels, side="right") / len(defective)
    return levels, 1000 * ((1 - prevalence) * false_alarms + cost_of_miss * prevalence * missed)


def precision(rates: tuple[float, float], prevalence: float) -> float | None:
    """The share of alarms that are real, by Bayes' rule; None where there is no alarm.

    Parameters
    ----------
    rates : (float, float)
        As `alarm_rates` returns them.
    prevalence : float in (0, 1)
        Share of defective parts.

    Examples
    --------
    >>> round(precision((0.03, 0.8), 0.001), 3)
    0.026
    """
    _, false_alarms, found, _ = outcomes_per_thousand(rates, prevalence)
    alarms = false_alarms + found
    return float(found / alarms) if alarms else None


def resampling_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    statistic: Callable[[np.ndarray, np.ndarray], float | None],
    draws: int = 500,
    confidence: float = 0.95,
    random_state: int = 0,
) -> tuple[float, float]:
    """An interval for other test images of the same kind: the bootstrap, class by class.

    Parameters
    ----------
    labels : array of 0 and 1, shape (n,)
    scores : array of float, shape (n,)
    statistic : callable
        Of labels and scores; draws for which it is None are left out.
    draws : int
    confidence : float in (0, 1)
    random_state : int

    Returns
    -------
    low, high : float
        NaN if the statistic is None in every draw.

    Notes
    -----
    Percentile bootstrap (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993).

    Examples
    --------
    >>> labels = np.repeat([0, 1], 50)
    >>> low, high = resampling_interval(labels, np.arange(100.0), lambda _, s: s.mean())
    >>> low < 49.5 < high
    True
    """
    rng = np.random.default_rng(random_state)
    members = [np.flatnonzero(labels == label) for label in (0, 1)]
    values = []
    for _ in range(draws):
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in members])
        value = statistic(labels[drawn], scores[drawn])
        if value is not None:
            values.append(value)
    if not values:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
