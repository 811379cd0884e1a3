"""What a table of AUROCs gives away about how it was made.

None of these checks needs the images or the program. Each asks whether the numbers could have come
from test images at all. Taught in notebook 5.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from patchcore_helpers.errors import InputError
from patchcore_helpers.validation import check_integer


def auroc_error(auroc: float, n_defective: int, n_normal: int) -> float:
    """Standard error that an AUROC of this size has with so many test images.

    Parameters
    ----------
    auroc : float in (0, 1)
    n_defective, n_normal : int, from 1

    Returns
    -------
    float

    Notes
    -----
    Hanley and McNeil, Radiology 143, 1982, equation 1 with the Q of exponential scores. It needs no
    score, only the AUROC that was printed.

    Examples
    --------
    >>> round(auroc_error(0.93, n_defective=63, n_normal=20), 3)
    0.027
    """
    q1 = auroc / (2 - auroc)
    q2 = 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (n_defective - 1) * (q1 - auroc**2)
    variance += (n_normal - 1) * (q2 - auroc**2)
    return float(np.sqrt(variance / (n_defective * n_normal)))


def chance_of_so_little_spread(aurocs: ArrayLike, errors: ArrayLike) -> float:
    """How often independent AUROCs are as even as these, or more even, by chance.

    The most generous case is assumed: that the true AUROCs are all equal. Products that differ
    spread more, so the true chance is lower still.

    Parameters
    ----------
    aurocs, errors : arrays of shape (n,)
        AUROCs of different test sets, at least two, and their standard errors.

    Returns
    -------
    float in [0, 1]
        Small values say that the numbers are too even to come from so few images.

    Raises
    ------
    InputError
        If there are fewer than two, or an error is not above 0.

    Notes
    -----
    The lower tail of the chi-square test of homogeneity: Cochran, Biometrics 10, 1954. The first to
    ask for the lower tail was Fisher, of Mendel's peas (Annals of Science 1, 1936).

    Examples
    --------
    >>> round(chance_of_so_little_spread([0.90, 0.95, 0.93], [0.02, 0.02, 0.02]), 2)
    0.79
    >>> round(chance_of_so_little_spread([0.930, 0.931, 0.930], [0.02, 0.02, 0.02]), 4)
    0.0008
    """
    values = np.asarray(aurocs, float)
    squared = np.square(np.asarray(errors, float))
    if len(values) < 2 or values.shape != squared.shape or not (squared > 0).all():
        raise InputError("aurocs, errors: give at least two AUROCs, each with an error above 0")
    weights = 1 / squared
    mean = (weights * values).sum() / weights.sum()
    statistic = (weights * (values - mean) ** 2).sum()
    return float(stats.chi2.cdf(statistic, len(values) - 1))


def is_possible_auroc(printed: float, n_defective: int, n_normal: int, decimals: int = 4) -> bool:
    """Whether any scores of so many test images give an AUROC that is printed like this.

    An AUROC is a count of pairs: each pair of a defective and a normal image adds 1 to it, 1/2 if
    the two are tied, or 0. So it is a whole number of halves, divided by the number of pairs.

    Parameters
    ----------
    printed : float in [0, 1]
        Rounded to `decimals`.
    n_defective, n_normal : int, from 1
    decimals : int, from 1

    Returns
    -------
    bool

    Notes
    -----
    The check of means by Brown and Heathers (*The GRIM Test*, Social Psychological and Personality
    Science 8, 2017), for AUROCs. It is silent where there are more halves of pairs than decimals.

    Examples
    --------
    >>> is_possible_auroc(0.9333, n_defective=10, n_normal=15)
    True
    >>> is_possible_auroc(0.9350, n_defective=10, n_normal=15)
    False
    """
    halves = (
        2 * check_integer(n_defective, "n_defective", 1) * check_integer(n_normal, "n_normal", 1)
    )
    nearest = np.array([np.floor(printed * halves), np.ceil(printed * halves)]) / halves
    return bool((np.abs(nearest - printed) <= 0.5 * 10.0**-decimals + 1e-12).any())


def share_of_impossible(
    aurocs: Sequence[float], n_defective: int, n_normal: int, decimals: int = 4
) -> float:
    """Share of printed AUROCs that no scores of so many test images can give.

    Parameters
    ----------
    aurocs : sequence of float
    n_defective, n_normal, decimals : see `is_possible_auroc`

    Examples
    --------
    >>> share_of_impossible([0.9333, 0.9350], n_defective=10, n_normal=15)
    0.5
    """
    possible = [is_possible_auroc(value, n_defective, n_normal, decimals) for value in aurocs]
    return 1 - sum(possible) / len(possible)


def insert_invented(real: Sequence[np.ndarray], place: int, seed: int) -> list[np.ndarray]:
    """Tables of AUROCs with one more among them, which no images have given.

    Parameters
    ----------
    real : sequence of float arrays
        AUROCs, printed with four decimals.
    place : int
        Where the invented table goes: from 0 to the number of real ones.
    seed : int

    Returns
    -------
    list of float arrays
        The invented one looks like the others: their mean, plus noise of their spread.
    """
    random = np.random.default_rng(seed)
    together = np.concatenate(real)
    invented = random.normal(together.mean(), max(0.01, together.std()), len(real[0]))
    tables = list(real)
    tables.insert(place, np.round(np.clip(invented, 0.5, 0.995), 4))
    return tables
