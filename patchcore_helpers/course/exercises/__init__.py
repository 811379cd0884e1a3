"""Show and check the exercises of the course.

`<notebook>.yaml` beside this file holds the exercises of a notebook, in its order. In a notebook,
an exercise is one cell tagged ``exercise-<name>``: the stub, two empty lines and
``exercises.check("<name>", <name>)``, with ``_`` for ``-`` in the variable. A stub returns ``...``
and counts as blank.

There are three kinds. *check*: write a function that computes what is asked. *explore*: change
something, predict, look; whatever works is right. *build*: write a piece of PatchCore. The last two
may need objects of the page: ``exercises.check("<name>", <name>, model=model)``.
"""

import copy
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import yaml
from IPython.display import Markdown, display

from patchcore_helpers.course.exercise_cases import MODULES
from patchcore_helpers.course.exercise_cases.kinds import Judgement
from patchcore_helpers.course.quizzes import quiz
from patchcore_helpers.errors import InputError

__all__ = ["EXERCISES", "Exercise", "ExerciseError", "check", "hint", "judge", "question", "quiz"]
__all__ += ["solution", "strict"]

strict = os.environ.get("PATCHCORE_STRICT_EXERCISES") == "1"  # blank and wrong answers raise
KINDS = ("check", "explore", "build")
_LOOK = {"right": ("#009e73", "✔"), "blank": ("#767676", "○"), "wrong": ("#c00", "✘")}


@dataclass(frozen=True)
class Exercise:
    """One exercise: the learner writes the body of a function.

    Attributes
    ----------
    name : str
        Such as ``"nearest-distance"``.
    notebook : str
        The name of the notebook that asks it.
    kind : "check", "explore" or "build"
    signature : str
        Of the function, such as ``"nearest_distance(patch, bank)"``.
    question, hint : str
    solution : str
        A body that is right.
    wrong : list of str
        Bodies that a learner might well write.
    checker : callable
        Yields cases, or judges; see `patchcore_helpers.course.exercise_cases`.
    """

    name: str
    notebook: str
    kind: str
    signature: str
    question: str
    hint: str
    solution: str
    wrong: list[str]
    checker: Callable[..., Any]

    def source(self, body: str = "return ...") -> str:
        """The source of the function with this body; by default, the stub."""
        return f"def {self.signature}:\n{indent(dedent(body).strip(), '    ')}"

    def judge(self, answer: Callable[..., Any], page: Mapping[str, Any]) -> Judgement:
        """Judge an answer, a function, with the objects of the page that its check asks for."""
        if not inspect.isgeneratorfunction(self.checker):
            return self.checker(answer, **page)
        for case, arguments, expected in self.checker(**page):
            result = answer(*copy.deepcopy(arguments))  # it may change its arguments
            difference = _difference(result, expected)
            if difference:
                return Judgement(False, f"for {case} it gave {difference}")
        return Judgement(True, "well done")


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
    """The exercises by name, in the order of the course."""
    exercises = {}
    for notebook, checks in MODULES.items():
        text = Path(__file__).with_name(f"{notebook}.yaml").read_text("utf-8")
        for name, record in yaml.safe_load(text).items():
            checker = getattr(checks, name.replace("-", "_"))
            exercises[name] = Exercise(name, notebook, checker=checker, **record)
    return exercises


EXERCISES = _read_exercises()


class ExerciseError(AssertionError):
    """An answer was blank or wrong where only right ones pass."""


class _Blank(Exception):
    """The answer is still the stub."""


def judge(name: str, answer: Any, **page: Any) -> tuple[str, str]:
    """Judge an answer without showing anything.

    Parameters
    ----------
    name : str
        Of the exercise.
    answer : callable
        The function that the learner has written. Anything else is wrong, too.
    **page
        Objects of the page that the exercise needs.

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
        judgement = exercise.judge(raise_if_blank, page)
    except _Blank:
        return "blank", "write the answer and run the cell again"
    except Exception as error:  # whatever an answer does, the lesson goes on
        judgement = Judgement(False, f"it stopped with {type(error).__name__}: {error}")
    return "right" if judgement.is_right else "wrong", judgement.remark


def check(name: str, answer: Any, **page: Any) -> None:
    """Show whether an answer is right, see `judge`, and below it, folded, a hint and a solution.

    Raises
    ------
    InputError
        If there is no such exercise.
    ExerciseError
        If the answer is not right and `strict` is set, as in tests.
    """
    exercise = _find(name)
    status, message = judge(name, answer, **page)
    color, sign = _LOOK[status]
    text = f"{sign} {name}, {status}: {message}"
    hint_text = _with_code(exercise.hint)
    solution_text = escape(exercise.source(exercise.solution))
    box = (
        f'<div style="border-left: 6px solid {color}; padding: 6px">{escape(text)}'
        f"<details><summary>Hint</summary>{hint_text}</details>"
        f"<details><summary>Solution</summary><pre>{solution_text}</pre></details></div>"
    )
    metadata = {"exercise": {"name": name, "status": status}}
    display({"text/html": box, "text/plain": text}, metadata=metadata, raw=True)
    if strict and status != "right":
        raise ExerciseError(text)


def _with_code(text: str) -> str:
    """A text as HTML, where what stands between backticks is code.

    >>> _with_code("Take `a < b`.")
    'Take <code>a &lt; b</code>.'
    """
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def question(name: str) -> Markdown:
    """Show the question of an exercise."""
    exercise = _find(name)
    return Markdown(f"**Exercise: {name}** ({exercise.kind}). {exercise.question}")


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
