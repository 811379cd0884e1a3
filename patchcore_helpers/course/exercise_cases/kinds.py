"""The two ways to check an answer: cases with a right result each, or a judge."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

Cases = Iterator[tuple[str, tuple, Any]]  # what the case is, the arguments, the right result


class Judgement(NamedTuple):
    """What a judge says of an answer that has no single right result.

    Attributes
    ----------
    is_right : bool
    remark : str
        A clause that says what came of it, such as "57% of the good cells raise an alarm".
    """

    is_right: bool
    remark: str


def judge_named(named: Any, hidden: np.ndarray, what: str) -> Judgement:
    """Right if as many images are named as were hidden, and more than half of those.

    Parameters
    ----------
    named : array-like of int
        The numbers of the images that the learner names.
    hidden : int array
        The numbers of those to be found.
    what : str
        What is true of the hidden ones, such as "planted".

    Examples
    --------
    >>> judge_named([3, 1, 8], np.array([1, 3, 5]), "planted")
    Judgement(is_right=True, remark='2 of the 3 images that you named were planted')
    """
    numbers = np.unique(np.asarray(named, int).ravel())
    if len(numbers) != len(hidden):
        return Judgement(False, f"name {len(hidden)} different images, not {len(numbers)}")
    found = int(np.isin(numbers, hidden).sum())
    remark = f"{found} of the {len(hidden)} images that you named were {what}"
    return Judgement(found > len(hidden) / 2, remark)
