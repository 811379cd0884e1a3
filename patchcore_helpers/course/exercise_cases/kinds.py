"""The two ways to check an answer: cases with a right result each, or a judge."""

from collections.abc import Iterator
from typing import Any, NamedTuple

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
