"""Show and check the exercises that `exercises.yaml` holds.

In a notebook, an exercise is one cell tagged ``exercise-<name>``: the stub, two empty lines and
``exercises.check("<name>", <name>)``, with ``_`` for ``-`` in the variable. A stub returns ``...``
and counts as blank.
"""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import yaml
from IPython.display import Markdown, display

from patchcore_helpers.course import exercise_cases
from patchcore_helpers.errors import InputError

strict = os.environ.get("PATCHCORE_STRICT_EXERCISES") == "1"  # blank and wrong answers raise
_LOOK = {"right": ("#009e73", "✔"), "blank": ("#009e73", "○"), "wrong": ("#c00", "✘")}

Case = tuple[str, tuple, Any]  # what the case is, the arguments, the right answer


@dataclass(frozen=True)
class Exercise:
    """One exercise: the learner writes the body of a function.

    Attributes
    ----------
    name : str
        Such as ``"nearest-distance"``.
    notebook : str
        The name of the notebook that asks it.
    signature : str
        Of the function, such as ``"nearest_distance(patch, bank)"``.
    question, hint : str
    solution : str
        A body that is right.
    wrong : list of str
        Bodies that a learner might well write.
    cases : callable
        Yields what an answer is checked with: a description of the case, the arguments, and the
        right result.
    """

    name: str
    notebook: str
    signature: str
    question: str
    hint: str
    solution: str
    wrong: list[str]
    cases: Callable[[], Iterator[Case]]

    def source(self, body: str = "return ...") -> str:
        """The source of the function with this body; by default, the stub."""
        return f"def {self.signature}:\n{indent(dedent(body).strip(), '    ')}"

    def mistake(self, answer: Callable[..., Any]) -> str:
        """A sentence on what is wrong with an answer, a function; empty if it is right."""
        for case, arguments, expected in self.cases():
            result = answer(*copy.deepcopy(arguments))  # it may change its arguments
            difference = _difference(result, expected)
            if difference:
                return f"for {case} it gave {difference}"
        return ""


def _difference(result: Any, expected: Any) -> str:
    """How a result differs from the expected number, array, list or None; empty if it does not."""
    if isinstance(expected, list):
        result = list(result)
    elif np.shape(result) != np.shape(expected):
        holds_one_number = np.ndim(expected) == 0 and np.size(result) == 1
        if not holds_one_number:
            return f"shape {np.shape(result)}, not {np.shape(expected)}"
    if isinstance(expected, list | None) or isinstance(result, str | None):
        return "" if result == expected else f"{result}, not {expected}"
    results = np.ravel(result)
    expectations = np.ravel(expected)
    wrong = np.flatnonzero(~np.isclose(results, expectations))
    if len(wrong) == 0:
        return ""
    return f"{float(results[wrong[0]]):.6g}, not {expectations[wrong[0]]:.6g}"


def _read_exercises() -> dict[str, Exercise]:
    """The exercises by name, in the order of the file."""
    text = Path(__file__).with_name("exercises.yaml").read_text("utf-8")
    exercises = {}
    for name, record in yaml.safe_load(text).items():
        cases = getattr(exercise_cases, name.replace("-", "_"))
        exercises[name] = Exercise(name, cases=cases, **record)
    return exercises


EXERCISES = _read_exercises()


class ExerciseError(AssertionError):
    """An answer was blank or wrong where only right ones pass."""


class _Blank(Exception):
    """The answer is still the stub."""


def judge(name: str, answer: Any) -> tuple[str, str]:
    """Judge an answer without showing anything.

    Parameters
    ----------
    name : str
        Of the exercise.
    answer : callable
        The function that the learner has written. Anything else is wrong, too.

    Returns
    -------
    status : {"right", "blank", "wrong"}
    message : str

    Raises
    ------
    InputError
        If there is no such exercise.

    Examples
    --------
    >>> judge("nearest-distance", lambda patch, bank: ...)
    ('blank', 'write the answer and run the cell again')
    >>> judge("nearest-distance", lambda patch, bank: 0)[0]
    'wrong'
    """
    exercise = _find(name)

    def raise_if_blank(*arguments: Any, **options: Any) -> Any:
        result = answer(*arguments, **options)
        if result is ...:
            raise _Blank
        return result

    try:
        mistake = exercise.mistake(raise_if_blank)
    except _Blank:
        return "blank", "write the answer and run the cell again"
    except Exception as error:  # whatever an answer does, the lesson goes on
        mistake = f"it stopped with {type(error).__name__}: {error}"
    if mistake:
        return "wrong", f"{mistake}. Hint: {exercise.hint}"
    return "right", "well done"


def check(name: str, answer: Any) -> None:
    """Show whether an answer is right, see `judge`.

    Raises
    ------
    InputError
        If there is no such exercise.
    ExerciseError
        If the answer is not right and `strict` is set, as in tests.
    """
    status, message = judge(name, answer)
    color, sign = _LOOK[status]
    text = f"{sign} {name}, {status}: {message}"
    box = f'<p style="border-left: 6px solid {color}; padding: 6px">{escape(text)}</p>'
    metadata = {"exercise": {"name": name, "status": status}}
    display({"text/html": box, "text/plain": text}, metadata=metadata, raw=True)
    if strict and status != "right":
        raise ExerciseError(text)


def question(name: str) -> Markdown:
    """Show the question of an exercise."""
    return Markdown(f"**Exercise: {name}.** {_find(name).question}")


def hint(name: str) -> Markdown:
    """Show the hint of an exercise."""
    return Markdown(f"**Hint.** {_find(name).hint}")


def solution(name: str) -> Markdown:
    """Show a right answer to an exercise."""
    exercise = _find(name)
    return Markdown(f"```python\n{exercise.source(exercise.solution)}\n```")


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise InputError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
